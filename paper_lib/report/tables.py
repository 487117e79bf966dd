"""The tables that notebooks show and the README repeats."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..core.config import Profile
from ..evaluation import intervals
from ..evaluation.published import PAPER_TABLE_2, PAPER_TABLE_3
from ..sound import effects
from ..sound.rendering import transformer

MODELS = (
    "chance",
    "majority",
    "always",
    "mfcc_svm",
    "logmel",
    "logmel_cnn",
    "logmel_cnn_varied",
    "logmel_crnn",
    "random_frozen",
    "frozen",
    "frozen_statistics",
    "upper_half",
    "whole",
    "finetuned",
    "released",
)


def table_1() -> pd.DataFrame:
    """Table 1: the 13 effects with the exact SoX arguments that a chain runs."""
    rows = [
        (e.group, e.name, e.method, " ".join(transformer((e.name,)).effects[1:]))
        for e in effects.EFFECTS
    ]
    return pd.DataFrame(rows, columns=["group", "effect", "sox_effect", "sox_arguments"])


def table_2(truth, answers: dict[str, np.ndarray], recordings, profile: Profile) -> pd.DataFrame:
    """Table 2: micro- and macro-F1 of each model with 95 % intervals, the paper's rows beside this
    run's.

    truth: (clips, 13); answers: model -> 0/1, (clips, 13) or (seeds, clips, 13); recordings:
    (clips,). Scores are means over training seeds; intervals hold recordings and, where there are
    several, seeds.
    """
    rows = []
    for model, answer in answers.items():
        if model in PAPER_TABLE_2:
            micro, macro = PAPER_TABLE_2[model]
            rows.append(
                {
                    "model": model,
                    "source": "paper",
                    "micro_f1": micro,
                    "macro_f1": macro,
                    "n_clips": 66433,
                }
            )
        ends = intervals.intervals(truth, answer, recordings, profile.bootstrap, profile.seed)
        seeds = len(answer) if answer.ndim == 3 else 1
        row = {"model": model, "source": "run", "n_clips": len(truth), "n_seeds": seeds}
        row |= intervals.mean_score(truth, answer)
        for score in ("micro", "macro"):
            row[f"{score}_lo"], row[f"{score}_hi"] = ends[f"{score}_f1"]
        rows.append(row)
    columns = [
        "model",
        "source",
        "micro_f1",
        "micro_lo",
        "micro_hi",
        "macro_f1",
        "macro_lo",
        "macro_hi",
        "n_clips",
        "n_seeds",
    ]
    frame = pd.DataFrame(rows)[columns]
    frame["n_seeds"] = frame["n_seeds"].astype("Int64")
    return frame


def gains(table: pd.DataFrame, paired: dict[str, float]) -> pd.DataFrame:
    """Absolute and relative gain of fine-tuned over frozen, paper and run, from a Table 2.

    paired: the 95 % interval of this run's gain in macro-F1, as `paired_gain` returns it.
    """
    rows = []
    for source in ("paper", "run"):
        part = table[table.source == source].set_index("model")
        for score in ("micro_f1", "macro_f1"):
            a, b = part.loc["frozen", score], part.loc["finetuned", score]
            rows.append(
                {
                    "source": source,
                    "score": score,
                    "frozen": a,
                    "finetuned": b,
                    "absolute": b - a,
                    "relative": (b - a) / a if a else np.nan,
                    "lo": paired["lo"] if (source, score) == ("run", "macro_f1") else np.nan,
                    "hi": paired["hi"] if (source, score) == ("run", "macro_f1") else np.nan,
                }
            )
    return pd.DataFrame(rows)


def paired_gain(truth, frozen, finetuned, recordings, profile: Profile) -> dict[str, float]:
    """Macro-F1 gain of fine-tuned over frozen with the 95 % interval of the *difference*, the same
    recordings resampled for both.
    """
    both = {"frozen": frozen, "finetuned": finetuned}
    scored = intervals.macro_f1(truth, both, recordings, profile.bootstrap, profile.seed)
    return dict(zip(("gain", "lo", "hi"), scored.more("finetuned", "frozen"), strict=True))


def table_3(truth, answers: dict[str, np.ndarray], recordings, profile: Profile) -> pd.DataFrame:
    """Table 3: F1 of each effect for each model of `answers`, with support and interval; the
    paper's beside it.
    """
    rows = []
    for model, answer in answers.items():
        f1 = intervals.mean_per_class(truth, answer)
        ends = intervals.intervals(truth, answer, recordings, profile.bootstrap, profile.seed)
        lo, hi = ends["per_class"]
        for j, effect in enumerate(effects.NAMES):
            if model in PAPER_TABLE_2:
                rows.append(
                    {
                        "effect": effect,
                        "model": model,
                        "source": "paper",
                        "f1": PAPER_TABLE_3[effect][list(PAPER_TABLE_2).index(model)],
                    }
                )
            rows.append(
                {
                    "effect": effect,
                    "model": model,
                    "source": "run",
                    "f1": f1[j],
                    "f1_lo": lo[j],
                    "f1_hi": hi[j],
                    "support": int(truth[:, j].sum()),
                }
            )
    frame = pd.DataFrame(rows)
    frame["support"] = frame["support"].astype("Int64")
    return frame


def recipe_table(curves: pd.DataFrame) -> pd.DataFrame:
    """A row a recipe: validation macro-F1 at the start, at the best epoch (chosen on the same
    clips; mean and range over seeds) and at the last, and the best epoch's mean average precision.
    curves: as `recipes.compare` returns them.
    """
    by = lambda frame: frame.groupby("recipe", sort=False)
    score = "validation_macro_f1"
    trained = curves[curves.epoch > 0].reset_index(drop=True)
    best = trained.loc[trained.groupby(["recipe", "seed"], sort=False)[score].idxmax()]
    start, last = (
        by(curves[curves.epoch == epoch])[score].mean() for epoch in (0, curves.epoch.max())
    )
    return (
        by(best)[score]
        .agg(["mean", "min", "max"])
        .assign(start=start, last=last, map=by(best).validation_map.mean())
    )
