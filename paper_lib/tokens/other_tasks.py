"""The token paper's own tasks, or their like: instrument families, speech or music, genres.

Notebook 24, section 4. Its data sets are read as they are unpacked in a folder (`token_data`):
NSynth, GTZAN's genres, GTZAN's music and speech. Elsewhere stand-ins are made: notes of two free
sound fonts for NSynth, and for speech or music the voices of espeak-ng and this project's guitar.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from ..core import machine, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from ..sound import audio, plucked, sampled
from . import codes

SECONDS = 4.0  # of a sound, as NSynth's; of longer ones the middle
SAMPLES = round(SECONDS * codes.RATE)
LEVEL = 0.1  # RMS of every sound: how loud it is says nothing
SPLITS = ("train", "validation", "test")
KINDS = ("families", "speech", "genre")

# programs of General MIDI in NSynth's eleven families
FAMILIES = {
    "bass": range(32, 40),
    "brass": range(56, 64),
    "flute": range(72, 80),
    "guitar": range(24, 32),
    "keyboard": range(8),
    "mallet": range(8, 15),
    "organ": range(16, 24),
    "reed": range(64, 72),
    "string": (*range(40, 47), *range(48, 52)),
    "synth_lead": (*range(80, 85), 86, 87),
    "vocal": (52, 53, 54, 85, 91),
}
NOTES = 6  # of an instrument
# espeak-ng's languages and manners of speaking; a voice is one of each
LANGUAGES = ("en-gb", "de", "fr-fr", "es", "it", "pl", "sv", "tr", "ru", "hi", "cmn", "sw")
MANNERS = ("m1", "m2", "m3", "m4", "m6", "f1", "f2", "f3")
SENTENCES = 4  # of a voice

# index: name, class, recording (what is never split), split; source: "" a stand-in, else a folder


def index(kind: str, home: Path | None) -> tuple[pd.DataFrame, str]:
    """A row a sound: name, class, recording, split; and what they are.

    Raises:
        PaperError: neither the data set nor what its stand-in needs is here.
    """
    makers = {"families": (_nsynth, _notes), "speech": (_music_speech, _voices),
              "genre": (_gtzan, _no_genres)}  # fmt: skip
    public, stand_in = makers[kind]
    found = public(home) if home else None
    if found is not None:
        return found
    return stand_in()


def sounds(kind: str, names: list[str]) -> np.ndarray:
    """(n, samples) float32 at 16 kHz, each at the same level."""
    made = {"families": _played, "speech": _spoken}.get(kind, _read)
    each = [_read(name) if Path(name).is_absolute() else made(name) for name in names]
    return np.stack([_level(x) for x in each])


def _level(x: np.ndarray) -> np.ndarray:
    start = max(0, (len(x) - SAMPLES) // 2)
    x = np.pad(x[start : start + SAMPLES], (0, max(0, SAMPLES - len(x))))
    return np.clip(x * LEVEL / max(float(np.sqrt(np.mean(x**2))), 1e-6), -1, 1).astype(np.float32)


def _read(name: str) -> np.ndarray:
    x, rate = soundfile.read(name, dtype="float32", always_2d=True)
    return audio.resample(x.mean(1), rate, codes.RATE)


def divided(recordings: list[str], key: str) -> dict[str, str]:
    """recording -> its split, 70, 15 and 15 in a hundred, drawn."""
    order = generator_for(0, "collection", key).permutation(len(recordings))
    part = max(1, round(0.15 * len(recordings)))
    bounds = {"test": part, "validation": 2 * part, "train": len(recordings)}
    found: dict[str, str] = {}
    start = 0
    for split, end in bounds.items():
        found |= {recordings[i]: split for i in order[start:end]}
        start = end
    return found


# --- instrument families --------------------------------------------------------------------------


def _nsynth(home: Path) -> tuple[pd.DataFrame, str] | None:
    """NSynth (Engel et al., 2017) as it is unpacked: nsynth-train, -valid, -test."""
    folders = {"train": "nsynth-train", "validation": "nsynth-valid", "test": "nsynth-test"}
    if not (home / "nsynth-test" / "examples.json").exists():
        return None
    rows = []
    for split, folder in folders.items():
        file = home / folder / "examples.json"
        notes = json.loads(file.read_text()) if file.exists() else {}
        rows += [
            {"name": str(home / folder / "audio" / f"{name}.wav"),
             "class": one["instrument_family_str"], "recording": one["instrument_str"],
             "split": split}
            for name, one in sorted(notes.items())
        ]  # fmt: skip
    return pd.DataFrame(rows), "NSynth"


def _notes() -> tuple[pd.DataFrame, str]:
    """Notes of two sound fonts. A program is in one split: the fonts may share its samples."""
    sampled.fonts()  # (says what is missing)
    rows = []
    for family, programs in FAMILIES.items():
        split = divided([f"{program}" for program in programs], family)
        rows += [
            {"name": f"{font}:{program}:{note}", "class": family, "recording": str(program),
             "split": split[str(program)]}
            for program in programs for font in (sampled.FLUID, sampled.MUSESCORE)
            for note in range(NOTES)
        ]  # fmt: skip
    return pd.DataFrame(rows), "notes of two sound fonts, in NSynth's place"


@functools.lru_cache(4)
def _instrument(name: str) -> np.ndarray:
    """(notes, samples) at 16 kHz: all notes of an instrument, played at once."""
    import pretty_midi  # (slow to import; mirdata brings it)

    font, program = name.split(":")
    track, rng = pretty_midi.Instrument(int(program)), generator_for(0, "notes", name)
    for i in range(NOTES):
        pitch, loud = int(rng.integers(36, 85)), int(rng.integers(60, 121))
        begin = i * (SECONDS + 2)
        track.notes.append(pretty_midi.Note(loud, pitch, begin, begin + 3))
    score = pretty_midi.PrettyMIDI()
    score.instruments.append(track)
    length = round(NOTES * (SECONDS + 2) * plucked.RATE)
    whole = sampled.synthesize(score, sampled.fonts()[font], length)
    whole = audio.resample(whole.astype(np.float32), plucked.RATE, codes.RATE)
    apart = round((SECONDS + 2) * codes.RATE)
    return np.stack([whole[i * apart : i * apart + SAMPLES] for i in range(NOTES)])


def _played(name: str) -> np.ndarray:
    instrument, _, note = name.rpartition(":")
    return _instrument(instrument)[int(note)]


# --- speech or music ------------------------------------------------------------------------------


def _music_speech(home: Path) -> tuple[pd.DataFrame, str] | None:
    """GTZAN's music and speech as it is unpacked: folders music_wav and speech_wav."""
    rows = []
    for kind in ("music", "speech"):
        files = sorted((home / "music_speech" / f"{kind}_wav").glob("*.wav"))
        split = divided([file.stem for file in files], kind) if files else {}
        rows += [{"name": str(file), "class": kind, "recording": file.stem,
                  "split": split[file.stem]} for file in files]  # fmt: skip
    return (pd.DataFrame(rows), "GTZAN's music and speech") if rows else None


