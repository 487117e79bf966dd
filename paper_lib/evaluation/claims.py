"""The ledger: each numeric claim of the paper, and of a review of L3AC, with what was measured and
a verdict. Notebook 07.

A claim is a function of what was stated (`Paper`, `Review`) and of what was measured (`Measured`);
it returns a verdict and the measurement in words. Nothing here says why a number came to be
printed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
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
UNDECIDED = "undecided"  # measured, and the interval of it holds both answers

Finding = tuple[str, str]  # a verdict, and the measurement in words

SAMPLES_PER_MS = 16  # at the codec's 16 kHz
# `Measured.field_last` is about frame 103 of 3kbps, whose frames hold 96 samples: its own last one
LAST_OF_FRAME_103 = 103 * 96 + 95


@dataclass(frozen=True)
class Paper:
    """What the paper states (sections in `PAPER_CLAIMS`)."""

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
    printed: dict = field(
        default_factory=lambda: {
            "overdrive": 64.37,
            "distortion": 25.06,
            "chorus": 54.60,
            "flanger": 113.76,
            "phaser": 92.97,
            "tremolo": 132.86,
            "reverb": 54.33,
            "feedback_delay": 0.83,
            "slapback_delay": 38.69,
            "low_boost": 37.70,
            "low_reduct": 49.60,
            "high_reduct": 255.79,
        }
    )  # relative gains beside Table 3, in percent
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
    check: Callable  # (paper or review, measured) -> Finding


def claim(id: str, source: str, text: str, how: str) -> Callable[[Callable], Claim]:
    """The function below it, from (paper or review, measured) to a finding, as a `Claim`."""
    return partial(Claim, id, source, text, how)


# --- the paper: data and effects ------------------------------------------------------------------


@claim("samples_chains", "2.2.2, 2.3.3", "50 chains give 442,884 samples", "notebook 07, section 1")
def _samples_chains(p: Paper, m: Measured) -> Finding:
    most = int(p.chains * p.excerpts * p.excerpt_seconds / p.slice_seconds)
    good = p.samples <= most and p.samples % p.chains == 0
    return (
        REPRODUCED if good else INCONSISTENT,
        f"{p.chains} chains over {p.excerpts} x {p.excerpt_seconds:g} s give at most {most:,}; "
        f"{p.samples:,} / {p.chains} = {p.samples / p.chains:,.2f}",
    )


@claim("samples_guo", "2.2, 2.3.3", "442,884 samples, after Guo et al.", "effects.guo221")
def _samples_guo(p: Paper, m: Measured) -> Finding:
    chains = len(effects.guo221())
    samples = chains * GUITARSET_SLICES
    return (
        near(samples, p.samples, 0),
        f"their {chains} chains x {GUITARSET_SLICES:,} slices = {samples:,}: "
        f"the plan of {chains} chains",
    )


@claim("slices", "2.2", "360 excerpts of 30 s, cut into 5-s segments", "division")
def _slices(p: Paper, m: Measured) -> Finding:
    segments = p.excerpts * p.excerpt_seconds / p.slice_seconds
    return (
        near(segments, GUITARSET_SLICES, 0),
        f"360 x 30 / 5 = {segments:,.0f} segments; "
        f"Guo et al. state {GUITARSET_SLICES:,}, from excerpts of unequal length",
    )


@claim("shares", "2.3.3", "310,019 / 66,432 / 66,433 are 70/15/15 of 442,884", "sum and division")
def _shares(p: Paper, m: Measured) -> Finding:
    good = sum(p.split) == p.samples and all(
        abs(size - share * p.samples) < 1.01 for size, share in zip(p.split, p.shares, strict=True)
    )
    return (
        REPRODUCED if good else INCONSISTENT,
        f"sum {sum(p.split):,}; each within one sample of its share",
    )


@claim(
    "split_by_recording",
    "2.3.3",
    "segments of one recording stay in one split",
    "divisibility of the sizes",
)
def _split_by_recording(p: Paper, m: Measured) -> Finding:
    common = gcd(*p.split)
    return (
        REPRODUCED if common >= p.chains else INCONSISTENT,
        "with every segment through every chain, each size is a multiple of the number of chains; "
        f"the greatest common divisor of the three is {common}",
    )


@claim("labels", "2.1, 3.2, Table 1", "13 effects to recognise at 16 kHz", "notebook 07, section 2")
def _labels(p: Paper, m: Measured) -> Finding:
    silent = [effect for effect, gap in m.identity_at_16k.items() if gap <= 1]
    return (
        near(p.labels - len(silent), p.labels, 0),
        f"at 16 kHz {len(silent)} of {p.labels} change no sample by more than 1 step of 16 bits: "
        f"{', '.join(silent) or 'none'} (Section 3.2 says that the cutoff lies too high)",
    )


@claim(
    "groups", "2.2.1, Table 1", "13 effects in 6 mutually exclusive groups", "Table 1, transcribed"
)
def _groups(p: Paper, m: Measured) -> Finding:
    good = len(effects.NAMES) == p.labels and len(effects.GROUPS) == p.groups
    return (
        REPRODUCED if good else DIFFERS,
        f"{len(effects.NAMES)} effects, {len(effects.GROUPS)} groups",
    )


@claim("deterministic", "2.2", "SoX is deterministic", "notebook 07, section 2")
def _deterministic(p: Paper, m: Measured) -> Finding:
    dithered = "different" if m.dither_differs else "equal"
    undithered = "different" if m.undithered_differs else "equal"
    return (
        DIFFERS if m.undithered_differs else REPRODUCED,
        f"the same command twice: {dithered} with SoX's default dither, "
        f"{undithered} with -D, as pysox calls it",
    )


@claim("chorus", "Table 1", "chorus is defined by n_voices = 5", "two transformers built alike")
def _chorus(p: Paper, m: Measured) -> Finding:
    return (
        DIFFERS if m.chorus_differs else REPRODUCED,
        "pysox draws delays, decays, speeds and depths anew each time: two choruses "
        + ("differ" if m.chorus_differs else "are equal"),
    )


@claim("slapback", "3.2, Table 1", "slapback has the shorter delay times", "Table 1")
def _slapback(p: Paper, m: Measured) -> Finding:
    shorter = max(p.slapback_delays) < max(p.feedback_delays)
    return (
        REPRODUCED if shorter else INCONSISTENT,
        f"Table 1: slapback {p.slapback_delays} ms, feedback {p.feedback_delays} ms",
    )


# --- the paper: the codec -------------------------------------------------------------------------


@claim("channels", "2.1, Eq. 2", "C = 512 channels", "notebook 06, section 1")
def _channels(p: Paper, m: Measured) -> Finding:
    channels = m.sizes.channels["3kbps"]
    return near(channels, p.channels, 0), f"3kbps: {channels}"


@claim("parameters", "3.3", "an encoder of 11.25 M parameters", "notebook 06, section 1")
def _parameters(p: Paper, m: Measured) -> Finding:
    tuned = m.sizes.fine_tuned["3kbps"]
    return (
        near(tuned / 1e6, p.encoder_parameters / 1e6, 0.01),
        f"what is fine-tuned of 3kbps: {tuned:,}; the whole of 1k5bps: {m.sizes.whole['1k5bps']:,}",
    )


@claim("gmacs", "1.1, 4.1, 5", "1.64 G multiply-accumulates for 10 s", "notebook 06, section 2")
def _gmacs(p: Paper, m: Measured) -> Finding:
    counted, by_class = m.gmacs["L3AC 3kbps"], m.gmacs["L3AC 3kbps, by class (ptflops)"]
    return (
        near(counted, p.gmacs, 0.01),
        f"{counted:.1f} G; {by_class:.2f} G by a counter that overlooks weight-normed layers",
    )


@claim("gmacs_dac", "1.1, 4.1", "556 G for DAC", "notebook 06, section 2")
def _gmacs_dac(p: Paper, m: Measured) -> Finding:
    at_44k, at_16k = m.gmacs["DAC, 44.1 kHz"], m.gmacs["DAC, 16 kHz"]
    # (one of the two rates is enough: which is meant is not said)
    verdict = near(at_44k, p.gmacs_dac, 5) if abs(at_16k - p.gmacs_dac) > 5 else REPRODUCED
    return verdict, f"{at_44k:.0f} G at 44.1 kHz, {at_16k:.0f} G at 16 kHz; the paper names no rate"


@claim("ratio", "1.1, 4.1", "1.64 G against 556 G (quotient 339)", "notebook 06, section 2")
def _ratio(p: Paper, m: Measured) -> Finding:
    at_16k, at_44k = (
        m.gmacs[f"DAC, {rate}"] / m.gmacs["L3AC 3kbps"] for rate in ("16 kHz", "44.1 kHz")
    )
    return near(at_44k, p.gmacs_dac / p.gmacs, 5), f"{at_16k:.0f} to {at_44k:.0f}, by one counter"


@claim("rates", "2.1.2", "downsampling by (6, 4, 4)", "configuration")
def _rates(p: Paper, m: Measured) -> Finding:
    return REPRODUCED if m.rates == p.rates else DIFFERS, f"{m.rates}"


@claim("frames", "2.1.3", "167 frames a second", "notebook 06, section 1")
def _frames(p: Paper, m: Measured) -> Finding:
    frames = m.sizes.tokens_per_s["3kbps"]
    return near(frames, p.frames_per_s, 0.5), f"{frames:.2f}"


@claim("window", "2.1.3", "W = 400 frames, 2.4 s", "notebook 06, section 1")
def _window(p: Paper, m: Measured) -> Finding:
    frames = m.sizes.window["3kbps"]
    seconds = frames / m.sizes.tokens_per_s["3kbps"]
    return (
        near(seconds, p.window_seconds, 0.05) if frames == p.window else DIFFERS,
        f"{frames} frames, {seconds:.2f} s",
    )


@claim("windows", "1.1", "a context of up to 400-750 frames", "notebook 06, section 5")
def _windows(p: Paper, m: Measured) -> Finding:
    return (
        REPRODUCED if m.attention_past >= p.windows[1] else DIFFERS,
        f"between {p.window} and {m.attention_past} frames back, by the place in the block",
    )


@claim(
    "window_place", "2.1.3", "a position attends to [i - W/2, i + W/2]", "notebook 06, section 5"
)
def _window_place(p: Paper, m: Measured) -> Finding:
    centred = m.attention_ahead == p.window // 2 == m.attention_past
    return (
        REPRODUCED if centred else DIFFERS,
        f"up to {m.attention_past} frames back, {m.attention_ahead} ahead",
    )


@claim(
    "window_streams",
    "2.1.3",
    "attending to i + W/2 enables causal streaming",
    "the sentence itself",
)
def _window_streams(p: Paper, m: Measured) -> Finding:
    return (
        INCONSISTENT if p.window > 0 else REPRODUCED,
        f"a window that reaches {p.window // 2} frames ahead is not causal",
    )


@claim(
    "attention_causal",
    "1.1, 2.1.3",
    "the Local Transformer enables causal processing",
    "notebook 06, section 5",
)
def _attention_causal(p: Paper, m: Measured) -> Finding:
    return (
        REPRODUCED if m.attention_ahead <= 0 else DIFFERS,
        f"its attention sees {max(0, m.attention_ahead)} tokens ahead",
    )


@claim("streaming", "5", "a streaming architecture", "notebook 06, sections 5 and 6")
def _streaming(p: Paper, m: Measured) -> Finding:
    ahead = m.field_last["perturbation"] - LAST_OF_FRAME_103
    decoder = "a bounded time" if m.decoder_bounded else "without bound"
    return (
        REPRODUCED if ahead <= 0 and m.decoder_bounded else DIFFERS,
        f"the encoder's convolutions look {ahead / SAMPLES_PER_MS:.1f} ms ahead, "
        f"the decoder {decoder}",
    )


@claim(
    "tpooling",
    "Eq. 1",
    "TPooling is the average of the maximum of the absolute signal",
    "against the network's own",
)
def _tpooling(p: Paper, m: Measured) -> Finding:
    return near(m.tpooling_gap, 0, 1e-6), f"largest difference {m.tpooling_gap:.1e}"


@claim(
    "tpooling_ms",
    "1.1, 2.1.1",
    "TPooling smooths the short and keeps patterns of 10 ms and more",
    "notebook 06, section 3",
)
def _tpooling_ms(p: Paper, m: Measured) -> Finding:
    longest = m.tpooling_samples / SAMPLES_PER_MS
    return (
        REPRODUCED if longest <= p.tpooling_ms else DIFFERS,
        f"its longest window spans {longest:.1f} ms: what is slower passes",
    )


@claim("lfo", "4.1", "2.4-s windows model LFO periods of 0.1 to 10 Hz", "division")
def _lfo(p: Paper, m: Measured) -> Finding:
    slowest = p.lfo_hz[0]
    return (
        REPRODUCED if 1 / slowest <= p.window_seconds else INCONSISTENT,
        f"a period at {slowest:g} Hz lasts {1 / slowest:g} s, twice a clip; "
        f"2.4 s hold a period from {1 / p.window_seconds:.2f} Hz",
    )


# --- the paper: scores and training ---------------------------------------------------------------


def _mean(p: Paper, model: str, column: int) -> Finding:
    """Is the macro-F1 of Table 2 the mean of the model's column of Table 3?"""
    mean = float(np.mean([pair[column] for pair in p.table_3.values()]))
    stated = p.table_2[model][1]
    return (
        REPRODUCED if abs(mean - stated) <= 1e-4 else INCONSISTENT,
        f"mean of Table 3: {mean:.4f}; Table 2: {stated:.4f}",
    )


