"""Tables and figures of a run, each entered in the manifest; the paper's own numbers beside them. Notebooks 01 to 05.

Every table is a .csv and a .md, every figure a .png, an .svg and the .csv that it draws; the same run gives the same bytes.
"""

from __future__ import annotations

import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from . import audio, effects, metrics, paths, provenance
from .profiles import Profile

# Table 2 of the paper (66,433 test samples of GuitarSet)
PAPER_TABLE_2 = {"frozen": (0.6025, 0.5431), "finetuned": (0.9126, 0.8540)}
# Table 3 of the paper: F1 of baseline and fine-tuned model
PAPER_TABLE_3 = {
    "overdrive": (0.5802, 0.9537), "distortion": (0.7978, 0.9977), "chorus": (0.6134, 0.9484), "flanger": (0.4143, 0.8857),
    "phaser": (0.4775, 0.9215), "tremolo": (0.3548, 0.8263), "reverb": (0.6225, 0.9607), "feedback_delay": (0.9792, 0.9873),
    "slapback_delay": (0.7034, 0.9756), "low_boost": (0.7143, 0.9836), "low_reduct": (0.6494, 0.9714),
    "high_boost": (0.0000, 0.1429), "high_reduct": (0.1538, 0.5474),
}  # fmt: skip
MODELS = ("chance", "majority", "logmel", "random_frozen", "frozen", "finetuned")


def style() -> None:
    """The look of every figure, and what makes SVG files repeatable."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc={"figure.dpi": 90, "savefig.dpi": 150, "axes.titlesize": 11})
    matplotlib.rcParams["svg.hashsalt"] = "guitar effects"


class Report:
    """Where a notebook's tables and figures go: figures/<profile>, with the manifest entry."""

    def __init__(self, profile: Profile, notebook: str, **inputs: str):
        self.profile, self.notebook, self.inputs = profile.profile, notebook, inputs
        self.folder = paths.figures(profile.profile)
        style()

    def table(self, name: str, frame: pd.DataFrame, note: str = "") -> pd.DataFrame:
        """Write NAME.csv (four decimals) and NAME.md (with `note` below); the frame comes back for display."""
        rounded = frame.round(4)
        csv = rounded.to_csv(index=False, lineterminator="\n")
        markdown = _markdown(rounded) + (f"\n{note}\n" if note else "")
        self._write({f"{name}.csv": csv, f"{name}.md": markdown})
        return rounded

    def figure(self, name: str, figure: plt.Figure, drawn: pd.DataFrame) -> None:
        """Write NAME.png, NAME.svg (without dates, versions or random ids) and NAME.csv, the numbers that it draws."""
        files = {f"{name}.csv": drawn.round(6).to_csv(index=False, lineterminator="\n")}
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, metadata=metadata, bbox_inches="tight")
            files[f"{name}.{suffix}"] = buffer.getvalue()
        self._write(files)

    def _write(self, files: dict[str, str | bytes]) -> None:
        for name, content in files.items():
            paths.write_beside(self.folder / name, content)
        provenance.record_artefacts(self.profile, [self.folder / name for name in files], self.notebook, self.inputs)


def _markdown(frame: pd.DataFrame) -> str:
    cell = lambda v: "" if v is None or (isinstance(v, float) and np.isnan(v)) else (f"{v:.4g}" if isinstance(v, float) else str(v))
    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(cell(v) for v in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines) + "\n"


# --- tables -----------------------------------------------------------------------------------------------------------


def table_1() -> pd.DataFrame:
    """Table 1: the 13 effects with the exact SoX arguments that a chain runs."""
    from .rendering import transformer

    rows = [(e.group, e.name, e.method, " ".join(transformer((e.name,)).effects[1:])) for e in effects.EFFECTS]
    return pd.DataFrame(rows, columns=["group", "effect", "sox_effect", "sox_arguments"])


