"""A chain of effects is a preset: a network that stands in for SoX. Notebook 21.

It says what a clip would be heard as behind a chain. Which chain a wet clip went through can then
be found by search, as sound matching finds a preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import cdist
from torch import nn

from ..core import config, loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from ..evaluation import intervals
from ..recognition import features, head
from ..recognition.optimisers import warm_cosine
from ..sound import audio, corpus, effects, rendering
from ..sound.dataset import Dataset
from ..sound.effects import Chain

PLACES = 3  # effects of a chain, at most
EPOCHS = 60  # of a proxy
SHARES = {"train": 4, "test": 1}  # parts of the recordings that are heard in both orders


# --- what a chain, and a clip, is to a network ----------------------------------------------------


def as_places(chains: list[Chain]) -> np.ndarray:
    """(n, 39) float32: which effect stands in each of three places, as one of 13."""
    if max(map(len, chains), default=0) > PLACES:
        raise PaperError(
            f"a chain here has {PLACES} effects at most: set chain_plan to paper50, and run "
            "notebook 01 again."
        )
    out = np.zeros((len(chains), PLACES, len(effects.NAMES)), np.float32)
    for row, chain in enumerate(chains):
        for place, name in enumerate(chain):
            out[row, place, effects.NAMES.index(name)] = 1
    return out.reshape(len(chains), -1)


def labels_of(chains: list[Chain]) -> np.ndarray:
    """(n, 13) 0/1."""
    return as_places(chains).reshape(len(chains), PLACES, -1).sum(1).astype(int)


def every_chain() -> list[Chain]:
    """All chains of at most three effects, at most one of each group, in the groups' order."""
    by_group = [[e.name for e in effects.EFFECTS if e.group == g] for g in effects.GROUPS]
    return [
        chain
        for many in range(PLACES + 1)
        for groups in combinations(by_group, many)
        for chain in product(*groups)
    ]


@dataclass(frozen=True)
class Pairs:
    """Clips without effects and behind a chain: time statistics of their log-mel spectrograms."""

    dry: np.ndarray  # (n, 192)
    wet: np.ndarray  # (n, 192)
    chains: list[Chain]
    recordings: np.ndarray  # (n,)

    def __len__(self) -> int:
        return len(self.chains)


def dry_clips(recording: corpus.Recording, profile: Profile) -> list[np.ndarray]:
    """Every slice of a recording, int16 at `render_rate`, before any effect."""
    return list(corpus.slices(corpus.load(recording, profile), profile))


def embedded(clips: list[np.ndarray]) -> np.ndarray:
    """(n, 192): time statistics of log-mel, of clips at 16 kHz, int16."""
    module = features.cached_front_end("logmel", "shipped", 0)
    sounds = np.stack(clips).astype(np.float32) / 32768.0
    found = torch.cat([statistics for statistics, _ in features.embed(module, sounds)])
    return found.numpy().reshape(len(clips), -1)


def beside(recording: corpus.Recording, profile: Profile, both: bool) -> dict[str, np.ndarray]:
    """What notebook 01 did not keep: `dry` (slices, 192), and of the first slice `ordered` (pairs,
    192), behind every two effects in either order, if asked for.
    """
    machine.make_deterministic(1)
    cut, rate = dry_clips(recording, profile), profile.render_rate
    low = [rendering.render(clean, rate, effects.DRY, audio.CODEC_RATE) for clean in cut]
    found = {"dry": embedded(low), "ordered": np.zeros((0, 0), np.float32)}
    if both:
        wet = []
        for first, second in both_orders():
            # (one after the other: a chain refuses any order but the groups')
            between = rendering.render(cut[0], rate, (first,), lead=rendering.SETTLED)
            wet.append(
                rendering.render(between, rate, (second,), audio.CODEC_RATE, rendering.SETTLED)
            )
        found["ordered"] = embedded(wet)
    return found


def stage(profile: Profile, data: Dataset) -> stages.Stage:
    """data/<profile>/bridge."""
    folder = paths.data(profile.profile) / "bridge"
    own = {"ordered": profile.order_recordings, "seed": profile.seed}
    return stages.Stage("bridge", folder, own, {"dataset": data.content}, threads=1)


