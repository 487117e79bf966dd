"""The figures. Each function draws the table that it is given and returns the figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import mlab

from ..sound import audio, effects

# A model looks the same in every figure: a codec is blue (the more trained, the darker), a network
# on spectrograms orange to brown, what hears nothing grey. Markers and lightness differ too.
LOOK = {  # name in tables: (name in figures, colour, marker)
    "chance": ("guessing", "#8C8C8C", "x"),
    "majority": ("no effect, every time", "#8C8C8C", "+"),
    "always": ("all 13, every time", "#8C8C8C", "|"),
    "mfcc_svm": ("MFCC + SVM", "#CC79A7", "P"),
    "logmel": ("log-mel + MLP", "#E69F00", "D"),
    "logmel_cnn": ("CNN", "#D55E00", "s"),
    "logmel_cnn_varied": ("CNN, varied training", "#D55E00", "v"),
    "logmel_crnn": ("CRNN, varied training", "#D55E00", "<"),
    "released_cnn": ("released CNN", "#7A2E00", "s"),
    "random_frozen": ("untrained codec", "#A9D6F5", "o"),
    "frozen": ("frozen codec", "#56B4E9", "o"),
    "frozen_statistics": ("frozen codec, 3 statistics", "#56B4E9", "^"),
    "upper_half": ("codec, upper half trained", "#0072B2", "^"),
    "whole": ("codec, whole encoder trained", "#0072B2", "v"),
    "finetuned": ("fine-tuned codec", "#0072B2", "o"),
    "released": ("released codec", "#14285A", "o"),
}


def named(effect: str) -> str:
    """An effect's name as figures show it."""
    return effect.replace("_", " ").replace("reduct", "cut")


def _legend_above(figure: plt.Figure, axis: plt.Axes, columns: int) -> None:
    figure.legend(
        *axis.get_legend_handles_labels(), ncol=columns, loc="outside upper center", frameon=False
    )


# --- the sounds (notebooks 01, 08, 09, 10) --------------------------------------------------------


def against_dry(
    clips: dict[str, np.ndarray], rate: int, start: float = 1.3, seconds: float = 1.2
) -> plt.Figure:
    """The dry clip (the first), then what each effect changes: dB in quarter-octave bands, minus
    the dry clip's. clips: name -> int16 samples at `rate` Hz.
    """
    start = max(0.0, min(start, len(next(iter(clips.values()))) / rate - seconds))
    edges = np.geomspace(90, 8000, 28)
    part = slice(int(start * rate), int((start + seconds) * rate))

    def level(samples):
        power, hertz, at = mlab.specgram(
            audio.to_float(samples[part]), NFFT=2048, Fs=rate, noverlap=2048 - rate // 100
        )
        below = [np.interp(edges, np.asarray(hertz), c) for c in np.cumsum(power, 0).T]
        return 10 * np.log10(np.diff(below, axis=1).T + 1e-12), at

    (first, dry), *others = clips.items()
    (reference, at), middle = level(dry), np.sqrt(edges[1:] * edges[:-1])
    figure, axes = plt.subplots(
        3, 5, figsize=(11, 6.6), sharex=True, sharey=True, constrained_layout=True
    )
    top = reference.max()
    axes[0, 0].pcolormesh(
        at, middle, reference, cmap="magma", vmin=top - 60, vmax=top, rasterized=True
    )
    axes[0, 0].set_title(f"{first} (as it is)")
    for axis, (name, samples) in zip(axes.flat[1:], others, strict=False):
        change = axis.pcolormesh(
            at,
            middle,
            level(samples)[0] - reference,
            cmap="RdBu_r",
            vmin=-12,
            vmax=12,
            rasterized=True,
        )
        axis.set_title(named(name))
    axes[0, 0].set(yscale="log", ylim=(90, 8000))
    axes[0, 0].set_yticks([100, 300, 1000, 3000], ["100", "300", "1k", "3k"], minor=False)
    axes[0, 0].minorticks_off()
    for axis in axes.flat:
        axis.grid(False)
    axes[-1, -1].set_axis_off()
    figure.colorbar(change, ax=axes, label="louder (red), quieter (blue) than dry: dB", shrink=0.7)
    figure.supxlabel("seconds")
    figure.supylabel("frequency (Hz)")
    return figure