def table_2(truth, said: dict[str, np.ndarray], recordings, profile: Profile) -> pd.DataFrame:
    """Table 2: micro- and macro-F1 of each model with 95 % intervals, the paper's rows beside this run's.

    truth: (clips, 13); said: model -> 0/1 array (clips, 13); recordings: (clips,).
    """
    rows = []
    for model, answer in said.items():
        if model in PAPER_TABLE_2:
            micro, macro = PAPER_TABLE_2[model]
            rows.append({"model": model, "source": "paper", "micro_f1": micro, "macro_f1": macro, "n_clips": 66433})
        ends = metrics.intervals(truth, answer, recordings, profile.bootstrap, profile.seed)
        row = {"model": model, "source": "run", "n_clips": len(truth)} | metrics.scores(truth, answer)
        for score in ("micro", "macro"):
            row[f"{score}_lo"], row[f"{score}_hi"] = ends[f"{score}_f1"]
        rows.append(row)
    columns = ["model", "source", "micro_f1", "micro_lo", "micro_hi", "macro_f1", "macro_lo", "macro_hi", "n_clips"]
    return pd.DataFrame(rows)[columns]


def overview(table: pd.DataFrame) -> str:
    """A Table 2 as the README shows it: Markdown, three decimals, intervals in brackets."""
    lines = ["| model | source | micro-F1 | macro-F1 | clips |", "|---|---|---|---|---|"]
    for row in table.itertuples():
        score = lambda s: f"{getattr(row, s + '_f1'):.3f}" + ("" if pd.isna(getattr(row, s + "_lo")) else f" ({getattr(row, s + '_lo'):.3f} to {getattr(row, s + '_hi'):.3f})")
        lines.append(f"| {row.model} | {row.source} | {score('micro')} | {score('macro')} | {row.n_clips:,} |")
    return "\n".join(lines)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """Absolute and relative gain of fine-tuned over frozen, paper and run, from a Table 2."""
    rows = []
    for source in ("paper", "run"):
        part = table[table.source == source].set_index("model")
        for score in ("micro_f1", "macro_f1"):
            a, b = part.loc["frozen", score], part.loc["finetuned", score]
            rows.append({"source": source, "score": score, "frozen": a, "finetuned": b, "absolute": b - a, "relative": (b - a) / a if a else np.nan})
    return pd.DataFrame(rows)


def paired_gain(truth, frozen, finetuned, recordings, profile: Profile) -> dict[str, float]:
    """Macro-F1 gain of fine-tuned over frozen with the 95 % interval of the *difference*, the same recordings resampled for both."""
    from . import keyed

    a, b = (metrics.counts(truth, s, recordings) for s in (frozen, finetuned))
    picks = keyed(profile.seed, "bootstrap").integers(len(a), size=(profile.bootstrap, len(a)))
    macro = lambda c: metrics.f1_of(*np.moveaxis(c[picks].sum(1), 1, 0)).mean(1)
    lo, hi = np.percentile(macro(b) - macro(a), [2.5, 97.5])
    return {"gain": metrics.scores(truth, finetuned)["macro_f1"] - metrics.scores(truth, frozen)["macro_f1"], "lo": lo, "hi": hi}


def table_3(truth, said: dict[str, np.ndarray], recordings, profile: Profile) -> pd.DataFrame:
    """Table 3: F1 of each effect for each model of `said`, with support and interval; the paper's beside it."""
    rows = []
    for model, answer in said.items():
        f1 = metrics.per_class(truth, answer)
        lo, hi = metrics.intervals(truth, answer, recordings, profile.bootstrap, profile.seed)["per_class"]
        for j, effect in enumerate(effects.NAMES):
            if model in PAPER_TABLE_2:
                rows.append({"effect": effect, "model": model, "source": "paper", "f1": PAPER_TABLE_3[effect][list(PAPER_TABLE_2).index(model)]})
            rows.append({"effect": effect, "model": model, "source": "run", "f1": f1[j], "f1_lo": lo[j], "f1_hi": hi[j], "support": int(truth[:, j].sum())})
    frame = pd.DataFrame(rows)
    frame["support"] = frame["support"].astype("Int64")
    return frame


# --- figures ----------------------------------------------------------------------------------------------------------


