"""Group, effect, parameters: networks that also say where an effect's knobs stand. Notebook 17.

A network has 19 + 29 outputs. Of each group they hold the logits of "none" and of its effects, of
which at most one is on (a softmax); of each knob of `sound.settings` its place in its range, 0 to
1, which counts only where its effect is on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from scipy.special import expit
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from ..codec import l3ac
from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from ..evaluation import intervals
from ..recognition import features, finetune, peers
from ..recognition.features import EncodedClips
from ..recognition.head import Head
from ..recognition.model import EffectRecognizer
from ..recognition.optimisers import Rates, optimisers, warm_cosine
from ..sound.dataset import Dataset
from ..sound.effects import EFFECTS, GROUPS, NAMES
from ..sound.settings import KNOBS
from . import methods, training

MEMBERS = {g: [i for i, e in enumerate(EFFECTS) if e.group == g] for g in GROUPS}
SPANS = list(pairwise(np.cumsum([0, *(1 + len(m) for m in MEMBERS.values())])))  # of logits
LOGITS = int(SPANS[-1][1])
OUTPUTS = LOGITS + len(KNOBS)
GUESSED = 0.25  # mean error of always saying the middle, of a knob that is drawn evenly
GOALS = ("labels", "parameters", "both")
POOLING = "mean_sd_mad"  # a rate is not in the mean over time
LONGEST = 1.25  # s, of the echoes that `rhythm` looks for (three times 400 ms, and a little)
BATCH = 16
SHARES = (0.4, 0.7)  # of a clip: between these lies what a step hears of it


@dataclass(frozen=True)
class Network:
    """What is trained: which of `features.KINDS` it hears, what of it, and how fast it learns."""

    name: str
    hears: str
    part: str  # head (on a description of the clip) | upper (half of the codec, and a head) | all
    rates: Rates
    epochs: float = 1.0  # times the profile's


FROZEN = Network("head on the frozen codec", "frozen", "head", Rates(0, 1e-3, weight_decay=0.1))
NETWORKS = (
    FROZEN,
    Network("head on log-mel", "logmel", "head", Rates(0, 1e-3, weight_decay=0.1)),
    Network("codec, upper half", "frozen", "upper", Rates(1e-3, 3e-4, True, 0.98), 0.3),
    Network("log-mel CNN", "logmel", "all", Rates(0, 2e-3, weight_decay=1e-2)),
)
BY_NAME = {network.name: network for network in NETWORKS}


# --- the data set ---------------------------------------------------------------------------------


def run_of(profile: Profile) -> Profile:
    """The run whose clips are the profile's, each with knob settings of its own."""
    if profile.codec not in ("shipped", "hub:3kbps"):
        raise PaperError(methods.UNSUITED)  # (at once, not when the networks are trained)
    changes: dict[str, Any] = {"profile": f"{profile.profile}-drawn", "settings": "drawn"}
    changes["chains_per_slice"] = profile.knob_chains or profile.chains_per_slice
    # (one epoch or more of each: so clips half-way up and spectrograms are kept)
    return replace(profile, upper_epochs=1, peer_epochs=1, **changes)


def places(data: Dataset) -> np.ndarray:
    """(clips, 29) float32: where each knob stands, 0 to 1; NaN where its effect is off."""
    index = data.index.reindex(columns=[knob.column for knob in KNOBS]).to_numpy(float)
    columns = [knob.place(x) for knob, x in zip(KNOBS, index.T, strict=True)]
    return np.stack(columns, 1).astype(np.float32)


# --- a description of a clip ----------------------------------------------------------------------


def rhythm(frames: torch.Tensor, lags: int) -> torch.Tensor:
    """(batch, frames, channels) -> (batch, lags): how like a clip is to itself 1 to `lags` later.

    The autocorrelation of each channel over time, 1 at lag 0, averaged over channels. An echo or a
    tremolo is a peak in it; statistics over time hold little of that.
    """
    away, n = frames - frames.mean(1, keepdim=True), frames.shape[1]
    turned = torch.fft.rfft(away, 2 * n, dim=1)
    found = torch.fft.irfft(turned.real**2 + turned.imag**2, 2 * n, dim=1)[:, : lags + 1]
    pairs = 1 - torch.arange(lags + 1, device=frames.device) / n  # (fewer, the longer the lag)
    found = found / (found[:, :1].clamp_min(1e-6) * pairs[:, None])
    return found.mean(2)[:, 1:]


def describe(frames: torch.Tensor, lags: int) -> torch.Tensor:
    """(batch, frames, channels) -> (batch, 3 channels + lags): time statistics, and `rhythm`."""
    pooled = features.pool(features.time_statistics(frames), POOLING)
    return torch.cat([pooled, rhythm(frames, lags)], 1)


