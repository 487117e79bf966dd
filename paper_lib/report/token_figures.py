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
        for place, value in enumerate(table[column]):
            text = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
            axis.annotate(text, (value, place), xytext=(4, 0), textcoords="offset points",
                          va="center", fontsize=10)  # fmt: skip
    right.set_yticklabels([])
    return figure
