"""Clean recordings behind one interface: computed, sampled, GuitarSet, any folder.

Notebook 01, section 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from ..core import paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from . import audio, mirror, plucked, sampled, splits, variation
from .splits import Recording

# GuitarSet's four audio archives (Xi et al., ISMIR 2018, CC BY 4.0):
# mirdata's name -> the ending of its files
GUITARSET_ENDINGS = {
    "audio_mic": "_mic.wav",
    "audio_mix": "_mix.wav",
    "audio_hex_original": "_hex.wav",
    "audio_hex_debleeded": "_hex_cln.wav",
}
GUITARSET_SLICES = 2004  # full 5-s slices in its 360 recordings (Guo & McFee, 2023)
# the corpora that are made here: their recordings, in an order of which every prefix is balanced
MADE: dict[str, Callable[[], list[str]]] = {
    "plucked": plucked.names,
    "varied": plucked.names,
    "played": plucked.names,
    "other": lambda: plucked.names(range(6, 6 + len(plucked.OTHERS))),
    "sampled": sampled.names,
    "mixed": lambda: [
        name for pair in zip(plucked.names(), sampled.names(), strict=True) for name in pair
    ],
}
FAMILIES = {
    "varied": variation.HEARD,
    "played": variation.HEARD,
    "other": variation.OTHER,
    "mixed": variation.HEARD,
}
PERFORMANCE = re.compile(r"(?P<player>[ps]?\d+)_(?P<style>[A-Za-z]+)[^_]*_(?P<part>comp|solo)")


def recordings(profile: Profile) -> list[Recording]:
    """The corpus of `profile`, at most `profile.recordings` of it (0: all).

    Its order is always the same.
    """
    found = everything(profile)
    if not profile.recordings or profile.split == "by_clip" or len(found) < 3:
        return found[: profile.recordings or None]
    return splits.subset(found, splits.assign(found, profile.seed), profile.recordings)


def split_of(profile: Profile) -> dict[str, str]:
    """Recording name -> train | validation | test, for every recording of the corpus."""
    return splits.assign(everything(profile), profile.seed)


def everything(profile: Profile) -> list[Recording]:
    """The whole corpus, in an order of which every prefix is balanced."""
    if profile.corpus in MADE:
        return [_named(name) for name in MADE[profile.corpus]()]  # (in such an order)
    if profile.corpus == "guitarset":
        home, ending = guitarset_home(profile), GUITARSET_ENDINGS[profile.guitarset_audio]
        files = sorted(home.rglob(f"*{ending}")) if home.exists() else []
        if not files:
            raise PaperError(
                f"no GuitarSet recording (*{ending}) below {home}: run paper fetch guitarset -p "
                f"{profile.profile}, or set corpus_path to the folder that holds it."
            )
        return splits.balanced(
            [_named(p.name.removesuffix(ending), str(p)) for p in files], profile.seed
        )
    return splits.balanced(_folder(profile), profile.seed)


def _folder(profile: Profile) -> list[Recording]:
    home = Path(profile.corpus_path).expanduser()
    if not home.is_dir():
        raise PaperError(f"corpus_path {home} is not a folder.")
    files = sorted(p for p in home.rglob("*") if p.suffix.lower() in audio.SUFFIXES)
    if not files:
        raise PaperError(f"{home} holds no audio file ({', '.join(sorted(audio.SUFFIXES))}).")
    found = [_named(str(p.relative_to(home).with_suffix("")), str(p)) for p in files]
    twins = [name for name, count in Counter(r.name for r in found).items() if count > 1]
    if twins:
        raise PaperError(
            f"{home} holds two files called {min(twins)} with different endings; rename one, since "
            "a recording is named by its file."
        )
    return found


def _named(name: str, path: str = "") -> Recording:
    match = PERFORMANCE.match(Path(name).name)
    if match is None:
        return Recording(name, path=path)
    return Recording(name, match["player"], match["style"], match["part"], path)


def load(recording: Recording, profile: Profile) -> np.ndarray:
    """(samples,) int16 mono at `profile.render_rate`.

    At least one slice long, else `PaperError`.
    """
    if recording.path:
        samples = audio.read(recording.path, profile.render_rate, at_least=profile.slice_seconds)
    else:
        samples = _made(recording.name, recording.name, profile)
    return audio.to_int16(samples)


def another_take(recording: Recording, profile: Profile) -> np.ndarray:
    """Something else on the same guitar, through the same microphone in the same room.

    (samples,) int16 mono at `profile.render_rate`; of a corpus that is made here.
    """
    return audio.to_int16(_made(recording.name + "_take1", recording.name, profile))


def _made(name: str, guitar: str, profile: Profile) -> np.ndarray:
    """The performance `name`, varied as the recording `guitar` is, at `profile.render_rate`."""
    seconds = max(profile.recording_seconds, profile.slice_seconds)
    if name.startswith("s"):
        samples = sampled.play(name, seconds)
    else:
        samples = plucked.play(name, seconds, free=profile.corpus == "played")
    if profile.corpus in FAMILIES:
        rng, family = generator_for(profile.seed, "variation", guitar), FAMILIES[profile.corpus]
        samples = variation.vary(samples, plucked.RATE, rng, family, profile.vary_without)
    return audio.resample(samples, plucked.RATE, profile.render_rate)


def slices(samples: np.ndarray, profile: Profile) -> np.ndarray:
    """(samples,) -> (slices, slice length): consecutive, without overlap (Section 2.2).

    The incomplete tail is dropped.
    """
    length = round(profile.slice_seconds * profile.render_rate)
    count = len(samples) // length
    return samples[: count * length].reshape(count, length)


def slice_count(recording: Recording, profile: Profile) -> int:
    """How many slices `load` would yield, from the file's header alone."""
    if not recording.path:
        seconds = max(profile.recording_seconds, profile.slice_seconds)
        return int(seconds / profile.slice_seconds + 1e-9)
    try:
        info = soundfile.info(recording.path)
    except (soundfile.LibsndfileError, RuntimeError) as problem:
        raise PaperError(
            f"{recording.path}: not readable as audio ({problem}); convert it to WAV or FLAC."
        ) from problem
    # counted in samples at the render rate, as `load` will see them
    samples = round(info.frames * profile.render_rate / info.samplerate)
    return samples // round(profile.slice_seconds * profile.render_rate)


