"""What a guide to fine-tuning audio models states, and what the codec and the effects say to it.

Notebook 14. The guide has no measurement of its own: its tables and lists are advice. A row here
says whether the advice holds for this network and this task, with one training each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd

from .claims import DIFFERS, OPEN, UNDECIDED, Claim, Finding, claim, holds, judged, surely
from .intervals import Paired

Difference = tuple[float, float, float]  # and the ends of its interval
TOO_HIGH = "rate ten times too high"  # notebook 14's training that forgets most


@dataclass(frozen=True)
class Guide:
    """What it states."""

    rank: int = 16
    size: int = 1024
    fewer: int = 32
    strong: float = 0.7  # (our reading of "strong adaptation", a share of full fine-tuning's gain)
    near_full: float = 0.9  # (and of "near full fine-tune")
    parameters: float = 3.3e9
    full_gb: float = 26.0
    mitigations: dict = field(
        default_factory=lambda: {
            "a tenth of the rate": "a learning rate 10 times lower",
            "a hundredth of the rate": "a learning rate 100 times lower",
            "a third of the epochs": "short training",
            "weight decay 0.1": "weight decay",
            "dropout 0.5": "dropout",
        }
    )


@dataclass(frozen=True)
class Measured:
    """What notebooks 13 and 14 measured: scores that can be compared by recording, or by sound."""

    methods: Paired  # mean average precision of notebook 13's methods, on test clips
    trials: Paired  # the same of notebook 14's trainings, on validation clips
    others: Paired | None  # on clips of other styles than "one style alone" (None: there are none)
    distance: Paired  # log-mel distance (dB) of the guitar that comes back from each encoder

    @property
    def gain(self) -> Difference:
        """Of full fine-tuning over the head alone."""
        return self.methods.more("full, Muon", "head only")

    def of_the_gain(self, name: str) -> float:
        """A method's share of it."""
        return self.methods.more(name, "head only")[0] / self.gain[0]

    def at_least(self, name: str, share: float) -> Difference:
        """By how much a method has more than a share of that gain."""
        return self.methods.of((1, name), (share - 1, "head only"), (-share, "full, Muon"))

    @property
    def span(self) -> float:
        """dB from the pretrained encoder, all of which is kept, to an untrained one: nought."""
        return self.distance.more("untrained", "pretrained")[0]

    def kept(self, name: str) -> float:
        """The share of the guitar that an encoder keeps."""
        return self.distance.more("untrained", name)[0] / self.span

    def keeps_more(self, one: str, than: str) -> Difference:
        """By how much `one` keeps more, as a share."""
        value, low, high = self.distance.more(than, one)
        return value / self.span, low / self.span, high / self.span

    def nothing_lost(self, name: str) -> Finding | None:
        """The finding on every remedy where that training forgets nothing for sure."""
        lost, low, high = self.keeps_more("pretrained", name)
        if low > 0:
            return None
        kept = f"{1 - lost:.1%} of the guitar ({1 - high:.1%} to {1 - low:.1%})"
        return OPEN, f"{name} keeps {kept}: nothing sure to prevent"


def by(*differences: Difference) -> str:
    """The verdict on "each of these is above 0"."""
    _, low, high = zip(*differences, strict=True)
    return surely(low, high)


def told(found: Difference, form: str = "+.3f") -> str:
    value, low, high = found
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


@claim("guide_savings", "LoRA", "r = 16, d = k = 1024: 32 times fewer parameters", "r (d + k)")
def _savings(g: Guide, m: Measured) -> Finding:
    fewer = g.size**2 / (2 * g.rank * g.size)
    return holds(fewer == g.fewer), f"{g.size**2:,} / {2 * g.rank * g.size:,} = {fewer:g}"


@claim("guide_memory", "QLoRA", "full fine-tuning of 3.3 B in FP16 takes ~26 GB", "multiplication")
def _memory(g: Guide, m: Measured) -> Finding:
    need = g.parameters * 2 * 4 / 1e9
    return (
        holds(abs(need - g.full_gb) < 1),
        f"weights, gradients and Adam's two averages, 2 bytes each: {need:.1f} GB, without "
        "activations",
    )


def _no_gain(m: Measured) -> Finding:
    return (
        UNDECIDED,
        f"full fine-tuning over the head alone: {told(m.gain)}: no sure gain to share in",
    )


