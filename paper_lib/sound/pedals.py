"""The same kinds of effects by other hands (notebook 11).

pedalboard's (Spotify, after JUCE), and the TAP and CAPS plugins (LADSPA, two Debian packages), for
which SoX is the host. Set near Table 1 where two have the same knob (drive, cut-off and gain of the
shelves, rate of the tremolo, time and fading of the echoes), else by their own makers' names: a
chorus has long delays, a flanger short ones. pedalboard has no overdrive and no tremolo.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pedalboard

from ..core.errors import PaperError
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


def _shelf(band: str, frequency: int, gain: int) -> str:
    """One of the four bands of CAPS' equalizer as a shelf (0: low, 2: high), the others off."""
    off, mode = "-1 1000 0.25 0", {"a": 0, "d": 2}[band]
    bands = [f"{mode} {frequency} 0.25 {gain}" if one == band else off for one in "abcd"]
    return f"caps Eq4p {' '.join(bands)}"


STEREO = ("PlateX2", "tap_stereo_echo")  # plugins that want two channels
LADSPA: dict[str, str] = {  # in SoX's words: file, plugin, knobs
    "overdrive": "tap_sigmoid tap_sigmoid 5 0",
    "distortion": "tap_sigmoid tap_sigmoid 15 0",
    "chorus": "caps ChorusI 40 2 0.3 0.5 0.5 0",
    "flanger": "caps ChorusI 2.5 2 0.5 0.5 0.5 0.3",
    "phaser": "caps PhaserII 0.4 0 0.75 0.75 0.25",
    "tremolo": "tap_tremolo tap_tremolo 6 40 0",
    "reverb": "caps PlateX2 0.75 0.6 0.5 0.4",
    "feedback_delay": "tap_echo tap_stereo_echo 200 50 200 50 -8 -8 0 0 0 0",
    "slapback_delay": "tap_echo tap_stereo_echo 200 0 200 0 -8 -8 0 0 0 0",
    "low_boost": _shelf("a", 200, 10),
    "low_reduct": _shelf("a", 200, -10),
    "high_boost": _shelf("d", 8000, 20),
    "high_reduct": _shelf("d", 8000, -20),
}


def _folders() -> str:
    """Where the plugins lie: LADSPA_PATH, or where Debian puts them."""
    return os.environ.get("LADSPA_PATH", "/usr/lib/ladspa:/usr/local/lib/ladspa")


def require_plugins() -> None:
    """`PaperError` if the plugins of `LADSPA` are not here."""
    files = sorted({words.split()[0] for words in LADSPA.values()})
    there = lambda file: any(Path(one, f"{file}.so").exists() for one in _folders().split(":"))
    missing = [file for file in files if not there(file)]
    if missing:
        raise PaperError(
            f"the LADSPA plugins are off, {', '.join(missing)} is not here: as root on Debian, "
            "apt-get install tap-plugins caps."
        )


def render(
    samples: np.ndarray, rate: int, effect: str, maker: str = "pedalboard", lead: float = 3.0
) -> np.ndarray:
    """One effect over (n,) int16 at `rate` Hz, after `lead` seconds of silence: (n,) int16.

    `maker`: "pedalboard" or "LADSPA".
    """
    before = round(lead * rate)
    if maker == "LADSPA":
        sound = np.concatenate([np.zeros(before, np.int16), samples])
        return _in_sox(LADSPA[effect], sound, rate)[before : before + len(samples)]
    padded = np.concatenate([np.zeros(before, np.float32), audio.to_float(samples)])
    made = PEDALS[effect]()(padded, rate, reset=True)
    return audio.to_int16(made[before:].clip(-1, 1))


def _in_sox(plugin: str, samples: np.ndarray, rate: int) -> np.ndarray:
    """(n,) int16 through one plugin (pysox has no method for that effect of SoX)."""
    words = ["ladspa", *plugin.split()]
    if words[2] in STEREO:
        words = ["channels", "2", *words, "remix", "-"]
    raw = ["-t", "raw", "-r", str(rate), "-e", "signed", "-b", "16", "-c", "1", "-"]
    done = subprocess.run(
        ["sox", "-V1", "-D", *raw, *raw, *words],
        input=samples.astype("<i2").tobytes(),
        capture_output=True,
        env=os.environ | {"LADSPA_PATH": _folders()},
    )
    if done.returncode:
        require_plugins()
        raise PaperError(f"SoX failed on {plugin}: {done.stderr.decode().strip()}")
    return np.frombuffer(done.stdout, "<i2").astype(np.int16)
