"""Presets of a synthesizer, drawn and made by hand, and what is heard of them. Notebook 19.

Section 3.1 of the synthesizers' paper: a preset is a vector of numbers, switches and choices
(Eq. 1). A row here holds the numbers and switches first, 0 to 1, then the choices, 0, 1, 2, ...
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..core import machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from . import synth

BANKS = Path("/usr/share/amsynth/banks")  # of presets that people made
NOTE, HELD, SECONDS = 60, 2.0, 4.0  # what every preset plays (the paper: the same, of 5 seconds)
QUIET, LOUD = 0.005, 0.5  # RMS between which a sound is used
TRIES = 50  # presets that are drawn until one is heard
A_PART = 50  # presets that a worker plays at a time
PICTURES = 20_000  # drawn presets, at most, whose spectrograms are kept (11 kB each: notebook 20)


@dataclass(frozen=True)
class Parameter:
    """One parameter, with its range in the units of amsynth's banks."""

    name: str
    least: float = 0.0
    most: float = 1.0
    steps: int = 0  # values it can have, evenly spaced (0: any)
    choices: tuple[int, ...] = ()  # of these one (empty: a number)
    default: float = 0.0  # where a bank does not name it


NUMBERS = (
    *(Parameter(f"{what}_{phase}", 0, 1.0 if phase == "sustain" else 2.5)
      for what in ("amp", "filter") for phase in ("attack", "decay", "sustain", "release")),
    Parameter("filter_resonance", 0, 0.97),
    Parameter("filter_env_amount", -16, 16),
    Parameter("filter_cutoff", -0.5, 1.5),
    Parameter("osc1_pulsewidth"),
    Parameter("osc2_pulsewidth"),
    Parameter("osc2_detune", -1, 1),
    Parameter("osc2_pitch", -12, 12, steps=25),
    Parameter("osc_mix", -1, 1),
    Parameter("osc_mix_mode"),
    Parameter("lfo_freq", 0, 7.5),
    Parameter("freq_mod_amount", 0, 1.25992105),
    Parameter("filter_mod_amount", -1, 1),
    Parameter("amp_mod_amount", -1, 1),
    Parameter("reverb_roomsize"),
    Parameter("reverb_damp"),
    Parameter("reverb_wet"),
    Parameter("reverb_width"),
    Parameter("distortion_crunch", 0, 0.9),
)  # fmt: skip
SWITCHES = (
    Parameter("osc2_sync", 0, 1, steps=2),
    Parameter("filter_slope", 0, 1, steps=2, default=1),
)
CHOICES = (
    Parameter("osc1_waveform", 0, 4, choices=(0, 1, 2, 3, 4)),
    Parameter("osc2_waveform", 0, 4, choices=(0, 1, 2, 3, 4)),
    # (without noise, and without sample-and-hold, which the paper leaves out: they move at random)
    Parameter("lfo_waveform", 0, 6, choices=(0, 1, 2, 5, 6)),
    Parameter("osc2_range", -3, 4, choices=(-3, -2, -1, 0, 1, 2, 3, 4)),
    Parameter("filter_type", 0, 4, choices=(0, 1, 2, 3, 4)),
    Parameter("freq_mod_osc", 0, 2, choices=(0, 1, 2)),
)
PARAMETERS = (*NUMBERS, *SWITCHES, *CHOICES)
# the other seven stand as amsynth begins: master volume, what depends on the player's touch or on
# the note before, and on how the filter follows the note


@dataclass(frozen=True)
class Space:
    """What a network has to know of a synthesizer's presets."""

    numbers: int  # and switches
    choices: tuple[int, ...]  # categories of each of the others

    def __len__(self) -> int:
        return self.numbers + len(self.choices)

    @property
    def one_hot(self) -> int:
        """How many numbers a preset has, its choices written as one of many."""
        return self.numbers + sum(self.choices)


SPACE = Space(len(NUMBERS) + len(SWITCHES), tuple(len(one.choices) for one in CHOICES))


# --- presets --------------------------------------------------------------------------------------


def drawn(rng: np.random.Generator) -> np.ndarray:
    """(34,) float32, a preset at random: numbers evenly, choices alike (Section 3.1.2)."""
    row: list[float] = []
    for one in PARAMETERS:
        if one.choices:
            row.append(int(rng.integers(len(one.choices))))
        else:
            row.append(rng.integers(one.steps) / (one.steps - 1) if one.steps else rng.random())
    return np.array(row, np.float32)