def make(profile: Profile, data: Dataset) -> dict[str, np.ndarray]:
    """`dry/<recording>` (slices, 192) of all recordings; `ordered/<recording>` of some; kept."""
    made = stage(profile, data)
    with made.opened() as work:
        if work:
            chosen = {name for split in SHARES for name in with_orders(profile, data, split)}
            recordings = corpus.recordings(profile)
            items = {f"{i:06d}": (r, profile, r.name in chosen) for i, r in enumerate(recordings)}
            files = parallel.shards(beside, items, work / "shards", "dry clips", profile.scheduler)
            found = {}
            for recording, file in zip(recordings, files, strict=True):
                with np.load(file) as shard:
                    found[f"dry/{recording.name}"] = shard["dry"]
                    if recording.name in chosen:
                        found[f"ordered/{recording.name}"] = shard["ordered"]
            np.savez(work / "heard.npz", allow_pickle=False, **found)
            made.finish(stages.array_digest(*found.values()))
    with np.load(made.folder / "heard.npz") as file:
        return dict(file)


def pairs(profile: Profile, data: Dataset, split: str) -> Pairs:
    """All clips of a split, each with the dry clip of its slice."""
    wet = np.array(features.embed_dataset(profile, data, "logmel")).reshape(len(data), -1)
    dry, rows = make(profile, data), data.rows(split)
    index = data.index.iloc[rows]
    of = [dry[f"dry/{r}"][s] for r, s in zip(index.recording, index["slice"], strict=True)]
    chains = [_chain(label) for label in index.chain]
    return Pairs(np.stack(of), wet[rows], chains, index.recording.to_numpy())


def _chain(label: str) -> Chain:
    return effects.DRY if label == effects.label(effects.DRY) else tuple(label.split("+"))


# --- the proxy ------------------------------------------------------------------------------------


class Proxy(nn.Module):
    """(dry (n, d), chain (n, 39)) -> wet (n, d): the dry embedding, and what the chain adds."""

    def __init__(self, size: int, width: int = 256):
        super().__init__()
        inputs = size + PLACES * len(effects.NAMES)
        self.added = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, size),
        )  # fmt: skip
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, dry: torch.Tensor, chain: torch.Tensor) -> torch.Tensor:
        x = (dry - self.mean) / self.scale
        return self.mean + self.scale * (x + self.added(torch.cat([x, chain], 1)))


def fit(heard: Pairs, seed: int, epochs: int = EPOCHS) -> Proxy:
    """A proxy trained by Eq. 3 (L1 in deviations), on one thread; the last epoch counts."""
    with machine.one_thread():
        torch.manual_seed(seed)
        model = Proxy(heard.wet.shape[1])
        dry, wet, chain = (
            torch.from_numpy(np.ascontiguousarray(a))
            for a in (heard.dry, heard.wet, as_places(heard.chains))
        )
        model.mean.copy_(wet.mean(0))
        model.scale.copy_(wet.std(0).clamp_min(1e-6))
        examples, per_epoch = loop.shuffled(np.arange(len(heard)), 64, seed, "bridge")

        def loss(model: Proxy, rows: np.ndarray, step: int) -> torch.Tensor:
            device = model.scale.device
            would = model(dry[rows].to(device), chain[rows].to(device))
            return ((would - wet[rows].to(device)) / model.scale).abs().mean()

        optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
        steps = epochs * per_epoch
        task = loop.Task(model, examples, loss, [optimiser], [warm_cosine(optimiser, steps, 0.1)])
        loop.train(task, loop.Plan(steps=steps, per_epoch=per_epoch, seed=seed, clip=1.0))
    return model.cpu().eval()


@torch.inference_mode()
def said(model: Proxy, dry: np.ndarray, chains: list[Chain]) -> np.ndarray:
    """(dry clips, chains, d): what each dry clip would be heard as behind each chain."""
    places = torch.from_numpy(as_places(chains))
    each = [
        model(torch.from_numpy(one)[None].expand(len(places), -1), places) for one in np.array(dry)
    ]
    return torch.stack(each).numpy()