def _rank(rank: int, word: str, least: float, most: float) -> Claim:
    @claim(f"guide_rank_{rank}", "LoRA, ranks", f"rank {rank}: {word}", "notebook 13, section 5")
    def check(g: Guide, m: Measured) -> Finding:
        if m.gain[1] <= 0:
            return _no_gain(m)
        name = f"LoRA attention {rank}"
        limits, limit = [m.at_least(name, least)], f"{least:.0%} or more"
        if np.isfinite(most):
            value, low, high = m.at_least(name, most)
            limits.append((-value, -high, -low))
            limit = f"{least:.0%} to {most:.0%}"
        return (
            by(*limits),
            f"on attention: {m.of_the_gain(name):.0%} of full fine-tuning's gain "
            f"({word.split()[0]} is taken as {limit})",
        )

    return check


@claim("guide_ranks", "LoRA, ranks", "more rank, better adaptation", "notebook 13, section 5")
def _ranks(g: Guide, m: Measured) -> Finding:
    names = [name for name in m.methods.value if name.startswith("LoRA attention")]
    steps = [m.methods.more(higher, lower) for lower, higher in pairwise(names)]
    ranks = [name.split()[-1] for name in names]
    words = [f"from {low} to {high} {told(step)}"
             for (low, high), step in zip(pairwise(ranks), steps, strict=True)]  # fmt: skip
    return by(*steps), f"on attention, mean average precision: {'; '.join(words)}"


@claim("guide_lora_forgets", "pitfalls", "against forgetting: use LoRA", "notebook 14, section 2")
def _lora_forgets(g: Guide, m: Measured) -> Finding:
    if nothing := m.nothing_lost("full, Muon"):
        return nothing
    more = m.keeps_more("LoRA attention 16", "full, Muon")
    return by(more), f"guitar: LoRA (attention, 16) keeps {told(more, '+.1%')} more than full"


def _mitigation(name: str, words: str) -> Claim:
    @claim(
        f"guide_{name.replace(' ', '_')}",
        "full fine-tuning, mitigation",
        f"against forgetting: {words}",
        "notebook 14, section 3",
    )
    def check(g: Guide, m: Measured) -> Finding:
        if nothing := m.nothing_lost("the recipe"):
            return nothing
        more = m.keeps_more(name, "the recipe")
        precision = m.trials.more(name, "the recipe")
        return by(more), f"guitar: keeps {told(more, '+.1%')}; average precision {told(precision)}"

    return check


def _kept_by(ident: str, where: str, words: str, name: str, without: str) -> Claim:
    """One term more in the loss against the same training `without`."""

    @claim(ident, where, words, "notebook 14, section 4: keeps nine tenths, and more than without")
    def check(g: Guide, m: Measured) -> Finding:
        if nothing := m.nothing_lost(without):
            return nothing
        more = m.keeps_more(name, without)
        nine_tenths = m.distance.of((0.1, "untrained"), (0.9, "pretrained"), (-1, name))
        precision = m.trials.more(name, without)
        words = f"keeps {m.kept(name):.1%} of the guitar, {told(more, '+.1%')} more than without"
        return by(nine_tenths, more), f"{words}; average precision {told(precision)}"

    return check


def _terms(names: list[str]) -> list[Claim]:
    """The rows on prior preservation and replay, beside the recipe and where more is lost."""
    rows = []
    for name in names:
        term = name.rpartition("ten times the rate, ")[2]
        if not term.startswith(("prior", "replay")):
            continue
        kind, weight = term.split()
        said = "prior preservation" if kind == "prior" else "replay"
        where = "DreamBooth" if kind == "prior" else "pitfalls"
        words = f"{said} (weight {weight}) prevents forgetting"
        ident = f"guide_{kind}_{weight}"
        if name == term:
            rows.append(_kept_by(ident, where, words, name, "the recipe"))
        else:
            words = f"{words}, at ten times the rate"
            rows.append(_kept_by(f"{ident}_fast", where, words, name, TOO_HIGH))
    return rows


@claim("guide_augmentation", "full fine-tuning, mitigation", "against forgetting: augmentation",
       "notebook 14, section 3: excerpts drawn anew, or always the same")  # fmt: skip
