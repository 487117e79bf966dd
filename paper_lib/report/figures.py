"""The figures. Each function draws the table that it is given and returns the figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..sound import audio, effects


def spectrograms(clips: dict[str, np.ndarray], rate: int, columns: int = 5) -> plt.Figure:
    """One spectrogram a clip, up to 8 kHz, all on one decibel scale.

    clips: name -> int16 samples at `rate` Hz.
    """
    rows = -(-len(clips) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.5 * columns, 2.0 * rows),
        sharex=True,
        sharey=True,
        constrained_layout=True,
    )
    for axis in np.ravel(axes)[len(clips) :]:
        axis.set_axis_off()
    for axis, (name, samples) in zip(np.ravel(axes), clips.items(), strict=False):
        *_, picture = axis.specgram(
            audio.to_float(samples) + 1e-9,
            NFFT=1024,
            Fs=rate,
            noverlap=512,
            cmap="magma",
            vmin=-140,
            vmax=-40,
            rasterized=True,
        )
        axis.set_title(name, fontsize=9)
        axis.grid(False)
        axis.set_ylim(0, min(8000, rate / 2))
        axis.set_yticks(
            np.arange(0, min(8000, rate / 2) + 1, 2000),
            [f"{f / 1000:g}" for f in np.arange(0, min(8000, rate / 2) + 1, 2000)],
        )
    figure.supxlabel("time (s)", fontsize=9)
    figure.supylabel("frequency (kHz)", fontsize=9)
    figure.colorbar(picture, ax=axes, label="power density (dB/Hz)", shrink=0.6)
    return figure


def _legend_above(figure: plt.Figure, axis: plt.Axes, columns: int) -> None:
    figure.legend(
        *axis.get_legend_handles_labels(),
        fontsize=9,
        ncol=columns,
        loc="outside upper center",
        frameon=False,
    )


def figure_1(history: pd.DataFrame) -> plt.Figure:
    """Figure 1: loss and validation macro-F1 over epochs, the kept epoch ringed. history: model,
    epoch, train_loss, validation_loss, validation_macro_f1.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), sharex=True, constrained_layout=True)
    titles = {
        "train_loss": "training loss",
        "validation_loss": "validation loss",
        "validation_macro_f1": "validation macro-F1",
    }
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for i, (model, part) in enumerate(history.groupby("model", sort=False)):
            color = sns.color_palette()[i]
            drawn = part.dropna(subset=[column])  # (not every epoch is evaluated)
            axis.plot(
                drawn.epoch,
                drawn[column],
                marker="o" if len(part) < 30 else None,
                ms=4,
                label=model,
                color=color,
            )
            trained = part[part.epoch > 0]
            kept = trained.loc[trained.validation_macro_f1.idxmax()]
            axis.plot(kept.epoch, kept[column], marker="o", ms=11, mfc="none", mec=color, mew=1.5)
        axis.set_xscale("symlog", linthresh=2)  # a fine-tuning of few epochs beside a head's many
        ticks = [t for t in (0, 1, 2, 5, 10, 20, 50, 100, 200) if t <= history.epoch.max()]
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
        axis.set_xlabel("epoch")
        axis.set_title(title)
        axis.set_ylabel("macro-F1 at 0.5" if column.endswith("f1") else "nats a clip, 13 labels")
    _legend_above(figure, axes[0], columns=4)
    return figure


def per_class_bars(table: pd.DataFrame, n_clips: int) -> plt.Figure:
    """F1 of each effect with intervals, this run's models side by side; what claiming it always
    would score, and the paper's values.

    table: a Table 3 (sources `run` and `paper`); n_clips: test clips behind its support.
    """
    run = table[table.source == "run"]
    models = list(run.model.unique())
    figure, axis = plt.subplots(figsize=(11, 4.2), constrained_layout=True)
    width = 0.8 / len(models)
    first = run[run.model == models[0]].set_index("effect")
    support = first.support.loc[list(effects.NAMES)].astype(float)
    for m, model in enumerate(models):
        part = run[run.model == model].set_index("effect").loc[list(effects.NAMES)]
        x = np.arange(len(part)) + (m - (len(models) - 1) / 2) * width
        error = np.stack([part.f1 - part.f1_lo, part.f1_hi - part.f1]).clip(0)
        axis.bar(
            x,
            part.f1,
            width,
            yerr=error,
            label=model,
            error_kw={"elinewidth": 1.1, "ecolor": "black", "capsize": 1.5},
        )
        for at in x[part.f1.to_numpy() == 0]:
            axis.text(at, 0.01, "0", ha="center", fontsize=8)
        paper = table[(table.source == "paper") & (table.model == model)].set_index("effect")
        if len(paper):
            label = "the paper's values (GuitarSet)" if model == "finetuned" else None
            axis.plot(
                x,
                paper.f1.loc[list(effects.NAMES)],
                ls="none",
                marker="D",
                ms=4,
                mfc="white",
                mec="black",
                label=label,
            )
    always = 2 * support / (support + n_clips)
    axis.hlines(
        always,
        np.arange(len(always)) - 0.45,
        np.arange(len(always)) + 0.45,
        color="crimson",
        lw=1.5,
        label="claiming it always",
    )
    axis.set_xticks(
        range(len(effects.NAMES)),
        [f"{n}\nn={int(s)}".replace("_", "\n") for n, s in support.items()],
        fontsize=8,
    )
    axis.set_ylim(0, 1.03)
    axis.set_ylabel("F1 (95 % interval)")
    axis.legend(
        fontsize=8, ncol=len(models) + 2, loc="lower left", bbox_to_anchor=(0, 1), frameon=False
    )
    return figure


