"""The same kinds of effects by other hands: pedalboard's (Spotify, after JUCE; notebook 11).

Set near Table 1 where the two have the same knob (cut-off and gain of the shelves, time and fading
of the echoes), else at pedalboard's own middle. Overdrive and tremolo it has not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pedalboard

from . import audio

PEDALS: dict[str, Callable[[], pedalboard.Plugin]] = {
    "distortion": lambda: pedalboard.Distortion(drive_db=25),
    "chorus": lambda: pedalboard.Chorus(rate_hz=1.0, depth=0.25, centre_delay_ms=8.0, mix=0.5),
    "flanger": lambda: pedalboard.Chorus(
        rate_hz=0.5, depth=0.3, centre_delay_ms=1.5, feedback=0.4, mix=0.5
    ),
    "phaser": lambda: pedalboard.Phaser(rate_hz=0.5, depth=0.7, feedback=0.4),
    "reverb": lambda: pedalboard.Reverb(room_size=0.8, wet_level=0.4, dry_level=0.6),
    "feedback_delay": lambda: pedalboard.Delay(delay_seconds=0.2, feedback=0.5, mix=0.4),
    "slapback_delay": lambda: pedalboard.Delay(delay_seconds=0.2, feedback=0.0, mix=0.4),
    "low_boost": lambda: pedalboard.LowShelfFilter(cutoff_frequency_hz=200, gain_db=10),
    "low_reduct": lambda: pedalboard.LowShelfFilter(cutoff_frequency_hz=200, gain_db=-10),
    "high_boost": lambda: pedalboard.HighShelfFilter(cutoff_frequency_hz=8000, gain_db=20),
    "high_reduct": lambda: pedalboard.HighShelfFilter(cutoff_frequency_hz=8000, gain_db=-20),
}


def render(samples: np.ndarray, rate: int, effect: str, lead: float = 3.0) -> np.ndarray:
    """One effect over (n,) int16 at `rate` Hz, after `lead` seconds of silence: (n,) int16."""
    before = round(lead * rate)
    sound = np.concatenate([np.zeros(before, np.float32), audio.to_float(samples)])
    made = PEDALS[effect]()(sound, rate, reset=True)
    return audio.to_int16(made[before:].clip(-1, 1))
