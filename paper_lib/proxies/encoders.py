"""Preset encoders: networks that say from a preset what its sound would be heard as. Notebook 19.

Sections 2, 3.2 and 5 of the synthesizers' paper. Five of them, over two ways to read a preset.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import nn
from torch.nn import functional as F

from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import generator_for
from ..evaluation import intervals, proxy_paper
from ..recognition.optimisers import warm_cosine
from . import presets
from .presets import Presets, Space

# --- how a preset is read -------------------------------------------------------------------------


class OneHot(nn.Module):
    """Numbers as they are, choices as one of many: (n, parameters) -> (n, numbers + choices)."""

    def __init__(self, space: Space):
        super().__init__()
        self.space, self.width = space, space.one_hot

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.space.numbers
        chosen = x[:, n:].long()
        each = [F.one_hot(chosen[:, i], many) for i, many in enumerate(self.space.choices)]
        return torch.cat([x[:, :n], *each], 1)


class Tokenizer(nn.Module):
    """A vector a parameter (Eqs. 4 and 5): (n, parameters) -> (n, parameters, width).

    A number's is its own vector times the number; a choice has one for each of its values. A preset
    may also come with a probability for each value, (n, numbers + values): the mean of the vectors.
    spread: their deviation as they begin.
    """

    def __init__(self, space: Space, width: int, spread: float = 0.02):
        super().__init__()
        self.space = space
        self.of_numbers = nn.Parameter(torch.empty(space.numbers, width))
        self.of_choices = nn.Embedding(sum(space.choices), width)
        starts = np.cumsum((0, *space.choices))[:-1]
        self.register_buffer("starts", torch.from_numpy(starts), persistent=False)
        for weight in (self.of_numbers, self.of_choices.weight):
            nn.init.normal_(weight, std=spread)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.space.numbers
        if x.shape[1] > len(self.space):  # (as one-hot, or with a probability for each value)
            parts = x[:, n:].split(list(self.space.choices), 1)
            tables = self.of_choices.weight.split(list(self.space.choices))
            chosen = torch.stack([p @ rows for p, rows in zip(parts, tables, strict=True)], 1)
        else:
            chosen = self.of_choices(x[:, n:].long() + self.starts)
        return torch.cat([x[:, :n, None] * self.of_numbers, chosen], 1)


def positions(length: int, width: int) -> torch.Tensor:
    """(length, width) sines and cosines, of wavelengths from 2 pi to 20,000 pi (Vaswani, 2017)."""
    place = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([place.sin(), place.cos()], 2).flatten(1)


# --- the networks ---------------------------------------------------------------------------------


class Highway(nn.Module):
    """y = g h + (1 - g) x, with h = ReLU(norm(W x)) and a gate g (Srivastava et al., 2015)."""

    def __init__(self, width: int):
        super().__init__()
        self.change, self.norm = nn.Linear(width, width, bias=False), nn.BatchNorm1d(width)
        self.gate = nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -1.0)  # (begins by passing most of x on)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * torch.relu(self.norm(self.change(x))) + (1 - gate) * x


def layer(of: int, width: int) -> nn.Sequential:
    """Linear, batch norm, ReLU."""
    return nn.Sequential(nn.Linear(of, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())


class Recurrent(nn.Module):
    """Tokens with their positions through a GRU both ways: its last states, (n, width)."""

    def __init__(self, space: Space, width: int, spread: float):
        super().__init__()
        self.tokens = Tokenizer(space, width, spread)
        self.register_buffer("positions", positions(len(space), width), persistent=False)
        self.gru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, last = self.gru(self.tokens(x) + self.positions)
        return last.transpose(0, 1).flatten(1)


class Transformer(nn.Module):
    """Tokens behind one of the network's own, whose place holds the answer: (n, width)."""

    def __init__(self, space: Space, size: Size):
        super().__init__()
        width = size.width
        self.tokens = Tokenizer(space, width, size.spread)
        self.own = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", positions(len(space) + 1, width), persistent=False)
        one = nn.TransformerEncoderLayer(
            width, size.heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(one, size.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([self.own.expand(len(x), -1, -1), self.tokens(x)], 1)
        return torch.relu(self.norm(self.layers(tokens + self.positions)[:, 0]))


@dataclass(frozen=True)
class Size:
    """Table 2's columns, a rate and a batch (as its released code has them)."""

    width: int
    layers: int
    token: int = 0
    rate: float = 1e-3
    batch: int = 512
    heads: int = 8  # of a transformer
    spread: float = 0.02  # of the tokens, as they begin


SIZES = {
    "paper": {
        "MLP-OH": Size(2048, 2, rate=1e-3),
        "HN-OH": Size(768, 6, rate=4e-3),
        "HN-PT": Size(512, 6, 64),
        "HN-PTGRU": Size(768, 6, 384),
        "TFM": Size(256, 6, 256, batch=256),
    },
    # as studies like appendix A4's found them, on 3,000 presets: 140,000 to 165,000 weights each, 2
    # to 4 % of the paper's
    "small": {
        "MLP-OH": Size(320, 2, rate=1.5e-2, batch=32),
        "HN-OH": Size(112, 6, rate=2.9e-2, batch=128),
        "HN-PT": Size(128, 3, 16, rate=1.1e-2, batch=64, spread=0.036),
        "HN-PTGRU": Size(216, 2, 64, rate=3.4e-3, batch=16, spread=0.24),
        "TFM": Size(72, 2, 72, rate=1.4e-3, batch=32, spread=0.8),
    },
}
NAMES = tuple(SIZES["paper"])


def build(name: str, size: Size, space: Space, out: int) -> nn.Sequential:
    """A preset encoder by its name in Table 2: (n, parameters) -> (n, out)."""
    width = size.width
    if name == "TFM":
        return nn.Sequential(Transformer(space, size), nn.Linear(width, out))
    if name == "HN-PTGRU":
        first, of = Recurrent(space, size.token, size.spread), size.token
    elif name == "HN-PT":
        first = nn.Sequential(Tokenizer(space, size.token, size.spread), nn.Flatten())
        of = size.token * len(space)
    else:
        first = OneHot(space)
        of = first.width
    after = [
        layer(width, width) if name == "MLP-OH" else Highway(width) for _ in range(size.layers - 1)
    ]
    return nn.Sequential(first, layer(of, width), *after, nn.Linear(width, out))


# --- scores ---------------------------------------------------------------------------------------


def l1(said: torch.Tensor, sounds: torch.Tensor) -> torch.Tensor:
    """(n,) mean absolute error of each preset's embedding (Eq. 3)."""
    return (said - sounds).abs().mean(1)


def reciprocal_ranks(said: torch.Tensor, sounds: torch.Tensor) -> dict[str, torch.Tensor]:
    """1 / rank of the right one, (n,), both ways (Appendix A.2); row i of both is of preset i."""
    return ranks_of(torch.cdist(said, sounds, p=1.0))


def ranks_of(distance: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same of L1 distances (presets, sounds), the right ones on the diagonal; 1: the nearest.

    `preset by sound`: a sound is given, and the presets are ranked (the paper's text, Eq. 6);
    `sound by preset`: the other way round (its released code).
    """
    right = distance.diagonal()
    return {
        "preset by sound": 1 / (distance <= right[None, :]).sum(0),
        "sound by preset": 1 / (distance <= right[:, None]).sum(1),
    }


def chance(many: int) -> float:
    """Mean reciprocal rank of a guess among so many: the mean of 1, 1/2, 1/3, ..."""
    return float(np.mean(1 / np.arange(1, many + 1)))


def runs(
    said: np.ndarray, sounds: np.ndarray, pool: int, times: int, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores in random pools of presets (Section 5.1.2).

    Returns:
        (n,) mean reciprocal rank of each preset over the pools that it is in (preset by sound; nan:
        it is in none); and L1 and both reciprocal ranks of each pool, (times,).
    """
    distance = torch.cdist(torch.from_numpy(said), torch.from_numpy(sounds), p=1.0)
    total, count = torch.zeros(len(said)), torch.zeros(len(said))
    found: dict[str, list] = {}
    for number in range(times):
        rows = torch.from_numpy(generator_for(seed, "pool", number).permutation(len(said))[:pool])
        near = distance[rows][:, rows]
        scores = ranks_of(near)
        total[rows] += scores["preset by sound"]
        count[rows] += 1
        for name, values in (scores | {"l1": near.diagonal() / said.shape[1]}).items():
            found.setdefault(name, []).append(float(values.mean()))
    each = (total / count).numpy()
    return each, {name: np.array(values) for name, values in found.items()}


# --- training -------------------------------------------------------------------------------------


def split(many: int) -> dict[str, np.ndarray]:
    """Rows of the drawn presets: the last tenth for the test, the one before for validation."""
    tenth = many // 10
    return {
        "train": np.arange(many - 2 * tenth),
        "validation": np.arange(many - 2 * tenth, many - tenth),
        "test": np.arange(many - tenth, many),
    }


@dataclass(frozen=True)
class Training:
    """One training of one encoder."""

    name: str
    seed: int
    share: float = 1.0  # of the training presets that it hears


def stage(profile: Profile, training: Training) -> stages.Stage:
    """data/<profile>/proxies/<name>_<share>_<seed>."""
    content = stages.ready(presets.stage(profile), "19_preset_encoders")["content"]
    label = f"{training.name}_{training.share:g}_{training.seed}"
    own = asdict(training) | asdict(SIZES[profile.proxy_size][training.name])
    own |= {"epochs": profile.proxy_epochs, "profile_seed": profile.seed}
    folder = paths.data(profile.profile) / "proxies" / label
    return stages.Stage("proxy", folder, own, {"presets": content}, threads=1)


def fit(profile: Profile, training: Training) -> Path:
    """Train one encoder, if that has not been done; its folder."""
    made = stage(profile, training)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            data = presets.make(profile)
            torch.manual_seed(profile.seed + training.seed)
            scale = scaling(data["drawn"])
            model = new(profile, training.name)
            result = train(model, data["drawn"], scale, profile, training, work)
            model.load_state_dict(result.weights)
            answers = {name: say(model, one.presets) for name, one in data.items()}
            np.savez(work / "said.npz", **{k.replace(" ", "_"): v for k, v in answers.items()})
            torch.save(result.weights, work / "weights.pt")
            result.history.to_csv(work / "history.csv", index=False)
            made.finish(stages.array_digest(*answers.values()), epoch=result.epoch)
    return made.folder


def new(profile: Profile, name: str) -> nn.Sequential:
    """An encoder of the profile's size, as it begins."""
    return build(name, SIZES[profile.proxy_size][name], presets.SPACE, 128)


def scaling(data: Presets) -> tuple[np.ndarray, np.ndarray]:
    """(2, 128): mean and deviation of the training presets' sounds, in which errors are told."""
    sounds = data.sounds[split(len(data))["train"]]
    return sounds.mean(0), sounds.std(0)


def train(
    model: nn.Module,
    data: Presets,
    scale: tuple[np.ndarray, np.ndarray],
    profile: Profile,
    training: Training,
    folder: Path | None = None,
    size: Size | None = None,
) -> loop.Result:
    """Train `model` in place by Eq. 3; the epoch with the best validation MRR is kept.

    Unlike Section 5.1.3: the rate rises for a tenth of the steps and falls once, to nought; the MRR
    is among 256; and no test set has a say in which epoch is kept. With a `folder` a killed
    training goes on. size: of the model, if not the profile's.
    """
    x = torch.from_numpy(data.presets)
    y = torch.from_numpy((data.sounds - scale[0]) / scale[1])
    rows, size = split(len(data)), size or SIZES[profile.proxy_size][training.name]
    heard = rows["train"][: round(training.share * len(rows["train"]))]
    judged = torch.from_numpy(rows["validation"][:256])
    # (whole batches: batch norm can make nothing of one preset alone)
    whole = len(heard) // size.batch * size.batch
    own = profile.seed + training.seed
    examples, per_epoch = loop.shuffled(heard, size.batch, own, "presets", heard=whole)

    def loss(model: nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        device = next(model.parameters()).device
        return l1(model(x[part].to(device)), y[part].to(device)).mean()

    def evaluate(model: nn.Module, epoch: int) -> dict:
        with torch.inference_mode():
            said = model.eval()(x[judged].to(next(model.parameters()).device)).cpu()
        mrr = reciprocal_ranks(said, y[judged])["preset by sound"].mean()
        return {"validation_l1": float(l1(said, y[judged]).mean()), "validation_mrr": float(mrr)}

    # as many steps, and as many looks at the validation presets, whatever the share
    longest = max(1, len(rows["train"]) // size.batch)
    steps = profile.proxy_epochs * longest
    optimiser = torch.optim.Adam(model.parameters(), lr=size.rate)
    plan = loop.Plan(
        steps=steps,
        per_epoch=per_epoch,
        seed=own,
        clip=1.0,
        checkpoint_every=per_epoch,
        score="validation_mrr",
        evaluate_every=max(1, round(longest / per_epoch)),
    )
    schedule = warm_cosine(optimiser, steps, 0.1)
    task = loop.Task(model, examples, loss, [optimiser], [schedule], evaluate)
    return loop.train(task, plan, folder)


@torch.inference_mode()
def say(model: nn.Module, rows: np.ndarray) -> np.ndarray:
    """(n, 128) embeddings, in standard deviations of the training presets'."""
    parts = torch.from_numpy(rows).split(512)
    return torch.cat([model.cpu().eval()(part) for part in parts]).numpy()


def fit_all(profile: Profile, trainings: list[Training]) -> pd.DataFrame:
    """Every training, a core each; one row an epoch."""
    fitted = parallel.each(fit, [(profile, one) for one in trainings], "preset encoders")
    each = [
        pd.read_csv(folder / "history.csv").assign(**asdict(one))
        for folder, one in zip(fitted, trainings, strict=True)
    ]
    return pd.concat(each, ignore_index=True)


def answers(profile: Profile, training: Training) -> dict[str, np.ndarray]:
    """`drawn` and `by hand`: what a trained encoder says of all presets."""
    made = stage(profile, training)
    stages.ready(made, "19_preset_encoders")
    said = np.load(made.folder / "said.npz")
    return {"drawn": said["drawn"], "by hand": said["by_hand"]}


# --- the tables -----------------------------------------------------------------------------------


def spaces() -> dict[str, Space]:
    """The proxy paper's three synthesizers.

    How many values their choices have in all it does not print: what MLP-OH's weights in Table 2
    imply, to the middle of what they round off.
    """
    found = {}
    for place, (name, (numbers, switches, choices)) in enumerate(proxy_paper.PARAMETERS.items()):
        inputs = (proxy_paper.WEIGHTS["MLP-OH"][place] * 1e6 - BEHIND_ONE_HOT) / 2048
        values = round(inputs) - numbers - switches
        each = [values // choices] * choices
        each[-1] += values - sum(each)
        found[name] = Space(numbers + switches, tuple(each))
    return found


# weights of MLP-OH behind its first matrix: two norms, the second layer, the last (192 out)
BEHIND_ONE_HOT = 2 * 2 * 2048 + 2048**2 + (2048 + 1) * 192


@dataclass(frozen=True)
class Judged:
    """What the trainings of one encoder score on one kind of preset."""

    l1: np.ndarray  # (trainings, presets)
    shape_l1: np.ndarray  # the same of `shape` alone
    by_sound: np.ndarray  # (trainings, presets) mean reciprocal rank over the pools that it is in
    runs: dict[str, np.ndarray]  # score -> (trainings, pools)


def tested(data: dict[str, Presets]) -> dict[str, np.ndarray]:
    """Rows of each kind that no training has heard: drawn ones of the test, and all by hand."""
    drawn = split(len(data["drawn"]))["test"][:MOST]
    return {"drawn": drawn, "by hand": np.arange(len(data["by hand"]))}


MOST = 8192  # test presets, all of which are compared with all


def pool_of(data: dict[str, Presets]) -> int:
    """Presets among which one is to be found: a power of two, the same for both kinds."""
    return 2 ** int(math.log2(min(len(rows) for rows in tested(data).values())))


def judge(
    profile: Profile, data: dict[str, Presets], trainings: list[Training], kind: str
) -> Judged:
    """Score trainings on the presets of one kind, as in Section 5.1.2: 100 pools."""
    mean, deviation = scaling(data["drawn"])
    rows = tested(data)[kind]
    sounds = (data[kind].sounds[rows] - mean) / deviation
    errors, of_shape, ranks, found = [], [], [], []
    for one in trainings:
        said = answers(profile, one)[kind][rows]
        errors.append(np.abs(said - sounds).mean(1))
        of_shape.append(np.abs(shape(said) - shape(sounds)).mean(1))
        each, scores = runs(said, sounds, pool_of(data), 100, profile.seed)
        ranks.append(each)
        found.append(scores)
    both = {name: np.stack([one[name] for one in found]) for name in found[0]}
    return Judged(np.stack(errors), np.stack(of_shape), np.stack(ranks), both)


def shape(sounds: np.ndarray) -> np.ndarray:
    """(n, 128) embeddings, each without its own mean over the bands: how loud it is left out."""
    return sounds - sounds.mean(1, keepdims=True)


def trainings_of(profile: Profile, name: str) -> list[Training]:
    return [Training(name, seed) for seed in range(profile.proxy_seeds)]


def table(profile: Profile, data: dict[str, Presets]) -> pd.DataFrame:
    """A row an encoder (and a guess) and kind of preset; the columns of Tables 3 and 4."""
    rows = []
    pool = pool_of(data)
    mean, deviation = scaling(data["drawn"])
    for kind, which in tested(data).items():
        for name in NAMES:
            found = judge(profile, data, trainings_of(profile, name), kind)
            lo, hi = ends(profile, found.by_sound)
            row = {"encoder": name, "presets": kind, "pool": pool}
            row["weights"] = sum(p.numel() for p in new(profile, name).parameters())
            for score, values in found.runs.items():
                row |= {score: values.mean(), f"{score} sd": values.std()}
            row["shape_l1"] = found.shape_l1.mean()
            rows.append(row | {"lo": lo, "hi": hi, "published": proxy_paper.DIVA[kind][name][0]})
        sounds = (data[kind].sounds[which] - mean) / deviation
        guess = {"encoder": "chance", "presets": kind, "pool": pool, "l1": np.abs(sounds).mean(),
                 "shape_l1": np.abs(shape(sounds)).mean()}  # fmt: skip
        both = dict.fromkeys(("preset by sound", "sound by preset"), chance(pool))
        rows.append(guess | both)
    return pd.DataFrame(rows)


def ends(profile: Profile, values: np.ndarray) -> tuple[float, float]:
    """Of the 95 % interval of a mean over presets or sounds; values: (trainings, each)."""
    values = values[:, ~np.isnan(values).any(0)]  # (without presets that are in no pool)
    places = np.arange(values.shape[1])
    return intervals.of_mean(values, places, profile.bootstrap, profile.seed)


def difference(
    profile: Profile, data: dict[str, Presets], one: str, other: str, kind: str = "drawn"
) -> tuple[float, float, float]:
    """Mean reciprocal rank of `other` minus that of `one`, and its interval; paired by preset."""
    first, second = (
        judge(profile, data, trainings_of(profile, name), kind).by_sound for name in (one, other)
    )
    found = more(profile, first, second)
    return found["more"], found["lo"], found["hi"]


def more(profile: Profile, one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """By how much `other` has more than `one`, both (trainings, each): mean; lo, hi, paired."""
    gap = other - one
    lo, hi = ends(profile, gap)
    return {"more": float(np.nanmean(gap)), "lo": lo, "hi": hi}


def apart(profile: Profile, data: dict[str, Presets]) -> pd.DataFrame:
    """`difference` of all pairs: a row a kind of presets and pair; one, other, more, lo, hi."""
    rows = []
    for kind in data:
        said = {n: judge(profile, data, trainings_of(profile, n), kind).by_sound for n in NAMES}
        for one, other in combinations(NAMES, 2):
            row = {"presets": kind, "one": one, "other": other}
            rows.append(row | more(profile, said[one], said[other]))
    return pd.DataFrame(rows)


def growth(
    profile: Profile, data: dict[str, Presets], names: tuple[str, ...], shares: tuple[float, ...]
) -> pd.DataFrame:
    """Mean reciprocal rank and L1 of the first training over the number of training presets."""
    rows = []
    whole = len(split(len(data["drawn"]))["train"])
    for name in names:
        for kind in data:
            for share in shares:
                found = judge(profile, data, [Training(name, 0, share)], kind)
                lo, hi = ends(profile, found.by_sound)
                row = {"encoder": name, "presets": kind, "training": round(share * whole)}
                mrr = found.runs["preset by sound"].mean()
                rows.append(row | {"mrr": mrr, "lo": lo, "hi": hi, "l1": found.l1.mean()})
    return pd.DataFrame(rows)


def clouds_apart(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> pd.DataFrame:
    """How far apart two kinds of sounds are, beside two halves of a kind.

    one, other: `drawn` and `by hand` -> (n, features), two halves of each kind, of as many sounds.

    Returns:
        A row a pair of clouds: `wasserstein`, and `nearest`, the median distance of a sound of the
        second to the nearest one of the first.
    """
    pairs = [("drawn", "by hand"), ("drawn", "drawn"), ("by hand", "by hand")]
    rows = []
    for first, second in pairs:
        near = cdist(other[second], one[first]).min(1)
        rows.append({"from": first, "to": second,
                     "wasserstein": wasserstein(one[first], other[second]),
                     "nearest": float(np.median(near))})  # fmt: skip
    return pd.DataFrame(rows)


def wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """Wasserstein-1 distance of two clouds of as many points each, (n, features).

    The least mean Euclidean distance over all ways to pair them.
    """
    distance = cdist(one, other)
    return float(distance[linear_sum_assignment(distance)].mean())