# --- search ---------------------------------------------------------------------------------------


def with_the_dry_clip(model: Proxy, tested: Pairs, candidates: list[Chain]) -> list[Chain]:
    """Of each wet clip the chain behind which its own dry clip would be heard most alike (L1)."""
    scale, found = model.scale.numpy(), []
    dry, which = np.unique(tested.dry, axis=0, return_inverse=True)
    would = said(model, dry, candidates) / scale
    for row, clip in enumerate(which.ravel()):
        distance = np.abs(would[clip] - tested.wet[row] / scale).sum(1)
        found.append(candidates[int(distance.argmin())])
    return found


def without_it(
    model: Proxy, tested: Pairs, guitars: np.ndarray, candidates: list[Chain]
) -> list[Chain]:
    """The same, with the dry clips of other recordings, (m, d), tried in place of its own."""
    would = said(model, guitars, candidates).reshape(-1, tested.wet.shape[1])
    scale, nearest = model.scale.numpy(), []
    for some in np.array_split(tested.wet / scale, -(-len(tested) // 64)):  # (a matrix that fits)
        nearest += list(cdist(some, would / scale, "cityblock").argmin(1))
    return [candidates[i % len(candidates)] for i in nearest]


# --- beside the direct answer ---------------------------------------------------------------------

METHODS = {
    "head": "head on log-mel",
    "head_dry": "head with the dry clip",
    "head_chain": "head with the dry clip, its likeliest chain",
    "search_dry": "search, with the dry clip",
    "search_plan": "search among the plan's chains, with the dry clip",
    "search": "search, without the dry clip",
}


def likeliest(probability: np.ndarray, candidates: list[Chain]) -> list[Chain]:
    """The chain to which a head's probabilities (clips, 13), taken as independent, give most."""
    p, y = np.clip(probability, 1e-6, 1 - 1e-6), labels_of(candidates)
    by_chain = np.log(p) @ y.T + np.log(1 - p) @ (1 - y).T  # (clips, chains)
    return [candidates[i] for i in by_chain.argmax(1)]


def answers_of(profile: Profile, folder: Path, seed: int) -> Path:
    """Stage data/<profile>/bridge_<seed>: 0/1 answers (test clips, 13) of every method."""
    data = Dataset(folder)
    inputs = {
        "dataset": data.content,
        "dry": stages.ready(stage(profile, data), "21_a_chain_is_a_preset")["content"],
        "wet": stages.ready(features.stage(profile, data, "logmel"), "02_frozen_embeddings")[
            "content"
        ],
    }
    own = config.section(profile, config.HeadTraining) | {"epochs": EPOCHS, "seed": seed}
    del own["head_seeds"]
    place = paths.data(profile.profile) / f"bridge_{seed}"
    made = stages.Stage("bridge_answers", place, own, inputs, threads=1)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            found = _answers(profile, data, seed)
            np.savez(work / "answers.npz", allow_pickle=False, **found)
            made.finish(stages.array_digest(*found.values()))
    return made.folder


def _answers(profile: Profile, data: Dataset, seed: int) -> dict[str, np.ndarray]:
    parts = {split: pairs(profile, data, split) for split in ("train", "validation", "test")}
    found = {}
    for name, also in (("head", False), ("head_dry", True)):
        x = {k: np.concatenate([p.wet, p.dry], 1) if also else p.wet for k, p in parts.items()}
        y = {k: labels_of(p.chains).astype(np.float32) for k, p in parts.items()}
        model, _ = head.train_head(
            (x["train"], y["train"]), (x["validation"], y["validation"]), profile, True, seed
        )
        probability = head.probabilities(model, x["test"])
        found[name] = (probability > 0.5).astype(int)
        if also:
            found["head_chain"] = labels_of(likeliest(probability, every_chain()))
    proxy, tested = fit(parts["train"], seed), parts["test"]
    guitars = np.unique(parts["train"].dry, axis=0)
    plan = sorted(set(parts["train"].chains))
    found["search_dry"] = labels_of(with_the_dry_clip(proxy, tested, every_chain()))
    found["search_plan"] = labels_of(with_the_dry_clip(proxy, tested, plan))
    found["search"] = labels_of(without_it(proxy, tested, guitars, every_chain()))
    return found


def answers(profile: Profile, data: Dataset) -> dict[str, np.ndarray]:
    """Method -> (seeds, test clips, 13) 0/1, trained with `proxy_seeds` seeds, a core each."""
    make(profile, data)
    features.embed_dataset(profile, data, "logmel")
    jobs = [(profile, data.folder, profile.seed + n) for n in range(profile.proxy_seeds)]
    each = []
    for folder in parallel.each(answers_of, jobs, "bridge"):
        stages.require(folder, "21_a_chain_is_a_preset")
        with np.load(folder / "answers.npz") as file:
            each.append(dict(file))
    return {title: np.stack([one[name] for one in each]) for name, title in METHODS.items()}


def scored(profile: Profile, data: Dataset, said: dict[str, np.ndarray]) -> intervals.Paired:
    """Macro-F1 of each method on the test recordings; resampled with its training seeds."""
    test = data.rows("test")
    truth, recordings = data.labels[test], data.index.recording.to_numpy()[test]
    return intervals.macro_f1(truth, said, recordings, profile.bootstrap, profile.seed)


def table(profile: Profile, data: Dataset, said: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row a method: macro-F1 with its interval, and the share of clips with all labels right."""
    truth, rows, macro_f1 = data.labels[data.rows("test")], [], scored(profile, data, said)
    for name, each in said.items():
        row = dict(zip(("macro_f1", "lo", "hi"), macro_f1.of((1, name)), strict=True))
        exact = float((each == truth[None]).all(2).mean())
        rows.append({"method": name} | row | {"all right": exact})
    return pd.DataFrame(rows)


# --- order ----------------------------------------------------------------------------------------

# linear, and the same at all times: the order of two such effects cannot be heard
COMMUTING = ("reverb", "feedback_delay", "slapback_delay", "low_boost", "low_reduct",
             "high_boost", "high_reduct")  # fmt: skip


def both_orders() -> list[Chain]:
    """Every two effects of different groups, in either order."""
    two = [c for c in every_chain() if len(c) == 2]
    return [pair for chain in two for pair in (chain, chain[::-1])]


def with_orders(profile: Profile, data: Dataset, split: str) -> list[str]:
    """Names of the recordings of a split whose effects are applied in both orders."""
    names = sorted(set(data.index.recording.iloc[data.rows(split)]))
    drawn = generator_for(profile.seed, "orders", split).permutation(len(names))
    return sorted(names[i] for i in drawn[: SHARES[split] * profile.order_recordings])


def ordered(profile: Profile, data: Dataset, split: str) -> Pairs:
    """Their first slices behind every two effects, in either order."""
    heard, names = make(profile, data), with_orders(profile, data, split)
    many = len(both_orders())
    dry = np.concatenate([np.repeat(heard[f"dry/{n}"][:1], many, 0) for n in names])
    wet = np.concatenate([heard[f"ordered/{n}"] for n in names])
    return Pairs(dry, wet, both_orders() * len(names), np.repeat(names, many))


def right_order(model: Proxy, tested: Pairs) -> pd.DataFrame:
    """A row a clip: its pair, whether the proxy finds its order, and how far both orders lie apart.

    right: 1 or 0; apart: L1 between the two orders' sounds, in deviations.
    """
    scale, rows = model.scale.numpy(), []
    wet = dict(zip(zip(tested.recordings, tested.chains, strict=True), tested.wet, strict=True))
    for dry, own, chain, name in zip(
        tested.dry, tested.wet, tested.chains, tested.recordings, strict=True
    ):
        both = said(model, dry[None], [chain, chain[::-1]])[0]
        distance = np.abs((both - own) / scale).mean(1)
        rows.append({
            "pair": " + ".join(sorted(chain, key=effects.NAMES.index)),
            "commutes": set(chain) <= set(COMMUTING),
            "recording": name,
            "right": int(distance[0] < distance[1]),
            "apart": float(np.abs((own - wet[name, chain[::-1]]) / scale).mean()),
        })  # fmt: skip
    return pd.DataFrame(rows)
