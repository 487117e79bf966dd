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
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from . import PaperError, paths

PACKAGES = ("numpy", "pandas", "scikit-learn", "matplotlib", "seaborn", "torch", "torchaudio", "l3ac", "sox", "accelerate", "soxr", "pyloudnorm")


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


SCAFFOLD = ("key", "journal.jsonl", "done", "checkpoint.pt")  # what only an unfinished stage needs


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
        if (read(self.partial) or {}).get("key") == self.key:
            self._install()  # sealed, then killed before the renaming
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
        paths.write_beside(self.partial / "provenance.json", json.dumps(record, indent=1, sort_keys=True) + "\n")
        self._install()
        return record

    def _install(self) -> None:
        for name in SCAFFOLD:
            (self.partial / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(self.partial, self.folder)


def read(folder: Path) -> dict | None:
    """The provenance of a finished stage, or None."""
    try:
        return json.loads((folder / "provenance.json").read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as problem:
        raise PaperError(f"{folder / 'provenance.json'} is damaged: delete the folder {folder} and run its notebook again.") from problem


def require(folder: Path, notebook: str, dataset: str = "") -> dict:
    """The provenance of an earlier stage; `PaperError` naming the notebook that makes it if it is missing, or was made from
    another data set than the one whose content hash is `dataset`."""
    record, name = read(folder), folder.relative_to(paths.data("")) if folder.is_relative_to(paths.data("")) else folder.name
    if record is None:
        raise PaperError(f"the stage {name} is missing: run notebook {notebook} first (or paper reproduce).")
    if dataset and record["inputs"].get("dataset") != dataset:
        raise PaperError(f"the stage {name} was made from another data set than the present one: run notebook {notebook} again (or paper reproduce).")
    return record


def stages(profile: str) -> list[str]:
    """Every finished stage of a run."""
    home = paths.data(profile)
    return [str(p.parent.relative_to(home)) for p in sorted(home.rglob("provenance.json")) if not p.parent.name.endswith(".partial")]


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


def forget_artefacts(profile: str, notebooks: list[str]) -> dict[str, list[str]]:
    """Strike what `notebooks` made from the manifest, before they run again; notebook -> the names it had made."""
    whole = manifest(profile)
    struck = {n: [name for name, a in whole["artefacts"].items() if a["notebook"] == n] for n in notebooks}
    if any(struck.values()):
        whole["artefacts"] = {name: a for name, a in whole["artefacts"].items() if a["notebook"] not in notebooks}
        paths.write_beside(paths.figures(profile) / "manifest.json", json.dumps(whole, indent=1, sort_keys=True) + "\n")
    return struck


# Numbers that the last bit of another processor's arithmetic moves freely: where training stopped, its losses, chosen thresholds,
# where a gradient crosses a threshold, a claim's measurement in words, and what follows from the scores. They stand in the tables and are not compared; nor are the points of curves and maps.
LOOSE = re.compile(r".*epochs?$|.*loss|lowest|highest|labels_said.*|relative|measured|first|last|look_ahead")
CURVES = ("figure_1_", "figure_2_", "figure_precision_recall", "figure_recipes", "table_recipes")


def verify(profile: str, tolerance: float = 0.05) -> pd.DataFrame:
    """Compare a run with the published reference: one row an artefact, `equal`, `within tolerance`, `different`, `missing`...

    Tables whose text and counts agree and whose scores differ by at most `tolerance` are within it: F1 moves by a few
    hundredths with another processor's arithmetic, since training amplifies the last bit. Pictures are judged by the CSV
    that they draw; of curves and t-SNE maps only the columns are compared (`same shape`).
    """
    reference, run = paths.reference(profile), paths.figures(profile)
    if not (reference / "manifest.json").exists():
        raise PaperError(f"no reference run is published for profile {profile!r}; there is one for: {', '.join(sorted(p.name for p in paths.reference('').glob('*')))}.")
    if not (run / "manifest.json").exists() or read(paths.data(profile) / "dataset") is None:
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
        elif not path.exists() or name not in claimed:
            verdict = "missing"  # (what lies there may be the published file itself)
        elif digest(path) != claimed[name]["sha256"]:
            verdict = "altered after the run"
        elif digest(path) == published[name]["sha256"]:
            verdict = "equal"
        elif (reference / table.name).exists() and table.exists():
            worst = distance(reference / table.name, table)
            if name.startswith(CURVES):
                same = list(pd.read_csv(reference / table.name, nrows=1)) == list(pd.read_csv(table, nrows=1))
                verdict, worst = ("same shape" if same else "different"), np.nan
            else:
                verdict = "within tolerance" if worst <= tolerance else "different"
        else:
            verdict = "different"
        rows.append({"artefact": name, "verdict": verdict, "largest_difference": worst})
    return pd.DataFrame(rows)


def distance(one: Path, other: Path) -> float:
    """Largest absolute difference between two tables' scores; inf if their shape, columns, texts or counts differ."""
    a, b = pd.read_csv(one), pd.read_csv(other)
    if list(a.columns) != list(b.columns) or len(a) != len(b):
        return float("inf")
    a, b = (frame[[c for c in frame.columns if not LOOSE.match(c)]] for frame in (a, b))
    numbers = a.select_dtypes("float").columns
    texts = [c for c in a.columns if c not in numbers]
    if not a[texts].equals(b[texts]) or not (a[numbers].isna() == b[numbers].isna()).all(axis=None):
        return float("inf")
    gap = (a[numbers] - b[numbers]).abs().max(axis=None)
    return 0.0 if pd.isna(gap) else float(gap)
