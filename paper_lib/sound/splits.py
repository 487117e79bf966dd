"""A recording, and which recordings train, choose and judge.

Section 2.3.3; notebook 01, section 5. Both are decided on the whole corpus, before a run
takes its part of it. So a larger run keeps the splits of a smaller one, whatever the two sizes, and
what was trained on one may be judged on the other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from ..core.errors import PaperError
from ..core.random import generator_for

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
BLOCK = 60  # recordings that are split together
TURNS = 6  # places on the line of strata where a block's dealing begins, in turn


@dataclass(frozen=True)
class Recording:
    """One performance; the unit that splits keep together.

    `path` is empty for the synthetic guitar.
    """

    name: str
    player: str = ""
    style: str = ""
    part: str = ""  # comp | solo
    path: str = ""


def balanced(recordings: list[Recording], seed: int) -> list[Recording]:
    """The recordings in an order of which every prefix is balanced over style, part and player.

    A stratum is a style and a part. The strata take turns; each begins its round of the players one
    further on than the stratum before it. Which recording of a player is first is a matter of its
    name's hash.
    """
    hashed = lambda word, *item: generator_for(seed, word, *item).random()
    players = sorted({r.player for r in recordings}, key=lambda name: hashed("player", name))
    strata = sorted({(r.style, r.part) for r in recordings}, key=lambda s: hashed("stratum", *s))
    cells: dict[tuple[str, str, str], list[Recording]] = defaultdict(list)
    for recording in sorted(recordings, key=lambda r: hashed("subset", r.name)):
        cells[recording.style, recording.part, recording.player].append(recording)
    out = []
    for (style, part, player), members in cells.items():
        turn = strata.index((style, part))
        place = (players.index(player) - turn) % len(players)
        out += [((rank, place, turn, r.name), r) for rank, r in enumerate(members)]
    return [recording for _, recording in sorted(out, key=lambda pair: pair[0])]


def assign(recordings: list[Recording], seed: int) -> dict[str, str]:
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


def _deal(recordings: list[Recording], seed: int, turn: float) -> dict[str, str]:
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


def subset(recordings: list[Recording], splits: dict[str, str], n: int) -> list[Recording]:
    """`n` of the recordings (0: all), in their order, with 70/15/15 of the three splits.

    Every split's part is a prefix of one order: block by block, and within a block the strata by
    turns. So each part is balanced, and none shrinks where `n` grows: subsets nest.
    """
    if not n or n >= len(recordings):
        return recordings
    quota = {"validation": max(1, int(0.15 * n + 0.5)), "test": max(1, int(0.15 * n + 1e-9))}
    quota["train"] = n - quota["validation"] - quota["test"]
    last = max(1, len(recordings) // BLOCK) - 1  # (holds what is left over, too)
    seen: Counter[tuple] = Counter()
    order: dict[str, list[tuple[int, int, int, str]]] = defaultdict(list)
    for place, recording in enumerate(recordings):
        split, block = splits[recording.name], min(place // BLOCK, last)
        stratum = (split, block, recording.style, recording.part)
        order[split].append((block, seen[stratum], place, recording.name))
        seen[stratum] += 1
    taken = {name for split, many in quota.items() for *_, name in sorted(order[split])[:many]}
    return [r for r in recordings if r.name in taken]
