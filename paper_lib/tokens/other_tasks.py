"""The token paper's own tasks, or their like: instrument families, speech or music, genres.

Notebook 24, section 4. Its data sets are read as they are unpacked in a folder (`token_data`):
NSynth, GTZAN's genres, GTZAN's music and speech. Elsewhere stand-ins are made: notes of a free
sound font for NSynth, and for speech or music the voices of espeak-ng and this project's guitar.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import machine, paths, stages
from ..core.config import Profile
from ..core.errors import NotHere, PaperError
from ..core.random import generator_for
from ..sound import audio, plucked, sampled, splits
from . import codes

SECONDS = 4.0  # of a sound, as NSynth's; of longer ones the middle
SAMPLES = round(SECONDS * codes.RATE)
LEVEL, PEAK = 0.1, 0.99  # RMS of a sound, unless its peak forbids it: loudness says nothing
KINDS = ("families", "speech", "genre")

# programs of General MIDI in NSynth's eleven families; without those that share samples with
# another family's (clavinet, charang, fifths)
FAMILIES = {
    "bass": range(32, 40),
    "brass": range(56, 64),
    "flute": range(72, 80),
    "guitar": range(24, 32),
    "keyboard": range(7),
    "mallet": range(8, 15),
    "organ": range(16, 24),
    "reed": range(64, 72),
    "string": (*range(40, 47), *range(48, 52)),
    "synth_lead": (*range(80, 84), 87),
    "vocal": (52, 53, 54, 85, 91),
}
# programs that share samples in the font, by their names there: never in two splits
TOGETHER = ((0, 1, 3), (21, 22, 23), (44, 48, 49), (50, 51), (62, 63), (81, 87))
NOTES = 12  # of a program
# espeak-ng's languages and manners of speaking; a voice is one of each
LANGUAGES = ("en-gb", "de", "fr-fr", "es", "it", "pl", "sv", "tr", "ru", "hi", "cmn", "sw")
MANNERS = ("m1", "m2", "m3", "m4", "m6", "f1", "f2", "f3")
SENTENCES = 4  # of a voice


@dataclass(frozen=True, eq=False)
class Listing:
    """What a task's sounds are."""

    table: pd.DataFrame  # name, class, recording (what is never split), split (train | test)
    source: str
    home: Path | None = None  # folder in which the names are files (None: a stand-in is made)


@functools.lru_cache(8)
def listing(kind: str, home: str = "", most: int = 0) -> Listing:
    """The sounds of a task; of each class and split at most so many, drawn (0: all).

    Raises:
        NotHere: neither the data set nor what its stand-in needs is here.
        PaperError: `home` is no folder, or what lies there is no task.
    """
    public = {"families": _nsynth, "speech": _music_speech, "genre": _gtzan}[kind]
    stand_in = {"families": _notes, "speech": _voices, "genre": _no_genres}[kind]
    if home and not Path(home).is_dir():
        raise PaperError(f"token_data names {home}, which is no folder.")
    found = public(Path(home)) if home else None
    table, source = found or stand_in()
    table = table[table["split"] != "validation"]  # (no choice is made here)
    counts = table.groupby("split")["class"].nunique()
    if found and min(counts.get(split, 0) for split in ("train", "test")) < 2:
        raise PaperError(
            f"{source} in {home} is not whole: train or test has fewer than 2 classes."
        )
    order = table["name"].map(lambda name: generator_for(0, "of a class", name).random())
    rank = order.groupby([table["class"], table["split"]]).rank()
    table = table[rank <= most] if most else table
    return Listing(table.reset_index(drop=True), source, Path(home) if found else None)


def sounds(kind: str, names: list[str], home: Path | None = None) -> np.ndarray:
    """(n, samples) float32 at 16 kHz, equally loud."""
    if home:
        each = [audio.read(home / name, codes.RATE) for name in names]
    else:
        each = [(_played if kind == "families" else _spoken)(name) for name in names]
    return np.stack([_level(x) for x in each])


