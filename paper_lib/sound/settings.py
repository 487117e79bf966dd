"""How much of an effect: the knobs of Table 1's effects, and values drawn for them. Notebook 17.

Table 1 has one value for each knob. With `settings: drawn` every clip of a data set gets values of
its own, each drawn evenly over the knob's range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .effects import CHORUS_VOICES, Chain


@dataclass(frozen=True)
class Knob:
    """One parameter of one effect: its range, and on which scale it is drawn and judged."""

    effect: str
    name: str  # gain | rate | depth | delay | feedback | mix | decay | frequency
    least: float
    most: float
    unit: str
    log: bool = False

    @property
    def column(self) -> str:
        """Its name in a data set's index: `tremolo.rate`."""
        return f"{self.effect}.{self.name}"

    def value(self, place):
        """0 to 1 -> least to most, evenly on the knob's scale."""
        if self.log:
            return self.least * (self.most / self.least) ** place
        return self.least + (self.most - self.least) * place

    def place(self, value):
        """The other way: least to most -> 0 to 1."""
        if self.log:
            return np.log(np.asarray(value) / self.least) / math.log(self.most / self.least)
        return (np.asarray(value) - self.least) / (self.most - self.least)


def _delay(effect: str) -> list[Knob]:
    """Three echoes, at 1, 2 and 3 times the delay: as loud as mix, mix feedback, mix feedback^2.

    (Table 1: 200 ms; 0.4, 0.2, 0.1. In the feedback delay SoX's `echos` sends each echo through the
    later ones, too: they come out 1, 2 and 3 times as loud.)
    """
    return [
        Knob(effect, "delay", 80, 400, "ms", log=True),
        Knob(effect, "feedback", 0.2, 0.8, "ratio"),
        Knob(effect, "mix", 0.15, 0.7, "ratio"),
    ]


def _equalizer(effect: str, gains: tuple[float, float], hz: tuple[float, float]) -> list[Knob]:
    return [Knob(effect, "gain", *gains, "dB"), Knob(effect, "frequency", *hz, "Hz", log=True)]


LOW, HIGH = (80, 400), (2000, 8000)  # Hz (clips of 16 kHz end at 8000)
KNOBS = (
    Knob("overdrive", "gain", 2, 10, "dB"),
    Knob("distortion", "gain", 10, 25, "dB"),
    # of the five voices' means; their proportions stay Table 1's
    Knob("chorus", "rate", 0.15, 2.4, "Hz", log=True),
    Knob("chorus", "depth", 0.6, 6, "ms"),
    Knob("chorus", "mix", 0.1, 0.4, "ratio"),
    Knob("flanger", "rate", 0.1, 5, "Hz", log=True),
    Knob("flanger", "depth", 1, 10, "ms"),
    Knob("flanger", "feedback", 0, 90, "%"),
    Knob("phaser", "rate", 0.1, 2, "Hz", log=True),
    Knob("phaser", "delay", 1, 5, "ms"),
    Knob("phaser", "feedback", 0.1, 0.5, "ratio"),
    Knob("tremolo", "rate", 1, 12, "Hz", log=True),
    Knob("tremolo", "depth", 20, 100, "%"),
    Knob("reverb", "decay", 20, 100, "%"),
    Knob("reverb", "mix", -10, 5, "dB"),
    *_delay("feedback_delay"),
    *_delay("slapback_delay"),
    *_equalizer("low_boost", (4, 16), LOW),
    *_equalizer("low_reduct", (-16, -4), LOW),
    *_equalizer("high_boost", (8, 24), HIGH),
    *_equalizer("high_reduct", (-24, -8), HIGH),
)


def draw(chain: Chain, rng: np.random.Generator) -> dict[str, float]:
    """A value, to four digits, for every knob of a chain: `column` -> value."""
    knobs = [knob for knob in KNOBS if knob.effect in chain]
    return {knob.column: float(f"{knob.value(rng.random()):.4g}") for knob in knobs}


def arguments(effect: str, settings: dict[str, float]) -> dict:
    """What pysox's method for `effect` has to be given beside Table 1's arguments.

    settings: values as `draw` makes them; none of this effect: nothing.
    """
    mine = {c.split(".")[1]: value for c, value in settings.items() if c.startswith(f"{effect}.")}
    if not mine:
        return {}
    if effect == "chorus":
        means = {"speeds": mine["rate"], "depths": mine["depth"], "decays": mine["mix"]}
        return {name: _with_mean(name, mean) for name, mean in means.items()}
    if effect in ("feedback_delay", "slapback_delay"):
        return {
            "delays": [mine["delay"] * k for k in (1, 2, 3)],
            "decays": [mine["mix"] * mine["feedback"] ** k for k in (0, 1, 2)],
        }
    names = {
        "gain": "gain_db",
        "rate": "speed",
        "feedback": "regen" if effect == "flanger" else "decay",
        "decay": "reverberance",
        "mix": "wet_gain",
    }
    return {names.get(name, name): value for name, value in mine.items()}


def _with_mean(name: str, mean: float) -> list[float]:
    """Table 1's values of a chorus's voices in their proportions, to four digits, of this mean."""
    values = np.array(CHORUS_VOICES[name])
    return [float(f"{value:.4g}") for value in values * mean / values.mean()]
