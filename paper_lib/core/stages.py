"""Stages: folders of results that know what they were made from.

A stage is made beside its place (``NAME.partial``) and renamed when whole, so that a half-made one
is never taken for a finished one. Its key, taken once when it is asked for, holds its parameters,
the hashes of all its inputs, its declared version (`stages.toml`), the numeric packages, device and
thread count. A stage with the same key is not made again, nor, on a machine without a GPU, one that
differs in nothing but the GPU that made it. Code that `stages.lock` does not vouch
for is part of the key.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from . import code, machine, paths
from .errors import PaperError

SCAFFOLD = ("key", "shards", "checkpoint.pt", "best.pt")  # what only an unfinished stage needs


def version_of(package: str) -> str:
    """The installed version of a Python package, or of SoX (`"SoX"`)."""
    return str(machine.sox_version()) if package == "SoX" else _python_package(package)


_python_package = functools.cache(importlib.metadata.version)


def digest(value) -> str:
    """SHA-256 of bytes, of a file (a `Path`), or of anything that JSON can write."""
    if isinstance(value, Path):
        with value.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(value).hexdigest()


def array_digest(*arrays: np.ndarray) -> str:
    """SHA-256 over the bytes of arrays, in order."""
    return digest("".join(digest(np.ascontiguousarray(a).tobytes()) for a in arrays).encode())


@dataclass
class Stage:
    """One folder of results.

    Args:
        name: its entry in stages.toml (version, code, packages).
        folder: where it lies.
        parameters: what was chosen, JSON-like.
        inputs: name -> hash of everything that it reads: earlier stages, weights, rows, files.
        threads: of torch, where sums depend on their number.
    """

    name: str
    folder: Path
    parameters: dict
    inputs: dict
    threads: int = 0
    key: str = field(init=False)

    def __post_init__(self):
        entry = code.declared()[self.name]
        self.made_with = {
            "stage": self.name,
            "version": entry["version"],
            "packages": {package: version_of(package) for package in entry["packages"]},
            "device": machine.device() if "torch" in entry["packages"] else "",
            "threads": self.threads,
            "code": "" if code.vouched(self.name) else code.digest(self.name),
        }
        self.key = digest({"parameters": self.parameters, "inputs": self.inputs} | self.made_with)

    @property
    def partial(self) -> Path:
        return self.folder.with_name(self.folder.name + ".partial")

    def current(self) -> bool:
        """Is the finished folder there, with just this key, or brought from a GPU?"""
        record = read(self.folder) or {}
        return record.get("key") == self.key or self._brought(record)

    def _brought(self, record: dict) -> bool:
        """Is it the same, but made on a GPU (with its packages), where this machine has none?

        What was trained elsewhere can so be brought here, where nothing could make it again to the
        same bytes; the record says what made it.
        """
        ours = {"parameters": self.parameters, "inputs": self.inputs} | self.made_with
        elsewhere = ours["device"] == "cpu" and record.get("device") not in (None, "", "cpu")
        return elsewhere and all(
            digest(record.get(name)) == digest(ours[name])
            for name in ("parameters", "inputs", "stage", "version", "code")
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path | None]:
        """The folder to work in, an interrupted run's own if it has this key; None if all is done.

        No other process works on the stage meanwhile: one that tries waits. Among processes that
        train together the first opens the stage for all.
        """
        with _lock(self.folder) if machine.rank() == 0 else contextlib.nullcontext():
            if machine.rank() == 0 and not self.current():
                self._begin()
            whole = machine.together(self.current())
            yield None if whole else self.partial
            machine.together(None)
        if not self.current():
            raise RuntimeError(f"the stage {self.folder} was left without finish()")
        _note(self.folder, read(self.folder))

    def _begin(self) -> None:
        if (read(self.partial) or {}).get("key") == self.key:
            self._install()  # sealed, then killed before the renaming
            return
        marker = self.partial / "key"
        if not (marker.exists() and marker.read_text() == self.key):
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            marker.write_text(self.key)

    def finish(self, content: str, **more) -> None:
        """Seal the stage: `content` is the hash that later stages refer to."""
        if machine.rank():
            return
        record = {
            "key": self.key,
            "content": content,
            "parameters": self.parameters,
            "inputs": self.inputs,
        }
        text = json.dumps(record | self.made_with | more, indent=1, sort_keys=True)
        paths.write_beside(self.partial / "provenance.json", text + "\n")
        self._install()

    def _install(self) -> None:
        for name in SCAFFOLD:
            path = self.partial / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        before = self.folder.with_name(self.folder.name + ".old")
        shutil.rmtree(before, ignore_errors=True)
        if self.folder.exists():
            os.replace(self.folder, before)
        os.replace(self.partial, self.folder)
        shutil.rmtree(before, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """This folder for one process at a time; freed by the system if the process is killed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        print(f"another process is making {folder.name}: waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


# --- reading --------------------------------------------------------------------------------------

_READ: dict[Path, str] = {}  # every stage (and input) that this process has read -> its content


def _note(folder: Path, record: dict | None) -> None:
    if record:
        _READ[Path(folder)] = record["content"]


def lineage(profile: str) -> dict[str, str]:
    """Every stage of `profile` that this process has read so far, and its content's hash."""
    home = paths.data(profile)
    return {str(f.relative_to(home)): c for f, c in sorted(_READ.items()) if f.is_relative_to(home)}


def read(folder: Path) -> dict | None:
    """The provenance of a finished stage, or None."""
    try:
        return json.loads((folder / "provenance.json").read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as problem:
        raise PaperError(
            f"{folder / 'provenance.json'} is damaged: delete the folder {folder} and run its "
            "notebook again."
        ) from problem


def require(folder: Path, notebook: str, **inputs: str) -> dict:
    """The provenance of an earlier stage, noted as read.

    Raises:
        PaperError: naming the notebook that makes it, if it is missing, or was made from other
            `inputs` (name -> hash) than those of the present run.
    """
    record = read(folder)
    home = paths.data("")
    name = folder.relative_to(home) if folder.is_relative_to(home) else folder.name
    if record is None:
        raise PaperError(
            f"the stage {name} is missing: run notebook {notebook} first (or paper reproduce)."
        )
    words = {"dataset": "data set", "embedding": "embedding"}
    for key, content in inputs.items():
        if content and record["inputs"].get(key) != content:
            raise PaperError(
                f"the stage {name} was made from another {words.get(key, key)} than the present "
                f"one: run notebook {notebook} again (or paper reproduce)."
            )
    _note(folder, record)
    return record


def ready(made: Stage, notebook: str) -> dict:
    """`require`, of a stage that has to be made with just this run's parameters and inputs."""
    record = require(made.folder, notebook)
    if not made.current():
        raise PaperError(
            f"the stage {made.folder.name} was made with other parameters or inputs than this "
            f"run's: run notebook {notebook} again (or paper reproduce)."
        )
    return record


def finished(profile: str) -> list[str]:
    """Every finished stage of a run."""
    home = paths.data(profile)
    folders = [p.parent for p in sorted(home.rglob("provenance.json"))]
    return [str(f.relative_to(home)) for f in folders if f.suffix not in (".partial", ".old")]
