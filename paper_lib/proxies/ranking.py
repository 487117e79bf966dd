"""Does a distance between sounds follow what is turned? Section 4 of the synthesizers' paper.

Notebook 18. One parameter of a preset is turned up in even steps. A representation ranks well if
its distances to the first and to the last sound grow with the steps.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from ..codec import l3ac, pretrained
from ..codec.encoder import Encoder, bake
from ..core import machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from ..evaluation import intervals
from ..recognition import model
from ..sound import audio
from . import synth

SILENT = 1e-3  # RMS of a sound that is none
TRIES = 20  # presets that are drawn until all steps of one sound


@dataclass(frozen=True)
class Attribute:
    """What is heard, the parameter behind it, and what has to be so that it is heard."""

    name: str
    parameter: str
    least: float
    most: float
    also: dict[str, tuple[float, float]] = field(default_factory=dict)  # drawn between these
    two_sided: bool = False  # its middle is none: all steps of a preset lie on one side


RATE_OF = {"lfo_freq": (0.3, 0.6)}
ATTRIBUTES = (
    Attribute("amp attack", "amp_attack", 0.0, 0.6),
    Attribute("amp decay", "amp_decay", 0.2, 0.7, {"amp_sustain": (0.0, 0.0)}),
    Attribute("filter cutoff", "filter_cutoff", 0.2, 0.9),
    Attribute("filter decay", "filter_decay", 0.1, 0.7, {
        "filter_cutoff": (0.2, 0.3), "filter_env_amount": (0.75, 0.95), "filter_sustain": (0, 0)}),
    Attribute("filter resonance", "filter_resonance", 0.0, 0.95, {"filter_cutoff": (0.4, 0.7)}),
    Attribute("lfo amount on amp", "amp_mod_amount", 0.0, 1.0, RATE_OF),
    Attribute("lfo amount on filter", "filter_mod_amount", 0.0, 1.0, RATE_OF),
    Attribute("lfo amount on pitch", "freq_mod_amount", 0.0, 0.5, RATE_OF),
    Attribute("lfo rate on amp", "lfo_freq", 0.1, 0.7, {"amp_mod_amount": (0.7, 1.0)}),
    Attribute("lfo rate on filter", "lfo_freq", 0.1, 0.7, {"filter_mod_amount": (0.7, 1.0)}),
    Attribute("lfo rate on pitch", "lfo_freq", 0.1, 0.7, {"freq_mod_amount": (0.3, 0.6)}),
    # (the second oscillator alone, which has a pitch of its own)
    Attribute("pitch coarse", "osc2_pitch", 0.0, 1.0, {"osc_mix": (1.0, 1.0)}, two_sided=True),
    Attribute("reverb wet", "reverb_wet", 0.0, 1.0, {"reverb_roomsize": (0.4, 0.9)}),
)  # fmt: skip
# what every preset draws: two oscillators that are no noise, their mixture, and a filter half open
DRAWN = {
    "osc1_waveform": (0.0, 0.6), "osc2_waveform": (0.0, 0.6), "osc1_pulsewidth": (0.3, 1.0),
    "osc2_pulsewidth": (0.3, 1.0), "osc_mix": (0.2, 0.8), "osc2_detune": (0.4, 0.6),
    "filter_cutoff": (0.5, 0.8), "filter_resonance": (0.0, 0.4), "amp_attack": (0.0, 0.1),
    "amp_sustain": (0.7, 1.0), "amp_release": (0.1, 0.4),
}  # fmt: skip


@functools.cache
def published() -> pd.DataFrame:
    """The paper's Figure 2, a row a representation: `mean ...` and `sd ...` of each attribute.

    And of their mean, with the reduction over time and the size of what it is of.
    """
    return pd.read_csv(Path(__file__).with_name("figure_2.csv")).set_index("representation")


# --- sounds ---------------------------------------------------------------------------------------


def preset(attribute: Attribute, number: int, seed: int, attempt: int = 0) -> synth.Preset:
    """The preset `number` of an attribute, its own parameter left out."""
    rng = generator_for(seed, "ranking", attribute.name, number, attempt)
    ranges = DRAWN | attribute.also
    drawn = {name: float(rng.uniform(*ends)) for name, ends in ranges.items()}
    drawn.pop(attribute.parameter, None)
    return drawn


def turned(attribute: Attribute, number: int, steps: int) -> np.ndarray:
    """(steps,) values of the attribute's parameter, evenly from least to most.

    A two-sided one: from the middle to one end, upwards; every other preset takes the lower half.
    """
    least, most = attribute.least, attribute.most
    if attribute.two_sided:
        middle = (least + most) / 2
        least, most = (least, middle) if number % 2 else (middle, most)
    return np.linspace(least, most, steps)


def sounds(attribute: Attribute, number: int, steps: int, seed: int) -> np.ndarray:
    """(steps, samples) float32 at 44.1 kHz: one preset, its parameter turned up.

    Drawn again where one of them is silent; `PaperError` if that does not help.
    """
    values = turned(attribute, number, steps)
    for attempt in range(TRIES):
        base = preset(attribute, number, seed, attempt)
        with synth.player() as play:
            found = np.stack([play(base | {attribute.parameter: v}) for v in values])
        if np.sqrt(np.mean(found**2, 1)).min() > SILENT:
            return found
    raise PaperError(f"{attribute.name}, preset {number}: silent in each of {TRIES} draws.")


# --- representations ------------------------------------------------------------------------------


def representations(
    codec: str, seed: int, others: tuple[tuple[str, Path], ...] = ()
) -> dict[str, pretrained.Frames]:
    """Name -> function of sounds (steps, samples) at 44.1 kHz to (steps, frames, features).

    others: (name, path) of encoders of `pretrained`.
    """
    from torchaudio.transforms import MFCC, MelSpectrogram  # (slow to import)

    options = {"n_fft": 2048, "hop_length": 1024}
    mel = MelSpectrogram(synth.RATE, n_mels=128, **options)
    mfcc = MFCC(synth.RATE, 40, melkwargs=options | {"n_mels": 256})
    found = {
        "mel128": _over_time(lambda x: torch.log(mel(x) + 1e-6)),
        # (each sound by itself: torchaudio clips at 80 dB below the loudest that it is given)
        "mfcc40": _over_time(lambda x: mfcc(x[:, None])[:, 0]),
        "mSTFT": multi_resolution,
        "L3AC untrained": _of_codec(Encoder(l3ac.load(codec, untrained=True, seed=seed))),
        "L3AC": _of_codec(Encoder(l3ac.load(codec))),
    }
    found["L3AC + mel128"] = side_by_side(found["L3AC"], found["mel128"])
    released = model.released()
    if released:
        found["L3AC, released"] = _of_codec(released[0].encoder)
    for name, path in others:
        title = pretrained.title(name)
        if title in found:
            raise PaperError(f"ranking_models: there is a row {title} already; rename {name}.")
        found[title] = pretrained.frames_of(name, path, synth.RATE)
    return found


def multi_resolution(x: np.ndarray) -> np.ndarray:
    """Log spectra of seven window lengths, each averaged over time: (steps, 1, 4071)."""
    from torchaudio.transforms import Spectrogram

    parts = []
    for size in (4096, 2048, 1024, 512, 256, 128, 64):
        power = Spectrogram(size, hop_length=size // 2)(torch.from_numpy(x))
        parts.append(torch.log(power + 1e-6).mean(2))
    return torch.cat(parts, 1)[:, None].numpy()


def side_by_side(one: pretrained.Frames, other: pretrained.Frames) -> pretrained.Frames:
    """What two encoders say of a sound on average over time, as one vector, a single frame."""
    return lambda x: np.concatenate([one(x).mean(1), other(x).mean(1)], 1)[:, None]


def _over_time(front: Callable) -> pretrained.Frames:
    return lambda x: front(torch.from_numpy(x)).transpose(1, 2).numpy()


def _of_codec(module: Encoder) -> pretrained.Frames:
    encode = bake(module).eval()

    def frames(x: np.ndarray) -> np.ndarray:
        low = [audio.resample(one, synth.RATE, audio.CODEC_RATE)[None] for one in x]
        with torch.inference_mode():
            found = [encode(torch.from_numpy(one.astype(np.float32))) for one in low]
        return torch.cat(found).numpy()

    return frames


REDUCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nop": lambda frames: frames.reshape(len(frames), -1),
    "avg time": lambda frames: frames.mean(1),
}


# --- scores ---------------------------------------------------------------------------------------


def score(x: np.ndarray) -> float:
    """(steps, features), in the order in which a parameter was turned up -> -1 to 1.

    Spearman's correlation of the steps with the L1 distances to the first, and backwards with those
    to the last; the mean of both. The end itself has no say: it is always nearest to itself (so the
    paper's released code, of which its text does not tell).
    """
    steps, both = np.arange(1, len(x)), []
    for ordered in (x, x[::-1]):
        distance = np.abs(ordered[1:] - ordered[0]).sum(1)
        if np.ptp(distance):  # (all alike: no order)
            both.append(spearmanr(distance, steps).statistic)
    return float(np.mean(both)) if both else 0.0


def judge(
    which: int, number: int, steps: int, codec: str, seed: int, others: tuple = ()
) -> dict[str, np.ndarray]:
    """`scores`: (representations, reductions) of one preset of the attribute number `which`."""
    machine.make_deterministic(1)
    heard = sounds(ATTRIBUTES[which], number, steps, seed)
    found = []
    for represent in cached_representations(codec, seed, others).values():
        frames = represent(heard)
        found.append([score(reduce(frames)) for reduce in REDUCTIONS.values()])
    return {"scores": np.array(found)}


cached_representations = functools.lru_cache(1)(representations)  # (a worker gets many presets)


def scores(profile: Profile) -> pd.DataFrame:
    """Stage data/<profile>/ranking: a row a preset, representation and reduction."""
    plugin = synth.plugin()  # (says so at once, if it is not there)
    own = {"presets": profile.ranking_presets, "steps": profile.ranking_steps}
    released = paths.WEIGHTS / "released" / "release.json"
    inputs = {"weights": l3ac.weights_name(profile.codec)}
    inputs["released"] = stages.digest(released) if released.exists() else ""
    inputs["amsynth"] = stages.digest(plugin)
    named = sorted(set(pretrained.named(profile.ranking_models)))  # (whatever their order)
    fetched = {name: pretrained.fetch(name) for name in named}
    inputs |= {f"encoder {name}": version for name, (_, version) in fetched.items()}
    others = tuple((name, path) for name, (path, _) in fetched.items())
    folder = paths.data(profile.profile) / "ranking"
    made = stages.Stage("ranking", folder, own | {"seed": profile.seed}, inputs, threads=1)
    pairs = [(a, n) for a in range(len(ATTRIBUTES)) for n in range(profile.ranking_presets)]
    with made.opened() as work:
        if work:
            encoders = (profile.codec, profile.seed, others)
            items = {f"{a:02d}_{n:03d}": (a, n, profile.ranking_steps, *encoders) for a, n in pairs}
            # (in processes here, not on a cluster, whose workers may run it in threads)
            files = parallel.shards(judge, items, work / "shards", "presets")
            found = np.stack([np.load(file)["scores"] for file in files])
            np.save(work / "scores.npy", found)
            names = list(cached_representations(*encoders))
            paths.write_beside(work / "names.json", json.dumps(names))
            made.finish(stages.array_digest(found))
    found = np.load(folder / "scores.npy")
    names = json.loads((folder / "names.json").read_text())
    rows = [
        {"attribute": ATTRIBUTES[a].name, "preset": n, "representation": name, "reduction": how,
         "score": found[i, r, k]}
        for i, (a, n) in enumerate(pairs)
        for r, name in enumerate(names)
        for k, how in enumerate(REDUCTIONS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def best_reduction(each: pd.DataFrame) -> pd.DataFrame:
    """The rows of `scores` of each representation's better reduction, as the paper takes it."""
    mean = each.groupby(["representation", "reduction"]).score.mean()
    best = mean.groupby("representation").idxmax()
    pairs = pd.MultiIndex.from_frame(each[["representation", "reduction"]])
    return each[pairs.isin(list(best))]


# --- the tables -----------------------------------------------------------------------------------


def _means(each: pd.DataFrame, representation: str) -> pd.DataFrame:
    """(presets, attributes and their mean) scores of one representation."""
    part = each[each.representation == representation]
    wide = part.pivot(index="preset", columns="attribute", values="score")
    wide = wide[[a.name for a in ATTRIBUTES]]
    return wide.assign(mean=wide.mean(axis=1))


def _ends(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(2, columns): ends of the 95 % interval of the mean over presets, the rows.

    The presets of an attribute are its own: each column resamples for itself, and the last, the
    mean of all, is that of the resampled others.
    """
    rng = generator_for(seed, "bootstrap")
    drawn = rng.integers(len(values), size=(resamples, len(values), values.shape[1] - 1))
    means = np.take_along_axis(values[None, :, :-1], drawn, 1).mean(1)
    means = np.concatenate([means, means.mean(1, keepdims=True)], 1)
    return intervals.ends(means)


def table(each: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """A row a representation and attribute (and their mean): mean, sd, lo, hi, published.

    sd: over presets (the paper's is over twice as many: both ends of each); of the mean: over the
    attributes, as in the paper.
    """
    rows = []
    for name in dict.fromkeys(each.representation):
        wide = _means(each, name)
        lo, hi = _ends(wide.to_numpy(), resamples, seed)
        sd = wide.std()
        sd["mean"] = wide.drop(columns="mean").mean().std()
        stated = published().reindex([name])[[f"mean {a}" for a in wide.columns]]
        rows.append(pd.DataFrame({
            "representation": name,
            "attribute": wide.columns,
            "reduction": each[each.representation == name].reduction.iloc[0],
            "mean": wide.mean().to_numpy(),
            "sd": sd.to_numpy(),
            "lo": lo,
            "hi": hi,
            "published": stated.to_numpy()[0],
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def beside_the_paper(table: pd.DataFrame) -> pd.DataFrame:
    """`table` wide, the best first, and below it the paper's Figure 2.

    Columns: representation, theirs (is the row the paper's?), `mean ...` and `sd ...` of each
    attribute and of their mean.
    """
    names = ["mean", *(a.name for a in ATTRIBUTES)]
    columns = [f"{what} {name}" for what in ("mean", "sd") for name in names]
    ours = table.pivot(index="representation", columns="attribute", values=["mean", "sd"])
    ours.columns = [f"{what} {attribute}" for what, attribute in ours.columns]
    ours = ours.sort_values("mean mean", ascending=False)
    both = {False: ours[columns], True: published()[columns]}
    rows = [rows.reset_index().assign(theirs=theirs) for theirs, rows in both.items()]
    return pd.concat(rows, ignore_index=True)[["representation", "theirs", *columns]]


def apart(
    each: pd.DataFrame,
    pairs: list[tuple[str, str]],
    resamples: int,
    seed: int,
    attribute: str = "mean",
) -> pd.DataFrame:
    """`difference` at one attribute, or of their mean, of pairs: one, other, more, lo, hi."""
    rows = []
    for one, other in pairs:
        gap = difference(each, one, other, resamples, seed).set_index("attribute").loc[attribute]
        row = {"one": one, "other": other, "more": gap.difference, "lo": gap.lo, "hi": gap.hi}
        rows.append(row)
    return pd.DataFrame(rows)


def averages_over_frames(each: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """By how much the average over time ranks better than all frames side by side, paired.

    A row a representation that has frames: one (`... nop`), other (`... avg time`), more, lo, hi.
    """
    means = each.groupby(["representation", "reduction"]).score.mean().unstack()
    framed = means.index[means["avg time"] != means["nop"]]  # (else a single frame)
    named = each.assign(representation=each.representation + " " + each.reduction)
    pairs = [(f"{name} nop", f"{name} avg time") for name in framed]
    return apart(named, pairs, resamples, seed)


def difference(each: pd.DataFrame, one: str, other: str, resamples: int, seed: int) -> pd.DataFrame:
    """A row an attribute (and their mean): score of `other` minus `one`'s, preset by preset."""
    gap = _means(each, other) - _means(each, one)
    lo, hi = _ends(gap.to_numpy(), resamples, seed)
    return pd.DataFrame(
        {"attribute": gap.columns, "difference": gap.mean().to_numpy(), "lo": lo, "hi": hi}
    )
