"""A recording as another guitar, microphone and room might have it (`varied`, `other`, `mixed`).

Synthetic recordings differ in their strings; real ones also in all that lies between string and
file. Each recording draws its own: pickup position, colour, room, level, noise floor, hum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy  # (scipy.signal is loaded when it is first used: it takes two seconds)

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Family:
    """From where recordings of one family draw what lies between string and file."""

    colour: float  # dB, deviation of an equalizer's gains
    decay: tuple[float, float]  # s of a room, to 60 dB below
    wet: tuple[float, float]  # dB of a room beside the direct sound
    level: tuple[float, float]  # dB full scale: mean and deviation
    noise: tuple[float, float]  # dB full scale
    hum: float  # share of recordings that have any


HEARD = Family(5, (0.1, 0.6), (-30, -14), (-29, 4), (-80, -55), 0.3)
# what a recognizer is asked about and never trained on (corpus `other`)
OTHER = Family(8, (0.6, 1.2), (-16, -8), (-24, 5), (-60, -48), 0.6)
PARTS = ("pickup", "equalizer", "room", "level", "noise", "hum")


def vary(
    samples: np.ndarray,
    rate: int,
    rng: np.random.Generator,
    family: Family = HEARD,
    without: str = "",
) -> np.ndarray:
    """(n,) float32 in [-1, 1] at `rate` Hz -> another recording of the same performance.

    `without` one of `PARTS`: that one is drawn like the others, and left out.
    """
    out = samples.astype(np.float64)
    if rng.random() < 0.5:
        heard = pickup(out, rate, delay=rng.uniform(0.2e-3, 1.5e-3), depth=rng.uniform(0.2, 0.8))
        out = out if without == "pickup" else heard
    heard = equalizer(out, rate, gains_db=rng.normal(0, family.colour, 6))
    out = out if without == "equalizer" else heard
    decay, wet = rng.uniform(*family.decay), rng.uniform(*family.wet)
    heard = room(out, rate, decay, wet, rng)
    out = out if without == "room" else heard
    level = np.clip(rng.normal(*family.level), -42, -18)
    level = family.level[0] if without == "level" else level
    out *= 10 ** (level / 20) / (np.sqrt(np.mean(out**2)) + 1e-9)
    noise = scipy.signal.lfilter([1], [1, -rng.uniform(0, 0.95)], rng.standard_normal(len(out)))
    noise *= 10 ** (rng.uniform(*family.noise) / 20) / noise.std()
    out = out if without == "noise" else out + noise
    if rng.random() < family.hum:
        mains = float(rng.choice([50, 60]))
        heard = out + hum(len(out), rate, mains, level_db=rng.uniform(-80, -58))
        out = out if without == "hum" else heard
    return (out * min(1.0, 0.95 / np.abs(out).max())).astype(np.float32)


def pickup(x: np.ndarray, rate: int, delay: float, depth: float) -> np.ndarray:
    """What a pickup hears where the string's echo from the bridge, `delay` s later, cancels it."""
    n = round(delay * rate)
    return x - depth * np.concatenate([np.zeros(n), x[: len(x) - n]])


def equalizer(x: np.ndarray, rate: int, gains_db: np.ndarray) -> np.ndarray:
    """A smooth filter through these gains, evenly spaced on a logarithmic axis of 60 Hz to 16 kHz.

    Linear phase, its delay taken off.
    """
    points = np.geomspace(60, 16_000, len(gains_db))
    bins = np.linspace(0, rate / 2, 513)
    gains = 10 ** (np.interp(np.log(np.maximum(bins, 1)), np.log(points), gains_db) / 20)
    taps = scipy.signal.firwin2(1025, bins / (rate / 2), gains)
    return scipy.signal.fftconvolve(x, taps)[512 : 512 + len(x)]


def room(
    x: np.ndarray, rate: int, decay: float, wet_db: float, rng: np.random.Generator
) -> np.ndarray:
    """Diffuse reverberation that falls by 60 dB in `decay` s, `wet_db` below the direct sound."""
    t = np.arange(int(decay * rate)) / rate
    tail = scipy.signal.lfilter([0.4], [1, -0.6], rng.standard_normal(len(t)))  # darker than white
    tail *= 10 ** (-3 * t / decay)
    early = int(rng.uniform(0.002, 0.012) * rate)
    tail[:early] = 0
    wet = scipy.signal.fftconvolve(x, tail)[: len(x)]
    ratio = np.sqrt(np.mean(x**2) / (np.mean(wet**2) + 1e-20))
    return x + wet * ratio * 10 ** (wet_db / 20)


def hum(n: int, rate: int, mains: float, level_db: float) -> np.ndarray:
    """Mains and its odd harmonics, together at `level_db` (RMS, full scale)."""
    t = np.arange(n) / rate
    wave = sum(np.sin(2 * np.pi * mains * k * t) / k for k in (1, 3, 5, 7))
    return wave / np.sqrt(np.mean(wave**2)) * 10 ** (level_db / 20)


def as_recorded_otherwise(audio: torch.Tensor) -> torch.Tensor:
    """(batch, samples) at 16 kHz -> the same, each at another level, equalized, with noise.

    What `peers.vary` does to a spectrogram: a level (deviation 4.3 dB), an equalizer through five
    random points, evenly spaced in mel (3.5 dB), white noise at -90 to -60 dB full scale. Drawn by
    torch's own generator, which the loop seeds at every step.
    """
    import torch  # (nothing else in this package needs it: it takes two seconds to load)

    batch, n = audio.shape
    draw = partial(torch.randn, device=audio.device)
    mel = torch.log1p(torch.linspace(0, 8000, n // 2 + 1, device=audio.device) / 700)
    place = 4 * mel / mel[-1]
    hats = (1 - (place - torch.arange(5, device=audio.device)[:, None]).abs()).clamp_min(0)
    gains_db = 4.3 * draw(batch, 1) + 3.5 * draw(batch, 5) @ hats
    heard = torch.fft.irfft(torch.fft.rfft(audio) * 10 ** (gains_db / 20), n)
    floor_db = -90 + 30 * torch.rand(batch, 1, device=audio.device)
    return heard + 10 ** (floor_db / 20) * draw(batch, n)
