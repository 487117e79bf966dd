"""The figures of Part IV. Each function draws the table that it is given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns


def ranking(table: pd.DataFrame) -> plt.Figure:
    """Mean scores as a heat map. table: a row a representation, a column an attribute."""
    figure, axis = plt.subplots(figsize=(11, 1.6 + 0.5 * len(table)), constrained_layout=True)
    looks = {"vmin": 0, "vmax": 1, "cmap": "cividis", "linewidths": 0.5}
    bar, numbers = {"label": "rank correlation"}, {"annot": True, "annot_kws": {"size": 10}}
    sns.heatmap(table, fmt=".2f", cbar_kws=bar, ax=axis, **looks, **numbers)
    axis.set(xlabel="", ylabel="")
    axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=40, ha="right")
    return figure
