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


def statistics(table: pd.DataFrame) -> plt.Figure:
    """Bits a token by what is known, and what each codebook holds.

    table: codebook (one row is "all"), the columns of `BITS` and of `HELD`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), constrained_layout=True)
    each = table[table.codebook != "all"]
    width = 0.8 / len(BITS)
    for i, (name, (label, color)) in enumerate(BITS.items()):
        places = [place + (i - 1.5) * width for place in range(len(each))]
        left.bar(places, each[name], width, color=color, label=label)
    left.set_xticks(range(len(each)), each.codebook)
    left.set(xlabel="codebook", ylabel="bits a token", ylim=(0, 1.45 * each.nominal.max()))
    left.legend(fontsize=10, ncols=2, loc="upper left")
    shown = table.set_index("codebook")[list(HELD)].clip(lower=0)
    looks = {"vmin": 0, "vmax": 1, "cmap": "cividis", "linewidths": 0.5, "fmt": ".2f"}
    sns.heatmap(shown, annot=True, annot_kws={"size": 10}, ax=right, **looks)
    right.set(xlabel="", ylabel="codebook")
    right.tick_params(axis="y", rotation=0)
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
