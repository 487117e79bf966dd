"""The ledger: each numeric claim of the paper, and of a review of L3AC, with what was measured and a verdict. Notebook 07.

A claim is a function of what was stated (`PAPER`, `REVIEW`) and of what was measured (`Measured`); it returns a verdict and the
measurement in words. Nothing here says why a number came to be printed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import log2

import numpy as np
import pandas as pd

from . import PaperError, effects, paths, report, training
from .dataset import Dataset
from .embedding import pool
from .profiles import Profile

REPRODUCED, DIFFERS, INCONSISTENT = "reproduced", "differs", "inconsistent in itself"
OPEN = "not checkable here (needs GuitarSet or published weights)"


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
    table_2: dict = field(default_factory=lambda: dict(report.PAPER_TABLE_2))
    table_3: dict = field(default_factory=lambda: dict(report.PAPER_TABLE_3))
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
    frame: int = 103
    last_sample: int = 10_746
    decoder_look_ahead: int = 1600


@dataclass(frozen=True)
class Measured:
    """What this run measured: tables of notebook 06, renderings, and the run's own scores."""

    sizes: pd.DataFrame  # anatomy.sizes, indexed by network
    gmacs: pd.Series  # table_anatomy_costs, indexed by network
    field_last: dict  # way -> last sample that frame 103 sees
    tpooling_samples: int
    tpooling_gap: float  # largest difference between the network's pooling and Eq. 1
    attention_later: bool  # does attention see a later token?
    attention_past: tuple[int, int]  # fewest and most tokens of the past
    decoder_bounded: bool
    identity_at_16k: dict  # effect -> largest sample difference at 16 kHz
    dither_differs: bool
    chorus_differs: bool
    guo_slices: int
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
    by = [n for n in (p.chains, p.chains + 1, 221) if all(part % n == 0 for part in p.split)]
    return (REPRODUCED if by else INCONSISTENT), f"a split by segment has sizes that are multiples of the chains a segment; {p.split} are multiples of neither {p.chains}, {p.chains + 1} nor 221" if not by else f"multiples of {by}"


def _printed(p: Paper) -> tuple[str, str]:
    off = []
    for effect, said in p.printed.items():
        low, high = (100 * ((p.table_3[effect][1] + s * 5e-5) / (p.table_3[effect][0] - s * 5e-5) - 1) for s in (-1, 1))
        if not low - 0.005 <= said <= high + 0.005:
            off.append(effect)
    return (INCONSISTENT if off else REPRODUCED), f"{len(p.printed) - len(off)} of {len(p.printed)} percentages follow from the scores beside them, within the rounding of these" + (f"; not {', '.join(off)}" if off else "")


def _largest(p: Paper) -> tuple[str, str]:
    top = max(p.printed, key=p.printed.get)
    group = {e.name: e.group for e in effects.EFFECTS}[top]
    return (REPRODUCED if group.lower().startswith("mod") else INCONSISTENT), f"largest printed gain: {top} (+{p.printed[top]:.2f} %), of the group {group}"


def _seventh(p: Paper) -> tuple[str, str]:
    f1 = p.table_3["high_boost"][1]
    tp, rest = next((t, r) for t in range(1, 1000) for r in range(1, 40 * t) if abs(2 * t / (2 * t + r) - f1) < 5e-5)
    return OPEN, f"{f1:.4f} is 2TP/(2TP+FP+FN) for TP = {tp}, FP+FN = {rest} and many larger counts; with thousands of labelled clips expected, only the confusion counts could tell"


def _mean(p: Paper, i: int, model: str) -> tuple[str, str]:
    mean = float(np.mean([pair[i] for pair in p.table_3.values()]))
    return near(mean, p.table_2[model][1], 1e-4), f"mean of Table 3: {mean:.4f}; Table 2: {p.table_2[model][1]:.4f}"


