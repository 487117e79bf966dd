"""amsynth, a real synthesizer, played without a screen. Notebook 18.

A Debian package (a VST2 plug-in), for which DawDreamer is the host. A preset is a value from 0 to 1
for each of its parameters.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
import threading
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import PaperError

RATE = 44_100
BLOCK = 512  # samples that the plug-in makes at a time: part of the sound
PLACES = ("/usr/lib/vst", "/usr/lib/x86_64-linux-gnu/vst", "/usr/lib/aarch64-linux-gnu/vst")
NAME = "amsynth_vst.so"
FOLDERS = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")  # where amsynth reads and writes

Preset = dict[str, float]  # parameter -> 0 to 1; what is not named stands as amsynth begins


def plugin() -> Path:
    """Where amsynth lies; `PaperError` if it, or what plays it, is not there."""
    found = [Path(place) / NAME for place in PLACES if (Path(place) / NAME).exists()]
    if not found:
        raise PaperError(
            "Part IV plays amsynth, which is not here: make reproduce PART=proxies sets it up as "
            "root; otherwise install it (on Debian: apt-get install amsynth)."
        )
    _require("dawdreamer")
    return found[0]


def ready(*packages: str) -> None:
    """`PaperError` if amsynth, what plays it, or one of these packages is missing."""
    plugin()
    for package in packages:
        _require(package)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise PaperError(
            f"Part IV needs {package}, which is not here: make reproduce PART=proxies installs it "
            "(pip install -r requirements-synth.lock)."
        )


def parameters() -> list[str]:
    """The names of amsynth's parameters, in its order."""
    path = plugin()
    with _apart():
        _, synth = _fresh(path)
        try:
            return [one["name"] for one in synth.get_parameters_description()]
        finally:
            _ = synth = None


def render(preset: Preset, note: int = 57, held: float = 2.0, seconds: float = 3.0) -> np.ndarray:
    """Play one note: (samples,) float32 at 44.1 kHz, the mean of both channels.

    note: MIDI (57: 220 Hz); held: seconds until it is let go.
    """
    with player() as play:
        return play(preset, note, held, seconds)


@contextlib.contextmanager
def player() -> Iterator[Callable[..., np.ndarray]]:
    """`render`, for many sounds: the plug-in is loaded once, which takes longer than to play.

    One that has played is not in the state in which it began, and renders something else. So each
    sound is made in a fork of this process, whose plug-in is as it was loaded.
    """
    path = plugin()
    with _apart():
        engine, synth = _fresh(path)
        index = {one["name"]: one["index"] for one in synth.get_parameters_description()}

        def play(
            preset: Preset, note: int = 57, held: float = 2.0, seconds: float = 3.0
        ) -> np.ndarray:
            for name in preset:
                if name not in index:
                    raise PaperError(f"amsynth has no parameter {name!r}: {', '.join(index)}.")

            def sound() -> bytes:
                for name, value in preset.items():
                    synth.set_parameter(index[name], float(value))
                synth.add_midi_note(note, 100, 0.0, held)
                engine.load_graph([(synth, [])])
                engine.render(seconds)
                return engine.get_audio().mean(0).astype(np.float32).tobytes()

            return np.frombuffer(_in_a_fork(sound), np.float32)

        try:
            yield play
        finally:
            # the library is unloaded with the last that holds it, and its noise begins anew: so
            # neither this frame nor a kept exception may hold one
            engine = synth = None


def _in_a_fork(work: Callable[[], bytes]) -> bytes:
    """What `work` returns in a copy of this process, which ends with it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), os.fdopen(writing, "wb") as file:
            file.write(work())
            file.flush()
            os._exit(0)
        os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        found = file.read()
    if os.waitpid(child, 0)[1]:
        raise PaperError("amsynth ended while it played a preset: run the same command again.")
    return found


def _fresh(path: Path) -> tuple[Any, Any]:
    """A host, and an amsynth that has not played."""
    import dawdreamer

    engine = dawdreamer.RenderEngine(RATE, BLOCK)
    return engine, engine.make_plugin_processor("amsynth", str(path))


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Other folders for amsynth than the user's; what its C code prints, to nobody."""
    if threading.current_thread() is not threading.main_thread():
        raise PaperError("amsynth plays in a process's main thread alone: use processes.")
    with contextlib.ExitStack() as stack:
        elsewhere = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(unittest.mock.patch.dict(os.environ, dict.fromkeys(FOLDERS, elsewhere)))
        nobody = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nobody)
        for number in (1, 2):
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(nobody, number)
        yield
