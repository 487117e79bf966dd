"""Sampled guitars: real notes, note by note, played by FluidSynth (corpora `sampled` and `mixed`).

Where FluidSynth and two free sound fonts (MIT; Debian: fluidsynth, fluid-soundfont-gm,
musescore-general-soundfont-small) are not on a machine, these corpora are off, and say so.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy  # (scipy.signal is loaded when it is first used: it takes two seconds)
import soundfile

from ..core.errors import PaperError
from ..core.random import generator_for
from . import plucked


@dataclass(frozen=True)
class Guitar:
    """A program of a sound font, in the place of one of `plucked`'s six players."""

    font: str
    program: int  # of General MIDI: 24 nylon, 25 steel, 26 jazz, 27 clean, 28 muted


FLUID, MUSESCORE = "sf2/FluidR3_GM.sf2", "sf3/MuseScore_General_Lite.sf3"
# programs of General MIDI that are plucked or struck strings, and all that are instruments
PLUCKED = (*range(24, 32), 15, 45, 46, 104, 105, 106, 107)
ANY = range(120)
GUITARS = (
    Guitar(FLUID, 24),
    Guitar(FLUID, 25),
    Guitar(MUSESCORE, 26),
    Guitar(FLUID, 27),
    Guitar(MUSESCORE, 28),
    Guitar(MUSESCORE, 25),
)


def names() -> list[str]:
    """The performances of `plucked.names`, by these guitars: ``s0_...`` in the place of ``p0_...``.

    Same players' timing, styles, keys and tempi; the notes are drawn anew.
    """
    return ["s" + name[1:] for name in plucked.names()]


def fonts() -> dict[str, Path]:
    """The sound fonts by name.

    Raises:
        PaperError: FluidSynth or a font is not on this machine.
    """
    program = shutil.which("fluidsynth")
    home = Path(program).parents[1] / "share" / "sounds" if program else Path()
    found = {name: home / name for name in (FLUID, MUSESCORE)}
    missing = [] if program else ["fluidsynth"]
    missing += [path.name for path in found.values() if not path.exists()]
    if missing:
        raise PaperError(
            f"the sampled guitars are off, {', '.join(missing)} is not here: as root on Debian, "
            "apt-get install fluidsynth fluid-soundfont-gm musescore-general-soundfont-small."
        )
    return found


def version() -> str:
    """FluidSynth's version, of which the sound is a part."""
    asked = subprocess.run(["fluidsynth", "--version"], capture_output=True, text=True)
    return asked.stdout.splitlines()[0].split()[-1] if asked.stdout else "unknown"


def play(name: str, seconds: float, instrument: Guitar | None = None) -> np.ndarray:
    """The recording called `name`: (samples,) float32 mono at 44.1 kHz, without any effect.

    On `instrument`, else on the guitar of the player that the name begins with.
    """
    import pretty_midi  # (slow to import; mirdata brings it)

    player_id, piece, part = name.split("_")[:3]
    style_name, tempo, key = piece.split("-")
    who = int(player_id[1:])
    guitar, player, style = (
        instrument or GUITARS[who],
        plucked.PLAYERS[who],
        plucked.STYLES[style_name],
    )
    beat, rng = 60.0 / int(tempo), generator_for(0, "sampled", name)
    root = 40 + (plucked.KEYS.index(key) - 4) % 12
    performed = plucked.comping if part == "comp" else plucked.soloing
    track = pretty_midi.Instrument(guitar.program)
    for at, midi, beats, velocity, delay in performed(style, root, 4 + seconds / beat, rng):
        start = at * beat + delay + abs(rng.normal(0, player.swing)) + 0.02
        end = start + min(max(beats * beat, 0.08), 3.0)
        track.notes.append(pretty_midi.Note(round(20 + 100 * velocity), midi, start, end))
    score = pretty_midi.PrettyMIDI()
    score.instruments.append(track)
    out = synthesize(score, fonts()[guitar.font], round(seconds * plucked.RATE))
    out *= 10 ** ((player.level_db + rng.normal(0, 1.5)) / 20) / (np.sqrt(np.mean(out**2)) + 1e-9)
    noise = scipy.signal.lfilter([1], [1, -0.9], rng.standard_normal(len(out)))
    out += noise / noise.std() * 10 ** (player.room_noise_db / 20)
    return np.clip(out, -0.99, 0.99).astype(np.float32)


def synthesize(score, font: Path, length: int) -> np.ndarray:
    """(length,) float64: the score through FluidSynth, its own reverb and chorus off."""
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "score.mid", Path(folder) / "score.wav"
        score.write(str(midi))
        quiet = ["-n", "-i", "-q", "-R", "0", "-C", "0", "-g", "0.4", "-r", str(plucked.RATE)]
        command = ["fluidsynth", *quiet, "-O", "s24", "-T", "wav", "-F", str(wav), str(font)]
        done = subprocess.run([*command, str(midi)], capture_output=True, text=True)
        if done.returncode or not wav.exists():
            raise PaperError(f"FluidSynth failed: {(done.stderr or done.stdout).strip()[-200:]}")
        stereo = soundfile.read(wav)[0]
    mono = stereo.mean(1)[:length]
    return np.pad(mono, (0, length - len(mono)))
