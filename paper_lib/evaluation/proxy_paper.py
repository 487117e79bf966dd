"""What the paper on neural proxies for synthesizers states, and what amsynth says to it.

Notebook 18: its Section 4, on which representations rank sounds well. Notebook 19: Sections 3, 5
and 6, on preset encoders. Notebook 20: Section 7, on sound matching.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

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

# Table 1: numbers, switches, choices
PARAMETERS = {"Dexed": (92, 0, 8), "Diva": (100, 22, 51), "TAL-NM": (48, 3, 8)}
# Table 2: millions of weights, for the three in that order
WEIGHTS = {
    "MLP-OH": (4.9, 5.4, 4.8),
    "HN-OH": (6.2, 6.4, 6.1),
    "HN-PT": (6.0, 8.4, 4.7),
    "HN-PTGRU": (7.1, 7.2, 7.1),
    "TFM": (4.8, 4.9, 4.8),
}
# Tables 3 and 4, Diva, which like amsynth is virtual analog: MRR and L1, among 4096 presets
DIVA = {
    "drawn": {
        "MLP-OH": (0.216, 0.0734),
        "HN-OH": (0.605, 0.0547),
        "HN-PT": (0.561, 0.0645),
        "HN-PTGRU": (0.628, 0.0531),
        "TFM": (0.808, 0.0431),
    },
    "by hand": {
        "MLP-OH": (0.065, 0.1277),
        "HN-OH": (0.234, 0.0898),
        "HN-PT": (0.212, 0.0912),
        "HN-PTGRU": (0.317, 0.0782),
        "TFM": (0.455, 0.0665),
    },
}

# Tables 5 and 6, Diva: what estimators of three loss schedules reach, on sounds of its own and on
# notes of instruments (NSynth)
_COLUMNS = ("num_l1", "bin_acc", "cat_acc", "stft", "mstft", "mel", "mfccd")
MATCHED = {
    "amsynth": {
        "PLoss": dict(
            zip(_COLUMNS, (0.117, 0.848, 0.364, 2.058, 1.984, 2.206, 2.318), strict=True)
        ),
        "Mix": dict(zip(_COLUMNS, (0.129, 0.845, 0.367, 1.779, 1.722, 1.825, 1.955), strict=True)),
        "Switch": dict(
            zip(_COLUMNS, (0.177, 0.765, 0.331, 1.811, 1.756, 1.815, 1.892), strict=True)
        ),
    },
    "guitar": {
        "PLoss": dict(zip(_COLUMNS[3:], (2.197, 2.132, 2.856, 3.763), strict=True)),
        "Mix": dict(zip(_COLUMNS[3:], (1.912, 1.850, 2.392, 3.347), strict=True)),
        "Switch": dict(zip(_COLUMNS[3:], (1.848, 1.773, 2.168, 3.224), strict=True)),
    },
}


@dataclass(frozen=True)
class Stated:
    """What it states."""

    order: tuple[str, ...] = ("mel128", "mfcc40", "mSTFT")  # its hand-made rows, best first
    well: float = 0.95  # (our reading of "performed well"; its least on reverb wet is 0.976)
    encoders: tuple[str, ...] = ("TFM", "HN-PTGRU", "HN-OH", "HN-PT", "MLP-OH")  # best first


@dataclass(frozen=True)
class Ranked:
    """What notebook 18 measured: table_ranking, and differences that are paired by preset."""

    table: pd.DataFrame
    apart: pd.DataFrame  # one, other, more, lo, hi: `other`'s mean score minus `one`'s
    averaged: pd.DataFrame  # the same of averages over time, as the paper has these three
    pitch: pd.DataFrame  # the same at pitch alone
    averages: pd.DataFrame  # the same of the average over time minus all frames

    def wide(self, column: str = "mean") -> pd.DataFrame:
        """A row a representation that was trained or made by hand, a column an attribute."""
        wide = self.table.pivot(index="representation", columns="attribute", values=column)
        return wide.drop(index="L3AC untrained")


def _ahead(apart: pd.DataFrame, pairs: list[tuple[str, str]]) -> Finding:
    """Has the second of each pair surely a higher score?"""
    rows = [apart[(apart.one == a) & (apart.other == b)].iloc[0] for a, b in pairs]
    told = "; ".join(
        f"{r.other} over {r.one} {r.more:+.3f} ({r.lo:+.3f} to {r.hi:+.3f})" for r in rows
    )
    return surely([r.lo for r in rows], [r.hi for r in rows]), told


@claim("proxy_codecs", "Section 4.2", "codecs yield poor results", "notebook 18, section 4")
def _codecs(s: Stated, m: Ranked) -> Finding:
    return _ahead(m.apart, [("L3AC", name) for name in s.order])


@claim("proxy_order", "Figure 2", "mel128 before mfcc40 before mSTFT", "averages, paired")
def _order(s: Stated, m: Ranked) -> Finding:
    return _ahead(m.averaged, [(worse, better) for better, worse in pairwise(s.order)])


@claim("proxy_average", "Section 4.2", "averages over time are better in most models", "paired")
def _average(s: Stated, m: Ranked) -> Finding:
    gaps = m.averages[~m.averages.one.str.startswith("L3AC untrained")]
    better, worse, half = (gaps.lo > 0).sum(), (gaps.hi < 0).sum(), len(gaps) / 2
    verdict = REPRODUCED if better > half else DIFFERS if worse > half else UNDECIDED
    return verdict, f"surely better in {better} of {len(gaps)}, surely worse in {worse}"


@claim(
    "proxy_hybrid", "Section 4.2", "features made by hand beside learned ones help", "L3AC + mel128"
)
def _hybrid(s: Stated, m: Ranked) -> Finding:
    verdict, told = _ahead(m.apart, [(part, "L3AC + mel128") for part in ("L3AC", "mel128")])
    return verdict, f"{told}; as they are, unscaled"


@claim("proxy_reverb", "Section 4.2", "all models perform well on reverb wet", "its least score")
def _reverb(s: Stated, m: Ranked) -> Finding:
    scores = m.wide()["reverb wet"]
    return holds(scores.min() >= s.well), f"the least is {scores.min():.3f} ({scores.idxmin()})"


@claim("proxy_lfo", "Section 4.2", "LFO parameters vary most between models", "their deviation")
def _lfo(s: Stated, m: Ranked) -> Finding:
    spread = m.wide().std(ddof=0)
    lfo = spread[[name for name in spread.index if name.startswith("lfo")]].mean()
    rest = spread[[name for name in spread.index if name.startswith(("amp", "filter"))]].mean()
    return holds(lfo > rest), f"mean deviation {lfo:.3f}; amp and filter parameters {rest:.3f}"


@claim("proxy_pitch", "Section 4.2", "hand-made features struggle with pitch", "below their mean")
def _pitch(s: Stated, m: Ranked) -> Finding:
    wide = m.wide().loc[list(s.order)]
    below = wide["pitch coarse"] < wide["mean"]
    told = ", ".join(f"{name} {value:.3f}" for name, value in wide["pitch coarse"].items())
    return holds(bool(below.all())), f"{told}; below its own mean for {below.sum()} of {len(wide)}"


@claim("proxy_pitch_learned", "Section 4.2", "learned ones significantly outperform them there",
       "paired, at pitch")  # fmt: skip
def _pitch_learned(s: Stated, m: Ranked) -> Finding:
    verdict, told = _ahead(m.pitch, [(name, "L3AC") for name in s.order])
    return verdict, f"{told}; the only learned one here is a codec"


@claim(
    "proxy_stable", "Section 4.2", "lower scores come with higher deviations", "rank correlation"
)
def _stable(s: Stated, m: Ranked) -> Finding:
    attributes = m.wide().drop(columns="mean", index="L3AC + mel128")  # (a mixture of two others)
    deviation = m.wide("sd").drop(columns="mean").mean(axis=1)[attributes.index]
    found = attributes.mean(axis=1).corr(deviation, method="spearman")
    words = (
        f"{found:.2f} over {len(attributes)} representations; near 1, where scores end, few vary"
    )
    return holds(found < 0), words


def ledger(measured: Ranked, stated: Stated = Stated()) -> pd.DataFrame:
    """Its claims that this part can judge so far, a row each; the columns of notebook 07's."""
    claims = [_codecs, _order, _average, _hybrid, _reverb, _lfo, _pitch, _pitch_learned, _stable]
    return judged("neural proxies for synthesizers", stated, claims, measured)