def _augmentation(g: Guide, m: Measured) -> Finding:
    if nothing := m.nothing_lost("no augmentation"):
        return nothing
    more = m.keeps_more("the recipe", "no augmentation")
    return by(more), f"guitar: keeps {told(more, '+.1%')} more with it"


@claim("guide_rate", "pitfalls", "rate too high: quality collapses",
       "notebook 14, section 5: below the recipe, and below the head alone")  # fmt: skip
def _rate(g: Guide, m: Measured) -> Finding:
    less, below = (m.trials.more(name, TOO_HIGH) for name in ("the recipe", "pretrained"))
    words = f"average precision of the recipe over that of ten times its rate: {told(less)}"
    return by(less, below), f"{words}; of the head alone over it: {told(below)}"


@claim("guide_long", "pitfalls", "too long: stop earlier, use validation", "notebook 14, section 5")
def _long(g: Guide, m: Measured) -> Finding:
    less = m.trials.more("stopped earlier", "too long")
    return by(less), f"of few recordings, average precision after far fewer steps: {told(less)}"


@claim("guide_diverse", "pitfalls", "homogeneous data: fits patterns", "notebook 14, section 5")
def _diverse(g: Guide, m: Measured) -> Finding:
    if m.others is None:
        return OPEN, "all validation clips are of one style"
    less = m.others.more("the recipe", "one style alone")
    return by(less), f"average precision on other styles, all styles over one alone: {told(less)}"


@claim("guide_generic", "pitfalls", "generic labels: does not specialise", "notebook 14, section 5")
def _generic(g: Guide, m: Measured) -> Finding:
    less = m.trials.more("the recipe", "labels too generic")
    return by(less), (
        f"average precision with the effects' names over that without: {told(less)}; "
        "foreseeable, since who learns only that there is some effect can name none"
    )


# way of notebook 15: the guide's name for its kind, and how many examples it asks for
EXAMPLES = {
    "a vector": ("textual inversion", 10, 50),
    "all, with the old answers": ("DreamBooth", 10, 30),
    "LoRA": ("LoRA", 50, 200),
    "all of the upper half": ("full fine-tuning", 500, np.inf),
}


def examples_ledger(needs: dict[str, dict[str, int | None]], most: int) -> pd.DataFrame:
    """The guide's "training data requirements", turned round; notebook 15.

    needs: way -> new effect -> examples that were enough (None: `most` were not).
    """

    def check(g: Guide, m: tuple[str, float, float]) -> Finding:
        way, low, high = m
        found = [needs[way][effect] for effect in needs[way]]
        words = "; ".join(
            f"{effect}: {n or f'not with {most}'}" for effect, n in needs[way].items()
        )
        if None in found or low > most:  # (more were asked for than were tried)
            return (DIFFERS if high <= most else OPEN), f"{words}; at most {most} were tried"
        within = [low <= n <= high for n in found if n]
        return holds(all(within)) if len(set(within)) == 1 else UNDECIDED, words

    rows = []
    for way, (kind, low, high) in EXAMPLES.items():
        asked = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
        one = Claim(f"guide_examples_{kind.replace(' ', '_').replace('-', '_')}", "data",
                    f"{kind} needs {asked} examples", "notebook 15, section 5", check)  # fmt: skip
        rows.append(judged("guide to fine-tuning", Guide(), [one], (way, low, high)))
    return pd.concat(rows, ignore_index=True)


def ledger(measured: Measured, guide: Guide = Guide()) -> pd.DataFrame:
    """The guide's claims that this part can judge, a row each; the columns of notebook 07's."""
    ranks = [
        _rank(4, "modest adaptation", 0.0, 0.5),
        _rank(16, "good adaptation", 0.5, 1.1),
        _rank(64, "strong adaptation", guide.strong, np.inf),
        _rank(128, "near full fine-tune", guide.near_full, np.inf),
    ]
    ranks = [one for one in ranks if one.id.replace("guide_rank_", "LoRA attention ")
             in measured.methods.value]  # fmt: skip
    claims = [_savings, _memory, *ranks, _ranks, _lora_forgets]
    claims += [_mitigation(name, words) for name, words in guide.mitigations.items()]
    claims += [_augmentation, *_terms(list(measured.trials.value))]
    claims += [_rate, _long, _diverse, _generic]
    return judged("guide to fine-tuning", guide, claims, measured)
