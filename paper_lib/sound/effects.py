"""Table 1 as data, and the chain plans. Notebook 01, section 2.

13 effects in 6 mutually exclusive groups, as SoX applies them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations, pairwise, product
from pathlib import Path

from ..core.errors import PaperError


@dataclass(frozen=True)
class Effect:
    name: str
    group: str
    method: str  # of pysox's Transformer, which is also SoX's own name for it
    arguments: dict = field(default_factory=dict)


# pysox draws a chorus's voices at random whenever it is asked for n_voices alone, so that
# "n_voices=5" defines no effect. These five were drawn once, from pysox's own ranges, and are part
# of the definition ever since.
CHORUS_VOICES = {
    "n_voices": 5,
    "delays": [42.6, 47.1, 51.3, 55.8, 58.9],  # ms
    "decays": [0.38, 0.33, 0.36, 0.31, 0.34],
    "speeds": [0.26, 0.37, 0.31, 0.39, 0.28],  # Hz
    "depths": [1.2, 2.7, 1.8, 2.2, 1.5],  # ms
    "shapes": ["s", "t", "s", "t", "s"],
}
ECHOES = {
    "n_echos": 3,
    "delays": [200, 400, 600],  # ms
    "decays": [0.4, 0.2, 0.1],  # amplitude ratios
    "gain_out": 0.5,
}

EFFECTS = (
    Effect("overdrive", "nonlinear", "overdrive", {"gain_db": 5}),
    Effect("distortion", "nonlinear", "overdrive", {"gain_db": 15}),
    Effect("chorus", "modulation", "chorus", CHORUS_VOICES),
    Effect("flanger", "modulation", "flanger", {"depth": 5, "phase": 50}),
    Effect("phaser", "modulation", "phaser"),
    Effect("tremolo", "modulation", "tremolo"),
    Effect("reverb", "ambience", "reverb", {"reverberance": 80}),
    Effect("feedback_delay", "delay", "echos", ECHOES),
    Effect("slapback_delay", "delay", "echo", ECHOES),
    Effect("low_boost", "low_eq", "bass", {"gain_db": 10, "frequency": 200}),
    Effect("low_reduct", "low_eq", "bass", {"gain_db": -10, "frequency": 200}),
    Effect("high_boost", "high_eq", "treble", {"gain_db": 20, "frequency": 8000}),
    Effect("high_reduct", "high_eq", "treble", {"gain_db": -20, "frequency": 8000}),
)
NAMES = tuple(e.name for e in EFFECTS)
GROUPS = tuple(dict.fromkeys(e.group for e in EFFECTS))
BY_NAME = {e.name: e for e in EFFECTS}

Chain = tuple[str, ...]
DRY: Chain = ()


def check(chain: Chain) -> Chain:
    """The chain itself, if its effects exist, come in group order and share no group.

    Else `PaperError`.
    """
    for name in chain:
        if name not in BY_NAME:
            raise PaperError(f"unknown effect {name!r}; there are: {', '.join(NAMES)}.")
    ranks = [GROUPS.index(BY_NAME[name].group) for name in chain]
    if any(a >= b for a, b in pairwise(ranks)):
        raise PaperError(
            f"chain {label(chain)!r}: at most one effect of each group, "
            f"in the order {', '.join(GROUPS)}."
        )
    return tuple(chain)


def label(chain: Chain) -> str:
    """``overdrive+reverb``; ``dry`` for the empty chain."""
    return "+".join(chain) or "dry"


def singles() -> list[Chain]:
    return [(name,) for name in NAMES]


def paper50() -> list[Chain]:
    """Section 2.2.2: the 13 singles and 37 cascades of two or three effects.

    A fixed list with even supports.
    """
    lines = (Path(__file__).parent / "paper50.txt").read_text().splitlines()
    return singles() + [
        check(tuple(line.split())) for line in lines if line and not line.startswith("#")
    ]


def guo221() -> list[Chain]:
    """The singles and every chain of one effect from five of the six groups.

    Guo & McFee 2023, "methods [1, 5]".
    """
    members = [[e.name for e in EFFECTS if e.group == g] for g in GROUPS]
    return singles() + [chain for five in combinations(members, 5) for chain in product(*five)]


PLANS = {"paper50": paper50, "guo221": guo221, "singles": singles}


def plan(name: str, include_dry: bool) -> list[Chain]:
    """The chains of plan `name`, the dry clip first if wanted."""
    if name not in PLANS:
        raise PaperError(f"unknown chain plan {name!r}; there are: {', '.join(PLANS)}.")
    return ([DRY] if include_dry else []) + PLANS[name]()


def multi_hot(chain: Chain) -> list[int]:
    """(13,) zeros and ones in Table 1's order."""
    return [int(name in chain) for name in NAMES]