# --- preset encoders ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """What notebook 19 measured: table_preset_encoders, _encoder_sizes and _preset_growth."""

    table: pd.DataFrame
    sizes: pd.DataFrame
    growth: pd.DataFrame
    apart: pd.DataFrame  # presets, one, other, more, lo, hi: `other`'s MRR minus `one`'s, paired

    def best(self, kind: str, name: str) -> str:
        """The verdict on "this encoder has more than each other one"."""
        part = self.apart[self.apart.presets == kind]
        others = (set(part.one) | set(part.other)) - {name}
        return _falling(part, [(name, other) for other in sorted(others)])

    def surely(self, kind: str, order: list[str]) -> str:
        """The verdict on MRRs that fall in this order, each pair of neighbours by its interval."""
        part = self.apart[self.apart.presets == kind]
        return _falling(part, list(pairwise(order)))

    def gaps(self, kind: str, pairs: list[tuple[str, str]]) -> str:
        """By how much the first of each pair has more, in words."""
        part = self.apart[self.apart.presets == kind]
        found = {(r.other, r.one): (r.more, r.lo, r.hi) for r in part.itertuples()}
        found |= {(one, other): (-m, -hi, -lo) for (other, one), (m, lo, hi) in found.items()}
        each = [(first, second, *found[first, second]) for first, second in pairs]
        return "; ".join(
            f"{first} over {second} {more:+.3f} ({lo:+.3f} to {hi:+.3f})"
            for first, second, more, lo, hi in each
        )

    def of(self, kind: str, column: str = "preset by sound") -> pd.Series:
        """A score of each encoder, in the order that the paper found."""
        part = self.table[self.table.presets == kind].set_index("encoder")
        return part[column][list(Stated().encoders)]