def envelopes(drawn: pd.DataFrame) -> plt.Figure:
    """Level over time of one clip made several times over. drawn: seconds, level_db, made."""
    figure, axis = plt.subplots(figsize=(10, 3), constrained_layout=True)
    for i, (name, part) in enumerate(drawn.groupby("made", sort=False)):
        axis.plot(
            part.seconds,
            part.level_db,
            lw=2.2 if i == 0 else 1.4,
            color=("0.2", "#0072B2", "#D55E00")[i % 3],
            label=name,
        )
    axis.set(xlabel="seconds", ylabel="change of level (dB)")
    _legend_above(figure, axis, columns=4)
    return figure


def mel_hertz(band: int, bands: int = 64, top: float = 8000.0) -> float:
    """Centre in Hz of a mel band (0 the lowest), evenly spaced in 2595 log10(1 + f / 700)."""
    return 700 * ((1 + top / 700) ** ((band + 1) / (bands + 1)) - 1)


def log_mel(pictures: dict[str, np.ndarray]) -> plt.Figure:
    """(bands, frames) log-mel spectrograms, two in a row, on one scale (dB)."""
    rows = -(-len(pictures) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(10, 2.0 * rows), sharex=True, sharey=True, constrained_layout=True
    )
    for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        shown = axis.imshow(
            10 * picture / np.log(10),
            origin="lower",
            aspect="auto",
            vmin=-60,
            vmax=30,
            cmap="magma",
        )
        axis.grid(False)
        axis.set_title(name)
        axis.set_yticks(range(0, 64, 16), [f"{mel_hertz(b):.0f}" for b in range(0, 64, 16)])
        axis.set_xticks(np.arange(0, 6) * 62.5, range(6))
    figure.supxlabel("seconds")
    figure.supylabel("frequency (Hz), mel scale")
    figure.colorbar(shown, ax=axes, label="dB")
    return figure


def colours(spectra: pd.DataFrame, hertz: np.ndarray) -> plt.Figure:
    """What varying a recording does to its colour: mean spectrum minus the same performance's
    before. spectra: kind, recording, band, db; hertz: the bands' centres.
    """
    wide = spectra.pivot(index=["recording", "band"], columns="kind", values="db")
    change = (wide.varied - wide.plucked).dropna().unstack("recording")
    figure, axis = plt.subplots(figsize=(8, 4), constrained_layout=True)
    axis.semilogx(hertz, change, lw=1.5)
    axis.axhline(0, color="0.3", lw=1)
    axis.set(xlabel="frequency (Hz)", ylabel="change (dB)")
    return figure


# --- one recognizer, one clip (notebook 12, README) -----------------------------------------------


