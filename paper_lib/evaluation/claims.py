"""The ledger: each numeric claim of the paper, and of a review of L3AC, with what was measured and a verdict. Notebook 07.

A claim is a function of what was stated (`PAPER`, `REVIEW`) and of what was measured (`Measured`); it returns a verdict and the
measurement in words. Nothing here says why a number came to be printed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from math import gcd, log2

import numpy as np
import pandas as pd

from ..core import manifest, paths
from ..core.errors import PaperError
from ..sound import effects
from ..sound.corpus import GUITARSET_SLICES
from . import published

REPRODUCED, DIFFERS, INCONSISTENT = "reproduced", "differs", "inconsistent in itself"
OPEN = "not checkable here"


@dataclass(frozen=True)
class Paper:
    """What the paper states (sections in CLAIMS)."""

    samples: int = 442_884
    chains: int = 50
    split: tuple[int, int, int] = (310_019, 66_432, 66_433)
    shares: tuple[float, float, float] = (0.70, 0.15, 0.15)
    excerpts: int = 360
    excerpt_seconds: float = 30.0
    slice_seconds: float = 5.0
    labels: int = 13
    groups: int = 6
    channels: int = 512
    encoder_parameters: float = 11.25e6
    gmacs: float = 1.64
    gmacs_dac: float = 556.0
    rates: tuple[int, ...] = (6, 4, 4)
    window: int = 400
    window_seconds: float = 2.4
    windows: tuple[int, int] = (400, 750)  # "up to 400-750 frames"
    frames_per_s: float = 167.0
    tpooling_ms: float = 10.0
    slapback_delays: tuple[int, ...] = (200, 400, 600)
    feedback_delays: tuple[int, ...] = (200, 400, 600)
    lfo_hz: tuple[float, float] = (0.1, 10.0)
    table_2: dict = field(default_factory=lambda: dict(published.PAPER_TABLE_2))
    table_3: dict = field(default_factory=lambda: dict(published.PAPER_TABLE_3))
    gains: tuple[float, float] = (0.3101, 0.3109)  # micro, macro
    relative: tuple[float, float] = (51.47, 57.24)
    printed: dict = field(default_factory=lambda: {
        "overdrive": 64.37, "distortion": 25.06, "chorus": 54.60, "flanger": 113.76, "phaser": 92.97, "tremolo": 132.86, "reverb": 54.33,
        "feedback_delay": 0.83, "slapback_delay": 38.69, "low_boost": 37.70, "low_reduct": 49.60, "high_reduct": 255.79,
    })  # fmt: skip
    batch: tuple[int, int, int] = (4, 8, 32)  # physical x accumulated = effective
    epochs: int = 32
    hours: tuple[float, float] = (2.5, 8.0)


@dataclass(frozen=True)
class Review:
    """What the review of L3AC states of 3kbps."""

    parameters: float = 10.31e6
    codebook: int = 250_047
    frame_rate: float = 59.2
    compress_rate: int = 64
    channels: int = 128
    kbps: float = 3.0
    last_sample: int = 10_746
    future_samples: int = 1000
    future_ms: float = 125.0
    decoder_look_ahead: int = 1600


@dataclass(frozen=True)
class Measured:
    """What this run measured: tables of notebook 06, renderings, and the run's own scores."""

    sizes: pd.DataFrame  # anatomy.sizes, indexed by network
    gmacs: pd.Series  # table_anatomy_costs, indexed by network
    field_last: dict  # way -> last sample that frame 103 sees
    tpooling_samples: int
    tpooling_gap: float  # largest difference between the network's pooling and Eq. 1
    attention_ahead: int  # tokens that attention sees ahead, by perturbation
    attention_past: int  # and, at most, back
    rates: tuple[int, ...]  # downsampling of 3kbps
    comparable: bool  # the paper's corpus and weights?
    decoder_bounded: bool
    identity_at_16k: dict  # effect -> largest sample difference at 16 kHz
    dither_differs: bool
    undithered_differs: bool
    chorus_differs: bool
    frozen: float
    finetuned: float
    gain: tuple[float, float, float]  # fine-tuned minus frozen: value, interval
    head_best_epoch: int


def near(a: float, b: float, tolerance: float) -> str:
    """`reproduced` if a and b differ by at most `tolerance`, else `differs`."""
    return REPRODUCED if abs(a - b) <= tolerance else DIFFERS