def lags_of(profile: Profile, frames: int) -> int:
    """Frames in `LONGEST`, or in three tenths of a clip if that is less; frames: of a whole clip.

    (No step hears less than four tenths.)
    """
    return round(min(LONGEST / profile.slice_seconds, 0.3) * frames)


def described(profile: Profile, data: Dataset, kind: str) -> np.ndarray:
    """Stage data/<profile>/described_<kind>: (clips, 3 channels + lags) of a frozen front end."""
    clips = features.kept(profile, data, kind)
    folder = paths.embedding(profile.profile, kind)
    lags = lags_of(profile, clips.activations.shape[-1])
    embedding = stages.require(folder, "17_how_much_of_it", dataset=data.content)
    made = stages.Stage(
        "described",
        paths.data(profile.profile) / f"described_{kind}",
        {"lags": lags},
        {"embedding": embedding["content"]},
        threads=1,
    )
    with made.opened() as work:
        if work:
            parts = np.array_split(np.arange(len(data)), -(-len(data) // features.CHUNK))
            own = (folder / "lower.npy", kind, profile.codec, profile.seed, lags)
            items = {f"{i:06d}": (*own, part) for i, part in enumerate(parts)}
            files = parallel.shards(
                described_rows, items, work / "shards", f"describing {kind}", profile.scheduler
            )
            found = np.concatenate([np.load(file)["described"] for file in files])
            np.save(work / "described.npy", found)
            made.finish(stages.array_digest(found))
    return np.load(made.folder / "described.npy")


def described_rows(
    lower: Path, kind: str, codec: str, seed: int, lags: int, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """`described` of some clips, from what is kept of them half-way up."""
    machine.make_deterministic(1)
    module, kept = features.cached_front_end(kind, codec, seed), np.load(lower, mmap_mode="r")
    module = module.cpu()
    with torch.inference_mode():
        found = [
            describe(module(torch.from_numpy(kept[[row]].astype(np.float32))), lags) for row in rows
        ]
    return {"described": torch.cat(found).numpy()}


# --- what a network answers, and its loss ---------------------------------------------------------


def in_group(labels: torch.Tensor) -> torch.Tensor:
    """(batch, 13) 0/1 -> (batch, 6): 0 for none, k for the k-th effect of the group."""
    found = [
        (labels[:, m] * torch.arange(1, len(m) + 1, device=labels.device)).sum(1)
        for m in MEMBERS.values()
    ]
    return torch.stack(found, 1).long()


def loss(said: torch.Tensor, labels: torch.Tensor, stand: torch.Tensor, goal: str) -> torch.Tensor:
    """Cross-entropy of each group, and the error of each knob of the effects that are on.

    said: (batch, 48); labels: (batch, 13); stand: (batch, 29), the knobs' places, NaN where there
    is nothing to say.
    Both are summed over a clip and averaged over the batch. A knob's error counts in units of that
    of always saying the middle.
    """
    total = said.new_zeros(())
    if goal != "parameters":
        truth = in_group(labels)
        for k, (start, end) in enumerate(SPANS):
            total = total + F.cross_entropy(said[:, start:end], truth[:, k])
    if goal != "labels":
        there = ~stand.isnan()
        error = (torch.sigmoid(said[:, LOGITS:]) - stand)[there].abs()
        total = total + error.sum() / (GUESSED * len(said))
    return total


def read(said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 48) outputs -> (..., 13) 0/1, at most one of each group; (..., 29) places."""
    labels = np.zeros((*said.shape[:-1], len(NAMES)), int)
    for (start, end), members in zip(SPANS, MEMBERS.values(), strict=True):
        best = said[..., start:end].argmax(-1)
        for k, member in enumerate(members, 1):
            labels[..., member] = best == k
    return labels, expit(said[..., LOGITS:])


# --- training -------------------------------------------------------------------------------------


class Reader(nn.Module):
    """An encoder that is trained, the description of its frames, and the head of Eq. 3."""

    def __init__(self, encoder: nn.Module, head: Head, lags: int):
        super().__init__()
        self.encoder, self.head, self.lags = encoder, head, lags

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, frames) from half-way up -> (batch, 48)."""
        return self.head(describe(self.encoder(x), self.lags))


def heard(profile: Profile, data: Dataset, network: Network) -> EncodedClips:
    """What a network hears of every clip."""
    if network.part != "head":
        return features.kept(profile, data, network.hears)
    return EncodedClips(data.labels, described(profile, data, network.hears)[:, :, None])


def fresh(profile: Profile, data: Dataset, network: Network, goal: str, seed: int) -> nn.Module:
    """The network before its training.

    The codec begins as pretrained, with the head that was trained on it; all else with random
    weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(profile.seed + seed)
        if network.part == "all":
            model = peers.MelRecognizer()
            model.head[-1] = nn.Linear(model.head[-1].in_features, OUTPUTS)
            return model
        x = described(profile, data, network.hears)
        head = Head(x.shape[1], profile.hidden, profile.dropout)
        head.layers[3] = nn.Linear(profile.hidden, OUTPUTS)
    head.fit_scaling(torch.from_numpy(x[data.rows("train")]))
    whole = nn.Sequential(nn.Flatten(), head)
    if network.part == "head":
        return whole
    folder = stage(profile, data, FROZEN, goal, seed).folder
    whole.load_state_dict(load_file(folder / "weights.safetensors"))
    codec = l3ac.load(profile.codec)
    unused = Head(codec.mc.feature_dim)
    model = EffectRecognizer.assemble(codec, unused, "mean")
    methods.attach(model, next(m for m in methods.METHODS if m.name == "full, Muon"), seed)
    frames = features.kept(profile, data, "frozen").activations.shape[-1]
    return Reader(model.encoder, head, lags_of(profile, frames))


def train(
    profile: Profile, data: Dataset, network: Network, goal: str, seed: int
) -> tuple[nn.Module, EncodedClips, pd.DataFrame]:
    """Train one network; it, the clips as it hears them, and its history.

    A step hears 16 clips, of each an excerpt (a head: its description). The rate falls to nought,
    and the last epoch counts: nothing is chosen.
    """
    clips, knobs, rows = heard(profile, data, network), places(data), data.rows("train")
    model = fresh(profile, data, network, goal, seed)
    examples, per_epoch = loop.shuffled(rows, BATCH, profile.seed + seed, "knobs")
    whole = clips.activations.shape[-1]

    def step_loss(model: nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        key = (profile.seed + seed, "knobs", step)
        device = next(model.parameters()).device
        length = round(generator_for(*key).uniform(*SHARES) * whole)
        x = finetune.excerpts(clips, part, length, key, device)
        labels, stand = (torch.from_numpy(a[part]).to(device) for a in (data.labels, knobs))
        return loss(model(x), labels, stand, goal)

    steps = max(1, round(network.epochs * profile.knob_epochs)) * per_epoch
    encoder = model.encoder.parameters() if isinstance(model, Reader) else ()
    head = model.head if isinstance(model, Reader) else model
    steppers = optimisers([p for p in encoder if p.requires_grad], head, network.rates)
    plan = loop.Plan(steps=steps, per_epoch=per_epoch, seed=profile.seed + seed, clip=1.0)
    schedules = [warm_cosine(one, steps, profile.warmup) for one in steppers]
    history = loop.train(loop.Task(model, examples, step_loss, steppers, schedules), plan).history
    return model.cpu().eval(), clips, history


def stage(profile: Profile, data: Dataset, network: Network, goal: str, seed: int) -> stages.Stage:
    """data/<profile>-drawn/models/<network>_<goal>: what one training leaves."""
    names = ("knob_epochs", "hidden", "dropout", "warmup", "seed")
    own = {name: getattr(profile, name) for name in names}
    own |= {"network": asdict(network), "goal": goal, "training_seed": seed}
    before = {"embedding": paths.embedding(profile.profile, network.hears)}
    if network.part != "all":
        before["described"] = paths.data(profile.profile) / f"described_{network.hears}"
    if network.part == "upper":
        start = stage(profile, data, FROZEN, goal, seed)
        before["start"] = start.folder
    inputs = {
        name: stages.require(folder, "17_how_much_of_it")["content"]
        for name, folder in before.items()
    }
    folder = paths.model(profile.profile, training.slug(f"{network.name} {goal}"), seed)
    return stages.Stage("parameters", folder, own, inputs | {"dataset": data.content}, threads=1)


def fit(profile: Profile, folder: Path, network: Network, goal: str, seed: int) -> np.ndarray:
    """Train a network, if that has not been done; (clips, 48), what it says of other clips.

    Of the training clips it is not asked (NaN).
    """
    machine.make_deterministic(1)
    data = Dataset(folder)
    if network.part == "upper":  # (it goes on from there)
        fit(profile, folder, FROZEN, goal, seed)
    made = stage(profile, data, network, goal, seed)
    with made.opened() as work:
        if work:
            model, clips, history = train(profile, data, network, goal, seed)
            said = np.full((len(data), OUTPUTS), np.nan, np.float32)
            asked = np.concatenate([data.rows(split) for split in ("validation", "test")])
            said[asked] = peers.logits_of(model, clips, asked).numpy()
            weights = {name: value.contiguous() for name, value in model.state_dict().items()}
            save_file(weights, work / "weights.safetensors")
            np.save(work / "said.npy", said)
            history.to_csv(work / "history.csv", index=False)
            made.finish(stages.array_digest(said))
    return np.load(made.folder / "said.npy")


def fit_all(
    profile: Profile, data: Dataset, wanted: list[tuple[str, str]]
) -> dict[tuple[str, str], np.ndarray]:
    """(network, goal) -> (seeds, clips, 48) of its `adapter_seeds` trainings, a core each.

    Of training clips: NaN.
    """
    for kind in ("frozen", "logmel"):
        described(profile, data, kind)  # (once for all)
    seeds = range(profile.adapter_seeds)
    jobs = [(profile, data.folder, BY_NAME[n], goal, seed) for n, goal in wanted for seed in seeds]
    said = iter(parallel.each(fit, jobs, "networks"))
    return {one: np.stack([next(said) for _ in seeds]) for one in wanted}


def probed(statistics: np.ndarray, knobs: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(clips, 29) places that linear regressions find, one a knob: is it in there at all?

    statistics: (clips, inputs), of a network that is left as it is. Each is fitted to the training
    clips that have the effect; the penalty is chosen among those (leave one out).
    """
    out = np.full_like(knobs, 0.5)
    for k, column in enumerate(knobs.T):
        rows = train[~np.isnan(column[train])]
        if len(rows) > 1:
            ridge = make_pipeline(StandardScaler(), RidgeCV(np.geomspace(1, 1e4, 9)))
            out[:, k] = ridge.fit(statistics[rows], column[rows]).predict(statistics).clip(0, 1)
    return out


# --- the tables -----------------------------------------------------------------------------------


def error_table(
    profile: Profile, data: Dataset, found: dict[str, np.ndarray], split: str = "test"
) -> pd.DataFrame:
    """A row a knob and system: mean absolute error, in parts of the knob's range, on a split.

    found: system -> (seeds, clips, 29) places. lo, hi: 95 %, over recordings and training seeds.
    explained: the share of the variance (R squared; 0 for the mean, below 0: worse than that).
    """
    truth, test, rows = places(data), data.rows(split), []
    recordings = data.index.recording.to_numpy()
    for k, knob in enumerate(KNOBS):
        there = test[~np.isnan(truth[test, k])]
        if len(there) < 3:
            continue  # (no variance to explain)
        for system, said in found.items():
            error = np.abs(said[:, there, k] - truth[there, k])
            lo, hi = intervals.of_mean(error, recordings[there], profile.bootstrap, profile.seed)
            row: dict[str, Any] = {"effect": knob.effect, "knob": knob.name, "unit": knob.unit}
            row |= {"system": system, "clips": len(there)}
            row |= {"error": float(error.mean()), "lo": lo, "hi": hi}
            left = np.mean(error**2) / truth[there, k].var()
            rows.append(row | {"explained": 1 - left})
    return pd.DataFrame(rows)


def level_table(
    profile: Profile, data: Dataset, said: dict[tuple[str, str], np.ndarray]
) -> pd.DataFrame:
    """A row a network and goal, on test clips: F1 of groups and effects, the knobs' mean error.

    lo, hi: 95 % of the effects' macro-F1. error: the mean over knobs (empty where not trained).
    """
    test, truth, rows = data.rows("test"), places(data), []
    labels, recordings = data.labels[test], data.index.recording.to_numpy()[test]
    for (network, goal), outputs in said.items():
        row: dict[str, Any] = {"network": network, "goal": goal}
        effects, stand = read(outputs[:, test])
        if goal != "parameters":
            groups = intervals.mean_score(by_group(labels), by_group(effects))
            row["group_macro_f1"] = groups["macro_f1"]
            row["effect_macro_f1"] = intervals.mean_score(labels, effects)["macro_f1"]
            row["lo"], row["hi"] = intervals.intervals(
                labels, effects, recordings, profile.bootstrap, profile.seed
            )["macro_f1"]
        if goal != "labels":
            row["error"] = np.nanmean(np.nanmean(np.abs(stand - truth[test]), axis=(0, 1)))
        rows.append(row)
    return pd.DataFrame(rows)


def by_group(labels: np.ndarray) -> np.ndarray:
    """(..., 13) 0/1 -> (..., 6): is an effect of the group on?"""
    return np.stack([labels[..., m].max(-1) for m in MEMBERS.values()], -1)
