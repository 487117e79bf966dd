"""The only place that knows folders.

``PAPER_DATA`` and ``PAPER_FIGURES`` (environment; a relative path is relative to the checkout) move
a run elsewhere, so that tests and two runs side by side never touch the checkout's own.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from .errors import PaperError

PACKAGE = Path(__file__).resolve().parent.parent
ROOT = PACKAGE.parent
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
WEIGHTS = ROOT / "data" / "weights"
REAL = ROOT / "data" / "real"  # the few real clips that ship


def data(profile: str) -> Path:
    """Everything a run of `profile` makes, apart from its tables and figures."""
    return ROOT / os.environ.get("PAPER_DATA", "data") / profile


def figures(profile: str) -> Path:
    """Tables and figures of a run of `profile`; git ignores them."""
    return ROOT / os.environ.get("PAPER_FIGURES", "figures") / profile


def reference(profile: str) -> Path:
    """Tables and figures of the published reference run; only `paper publish` writes there."""
    return ROOT / "figures" / "reference" / profile


# --- the stages of a run: one folder each ---------------------------------------------------------


def dataset(profile: str) -> Path:
    return data(profile) / "dataset"


def embedding(profile: str, kind: str) -> Path:
    """Time statistics of every clip behind one front end (`frozen`, `random_frozen`, `logmel`)."""
    return data(profile) / f"embedding_{kind}"


def model(profile: str, name: str, seed: int = 0) -> Path:
    """A trained head or recognizer; training seeds beyond the first have folders of their own."""
    return data(profile) / "models" / (name + (f"_seed{seed}" if seed else ""))


def predictions(profile: str, name: str, split: str) -> Path:
    return data(profile) / f"predictions_{name}_{split}"


def experiment(profile: str, name: str) -> Path:
    return data(profile) / "experiments" / name


def executed(profile: str) -> Path:
    """The notebooks of a run, with their outputs."""
    return data(profile) / "notebooks"


# --- writing --------------------------------------------------------------------------------------


def require_disk(folder: Path, need: int, what: str) -> None:
    """Raise, before work begins, if `folder`'s disk lacks `need` bytes (plus a tenth)."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < need * 1.1:
        raise PaperError(
            f"{what} needs {need / 1e9:.2f} GB but only {free / 1e9:.2f} GB are free on the disk "
            f"of {folder}: free some space, or point PAPER_DATA at a larger disk."
        )


def new_array(path: Path, dtype, shape: tuple[int, ...]) -> None:
    """An .npy file of zeros with its disk blocks reserved: filling it cannot meet a full disk."""
    beside = path.with_name(f".{path.name}.new")
    np.lib.format.open_memmap(beside, "w+", dtype, shape).flush()
    try:
        if hasattr(os, "posix_fallocate"):
            with beside.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, beside.stat().st_size)
    except OSError as problem:
        beside.unlink()
        raise PaperError(
            f"could not reserve {path}: {problem.strerror}; free some space, or point PAPER_DATA "
            "at a larger disk."
        ) from problem
    os.replace(beside, path)


def to_write(path: Path | str) -> Path:
    """A file that is to be written; `PaperError`, before any work, where a folder has its name."""
    if Path(path).is_dir():
        raise PaperError(f"{path} is a folder: name a file.")
    return Path(path)


def write_beside(path: Path, data: bytes | str) -> None:
    """Write a whole file or none: to a neighbour first, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(beside, path)
    except OSError as problem:
        beside.unlink(missing_ok=True)
        raise PaperError(
            f"could not write {path}: {problem.strerror or problem}; nothing was left half-written."
        ) from problem