@dataclass(frozen=True)
class Claim:
    id: str
    source: str
    text: str
    how: str
    check: Callable  # (paper or review, measured) -> (verdict, measurement in words)


def _multiples(p: Paper) -> tuple[str, str]:
    common = gcd(*p.split)
    return (
        (REPRODUCED if common >= p.chains else INCONSISTENT),
        f"with every segment through every chain, each size is a multiple of the number of chains; the greatest common divisor of the three is {common}",
    )


def _samples(p: Paper) -> tuple[str, str]:
    most = int(p.chains * p.excerpts * p.excerpt_seconds / p.slice_seconds)
    good = p.samples <= most and p.samples % p.chains == 0
    return (
        (REPRODUCED if good else INCONSISTENT),
        f"{p.chains} chains over {p.excerpts} x {p.excerpt_seconds:g} s give at most {most:,}; {p.samples:,} / {p.chains} = {p.samples / p.chains:,.2f}",
    )


def _printed(p: Paper) -> tuple[str, str]:
    off = []
    for effect, said in p.printed.items():
        low, high = (
            100 * ((p.table_3[effect][1] + s * 5e-5) / (p.table_3[effect][0] - s * 5e-5) - 1) for s in (-1, 1)
        )
        if not low - 0.005 <= said <= high + 0.005:
            off.append(effect)
    return (
        (INCONSISTENT if off else REPRODUCED),
        f"{len(p.printed) - len(off)} of {len(p.printed)} percentages follow from the scores beside them, within the rounding of these"
        + (f"; not {', '.join(off)}" if off else ""),
    )


def _largest(gains: dict[str, float], unit: str) -> tuple[str, str]:
    first = sorted(gains, key=gains.get, reverse=True)[:3]
    named = {"tremolo", "flanger", "phaser"}
    return (REPRODUCED if set(first) == named else INCONSISTENT), "largest: " + ", ".join(
        f"{e} {gains[e]:+.{4 if unit == '' else 2}f}{unit}" for e in first
    )


def _seventh(p: Paper) -> tuple[str, str]:
    f1 = p.table_3["high_boost"][1]
    tp, rest = next(
        (t, r) for t in range(1, 1000) for r in range(1, 40 * t) if abs(2 * t / (2 * t + r) - f1) < 5e-5
    )
    return (
        OPEN,
        f"{f1:.4f} is 2TP/(2TP+FP+FN) for TP = {tp}, FP+FN = {rest} and many larger counts; with thousands of labelled clips expected, only the confusion counts could tell",
    )


def _mean(p: Paper, i: int, model: str) -> tuple[str, str]:
    mean = float(np.mean([pair[i] for pair in p.table_3.values()]))
    return (
        REPRODUCED if abs(mean - p.table_2[model][1]) <= 1e-4 else INCONSISTENT
    ), f"mean of Table 3: {mean:.4f}; Table 2: {p.table_2[model][1]:.4f}"


def _gains(p: Paper) -> tuple[str, str]:
    made = [p.table_2["finetuned"][i] - p.table_2["frozen"][i] for i in (0, 1)]
    relative = [100 * made[i] / p.table_2["frozen"][i] for i in (0, 1)]
    good = all(abs(a - b) <= 1.01e-4 for a, b in zip(made, p.gains)) and all(
        abs(a - b) <= 0.03 for a, b in zip(relative, p.relative)
    )
    return (
        REPRODUCED if good else INCONSISTENT
    ), f"micro {made[0]:+.4f} ({relative[0]:+.2f} %), macro {made[1]:+.4f} ({relative[1]:+.2f} %)"


def _identity(p: Paper, m: Measured) -> tuple[str, str]:
    silent = [e for e, gap in m.identity_at_16k.items() if gap <= 1]
    return (
        near(p.labels - len(silent), p.labels, 0),
        f"at 16 kHz {len(silent)} of {p.labels} change no sample by more than 1 step of 16 bits: {', '.join(silent) or 'none'} (Section 3.2 says that the cutoff lies too high)",
    )


def _score(m: Measured, stated: float, here: float) -> tuple[str, str]:
    return (near(stated, here, 0.02) if m.comparable else OPEN), f"{here:.3f} in this run" + (
        "" if m.comparable else ", on another corpus or codec"
    )


