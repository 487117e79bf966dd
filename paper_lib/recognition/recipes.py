"""Recipes of fine-tuning, compared with several seeds on validation. Appendix A2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..codec import l3ac
from ..core.config import Profile
from ..core.random import generator_for
from ..sound.dataset import Dataset
from .finetune import early_head, finetune, head_data, upper_half
from .head import Head, train_head
from .model import EffectRecognizer

Changes = dict[str, Any]  # of the profile: parameter -> value

# gets somewhere in a few thousand steps
HIGH: Changes = {
    "upper_optimiser": "adamw",
    "upper_rate": 3e-3,
    "upper_head_rate": 1e-3,
    "upper_seconds": 0.0,
    "upper_batch": 16,
}
# profile quick's
MUON: Changes = {
    "upper_optimiser": "muon",
    "upper_rate": 1e-3,
    "upper_head_rate": 1e-3,
    "upper_seconds": 1.5,
    "upper_batch": 16,
}
# Which head training begins with, and what is other than in the profile.
RECIPES: dict[str, tuple[str, Changes]] = {
    "early head, two rates": ("early", HIGH),
    "head alone (control)": ("early", HIGH | {"upper_rate": 0.0}),
    "converged head": ("converged", HIGH),
    "converged, small rates": (
        "converged",
        HIGH | {"upper_rate": 3e-4, "upper_head_rate": 3e-4, "upper_batch": 4},
    ),
    "fresh head (both at once)": ("fresh", HIGH),
    "no warm-up": ("early", HIGH | {"warmup": 0.0}),
    "Muon on excerpts": ("converged", MUON),
    "the paper's rates": ("early", HIGH | {"upper_rate": 1e-5}),
    "input not standardised": ("early", HIGH | {"standardise": False}),
}


def compare(profile: Profile, data: Dataset, seeds: int = 3) -> pd.DataFrame:
    """Each of `RECIPES` on the encoder's upper half, with several seeds.

    On a part of the recordings: `recipe_recordings` to train on, a third as many of the validation
    set to judge. One row an epoch: recipe, seed and the history's columns; epoch 0 is the start.
    """
    few = -(-profile.recipe_recordings // 3)
    rows = (
        _drawn(profile, data, "train", profile.recipe_recordings),
        _drawn(profile, data, "validation", few),
    )
    curves = []
    for i, (name, (begin, changes)) in enumerate(RECIPES.items()):
        for seed in range(profile.seed, profile.seed + seeds):
            run = replace(profile, **changes)
            train, validation = head_data(run, data, rows)
            head, history = train_head(train, validation, run, run.standardise, seed)
            if begin == "early":
                head = early_head(run, history, train, validation, seed)
            elif begin == "fresh":
                head.layers = Head(len(head.mean), run.hidden, run.dropout).layers
            start = EffectRecognizer.assemble(l3ac.load(run.codec), head, run.pooling)
            recipe = upper_half(run, epochs=run.recipe_epochs, seed=seed)
            _, curve = finetune(run, data, recipe, start, f"recipes/{i}_{seed}", rows)
            curves.append(curve.assign(recipe=name, seed=seed))
    return pd.concat(curves, ignore_index=True)


def _drawn(profile: Profile, data: Dataset, split: str, n: int) -> np.ndarray:
    """Rows of `n` recordings of a split, drawn by key."""
    names = sorted(set(data.index.recording[data.rows(split)]))
    drawn = sorted(names, key=lambda name: generator_for(profile.seed, "recipes", name).random())
    of_these = data.index.recording.isin(drawn[:n])
    return np.flatnonzero(of_these & (data.index.split == split))
