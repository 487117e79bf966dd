"""The figures of Part III. Each function draws the table that it is given."""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd

from .figures import named

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
    """Macro-F1, and average precision, over the number of trained weights, from floor to ceiling.

    table: method, kind, trained_parameters, macro_f1, lo, hi, map, map_lo, map_hi; rows "head
    only", "full, Muon".
    """
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharex=True, constrained_layout=True)
    measures = (("macro_f1", "lo", "hi"), ("map", "map_lo", "map_hi"))
    for axis, (score, lo, hi) in zip(axes, measures, strict=True):
        by_name = table.set_index("method")[score]
        floor, ceiling = by_name["head only"], by_name["full, Muon"]
        for level, name in (
            (floor, "head only"),
            (floor + 0.9 * (ceiling - floor), "90 % of the gain"),
            (ceiling, "all of it"),
        ):
            axis.axhline(level, color="0.5", ls="--", lw=1)
            axis.text(1.01, level, name, transform=axis.get_yaxis_transform(), fontsize=10,
                      va="bottom" if name == "all of it" else "top")  # fmt: skip
        for kind, (name, color, marker) in KINDS.items():
            part = table[(table.kind == kind) & (table.trained_parameters > 0)]
            if len(part):
                axis.vlines(part.trained_parameters, part[lo], part[hi], color=color, lw=1,
                            alpha=0.6)  # fmt: skip
                axis.scatter(part.trained_parameters, part[score], s=65, color=color,
                             marker=marker, label=name, zorder=3)  # fmt: skip
        both = table[table.method.isin(["full", "full, Muon"])]  # (one above the other)
        for row in both.to_dict("records"):
            upper = row[score] == both[score].max()
            axis.annotate("Muon" if row["method"].endswith("Muon") else "AdamW",
                          (row["trained_parameters"], row[score]), (-8, 4 if upper else -4),
                          va="bottom" if upper else "top", ha="right", fontsize=10,
                          textcoords="offset points")  # fmt: skip
        axis.set(xscale="log", xlabel="weights of the encoder that are trained")
    axes[0].set(title="macro-F1, test", ylabel="score (95 % interval)")
    axes[1].set_title("mean average precision, test")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=4, frameon=False, fontsize=10,
                  loc="outside upper center")  # fmt: skip
    return figure


def at_equal_seconds(curves: pd.DataFrame, names: list[str]) -> plt.Figure:
    """Average precision on validation over the seconds that the steps have taken: a line a method.

    curves: method, kind, seconds, validation_map (mean over seeds).
    """
    figure, axis = plt.subplots(figsize=(10, 4.2), constrained_layout=True)
    for name in names:
        part = curves[curves.method == name]
        _, color, marker = KINDS.get(part.kind.iloc[0], ("", "0.4", "."))
        line = "--" if name == "full" else "-"  # (beside the same by Muon)
        axis.plot(part.seconds, part.validation_map, color=color, marker=marker, lw=1.8, ls=line,
                  label=name)  # fmt: skip
    axis.set(xlabel="seconds of training steps, one thread",
             ylabel="mean average precision, validation")  # fmt: skip
    axis.legend(loc="lower right", fontsize=10)
    return figure