@claim(
    "mean_frozen",
    "Table 2, Table 3",
    "macro-F1 of the baseline is the mean of its classes",
    "notebook 04, section 1",
)
def _mean_frozen(p: Paper, m: Measured) -> Finding:
    return _mean(p, "frozen", 0)


@claim(
    "mean_finetuned",
    "Table 2, Table 3",
    "macro-F1 of the fine-tuned model is the mean of its classes",
    "notebook 04, section 1",
)
def _mean_finetuned(p: Paper, m: Measured) -> Finding:
    return _mean(p, "finetuned", 1)


@claim("gains", "Table 2", "gains +0.3101 (51.47 %) micro, +0.3109 (57.24 %) macro", "subtraction")
def _gains(p: Paper, m: Measured) -> Finding:
    before, after = p.table_2["frozen"], p.table_2["finetuned"]
    made = [after[i] - before[i] for i in (0, 1)]
    relative = [100 * made[i] / before[i] for i in (0, 1)]
    good = all(abs(a - b) <= 1.01e-4 for a, b in zip(made, p.gains, strict=True)) and all(
        abs(a - b) <= 0.03 for a, b in zip(relative, p.relative, strict=True)
    )
    return (
        REPRODUCED if good else INCONSISTENT,
        f"micro {made[0]:+.4f} ({relative[0]:+.2f} %), macro {made[1]:+.4f} ({relative[1]:+.2f} %)",
    )