def answer(
    samples: np.ndarray, rate: int, probability: np.ndarray, played: list[str], model: str
) -> plt.Figure:
    """A clip in, thirteen probabilities of `model` out; filled: what was played."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4.4), width_ratios=(1, 1), constrained_layout=True
    )
    left.plot(np.arange(len(samples)) / rate, samples, color="0.3", lw=0.4)
    left.set(title="a clip of guitar ...", xlabel="seconds", yticks=[])
    order = np.argsort(probability)
    inside = [effects.NAMES[i] in played for i in order]
    name, color, _ = LOOK[model]
    faces = [color if one else "white" for one in inside]
    bars = right.barh(range(13), probability[order], color=faces, edgecolor=color)
    right.bar_label(bars, fmt="%.2f", padding=3)
    right.axvline(0.5, color="0.3", ls="--", lw=1)
    right.set_yticks(range(13), [named(effects.NAMES[i]) for i in order])
    right.set(title=f"... and what the {name} predicts (filled: was played)", xlim=(0, 1.15))
    return figure


def before_after(dry: np.ndarray, wet: np.ndarray, rate: int) -> plt.Figure:
    """Spectrograms of a clip dry and with effects, and their difference. int16 at `rate` Hz."""
    figure, axes = plt.subplots(
        3, 1, figsize=(9, 6.4), sharex=True, sharey=True, constrained_layout=True
    )
    levels = []
    for samples in (dry, wet):
        found = mlab.specgram(audio.to_float(samples), 1024, rate, noverlap=768)
        power, hertz, at = (np.asarray(one) for one in found)
        levels.append(10 * np.log10(power + 1e-12))
    top = max(level.max() for level in levels)
    for axis, name, level in zip(axes, ("dry", "with effects"), levels, strict=False):
        shown = axis.pcolormesh(
            at, hertz / 1000, level, cmap="magma", vmin=top - 80, vmax=top, rasterized=True
        )
        axis.set_title(name, loc="left")
    figure.colorbar(shown, ax=axes[:2], label="dB/Hz")
    change = axes[2].pcolormesh(
        at, hertz / 1000, levels[1] - levels[0], cmap="RdBu_r", vmin=-24, vmax=24, rasterized=True
    )
    axes[2].set_title("with effects, minus dry", loc="left")
    figure.colorbar(change, ax=axes[2], label="dB")
    axes[2].set_xlabel("seconds")
    figure.supylabel("frequency (kHz)")
    for axis in axes:
        axis.grid(False)
    return figure


# --- the paper's figures and tables (notebooks 02 to 05) ------------------------------------------


def overall(table: pd.DataFrame) -> plt.Figure:
    """Macro-F1 of each model with its interval, the paper's values beside. table: a Table 2."""
    run = table[table.source == "run"].sort_values("macro_f1")
    paper = table[table.source == "paper"].set_index("model").macro_f1
    figure, axis = plt.subplots(figsize=(9, 0.42 * len(run) + 1.3), constrained_layout=True)
    for y, one in enumerate(run.itertuples()):
        _, color, marker = LOOK[one.model]
        axis.plot([one.macro_lo, one.macro_hi], [y, y], color=color, lw=3, alpha=0.5)
        axis.plot(one.macro_f1, y, marker=marker, ms=9, color=color)
        axis.text(1.01, y, f"{one.macro_f1:.2f}", va="center", transform=axis.get_yaxis_transform())
    there = [m for m in run.model if m in paper.index]
    at = [list(run.model).index(m) for m in there]
    axis.plot(paper[there], at, "D", mfc="white", mec="black", ms=7, label="the paper (GuitarSet)")
    axis.set_yticks(range(len(run)), [LOOK[m][0] for m in run.model])
    axis.set(xlim=(0, 1), xlabel="macro-F1 on unheard recordings (95 % interval)")
    axis.legend(loc="lower right")
    return figure


def figure_1(history: pd.DataFrame) -> plt.Figure:
    """Figure 1: loss and macro-F1 over optimiser steps, a column a training, the kept epoch ringed.

    history: model, epoch, step, and the scores.
    """
    stages = list(history.groupby("model", sort=False))
    longest = history.step.max()
    figure, axes = plt.subplots(
        2,
        len(stages),
        figsize=(10, 6),
        sharex="col",
        sharey="row",
        squeeze=False,
        width_ratios=[max(part.step.max(), 0.22 * longest) for _, part in stages],
        constrained_layout=True,
    )
    for i, (stage, part) in enumerate(stages):
        color = LOOK["frozen" if i == 0 else "finetuned"][1]
        trained = part[part.epoch > 0]
        kept = trained.loc[trained.validation_macro_f1.idxmax()]
        loss, f1 = axes[:, i]
        for axis, column, line in (
            (loss, "train_loss", ":"),
            (loss, "validation_loss", "-"),
            (f1, "validation_macro_f1", "-"),
        ):
            drawn = part.dropna(subset=[column])
            dot = "o" if len(drawn) < 30 else None
            label = column.split("_")[0].replace("train", "training")
            axis.plot(drawn.step, drawn[column], line, color=color, marker=dot, ms=4, label=label)
            if column.startswith("validation"):
                axis.plot(kept.step, kept[column], "o", ms=12, mfc="none", mec="black", mew=1.5)
        text = f"{kept.validation_macro_f1:.2f}"
        f1.annotate(text, (kept.step, kept.validation_macro_f1), (0, -22), ha="center",
                    textcoords="offset points")  # fmt: skip
        loss.set_title(f"{i + 1} · {stage}", loc="left")
        f1.set_xlabel("optimiser steps")
    axes[0, 0].set_ylabel("loss (nats a clip)")
    axes[1, 0].set_ylabel("validation macro-F1")
    axes[0, 0].legend()
    return figure