def _heat(axis: plt.Axes, values: pd.DataFrame, colours: str, form: str, label: str, **more):
    """A heat map from 0 on, each cell with its number."""
    small, bar = {"size": 8}, {"label": label}
    sns.heatmap(
        values,
        vmin=0,
        cmap=colours,
        annot=True,
        fmt=form,
        annot_kws=small,
        ax=axis,
        cbar_kws=bar,
        **more,
    )


def confusion_heat(share: pd.DataFrame) -> plt.Figure:
    """`metrics.confusions` as a picture, in percent."""
    figure, axis = plt.subplots(figsize=(7.4, 6), constrained_layout=True)
    _heat(axis, 100 * share, "rocket_r", ".0f", "% of the row's clips")
    axis.axhline(len(effects.NAMES), color="white", lw=4)
    axis.set_xlabel("said without being there")
    axis.set_ylabel("missed (clips)")
    return figure


def log_mel(pictures: dict[str, np.ndarray]) -> plt.Figure:
    """(bands, frames) log-mel spectrograms, two in a row, on one scale (dB)."""
    rows = -(-len(pictures) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(10, 2.0 * rows), sharex=True, sharey=True, constrained_layout=True
    )
    for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        shown = axis.imshow(
            10 * picture / np.log(10), origin="lower", aspect="auto", vmin=-60, vmax=20
        )
        axis.grid(False)
        axis.set_title(name, fontsize=9)
        axis.set_ylabel("mel band")
    for axis in axes[-1]:
        axis.set_xlabel("frames of 16 ms")
    figure.colorbar(shown, ax=axes, label="dB")
    return figure


def real_heat(f1: pd.DataFrame) -> plt.Figure:
    """F1 of each effect (columns) by each model (rows)."""
    figure, axis = plt.subplots(figsize=(9, 0.42 * len(f1) + 2), constrained_layout=True)
    _heat(axis, f1, "mako_r", ".2f", "F1", vmax=1)
    axis.set_ylabel("")
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
        for i, (model, part) in enumerate(
            curves[curves.effect == effect].groupby("model", sort=False)
        ):
            axis.plot(
                part.recall, part.precision, label=model, color=sns.color_palette()[i], lw=1.4
            )
        axis.axhline(prevalence[effect], color="0.3", ls="--", lw=1)
        axis.set_title(effect, fontsize=10)
        axis.set(xlim=(0, 1), ylim=(0, 1.03))
    figure.supxlabel("recall")
    figure.supylabel("precision")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="lower right",
        bbox_to_anchor=(0.95, 0.15),
        frameon=False,
    )
    return figure


