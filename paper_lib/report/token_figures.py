"""The figures of Part V. Each function draws the table that it is given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

BITS = {
    "nominal": ("all values alike", "0.75"),
    "alone": ("by frequency", "#56B4E9"),
    "after_other": ("knowing its neighbour in the frame", "#009E73"),
    "after_last": ("knowing the frame before", "#0072B2"),
}
HELD = ("level", "brightness", "pitch", "effects")


def bits(table: pd.DataFrame) -> plt.Figure:
    """Bits a token by what is known. table: codebook, the columns of `BITS`."""
    figure, axis = plt.subplots(figsize=(9, 3.6), constrained_layout=True)
    width = 0.8 / len(BITS)
    for i, (name, (label, color)) in enumerate(BITS.items()):
        places = [place + (i - 1.5) * width for place in range(len(table))]
        axis.bar(places, table[name], width, color=color, label=label)
    axis.set_xticks(range(len(table)), table.codebook)
    axis.set(xlabel="codebook", ylabel="bits a token", ylim=(0, 1.4 * table.nominal.max()))
    axis.legend(fontsize=10, ncols=2, loc="upper left")
    axis.grid(axis="x", visible=False)
    return figure


def held(table: pd.DataFrame) -> plt.Figure:
    """What each codebook holds, below 0 drawn as 0. table: codebook, the columns of `HELD`."""
    figure, axis = plt.subplots(figsize=(7, 1.2 + 0.42 * len(table)), constrained_layout=True)
    shown = table.set_index("codebook")[list(HELD)].clip(lower=0)
    looks = {"vmin": 0, "vmax": 1, "cmap": "cividis", "linewidths": 0.5, "fmt": ".2f"}
    sns.heatmap(shown, annot=True, annot_kws={"size": 10}, ax=axis, **looks)
    axis.set(xlabel="", ylabel="codebook")
    axis.tick_params(axis="y", rotation=0)
    return figure


def cost(table: pd.DataFrame) -> plt.Figure:
    """Bits a second of each way to keep a clip, and the milliseconds to read it.

    table: kept_as, bits_a_second, ms_to_read.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), constrained_layout=True)
    for axis, column, label in (
        (left, "bits_a_second", "bits a second of sound"),
        (right, "ms_to_read", "ms to read a clip, ready for a network"),
    ):
        axis.barh(table.kept_as, table[column], color="#0072B2")
        axis.set(xscale="log", xlabel=label)
        axis.invert_yaxis()
        axis.margins(x=0.25)
        axis.grid(axis="y", visible=False)
        for place, value in enumerate(table[column]):
            text = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
            axis.annotate(text, (value, place), xytext=(4, 0), textcoords="offset points",
                          va="center", fontsize=10)  # fmt: skip
    right.set_yticklabels([])
    return figure


MODELS = {
    "unigram": "0.75",
    "bigram": "0.55",
    "both neighbours": "0.3",
    "linear reader": "#D55E00",
    "causal": "#56B4E9",
    "0.1 s ahead": "#009E73",
    "both ways": "#0072B2",
}


def scales(table: pd.DataFrame) -> plt.Figure:
    """Multiplications over seconds of sound. table: seconds, model, matrices, pairs (in 10^9)."""
    figure, axis = plt.subplots(figsize=(8, 4), constrained_layout=True)
    for name, color in (("flat", "#D55E00"), ("patches", "#0072B2")):
        part = table[table.model == name]
        axis.plot(part.seconds, part.matrices + part.pairs, color=color, label=f"{name}, all")
        axis.plot(part.seconds, part.pairs, color=color, ls="--", label=f"{name}, pairs alone")
    axis.set(xscale="log", yscale="log", xlabel="seconds of sound")
    axis.set(ylabel="multiplications (thousand millions)")
    axis.legend(fontsize=10)
    return figure


def masked(table: pd.DataFrame) -> plt.Figure:
    """Bits of hidden tokens, by codebook and over all. table: model, codebook, bits."""
    figure, axis = plt.subplots(figsize=(9, 4), constrained_layout=True)
    books = list(dict.fromkeys(table.codebook))
    names = [name for name in MODELS if name in set(table.model)]
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        part = table[table.model == name].set_index("codebook").loc[books]
        places = [place + (i - (len(names) - 1) / 2) * width for place in range(len(books))]
        axis.bar(places, part.bits, width, color=MODELS[name], label=name)
    axis.set_xticks(range(len(books)), books)
    axis.set(xlabel="codebook", ylabel="bits a hidden token", ylim=(0, 1.7 * table.bits.max()))
    axis.legend(fontsize=10, ncols=2, loc="upper left")
    axis.grid(axis="x", visible=False)
    return figure