def per_class(table: pd.DataFrame, n_clips: int) -> plt.Figure:
    """F1 of each effect: what fine-tuning adds to the frozen codec (bar), other models beside it;
    left this run, right the paper. table: a Table 3; n_clips: test clips behind its support.
    """
    run = table[table.source == "run"].set_index(["model", "effect"])
    order = (run.f1["finetuned"] - run.f1["frozen"]).sort_values().index
    y, beside = np.arange(len(order)), {"logmel": -0.25, "released": 0.25}
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(10, 6.4),
        sharex=True,
        sharey=True,
        width_ratios=(1.7, 1),
        constrained_layout=True,
    )
    for axis, source in zip(axes, ("run", "paper"), strict=True):
        part = table[table.source == source].set_index(["model", "effect"])
        low, high = part.f1["frozen"].loc[order], part.f1["finetuned"].loc[order]
        axis.hlines(y, low, high, color=LOOK["finetuned"][1], lw=7, alpha=0.25, zorder=1)
        for model in [m for m in LOOK if m in part.index.levels[0]]:
            name, color, marker = LOOK[model]
            one, at = part.loc[model].loc[order], y + beside.get(model, 0)
            axis.hlines(at, one.f1_lo, one.f1_hi, color=color, lw=1.2)
            axis.plot(
                one.f1, at, ls="none", marker=marker, ms=7, color=color, mec="white", label=name
            )
    support = run.loc["frozen"].support.loc[order].astype(float)
    always = 2 * support / (support + n_clips)
    axes[0].plot(always, y, "|", ms=14, mew=2, color=LOOK["always"][1], label=LOOK["always"][0])
    axes[0].set_yticks(y, [f"{named(e)} ({n:.0f})" for e, n in support.items()])
    f1 = run.f1.unstack("model")
    axes[0].set_title(
        f"this run: fine-tuning helps on {(f1.finetuned > f1.frozen).sum()} of {len(f1)} effects,\n"
        f"log-mel is above it on {(f1.logmel > f1.finetuned).sum()}",
        loc="left",
    )
    axes[1].set_title("the paper (GuitarSet)", loc="left")
    axes[0].set(xlim=(-0.03, 1.03), xlabel="F1 (95 % interval over recordings)")
    axes[1].set_xlabel("F1")
    _legend_above(figure, axes[0], columns=5)
    return figure


def confusion_heat(excess: pd.DataFrame) -> plt.Figure:
    """Percentage points by which a column is predicted wrongly more often where the row was missed
    than anywhere else; empty: fewer than two clips.
    """
    figure, axis = plt.subplots(figsize=(9.5, 7), constrained_layout=True)
    sns.heatmap(
        (100 * excess).round() + 0.0,  # (+ 0.0: no minus zero)
        cmap="RdBu_r",
        center=0,
        vmin=-60,
        vmax=60,
        annot=True,
        fmt=".0f",
        annot_kws={"size": 11},
        linewidths=0.5,
        ax=axis,
        cbar_kws={"label": "points above how often it is predicted wrongly anyway"},
    )
    axis.set(xlabel="predicted without being there", ylabel="missed (clips)", facecolor="0.95")
    axis.grid(False)
    return figure


def precision_recall(curves: pd.DataFrame, prevalence: pd.Series) -> plt.Figure:
    """A panel an effect: precision over recall of each model, dashed what guessing reaches. curves:
    model, effect, recall, precision.
    """
    figure, axes = plt.subplots(
        3, 5, figsize=(11, 6.4), sharex=True, sharey=True, constrained_layout=True
    )
    for axis in axes.flat[len(effects.NAMES) :]:
        axis.set_axis_off()
    for axis, effect in zip(axes.flat, effects.NAMES, strict=False):
        for model, part in curves[curves.effect == effect].groupby("model", sort=False):
            name, color, _ = LOOK[model]
            axis.plot(part.recall, part.precision, label=name, color=color, lw=1.8)
        axis.axhline(prevalence[effect], color="0.3", ls="--", lw=1)
        axis.set_title(named(effect))
        axis.set(xlim=(0, 1), ylim=(0, 1.03))
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    figure.supxlabel("recall")
    figure.supylabel("precision")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="lower right",
        bbox_to_anchor=(0.98, 0.1),
        frameon=False,
    )
    return figure


FAMILIES = {
    "nonlinear": ("nonlinear",),
    "modulation": ("modulation",),
    "echo and reverb": ("ambience", "delay"),
    "equalizers": ("low_eq", "high_eq"),
}