def figure_2(points: pd.DataFrame) -> plt.Figure:
    """Figure 2: t-SNE maps side by side; above by effect (a colour a group, a marker an effect of
    it), below by recording.

    points: model, x, y, effect, recording.
    """
    models = list(points.model.unique())
    figure, axes = plt.subplots(
        2, len(models), figsize=(4.9 * len(models), 8.6), constrained_layout=True, squeeze=False
    )
    palette = sns.color_palette("colorblind", len(effects.GROUPS))
    colors = dict(zip(effects.GROUPS, palette, strict=True))
    recordings = sorted(points.recording.unique())
    shades = sns.color_palette("viridis", len(recordings))
    for column, model in enumerate(models):
        part = points[points.model == model]
        for effect in [e for e in effects.EFFECTS if e.name in set(part.effect)]:
            one = part[part.effect == effect.name]
            group = [e.name for e in effects.EFFECTS if e.group == effect.group]
            marker = "os^D"[group.index(effect.name)]
            axes[0, column].scatter(
                one.x,
                one.y,
                s=34,
                color=colors[effect.group],
                marker=marker,
                label=effect.name,
                edgecolors="white",
                linewidths=0.4,
            )
        for color, recording in zip(shades, recordings, strict=True):
            one = part[part.recording == recording]
            axes[1, column].scatter(
                one.x, one.y, s=26, color=color, label=recording, edgecolors="white", linewidths=0.4
            )
        axes[0, column].set_title(f"{model}, by effect")
        axes[1, column].set_title(f"{model}, by recording")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0, -1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    if len(recordings) <= 16:
        axes[1, -1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def learning_curve(curve: pd.DataFrame, targets: tuple[str, ...]) -> plt.Figure:
    """A pretraining's log: reconstruction (SI-SDR, STFT distance) and the variance of the spectral
    targets that the embedding explains.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), constrained_layout=True)
    axes[0].plot(curve.step, curve.si_sdr_db)
    axes[0].set(title="reconstruction: SI-SDR", ylabel="dB", xlabel="step")
    axes[1].plot(curve.step, curve.stft)
    axes[1].set(title="reconstruction: STFT distance", xlabel="step", ylim=(0, None))
    for name in targets:
        axes[2].plot(curve.step, curve[name], label=name)
    axes[2].set(title="spectral targets explained (R2)", xlabel="step", ylim=(0, 1))
    axes[2].legend(fontsize=8)
    return figure


def tpooling(drawn: pd.DataFrame) -> plt.Figure:
    """A signal and what TPooling makes of it (Eq. 1). drawn: seconds, signal, tpooling_45."""
    figure, axis = plt.subplots(figsize=(10, 3), constrained_layout=True)
    axis.plot(drawn.seconds, drawn.signal, color="0.7", lw=0.5, label="signal")
    axis.plot(
        drawn.seconds,
        drawn.tpooling_45,
        color=sns.color_palette()[3],
        lw=1.5,
        label="TPooling, K = 45",
    )
    axis.set(xlabel="s", ylabel="amplitude", xlim=(drawn.seconds.min(), drawn.seconds.max()))
    axis.legend(fontsize=8, loc="lower right")
    return figure


def gradient_curves(drawn: pd.DataFrame, target: int) -> plt.Figure:
    """How much each input sample moves output sample `target`, as a share of the peak. drawn:
    sample, gradient, decoder.
    """
    figure, axis = plt.subplots(figsize=(10, 3), constrained_layout=True)
    for name, part in drawn.groupby("decoder", sort=False):
        axis.semilogy(part["sample"], part.gradient.clip(lower=1e-16), lw=0.8, label=name)
    axis.axvline(target, color="0.3", ls="--", lw=1, label="the output sample")
    axis.set(xlabel="input sample", ylabel="gradient / peak", ylim=(1e-16, 2))
    axis.legend(fontsize=8, loc="center right")
    return figure


def envelopes(drawn: pd.DataFrame) -> plt.Figure:
    """Level over time of one clip made several times over. drawn: seconds, level_db, made."""
    figure, axis = plt.subplots(figsize=(10, 3), constrained_layout=True)
    for i, (name, part) in enumerate(drawn.groupby("made", sort=False)):
        axis.plot(
            part.seconds,
            part.level_db,
            lw=1.6 if i == 0 else 1,
            color="0.2" if i == 0 else sns.color_palette()[i],
            label=name,
        )
    axis.set(xlabel="s", ylabel="change of level (dB)")
    _legend_above(figure, axis, columns=4)
    return figure


def experiments(table: pd.DataFrame, per_class: pd.DataFrame) -> plt.Figure:
    """Left: macro-F1 of each condition with its interval, dashed the set-up as it is. Right: F1 of
    each effect for the two rendering rates.

    table: experiment, features, learned, judged, as_it_is and what `experiments.row` returns;
    per_class: effect, made, f1.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 7), width_ratios=(1.25, 1), constrained_layout=True
    )
    names, kinds = list(table.experiment.unique()), list(table.features.unique())
    # (it begins each experiment)
    once = ~(table.as_it_is & table.duplicated(["features", "as_it_is"]))
    labels = []
    for y, one in enumerate(table[once].itertuples()):
        color = "0.2" if one.as_it_is else sns.color_palette()[names.index(one.experiment)]
        left.errorbar(
            one.macro_f1,
            y,
            xerr=[[max(0, one.macro_f1 - one.lo)], [max(0, one.hi - one.macro_f1)]],
            fmt="os"[kinds.index(one.features)],
            color=color,
            capsize=2,
        )
        left.plot(one.always, y, marker="x", color="0.5")
        if one.as_it_is:
            left.plot(
                [one.macro_f1] * 2,
                [y, y + sum(table[once].features == one.features) - 1],
                color="0.3",
                ls="--",
                lw=1,
                zorder=0,
            )
        if one.as_it_is:
            what = "as it is"
        else:
            judged = "" if one.learned == one.judged else f" → {one.judged}"
            what = f"{one.experiment}: {one.learned}{judged}"
        labels.append(what + ("" if one.features == "logmel" else " (codec)"))
    left.set_yticks(range(len(labels)), labels, fontsize=9)
    left.invert_yaxis()
    left.set(
        xlabel="macro-F1 (95 % interval over recordings; x: claiming all)",
        xlim=(0, 1),
        title="learned → judged",
    )
    for made, part in per_class.groupby("made", sort=False):
        right.plot(part.f1, part.effect, ls="none", marker="o", label=made)
    right.invert_yaxis()
    right.set(xlabel="F1 with chains rendered at either rate", xlim=(-0.02, 1))
    right.legend(fontsize=9, ncol=2, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    return figure


def gains(table: pd.DataFrame, beside: str) -> plt.Figure:
    """What each recipe of fine-tuning gains, a dot a seed, a bar their mean. table: recipe, seed,
    gain; beside: over what.
    """
    names = list(table.recipe.unique())
    figure, axis = plt.subplots(figsize=(7, 0.9 + 0.36 * len(names)), constrained_layout=True)
    color = sns.color_palette()[0]
    common = {"data": table, "y": "recipe", "x": "gain", "ax": axis, "color": color}
    sns.barplot(**common, errorbar=None, alpha=0.35)
    sns.stripplot(**common, jitter=False, size=6)
    axis.axvline(0, color="0.3", lw=1)
    axis.set(xlabel=f"validation macro-F1 of the best epoch, minus {beside}", ylabel="")
    return figure


def guitars(spectra: pd.DataFrame) -> plt.Figure:
    """Mean spectra of recordings, a panel a kind of guitar. spectra: kind, recording, band, db."""
    kinds = list(spectra.kind.unique())
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(2.6 * len(kinds), 3), sharey=True, constrained_layout=True
    )
    for axis, kind in zip(np.atleast_1d(axes), kinds, strict=True):
        for _, one in spectra[spectra.kind == kind].groupby("recording"):
            axis.plot(one.band, one.db, lw=0.8, alpha=0.7, color=sns.color_palette()[0])
        axis.set(title=kind, xlabel="mel band")
    np.atleast_1d(axes)[0].set_ylabel("power, dB")
    return figure