def _gains(p: Paper) -> tuple[str, str]:
    made = [p.table_2["finetuned"][i] - p.table_2["frozen"][i] for i in (0, 1)]
    relative = [100 * made[i] / p.table_2["frozen"][i] for i in (0, 1)]
    good = all(abs(a - b) <= 1.01e-4 for a, b in zip(made, p.gains)) and all(abs(a - b) <= 0.03 for a, b in zip(relative, p.relative))
    return (REPRODUCED if good else INCONSISTENT), f"micro {made[0]:+.4f} ({relative[0]:+.2f} %), macro {made[1]:+.4f} ({relative[1]:+.2f} %)"


def _identity(p: Paper, m: Measured) -> tuple[str, str]:
    silent = [e for e, gap in m.identity_at_16k.items() if gap <= 1]
    return near(p.labels - len(silent), p.labels, 0), f"at 16 kHz {len(silent)} of {p.labels} change no sample by more than 1 step of 16 bits: {', '.join(silent) or 'none'}"


PAPER_CLAIMS = [
    Claim("samples_chains", "2.2.2, 2.3.3", "50 chains give 442,884 samples", "division", lambda p, m: (REPRODUCED if p.samples % p.chains == 0 else INCONSISTENT, f"442,884 / {p.chains} = {p.samples / p.chains:,.2f}")),
    Claim("samples_guo", "2.2", "442,884 samples after Guo et al.", "effects.guo221", lambda p, m: (near(len(effects.guo221()) * m.guo_slices, p.samples, 0), f"their {len(effects.guo221())} chains x {m.guo_slices:,} slices = {len(effects.guo221()) * m.guo_slices:,}: the plan of 221 chains, not of 50")),
    Claim("slices", "2.2", "360 excerpts of 30 s, cut into 5-s segments", "division", lambda p, m: (near(p.excerpts * p.excerpt_seconds / p.slice_seconds, m.guo_slices, 0), f"360 x 30 / 5 = {p.excerpts * p.excerpt_seconds / p.slice_seconds:,.0f} segments; Guo et al. count {m.guo_slices:,} (excerpts are of unequal length)")),
    Claim("shares", "2.3.3", "310,019 / 66,432 / 66,433 are 70/15/15 of 442,884", "sum and division", lambda p, m: (REPRODUCED if sum(p.split) == p.samples and all(abs(n - s * p.samples) < 1.01 for n, s in zip(p.split, p.shares)) else INCONSISTENT, f"sum {sum(p.split):,}; each within one sample of its share")),
    Claim("split_by_recording", "2.3.3", "segments of one recording stay in one split", "divisibility of the sizes", lambda p, m: _multiples(p)),
    Claim("labels", "abstract, Table 1", "13 effects to recognise at 16 kHz", "each rendered at 16 kHz", _identity),
    Claim("groups", "2.2.1", "13 effects in 6 mutually exclusive groups", "effects.EFFECTS", lambda p, m: (near(len(effects.NAMES), p.labels, 0), f"{len(effects.NAMES)} effects, {len(effects.GROUPS)} groups")),
    Claim("deterministic", "2.2", "SoX is deterministic", "the same command twice", lambda p, m: (DIFFERS if m.dither_differs else REPRODUCED, "two runs of one command " + ("differ: it dithers at random unless told not to (-D)" if m.dither_differs else "are equal"))),
    Claim("chorus", "Table 1", "chorus is defined by n_voices = 5", "two transformers built alike", lambda p, m: (DIFFERS if m.chorus_differs else REPRODUCED, "pysox draws delays, decays, speeds and depths anew each time: two choruses " + ("differ" if m.chorus_differs else "are equal"))),
    Claim("slapback", "3.2, Table 1", "slapback has the shorter delay times", "Table 1", lambda p, m: (REPRODUCED if max(p.slapback_delays) < max(p.feedback_delays) else INCONSISTENT, f"Table 1: slapback {p.slapback_delays} ms, feedback {p.feedback_delays} ms")),
    Claim("channels", "2.1, Eq. 2", "C = 512 channels", "notebook 06, section 1", lambda p, m: (near(m.sizes.channels["3kbps"], p.channels, 0), f"3kbps: {m.sizes.channels['3kbps']}")),
    Claim("parameters", "3.3", "an encoder of 11.25 M parameters", "notebook 06, section 1", lambda p, m: (near(m.sizes.fine_tuned["3kbps"] / 1e6, p.encoder_parameters / 1e6, 0.01), f"what is fine-tuned of 3kbps: {m.sizes.fine_tuned['3kbps']:,}; the whole of 1k5bps: {m.sizes.whole['1k5bps']:,}")),
    Claim("gmacs", "1.1, 4.1, 5", "1.64 G multiply-accumulates for 10 s", "notebook 06, section 2", lambda p, m: (near(m.gmacs["L3AC 3kbps"], p.gmacs, 0.01), f"{m.gmacs['L3AC 3kbps']:.1f} G; {m.gmacs['L3AC 3kbps, by class (ptflops)']:.2f} G by a counter that overlooks weight-normed layers")),
    Claim("gmacs_dac", "1.1, 4.1", "556 G for DAC", "notebook 06, section 2", lambda p, m: (near(m.gmacs["DAC, 44.1 kHz"], p.gmacs_dac, 5), f"{m.gmacs['DAC, 44.1 kHz']:.0f} G at 44.1 kHz, {m.gmacs['DAC, 16 kHz']:.0f} G at 16 kHz")),
    Claim("ratio", "1.1", "DAC needs 339 times as much", "notebook 06, section 2", lambda p, m: (near(m.gmacs["DAC, 44.1 kHz"] / m.gmacs["L3AC 3kbps"], p.gmacs_dac / p.gmacs, 5), f"{m.gmacs['DAC, 16 kHz'] / m.gmacs['L3AC 3kbps']:.0f} to {m.gmacs['DAC, 44.1 kHz'] / m.gmacs['L3AC 3kbps']:.0f} times, by one counter")),
    Claim("rates", "2.1.2", "downsampling by (6, 4, 4)", "configuration", lambda p, m: (near(np.prod(p.rates), m.sizes.hop["3kbps"], 0), f"hop {m.sizes.hop['3kbps']} samples")),
    Claim("frames", "2.1.3", "167 frames a second", "notebook 06, section 1", lambda p, m: (near(m.sizes.tokens_per_s["3kbps"], p.frames_per_s, 0.5), f"{m.sizes.tokens_per_s['3kbps']:.2f}")),
    Claim("window", "2.1.3", "W = 400 frames, 2.4 s", "notebook 06, section 1", lambda p, m: (near(m.sizes.window["3kbps"] / m.sizes.tokens_per_s["3kbps"], p.window_seconds, 0.05), f"{m.sizes.window['3kbps']} frames, {m.sizes.window['3kbps'] / m.sizes.tokens_per_s['3kbps']:.2f} s")),
    Claim("windows", "1.1", "windows of up to 400-750 frames", "notebook 06, section 1", lambda p, m: (REPRODUCED if m.sizes.window[:4].max() >= p.windows[1] else DIFFERS, f"the four configurations: {sorted(int(w) for w in m.sizes.window[:4])}")),
    Claim("window_place", "2.1.3", "a position attends to [i - W/2, i + W/2]", "notebook 06, section 5", lambda p, m: (REPRODUCED if m.attention_later else DIFFERS, f"to its own block and the one before, {m.attention_past[0]} to {m.attention_past[1]} frames back, none later")),
    Claim("causal", "1.1, 2.1.3, 5", "causal, streaming", "notebook 06, sections 5 and 6", lambda p, m: (REPRODUCED if m.field_last["arithmetic"] <= 103 * 96 + 95 and m.decoder_bounded else DIFFERS, f"the encoder looks {(m.field_last['arithmetic'] - 103 * 96 - 95) / 16:.1f} ms ahead (convolutions; attention is causal), the decoder without bound")),
    Claim("tpooling", "Eq. 1", "TPooling = AvgPool(MaxPool(|x|, K), K)", "against the network's own", lambda p, m: (near(m.tpooling_gap, 0, 1e-6), f"largest difference {m.tpooling_gap:.1e}")),
    Claim("tpooling_ms", "1.1, 2.1.1", "TPooling keeps patterns of 10 ms and more", "notebook 06, section 3", lambda p, m: (REPRODUCED if m.tpooling_samples / 16 >= p.tpooling_ms else DIFFERS, f"its longest window spans {m.tpooling_samples / 16:.1f} ms")),
    Claim("lfo", "4.1", "2.4-s windows model LFO periods of 0.1 to 10 Hz", "division", lambda p, m: (REPRODUCED if 1 / p.lfo_hz[0] <= p.window_seconds else INCONSISTENT, f"a period at {p.lfo_hz[0]:g} Hz lasts {1 / p.lfo_hz[0]:g} s, twice a clip; 2.4 s hold a period from {1 / p.window_seconds:.2f} Hz")),
    Claim("mean_frozen", "Table 2, Table 3", "macro-F1 of the baseline is the mean of its classes", "notebook 04, section 1", lambda p, m: _mean(p, 0, "frozen")),
    Claim("mean_finetuned", "Table 2, Table 3", "macro-F1 of the fine-tuned model is the mean of its classes", "notebook 04, section 1", lambda p, m: _mean(p, 1, "finetuned")),
    Claim("gains", "Table 2", "gains +0.3101 (51.47 %) micro, +0.3109 (57.24 %) macro", "subtraction", lambda p, m: _gains(p)),
    Claim("percentages", "Table 3", "twelve relative gains", "from the scores beside them", lambda p, m: _printed(p)),
    Claim("largest_gain", "abstract, Table 3", "modulation effects gain most", "Table 3", lambda p, m: _largest(p)),
    Claim("one_seventh", "Table 3", "F1 0.1429 for high boost", "smallest counts", lambda p, m: _seventh(p)),
    Claim("batch", "2.3.2", "effective batch 32 = 4 x 8", "product", lambda p, m: (near(p.batch[0] * p.batch[1], p.batch[2], 0), f"{p.batch[0]} x {p.batch[1]} = {p.batch[0] * p.batch[1]}")),
    Claim("hours", "2.3.3", "8 hours of fine-tuning on an A100", "rate that follows", lambda p, m: (OPEN, f"{p.epochs} epochs of {p.split[0]:,} clips in {p.hours[1]:g} h are {p.epochs * p.split[0] / p.hours[1] / 3600:.0f} clips a second")),
    Claim("convergence", "3.3", "the baseline converges within 10 epochs", "this run's frozen head", lambda p, m: (OPEN, f"other data: here the best epoch was {m.head_best_epoch}")),
    Claim("frozen", "Table 2", "macro-F1 0.543 with a frozen encoder", "notebook 04", lambda p, m: (OPEN, f"this run's corpus and codec: {m.frozen:.3f}")),
    Claim("finetuned", "Table 2", "macro-F1 0.854 after fine-tuning", "notebook 04", lambda p, m: (OPEN, f"this run's corpus and codec: {m.finetuned:.3f}")),
    Claim("direction", "abstract", "end-to-end fine-tuning beats the frozen encoder", "notebook 04, paired interval", lambda p, m: (REPRODUCED if m.gain[1] > 0 else DIFFERS, f"in this run {m.gain[0]:+.3f} macro-F1, 95 % interval {m.gain[1]:+.3f} to {m.gain[2]:+.3f}")),
]  # fmt: skip

