"""A recording as another guitar, microphone and room might have it (corpus `varied`).

Synthetic recordings differ in their strings; real ones also in all that lies between string and
file. Each recording draws its own: pickup position, colour, room, level, noise floor, hum.
"""

from __future__ import annotations

import numpy as np
import scipy  # (scipy.signal is loaded when it is first used: it takes two seconds)


def vary(samples: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) float32 in [-1, 1] at `rate` Hz -> another recording of the same performance."""
    out = samples.astype(np.float64)
    if rng.random() < 0.5:
        out = pickup(out, rate, delay=rng.uniform(0.2e-3, 1.5e-3), depth=rng.uniform(0.2, 0.8))
    out = equalizer(out, rate, gains_db=rng.normal(0, 5, 6))
    out = room(out, rate, decay=rng.uniform(0.1, 0.6), wet_db=rng.uniform(-30, -14), rng=rng)
    level = np.clip(rng.normal(-29, 4), -42, -18)
    out *= 10 ** (level / 20) / (np.sqrt(np.mean(out**2)) + 1e-9)
    noise = scipy.signal.lfilter([1], [1, -rng.uniform(0, 0.95)], rng.standard_normal(len(out)))
    out += noise / noise.std() * 10 ** (rng.uniform(-80, -55) / 20)
    if rng.random() < 0.3:
        out += hum(len(out), rate, float(rng.choice([50, 60])), level_db=rng.uniform(-80, -58))
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