def _falling(apart: pd.DataFrame, pairs: list[tuple[str, str]]) -> str:
    """The verdict on "the first of each pair has more": by intervals (one, other, more, lo, hi)."""
    ends = {(r.other, r.one): (r.lo, r.hi) for r in apart.itertuples()}
    ends |= {(one, other): (-hi, -lo) for (other, one), (lo, hi) in ends.items()}
    return surely(*zip(*(ends[pair] for pair in pairs), strict=True))


def _told(scores: pd.Series) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


@claim("proxy_sizes", "Table 2", "4.7 to 8.4 million weights", "notebook 19, section 4")
def _sizes(s: Stated, m: Encoded) -> Finding:
    free = m.sizes[m.sizes.encoder != "MLP-OH"]  # (whose counts gave what is not printed)
    away = (free.counted - free.published).abs()
    return holds(bool((away < 0.051).all())), (
        f"{len(free)} networks built anew: at most {away.max():.2f} million off"
    )


@claim("proxy_one_layer", "Section 3.2.2", "MLP-OH has a single hidden layer", "its weights")
def _one_layer(s: Stated, m: Encoded) -> Finding:
    stated = m.sizes[m.sizes.encoder == "MLP-OH"].published.min()
    one = (100 * 2048 + 2 * 2048 + 2049 * 192) / 1e6  # (of TAL-NM, the fewest)
    verdict = INCONSISTENT if stated - one > 0.1 else REPRODUCED
    return verdict, f"with one, {one:.1f} million; its Table 2 says {stated} and two layers"


@claim("proxy_tfm", "Table 3", "TFM outperforms the others on synthetic presets", "MRR")
def _tfm(s: Stated, m: Encoded) -> Finding:
    best = m.of("drawn").drop("TFM").idxmax()
    return m.best("drawn", "TFM"), m.gaps("drawn", [("TFM", best), ("TFM", "MLP-OH")])


@claim("proxy_encoders", "Section 5.2", "followed by HN-PTGRU, HN-OH, HN-PT, MLP-OH", "MRR")
def _encoders(s: Stated, m: Encoded) -> Finding:
    order = list(s.encoders)
    return m.surely("drawn", order), m.gaps("drawn", list(pairwise(order)))


@claim("proxy_tokens", "Section 5.2", "tokens side by side do worse than one-hot", "HN-PT, HN-OH")
def _tokens(s: Stated, m: Encoded) -> Finding:
    pair = ["HN-OH", "HN-PT"]
    return m.surely("drawn", pair), m.gaps("drawn", list(pairwise(pair)))


@claim("proxy_gru", "Section 5.2", "a BiGRU before the highway layers improves HN-PT", "MRR")
def _gru(s: Stated, m: Encoded) -> Finding:
    pair = ["HN-PTGRU", "HN-PT"]
    return m.surely("drawn", pair), m.gaps("drawn", list(pairwise(pair)))


@claim("proxy_l1_mrr", "Section 5.2", "MRR and L1 go against each other", "rank correlation")
def _l1_mrr(s: Stated, m: Encoded) -> Finding:
    found = m.of("drawn").corr(m.of("drawn", "l1"), method="spearman")
    return holds(found < 0), f"{found:.2f} over five encoders"


@claim("proxy_by_hand", "Table 4", "MRR falls on hand-crafted presets, for all", "MRR")
def _by_hand(s: Stated, m: Encoded) -> Finding:
    change = m.of("by hand") / m.of("drawn") - 1
    return holds(bool((change < 0).all())), (
        f"{change.min():+.0%} to {change.max():+.0%} (Diva: -70% to -44%)"
    )


