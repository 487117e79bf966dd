"""Training audio for the codec, made on the fly: other sounds than the guitar.

Appendix A1, section 1.

Tones with other envelopes and partials, vibrato and tremolo, noise bursts, speech-like pulses
through formants, and mixtures of these; every sound is keyed by its number, so that a resumed
training hears the same.
"""

from __future__ import annotations

import numpy as np
import scipy

from ..core.random import generator_for

# Hz, first three formants
VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
)


def _envelope(rng, n: int, rate: int) -> np.ndarray:
    """Attack of 1 to 200 ms, then a decay of 50 ms to 3 s or a plateau, from a random onset on."""
    t = np.arange(n) / rate - rng.uniform(-0.5, 0.6) * n / rate
    rise = np.clip(t / 10 ** rng.uniform(-3, -0.7), 0, 1)
    if rng.random() < 0.7:
        return rise * np.exp(-np.maximum(t, 0) / 10 ** rng.uniform(-1.3, 0.5))
    return rise


def _pitch(rng, n: int, rate: int, low: float, high: float) -> np.ndarray:
    """(n,) phase in cycles of a pitch between `low` and `high` Hz.

    It glides a little, with vibrato.
    """
    t = np.arange(n) / rate
    middle = low * (high / low) ** rng.random()
    glide = rng.normal(0, 0.05) * t  # in octaves
    vibrato = rng.uniform(0, 0.03) * np.sin(2 * np.pi * rng.uniform(3, 8) * t)
    return np.cumsum(middle * 2 ** (glide + vibrato)) / rate


def _tone(rng, n: int, rate: int) -> np.ndarray:
    phase, slope = _pitch(rng, n, rate, 60, 1200), rng.uniform(0.5, 2.5)
    top = int(min(40, 0.45 * rate / (np.diff(phase).max() * rate)))
    return sum(
        k**-slope * rng.uniform(0.2, 1) * np.sin(2 * np.pi * (k * phase + rng.random()))
        for k in range(1, max(2, top))
    )


def _noise(rng, n: int, rate: int) -> np.ndarray:
    pole = rng.uniform(0.0, 0.98) * np.exp(2j * np.pi * rng.uniform(0, 0.5))
    return scipy.signal.lfilter(
        [1.0], [1.0, -2 * pole.real, abs(pole) ** 2], rng.standard_normal(n)
    )


def _voice(rng, n: int, rate: int) -> np.ndarray:
    phase = _pitch(rng, n, rate, 80, 300)
    x = np.diff(np.floor(phase), prepend=0.0) + 0.01 * rng.standard_normal(n)
    for formant in VOWELS[rng.integers(len(VOWELS))]:
        radius = np.exp(-np.pi * 80 / rate)
        angle = 2 * np.pi * formant * rng.uniform(0.9, 1.1) / rate
        x = scipy.signal.lfilter([1 - radius], [1.0, -2 * radius * np.cos(angle), radius**2], x)
    return x


def sound(i: int, samples: int, rate: int) -> np.ndarray:
    """(samples,) float32, peak 1: sound number `i`.

    One to three layers of tone, noise and voice.
    """
    rng, out = generator_for(0, "sound", i), np.zeros(samples)
    for _ in range(rng.integers(1, 4)):
        kind = (_tone, _noise, _voice)[rng.choice(3, p=(0.5, 0.2, 0.3))]
        layer = kind(rng, samples, rate) * _envelope(rng, samples, rate)
        out += 10 ** rng.uniform(-1, 0) * layer / (np.abs(layer).max() + 1e-9)
    room = 10 ** rng.uniform(-4, -2) * rng.standard_normal(samples)  # a room is never silent
    out = out / (np.abs(out).max() + 1e-9) + room
    return (out / np.abs(out).max()).astype(np.float32)