def figure_2(points: pd.DataFrame) -> plt.Figure:
    """Figure 2: t-SNE maps, a row a model; a family of effects in each column, the others grey; in
    the last column a line from each clip to the middle of its recording's.
    """
    models, colors = list(points.model.unique()), sns.color_palette("colorblind")
    colors = [colors[i] for i in (0, 1, 2, 4)]
    figure, axes = plt.subplots(
        len(models), 5, figsize=(12, 2.6 * len(models) + 1), constrained_layout=True, squeeze=False
    )
    for row, model in zip(axes, models, strict=True):
        part = points[points.model == model]
        for axis, (family, groups) in zip(row, FAMILIES.items(), strict=False):
            axis.scatter(part.x, part.y, s=12, color="0.85")
            members = [e.name for e in effects.EFFECTS if e.group in groups]
            for name, color, marker in zip(members, colors, "os^D", strict=False):
                one = part[part.effect == name]
                axis.scatter(one.x, one.y, s=38, color=color, marker=marker, label=named(name))
            axis.set_title(family)
        middle = part.groupby("recording")[["x", "y"]].transform("mean")
        row[-1].plot([part.x, middle.x], [part.y, middle.y], color="0.5", lw=0.8)
        row[-1].scatter(part.x, part.y, s=12, color="0.3")
        row[-1].set_title("same recording")
        row[0].set_ylabel(LOOK[model][0])
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis in axes[-1, :-1]:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False, ncol=1)
    return figure


# --- inside the codec, and what each choice is worth (notebooks 06 to 08, A1 to A3) ---------------


def tpooling(drawn: pd.DataFrame) -> plt.Figure:
    """One sustained note dry and with tremolo, and what TPooling makes of both (Eq. 1).

    drawn: clip, seconds, signal, tpooling_45.
    """
    clips = list(drawn.groupby("clip", sort=False))
    figure, axes = plt.subplots(
        len(clips), 1, figsize=(9, 4.6), sharex=True, sharey=True, constrained_layout=True
    )
    for axis, (name, part) in zip(axes, clips, strict=True):
        axis.plot(part.seconds, part.signal, color="0.75", lw=0.5, label="signal")
        axis.plot(part.seconds, part.tpooling_45, color="#D55E00", lw=1.8, label="TPooling, K = 45")
        axis.set_title(name, loc="left")
        axis.set_ylabel("amplitude")
    axes[-1].set_xlabel("seconds")
    axes[0].legend(loc="upper right", ncol=2)
    return figure


def gradient_curves(drawn: pd.DataFrame, target: int) -> plt.Figure:
    """How much each input sample moves output sample `target`, as a share of the peak, and where
    thresholds put the look-ahead. drawn: sample, gradient, decoder.
    """
    figure, axis = plt.subplots(figsize=(9, 4.2), constrained_layout=True)
    for (name, part), color in zip(
        drawn.groupby("decoder", sort=False), ("#D55E00", "#0072B2"), strict=True
    ):
        ms = (part["sample"] - target) / 16
        axis.semilogy(ms, part.gradient.clip(lower=1e-16), lw=1, color=color, label=name)
    for share in (1e-2, 1e-3, 1e-6):
        axis.axhline(share, color="0.5", ls=":", lw=1)
        axis.text(505, share, f"threshold {share:g}", va="center", fontsize=10)
    axis.axvline(0, color="0.3", lw=1)
    axis.axvline(100, color="0.3", ls="--", lw=1.5, label="the review's 1,600 samples = 100 ms")
    axis.text(300, 2e-4, "on to the end of the clip →", va="bottom", color="#D55E00")
    axis.set(
        xlabel="input sample: ms after the output sample",
        ylabel="gradient / peak",
        xlim=(-150, 500),
        ylim=(1e-12, 2),
    )
    axis.legend(loc="lower left")
    return figure


