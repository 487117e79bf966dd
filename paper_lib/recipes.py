"""Recipes of fine-tuning, compared with several seeds on validation. Appendix A2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from . import codec, keyed
from .dataset import Dataset
from .profiles import Profile
from .recognizer import EffectRecognizer, Head
from .training import early_head, finetune_upper, head_data, train_head

HIGH = {"upper_optimiser": "adamw", "upper_rate": 3e-3, "upper_head_rate": 1e-3, "upper_seconds": 0.0, "upper_batch": 16}  # gets somewhere in a few thousand steps
MUON = {"upper_optimiser": "muon", "upper_rate": 1e-3, "upper_head_rate": 1e-3, "upper_seconds": 1.5, "upper_batch": 16}  # profile quick's
# Which head training begins with, and what is other than in the profile.
RECIPES = {
    "early head, two rates": ("early", HIGH),
    "head alone (control)": ("early", HIGH | {"upper_rate": 0.0}),
    "converged head": ("converged", HIGH),
    "converged, small rates": ("converged", HIGH | {"upper_rate": 3e-4, "upper_head_rate": 3e-4, "upper_batch": 4}),
    "fresh head (both at once)": ("fresh", HIGH),
    "no warm-up": ("early", HIGH | {"warmup": 0.0}),
    "Muon on excerpts": ("converged", MUON),
    "the paper's rates": ("early", HIGH | {"upper_rate": 1e-5}),
    "input not standardised": ("early", HIGH | {"standardise": False}),
}


def compare(profile: Profile, data: Dataset, seeds: int = 3) -> pd.DataFrame:
    """Each of `RECIPES` on the encoder's upper half, with several seeds, on a part of the recordings: one row an epoch (recipe, seed and
    the history's columns; epoch 0 is the start). `recipe_recordings` to train on, a third as many of the validation set to judge."""
    drawn = lambda split: sorted(set(data.index.recording[data.rows(split)]), key=lambda name: keyed(profile.seed, "recipes", name).random())
    few = lambda split, n: np.flatnonzero(data.index.recording.isin(drawn(split)[:n]) & (data.index.split == split))
    rows = few("train", profile.recipe_recordings), few("validation", -(-profile.recipe_recordings // 3))
    curves = []
    for i, (name, (begin, changes)) in enumerate(RECIPES.items()):
        for seed in range(profile.seed, profile.seed + seeds):
            run = replace(profile, seed=seed, **changes)
            clips = head_data(run, data, *rows)
            head, history = train_head(*clips, run, run.standardise)
            if begin == "early":
                head = early_head(run, history, *clips)
            elif begin == "fresh":
                head.layers = Head(len(head.mean), run.hidden, run.dropout).layers
            start = EffectRecognizer.assemble(codec.load(run.codec), head, run.pooling)
            _, curve = finetune_upper(run, data, f"recipes/{i}_{seed}", start=start, epochs=run.recipe_epochs, train_rows=rows[0], validation_rows=rows[1])
            curves.append(curve.assign(recipe=name, seed=seed))
    return pd.concat(curves, ignore_index=True)