@claim("percentages", "Table 3", "twelve relative gains", "from the scores beside them")
def _percentages(p: Paper, m: Measured) -> Finding:
    off = []
    for effect, said in p.printed.items():
        before, after = p.table_3[effect]
        # both scores were rounded to four decimals: the least and the most that they allow
        low, high = (100 * ((after + half * 5e-5) / (before - half * 5e-5) - 1) for half in (-1, 1))
        if not low - 0.005 <= said <= high + 0.005:
            off.append(effect)
    return (
        INCONSISTENT if off else REPRODUCED,
        f"{len(p.printed) - len(off)} of {len(p.printed)} percentages follow from the scores "
        "beside them, within the rounding of these" + (f"; not {', '.join(off)}" if off else ""),
    )


def _first_three(gains: dict[str, float]) -> tuple[str, list[str]]:
    """A verdict on which three effects gain most, and these."""
    first = sorted(gains, key=lambda effect: gains[effect], reverse=True)[:3]
    said = {"tremolo", "flanger", "phaser"}
    return REPRODUCED if set(first) == said else INCONSISTENT, first


@claim("largest_gain", "Table 3", "tremolo, flanger and phaser gain most, by difference", "Table 3")
def _largest_gain(p: Paper, m: Measured) -> Finding:
    gains = {effect: after - before for effect, (before, after) in p.table_3.items()}
    verdict, first = _first_three(gains)
    return verdict, "largest: " + ", ".join(f"{e} {gains[e]:+.4f}" for e in first)


