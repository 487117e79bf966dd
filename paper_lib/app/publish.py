"""`paper publish`: make the present run of a profile the published reference (maintainers)."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pandas as pd

from ..core import manifest, paths
from ..core.config import Profile
from ..core.errors import PaperError
from ..evaluation import scores
from ..recognition import model
from ..report import tables
from ..sound import dataset
from . import notebooks


def publish(profile: Profile, part: str = "all") -> None:
    """Copy the run's tables, figures and manifest to figures/reference/<profile>.

    For `quick` also the executed notebooks and the README's table; for `full` also its fine-tuned
    model, as the released one. A `part` publishes that part alone and leaves the others' artefacts
    as they were.
    """
    source, target = paths.figures(profile.profile), paths.reference(profile.profile)
    artefacts, books = manifest.read(profile.profile)["artefacts"], notebooks.listing(part)
    for path in books:
        if path.stem not in {a["notebook"] for a in artefacts.values()}:
            raise PaperError(
                f"the run of {profile.profile} is not whole ({path.stem} is missing): "
                f"paper reproduce -p {profile.profile} --part {part} first."
            )
    if profile.profile == "full":
        _release(profile)
    _copy(source, target, {path.stem for path in books})
    notebooks.reproduce(profile, only="04", force=True)  # it shows the reference beside the run
    if profile.profile == "quick":
        for path in books:
            shutil.copy(paths.executed("quick") / path.name, path)
        _into_readme(pd.read_csv(target / "table_2_overall.csv"))


def _copy(source: paths.Path, target: paths.Path, books: set[str]) -> None:
    """The artefacts of these notebooks to the reference, whose others stay."""
    run = json.loads((source / "manifest.json").read_text())
    old = json.loads((target / "manifest.json").read_text()) if target.exists() else None
    kept = old["artefacts"] if old else {}
    kept = {name: a for name, a in kept.items() if a["notebook"] not in books}
    new = {name: a for name, a in run["artefacts"].items() if a["notebook"] in books}
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in kept:
            path.unlink()
    for name in new:
        shutil.copy(source / name, target / name)
    run["artefacts"] = dict(sorted((kept | new).items()))
    paths.write_beside(target / "manifest.json", json.dumps(run, indent=1, sort_keys=True) + "\n")


def _release(profile: Profile) -> None:
    data = dataset.load(profile)
    heard = {split: sorted(set(data.index.recording[data.rows(split)])) for split in dataset.SPLITS}
    chosen = data.rows("validation")
    for name, target in (("finetuned", "released"), ("logmel_cnn_varied", "cnn")):
        folder = paths.model(profile.profile, name)
        if not folder.exists():  # (that notebook has not been run)
            continue
        probability = np.load(folder / "validation_probabilities.npy")
        best = scores.cautious_thresholds(data.labels[chosen], probability)
        about: dict = {"profile": asdict(profile), "dataset": data.content}
        about["thresholds"] = [round(float(one), 3) for one in best]
        model.release(folder, heard, about, paths.WEIGHTS / target)


def _into_readme(table: pd.DataFrame) -> None:
    readme = paths.ROOT / "README.md"
    before, _, rest = readme.read_text().partition("<!-- table_2 -->")
    after = rest.partition("<!-- /table_2 -->")[2]
    text = f"{before}<!-- table_2 -->\n{tables.overview(table)}\n<!-- /table_2 -->{after}"
    paths.write_beside(readme, text)