def played(row: np.ndarray) -> synth.Preset:
    """What amsynth is to be set to."""
    preset = {}
    for one, value in zip(PARAMETERS, row, strict=True):
        if one.choices:
            value = (one.choices[int(value)] - one.least) / (one.most - one.least)
        preset[one.name] = float(value)
    return preset


def read(bank: Path) -> list[np.ndarray]:
    """The presets of one of amsynth's banks, as rows; without those that `drawn` cannot draw."""
    rows = []
    for text in bank.read_text(encoding="latin-1").split("<preset>")[1:]:
        lines = (line.split() for line in text.splitlines())
        values = {line[1]: float(line[2]) for line in lines if line[:1] == ["<parameter>"]}
        row = [_place(one, values.get(one.name, one.default)) for one in PARAMETERS]
        if None not in row:
            rows.append(np.array(row, np.float32))
    return rows


def _place(one: Parameter, value: float) -> float | None:
    if one.choices:
        return one.choices.index(round(value)) if round(value) in one.choices else None
    return min(1.0, max(0.0, (value - one.least) / (one.most - one.least)))


def by_hand(most: int, seed: int) -> np.ndarray:
    """(presets, 34): distinct ones of the banks that amsynth comes with, at most so many, drawn."""
    banks = sorted(BANKS.glob("*bank"))
    if not banks:
        raise PaperError(f"no banks of presets lie in {BANKS}: install amsynth's package whole.")
    rows = np.unique(np.stack([row for bank in banks for row in read(bank)]), axis=0)
    order = generator_for(seed, "by hand").permutation(len(rows))
    return rows[order[: most or None]]


# --- what is heard --------------------------------------------------------------------------------


@functools.cache
def _mel() -> torch.nn.Module:
    from torchaudio.transforms import MelSpectrogram  # (slow to import)

    return MelSpectrogram(synth.RATE, 2048, hop_length=1024, n_mels=128)


def log_mel(sound: np.ndarray) -> torch.Tensor:
    """(samples,) at 44.1 kHz -> (128, frames): notebook 18's mel128."""
    return torch.log(_mel()(torch.from_numpy(np.array(sound, np.float32))) + 1e-6)


def embedding(sound: np.ndarray) -> np.ndarray:
    """(samples,) at 44.1 kHz -> (128,): log-mel, its mean over time."""
    return log_mel(sound).mean(1).numpy()


def picture(sound: np.ndarray) -> np.ndarray:
    """(samples,) at 44.1 kHz -> (128, frames / 4) float16: log-mel, four frames a column."""
    return torch.nn.functional.avg_pool1d(log_mel(sound), 4).numpy().astype(np.float16)


def heard(sound: np.ndarray) -> bool:
    return bool(QUIET < np.sqrt(np.mean(sound**2)) < LOUD)