@claim(
    "largest_percentage",
    "abstract, Table 3, 3.2",
    "tremolo, flanger and phaser gain most, by percentage",
    "Table 3",
)
def _largest_percentage(p: Paper, m: Measured) -> Finding:
    verdict, first = _first_three(p.printed)
    return verdict, "largest: " + ", ".join(f"{e} {p.printed[e]:+.2f} %" for e in first)


@claim("one_seventh", "Table 3", "F1 0.1429 for high boost", "smallest counts")
def _one_seventh(p: Paper, m: Measured) -> Finding:
    f1 = p.table_3["high_boost"][1]
    tp, rest = next(
        (t, r)
        for t in range(1, 1000)
        for r in range(1, 40 * t)
        if abs(2 * t / (2 * t + r) - f1) < 5e-5
    )
    return (
        OPEN,
        f"{f1:.4f} is 2TP/(2TP+FP+FN) for TP = {tp}, FP+FN = {rest} and many larger counts; "
        "with thousands of labelled clips expected, only the confusion counts could tell",
    )


@claim("batch", "2.3.2", "effective batch 32 = 4 x 8", "product")
def _batch(p: Paper, m: Measured) -> Finding:
    physical, accumulated, effective = p.batch
    product = physical * accumulated
    return (
        REPRODUCED if product == effective else INCONSISTENT,
        f"{physical} x {accumulated} = {product}",
    )


