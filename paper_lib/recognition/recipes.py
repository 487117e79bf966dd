"""Recipes of fine-tuning, compared with several seeds on validation. Appendices A2 and A3."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch

from ..codec import l3ac
from ..core import machine
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from ..sound.dataset import Dataset
from . import peers
from .finetune import Beside, early_head, finetune, half_way, head_data, upper_half
from .head import Head, train_head
from .model import EffectRecognizer, released

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


# What lifts the last of them, one at a time: what is other in the profile, and in the recipe.
LIFTS: dict[str, tuple[Changes, Changes]] = {
    "the recipe": ({}, {}),
    "twice the epochs": ({}, {"epochs": 2}),
    "excerpts of 3 s": ({"upper_seconds": 3.0}, {}),
    "half the rates": ({"upper_rate": 5e-4, "upper_head_rate": 5e-4}, {}),
    "averaged weights": ({}, {"average": 0.998}),
    "recorded otherwise": ({"upper_draws": 1}, {}),
    "soft labels of the CNN": ({}, {}),
    "the CNN's frames": ({}, {"dense": 1.0}),
    "mixed with another chain": ({}, {"mixed": True}),
    "pairs of one slice": ({}, {"pairs": True}),
}


def compare(profile: Profile, data: Dataset, seeds: int = 3) -> pd.DataFrame:
    """Each of `RECIPES` on the encoder's upper half, with several seeds.

    On `recipe_recordings` of the training recordings, judged on a third as many of the validation
    set. One row an epoch: recipe, seed and the history's columns; epoch 0 is the start.
    """
    rows, curves = _rows(profile, data, profile.recipe_recordings), []
    for i, (name, (begin, changes)) in enumerate(RECIPES.items()):
        for seed in range(profile.seed, profile.seed + seeds):
            run = replace(profile, **changes)
            start = _start(run, _head(run, data, rows, begin, seed))
            recipe = upper_half(run, epochs=run.recipe_epochs, seed=seed)
            _, curve = finetune(run, data, recipe, start, f"recipes/{i}_{seed}", rows)
            curves.append(curve.assign(recipe=name, seed=seed))
    return pd.concat(curves, ignore_index=True)


def lift(profile: Profile, data: Dataset, seeds: int = 3) -> pd.DataFrame:
    """Each of `LIFTS` for `lift_epochs` on `lift_recordings`; several trainings at a time.

    Returns what `compare` does.
    """
    rows = _rows(profile, data, profile.lift_recordings)
    every = range(profile.seed, profile.seed + seeds)
    base = replace(profile, **MUON, upper_draws=0, threads=1)
    heads = {seed: _head(base, data, rows, "converged", seed) for seed in every}
    drawn, start = replace(base, upper_draws=1), _start(base, heads[profile.seed])
    half_way(drawn, data, start, rows[0])  # (once for all, on all cores)
    soft = Beside(targets=(data.labels + _taught(data)) / 2)
    frames = _frames(data, rows[0])
    slices = data.index.groupby(["recording", "slice"], sort=False).ngroup().to_numpy()
    jobs, names = [], []
    for i, (name, (changes, others)) in enumerate(LIFTS.items()):
        epochs = profile.lift_epochs * others.get("epochs", 1)
        run, beside = replace(base, **changes), soft if name.startswith("soft") else Beside()
        if others.get("dense"):
            beside = replace(beside, frames=frames)
        if others.get("mixed") or others.get("pairs"):
            beside = replace(beside, slices=slices)
        for seed in every:
            recipe = upper_half(run, **others | {"epochs": epochs, "seed": seed})
            job = (run, data.folder, recipe, heads[seed], f"lifts/{i}_{seed}", rows, beside)
            jobs.append(joblib.delayed(_lifted)(*job))
            names.append((name, seed))
    curves = joblib.Parallel(machine.cores())(jobs)
    found = [c.assign(recipe=n, seed=s) for c, (n, s) in zip(curves, names, strict=True)]
    return pd.concat(found, ignore_index=True)


def _lifted(run: Profile, folder: Path, recipe, head, name: str, rows, beside) -> pd.DataFrame:
    return finetune(run, Dataset(folder), recipe, _start(run, head), name, rows, beside)[1]


def _taught(data: Dataset) -> np.ndarray:
    """(clips, 13) what the released CNN says about the training clips; 0 for the others."""
    said, train = np.zeros_like(data.labels), data.rows("train")
    said[train] = torch.sigmoid(peers.logits_of(_teacher(), data, train)).numpy()
    return said


def _frames(data: Dataset, rows: np.ndarray) -> np.ndarray:
    """(rows, moments, 384) float16: what the released CNN makes of these clips at each moment.

    Before its mean over time; each feature standardised over all of them.
    """
    teacher, found = _teacher(), []
    with torch.inference_mode():
        for row in rows:
            picture = teacher.mel.lower(torch.from_numpy(data.clips([row])))[:, None]
            found.append(teacher.blocks(picture).flatten(1, 2)[0].T.numpy())
    frames = np.stack(found)
    frames = (frames - frames.mean((0, 1))) / (frames.std((0, 1)) + 1e-6)
    return frames.astype(np.float16)


def _teacher() -> peers.MelRecognizer:
    found = released("cnn", peers.MelRecognizer)
    if found is None:
        raise PaperError("data/weights/cnn is missing: git checkout data/weights brings it back.")
    return found[0]


def _start(run: Profile, head: Head) -> EffectRecognizer:
    return EffectRecognizer.assemble(l3ac.load(run.codec), head, run.pooling)


def _head(
    run: Profile, data: Dataset, rows: tuple[np.ndarray, np.ndarray], begin: str, seed: int
) -> Head:
    """A head of the pretrained codec on these rows: early, converged or fresh."""
    train, validation = head_data(run, data, rows)
    head, history = train_head(train, validation, run, run.standardise, seed)
    if begin == "early":
        head = early_head(run, history, train, validation, seed)
    elif begin == "fresh":
        head.layers = Head(len(head.mean), run.hidden, run.dropout).layers
    return head


def _rows(profile: Profile, data: Dataset, few: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips of `few` of the training recordings, and of a third as many to judge."""
    train = _drawn(profile, data, "train", few)
    return train, _drawn(profile, data, "validation", -(-few // 3))


def _drawn(profile: Profile, data: Dataset, split: str, n: int) -> np.ndarray:
    """Rows of `n` recordings of a split, drawn by key."""
    names = sorted(set(data.index.recording[data.rows(split)]))
    drawn = sorted(names, key=lambda name: generator_for(profile.seed, "recipes", name).random())
    of_these = data.index.recording.isin(drawn[:n])
    return np.flatnonzero(of_these & (data.index.split == split))
