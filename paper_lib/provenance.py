"""Stages on disk, their provenance, the manifest of a run's artefacts, and the comparison with the published reference.

A stage is one folder. It is made beside (``NAME.partial``) and renamed when whole, so that a half-made one is never taken for
a finished one; what it was made from is in its ``provenance.json``, and a stage made from the same is not made again.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from . import PaperError, paths

PACKAGES = ("numpy", "pandas", "scikit-learn", "matplotlib", "seaborn", "torch", "torchaudio", "l3ac", "sox", "accelerate", "soxr")


def versions() -> dict:
    from .machine import sox_version

    return {name: importlib.metadata.version(name) for name in PACKAGES} | {"SoX": sox_version()}


def digest(value) -> str:
    """SHA-256 of bytes, a file, or anything that JSON can write."""
    if isinstance(value, Path):
        with value.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(value).hexdigest()


def code_digest(*modules: str) -> str:
    """SHA-256 of what the named modules of this package do: their syntax trees, without comments and docstrings."""
    trees = []
    for module in modules:
        tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(getattr(body[0], "value", None), ast.Constant):
                body.pop(0)
        trees.append(ast.dump(tree))
    return digest("".join(trees).encode())


@dataclass
class Stage:
    """One folder of results: `parameters`, `inputs` (name -> hash of an earlier stage) and `code` (modules) decide its key."""

    folder: Path
    parameters: dict
    inputs: dict
    code: tuple[str, ...]

    @property
    def key(self) -> str:
        return digest({"parameters": self.parameters, "inputs": self.inputs, "code": code_digest(*self.code)})

    @property
    def partial(self) -> Path:
        return self.folder.with_name(self.folder.name + ".partial")

    def current(self) -> bool:
        """Is the finished folder there, made from just these parameters, inputs and code?"""
        return (read(self.folder) or {}).get("key") == self.key

    def begin(self) -> Path:
        """The folder to work in: an interrupted run's own if it was the same stage, else a new one."""
        marker = self.partial / "key"
        if not (marker.exists() and marker.read_text() == self.key):
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            marker.write_text(self.key)
        return self.partial

    def finish(self, content: str, **more) -> dict:
        """Seal the stage: `content` is the hash that later stages refer to."""
        record = {"key": self.key, "content": content, "parameters": self.parameters, "inputs": self.inputs, **more, "versions": versions()}
        (self.partial / "key").unlink()
        paths.write_beside(self.partial / "provenance.json", json.dumps(record, indent=1, sort_keys=True) + "\n")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(self.partial, self.folder)
        return record


def read(folder: Path) -> dict | None:
    """The provenance of a finished stage, or None."""
    try:
        return json.loads((folder / "provenance.json").read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as problem:
        raise PaperError(f"{folder / 'provenance.json'} is damaged: delete the folder {folder} and run its notebook again.") from problem


def require(folder: Path, notebook: str) -> dict:
    """The provenance of an earlier stage; `PaperError` naming the notebook that makes it if it is missing."""
    record = read(folder)
    if record is None:
        raise PaperError(f"the stage {folder.parent.name}/{folder.name} is missing: run notebook {notebook} first (or paper reproduce -p {folder.parent.name}).")
    return record


def array_digest(*arrays: np.ndarray) -> str:
    return digest("".join(digest(np.ascontiguousarray(a).tobytes()) for a in arrays).encode())


# --- the manifest -----------------------------------------------------------------------------------------------------


def manifest(profile: str) -> dict:
    path = paths.figures(profile) / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else {"profile": profile, "artefacts": {}}


def record_artefacts(profile: str, files: list[Path], notebook: str, inputs: dict) -> None:
    """Enter `files` into figures/<profile>/manifest.json with their hashes, the notebook that made them and its inputs."""
    whole = manifest(profile)
    for path in files:
        whole["artefacts"][path.name] = {"sha256": digest(path), "notebook": notebook, "inputs": inputs}
    whole["artefacts"] = dict(sorted(whole["artefacts"].items()))
    whole["versions"] = versions()
    paths.write_beside(paths.figures(profile) / "manifest.json", json.dumps(whole, indent=1, sort_keys=True) + "\n")


def verify(profile: str, tolerance: float = 0.05) -> pd.DataFrame:
    """Compare a run with the published reference: one row an artefact, `equal`, `within tolerance`, `different`, `missing`...

    Tables whose text agrees and whose numbers differ by at most `tolerance` are within it: F1 moves by a few
    hundredths with another processor's arithmetic, since training amplifies the last bit. Pictures are judged by the CSV
    that they draw.
    """
    reference, run = paths.reference(profile), paths.figures(profile)
    if not (reference / "manifest.json").exists():
        raise PaperError(f"no reference run is published for profile {profile!r}; there is one for: {', '.join(sorted(p.name for p in paths.reference('').glob('*')))}.")
    if not (run / "manifest.json").exists():
        raise PaperError(f"there is no run of {profile!r} to verify: paper reproduce -p {profile} makes one.")
    published = json.loads((reference / "manifest.json").read_text())["artefacts"]
    claimed = manifest(profile)["artefacts"]
    rows = []
    for name in sorted(set(published) | set(claimed)):
        path = run / name
        table = path.with_suffix(".csv")
        worst = np.nan
        if name not in published:
            verdict = "new"
        elif not path.exists():
            verdict = "missing"
        elif name not in claimed or digest(path) != claimed[name]["sha256"]:
            verdict = "altered after the run"
        elif digest(path) == published[name]["sha256"]:
            verdict = "equal"
        elif (reference / table.name).exists() and table.exists():
            worst = distance(reference / table.name, table)
            if name.startswith("figure_2"):
                verdict = "same shape" if np.isfinite(worst) else "different"  # t-SNE is chaotic: points are not comparable
            else:
                verdict = "within tolerance" if worst <= tolerance else "different"
        else:
            verdict = "different"
        rows.append({"artefact": name, "verdict": verdict, "largest_difference": worst})
    return pd.DataFrame(rows)


def distance(one: Path, other: Path) -> float:
    """Largest absolute difference between two tables' numbers; inf if their shape, columns or texts differ."""
    a, b = pd.read_csv(one), pd.read_csv(other)
    if list(a.columns) != list(b.columns) or len(a) != len(b):
        return float("inf")
    numbers = a.select_dtypes("number").columns
    texts = [c for c in a.columns if c not in numbers]
    if not a[texts].equals(b[texts]) or not (a[numbers].isna() == b[numbers].isna()).all(axis=None):
        return float("inf")
    gap = (a[numbers] - b[numbers]).abs().max(axis=None)
    return 0.0 if pd.isna(gap) else float(gap)