@claim("hours", "2.3.3", "8 hours of fine-tuning on an A100", "rate that follows")
def _hours(p: Paper, m: Measured) -> Finding:
    clips, hours = p.split[0], p.hours[1]
    return (
        OPEN,
        f"{p.epochs} epochs of {clips:,} clips in {hours:g} h are "
        f"{p.epochs * clips / hours / 3600:.0f} clips a second",
    )


@claim("convergence", "3.3", "the baseline converges within 10 epochs", "this run's frozen head")
def _convergence(p: Paper, m: Measured) -> Finding:
    return OPEN, f"other data: here the best epoch was {m.head_best_epoch}"


def _score(m: Measured, stated: float, here: float) -> Finding:
    """A score of this run beside the paper's, which it can only judge on the same data."""
    if m.comparable:
        return near(stated, here, 0.02), f"{here:.3f} in this run"
    return OPEN, f"{here:.3f} in this run, on another corpus or codec"


@claim("frozen", "Table 2", "macro-F1 0.543 with a frozen encoder", "notebook 04")
def _frozen(p: Paper, m: Measured) -> Finding:
    return _score(m, p.table_2["frozen"][1], m.frozen)


@claim("finetuned", "Table 2", "macro-F1 0.854 after fine-tuning", "notebook 04")
def _finetuned(p: Paper, m: Measured) -> Finding:
    return _score(m, p.table_2["finetuned"][1], m.finetuned)