@claim("proxy_trend", "Section 6.2", "the order on hand-crafted presets is the same", "MRR")
def _trend(s: Stated, m: Encoded) -> Finding:
    drawn = list(m.of("drawn").sort_values(ascending=False).index)
    return m.surely("by hand", drawn), m.gaps("by hand", list(pairwise(drawn)))


@claim("proxy_tfm_by_hand", "Table 4", "TFM outperforms the others on them, too", "MRR")
def _tfm_by_hand(s: Stated, m: Encoded) -> Finding:
    best = m.of("by hand").drop("TFM").idxmax()
    return m.best("by hand", "TFM"), m.gaps("by hand", [("TFM", best), ("TFM", "MLP-OH")])


@claim("proxy_more", "Section 7.1", "returns of more presets diminish (10 M over 2.5 M)", "MRR")
def _more(s: Stated, m: Encoded) -> Finding:
    part = m.growth[(m.growth.encoder == "TFM") & (m.growth.presets == "drawn")]
    told = ", ".join(f"{n:,}: {v:.3f}" for n, v in zip(part.training, part.mrr, strict=True))
    return OPEN, f"far fewer presets here; TFM with {told}"


def ledger_of_encoders(measured: Encoded, stated: Stated = Stated()) -> pd.DataFrame:
    """Its claims on preset encoders, a row each; the columns of notebook 07's."""
    claims = [
        _sizes,
        _one_layer,
        _tfm,
        _encoders,
        _tokens,
        _gru,
        _l1_mrr,
        _by_hand,
        _trend,
        _tfm_by_hand,
    ]
    return judged("neural proxies for synthesizers", stated, [*claims, _more], measured)


# --- sound matching -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matched:
    """What notebook 20 measured: table_sound_matching, and gains over PLoss."""

    table: pd.DataFrame
    gains: pd.DataFrame  # domain, method, less, lo, hi
    apart: pd.DataFrame  # column, one, other, more, lo, hi: of amsynth's targets, paired

    def of(self, domain: str, column: str) -> pd.Series:
        """A column of the three schedules, read as the paper reads them."""
        part = self.table[self.table.domain == domain].set_index("method")
        return part[column][["PLoss", "Mix", "Switch"]]


def _by_ear(name: str, domain: str, where: str) -> Claim:
    @claim(
        f"proxy_matching_{domain}_{name.lower()}",
        "Section 7.2",
        f"{name} outperforms PLoss in auditory metrics, {where}",
        "mSTFT, paired by target",
    )
    def check(s: Stated, m: Matched) -> Finding:
        better = sum(m.of(domain, c)[name] < m.of(domain, c)["PLoss"] for c in _COLUMNS[3:])
        gain = m.gains[m.gains.domain == domain].set_index("method").loc[name]
        words = f"mSTFT less by {gain.less:+.3f} ({gain.lo:+.3f} to {gain.hi:+.3f})"
        return surely([gain.lo], [gain.hi]), f"{words}; lower in {better} of 4 metrics"

    return check


@claim("proxy_matching_numbers", "Table 5", "PLoss has the least error of the numbers", "L1")
def _matching_numbers(s: Stated, m: Matched) -> Finding:
    part = m.apart[m.apart.column == "num_l1"]
    verdict = _falling(part, [("Mix", "PLoss"), ("Switch", "PLoss")])
    return verdict, _told(m.of("amsynth", "num_l1"))


@claim("proxy_matching_choices", "Table 5", "Switch is right in fewest choices (Diva)", "accuracy")
def _matching_choices(s: Stated, m: Matched) -> Finding:
    part = m.apart[m.apart.column == "cat_acc"]
    verdict = _falling(part, [("PLoss", "Switch"), ("Mix", "Switch")])
    return verdict, _told(m.of("amsynth", "cat_acc"))


@claim("proxy_matching_domain", "Tables 5, 6", "other sounds are matched worse than own", "mSTFT")
def _matching_domain(s: Stated, m: Matched) -> Finding:
    own, other = m.of("amsynth", "mstft"), m.of("guitar", "mstft")
    words = f"{_told(own)}; guitar {_told(other)}; but all guitars here play the presets' one note"
    return OPEN, f"{words}, as the paper's other sounds did not"


def ledger_of_matching(measured: Matched, stated: Stated = Stated()) -> pd.DataFrame:
    """Its claims on sound matching, a row each; the columns of notebook 07's."""
    where = {"amsynth": "in-domain", "guitar": "out-of-domain"}
    claims = [_by_ear(name, *one) for one in where.items() for name in ("Mix", "Switch")]
    claims += [_matching_numbers, _matching_choices, _matching_domain]
    return judged("neural proxies for synthesizers", stated, claims, measured)
