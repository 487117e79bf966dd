"""figures/<profile>/manifest.json: every table and figure, its hash, what made it and from what."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from . import paths, stages

PACKAGES = (
    "accelerate", "bitsandbytes", "l3ac", "local-attention", "matplotlib", "numpy", "pandas",
    "pedalboard", "peft", "pyloudnorm", "scikit-learn", "scipy", "seaborn", "soundfile", "sox",
    "soxr", "torch", "torchaudio", "transformers", "SoX",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Package -> version, of all that a result can depend on ("": it is not here)."""
    found = dict.fromkeys(PACKAGES, "")
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = stages.version_of(package)
    return found


def read(profile: str) -> dict:
    path = paths.figures(profile) / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else {"profile": profile, "artefacts": {}}


def _change(profile: str, change: Callable[[dict], dict]) -> None:
    """Replace the manifest's artefacts by `change(artefacts)`, one process at a time."""
    path = paths.figures(profile) / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".manifest.lock")):
        manifest = read(profile)
        manifest["artefacts"] = dict(sorted(change(manifest["artefacts"]).items()))
        manifest["versions"] = versions()
        paths.write_beside(path, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def record(profile: str, files: list[Path], notebook: str, inputs: dict[str, str]) -> None:
    """Enter `files` with their hashes, the notebook that made them and all its inputs."""
    entries = {
        f.name: {"sha256": stages.digest(f), "notebook": notebook, "inputs": inputs} for f in files
    }
    _change(profile, lambda artefacts: artefacts | entries)


def forget(profile: str, notebooks: list[str]) -> dict[str, list[str]]:
    """Strike what `notebooks` made, before they run again; notebook -> the names it had made."""
    artefacts = read(profile)["artefacts"]
    names = {n: [name for name, a in artefacts.items() if a["notebook"] == n] for n in notebooks}
    if any(names.values()):
        _change(
            profile,
            lambda entries: {k: a for k, a in entries.items() if a["notebook"] not in notebooks},
        )
    return names