def curves(history: pd.DataFrame) -> plt.Figure:
    """Bits of hidden tokens on validation clips. history: look, epoch, validation_bits."""
    figure, axis = plt.subplots(figsize=(7, 3.4), constrained_layout=True)
    for name, part in history.groupby("look", sort=False):
        axis.plot(part.epoch, part.validation_bits, "o-", color=MODELS[str(name)], label=name)
    axis.set(xlabel="epoch", ylabel="bits a hidden token", xticks=sorted(set(history.epoch)))
    axis.legend(fontsize=10)
    return figure


STARTS = {  # system -> colour, name below
    "scratch": ("0.55", "scratch"),
    "scratch, a chunk dropped": ("0.3", "scratch,\na chunk\ndropped"),
    "fine-tuned": ("#0072B2", "fine-\ntuned"),
    "with a chunk dropped": ("#009E73", "fine-tuned,\na chunk\ndropped"),
}


def tasks(table: pd.DataFrame) -> plt.Figure:
    """The score of each start, a panel a task, with intervals and the best answer without sound.

    table: task, system, measure, score, lo, hi, by_lot.
    """
    names = list(dict.fromkeys(table.task))
    figure, axes = plt.subplots(1, len(names), figsize=(4.6 * len(names), 3.6), squeeze=False,
                                constrained_layout=True)  # fmt: skip
    for axis, name in zip(axes[0], names, strict=True):
        part = table[table.task == name].set_index("system")
        shown = [system for system in STARTS if system in part.index]
        for place, system in enumerate(shown):
            row, (color, _) = part.loc[system], STARTS[system]
            axis.vlines(place, row.lo, row.hi, color=color, lw=2)
            axis.plot(place, row.score, "o", color=color, ms=9)
        still, last = part.loc["without sound"], len(shown) - 0.5
        lots = still.by_lot > still.score  # (never so of several labels: it is empty there)
        floor = still.by_lot if lots else still.score
        axis.axhline(floor, color="0.5", ls="--", lw=1)
        axis.text(last - 0.1, floor, "by lot" if lots else "without sound", va="bottom",
                  ha="right", fontsize=10)  # fmt: skip
        axis.set(title=name, ylim=(0, 1), xlim=(-0.5, last), ylabel=part.measure.iloc[0])
        axis.set_xticks(range(len(shown)), [STARTS[system][1] for system in shown])
    return figure


def layers(table: pd.DataFrame, counts: dict[str, float]) -> plt.Figure:
    """What a linear reader finds after each layer, and in the tokens' counts alone.

    table: task, measure, start, layer, score; counts: task -> score.
    """
    figure, axes = plt.subplots(1, len(counts), figsize=(4.6 * len(counts), 3.4), squeeze=False,
                                constrained_layout=True)  # fmt: skip
    for axis, (name, floor) in zip(axes[0], counts.items(), strict=True):
        part = table[table.task == name]
        for start, color in (("pretrained", "#0072B2"), ("random", "0.55")):
            own = part[part.start == start]
            axis.plot(own.layer, own.score, "o-", color=color, label=start)
        axis.axhline(floor, color="#D55E00", ls="--", lw=1.5, label="counts of tokens")
        axis.set(title=name, xlabel="after layer", ylim=(0, 1))
        axis.set(ylabel=f"{part.measure.iloc[0]},\nvalidation clips")
        axis.set_xticks(sorted(set(table.layer)))
    axes[0, 0].legend(fontsize=10)
    return figure


def value(table: pd.DataFrame) -> plt.Figure:
    """Macro-F1 over what is stored and over what it costs to answer.

    table: system, score, lo, hi, kbps, ms (some empty).
    """
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), constrained_layout=True, sharey=True)
    marks = "osD^vPX<>"
    colors = sns.color_palette("colorblind", len(table))
    for axis, column, label in (
        (axes[0], "kbps", "thousand bits a second that are kept"),
        (axes[1], "ms", "ms to read a clip and answer, one thread"),
    ):
        for row, mark, color in zip(table.itertuples(), marks, colors, strict=False):
            x = getattr(row, column)
            if pd.notna(x):
                axis.vlines(x, row.lo, row.hi, color=color, lw=1.5)
                axis.scatter(x, row.score, color=color, marker=mark, s=60, label=row.system)
        axis.set(xscale="log", xlabel=label, ylim=(0, 1))
        ticks = [x for x in (1, 2, 5, 10, 20, 50, 100, 200) if pd.notna(table[column].min())]
        axis.set_xticks(ticks, [str(x) for x in ticks])
        axis.minorticks_off()
    axes[0].set_ylabel("macro-F1, effects")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=10, loc="outside right center")
    return figure