def guitarset_home(profile: Profile) -> Path:
    if profile.corpus_path:
        return Path(profile.corpus_path).expanduser()
    return paths.data("guitarset")


def real_clips(profile: Profile) -> Profile:
    """The run that renders the real clips that ship (data/real), as `profile` renders its own.

    All of the plan's chains; nothing is trained or chosen on them.
    """
    return replace(
        profile,
        profile=f"{profile.profile}-real",
        corpus="folder",
        corpus_path=str(paths.REAL / "guitarset"),
        recordings=0,
        slice_seconds=5.0,  # (as they are)
        chains_per_slice=0,
    )


def instruments(profile: Profile) -> dict[str, str]:
    """What made the recordings besides this code: sound fonts and their player, with hashes."""
    if profile.corpus not in ("sampled", "mixed"):
        return {}
    found = {name: stages.digest(path) for name, path in sampled.fonts().items()}
    return found | {"fluidsynth": sampled.version()}


def fetch_guitarset(profile: Profile) -> str:
    """Download `profile.guitarset_audio` through mirdata; a line that says how it went.

    Every file's checksum is checked, and the recordings are counted.
    """
    home, ending = guitarset_home(profile), GUITARSET_ENDINGS[profile.guitarset_audio]
    paths.require_disk(home, 4_000_000_000, "GuitarSet (archive and files)")
    again = f"paper fetch guitarset -p {profile.profile}"
    mirror.fetch("guitarset", home, "GuitarSet", again, [profile.guitarset_audio], ending)
    count = len(everything(profile))
    return (
        f"{count} recordings of GuitarSet ({profile.guitarset_audio}), checksums right, in {home}"
    )
