"""A recording -> which effects are on it, window by window, or why that cannot be told."""

from __future__ import annotations

import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import nn

from ..core.errors import PaperError
from ..sound import audio, effects

# why it cannot be told (empty: it can), and (13,) probabilities (NaN where it cannot)
Answer = tuple[str, np.ndarray]
SHORTEST = 0.5  # s: less of a guitar says nothing
SILENT = -70.0  # dB full scale: at or below the noise floor of the recordings that were learned
CLIPPED = 0.02  # share of samples at full scale: the recorder's distortion hides a pedal's


def windows(samples: np.ndarray, seconds: float, hop: float = 0.0) -> list[np.ndarray]:
    """Windows of (n,) samples at 16 kHz, one begun every `hop` s (0: end to end).

    The last ones are cut short by the end; one less than half full is left out, but for the first.
    """
    length, step = (round(s * audio.CODEC_RATE) for s in (seconds, hop or seconds))
    starts = range(0, max(1, len(samples)), step)
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


def judge(
    model: nn.Module, window: np.ndarray, seconds: float, dry: np.ndarray | None = None
) -> Answer:
    """What `model` hears in one window at 16 kHz; a short one is padded with zeros.

    dry: (64,), the spectrum of the same guitar without effects, for a model that wants one.
    """
    why, probability = cannot_tell(window), np.full(len(effects.NAMES), np.nan, np.float32)
    if not why:
        length = round(seconds * audio.CODEC_RATE)
        window = window[:length]  # (resampling may have added one)
        padded = torch.from_numpy(np.pad(window, (0, length - len(window))))
        inputs = [padded[None]] + ([] if dry is None else [torch.from_numpy(dry)[None]])
        with torch.inference_mode():
            probability = torch.sigmoid(model(*inputs))[0].numpy()
    return why, probability


def recognize(
    model: nn.Module,
    path: Path | str,
    seconds: float = 5.0,
    dry: np.ndarray | None = None,
    hop: float = 0.0,
) -> list[Answer]:
    """What `model` hears in the `windows` of an audio file of any rate and channels."""
    _check(seconds, hop)
    samples = audio.read(path, audio.CODEC_RATE, at_least=0.1)
    return [judge(model, part, seconds, dry) for part in windows(samples, seconds, hop)]


def overall(answers: list[Answer]) -> Answer:
    """One answer for all windows: the mean probabilities of those that can be told.

    Where none can, the commonest reason.
    """
    told = [row for why, row in answers if not why]
    if told:
        return "", np.mean(told, 0)
    reasons = Counter(why for why, _ in answers) or Counter(["too short"])
    return reasons.most_common(1)[0][0], np.full(len(effects.NAMES), np.nan, np.float32)


def stream(
    model: nn.Module,
    pipe: BinaryIO,
    seconds: float = 5.0,
    dry: np.ndarray | None = None,
    hop: float = 0.0,
) -> Iterator[Answer]:
    """The same of a 16-bit WAV that is still being recorded, window by window as they fill.

    An answer comes one window, and the time that `judge` takes, after the sound that it is about
    began.
    """
    _check(seconds, hop)
    try:
        sound = wave.open(pipe)  # noqa: SIM115 (not ours to close)
        width, rate, channels = sound.getsampwidth(), sound.getframerate(), sound.getnchannels()
    except (wave.Error, EOFError) as problem:
        why = str(problem) or "it ends too soon"
        raise PaperError(
            f"standard input is no WAV ({why}): pipe one in, e.g. sox -d -b 16 -t wav -."
        ) from problem
    if width != 2:
        raise PaperError(f"standard input holds {8 * width}-bit samples: make them 16 (sox -b 16).")
    length, step = (round(s * rate) for s in (seconds, hop or seconds))
    held, first = np.zeros(0, np.float32), True
    while True:
        data = sound.readframes(length - len(held))
        # (the pipe may stop amid a frame)
        data = data[: len(data) - len(data) % (width * channels)]
        fresh = audio.to_float(np.frombuffer(data, "<i2").reshape(-1, channels)).mean(1)
        held = np.concatenate([held, fresh])
        if not len(held) or not (first or 2 * len(held) >= length):  # (as in `windows`)
            return
        yield judge(model, audio.resample(held, rate, audio.CODEC_RATE), seconds, dry)
        held, first = held[step:], False


def _check(seconds: float, hop: float) -> None:
    if not 0.1 <= seconds < 3600:
        raise PaperError(
            f"the window must last 0.1 s or longer (and less than an hour), not {seconds:g}."
        )
    if hop and not 0.1 <= hop <= seconds:
        raise PaperError(
            f"windows must begin every 0.1 s at most and leave no gap: a hop of 0.1 to {seconds:g} "
            f"s, not {hop:g}."
        )


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
