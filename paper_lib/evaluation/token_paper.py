"""What the paper on Mega-AudioFormer states, and what our codec's tokens say to it. Notebook 24.

Most of it is in one table (its Table 1), of three tasks. What that table bears out can be worked
out from its own numbers, and from how large its test sets can have been.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
from scipy import stats

from .claims import (
    DIFFERS,
    INCONSISTENT,
    OPEN,
    REPRODUCED,
    UNDECIDED,
    Claim,
    Finding,
    claim,
    holds,
    judged,
    surely,
)

# Table 1: accuracy (%) at 1.5 and at 12 kbps
ACCURACY = {
    ("GTZAN", "scratch"): (69.00, 63.00),
    ("GTZAN", "fine-tuned"): (83.00, 79.00),
    ("GTZAN", "with a chunk dropped"): (78.00, 79.00),
    ("NSynth", "scratch"): (28.27, 26.03),
    ("NSynth", "fine-tuned"): (26.59, 27.56),
    ("NSynth", "with a chunk dropped"): (28.91, 27.88),
    ("speech or music", "scratch"): (84.62, 84.62),
    ("speech or music", "fine-tuned"): (100.0, 100.0),
    ("speech or music", "with a chunk dropped"): (100.0, 100.0),
}
F1_OF_84_62 = 84.52
TASKS = ("GTZAN", "NSynth", "speech or music")
KINDS = ("scratch", "fine-tuned", "with a chunk dropped")
DECODED = "tokens to sound, MLP trained on it"
NOTES = 4096  # of NSynth's published test set


@dataclass(frozen=True)
class Stated:
    """What it states."""

    accuracy: dict = field(default_factory=lambda: dict(ACCURACY))
    frames_a_second: float = 75.0  # of EnCodec
    books: tuple[int, int] = (2, 16)  # at 1.5 and at 12 kbps


@dataclass(frozen=True)
class Measured:
    """What notebooks 22 to 24 measured."""

    masked: pd.DataFrame  # table_token_gains: other, bits, lo, hi: both ways minus the other
    gains: pd.DataFrame  # task, measure, gain, lo, hi: fine-tuned minus scratch
    others: pd.DataFrame  # the same of the paper's own tasks, or their like; empty if none was made
    dropped: pd.DataFrame  # task, gain, lo, hi: with a chunk dropped minus without
    worth: pd.DataFrame  # table_token_value, indexed by system
    flat: tuple[float, float]  # multiplications of single tokens over those of patches, 1.5, 12
    global_macs: tuple[float, float]  # of the global encoder, 30 s, at 1.5 and at 12 kbps
    whole_macs: tuple[float, float]  # with the local encoder
    decoded: dict  # gain, lo, hi: DECODED minus the fine-tuned token model, paired
    products: float  # largest difference of products of turned vectors that are as far apart


def sizes_of(percent: float, most: int = 200) -> list[int]:
    """Test sizes at which some whole number of right answers is printed as `percent`."""
    near = {n: round(n * percent / 100) for n in range(1, most + 1)}
    return [n for n, right in near.items() if round(100 * right / n, 2) == percent]


def f1_of(n: int, right: int) -> set[float]:
    """Macro-F1 (%) that two classes can have with `right` of `n` right answers."""
    found = set()
    for first in range(n + 1):  # clips of the first class
        for missed in range(n - right + 1):  # of these, called the second
            wrong = n - right - missed
            hit, other = first - missed, n - first - wrong
            if hit >= 0 and other >= 0:
                of = [
                    2 * a / d
                    for a, d in ((hit, 2 * hit + n - right), (other, 2 * other + n - right))
                    if d
                ]
                found.add(round(100 * sum(of) / 2, 2))
    return found


@claim("tokens_patch", "Section 3", "1.5 and 12 kbps: patches of 2 and 16", "books x 10 bits x 75")
def _patch(s: Stated, m: Measured) -> Finding:
    rates = [books * 10 * s.frames_a_second / 1000 for books in s.books]
    return holds(rates == [1.5, 12.0]), f"{rates[0]:g} and {rates[1]:g} kbps"


@claim("tokens_long", "abstract", "sequences thousands of tokens long", "30 s of GTZAN")
def _long(s: Stated, m: Measured) -> Finding:
    tokens = [round(30 * s.frames_a_second * books) for books in s.books]
    return holds(min(tokens) >= 1000), f"{tokens[0]:,} and {tokens[1]:,}"


@claim("tokens_cost", "abstract", "single tokens are expensive", "multiplications, twice or more")
def _cost(s: Stated, m: Measured) -> Finding:
    low, high = m.flat
    told = f"{low:.1f} times those of patches at 1.5 kbps, {high:.0f} times at 12, for 30 s"
    return holds(low >= 2), told


@claim("tokens_computation", "Section 3", "1.5 kbps is computationally cheaper than 12", "the same")
def _computation(s: Stated, m: Measured) -> Finding:
    alone, whole = (1 - low / high for low, high in (m.global_macs, m.whole_macs))
    told = (
        f"patches make as many places of both: to classify, by the global encoder, {alone:.1%} are "
        f"saved; with the local encoder (its width is ours), as in pre-training, {whole:.0%}"
    )
    saves = alone > 0.1, whole > 0.1
    return (holds(saves[0]) if saves[0] == saves[1] else UNDECIDED), told


@claim("tokens_rope", "Section 3", "RoPE injects relative positions", "products of turned vectors")
def _rope(s: Stated, m: Measured) -> Finding:
    return holds(m.products < 1e-3), f"equal distances differ by {m.products:.0e} at most"


@claim("tokens_all", "Section 3", "fine-tuning outperforms scratch across all tasks", "Table 1")
def _all(s: Stated, m: Measured) -> Finding:
    worse = []
    for task in TASKS:
        three = zip(*(s.accuracy[task, kind] for kind in KINDS), strict=True)
        worse += [
            f"{task} {scratch:g} to {tuned:g} (with a chunk dropped {dropped:g})"
            for scratch, tuned, dropped in three
            if tuned <= scratch
        ]
    return (INCONSISTENT if worse else REPRODUCED), "; ".join(worse) or "in all rows"


def _told(part: pd.DataFrame) -> str:
    return "; ".join(
        f"{row.task} {row.measure} {row.gain:+.3f} ({row.lo:+.3f} to {row.hi:+.3f})"
        for row in part.itertuples()
    )


@claim("tokens_here", "Section 3", "fine-tuning outperforms scratch, on our own clips", "intervals")
def _here(s: Stated, m: Measured) -> Finding:
    return surely(m.gains.lo, m.gains.hi), f"{_told(m.gains)}; it had more steps, on the same clips"


@claim(
    "tokens_others", "Section 3", "fine-tuning outperforms scratch, on its tasks or their like",
    "notebook 24, section 4, intervals",
)  # fmt: skip
def _others(s: Stated, m: Measured) -> Finding:
    if m.others.empty:
        return OPEN, "none of the tasks could be made on this machine"
    return surely(m.others.lo, m.others.hi), _told(m.others)


@claim(
    "tokens_strong", "Section 3", "strongest in speech or music and in genre", "Table 1, 1.5 kbps"
)
def _strong(s: Stated, m: Measured) -> Finding:
    gain = {
        task: s.accuracy[task, "fine-tuned"][0] - s.accuracy[task, "scratch"][0]
        for task in ("GTZAN", "NSynth", "speech or music")
    }
    told = ", ".join(f"{task} {value:+.2f}" for task, value in gain.items())
    return holds(gain["NSynth"] == min(gain.values())), told


@claim(
    "tokens_significant",
    "Section 3",
    "speech or music: 84.62 to 100 % is significant",
    "exact McNemar test: both heard the same items",
)
def _significant(s: Stated, m: Measured) -> Finding:
    percent, told = s.accuracy["speech or music", "scratch"][0], []
    for n in sizes_of(percent)[:3]:
        changed = n - round(n * percent / 100)
        told.append(f"{stats.binomtest(0, changed).pvalue:.2f} with {n}")
    return OPEN, f"p = {', '.join(told)} items; the paper gives no number"


@claim(
    "tokens_genre",
    "Section 3",
    "GTZAN: 69 to 83 and 63 to 79 % is significant",
    "exact McNemar test of 100 items, of the fewest and of the most that can have changed",
)
def _genre(s: Stated, m: Measured) -> Finding:
    told, sure = [], True
    for before, after in zip(*(s.accuracy["GTZAN", kind] for kind in KINDS[:2]), strict=True):
        gain, wrong = round(after - before), round(100 - after)
        # (none was lost; or all that are wrong now were right before)
        ends = [stats.binomtest(lost, 2 * lost + gain).pvalue for lost in (0, wrong)]
        told.append(f"p from {min(ends):.4f} to {max(ends):.2f}")
        sure = sure and max(ends) < 0.05
    return (REPRODUCED if sure else UNDECIDED), "; ".join(told)


@claim("tokens_sizes", "Table 1", "84.62 %", "test sizes that can print it, if it is one test")
def _sizes(s: Stated, m: Measured) -> Finding:
    found = sizes_of(84.62)
    low = stats.binomtest(found[0], found[0]).proportion_ci(method="exact").low
    told = ", ".join(map(str, found[:4]))
    return holds(bool(found)), f"{told} ... items; of {found[0]}, 100 % is {low:.0%} to 100 %"


@claim("tokens_f1", "Table 1", "accuracy 84.62 with F1 84.52", "all tables of two classes")
def _f1(s: Stated, m: Measured) -> Finding:
    can = [n for n in sizes_of(84.62) if F1_OF_84_62 in f1_of(n, round(0.8462 * n))]
    told = f"possible with {', '.join(map(str, can[:3]))} items" if can else "with no test size"
    return (REPRODUCED if can else INCONSISTENT), told


@claim("tokens_rate", "Section 3", "1.5 kbps superior or comparable to 12", "Table 1, to 1 point")
def _rate(s: Stated, m: Measured) -> Finding:
    gaps = [low - high for low, high in s.accuracy.values()]
    more, alike = sum(gap > 0 for gap in gaps), sum(gap == 0 for gap in gaps)
    near = sum(-1 <= round(gap, 2) < 0 for gap in gaps)
    told = f"higher in {more}, equal in {alike}, lower by at most 1 in {near} of {len(gaps)}"
    return holds(2 * (more + alike + near) > len(gaps)), told


@claim("tokens_dropped", "Section 3", "dropping a chunk helps in some cases", "Table 1, and here")
def _dropped(s: Stated, m: Measured) -> Finding:
    pairs = [zip(*(s.accuracy[task, kind] for kind in KINDS[1:]), strict=True) for task in TASKS]
    up = sum(after > before for each in pairs for before, after in each)
    return holds(up > 0), f"up in {up} of 6 there; here {_told(m.dropped)}"


@claim(
    "tokens_advantage",
    "abstract",
    "decode-free inference is a key advantage",
    "notebook 24, section 6: beside the same tokens, decoded and heard",
)
def _advantage(s: Stated, m: Measured) -> Finding:
    mine, back = (m.worth.loc[name] for name in ("token model, fine-tuned", DECODED))
    if pd.isna(mine.ms):
        return OPEN, "no times for this size"
    low, high = m.decoded["lo"], m.decoded["hi"]
    told = (
        f"{mine.ms:.1f} ms a clip beside {back.ms:.1f}; decoded, mean average precision is "
        f"{m.decoded['gain']:+.3f} ({low:+.3f} to {high:+.3f})"
    )
    return (REPRODUCED if mine.ms < back.ms and low <= 0 else DIFFERS), told


@claim(
    "tokens_beside_sound",
    "abstract",
    "(ours) it is one beside a listener of stored sound, too",
    "notebook 24, section 6",
)
def _beside_sound(s: Stated, m: Measured) -> Finding:
    mine = m.worth.loc["token model, fine-tuned"]
    rivals = m.worth[m.worth.kbps > mine.kbps]
    if rivals.empty or pd.isna(mine.ms):
        return OPEN, "no rival was run on these clips"
    best = rivals.loc[rivals.score.idxmax()]
    told = (
        f"{best.kbps / mine.kbps:.0f} times fewer bits; score {mine.score:.2f} beside "
        f"{best.score:.2f} ({best.name}), {mine.ms:.1f} ms beside {best.ms:.1f}"
    )
    return (REPRODUCED if mine.score >= best.lo and mine.ms < best.ms else DIFFERS), told


@claim(
    "tokens_masked",
    "Section 3",
    "(ours) a masked model learns more than a table or a line",
    "notebook 23, paired",
)
def _masked(s: Stated, m: Measured) -> Finding:
    simple = m.masked[m.masked.other.isin(("bigram", "both neighbours", "linear reader"))]
    told = (f"{r.other} {r.bits:+.3f} ({r.lo:+.3f} to {r.hi:+.3f})" for r in simple.itertuples())
    return surely(-simple.hi, -simple.lo), f"bits beside {'; '.join(told)}"


@claim(
    "tokens_nsynth", "Section 3", "promising on NSynth: 28.91 %", "chance, and a test set's size"
)
def _nsynth(s: Stated, m: Measured) -> Finding:
    printed = [a for kind in KINDS for a in s.accuracy["NSynth", kind]]
    fit = sum(round(100 * round(a * NOTES / 100) / NOTES, 2) == a for a in printed)
    told = f"{fit} of {len(printed)} numbers are shares of {NOTES:,} notes, its test set"
    return OPEN, f"{told}; the paper gives no other model; one of eleven families is 9 %"


CLAIMS: list[Claim] = [
    _patch, _long, _cost, _computation, _rope, _all, _here, _others, _strong, _significant, _genre,
    _sizes, _f1, _rate, _dropped, _advantage, _beside_sound, _masked, _nsynth,
]  # fmt: skip


def ledger(measured: Measured, stated: Stated = Stated()) -> pd.DataFrame:
    """Its claims, a row each; the columns of notebook 07's."""
    return judged("Mega-AudioFormer", stated, CLAIMS, measured)
