"""A recording -> which effects are on it, window by window, or why that cannot be told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..core.errors import PaperError
from ..sound import audio, effects

SHORTEST = 0.5  # s: less of a guitar says nothing
SILENT = -70.0  # dB full scale: at or below the noise floor of the recordings that were learned
CLIPPED = 0.02  # share of samples at full scale: the recorder's distortion hides a pedal's


def windows(samples: np.ndarray, seconds: float) -> list[np.ndarray]:
    """Consecutive windows of (n,) samples at 16 kHz; the last one if it is half or all there is."""
    length = int(seconds * audio.CODEC_RATE)
    starts = range(0, max(1, len(samples)), length)
    return [samples[s : s + length] for s in starts if s == 0 or 2 * (len(samples) - s) >= length]


def cannot_tell(window: np.ndarray) -> str:
    """Why nothing can be said about a window: too short, silent or clipped; empty if it can."""
    if len(window) < SHORTEST * audio.CODEC_RATE:
        return "too short"
    if audio.level_db(window) < SILENT:
        return "silent"
    if np.mean(np.abs(window) >= 0.999) > CLIPPED:
        return "clipped"
    return ""


def recognize(
    model: nn.Module, path: Path | str, seconds: float = 5.0
) -> list[tuple[str, np.ndarray]]:
    """What `model` hears in consecutive windows of an audio file of any rate and channels.

    A window each: why it cannot be told (empty: it can), and (13,) probabilities (then NaN). A
    short last window is padded with zeros.
    """
    if not 0.1 <= seconds < 3600:
        raise PaperError(
            f"the window must last 0.1 s or longer (and less than an hour), not {seconds:g}."
        )
    found = []
    for part in windows(audio.read(path, audio.CODEC_RATE, at_least=0.1), seconds):
        why, probability = cannot_tell(part), np.full(len(effects.NAMES), np.nan, np.float32)
        if not why:
            length = int(seconds * audio.CODEC_RATE)
            padded = torch.from_numpy(np.pad(part, (0, length - len(part))))
            with torch.inference_mode():
                probability = torch.sigmoid(model(padded[None]))[0].numpy()
        found.append((why, probability))
    return found


def named(probability: np.ndarray, thresholds: np.ndarray | float = 0.5) -> list[str]:
    """The effects that are there, most probable first: at most one of each group of Table 1.

    Of several effects of a group above their thresholds (13,), the one farthest above it.
    """
    above = np.asarray(probability) - thresholds
    best: dict[str, int] = {}
    for i in np.flatnonzero(above > 0):
        group = effects.EFFECTS[i].group
        if group not in best or above[i] > above[best[group]]:
            best[group] = int(i)
    return [effects.NAMES[i] for i in sorted(best.values(), key=lambda i: -probability[i])]
