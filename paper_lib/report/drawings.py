"""Drawings of the method: pipeline, encoder, split, lead. Each draws the table it is given."""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

SPLIT_COLOURS = {"train": 7, "validation": 1, "test": 0}  # places in the palette
BOX = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": "0.35"}


def pipeline(steps: pd.DataFrame) -> plt.Figure:
    """Boxes from left to right. steps: name, holds, notebook."""
    figure, axis = plt.subplots(figsize=(1.9 * len(steps), 1.9), constrained_layout=True)
    boxes = []
    for i, step in enumerate(steps.itertuples()):
        text = f"{step.name}\n\n{step.holds}"
        boxes.append(axis.text(i, 0.1, text, ha="center", va="center", fontsize=10, bbox=BOX))
        axis.text(i, -0.85, f"notebook {step.notebook}", ha="center", fontsize=9, color="0.35")
    for i, (left, right) in enumerate(pairwise(boxes)):  # (from edge to edge)
        edges = {"patchA": left.get_bbox_patch(), "patchB": right.get_bbox_patch()}
        arrow = {"arrowstyle": "->", "color": "0.2", "shrinkA": 3, "shrinkB": 3} | edges
        axis.annotate("", (i + 1, 0.1), (i, 0.1), arrowprops=arrow)
    axis.set(xlim=(-0.5, len(steps) - 0.5), ylim=(-1, 1))
    axis.set_axis_off()
    return figure


def encoder(shapes: pd.DataFrame) -> plt.Figure:
    """One block a layer: as wide as it has frames, as high as it has channels (both in logarithms).

    shapes: layer, channels, frames.
    """
    figure, axis = plt.subplots(figsize=(9, 0.55 * len(shapes) + 0.4), constrained_layout=True)
    for i, one in enumerate(shapes.itertuples()):
        width, height = np.log2(one.frames) / 18, 0.08 + 0.1 * np.log2(one.channels)
        axis.add_patch(
            plt.Rectangle(
                (-width / 2, -i - height / 2),
                width,
                height,
                facecolor=sns.color_palette()[0],
                alpha=0.35 + 0.08 * np.log2(one.channels) * 0.9,
            )
        )
        axis.text(-0.62, -i, one.layer, ha="right", va="center", fontsize=10)
        axis.text(0.62, -i, f"{one.channels} x {one.frames:,}", ha="left", va="center", fontsize=10)
    axis.text(0.62, 0.75, "channels x frames", ha="left", va="center", fontsize=9, color="0.35")
    axis.set(xlim=(-1.2, 1.1), ylim=(-len(shapes) + 0.4, 1))
    axis.set_axis_off()
    return figure


def split_by_recording(recordings: pd.DataFrame) -> plt.Figure:
    """One square a recording, a row a style and part. recordings: style, part, split."""
    rows = recordings.sort_values(["style", "part", "split"]).groupby(["style", "part"])
    figure, axis = plt.subplots(figsize=(9, 0.32 * len(rows) + 0.9), constrained_layout=True)
    for name, place in SPLIT_COLOURS.items():
        at = [
            (x, -y) for y, (_, row) in enumerate(rows) for x, s in enumerate(row.split) if s == name
        ]
        axis.scatter(
            *zip(*at, strict=True),
            marker="s",
            s=80,
            color=sns.color_palette()[place],
            label=f"{name}: {len(at)}",
        )
    axis.set_yticks(
        [-y for y in range(len(rows))], [f"{style}, {part}" for (style, part), _ in rows]
    )
    axis.set_xticks([])
    axis.set_xlabel("one square a recording, with all its clips")
    axis.grid(False)
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside upper center", ncol=3, frameon=False
    )
    return figure


def lead(drawn: pd.DataFrame, seconds: float) -> plt.Figure:
    """Into a chain and out of it; what is cut off lies on grey. drawn: seconds, into, out."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 3), sharex=True, constrained_layout=True)
    for axis, column, title in zip(
        axes, ("into", "out"), ("into the chain", "out of the chain"), strict=True
    ):
        axis.plot(drawn.seconds, drawn[column], lw=0.5, color=sns.color_palette()[0])
        axis.axvspan(0, seconds, color="0.85", zorder=0)
        axis.text(
            seconds / 2,
            0.8,
            "lead, cut off again",
            transform=axis.get_xaxis_transform(),
            ha="center",
            fontsize=9,
            color="0.35",
        )
        axis.set_ylabel(title, fontsize=9)
    axes[-1].set_xlabel("s")
    return figure
