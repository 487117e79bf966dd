"""`paper verify`: a run beside the published reference, artefact by artefact."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from . import manifest, paths, stages
from .errors import PaperError

# Largest difference of a score between two processors' runs, below the effect that the artefact
# guards: with half of quick's fine-tuning gain lost, Table 2 moves by more than 0.05 and Table 3 by
# more than 0.11.
TOLERANCE = 0.05
TOLERANCES = {
    "table_2_overall": 0.035,
    "table_2_gains": 0.035,
    "table_3_per_class": 0.10,
    "figure_per_class": 0.10,
    "figure_1_training": 0.05,  # (of the best epoch)
    "table_rates": 0.05,
    "table_experiments_per_class": 0.10,
    "table_opening": 0.10,  # (effect by effect, too)
    "table_alone": 0.50,  # probabilities of one clip an effect
    "figure_experiments": 0.10,
    "table_latent_effects": 0.15,
    "table_real": 0.20,  # one recording, effect by effect; codec and CNN lie 0.23 apart
    "figure_real": 0.20,
    "table_own_guitar": 0.20,
    "figure_own_guitar": 0.20,
    "table_adapters": 0.08,  # one training each, stopped early
    "figure_adapters": 0.08,
    "figure_adapters_time": 0.10,
    "table_forgetting": 0.10,
    "figure_forgetting": 0.10,
    "figure_front": 0.08,
    "table_pitfalls": 0.10,
    "table_few_examples": 0.30,  # learned from as few as three clips
    "figure_few_examples": 0.30,
    "table_effect_parameters": 0.30,  # (shares of a variance over a few dozen clips)
    "figure_effect_parameters": 0.06,
    "table_levels": 0.08,
    "table_ranking": 0.05,  # (of nearly equal distances the last bit decides the order)
    "table_ranking_change": 0.05,
    "table_preset_encoders": 0.08,
    "figure_preset_encoders": 0.08,
    "table_preset_growth": 0.08,
    "table_bridge": 0.08,
    "figure_bridge": 0.08,
    "table_orders": 0.25,  # (ten clips a pair)
    "figure_orders": 0.25,
    "table_tuning_importance": 0.40,  # (rough: of a few dozen trials)
    "table_search": 0.25,
    "figure_search": 0.25,
    "table_sound_matching": 0.15,
    "figure_sound_matching": 0.15,
    "figure_preset_growth": 0.08,
    "table_token_gaps": 5.0,  # (dB, of what was drawn)
    "table_token_tasks": 0.08,
    "figure_token_tasks": 0.08,
    "table_token_others": 0.10,
    "table_token_layers": 0.08,
    "figure_token_layers": 0.08,
    "table_token_value": 0.08,
    "figure_token_value": 0.08,
}
# Numbers that another processor's last bit moves freely: where training stopped, its losses, chosen
# thresholds, where a gradient crosses a threshold, a claim's measurement in words, what follows
# from scores.
LOOSE = re.compile(
    r".*epochs?|.*loss|lowest|highest|labels_said.*|relative|measured|first|last|look_ahead|"
    r"common shift|of single clips|different answers"
)
CURVES = {"figure_1_training": "model", "table_rates": "model", "table_recipes": "recipe"}
# only what the points, or the rows, stand for is compared
MAPS = (
    "figure_2_tsne",
    "figure_precision_recall",
    "figure_confusions",
    "figure_said_and_true",
    "figure_preset_map",
    "table_tuning",  # (where a search goes next hangs on the last bit of what it found)
    "figure_tuning",
    "figure_tpe",
)

# of what is not everywhere: plugins and data sets that one may have or not
OPTIONAL = tuple(
    f"table_{name}.{kind}"
    for name in ("ladspa", "recorded", "token_others")
    for kind in ("csv", "md")
)
FINE = ("equal", "within tolerance", "same points")


def verify(profile: str) -> pd.DataFrame:
    """One row an artefact: its verdict and the largest difference of a score.

    A verdict is equal, within tolerance, different, missing and the like. A table is within
    tolerance if its text and counts agree and its scores differ by no more than the artefact's
    tolerance. Pictures are judged by the CSV that they draw; curves by their best epoch.
    """
    reference, run = paths.reference(profile), paths.figures(profile)
    if not (reference / "manifest.json").exists():
        have = ", ".join(sorted(p.name for p in paths.reference("").glob("*") if p.is_dir()))
        raise PaperError(
            f"no reference run is published for profile {profile!r}; there is one for: {have}."
        )
    claimed = manifest.read(profile)["artefacts"]
    if not claimed:
        raise PaperError(
            f"there is no run of {profile!r} to verify: paper reproduce -p {profile} makes one."
        )
    published = json.loads((reference / "manifest.json").read_text())["artefacts"]
    made_by = {a["notebook"] for a in claimed.values()}
    rows = []
    for name in sorted(set(published) | set(claimed)):
        if name not in claimed and published[name]["notebook"] not in made_by:
            continue  # another part's, which this run did not include
        if name in OPTIONAL and not (name in published and name in claimed):
            continue
        verdict, worst = _judge(name, published.get(name), claimed.get(name), reference, run)
        rows.append({"artefact": name, "verdict": verdict, "largest_difference": worst})
    return pd.DataFrame(rows)


def _judge(
    name: str, published: dict | None, claimed: dict | None, reference: Path, run: Path
) -> tuple[str, float]:
    path = run / name
    if published is None:
        return "new", np.nan
    if claimed is None or not path.exists():
        return "missing", np.nan
    found = stages.digest(path)
    if found != claimed["sha256"]:
        return "altered after the run", np.nan
    if found == published["sha256"]:
        return "equal", np.nan
    ours, theirs = path.with_suffix(".csv"), (reference / name).with_suffix(".csv")
    if not (ours.exists() and theirs.exists()):
        return "different", np.nan
    if path.stem in MAPS:
        return "same points" if _same_points(theirs, ours) else "different", np.nan
    worst = distance(theirs, ours)
    near = worst <= TOLERANCES.get(path.stem, TOLERANCE)
    return "within tolerance" if near else "different", worst


def _same_points(one: Path, other: Path) -> bool:
    a, b = pd.read_csv(one), pd.read_csv(other)
    texts = a.select_dtypes(exclude="number").columns
    if list(a) != list(b) or np.isinf(b.select_dtypes("number")).any(axis=None):
        return False
    counted = r" \(\d+\)$"  # (beside a name: of so many clips)
    of = [f[texts].replace(counted, "", regex=True).drop_duplicates() for f in (a, b)]
    return of[0].reset_index(drop=True).equals(of[1].reset_index(drop=True))


def _best(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Of each curve, the best epoch's scores.

    Epochs come and go with the last bit, what is reached does not.
    """
    scores = [c for c in frame if c.endswith(("macro_f1", "map"))]
    return frame.groupby(by, sort=False)[scores].max().reset_index()


def distance(one: Path, other: Path) -> float:
    """Largest absolute difference between two tables' scores.

    It is inf if shape, columns, texts or counts differ.
    """
    a, b = pd.read_csv(one), pd.read_csv(other)
    if list(a.columns) != list(b.columns):
        return float("inf")
    if one.stem in CURVES:
        a, b = _best(a, CURVES[one.stem]), _best(b, CURVES[one.stem])
    if len(a) != len(b):
        return float("inf")
    a, b = (frame[[c for c in frame.columns if not LOOSE.fullmatch(c)]] for frame in (a, b))
    numbers = a.select_dtypes("float").columns
    texts = [c for c in a.columns if c not in numbers]
    if not a[texts].equals(b[texts]) or not (a[numbers].isna() == b[numbers].isna()).all(axis=None):
        return float("inf")
    if numbers.empty:
        return 0.0  # (words alone, and they agree)
    gap = (a[numbers] - b[numbers]).abs()
    if one.stem in ("table_forgetting", "figure_forgetting", "figure_front"):
        gap[[c for c in numbers if "_db" in c or c == "left"]] /= 10  # (dB beside scores)
    worst = gap.max(axis=None)
    return 0.0 if pd.isna(worst) else float(worst)