@claim(
    "direction", "abstract", "fine-tuning beats the frozen encoder", "notebook 04, paired interval"
)
def _direction(p: Paper, m: Measured) -> Finding:
    gain, low, high = m.gain
    words = f"{gain:+.3f} macro-F1 in this run, 95 % interval {low:+.3f} to {high:+.3f}"
    if not m.comparable:
        return OPEN, f"{words}, on another corpus or codec"
    return surely([low], [high]), words


# --- the review of L3AC ---------------------------------------------------------------------------


@claim("review_parameters", "model info", "10.31 M parameters", "notebook 06, section 1")
def _review_parameters(r: Review, m: Measured) -> Finding:
    whole = m.sizes.whole["3kbps"]
    return near(whole / 1e6, r.parameters / 1e6, 0.005), f"{whole:,}"


@claim("review_codebook", "model info", "codebook of 250,047", "notebook 06, section 1")
def _review_codebook(r: Review, m: Measured) -> Finding:
    codebook = m.sizes.codebook["3kbps"]
    return near(codebook, r.codebook, 0), f"{codebook:,}"


@claim("review_bitrate", "model info", "3 kbit/s", "notebook 06, section 1")
def _review_bitrate(r: Review, m: Measured) -> Finding:
    kbps = m.sizes.tokens_per_s["3kbps"] * log2(m.sizes.codebook["3kbps"]) / 1000
    return near(kbps, r.kbps, 0.05), f"{m.sizes.bit_per_s['3kbps'] / 1000:.2f}"


@claim("review_frames", "model info", "59.2 frames a second", "notebook 06, section 1")
def _review_frames(r: Review, m: Measured) -> Finding:
    frames = m.sizes.tokens_per_s
    return (
        near(frames["3kbps"], r.frame_rate, 0.5),
        f"3kbps: {frames['3kbps']:.2f}; {frames['1kbps']:.2f} is 1kbps",
    )


@claim("review_compress", "model info", "downsampling by 64", "notebook 06, section 1")
def _review_compress(r: Review, m: Measured) -> Finding:
    hop = m.sizes.hop["3kbps"]
    return near(hop, r.compress_rate, 0), f"3kbps: {hop}"


@claim("review_channels", "model info", "128 channels", "notebook 06, section 1")
def _review_channels(r: Review, m: Measured) -> Finding:
    channels = m.sizes.channels["3kbps"]
    return near(channels, r.channels, 0), f"{channels}"


@claim(
    "review_token",
    "experiment 2",
    "token 103 depends on samples up to 10,746",
    "notebook 06, section 5",
)
def _review_token(r: Review, m: Measured) -> Finding:
    last = m.field_last
    return (
        near(last["perturbation"], r.last_sample, 0),
        f"up to {last['perturbation']:,} by perturbation, {last['arithmetic']:,} by arithmetic; "
        f"{last['gradient above 1e-06 of its peak']:,} where the gradient exceeds 1e-6 of its peak",
    )


@claim(
    "review_decoder",
    "experiment 1",
    "the reconstruction looks 1,600 samples ahead",
    "notebook 06, section 6",
)
def _review_decoder(r: Review, m: Measured) -> Finding:
    return (
        OPEN if m.decoder_bounded else DIFFERS,
        "unbounded: an instance norm over the whole clip; "
        f"a threshold on the gradient decides whether one reads {r.decoder_look_ahead:,}",
    )


@claim("review_causal", "experiment 1", "L3AC is not strictly causal", "notebook 06, section 5")
def _review_causal(r: Review, m: Measured) -> Finding:
    ahead = m.field_last["perturbation"] - LAST_OF_FRAME_103
    return (
        REPRODUCED if ahead > 0 else DIFFERS,
        f"a token's last sample lies {ahead} after its own",
    )


