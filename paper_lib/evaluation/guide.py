"""What a guide to fine-tuning audio models states, and what the codec and the effects say to it.

Notebook 14. The guide has no measurement of its own: its tables and lists are advice. A row here
says whether the advice holds for this network and this task, with one training each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .claims import OPEN, Claim, Finding, claim, holds, judged


@dataclass(frozen=True)
class Guide:
    """What it states."""

    rank: int = 16
    size: int = 1024
    fewer: int = 32
    near_full: float = 0.9  # (our reading of "near full fine-tune")
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
    """What notebooks 13 and 14 measured."""

    methods: pd.DataFrame  # table_adapters, indexed by method
    forgetting: pd.DataFrame  # table_forgetting, indexed by name
    pitfalls: pd.DataFrame  # table_pitfalls, indexed by name

    @property
    def gain(self) -> float:
        """Of full fine-tuning over the head alone."""
        return float(self.methods.macro_f1["full, Muon"] - self.methods.macro_f1["head only"])

    def of_the_gain(self, name: str) -> float:
        """A method's share of it."""
        macro = self.methods.macro_f1
        return (macro[name] - macro["head only"]) / self.gain

    def kept(self, name: str) -> float:
        return self.forgetting["kept guitar"][name]


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


NO_GAIN = "full fine-tuning gains nothing over the head alone in so few steps: no share to judge"


def _rank(rank: int, word: str, least: float, most: float) -> Claim:
    @claim(f"guide_rank_{rank}", "LoRA, ranks", f"rank {rank}: {word}", "notebook 13, section 5")
    def check(g: Guide, m: Measured) -> Finding:
        if m.gain <= 0:
            return OPEN, NO_GAIN
        share = m.of_the_gain(f"LoRA attention {rank}")
        return (
            holds(least <= share < most),
            f"on attention: {share:.0%} of full fine-tuning's gain (taken as {word.split()[0]}: "
            f"from {least:.0%})",
        )

    return check


@claim("guide_ranks", "LoRA, ranks", "more rank, better adaptation", "notebook 13, section 5")
def _ranks(g: Guide, m: Measured) -> Finding:
    if m.gain <= 0:
        return OPEN, NO_GAIN
    names = [n for n in m.methods.index if n.startswith("LoRA attention")]
    shares = [m.of_the_gain(n) for n in names]
    told = ", ".join(f"{n.split()[-1]}: {s:.0%}" for n, s in zip(names, shares, strict=True))
    return holds(bool(np.all(np.diff(shares) > 0.05))), f"on attention, {told}"


@claim("guide_lora_forgets", "pitfalls", "against forgetting: use LoRA", "notebook 14, section 2")
def _lora_forgets(g: Guide, m: Measured) -> Finding:
    one, all_of_it = m.kept("LoRA attention 16"), m.kept("full, Muon")
    return (
        holds(one - all_of_it > 0.01),
        f"guitar: LoRA (attention, 16) keeps {one:.1%}, full {all_of_it:.1%}",
    )


def _mitigation(name: str, words: str) -> Claim:
    @claim(
        f"guide_{name.replace(' ', '_')}",
        "full fine-tuning, mitigation",
        f"against forgetting: {words}",
        "notebook 14, section 3",
    )
    def check(g: Guide, m: Measured) -> Finding:
        more = m.kept(name) - m.kept("the recipe")
        macro = m.forgetting.macro_f1
        return (
            holds(more > 0.01),
            f"guitar: keeps {more:+.1%}; macro-F1 {macro[name] - macro['the recipe']:+.3f}",
        )

    return check


@claim("guide_prior", "DreamBooth", "prior preservation prevents forgetting", "notebook 14, 4")
def _prior(g: Guide, m: Measured) -> Finding:
    names = [n for n in m.forgetting.index if n.startswith("prior")]
    best = max(names, key=m.kept)
    return (
        holds(m.kept(best) >= 0.9 and m.kept(best) > m.kept("the recipe")),
        f"{best}: keeps {m.kept(best):.1%} of the guitar (recipe {m.kept('the recipe'):.1%}), "
        f"macro-F1 {m.forgetting.macro_f1[best]:.3f} "
        f"(recipe {m.forgetting.macro_f1['the recipe']:.3f})",
    )


@claim("guide_rate", "pitfalls", "rate too high: quality collapses", "notebook 14, section 5")
def _rate(g: Guide, m: Measured) -> Finding:
    macro = m.pitfalls.macro_f1
    high, right = macro["rate ten times too high"], macro["the recipe"]
    return holds(high < right), f"macro-F1 {high:.3f} at ten times the rate, {right:.3f} before"


@claim("guide_long", "pitfalls", "too long: stop earlier, use validation", "notebook 14, section 5")
def _long(g: Guide, m: Measured) -> Finding:
    macro = m.pitfalls.macro_f1
    long, right = macro["twice as long"], macro["the recipe"]
    return holds(long < right), f"macro-F1 {long:.3f} after twice the epochs, not {right:.3f}"


@claim("guide_diverse", "pitfalls", "homogeneous data: fits patterns", "notebook 14, section 5")
def _diverse(g: Guide, m: Measured) -> Finding:
    others = m.pitfalls["other styles"]
    one, all_styles = others["one style alone"], others["the recipe"]
    return (
        holds(one < all_styles),
        f"macro-F1 on other styles {one:.3f} after one style, {all_styles:.3f} after all",
    )


@claim("guide_generic", "pitfalls", "generic labels: does not specialise", "notebook 14, section 5")
def _generic(g: Guide, m: Measured) -> Finding:
    macro = m.pitfalls.macro_f1
    return (
        holds(macro["labels too generic"] < macro["the recipe"]),
        f"macro-F1 {macro['labels too generic']:.3f}, {macro['the recipe']:.3f} with their names",
    )


def ledger(measured: Measured, guide: Guide = Guide()) -> pd.DataFrame:
    """The guide's claims that this part can judge, a row each; the columns of notebook 07's."""
    ranks = [
        _rank(4, "modest adaptation", 0.0, 0.5),
        _rank(16, "good adaptation", 0.5, 1.1),
        _rank(128, "near full fine-tune", guide.near_full, np.inf),
    ]
    claims = [_savings, _memory, *ranks, _ranks, _lora_forgets]
    claims += [_mitigation(name, words) for name, words in guide.mitigations.items()]
    claims += [_prior, _rate, _long, _diverse, _generic]
    return judged("guide to fine-tuning", guide, claims, measured)