def learning_curve(curve: pd.DataFrame, targets: tuple[str, ...]) -> plt.Figure:
    """A pretraining's log: reconstruction (SI-SDR, STFT distance; thick: running median) and the
    share of the spectral targets' variance that the embedding explains.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), constrained_layout=True)
    color, thousands = LOOK["frozen"][1], curve.step / 1000
    for axis, column, title in (
        (axes[0], "si_sdr_db", "SI-SDR (dB): higher is better"),
        (axes[1], "stft", "STFT distance: lower is better"),
    ):
        axis.plot(thousands, curve[column], color=color, lw=0.8, alpha=0.7)
        smooth = curve[column].rolling(9, center=True, min_periods=1).median()
        axis.plot(thousands, smooth, color="#0072B2", lw=2)
        axis.set_title(title)
    for name, line in zip(targets, ("-", "--", "-.", ":"), strict=True):
        label = f"{name}: {curve[name].iloc[-1]:.2f} in the end"
        axes[2].plot(thousands, curve[name], line, color="#0072B2", label=label)
    axes[2].set(title="variance explained: higher is better", ylim=(0, 1))
    axes[2].legend(loc="lower right", fontsize=9, bbox_to_anchor=(1, 0.02))
    for axis in axes:
        axis.set_xlabel("thousand steps (last leg)")
    return figure


def verdicts(ledger: pd.DataFrame) -> plt.Figure:
    """How many claims of each document hold. ledger: document, verdict, a row a claim."""
    looks = {"reproduced": "#0072B2", "differs": "#E69F00", "inconsistent in itself": "#7A2E00"}
    looks |= {"not checkable here": "0.8", "undecided": "0.95"}
    counts = ledger.groupby(["document", "verdict"]).size().unstack(fill_value=0)
    figure, axis = plt.subplots(figsize=(10, 2.6), constrained_layout=True)
    left = np.zeros(len(counts))
    for verdict, color in looks.items():
        if verdict not in counts:
            continue
        wide = counts[verdict]
        bars = axis.barh(counts.index, wide, left=left, color=color, label=verdict)
        text = "black" if color in ("0.8", "0.95", "#E69F00") else "white"
        axis.bar_label(bars, [str(n) if n else "" for n in wide], label_type="center", color=text)
        left += wide.to_numpy()
    axis.set(xlabel="number of claims", ylabel="stated in")
    axis.grid(False)
    _legend_above(figure, axis, columns=4)
    return figure


CHANGED = {
    "rate": "SoX at",
    "chains": "chains:",
    "level": "level:",
    "start": "effects start",
    "LFO phase": "LFO phase",
    "split": "split",
    "input": "input",
}
PLANS = {"paper50": "the paper's 50", "guo221": "Guo & McFee's 221"}


def experiments(table: pd.DataFrame) -> plt.Figure:
    """Paired gain in macro-F1 of each change, above learned and judged alike, below learned one way
    and judged the other; grey: what other training seeds alone change; hollow: not resolved.
    """
    shown, seeds = table[table.gain.notna()], table[table.experiment == "seeds"]
    shown = shown[shown.experiment != "seeds"]
    alike = shown.learned == shown.judged
    panels = {
        "trained and evaluated on the same condition: what the clips contain": shown[alike],
        "trained on one, evaluated on another: what the model relied on": shown[~alike],
    }
    figure, axes = plt.subplots(
        2,
        1,
        figsize=(9.5, 8),
        sharex=True,
        height_ratios=[len(rows) for rows in panels.values()],
        constrained_layout=True,
    )
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        axis.axvspan(seeds.gain_lo.min(), seeds.gain_hi.max(), color="0.88", zorder=0)
        axis.axvline(0, color="0.3", lw=1)
        labels = []
        for y, one in enumerate(rows.itertuples()):
            name, color, marker = LOOK[one.features]
            resolved = one.gain_lo > 0 or one.gain_hi < 0
            axis.plot([one.gain_lo, one.gain_hi], [y, y], color=color, lw=2.5)
            face = color if resolved else "white"
            axis.plot(one.gain, y, marker=marker, ms=8, color=color, mfc=face)
            ways = [PLANS.get(w, w) for w in dict.fromkeys((one.learned, one.judged))]
            what = CHANGED.get(one.experiment, f"{one.experiment}:")  # (a reader's own)
            labels.append(f"{what} {' → '.join(ways)}")
            if one.features != "logmel":
                labels[-1] += f" ({name})"
        axis.set_yticks(range(len(rows)), labels)
        axis.invert_yaxis()
        axis.set_title(title, loc="left")
    axes[1].set_xlabel("change of macro-F1 (95 % interval, the same recordings for both)")
    return figure


def rates(per_class: pd.DataFrame) -> plt.Figure:
    """F1 of each effect for two rendering rates. per_class: effect, made, f1."""
    wide = per_class.pivot(index="effect", columns="made", values="f1")
    a, b = per_class.made.unique()
    wide = wide.loc[(wide[b] - wide[a]).sort_values(ascending=False).index]
    y = np.arange(len(wide))
    figure, axis = plt.subplots(figsize=(8, 5), constrained_layout=True)
    axis.hlines(y, wide[a], wide[b], color="0.8", lw=5)
    color = LOOK["logmel"][1]
    axis.plot(wide[a], y, "D", ms=8, color=color, label=f"SoX at {a}")
    axis.plot(wide[b], y, "D", ms=8, color=color, mfc="white", mew=2, label=f"SoX at {b}")
    axis.set_yticks(y, [named(e) for e in wide.index])
    axis.set(xlim=(0, 1), xlabel="F1, log-mel")
    _legend_above(figure, axis, columns=2)
    return figure


def recipes(summary: pd.DataFrame) -> plt.Figure:
    """Where each recipe starts (hollow) and where it ends (mean, line: all seeds). summary: as
    `tables.recipe_table` returns it.
    """
    shown = summary.sort_values("mean")
    y, color = np.arange(len(shown)), LOOK["finetuned"][1]
    figure, axis = plt.subplots(figsize=(8.5, 0.42 * len(shown) + 1.3), constrained_layout=True)
    axis.hlines(y, shown.start, shown["mean"], color="0.8", lw=5, zorder=1)
    axis.hlines(y, shown["min"], shown["max"], color=color, lw=2)
    axis.plot(shown.start, y, "o", ms=8, color=color, mfc="white", mew=2, label="start (mean)")
    axis.plot(shown["mean"], y, "o", ms=8, color=color, label="best epoch (mean; line: all seeds)")
    axis.axvline(shown.start.max(), color="0.3", ls="--", lw=1, label="the best start")
    axis.set_yticks(y, shown.index)
    axis.set_xlabel("macro-F1 on validation")
    _legend_above(figure, axis, columns=3)
    return figure


def gains(table: pd.DataFrame, beside: str) -> plt.Figure:
    """What each recipe of fine-tuning gains, a dot a seed, a bar their mean, the best above.

    table: recipe, seed, gain; beside: over what.
    """
    order = table.groupby("recipe").gain.mean().sort_values(ascending=False).index
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.36 * len(order)), constrained_layout=True)
    color, y = LOOK["finetuned"][1], np.arange(len(order))
    axis.plot(table.gain, table.recipe.map(list(order).index), "o", ms=6, color=color, alpha=0.6)
    mean = table.groupby("recipe").gain.mean()[order]
    axis.plot(mean, y, "|", ms=20, mew=3, color=color)
    axis.set_yticks(y, order)
    axis.invert_yaxis()
    axis.locator_params(axis="x", nbins=6)
    axis.axvline(0, color="0.3", lw=1)
    axis.set_xlabel(f"gain in macro-F1 over {beside}: dots seeds, bar their mean")
    return figure


# --- other listeners, other guitars, other makers (notebooks 09 to 11) ----------------------------


def real(f1: pd.DataFrame, told: list[str]) -> plt.Figure:
    """F1 (in %) of each model (rows, best above) on real clips: effects that leave a trace of their
    own, then those for which one has to know the guitar.
    """
    order = f1[told].mean(axis=1).sort_values(ascending=False).index
    groups = {
        "leave a trace of their own": list(told),
        "need the guitar to be known": [e for e in f1 if e not in told],
    }
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(11, 0.48 * len(f1) + 2),
        sharey=True,
        width_ratios=[len(names) + 1 for names in groups.values()],
        constrained_layout=True,
    )
    for axis, (title, names) in zip(axes, groups.items(), strict=True):
        shown = 100 * f1.loc[order, names]
        shown = shown.assign(MEAN=shown.mean(axis=1)).rename(columns=named)
        sns.heatmap(
            shown.rename(index=lambda m: LOOK[m][0]),
            vmin=0,
            vmax=100,
            cmap="Blues",
            annot=True,
            fmt=".0f",
            annot_kws={"size": 12},
            cbar=False,
            ax=axis,
        )
        axis.axvline(len(names), color="white", lw=4)
        axis.set(title=title, ylabel="", xlabel="")
        axis.tick_params(axis="x", rotation=45)
    return figure


DOMAINS = {
    "plucked": "plucked strings",
    "varied": "varied",
    "other": "other guitars,\nnever trained on",
    "sampled": "sampled notes",
    "real": "a real guitar",
}


def transfer(table: pd.DataFrame) -> plt.Figure:
    """Macro-F1 of the same network after each training (rows), a panel a kind of guitar.

    Dashed: trained on the varied corpus. table: training, domain, macro_f1, lo, hi.
    """
    order = table[table.domain == "real"].sort_values("macro_f1").training
    domains = [d for d in DOMAINS if d in set(table.domain)]
    figure, axes = plt.subplots(
        1,
        len(domains),
        figsize=(11, 0.4 * len(order) + 1.6),
        sharex=True,
        sharey=True,
        constrained_layout=True,
    )
    y = np.arange(len(order))
    for axis, domain in zip(axes, domains, strict=True):
        part = table[table.domain == domain].set_index("training").loc[order]
        special = part.index.str.contains("dry reference")
        colors = np.where(special, "#D55E00", "#595959")
        axis.axvline(part.macro_f1["varied"], color="0.5", ls="--", lw=1)
        if domain != "real":  # (four slices of one recording: no interval)
            axis.hlines(y, part.lo, part.hi, colors=list(colors), lw=1.5)
        axis.scatter(part.macro_f1, y, c=list(colors), s=45, zorder=3)
        axis.set(title=DOMAINS[domain], xlim=(0.1, 0.9))
    axes[0].set_yticks(y, order)
    figure.supxlabel("macro-F1 (95 % interval)")
    return figure


def pedals(table: pd.DataFrame) -> plt.Figure:
    """How often an effect is recognised, by who made it (SoX filled); a panel a model.

    table: model, effect, made_by, heard.
    """
    makers, models = list(table.made_by.unique()), list(table.model.unique())
    lost = table.pivot_table(index="effect", columns="made_by", values="heard")
    order = (lost.SoX - lost.drop(columns="SoX").mean(axis=1)).sort_values().index
    y = np.arange(len(order))
    figure, axes = plt.subplots(
        1, len(models), figsize=(10, 5.4), sharey=True, squeeze=False, constrained_layout=True
    )
    for axis, model in zip(axes[0], models, strict=True):
        name, color, _ = LOOK[model]
        part = table[table.model == model]
        wide = part.pivot(index="effect", columns="made_by", values="heard").loc[order]
        axis.hlines(y, wide.min(axis=1), wide.max(axis=1), color="0.85", lw=5, zorder=1)
        for maker, marker in zip(makers, "os^", strict=False):
            face = color if maker == "SoX" else "white"
            axis.plot(wide[maker], y, ls="none", marker=marker, ms=9, color=color, mfc=face, mew=2,
                      label=maker, clip_on=False)  # fmt: skip
        axis.set(title=name, xlabel="share of clips", xlim=(0, 1))
    axes[0, 0].set_yticks(y, [named(e) for e in order])
    _legend_above(figure, axes[0, 0], columns=len(makers))
    return figure


def reliability(curves: pd.DataFrame, answers: int) -> plt.Figure:
    """How far an answer's probability is from how often it is right, with 95 % of the bin's noise;
    the larger the dot, the more answers. curves: model, calibrated, probability, there, share.
    """
    models = list(curves.model.unique())
    figure, axes = plt.subplots(
        1, len(models), figsize=(10, 4), sharey=True, squeeze=False, constrained_layout=True
    )
    for axis, model in zip(axes[0], models, strict=True):
        name, color, _ = LOOK[model]
        axis.axhline(0, color="0.3", lw=1)
        shift = -0.008
        for state, one in curves[curves.model == model].groupby("calibrated", sort=False):
            at, gap = one.probability + shift, one.there - one.probability
            noise = 1.96 * np.sqrt(one.probability * (1 - one.probability) / (one.share * answers))
            face = "white" if state == "as it is" else color
            axis.vlines(at, gap - noise, gap + noise, color=color, lw=1)
            axis.scatter(at, gap, s=25 + 700 * one.share, facecolor=face, edgecolor=color, zorder=3,
                         label=state)  # fmt: skip
            shift = 0.008
        axis.set(title=name, xlabel="probability given", xlim=(-0.05, 1.05))
    axes[0, 0].set_ylabel("how often it is there, minus that")
    _legend_above(figure, axes[0, 0], columns=2)
    return figure