@claim(
    "review_attention",
    "experiment 1",
    "the local transformer attends to a small future",
    "notebook 06, section 5",
)
def _review_attention(r: Review, m: Measured) -> Finding:
    return (
        REPRODUCED if m.attention_ahead > 0 else DIFFERS,
        f"{max(0, m.attention_ahead)} tokens; the look-ahead is the convolutions'",
    )


@claim(
    "review_rates", "model info", "3 kbit/s from 59.2 frames/s and a codebook of 250,047", "product"
)
def _review_rates(r: Review, m: Measured) -> Finding:
    kbps = r.frame_rate * log2(r.codebook) / 1000
    return (
        REPRODUCED if abs(kbps - r.kbps) < 0.05 else INCONSISTENT,
        f"59.2 x log2(250,047) = {kbps:.2f} kbit/s",
    )


@claim("review_ms", "experiment 1", "1,000 samples are 125 ms", "division")
def _review_ms(r: Review, m: Measured) -> Finding:
    ms = r.future_samples / SAMPLES_PER_MS
    return (REPRODUCED if abs(ms - r.future_ms) < 0.5 else INCONSISTENT, f"{ms:g} ms at 16 kHz")


PAPER_CLAIMS = [
    _samples_chains,
    _samples_guo,
    _slices,
    _shares,
    _split_by_recording,
    _labels,
    _groups,
    _deterministic,
    _chorus,
    _slapback,
    _channels,
    _parameters,
    _gmacs,
    _gmacs_dac,
    _ratio,
    _rates,
    _frames,
    _window,
    _windows,
    _window_place,
    _window_streams,
    _attention_causal,
    _streaming,
    _tpooling,
    _tpooling_ms,
    _lfo,
    _mean_frozen,
    _mean_finetuned,
    _gains,
    _percentages,
    _largest_gain,
    _largest_percentage,
    _one_seventh,
    _batch,
    _hours,
    _convergence,
    _frozen,
    _finetuned,
    _direction,
]
REVIEW_CLAIMS = [
    _review_parameters,
    _review_codebook,
    _review_bitrate,
    _review_frames,
    _review_compress,
    _review_channels,
    _review_token,
    _review_decoder,
    _review_causal,
    _review_attention,
    _review_rates,
    _review_ms,
]


def ledger(measured: Measured, paper: Paper = Paper(), review: Review = Review()) -> pd.DataFrame:
    """The claims of the paper and of the review: `judged` against what was measured."""
    parts = [
        judged("paper", paper, PAPER_CLAIMS, measured),
        judged("review of L3AC", review, REVIEW_CLAIMS, measured),
    ]
    return pd.concat(parts, ignore_index=True)


def surely(lo, hi) -> str:
    """The verdict on "each of these is above 0", by the ends of their intervals."""
    return REPRODUCED if min(lo) > 0 else DIFFERS if min(hi) < 0 else UNDECIDED


def holds(good: bool) -> str:
    """The verdict on a statement that can only be true or not."""
    return REPRODUCED if good else DIFFERS


def judged(document: str, stated, claims: list[Claim], measured) -> pd.DataFrame:
    """One row a claim: id, document, where it stands, the claim, what was measured, how, the
    verdict.
    """
    rows = []
    for one in claims:
        verdict, words = one.check(stated, measured)
        row = {"id": one.id, "document": document, "where": one.source, "claim": one.text}
        rows.append(row | {"measured": words, "how": one.how, "verdict": verdict})
    return pd.DataFrame(rows)


# --- what it is measured with ---------------------------------------------------------------------


def table(profile: str, name: str, dataset: str) -> pd.DataFrame:
    """A table that an earlier notebook wrote in this run, of the data set with this hash."""
    made = manifest.read(profile)["artefacts"].get(f"{name}.csv", {})
    path = paths.figures(profile) / f"{name}.csv"
    if made.get("inputs", {}).get("dataset") != dataset or not path.exists():
        raise PaperError(
            f"{path.name} of this run is missing: run the notebook that makes it first (for "
            "notebook 07: 04 and 06; for 14: 13), or paper reproduce."
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