REVIEW_CLAIMS = [
    Claim("review_parameters", "model info", "10.31 M parameters", "notebook 06, section 1", lambda r, m: (near(m.sizes.whole["3kbps"] / 1e6, r.parameters / 1e6, 0.005), f"{m.sizes.whole['3kbps']:,}")),
    Claim("review_codebook", "model info", "codebook of 250,047", "notebook 06, section 1", lambda r, m: (near(m.sizes.codebook["3kbps"], r.codebook, 0), f"{m.sizes.codebook['3kbps']:,}")),
    Claim("review_bitrate", "model info", "3 kbit/s", "notebook 06, section 1", lambda r, m: (near(m.sizes.tokens_per_s["3kbps"] * log2(m.sizes.codebook["3kbps"]) / 1000, r.kbps, 0.05), f"{m.sizes.bit_per_s['3kbps'] / 1000:.2f}")),
    Claim("review_frames", "model info", "59.2 frames a second", "notebook 06, section 1", lambda r, m: (near(m.sizes.tokens_per_s["3kbps"], r.frame_rate, 0.5), f"3kbps: {m.sizes.tokens_per_s['3kbps']:.2f}; {m.sizes.tokens_per_s['1kbps']:.2f} is 1kbps")),
    Claim("review_compress", "model info", "downsampling by 64", "notebook 06, section 1", lambda r, m: (near(m.sizes.hop["3kbps"], r.compress_rate, 0), f"3kbps: {m.sizes.hop['3kbps']}")),
    Claim("review_channels", "model info", "128 channels", "notebook 06, section 1", lambda r, m: (near(m.sizes.channels["3kbps"], r.channels, 0), f"{m.sizes.channels['3kbps']}")),
    Claim("review_token", "experiment 2", "token 103 depends on samples up to 10,746", "notebook 06, section 5", lambda r, m: (near(m.field_last["arithmetic"], r.last_sample, 0), f"up to {m.field_last['arithmetic']:,} by arithmetic and perturbation; {m.field_last['gradient above 1e-06 of its peak']:,} where the gradient exceeds 1e-6 of its peak")),
    Claim("review_decoder", "experiment 1", "the reconstruction looks 1,600 samples ahead", "notebook 06, section 6", lambda r, m: (DIFFERS if not m.decoder_bounded else OPEN, "unbounded: an instance norm over the whole clip; what a threshold shows depends on threshold and weights")),
]  # fmt: skip