def forgetting(table: pd.DataFrame, before: pd.Series) -> plt.Figure:
    """Average precision over what is left (log-mel distance) of the guitar and of other sounds.

    table: name, kind, map, log_mel_db guitar, log_mel_db other sounds. before: the same of the
    pretrained encoder.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, constrained_layout=True)
    looks = {"head": ("head only", "0.4", ".")} | KINDS
    looks["trained longer"] = ("trained longer", "#14285A", "*")
    for axis, kind in zip(axes, ("guitar", "other sounds"), strict=True):
        column = f"log_mel_db {kind}"
        axis.axvline(before[column], color="0.5", ls="--", lw=1)
        for which, (name, color, marker) in looks.items():
            part = table[table.kind == which]
            if len(part):
                axis.scatter(part[column], part["map"], s=70, color=color, marker=marker,
                             label=name, zorder=3)  # fmt: skip
        for row in table[table.kind == "trained longer"].to_dict("records"):
            axis.annotate(row["name"], (row[column], row["map"]), (-6, -14), ha="right",
                          textcoords="offset points", fontsize=10)  # fmt: skip
        axis.set(title=f"{kind} (dashed: pretrained)", xlabel="log-mel distance to the sound (dB)")
    axes[0].set_ylabel("mean average precision, validation")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=5, frameon=False, fontsize=10,
                  loc="outside upper center")  # fmt: skip
    return figure


def front(table: pd.DataFrame, before: pd.Series) -> plt.Figure:
    """Two objectives at once: the path of each as its weight grows.

    table: objective, weight, map, left (log-mel distance, dB), in order of the weight. before:
    the pretrained encoder's map and log_mel_db guitar.
    """
    figure, axis = plt.subplots(figsize=(8, 4.6), constrained_layout=True)
    looks = {"prior": ("#D55E00", "s"), "reconstruction": ("#0072B2", "o")}
    looks["replay"] = ("#14285A", "D")
    for objective, (color, marker) in looks.items():
        part = table[table.objective == objective]
        axis.plot(part.left, part["map"], color=color, marker=marker, label=objective, lw=1.5)
        for row in part.rename(columns={"map": "precision"}).itertuples():
            axis.annotate(f"{row.weight:g}", (row.left, row.precision), (5, 5),
                          textcoords="offset points", fontsize=10)  # fmt: skip
    axis.scatter(before["log_mel_db guitar"], before["map"], color="0.4", marker="*", s=110,
                 label="pretrained, head trained")  # fmt: skip
    axis.set(xlabel="log-mel distance of the guitar that comes back (dB; lower is better)",
             ylabel="mean average precision, validation")  # fmt: skip
    axis.legend(title="added to the labels' loss, with weight", fontsize=10)
    return figure


def few_examples(table: pd.DataFrame) -> plt.Figure:
    """Above: F1 of each new effect over the number of examples. Below: what is left of the old.

    table: effect, way, examples, f1, lo, hi, old_map, old_lo, old_hi.
    """
    effects = list(dict.fromkeys(table.effect))
    figure, axes = plt.subplots(
        2, len(effects), figsize=(11, 6.4), sharex=True, sharey="row", constrained_layout=True
    )
    looks = (("#56B4E9", "<"), ("0.4", "^"), ("#D55E00", "s"), ("#0072B2", "o"), ("#14285A", "D"))
    for column, effect in zip(axes.T, effects, strict=True):
        part = table[table.effect == effect]
        for (way, one), (color, marker) in zip(part.groupby("way", sort=False), looks, strict=True):
            column[0].fill_between(one.examples, one.lo, one.hi, color=color, alpha=0.12)
            column[0].plot(one.examples, one.f1, color=color, marker=marker, lw=1.8, label=way)
            column[1].fill_between(one.examples, one.old_lo, one.old_hi, color=color, alpha=0.12)
            column[1].plot(one.examples, one.old_map, color=color, marker=marker, lw=1.8)
        column[0].axhline(2 / 3, color="0.5", ls="--", lw=1)
        column[0].set(title=effect, xscale="log", ylim=(0, 1.02))
        column[1].set(xlabel="examples")
        at = sorted(set(part.examples))
        column[1].set_xticks(at, [str(number) for number in at])
        column[1].minorticks_off()
    axes[0, 0].text(0.02, 0.69, "always yes", fontsize=10,
                    transform=axes[0, 0].get_yaxis_transform())  # fmt: skip
    axes[0, 0].set_ylabel("F1, new effect")
    axes[1, 0].set_ylabel("mean average precision,\n13 old effects")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=5, frameon=False,
                  loc="outside upper center")  # fmt: skip
    return figure


def before_after(f1: pd.DataFrame) -> plt.Figure:
    """F1 of each effect before and after, joined by a line.

    f1: effect, as released, adapted.
    """
    f1 = f1.sort_values("as released").reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(8, 4.8), constrained_layout=True)
    axis.hlines(f1.index, f1["as released"], f1["adapted"], color="0.7", lw=2)
    looks = {"as released": ("#14285A", "o"), "adapted": ("#D55E00", "s")}
    for name, (color, marker) in looks.items():
        axis.scatter(f1[name], f1.index, color=color, marker=marker, s=55, label=name, zorder=3)
    axis.set_yticks(f1.index, [named(name) for name in f1.effect])
    axis.set(xlabel="F1 on the clip that was left out", xlim=(-0.03, 1.03))
    axis.legend(loc="lower right", fontsize=10)
    return figure


def knob_errors(table: pd.DataFrame, human: float) -> plt.Figure:
    """The error of each knob under several systems; a line a knob, the effects one below the other.

    table: effect, knob, system, error, lo, hi. human: the error that is presumed of experts.
    """
    pairs = list(dict.fromkeys(zip(table.effect, table.knob, strict=True)))
    place = {pair: -i for i, pair in enumerate(pairs)}
    systems = list(dict.fromkeys(table.system))
    looks = (("0.6", "|"), ("#56B4E9", "<"), ("#E69F00", "^"), ("#0072B2", "o"), ("#D55E00", "s"))
    figure, axis = plt.subplots(figsize=(9, 9.5), constrained_layout=True)
    for i, (system, (color, marker)) in enumerate(zip(systems, looks[: len(systems)], strict=True)):
        part = table[table.system == system]
        # (a little apart, so that intervals can be told; the guess a tall tick in the middle)
        tick = marker == "|"
        beside = 0 if tick else 0.17 * (i - len(systems) / 2)
        y = [place[pair] - beside for pair in zip(part.effect, part.knob, strict=True)]
        if not tick:
            axis.hlines(y, part.lo, part.hi, color=color, lw=1.2, alpha=0.7)
        size = 260 if tick else 30
        axis.scatter(part.error, y, color=color, marker=marker, s=size, label=system, zorder=3)
    axis.axvline(human, color="0.4", ls="--", lw=1)
    axis.text(human, 0.7, "experts (presumed)", ha="center", va="bottom", fontsize=10)
    axis.set_yticks(list(place.values()), [f"{named(e)}: {k}" for e, k in place])
    for (effect, _), (after, knob) in pairwise(pairs):
        if effect != after:
            axis.axhline(place[after, knob] + 0.5, color="0.9", lw=0.8, zorder=0)
    axis.set(xlim=(0, None), ylim=(-len(place) + 0.4, 0.6))
    axis.set_xlabel("mean absolute error, in parts of the knob's range (95 % interval)")
    figure.legend(*axis.get_legend_handles_labels(), ncols=3, frameon=False,
                  loc="outside upper center")  # fmt: skip
    return figure


def said_and_true(table: pd.DataFrame) -> plt.Figure:
    """What is said over what is true, a panel a knob. table: knob (its column), true, said."""
    knobs = list(dict.fromkeys(table.knob))
    figure, axes = plt.subplots(
        1, len(knobs), figsize=(2.9 * len(knobs), 3.2), sharey=True, constrained_layout=True
    )
    for axis, knob in zip(axes, knobs, strict=True):
        part = table[table.knob == knob]
        axis.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--")
        axis.scatter(part.true, part.said, s=14, alpha=0.6, color="#0072B2")
        effect, name = knob.split(".")
        axis.set(title=f"{named(effect)}: {name}", xlabel="true place", xlim=(-0.03, 1.03))
        axis.set_xticks([0, 0.5, 1])
    axes[0].set(ylabel="place that is said", ylim=(-0.03, 1.03))
    axes[0].set_yticks([0, 0.5, 1])
    return figure


def rhythms(curves: pd.DataFrame, marks: dict[str, float]) -> plt.Figure:
    """How like clips are to themselves over the lag. curves: clip, seconds, likeness.

    marks: clip -> a lag (s) that is marked on its curve.
    """
    figure, axis = plt.subplots(figsize=(9, 3.4), constrained_layout=True)
    colors = ("0.5", "#56B4E9", "#0072B2", "#D55E00")
    for (clip, part), color in zip(curves.groupby("clip", sort=False), colors, strict=False):
        axis.plot(part.seconds, part.likeness, color=color, lw=1.8, label=clip)
        if clip in marks:
            axis.axvline(marks[clip], color=color, lw=1.2, ls=":")
    axis.set(xlabel="lag (s)", ylabel="autocorrelation", xlim=(0, None))
    figure.legend(*axis.get_legend_handles_labels(), ncols=len(colors), frameon=False,
                  loc="outside upper center")  # fmt: skip
    return figure
