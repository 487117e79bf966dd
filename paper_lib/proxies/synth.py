"""amsynth, a real synthesizer, played without a screen. Notebook 18.

A Debian package (a VST2 plug-in), for which DawDreamer is the host. A preset is a value from 0 to 1
for each of its parameters.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..core.errors import PaperError

RATE = 44_100
BLOCK = 512  # samples that the plug-in makes at a time: part of the sound
PLACES = ("/usr/lib/vst", "/usr/lib/x86_64-linux-gnu/vst", "/usr/lib/aarch64-linux-gnu/vst")
NAME = "amsynth_vst.so"

Preset = dict[str, float]  # parameter -> 0 to 1; what is not named stands as amsynth begins


def plugin() -> Path:
    """Where amsynth lies; `PaperError` if it, or its host, is not there."""
    found = [Path(place) / NAME for place in PLACES if (Path(place) / NAME).exists()]
    try:
        import dawdreamer  # noqa: F401
    except ImportError:
        found = []
    if not found:
        raise PaperError(
            "Part IV plays amsynth through DawDreamer, and one of them is not here: make reproduce "
            "PART=proxies sets both up (as root on Debian: apt-get install amsynth)."
        )
    return found[0]


def parameters() -> list[str]:
    """The names of amsynth's parameters, in its order."""
    with _instance() as (_, synth):
        return [one["name"] for one in synth.get_parameters_description()]


def render(preset: Preset, note: int = 57, held: float = 2.0, seconds: float = 3.0) -> np.ndarray:
    """Play one note: (samples,) float32 at 44.1 kHz, the mean of both channels.

    note: MIDI (57: 220 Hz); held: seconds until it is let go. Every call loads the plug-in anew:
    one that has played before is not in the state in which it began, and renders something else.
    """
    with _instance() as (engine, synth):
        index = {one["name"]: one["index"] for one in synth.get_parameters_description()}
        for name, value in preset.items():
            if name not in index:
                raise PaperError(f"amsynth has no parameter {name!r}; it has: {', '.join(index)}.")
            synth.set_parameter(index[name], float(value))
        synth.add_midi_note(note, 100, 0.0, held)
        engine.load_graph([(synth, [])])
        engine.render(seconds)
        return engine.get_audio().mean(0).astype(np.float32)


@contextlib.contextmanager
def _instance() -> Iterator[tuple]:
    """A host and a fresh amsynth, silent on the terminal, away from the user's home."""
    path = plugin()
    import dawdreamer

    with _apart():
        engine = dawdreamer.RenderEngine(RATE, BLOCK)
        synth = engine.make_plugin_processor("amsynth", str(path))
        try:
            yield engine, synth
        finally:
            # (the library is unloaded with the last of them: its noise begins anew with the next)
            del synth, engine


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """HOME elsewhere (amsynth makes folders in it); what the plug-in's C code prints, to nobody."""
    home, kept = os.environ.get("HOME"), [os.dup(1), os.dup(2)]
    nobody = os.open(os.devnull, os.O_WRONLY)
    with tempfile.TemporaryDirectory() as elsewhere:
        os.environ["HOME"] = elsewhere
        os.dup2(nobody, 1), os.dup2(nobody, 2)
        try:
            yield
        finally:
            for number, file in zip((1, 2), kept, strict=True):
                os.dup2(file, number)
                os.close(file)
            os.close(nobody)
            if home is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = home
