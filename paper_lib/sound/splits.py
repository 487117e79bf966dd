"""Which recordings, and which of them train, choose and judge.

Section 2.3.3; notebook 01, section 5. Both are decided on the whole corpus, before a run
takes its part of it. So a larger run keeps the splits of a smaller one, whatever the two sizes, and
what was trained on one may be judged on the other.
"""

from __future__ import annotations

from collections import defaultdict

from ..core.errors import PaperError
from ..core.random import generator_for

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
BLOCK = 60  # recordings that are split together
TURNS = 6  # places on the line of strata where a block's dealing begins, in turn


def balanced(recordings: list, seed: int) -> list:
    """The recordings in an order of which every prefix is balanced over style, part and player.

    Within a cell (style, part, player) by a hash of the name; then the cells by turns.
    """
    cells = defaultdict(list)
    for recording in recordings:
        cells[recording.style, recording.part, recording.player].append(recording)
    strata = defaultdict(list)
    for cell in sorted(cells):
        strata[cell[:2]].append(cell)
    place = {}  # of a cell within its stratum, and of the stratum
    for stratum, within in strata.items():
        turn = generator_for(seed, "stratum", *stratum).random()
        dealt = sorted(within, key=lambda c: generator_for(seed, "cell", *c).random())
        for i, cell in enumerate(dealt):
            place[cell] = (i, turn)
    out = []
    for cell, members in cells.items():
        ranked = sorted(members, key=lambda r: generator_for(seed, "subset", r.name).random())
        out += [((rank, *place[cell], r.name), r) for rank, r in enumerate(ranked)]
    return [recording for _, recording in sorted(out, key=lambda pair: pair[0])]


def assign(recordings: list, seed: int) -> dict[str, str]:
    """Recording name -> train | validation | test, 70/15/15, each recording whole.

    `recordings` is the whole corpus in balanced order. It is dealt in blocks of 60, the last with
    what is left over, stratified by style and part as far as a block allows.
    """
    n = len(recordings)
    if n < 3:
        raise PaperError(
            f"{n} recording(s) cannot be split by recording into train, validation and test: "
            "3 or more are needed (a recording is a file)."
        )
    blocks = max(1, n // BLOCK)
    bounds = [b * BLOCK for b in range(blocks)] + [n]
    out: dict[str, str] = {}
    for b in range(blocks):
        out |= _deal(recordings[bounds[b] : bounds[b + 1]], seed, (b + b // TURNS / 2) / TURNS % 1)
    return out


def _deal(recordings: list, seed: int, turn: float) -> dict[str, str]:
    """The splits of one block.

    Laid out stratum by stratum, by hash within each, and dealt by largest deficit. `turn` says
    where on the line the dealing begins, so that blocks even out.
    """
    n = len(recordings)
    held = max(1, round(SHARES["test"] * n))
    totals = {"train": n - 2 * held, "validation": held, "test": held}
    line = sorted(
        recordings, key=lambda r: (r.style, r.part, generator_for(seed, "split", r.name).random())
    )
    line = line[int(turn * n) :] + line[: int(turn * n)]
    dealt, out = dict.fromkeys(totals, 0), {}
    for i, recording in enumerate(line, 1):
        split = max(totals, key=lambda s: (totals[s] * i / n - dealt[s], s))
        dealt[split] += 1
        out[recording.name] = split
    return out


def subset(recordings: list, splits: dict[str, str], n: int) -> list:
    """`n` of the recordings (0: all), in their order, with 70/15/15 of the three splits.

    Every split's part is a prefix of that split, and no part shrinks where `n` grows: subsets nest.
    """
    if not n or n >= len(recordings):
        return recordings
    quota = {"validation": max(1, int(0.15 * n + 0.5)), "test": max(1, int(0.15 * n + 1e-9))}
    quota["train"] = n - quota["validation"] - quota["test"]
    taken, out = dict.fromkeys(quota, 0), []
    for recording in recordings:
        split = splits[recording.name]
        if taken[split] < quota[split]:
            taken[split] += 1
            out.append(recording)
    return out