def _voices() -> tuple[pd.DataFrame, str]:
    """Numbers read out by espeak-ng, and guitars."""
    if shutil.which("espeak-ng") is None:
        raise PaperError(
            "the task speech is off, espeak-ng is not here: as root on Debian, apt-get install "
            "espeak-ng."
        )
    voices = [f"{language}+{manner}" for language in LANGUAGES for manner in MANNERS]
    others = range(len(plucked.PLAYERS), len(plucked.PLAYERS) + len(plucked.OTHERS))
    pieces = plucked.names(others)  # (of players that no data set of a run has, unless it is other)
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
        return _read(str(file))


# --- genres ---------------------------------------------------------------------------------------


def _gtzan(home: Path) -> tuple[pd.DataFrame, str] | None:
    """GTZAN's genres (Tzanetakis & Cook, 2002) as it is unpacked: genres/blues/blues.00000.wav."""
    files = sorted((home / "gtzan_genre").glob("**/*.*.wav"))
    rows = []
    for genre in sorted({file.parent.name for file in files}):
        own = {file.stem: file for file in files if file.parent.name == genre}
        split = divided(list(own), genre)
        rows += [{"name": str(file), "class": genre, "recording": name, "split": split[name]}
                 for name, file in own.items()]  # fmt: skip
    return (pd.DataFrame(rows), "GTZAN") if rows else None


def _no_genres() -> tuple[pd.DataFrame, str]:
    raise PaperError(
        "the task genre is off: GTZAN is not here (token_data names no folder that holds "
        "gtzan_genre), and its stand-in is the task style."
    )


# --- their tokens ---------------------------------------------------------------------------------


def of_names(kind: str, names: list[str], codec: str, weights: str) -> dict[str, np.ndarray]:
    """`tokens` of sounds by name."""
    machine.make_deterministic(1)
    encode = codes.cached_tokenizer(codec, weights).encode
    return {"tokens": np.stack([encode(x) for x in sounds(kind, names)]).astype(np.uint16)}


def home_of(profile: Profile) -> Path | None:
    """The folder in which public data sets lie."""
    return Path(profile.token_data).expanduser() if profile.token_data else None


def stage(profile: Profile, kind: str) -> stages.Stage:
    """data/<profile>/tokens_of_<kind>."""
    table, source = index(kind, home_of(profile))
    own = {"codec": profile.token_codec, "source": source}
    inputs = {"weights": codes.version_of(profile.token_codec, profile.codec)}
    inputs["index"] = stages.digest(table.to_csv(index=False))
    made_here = not Path(table["name"].iloc[0]).is_absolute()
    if kind == "speech" and made_here:
        asked = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True)
        inputs["espeak-ng"] = asked.stdout.split("Data at")[0].strip()
    if kind == "families" and made_here:
        files = [stages.digest(path) for path in sampled.fonts().values()]
        inputs["fonts"] = stages.digest([sampled.version(), *files])
    folder = paths.data(profile.profile) / f"tokens_of_{kind}"
    return stages.Stage("token_collection", folder, own, inputs, threads=1)


def tokens(profile: Profile, kind: str) -> tuple[np.ndarray, pd.DataFrame, str]:
    """(sounds, codebooks, frames) tokens, made, resumed or found; the index; what they are."""
    table, source = index(kind, home_of(profile))
    made = stage(profile, kind)
    with made.opened() as work:
        if work:
            own = (profile.token_codec, profile.codec)
            names, step = table["name"].tolist(), 8 * NOTES
            parts = {f"{a:07d}": (kind, names[a : a + step], *own)
                     for a in range(0, len(names), step)}  # fmt: skip
            made.finish(codes.encoded(of_names, parts, names, work, profile))
    return codes.read(made.folder / codes.FILE)[1], table, source
