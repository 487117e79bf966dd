"""`paper publish`: make the present run of a profile the published reference (maintainers)."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
from torch import nn

from ..core import manifest, paths, verify
from ..core.config import Profile
from ..core.errors import PaperError
from ..evaluation import scores
from ..recognition import features, model, peers, variations
from ..report import findings
from ..sound import dataset
from . import notebooks


def publish(profile: Profile, part: str = "all", only: str = "") -> None:
    """Copy the run's tables, figures and manifest to figures/reference/<profile>.

    For `quick` also the executed notebooks and the README's table; for `full` also its fine-tuned
    model, as the released one. A `part` publishes that part alone, `only` (a number) one notebook,
    and leaves the others' artefacts as they were.
    """
    source, target = paths.figures(profile.profile), paths.reference(profile.profile)
    artefacts, books = manifest.read(profile.profile)["artefacts"], notebooks.listing(part)
    books = [path for path in books if path.stem.startswith(only)]
    if not books:
        raise PaperError(f"no notebook of part {part!r} begins with {only!r}.")
    for path in books:
        if path.stem not in {a["notebook"] for a in artefacts.values()}:
            raise PaperError(
                f"the run of {profile.profile} is not whole ({path.stem} is missing): "
                f"paper reproduce -p {profile.profile} --part {part} first."
            )
    if profile.profile == "full":
        _release(profile, only)
    if profile.profile == "full" and profile.variation_epochs and only in ("", "10"):
        release_referenced(profile)
    _copy(source, target, {path.stem for path in books})
    if not only or only == "04":  # it shows the reference beside the run
        notebooks.reproduce(profile, only="04", force=True)
    if profile.profile == "quick":
        for path in books:
            shutil.copy(paths.executed("quick") / path.name, path)
        readme = paths.ROOT / "README.md"
        paths.write_beside(readme, findings.into(readme.read_text()))


def _copy(source: paths.Path, target: paths.Path, books: set[str]) -> None:
    """The artefacts of these notebooks to the reference, whose others stay.

    So do those that hang on what this machine need not have, where this run has none.
    """
    run = json.loads((source / "manifest.json").read_text())
    old = json.loads((target / "manifest.json").read_text()) if target.exists() else None
    kept = old["artefacts"] if old else {}
    kept = {
        name: a
        for name, a in kept.items()
        if a["notebook"] not in books or (name in verify.OPTIONAL and name not in run["artefacts"])
    }
    new = {name: a for name, a in run["artefacts"].items() if a["notebook"] in books}
    if missing := [name for name in new if not (source / name).exists()]:
        raise PaperError(f"{source / missing[0]} is missing: run its notebook again.")
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in kept:
            path.unlink()
    for name in new:
        shutil.copy(source / name, target / name)
    run["artefacts"] = dict(sorted((kept | new).items()))
    paths.write_beside(target / "manifest.json", json.dumps(run, indent=1, sort_keys=True) + "\n")


def _release(profile: Profile, only: str) -> None:
    """What the run trained on its own data set, to data/weights; a part run alone has none.

    `only`: what this notebook trains.
    """
    for notebook, name, target, kind in (
        ("03", "finetuned", "released", model.EffectRecognizer),
        ("09", "logmel_cnn_varied", "cnn", peers.MelRecognizer),
    ):
        folder = paths.model(profile.profile, name)
        if folder.exists() and only in ("", notebook):
            data = dataset.load(profile)
            chosen = np.load(folder / "validation_probabilities.npy").astype(np.float64)
            logits = np.log(chosen.clip(1e-7)) - np.log((1 - chosen).clip(1e-7))
            release(model.load(folder, kind), logits, data, profile, paths.WEIGHTS / target)


def release_referenced(profile: Profile) -> None:
    """The network behind `--dry` (notebook 10), to data/weights/cnn_dry."""
    run, data = variations.train_referenced(profile)
    network = peers.load(paths.model(run.profile, "referenced"))
    clips = replace(features.kept(run, data, "logmel"), dry=peers.dry_spectra(run, data))
    logits = peers.logits_of(network, clips, data.rows("validation")).numpy().astype(np.float64)
    release(network, logits, data, run, paths.WEIGHTS / "cnn_dry")


def release(
    recognizer: nn.Module,
    logits: np.ndarray,
    data: dataset.Dataset,
    profile: Profile,
    target: paths.Path,
) -> None:
    """Release a recognizer with probabilities as sure as they are right, and thresholds.

    Both from its `logits` of the validation clips of `data`.
    """
    heard = {split: sorted(set(data.index.recording[data.rows(split)])) for split in dataset.SPLITS}
    truth = data.labels[data.rows("validation")]
    temperature = round(scores.temperature(truth, logits), 3)
    model.cool(recognizer, temperature)
    best = scores.cautious_thresholds(truth, 1 / (1 + np.exp(-logits / temperature)))
    about: dict = {"profile": asdict(profile), "dataset": data.content}
    about |= {"temperature": temperature, "thresholds": [round(float(one), 3) for one in best]}
    model.release(recognizer, heard, about, target)
