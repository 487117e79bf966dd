"""The figures of Part IV. Each function draws the table that it is given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns


def ranking(table: pd.DataFrame) -> plt.Figure:
    """Mean scores and their deviations as a heat map, as the proxy paper's Figure 2.

    table: representation, theirs (is the row the paper's?), `mean ...` and `sd ...` of each
    attribute.
    """
    scores = table.filter(regex="^mean ").rename(columns=lambda name: name[5:])
    spread = table.filter(regex="^sd ").to_numpy()
    words = [[f"{m:.2f}\n±{s:.2f}" for m, s in zip(*row, strict=True)]
             for row in zip(scores.to_numpy(), spread, strict=True)]  # fmt: skip
    scores.index = [
        f"{name} (paper)" if theirs else name
        for name, theirs in zip(table.representation, table.theirs, strict=True)
    ]
    figure, axis = plt.subplots(figsize=(12, 1.6 + 0.55 * len(table)), constrained_layout=True)
    looks = {"vmin": 0, "vmax": 1, "cmap": "cividis", "linewidths": 0.5}
    bar, numbers = {"label": "rank correlation"}, {"annot": words, "annot_kws": {"size": 9}}
    sns.heatmap(scores, fmt="", cbar_kws=bar, ax=axis, **looks, **numbers)
    axis.axhline((~table.theirs).sum(), color="white", lw=4)
    axis.set(xlabel="", ylabel="")
    axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=40, ha="right")
    return figure


KINDS = {"drawn": ("drawn at random", "#0072B2", "o"), "by hand": ("made by hand", "#D55E00", "s")}


def embeddings(bands: pd.DataFrame) -> plt.Figure:
    """A curve a sound over the mel bands. bands: a column a sound, drawn or by hand by its name."""
    figure, axis = plt.subplots(figsize=(9, 3.6), constrained_layout=True)
    for name, curve in bands.items():
        kind = "drawn" if str(name).startswith("drawn") else "by hand"
        style = ["-", "--", ":"][int(str(name).split()[-1]) % 3]
        axis.plot(curve, color=KINDS[kind][1], ls=style, label=name)
    axis.set(xlabel="mel band", ylabel="mean log energy")
    axis.legend(fontsize=10, ncols=2)
    return figure


def encoders(table: pd.DataFrame) -> plt.Figure:
    """Mean reciprocal rank of each encoder on both kinds of presets.

    table: encoder (one is "chance"), presets, preset by sound, lo, hi.
    """
    names = [name for name in dict.fromkeys(table.encoder) if name != "chance"]
    figure, axis = plt.subplots(figsize=(9, 4), constrained_layout=True)
    for shift, (kind, (label, color, marker)) in zip((-0.08, 0.08), KINDS.items(), strict=True):
        part = table[table.presets == kind].set_index("encoder").loc[names]
        places = [i + shift for i in range(len(names))]
        axis.vlines(places, part.lo, part.hi, color=color, lw=1.5)
        axis.scatter(places, part["preset by sound"], color=color, marker=marker, s=60, label=label)
    guess = table[table.encoder == "chance"]["preset by sound"].iloc[0]
    axis.axhline(guess, color="0.5", ls="--", lw=1)
    axis.text(len(names) - 0.5, guess, "a guess", va="bottom", ha="right", fontsize=10)
    label = f"mean reciprocal rank among {table.pool.iloc[0]}"
    axis.set(ylabel=label, xlim=(-0.5, len(names) - 0.5), ylim=(0, None))
    axis.set_xticks(range(len(names)), names)
    axis.legend(fontsize=10)
    return figure


def preset_map(points: pd.DataFrame) -> plt.Figure:
    """Sounds on a map of two dimensions. points: x, y, presets."""
    figure, axis = plt.subplots(figsize=(7, 5), constrained_layout=True)
    for kind, (label, color, marker) in KINDS.items():
        part = points[points.presets == kind]
        axis.scatter(part.x, part.y, s=14, color=color, marker=marker, alpha=0.6, label=label, lw=0)
    axis.set(xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
    axis.legend(fontsize=10)
    return figure


def growth(table: pd.DataFrame) -> plt.Figure:
    """What more training presets buy. table: encoder, presets, training, mrr, lo, hi."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, constrained_layout=True)
    looks = {"MLP-OH": ("0.35", "o"), "TFM": ("#0072B2", "s")}
    for axis, kind in zip(axes, KINDS, strict=True):
        for name, part in table[table.presets == kind].groupby("encoder", sort=False):
            color, marker = looks[name]
            axis.fill_between(part.training, part.lo, part.hi, color=color, alpha=0.15, lw=0)
            axis.plot(part.training, part.mrr, color=color, marker=marker, label=name)
        counts = sorted(set(table.training))
        axis.set(title=KINDS[kind][0], xscale="log", xlabel="presets of the training")
        axis.set_xticks(counts, [f"{n:,}" for n in counts])
        axis.minorticks_off()
    axes[0].set_ylabel("mean reciprocal rank (95 % interval)")
    axes[0].legend(fontsize=10)
    return figure


def matching(table: pd.DataFrame) -> plt.Figure:
    """How far each method's matches are from their targets: one panel a kind of target.

    table: domain, method, mstft, lo, hi.
    """
    domains = list(dict.fromkeys(table.domain))
    figure, axes = plt.subplots(1, len(domains), figsize=(11, 4), sharey=True,
                                constrained_layout=True)  # fmt: skip
    titles = {"amsynth": "sounds of amsynth", "guitar": "guitars"}
    for axis, domain in zip(axes, domains, strict=True):
        part = table[table.domain == domain].iloc[::-1]
        networks = part.method.str.contains("PLoss|Mix|Switch").to_numpy()
        places = range(len(part))
        axis.hlines(places, part.lo, part.hi, color="0.4", lw=1.5)
        axis.scatter(part.mstft, places, s=60, zorder=3,
                     color=["#0072B2" if yes else "#D55E00" for yes in networks])  # fmt: skip
        axis.set_yticks(places, part.method)
        axis.set(title=titles[domain], xlabel="mSTFT distance, lower is nearer (95 %)")
        axis.set_xscale("log")  # (a guess is three times as far as the others)
        axis.set_xticks([1.5, 2, 3, 4, 6], ["1.5", "2", "3", "4", "6"])
        axis.minorticks_off()
    return figure


def searches(curves: pd.DataFrame) -> plt.Figure:
    """The least error so far over the sounds played. curves: domain, target, sounds, error."""
    figure, axis = plt.subplots(figsize=(8, 4), constrained_layout=True)
    looks = {"amsynth": ("#0072B2", "-"), "guitar": ("#D55E00", "--")}
    for domain, part in curves.groupby("domain", sort=False):
        color, style = looks[domain]
        for _, one in part.groupby("target"):
            axis.plot(one.sounds, one.error, color=color, lw=0.6, alpha=0.4)
        median = part.groupby("sounds").error.median()
        axis.plot(median, color=color, ls=style, lw=2.5, label=f"{domain} (median)")
    axis.set(xlabel="sounds played", ylabel="error of the embedding", ylim=(0, None))
    axis.legend(fontsize=10)
    return figure


def trials(table: pd.DataFrame) -> plt.Figure:
    """A study: each trial's score in its turn, and over its settings.

    table: encoder, trial, drawn, rate, layers, spread, mrr.
    """
    figure, axes = plt.subplots(1, 4, figsize=(12, 4), sharey=True, constrained_layout=True)
    colors = {"MLP-OH": "0.35", "HN-OH": "#E69F00", "HN-PT": "#009E73", "HN-PTGRU": "#CC79A7",
              "TFM": "#0072B2"}  # fmt: skip
    looks = dict(zip(colors, zip(colors.values(), "o^vDs", strict=True), strict=True))
    shown = {"trial": "trial", "rate": "learning rate", "layers": "layers",
             "spread": "spread of the tokens"}  # fmt: skip
    for axis, (column, label) in zip(axes, shown.items(), strict=True):
        for name, part in table.groupby("encoder", sort=False):
            color, marker = looks[name]
            later = part.drawn == "by TPE"
            for which, face in ((~later, "none"), (later, color)):
                axis.scatter(part[column][which], part.mrr[which], marker=marker, s=30,
                             facecolors=face, edgecolors=color)  # fmt: skip
            if column == "trial":
                axis.step(part.trial, part.mrr.cummax(), where="post", color=color)
                axis.plot([], [], color=color, marker=marker, label=name)
        axis.set(xlabel=label)
        if column in ("rate", "spread"):
            axis.set_xscale("log")
    axes[0].set_ylabel("mean reciprocal rank, validation")
    figure.legend(loc="outside lower center", ncols=len(looks), fontsize=10)
    return figure


def densities(places: pd.DataFrame) -> plt.Figure:
    """How TPE chooses. places: rate, good, others (densities), and their ratio."""
    figure, axis = plt.subplots(figsize=(8, 3.8), constrained_layout=True)
    axis.plot(places.rate, places.good, color="#0072B2", label="density of the best quarter, l")
    axis.plot(places.rate, places.others, color="#D55E00", ls="--", label="of the others, g")
    label = "their ratio, l / (g + 0.05)"
    axis.plot(places.rate, places.ratio, color="0.3", ls=":", lw=2, label=label)
    axis.axvline(places.rate[places.ratio.idxmax()], color="0.6", lw=1)
    axis.set(xscale="log", xlabel="learning rate", ylabel="density; ratio", ylim=(0, None))
    axis.legend(fontsize=10)
    return figure


def bridge(table: pd.DataFrame) -> plt.Figure:
    """Macro-F1 of the direct answer and of the search. table: method, macro_f1, lo, hi."""
    part = table.iloc[::-1]
    figure, axis = plt.subplots(figsize=(9, 3.4), constrained_layout=True)
    colors = ["#0072B2" if "search" in name else "#D55E00" for name in part.method]
    axis.hlines(range(len(part)), part.lo, part.hi, color="0.4", lw=1.5)
    axis.scatter(part.macro_f1, range(len(part)), color=colors, s=60, zorder=3)
    axis.set_yticks(range(len(part)), part.method)
    axis.set(xlabel="macro-F1, test recordings (95 % interval)")
    return figure


def orders(table: pd.DataFrame) -> plt.Figure:
    """How often the order of two effects is found, over how unlike both orders sound.

    table: pair, commutes, right, apart.
    """
    figure, axis = plt.subplots(figsize=(9, 4.2), constrained_layout=True)
    for yes, color, marker, label in (
        (False, "#0072B2", "o", "all others"),
        (True, "#D55E00", "X", "exchangeable in theory"),  # (above the others)
    ):
        part = table[table.commutes == yes]
        axis.scatter(part.apart, part.right, color=color, marker=marker, s=50, label=label)
    axis.axhline(0.5, color="0.5", ls="--", lw=1)
    axis.set(xlabel="distance between both orders (deviations)", ylabel="order found",
             ylim=(-0.05, 1.05))  # fmt: skip
    axis.legend(fontsize=10, loc="lower right")
    return figure