def _level(x: np.ndarray) -> np.ndarray:
    start = max(0, (len(x) - SAMPLES) // 2)
    x = np.pad(x[start : start + SAMPLES], (0, max(0, SAMPLES - len(x))))
    gain = min(LEVEL / max(np.sqrt(np.mean(x**2)), 1e-6), PEAK / max(np.abs(x).max(), 1e-6))
    return (gain * x).astype(np.float32)


def divided(recordings: list[str], key: str) -> dict[str, str]:
    """recording -> its split, 70, 15 and 15 in a hundred, drawn."""
    order = generator_for(0, "collection", key).permutation(len(recordings))
    part = max(1, round(splits.SHARES["test"] * len(recordings)))
    parts = ["test"] * part + ["validation"] * part
    parts += ["train"] * (len(recordings) - len(parts))
    return {recordings[i]: split for i, split in zip(order, parts, strict=False)}


def _listed(files: dict[str, list[Path]], home: Path) -> pd.DataFrame | None:
    """class -> files, each a recording of its own."""
    rows = []
    for name, own in files.items():
        plain = [str(one.relative_to(home)) for one in sorted(own) if one.name[0] != "."]
        split = divided(plain, name)
        rows += [{"name": one, "class": name, "recording": one, "split": split[one]}
                 for one in plain]  # fmt: skip
    return pd.DataFrame(rows) if rows else None


# --- instrument families --------------------------------------------------------------------------


def _nsynth(home: Path) -> tuple[pd.DataFrame, str] | None:
    """NSynth (Engel et al., 2017) as it is unpacked: nsynth-train and nsynth-test."""
    rows = []
    for split, folder in (("train", "nsynth-train"), ("test", "nsynth-test")):
        file = home / folder / "examples.json"
        notes = json.loads(file.read_text()) if file.exists() else {}
        rows += [
            {"name": f"{folder}/audio/{name}.wav", "class": one["instrument_family_str"],
             "recording": one["instrument_str"], "split": split}
            for name, one in sorted(notes.items())
        ]  # fmt: skip
    return (pd.DataFrame(rows), "NSynth") if rows else None


def _notes() -> tuple[pd.DataFrame, str]:
    """Notes of a sound font; what is never split is a group of programs that share samples."""
    try:
        sampled.fonts()
    except PaperError as problem:
        raise NotHere(f"the task families is left out: {problem}") from None
    group = {program: str(many[0]) for many in TOGETHER for program in many}
    rows = []
    for family, programs in FAMILIES.items():
        groups = list(dict.fromkeys(group.get(program, str(program)) for program in programs))
        split = divided(groups, family)
        for program in programs:
            own = group.get(program, str(program))
            rows += [{"name": f"{program}:{note}", "class": family, "recording": own,
                      "split": split[own]} for note in range(NOTES)]  # fmt: skip
    return pd.DataFrame(rows), "notes of a sound font, in NSynth's place"


@functools.lru_cache(4)
def _program(number: int) -> np.ndarray:
    """(notes, samples) at 16 kHz: all notes of a program, played at once."""
    import pretty_midi  # (slow to import; mirdata brings it)

    track, rng = pretty_midi.Instrument(number), generator_for(0, "notes", number)
    for i in range(NOTES):
        pitch, loud = int(rng.integers(36, 85)), int(rng.integers(60, 121))
        begin = i * (SECONDS + 2)
        track.notes.append(pretty_midi.Note(loud, pitch, begin, begin + 3))
    score = pretty_midi.PrettyMIDI()
    score.instruments.append(track)
    length = round(NOTES * (SECONDS + 2) * plucked.RATE)
    whole = sampled.synthesize(score, sampled.fonts()[sampled.FLUID], length)
    whole = audio.resample(whole.astype(np.float32), plucked.RATE, codes.RATE)
    apart = round((SECONDS + 2) * codes.RATE)
    return np.stack([whole[i * apart : i * apart + SAMPLES] for i in range(NOTES)])


def _played(name: str) -> np.ndarray:
    program, note = name.split(":")
    return _program(int(program))[int(note)]


# --- speech or music ------------------------------------------------------------------------------


def _music_speech(home: Path) -> tuple[pd.DataFrame, str] | None:
    """GTZAN's music and speech as it is unpacked: folders music_wav and speech_wav."""
    folders = {kind: home / "music_speech" / f"{kind}_wav" for kind in ("music", "speech")}
    table = _listed({kind: list(at.glob("*.wav")) for kind, at in folders.items()}, home)
    return None if table is None else (table, "GTZAN's music and speech")


def _voices() -> tuple[pd.DataFrame, str]:
    """Numbers read out by espeak-ng, and guitars of players that no other data set here has."""
    if shutil.which("espeak-ng") is None:
        raise NotHere(
            "the task speech is left out: espeak-ng is not here (as root on Debian: apt-get "
            "install espeak-ng)."
        )
    voices = [f"{language}+{manner}" for language in LANGUAGES for manner in MANNERS]
    others = range(len(plucked.PLAYERS), len(plucked.PLAYERS) + len(plucked.OTHERS))
    pieces = plucked.names(others)
    order = generator_for(0, "collection", "music").permutation(len(pieces))
    pieces = sorted(pieces[i] for i in order[: len(voices) * SENTENCES])
    speech, music = divided(voices, "voices"), divided(pieces, "pieces")
    rows = [{"name": f"{voice}:{i}", "class": "speech", "recording": voice, "split": speech[voice]}
            for voice in voices for i in range(SENTENCES)]  # fmt: skip
    rows += [{"name": piece, "class": "music", "recording": piece, "split": music[piece]}
             for piece in pieces]  # fmt: skip
    return pd.DataFrame(rows), "espeak-ng's voices and this project's guitar"


def _spoken(name: str) -> np.ndarray:
    """A sentence of a voice, (samples,) at 16 kHz; or, of a piece's name, the guitar."""
    if ":" not in name:
        return audio.resample(plucked.play(name, SECONDS), plucked.RATE, codes.RATE)
    voice, rng = name.split(":")[0], generator_for(0, "sentence", name)
    words = " ".join(str(rng.integers(10, 10_000)) for _ in range(6))
    pace, height = str(rng.integers(120, 200)), str(rng.integers(20, 80))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        command = ["espeak-ng", "-v", voice, "-s", pace, "-p", height, "-w", str(file), words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not file.exists():
            raise PaperError(f"espeak-ng failed: {(done.stderr or done.stdout).strip()[-200:]}")
        return audio.read(file, codes.RATE)


# --- genres ---------------------------------------------------------------------------------------


def _gtzan(home: Path) -> tuple[pd.DataFrame, str] | None:
    """GTZAN's genres (Tzanetakis & Cook, 2002) as it is unpacked: genres/blues/blues.00000.wav."""
    files: dict[str, list[Path]] = {}
    for file in sorted((home / "gtzan_genre").glob("**/*.*.wav")):
        files.setdefault(file.parent.name, []).append(file)
    table = _listed(files, home)
    # (Sturm, 2013: it holds some pieces twice, and several of one artist)
    return None if table is None else (table, "GTZAN, split by file")


def _no_genres() -> tuple[pd.DataFrame, str]:
    raise NotHere(
        "the task genre is left out: token_data names no folder that holds gtzan_genre (the task "
        "style comes nearest)."
    )


# --- their tokens ---------------------------------------------------------------------------------


def of_names(
    kind: str, names: list[str], home: Path | None, codec: str, weights: str
) -> dict[str, np.ndarray]:
    """`tokens` of sounds by name."""
    machine.make_deterministic(1)
    encode = codes.cached_tokenizer(codec, weights).encode
    return {"tokens": np.stack([encode(x) for x in sounds(kind, names, home)]).astype(np.uint16)}


def of(profile: Profile, kind: str) -> Listing:
    """The sounds of a task in this run."""
    return listing(kind, profile.token_data, profile.token_most)


@functools.lru_cache(8)
def _made_by(kind: str, home: Path | None, names: tuple[str, ...]) -> str:
    """A hash of what the sounds are made from: files by name and size, or fonts and programs."""
    if home:
        files = [home / name for name in names]  # (one that is missing is named when it is read)
        return stages.digest([[f.name, f.stat().st_size if f.exists() else -1] for f in files])
    if kind == "families":
        fonts = [stages.digest(path) for path in sampled.fonts().values()]
        return stages.digest([sampled.version(), *fonts])
    asked = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True)
    return asked.stdout.split("Data at")[0].strip()


def stage(profile: Profile, kind: str) -> stages.Stage:
    """data/<profile>/tokens_of_<kind>."""
    found = of(profile, kind)
    inputs = {"weights": codes.version_of(profile.token_codec, profile.codec)}
    inputs["listing"] = stages.digest(found.table.to_csv(index=False))
    inputs["sounds"] = _made_by(kind, found.home, tuple(found.table["name"]))
    own = {"codec": profile.token_codec, "source": found.source}
    folder = paths.data(profile.profile) / f"tokens_of_{kind}"
    return stages.Stage("token_collection", folder, own, inputs, threads=1)


def tokens(profile: Profile, kind: str) -> np.ndarray:
    """(sounds, codebooks, frames) of the sounds in `of`, made, resumed or found."""
    found, made = of(profile, kind), stage(profile, kind)
    with made.opened() as work:
        if work:
            own = (found.home, profile.token_codec, profile.codec)
            names, step = found.table["name"].tolist(), 8 * NOTES
            parts = {f"{a:07d}": (kind, names[a : a + step], *own)
                     for a in range(0, len(names), step)}  # fmt: skip
            content = codes.encoded(of_names, parts, names, work, profile)
            # (with what is to be said of them: classes and splits)
            made.finish(stages.digest([content, made.inputs["listing"]]))
    return codes.read(made.folder / codes.FILE)[1]