def spectrograms(clips: dict[str, np.ndarray], rate: int, columns: int = 5) -> plt.Figure:
    """One log-frequency-power spectrogram a clip (int16 samples), all on one decibel scale."""
    rows = -(-len(clips) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.0 * rows), sharex=True, sharey=True, constrained_layout=True)
    for axis in np.ravel(axes)[len(clips) :]:
        axis.set_axis_off()
    for axis, (name, samples) in zip(np.ravel(axes), clips.items()):
        axis.specgram(audio.to_float(samples) + 1e-9, NFFT=1024, Fs=rate, noverlap=512, cmap="magma", vmin=-140, vmax=-40, rasterized=True)
        axis.set_title(name, fontsize=9)
        axis.grid(False)
    figure.supxlabel("time (s)", fontsize=9)
    figure.supylabel("frequency (Hz)", fontsize=9)
    return figure


def figure_1(history: pd.DataFrame, paper_rate: str = "") -> plt.Figure:
    """Figure 1: loss and validation macro-F1 over epochs. history: model, epoch, train_loss, validation_loss, validation_macro_f1."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), constrained_layout=True)
    for axis, (column, title) in zip(axes, {"train_loss": "training loss", "validation_loss": "validation loss", "validation_macro_f1": "validation macro-F1"}.items()):
        for i, (model, part) in enumerate(history.groupby("model", sort=False)):
            axis.plot(part.epoch, part[column], marker="o" if len(part) < 30 else None, ms=4, label=model, color=sns.color_palette()[i])
        axis.set_xscale("symlog", linthresh=2)  # a fine-tuning of few epochs beside a head's many
        axis.set_xlabel("epoch (logarithmic beyond 2)")
        axis.set_title(title)
    axes[2].legend(fontsize=8)
    return figure


def per_class_bars(table: pd.DataFrame) -> plt.Figure:
    """F1 of each effect with intervals, this run's models side by side (rows of Table 3 whose source is `run`)."""
    run = table[table.source == "run"]
    models = list(run.model.unique())
    figure, axis = plt.subplots(figsize=(11, 3.8), constrained_layout=True)
    width = 0.8 / len(models)
    for m, model in enumerate(models):
        part = run[run.model == model].set_index("effect").loc[list(effects.NAMES)]
        x = np.arange(len(part)) + (m - (len(models) - 1) / 2) * width
        error = np.stack([part.f1 - part.f1_lo, part.f1_hi - part.f1]).clip(0)
        axis.bar(x, part.f1, width, yerr=error, label=model, error_kw={"elinewidth": 0.8, "ecolor": "0.3"})
    axis.set_xticks(range(len(effects.NAMES)), [n.replace("_", "\n") for n in effects.NAMES], fontsize=8)
    axis.set_ylim(0, 1)
    axis.set_ylabel("F1 (95 % interval over recordings)")
    axis.legend(fontsize=8, ncol=len(models), loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def confusion_heat(share: pd.DataFrame) -> plt.Figure:
    """`metrics.confusions` as a picture."""
    figure, axis = plt.subplots(figsize=(6.6, 5.6), constrained_layout=True)
    sns.heatmap(share, vmin=0, vmax=1, cmap="rocket_r", annot=True, fmt=".1f", annot_kws={"size": 7}, ax=axis, cbar_kws={"label": "share of misses"})
    axis.set_xlabel("said without being there")
    axis.set_ylabel("missed")
    return figure


def figure_2(points: pd.DataFrame) -> plt.Figure:
    """Figure 2: t-SNE maps side by side. points: model, x, y, effect."""
    models = list(points.model.unique())
    figure, axes = plt.subplots(1, len(models), figsize=(5.6 * len(models), 5), constrained_layout=True, squeeze=False)
    palette = dict(zip(effects.NAMES, sns.color_palette("husl", len(effects.NAMES))))
    for axis, model in zip(axes[0], models):
        part = points[points.model == model]
        for effect in [e for e in effects.NAMES if e in set(part.effect)]:
            one = part[part.effect == effect]
            axis.scatter(one.x, one.y, s=28, color=palette[effect], label=effect, edgecolors="white", linewidths=0.4)
        axis.set_title(model)
        axis.set_xticks([]), axis.set_yticks([])
    axes[0, -1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