def ledger(measured: Measured, paper: Paper = Paper(), review: Review = Review()) -> pd.DataFrame:
    """One row a claim: id, document, where it stands, the claim, what was measured, how, verdict."""
    rows = []
    for document, stated, claims in (("paper", paper, PAPER_CLAIMS), ("review of L3AC", review, REVIEW_CLAIMS)):
        for claim in claims:
            verdict, words = claim.check(stated, measured)
            rows.append({"id": claim.id, "document": document, "where": claim.source, "claim": claim.text, "measured": words, "how": claim.how, "verdict": verdict})
    return pd.DataFrame(rows)


# --- what it is measured with -----------------------------------------------------------------------------------------


def table(profile: str, name: str) -> pd.DataFrame:
    """A table that an earlier notebook of this run wrote."""
    path = paths.figures(profile) / f"{name}.csv"
    if not path.exists():
        raise PaperError(f"{path.name} is missing: run notebook 06_codec_anatomy first (or paper reproduce).")
    return pd.read_csv(path)


def plain_sox(samples: np.ndarray, rate: int, *effect: str) -> bytes:
    """What SoX itself makes of (samples,) int16 with its defaults, dither included."""
    form = ["-t", "raw", "-r", str(rate), "-e", "signed", "-b", "16", "-c", "1"]
    return subprocess.run(["sox", *form, "-", *form, "-", *effect], input=samples.tobytes(), capture_output=True, check=True).stdout


def frozen_score(profile: Profile, data: Dataset, statistics: np.ndarray, train: np.ndarray, held: np.ndarray, standardise: bool, seed: int) -> dict[str, float]:
    """Macro-F1 at 0.5 and mean average precision on the rows `held` of a head trained on the rows `train` of a frozen embedding."""
    x = np.asarray(pool(statistics, profile.pooling))
    _, history = training.train_head(x[train], data.labels[train], x[held], data.labels[held], replace(profile, seed=seed), standardise)
    best = history.loc[history.validation_macro_f1.idxmax()]
    return {"macro_f1": best.validation_macro_f1, "map": best.validation_map}