def pictured(many: int) -> np.ndarray:
    """Which of so many drawn presets keep a picture: evenly spread, so that each split has some."""
    return np.arange(0, many, -(-many // PICTURES))


def play_drawn(numbers: range, seed: int, every: int = 1) -> dict[str, np.ndarray]:
    """Presets of these numbers, each drawn until it is heard.

    Returns:
        presets (n, 34), sounds (n, 128), pictures (128, 43 each; of numbers that `every` divides),
        and `tries`: how many were drawn in all.
    """
    machine.make_deterministic(1)
    rows, sounds, pictures, tries = [], [], [], 0
    with synth.player() as play:
        for number in numbers:
            for attempt in range(TRIES):
                row = drawn(generator_for(seed, "preset", number, attempt))
                sound = play(played(row), NOTE, HELD, SECONDS)
                if heard(sound):
                    break
            else:
                raise PaperError(f"preset {number}: of {TRIES} that were drawn none is heard.")
            rows.append(row)
            sounds.append(embedding(sound))
            tries += attempt + 1
            if number % every == 0:
                pictures.append(picture(sound))
    return _arrays(rows, sounds, pictures, tries)


def play_rows(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Those of the presets that are heard, as `play_drawn` gives them."""
    machine.make_deterministic(1)
    with synth.player() as play:
        each = [play(played(row), NOTE, HELD, SECONDS) for row in rows]
    good = [(row, sound) for row, sound in zip(rows, each, strict=True) if heard(sound)]
    return _arrays(
        [row for row, _ in good],
        [embedding(sound) for _, sound in good],
        [picture(sound) for _, sound in good],
        len(rows),
    )


def _arrays(rows: list, sounds: list, pictures: list, tries: int) -> dict[str, np.ndarray]:
    frames = int(SECONDS * synth.RATE / 1024 + 1) // 4
    return {
        "presets": np.array(rows, np.float32).reshape(-1, len(PARAMETERS)),
        "sounds": np.array(sounds, np.float32).reshape(-1, 128),
        "pictures": np.array(pictures, np.float16).reshape(-1, 128, frames),
        "tries": np.array([tries]),
    }


@dataclass(frozen=True)
class Presets:
    """Presets and what is heard of their sounds."""

    presets: np.ndarray  # (n, 34)
    sounds: np.ndarray  # (n, 128) embeddings
    pictures: np.ndarray  # (n, 128, 43) float16, or of those that `pictured` names
    tries: int  # that were drawn or read for them

    def __len__(self) -> int:
        return len(self.presets)


def stage(profile: Profile) -> stages.Stage:
    """data/<profile>/presets."""
    own = {"drawn": profile.proxy_presets, "by_hand": profile.proxy_by_hand, "seed": profile.seed}
    banks = sorted(BANKS.glob("*bank"))
    inputs = {"amsynth": stages.digest(synth.plugin())}
    inputs["banks"] = stages.digest([stages.digest(bank) for bank in banks])
    folder = paths.data(profile.profile) / "presets"
    return stages.Stage("presets", folder, own, inputs, threads=1)


def make(profile: Profile) -> dict[str, Presets]:
    """`drawn` and `by hand`: presets that are heard, with what is heard of them; kept."""
    made = stage(profile)
    with made.opened() as work:
        if work:
            found = {
                "drawn": _played_all(work / "shards" / "drawn", _drawn_parts(profile), play_drawn),
                "by_hand": _played_all(work / "shards" / "hand", _hand_parts(profile), play_rows),
            }
            for name, arrays in found.items():
                for part, values in arrays.items():
                    np.save(work / f"{name}_{part}.npy", values)
            made.finish(stages.array_digest(*(a for one in found.values() for a in one.values())))
    both = {}
    for name in ("drawn", "by_hand"):
        parts = ("presets", "sounds", "pictures", "tries")
        read = {part: np.load(made.folder / f"{name}_{part}.npy", "r") for part in parts}
        both[name.replace("_", " ")] = Presets(
            np.array(read["presets"]), np.array(read["sounds"]), read["pictures"],
            int(read["tries"].sum()),
        )  # fmt: skip
    if len(both["by hand"]) < 10:
        raise PaperError(
            f"{len(both['by hand'])} presets made by hand are heard, too few to split 80-10-10: "
            "set proxy_by_hand to 20 or more (0: all)."
        )
    return both


def _drawn_parts(profile: Profile) -> dict[str, tuple]:
    many = profile.proxy_presets
    every = -(-many // PICTURES)
    parts = [range(a, min(a + A_PART, many)) for a in range(0, many, A_PART)]
    return {f"{p.start:08d}_{p.stop:08d}": (p, profile.seed, every) for p in parts}


def _hand_parts(profile: Profile) -> dict[str, tuple]:
    rows = by_hand(profile.proxy_by_hand, profile.seed)
    parts = [(a, min(a + A_PART, len(rows))) for a in range(0, len(rows), A_PART)]
    return {f"{a:08d}_{b:08d}": (rows[a:b],) for a, b in parts}


def _played_all(folder: Path, items: dict[str, tuple], work) -> dict[str, np.ndarray]:
    # (in processes here, not on a cluster, whose workers may run it in threads)
    files = parallel.shards(work, items, folder, f"{folder.name} presets")
    each = []
    for file in files:  # (closed again one by one: full has hundreds)
        with np.load(file) as shard:
            each.append(dict(shard))
    return {name: np.concatenate([one[name] for one in each]) for name in each[0]}