def pedals(table: pd.DataFrame) -> plt.Figure:
    """How often an effect is heard, by who made it; a panel a model. table: model, effect, made_by,
    heard.
    """
    models = list(table.model.unique())
    figure, axes = plt.subplots(
        1, len(models), figsize=(5 * len(models), 4), sharey=True, constrained_layout=True
    )
    for axis, model in zip(np.atleast_1d(axes), models, strict=True):
        part = table[table.model == model]
        sns.barplot(part, y="effect", x="heard", hue="made_by", ax=axis, legend=model == models[0])
        axis.set(title=model, xlabel="share of clips on which it is heard", ylabel="", xlim=(0, 1))
    legend = np.atleast_1d(axes)[0].legend_
    handles, names = legend.legend_handles, [text.get_text() for text in legend.texts]
    legend.remove()
    figure.legend(handles, names, loc="outside upper right", ncol=len(names), frameon=False)
    return figure


def reliability(curves: pd.DataFrame) -> plt.Figure:
    """How often an effect is there over how probable it is called; a panel a model. curves: model,
    calibrated, probability, there.
    """
    models = list(curves.model.unique())
    figure, axes = plt.subplots(
        1, len(models), figsize=(3.6 * len(models), 3.6), sharey=True, constrained_layout=True
    )
    for axis, model in zip(np.atleast_1d(axes), models, strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
        for state, one in curves[curves.model == model].groupby("calibrated", sort=False):
            axis.plot(one.probability, one.there, marker="o", ms=4, label=state)
        axis.set(title=model, xlabel="probability", xlim=(0, 1), ylim=(0, 1))
    np.atleast_1d(axes)[0].set_ylabel("share that is there")
    np.atleast_1d(axes)[0].legend()
    return figure