def _direction(m: Measured) -> tuple[str, str]:
    gain, low, high = m.gain
    return (
        (REPRODUCED if low > 0 else DIFFERS if high < 0 else OPEN),
        f"upper half first, then end to end, in this run: {gain:+.3f} macro-F1, 95 % interval {low:+.3f} to {high:+.3f}",
    )


PAPER_CLAIMS = [
    Claim("samples_chains", "2.2.2, 2.3.3", "50 chains give 442,884 samples", "notebook 07, section 1", lambda p, m: _samples(p)),
    Claim("samples_guo", "2.2, 2.3.3", "442,884 samples, after Guo et al.", "effects.guo221", lambda p, m: (near(len(effects.guo221()) * GUITARSET_SLICES, p.samples, 0), f"their {len(effects.guo221())} chains x {GUITARSET_SLICES:,} slices = {len(effects.guo221()) * GUITARSET_SLICES:,}: the plan of {len(effects.guo221())} chains")),
    Claim("slices", "2.2", "360 excerpts of 30 s, cut into 5-s segments", "division", lambda p, m: (near(p.excerpts * p.excerpt_seconds / p.slice_seconds, GUITARSET_SLICES, 0), f"360 x 30 / 5 = {p.excerpts * p.excerpt_seconds / p.slice_seconds:,.0f} segments; Guo et al. state {GUITARSET_SLICES:,}, from excerpts of unequal length")),
    Claim("shares", "2.3.3", "310,019 / 66,432 / 66,433 are 70/15/15 of 442,884", "sum and division", lambda p, m: (REPRODUCED if sum(p.split) == p.samples and all(abs(n - s * p.samples) < 1.01 for n, s in zip(p.split, p.shares)) else INCONSISTENT, f"sum {sum(p.split):,}; each within one sample of its share")),
    Claim("split_by_recording", "2.3.3", "segments of one recording stay in one split", "divisibility of the sizes", lambda p, m: _multiples(p)),
    Claim("labels", "2.1, 3.2, Table 1", "13 effects to recognise at 16 kHz", "notebook 07, section 2", _identity),
    Claim("groups", "2.2.1, Table 1", "13 effects in 6 mutually exclusive groups", "Table 1, transcribed", lambda p, m: (near(len(effects.NAMES), p.labels, 0) if len(effects.GROUPS) == p.groups else DIFFERS, f"{len(effects.NAMES)} effects, {len(effects.GROUPS)} groups")),
    Claim("deterministic", "2.2", "SoX is deterministic", "notebook 07, section 2", lambda p, m: (DIFFERS if m.undithered_differs else REPRODUCED, f"the same command twice: {'different' if m.dither_differs else 'equal'} with SoX's default dither, {'different' if m.undithered_differs else 'equal'} with -D, as pysox calls it")),
    Claim("chorus", "Table 1", "chorus is defined by n_voices = 5", "two transformers built alike", lambda p, m: (DIFFERS if m.chorus_differs else REPRODUCED, "pysox draws delays, decays, speeds and depths anew each time: two choruses " + ("differ" if m.chorus_differs else "are equal"))),
    Claim("slapback", "3.2, Table 1", "slapback has the shorter delay times", "Table 1", lambda p, m: (REPRODUCED if max(p.slapback_delays) < max(p.feedback_delays) else INCONSISTENT, f"Table 1: slapback {p.slapback_delays} ms, feedback {p.feedback_delays} ms")),
    Claim("channels", "2.1, Eq. 2", "C = 512 channels", "notebook 06, section 1", lambda p, m: (near(m.sizes.channels["3kbps"], p.channels, 0), f"3kbps: {m.sizes.channels['3kbps']}")),
    Claim("parameters", "3.3", "an encoder of 11.25 M parameters", "notebook 06, section 1", lambda p, m: (near(m.sizes.fine_tuned["3kbps"] / 1e6, p.encoder_parameters / 1e6, 0.01), f"what is fine-tuned of 3kbps: {m.sizes.fine_tuned['3kbps']:,}; the whole of 1k5bps: {m.sizes.whole['1k5bps']:,}")),
    Claim("gmacs", "1.1, 4.1, 5", "1.64 G multiply-accumulates for 10 s", "notebook 06, section 2", lambda p, m: (near(m.gmacs["L3AC 3kbps"], p.gmacs, 0.01), f"{m.gmacs['L3AC 3kbps']:.1f} G; {m.gmacs['L3AC 3kbps, by class (ptflops)']:.2f} G by a counter that overlooks weight-normed layers")),
    Claim("gmacs_dac", "1.1, 4.1", "556 G for DAC", "notebook 06, section 2", lambda p, m: (near(m.gmacs["DAC, 44.1 kHz"], p.gmacs_dac, 5) if abs(m.gmacs["DAC, 16 kHz"] - p.gmacs_dac) > 5 else REPRODUCED, f"{m.gmacs['DAC, 44.1 kHz']:.0f} G at 44.1 kHz, {m.gmacs['DAC, 16 kHz']:.0f} G at 16 kHz; the paper names no rate")),
    Claim("ratio", "1.1, 4.1", "1.64 G against 556 G (quotient 339)", "notebook 06, section 2", lambda p, m: (near(m.gmacs["DAC, 44.1 kHz"] / m.gmacs["L3AC 3kbps"], p.gmacs_dac / p.gmacs, 5), f"{m.gmacs['DAC, 16 kHz'] / m.gmacs['L3AC 3kbps']:.0f} to {m.gmacs['DAC, 44.1 kHz'] / m.gmacs['L3AC 3kbps']:.0f}, by one counter")),
    Claim("rates", "2.1.2", "downsampling by (6, 4, 4)", "configuration", lambda p, m: (REPRODUCED if m.rates == p.rates else DIFFERS, f"{m.rates}")),
    Claim("frames", "2.1.3", "167 frames a second", "notebook 06, section 1", lambda p, m: (near(m.sizes.tokens_per_s["3kbps"], p.frames_per_s, 0.5), f"{m.sizes.tokens_per_s['3kbps']:.2f}")),
    Claim("window", "2.1.3", "W = 400 frames, 2.4 s", "notebook 06, section 1", lambda p, m: (near(m.sizes.window["3kbps"] / m.sizes.tokens_per_s["3kbps"], p.window_seconds, 0.05) if m.sizes.window["3kbps"] == p.window else DIFFERS, f"{m.sizes.window['3kbps']} frames, {m.sizes.window['3kbps'] / m.sizes.tokens_per_s['3kbps']:.2f} s")),
    Claim("windows", "1.1", "a context of up to 400-750 frames", "notebook 06, section 5", lambda p, m: (REPRODUCED if m.attention_past >= p.windows[1] else DIFFERS, f"between {p.window} and {m.attention_past} frames back, by the place in the block")),
    Claim("window_place", "2.1.3", "a position attends to [i - W/2, i + W/2]", "notebook 06, section 5", lambda p, m: (REPRODUCED if m.attention_ahead == p.window // 2 == m.attention_past else DIFFERS, f"up to {m.attention_past} frames back, {m.attention_ahead} ahead")),
    Claim("window_streams", "2.1.3", "attending to i + W/2 enables causal streaming", "the sentence itself", lambda p, m: (INCONSISTENT if p.window > 0 else REPRODUCED, f"a window that reaches {p.window // 2} frames ahead is not causal")),
    Claim("attention_causal", "1.1, 2.1.3", "the Local Transformer enables causal processing", "notebook 06, section 5", lambda p, m: (REPRODUCED if m.attention_ahead <= 0 else DIFFERS, f"its attention sees {max(0, m.attention_ahead)} tokens ahead")),
    Claim("streaming", "5", "a streaming architecture", "notebook 06, sections 5 and 6", lambda p, m: (REPRODUCED if m.field_last["perturbation"] <= 103 * 96 + 95 and m.decoder_bounded else DIFFERS, f"the encoder's convolutions look {(m.field_last['perturbation'] - 103 * 96 - 95) / 16:.1f} ms ahead, the decoder {'a bounded time' if m.decoder_bounded else 'without bound'}")),
    Claim("tpooling", "Eq. 1", "TPooling is the average of the maximum of the absolute signal", "against the network's own", lambda p, m: (near(m.tpooling_gap, 0, 1e-6), f"largest difference {m.tpooling_gap:.1e}")),
    Claim("tpooling_ms", "1.1, 2.1.1", "TPooling smooths the short and keeps patterns of 10 ms and more", "notebook 06, section 3", lambda p, m: (REPRODUCED if m.tpooling_samples / 16 <= p.tpooling_ms else DIFFERS, f"its longest window spans {m.tpooling_samples / 16:.1f} ms: what is slower passes")),
    Claim("lfo", "4.1", "2.4-s windows model LFO periods of 0.1 to 10 Hz", "division", lambda p, m: (REPRODUCED if 1 / p.lfo_hz[0] <= p.window_seconds else INCONSISTENT, f"a period at {p.lfo_hz[0]:g} Hz lasts {1 / p.lfo_hz[0]:g} s, twice a clip; 2.4 s hold a period from {1 / p.window_seconds:.2f} Hz")),
    Claim("mean_frozen", "Table 2, Table 3", "macro-F1 of the baseline is the mean of its classes", "notebook 04, section 1", lambda p, m: _mean(p, 0, "frozen")),
    Claim("mean_finetuned", "Table 2, Table 3", "macro-F1 of the fine-tuned model is the mean of its classes", "notebook 04, section 1", lambda p, m: _mean(p, 1, "finetuned")),
    Claim("gains", "Table 2", "gains +0.3101 (51.47 %) micro, +0.3109 (57.24 %) macro", "subtraction", lambda p, m: _gains(p)),
    Claim("percentages", "Table 3", "twelve relative gains", "from the scores beside them", lambda p, m: _printed(p)),
    Claim("largest_gain", "Table 3", "tremolo, flanger and phaser gain most, by difference", "Table 3", lambda p, m: _largest({e: b - a for e, (a, b) in p.table_3.items()}, "")),
    Claim("largest_percentage", "abstract, Table 3, 3.2", "tremolo, flanger and phaser gain most, by percentage", "Table 3", lambda p, m: _largest(p.printed, " %")),
    Claim("one_seventh", "Table 3", "F1 0.1429 for high boost", "smallest counts", lambda p, m: _seventh(p)),
    Claim("batch", "2.3.2", "effective batch 32 = 4 x 8", "product", lambda p, m: (REPRODUCED if p.batch[0] * p.batch[1] == p.batch[2] else INCONSISTENT, f"{p.batch[0]} x {p.batch[1]} = {p.batch[0] * p.batch[1]}")),
    Claim("hours", "2.3.3", "8 hours of fine-tuning on an A100", "rate that follows", lambda p, m: (OPEN, f"{p.epochs} epochs of {p.split[0]:,} clips in {p.hours[1]:g} h are {p.epochs * p.split[0] / p.hours[1] / 3600:.0f} clips a second")),
    Claim("convergence", "3.3", "the baseline converges within 10 epochs", "this run's frozen head", lambda p, m: (OPEN, f"other data: here the best epoch was {m.head_best_epoch}")),
    Claim("frozen", "Table 2", "macro-F1 0.543 with a frozen encoder", "notebook 04", lambda p, m: _score(m, p.table_2["frozen"][1], m.frozen)),
    Claim("finetuned", "Table 2", "macro-F1 0.854 after fine-tuning", "notebook 04", lambda p, m: _score(m, p.table_2["finetuned"][1], m.finetuned)),
    Claim("direction", "abstract", "fine-tuning beats the frozen encoder", "notebook 04, paired interval", lambda p, m: _direction(m)),
]  # fmt: skip

REVIEW_CLAIMS = [
    Claim("review_parameters", "model info", "10.31 M parameters", "notebook 06, section 1", lambda r, m: (near(m.sizes.whole["3kbps"] / 1e6, r.parameters / 1e6, 0.005), f"{m.sizes.whole['3kbps']:,}")),
    Claim("review_codebook", "model info", "codebook of 250,047", "notebook 06, section 1", lambda r, m: (near(m.sizes.codebook["3kbps"], r.codebook, 0), f"{m.sizes.codebook['3kbps']:,}")),
    Claim("review_bitrate", "model info", "3 kbit/s", "notebook 06, section 1", lambda r, m: (near(m.sizes.tokens_per_s["3kbps"] * log2(m.sizes.codebook["3kbps"]) / 1000, r.kbps, 0.05), f"{m.sizes.bit_per_s['3kbps'] / 1000:.2f}")),
    Claim("review_frames", "model info", "59.2 frames a second", "notebook 06, section 1", lambda r, m: (near(m.sizes.tokens_per_s["3kbps"], r.frame_rate, 0.5), f"3kbps: {m.sizes.tokens_per_s['3kbps']:.2f}; {m.sizes.tokens_per_s['1kbps']:.2f} is 1kbps")),
    Claim("review_compress", "model info", "downsampling by 64", "notebook 06, section 1", lambda r, m: (near(m.sizes.hop["3kbps"], r.compress_rate, 0), f"3kbps: {m.sizes.hop['3kbps']}")),
    Claim("review_channels", "model info", "128 channels", "notebook 06, section 1", lambda r, m: (near(m.sizes.channels["3kbps"], r.channels, 0), f"{m.sizes.channels['3kbps']}")),
    Claim("review_token", "experiment 2", "token 103 depends on samples up to 10,746", "notebook 06, section 5", lambda r, m: (near(m.field_last["perturbation"], r.last_sample, 0), f"up to {m.field_last['perturbation']:,} by perturbation, {m.field_last['arithmetic']:,} by arithmetic; {m.field_last['gradient above 1e-06 of its peak']:,} where the gradient exceeds 1e-6 of its peak")),
    Claim("review_decoder", "experiment 1", "the reconstruction looks 1,600 samples ahead", "notebook 06, section 6", lambda r, m: (OPEN if m.decoder_bounded else DIFFERS, f"unbounded: an instance norm over the whole clip; a threshold on the gradient decides whether one reads {r.decoder_look_ahead:,}")),
    Claim("review_causal", "experiment 1", "L3AC is not strictly causal", "notebook 06, section 5", lambda r, m: (REPRODUCED if m.field_last["perturbation"] > 103 * 96 + 95 else DIFFERS, f"a token's last sample lies {m.field_last['perturbation'] - 103 * 96 - 95} after its own")),
    Claim("review_attention", "experiment 1", "the local transformer attends to a small future", "notebook 06, section 5", lambda r, m: (REPRODUCED if m.attention_ahead > 0 else DIFFERS, f"{max(0, m.attention_ahead)} tokens; the look-ahead is the convolutions'")),
    Claim("review_rates", "model info", "3 kbit/s from 59.2 frames/s and a codebook of 250,047", "product", lambda r, m: (REPRODUCED if abs(r.frame_rate * log2(r.codebook) / 1000 - r.kbps) < 0.05 else INCONSISTENT, f"59.2 x log2(250,047) = {r.frame_rate * log2(r.codebook) / 1000:.2f} kbit/s")),
    Claim("review_ms", "experiment 1", "1,000 samples are 125 ms", "division", lambda r, m: (REPRODUCED if abs(r.future_samples / 16 - r.future_ms) < 0.5 else INCONSISTENT, f"{r.future_samples / 16:g} ms at 16 kHz")),
]  # fmt: skip


def ledger(measured: Measured, paper: Paper = Paper(), review: Review = Review()) -> pd.DataFrame:
    """One row a claim: id, document, where it stands, the claim, what was measured, how, verdict."""
    rows = []
    for document, stated, claims in (
        ("paper", paper, PAPER_CLAIMS),
        ("review of L3AC", review, REVIEW_CLAIMS),
    ):
        for claim in claims:
            verdict, words = claim.check(stated, measured)
            rows.append(
                {
                    "id": claim.id,
                    "document": document,
                    "where": claim.source,
                    "claim": claim.text,
                    "measured": words,
                    "how": claim.how,
                    "verdict": verdict,
                }
            )
    return pd.DataFrame(rows)


# --- what it is measured with -----------------------------------------------------------------------------------------


def table(profile: str, name: str, dataset: str) -> pd.DataFrame:
    """A table that notebook 06 wrote in this run, about the data set whose content hash is `dataset`."""
    made = manifest.read(profile)["artefacts"].get(f"{name}.csv", {})
    path = paths.figures(profile) / f"{name}.csv"
    if made.get("inputs", {}).get("dataset") != dataset or not path.exists():
        raise PaperError(
            f"{path.name} of this run is missing: run notebook 06_codec_anatomy first (or paper reproduce)."
        )
    return pd.read_csv(path)


def plain_sox(samples: np.ndarray, rate: int, *effect: str, dither: bool = True) -> bytes:
    """What SoX itself makes of (samples,) int16, with its default dither or without."""
    form = ["-t", "raw", "-r", str(rate), "-e", "signed", "-b", "16", "-c", "1"]
    return subprocess.run(
        ["sox", *([] if dither else ["-D"]), *form, "-", *form, "-", *effect],
        input=samples.tobytes(),
        capture_output=True,
        check=True,
    ).stdout
