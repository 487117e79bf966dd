"""The figures of Part III. Each function draws the table that it is given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd

# kind of method: (its name in figures, colour, marker)
KINDS = {
    "unfreeze": ("layers from the top", "#0072B2", "o"),
    "lora": ("LoRA", "#D55E00", "s"),
    "dora": ("DoRA", "#7A2E00", "D"),
    "qlora": ("QLoRA (4 bits)", "#CC79A7", "v"),
    "ia3": ("IA3", "#8C8C8C", "X"),
    "bias": ("biases", "#595959", "^"),
    "bottleneck": ("bottlenecks", "#E69F00", "P"),
    "prefix": ("prefix", "#56B4E9", "<"),
}


def adapters(table: pd.DataFrame) -> plt.Figure:
    """Macro-F1 over the number of trained weights; the floor, the ceiling, and nine tenths up.

    table: method, kind, trained_parameters, macro_f1, lo, hi; rows "head only", "full, Muon".
    """
    by_name = table.set_index("method").macro_f1
    floor, ceiling = by_name["head only"], by_name["full, Muon"]
    figure, axis = plt.subplots(figsize=(10, 5), constrained_layout=True)
    for level, text in (
        (floor, "head only"),
        (floor + 0.9 * (ceiling - floor), "90 % of the gain"),
        (ceiling, "all of the upper half"),
    ):
        axis.axhline(level, color="0.5", ls="--", lw=1)
        axis.text(1.01, level, text, transform=axis.get_yaxis_transform(), va="center", fontsize=10)
    for kind, (name, color, marker) in KINDS.items():
        part = table[(table.kind == kind) & (table.trained_parameters > 0)]
        if len(part):
            axis.vlines(part.trained_parameters, part.lo, part.hi, color=color, lw=1, alpha=0.6)
            axis.scatter(part.trained_parameters, part.macro_f1, s=65, color=color, marker=marker,
                         label=name, zorder=3)  # fmt: skip
    axis.set(
        xscale="log",
        xlabel="weights of the encoder that are trained",
        ylabel="macro-F1, test (95 % interval)",
    )
    axis.legend(loc="lower right", fontsize=10)
    return figure


def at_equal_seconds(curves: pd.DataFrame, names: list[str]) -> plt.Figure:
    """Macro-F1 on validation over the seconds that the steps have taken: one line a method.

    curves: method, seconds, validation_macro_f1 (mean over seeds).
    """
    figure, axis = plt.subplots(figsize=(10, 4.2), constrained_layout=True)
    colors = ("0.4", "#0072B2", "#D55E00", "#E69F00", "#7A2E00", "#56B4E9")
    for name, color, style in zip(names, colors, ("-", "-", "-", "--", "-.", ":"), strict=False):
        part = curves[curves.method == name]
        axis.plot(part.seconds, part.validation_macro_f1, style, color=color, lw=2, label=name)
    axis.set(xlabel="seconds of training steps, one thread", ylabel="macro-F1, validation")
    axis.legend(loc="lower right", fontsize=10)
    return figure


def forgetting(table: pd.DataFrame, floor: pd.Series) -> plt.Figure:
    """What is learned (macro-F1) over what is left (log-mel distance), guitar and other sounds.

    table: name, macro_f1, log_mel_db guitar, log_mel_db other sounds. floor: before any training.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, constrained_layout=True)
    for axis, kind in zip(axes, ("guitar", "other sounds"), strict=True):
        column = f"log_mel_db {kind}"
        axis.axvline(floor[column], color="0.5", ls="--", lw=1)
        axis.scatter(table[column], table.macro_f1, color="#0072B2", s=45, zorder=3)
        for i, row in enumerate(table.itertuples()):
            at = (table[column].iloc[i], row.macro_f1)
            axis.annotate(row.name, at, (5, 4), textcoords="offset points", fontsize=8.5)
        axis.set(
            title=f"{kind} (dashed: pretrained)", xlabel="log-mel distance of what comes back (dB)"
        )
    axes[0].set_ylabel("macro-F1, validation")
    return figure


def front(table: pd.DataFrame) -> plt.Figure:
    """Two objectives at once: the path of each as its weight grows.

    table: objective, weight, macro_f1, left (log-mel distance, dB), in order of the weight.
    """
    figure, axis = plt.subplots(figsize=(8, 4.6), constrained_layout=True)
    looks = {"prior": ("#D55E00", "s"), "reconstruction": ("#0072B2", "o")}
    for objective, (color, marker) in looks.items():
        part = table[table.objective == objective]
        axis.plot(part.left, part.macro_f1, color=color, marker=marker, label=objective, lw=1.5)
        for row in part.itertuples():
            axis.annotate(f"{row.weight:g}", (row.left, row.macro_f1), (5, 4),
                          textcoords="offset points", fontsize=10)  # fmt: skip
    axis.set(xlabel="log-mel distance of other sounds that come back (dB; lower is better)",
             ylabel="macro-F1, validation")  # fmt: skip
    axis.legend(title="added to the labels' loss, with weight", fontsize=10)
    return figure
