"""What the masked model is good for: tasks, with and without what it was trained on. Notebook 24.

As the token paper has it: the local encoder is left out, the global states are averaged over time,
and one linear layer answers. Fine-tuned or from scratch, with or without a chunk of each sequence
dropped. Ours besides: a linear reader of each layer as it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ..core import config, loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import NotHere, PaperError
from ..core.random import generator_for
from ..evaluation import intervals
from ..recognition import features, head
from ..recognition.optimisers import warm_cosine
from ..sound import effects
from ..sound.dataset import Dataset
from . import codes, other_tasks, pretraining
from .codes import Code
from .model import TokenModel
from .statistics import reader

NOTEBOOK = "24_without_decoding"
DROPPED = 0.25  # of a sequence, in one piece (the paper does not say how much)
BATCH = 16


@dataclass(frozen=True, eq=False)
class Task:
    """Clips and what is to be said of them."""

    name: str
    classes: tuple[str, ...]
    truth: np.ndarray  # (clips, classes) 0/1
    tokens: np.ndarray  # (clips, codebooks, frames)
    split: np.ndarray  # (clips,) train | validation | test
    recordings: np.ndarray  # (clips,) what is never split
    several: bool = False  # classes may hold at once (else just one does)
    source: str = "this run's clips"

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.split == split)


OF_CLIPS = ("effects", "player", "style")


def task(profile: Profile, data: Dataset, name: str) -> Task:
    """`effects`, as in Part I; `player`, `style`: who plays and how; else one of `other_tasks`.

    Raises:
        NotHere: what it needs is not here, or all training clips are of one class.
    """
    if name in OF_CLIPS:
        tokens, listed, source = codes.of_dataset(profile, data)[0], data.index, Task.source
    else:
        found = other_tasks.of(profile, name)
        tokens, listed, source = other_tasks.tokens(profile, name), found.table, found.source
    own = (tokens, listed["split"].to_numpy(str), listed["recording"].to_numpy(str))
    if name == "effects":
        return Task(name, effects.NAMES, data.labels, *own, several=True)
    each = listed[name if name in OF_CLIPS else "class"].to_numpy(str)
    classes = tuple(map(str, np.unique(each)))
    truth = (each[:, None] == np.array(classes)).astype(np.float32)
    made = Task(name, classes, truth, *own, source=source)
    if len(np.unique(each[made.rows("train")])) < 2:
        raise NotHere(f"{name} is no task here: all training clips are of one class.")
    return made


def tasks(profile: Profile, data: Dataset, names: list[str]) -> dict[str, Task]:
    """Those of the tasks that can be had, and a sentence for each of the others."""
    found = {}
    for name in names:
        try:
            found[name] = task(profile, data, name)
        except NotHere as problem:
            print(problem)
    return found


def named(names: str, key: str = "token_tasks") -> list[str]:
    """`effects, player` -> both; `PaperError` for what is no task of this profile key."""
    known = OF_CLIPS if key == "token_tasks" else other_tasks.KINDS
    found = config.listed(names)
    for one in found:
        if one not in known:
            raise PaperError(f"{key}: {one!r} is none of {', '.join(known)}.")
    return found


class Classifier(nn.Module):
    """Tokens (batch, codebooks, frames) -> (batch, classes) logits.

    What is averaged is standardised over the batch before the linear layer, which the paper does
    not say: else the small differences between clips are learned slowly.
    """

    def __init__(self, net: TokenModel, width: int, classes: int):
        super().__init__()
        self.net, self.last = net, nn.Linear(width, classes)
        self.scale = nn.BatchNorm1d(width, affine=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.last(self.scale(self.net.states(tokens).mean(1)))


def without_a_chunk(tokens: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """(codebooks, frames) -> fewer frames: one piece is left out."""
    gone = round(DROPPED * tokens.shape[1])
    begin = int(rng.integers(tokens.shape[1] - gone + 1))
    return torch.cat([tokens[:, :begin], tokens[:, begin + gone :]], 1)


def loss_of(logits: torch.Tensor, truth: torch.Tensor, several: bool) -> torch.Tensor:
    """Cross-entropy: of each class by itself where several may hold, else of the one that does."""
    if several:
        return F.binary_cross_entropy_with_logits(logits, truth)
    return F.cross_entropy(logits, truth.argmax(1))


# --- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """One fine-tuning: of which task, from where, and how."""

    task: str
    start: str  # scratch | pretrained
    dropped: bool = False
    seed: int = 0


def train(
    profile: Profile, data: Dataset, training: Training, folder: Path | None = None
) -> tuple[np.ndarray, pd.DataFrame]:
    """(test clips, classes) logits of a trained classifier, and its history.

    A step hears a piece of each clip, of `token_seconds`, begun anywhere. The last epoch counts:
    nothing is chosen. With a `folder` a killed training goes on.
    """
    own, code = task(profile, data, training.task), codes.of_dataset(profile, data)[1]
    model = start_of(profile, data, code, training, len(own.classes))
    seed = profile.seed + training.seed
    frames = round(profile.token_seconds * code.frame_rate)
    rows = own.rows("train")
    whole = len(rows) // BATCH * BATCH  # (one clip alone cannot be standardised)
    examples, per_epoch = loop.shuffled(rows, BATCH, seed, training.task, heard=whole)

    def loss(model: nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        heard = pretraining.excerpts(own.tokens, part, frames, (seed, "task", step))
        if training.dropped:
            draws = (generator_for(seed, "dropped", step, int(row)) for row in part)
            pieces = [without_a_chunk(one, rng) for one, rng in zip(heard, draws, strict=True)]
            heard = torch.stack(pieces)
        device = next(model.parameters()).device
        truth = torch.from_numpy(own.truth[part]).to(device)
        return loss_of(model(heard.to(device)), truth, own.several)

    steps = profile.token_task_epochs * per_epoch
    optimiser = torch.optim.AdamW(model.parameters(), profile.token_rate, weight_decay=0.01)
    plan = loop.Plan(steps=steps, per_epoch=per_epoch, seed=seed, clip=1.0,
                     checkpoint_every=per_epoch, label=training.task)  # fmt: skip
    schedule = warm_cosine(optimiser, steps, 0.1)
    plain = loop.Task(model, examples, loss, [optimiser], [schedule])
    history = loop.train(plain, plan, folder).history
    return said(model, own.tokens[own.rows("test")], frames), history


def start_of(
    profile: Profile, data: Dataset, code: Code, training: Training, classes: int
) -> Classifier:
    """A classifier as it begins: on random weights, or on those of the masked model.

    The last layer is drawn by the training's seed in both. (There is one masked model: what its own
    seed is worth, no interval here holds.)
    """
    seed = profile.seed + training.seed
    fresh = pretraining.new(profile, code, seed)
    net = pretraining.load(profile, data) if training.start == "pretrained" else fresh
    net.keep_global()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(net, net.norm.normalized_shape[0], classes)


def pieces(tokens: np.ndarray, frames: int) -> list[np.ndarray]:
    """(clips, codebooks, T) -> pieces of so many frames that cover it, evenly begun.

    What a model was trained on: places farther apart it has never met.
    """
    whole = tokens.shape[2]
    begins = np.linspace(0, max(0, whole - frames), -(-whole // frames)).round().astype(int)
    return [tokens[:, :, a : a + frames] for a in begins]


@torch.inference_mode()
def said(model: nn.Module, tokens: np.ndarray, frames: int) -> np.ndarray:
    """(clips, classes) logits of whole clips: the mean of those of their pieces."""
    device, found = next(model.parameters()).device, []
    model.eval()
    for start in range(0, len(tokens), 16):
        parts = pieces(tokens[start : start + 16].astype(np.int64), frames)
        each = [model(torch.from_numpy(part).to(device)) for part in parts]
        found.append(torch.stack(each).mean(0).cpu())
    return torch.cat(found).numpy()


def stage(profile: Profile, data: Dataset, training: Training) -> stages.Stage:
    """data/<profile>/token_tasks/<...>: what one training leaves."""
    names = ("token_task_epochs", "token_rate", "token_size", "token_seconds", "seed")
    own = {name: getattr(profile, name) for name in names} | asdict(training)
    own["seed"] = profile.seed + training.seed
    made = stages.ready(codes.stage(profile, data), pretraining.NOTEBOOK)
    inputs = {"dataset": data.content, "tokens": made["content"]}
    if training.task not in OF_CLIPS:
        others = stages.ready(other_tasks.stage(profile, training.task), NOTEBOOK)
        inputs["sounds"] = others["content"]
    if training.start == "pretrained":
        started = stages.ready(pretraining.stage(profile, data), pretraining.NOTEBOOK)
        inputs["model"] = started["content"]
    name = f"{training.task}_{training.start}{'_dropped' * training.dropped}_{training.seed}"
    folder = paths.data(profile.profile) / "token_tasks" / name
    return stages.Stage("token_task", folder, own, inputs, threads=1)


def fit(profile: Profile, folder: Path, training: Training) -> np.ndarray:
    """Train, if that has not been done; (test clips, classes) logits."""
    data = Dataset(folder)
    made = stage(profile, data, training)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            logits, history = train(profile, data, training, work)
            np.save(work / "said.npy", logits)
            history.to_csv(work / "history.csv", index=False)
            made.finish(stages.array_digest(logits))
    return np.load(made.folder / "said.npy")


def fit_all(
    profile: Profile, data: Dataset, trainings: list[Training]
) -> dict[Training, np.ndarray]:
    """Every training, a core each."""
    logits = parallel.each(fit, [(profile, data.folder, one) for one in trainings], "tasks")
    return dict(zip(trainings, logits, strict=True))


# --- a linear reader of each layer ----------------------------------------------------------------


@torch.inference_mode()
def averages(net: TokenModel, tokens: np.ndarray, frames: int) -> np.ndarray:
    """(layers + 1, clips, width): means over time of what goes in, and what each layer makes."""
    device, found = next(net.parameters()).device, []
    for start in range(0, len(tokens), 16):
        parts = pieces(tokens[start : start + 16].astype(np.int64), frames)
        embedded = (net.embedded(torch.from_numpy(part).to(device)) for part in parts)
        each = [torch.stack([x.mean(1) for x in net.by_layer(one)]) for one in embedded]
        found.append(torch.stack(each).mean(0).cpu())
    return torch.cat(found, 1).numpy()


def read_off(train: tuple[np.ndarray, np.ndarray], test: np.ndarray, several: bool) -> np.ndarray:
    """(clips, classes) 0/1 of a linear reader. train: inputs, truth (clips, classes)."""
    line, classes = reader(several), train[1].shape[1]
    if several:
        return line.fit(*train).predict(test).astype(int)
    which = line.fit(train[0], train[1].argmax(1)).predict(test)
    return (which[:, None] == np.arange(classes)).astype(int)


# --- a listener that hears sound made of the tokens -----------------------------------------------


def of_decoded(tokens: np.ndarray, samples: int, name: str, codec: str) -> dict[str, np.ndarray]:
    """`statistics` (clips, 3, bands): time statistics of the log-mel of what tokens sound like."""
    machine.make_deterministic(1)
    decode = codes.cached_tokenizer(name, codec).decode
    sounds = np.stack([decode(one.astype(np.int64))[:samples] for one in tokens])
    found = features.embed(features.cached_front_end("logmel", codec, 0), sounds)
    return {"statistics": torch.cat([statistics for statistics, _ in found]).numpy()}


def heard_again(profile: Profile, data: Dataset) -> np.ndarray:
    """Stage data/<profile>/decoded: `of_decoded` of every clip, (clips, 3, bands)."""
    tokens, _ = codes.of_dataset(profile, data)
    inputs = {"tokens": stages.ready(codes.stage(profile, data), NOTEBOOK)["content"]}
    inputs["weights"] = codes.version_of(profile.token_codec, profile.codec)
    inputs["dataset"] = data.content  # (and so the split)
    codec = {"codec": profile.token_codec, "samples": data.audio.shape[1]}
    folder = paths.data(profile.profile) / "decoded"
    made = stages.Stage("token_decoded", folder, codec, inputs, threads=1)
    with made.opened() as work:
        if work:
            own = (data.audio.shape[1], profile.token_codec, profile.codec)
            items = {f"{a:07d}": (tokens[a : a + codes.CHUNK], *own)
                     for a in range(0, len(tokens), codes.CHUNK)}  # fmt: skip
            files = parallel.shards(of_decoded, items, work / "shards", "decoding")
            found = np.concatenate([np.load(file)["statistics"] for file in files])
            np.save(work / "statistics.npy", found)
            made.finish(stages.array_digest(found))
    return np.load(folder / "statistics.npy")


def listener_says(profile: Profile, data: Dataset, statistics: np.ndarray) -> np.ndarray:
    """(seeds, test clips, 13) 0/1 of notebook 02's log-mel + MLP, which learned from the clips."""
    x, found = features.pool(statistics[data.rows("test")], "mean_sd_mad"), []
    for seed in range(profile.head_seeds):
        folder = paths.model(profile.profile, "logmel", seed)
        stages.require(folder, "02_frozen_embeddings", dataset=data.content)
        found.append(head.probabilities(head.read_head(folder), x) > 0.5)
    return np.stack(found).astype(int)


def learned_again(profile: Profile, data: Dataset, statistics: np.ndarray) -> np.ndarray:
    """The same of one that learned from what the tokens of training clips sound like."""
    x = features.pool(statistics, "mean_sd_mad")
    items = [(profile, data.folder, x, seed) for seed in range(profile.head_seeds)]
    return np.stack(parallel.each(_learned, items, "listeners"))


def _learned(profile: Profile, folder: Path, x: np.ndarray, seed: int) -> np.ndarray:
    machine.make_deterministic(1)
    data = Dataset(folder)
    learned, judged = ((x[r], data.labels[r]) for r in map(data.rows, ("train", "validation")))
    listener, _ = head.train_head(learned, judged, profile, True, profile.seed + seed)
    return (head.probabilities(listener, x[data.rows("test")]) > 0.5).astype(int)


# --- the table ------------------------------------------------------------------------------------


def answers(logits: np.ndarray, several: bool) -> np.ndarray:
    """(..., classes) logits -> 0/1."""
    if several:
        return (logits > 0).astype(int)
    return (logits == logits.max(-1, keepdims=True)).astype(int)


def all_right(truth: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """(..., clips) 1 where all that is said of a clip is right: of one class, the accuracy."""
    return (truth == answered).all(-1).astype(float)


def table(profile: Profile, task: Task, found: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row a system on test clips: `score`, which is macro-F1 of several labels, else accuracy.

    found: system -> (seeds, test clips, classes) 0/1. lo, hi: 95 % over recordings, and over seeds
    where there are several.
    """
    test, rows = task.rows("test"), []
    truth = task.truth[test].astype(int)
    own = task.recordings[test], profile.bootstrap, profile.seed
    for system, said in found.items():
        row = {"task": task.name, "system": system, "seeds": len(said), "clips": len(test)}
        row["measure"] = "macro-F1" if task.several else "accuracy"
        if task.several:
            score = intervals.mean_score(truth, said)["macro_f1"]
            low, high = intervals.intervals(truth, said, *own)["macro_f1"]
        else:
            right = all_right(truth, said)
            score, (low, high) = right.mean(), intervals.of_mean(right, *own)
        rows.append(row | {"score": float(score), "lo": float(low), "hi": float(high)})
    return pd.DataFrame(rows)


def gains(
    task: Task, one: np.ndarray, other: np.ndarray, resamples: int, seed: int
) -> dict[str, float | str]:
    """The score (`table`) of `other` minus that of `one`, with its 95 % interval.

    Both (seeds, test clips, classes) 0/1; recordings are drawn once for both.
    """
    test = task.rows("test")
    truth, recordings = task.truth[test].astype(int), task.recordings[test]
    if task.several:
        both = {"before": one, "after": other}
        scored = intervals.macro_f1(truth, both, recordings, resamples, seed)
        gain, low, high = scored.more("after", "before")
    else:
        right = all_right(truth, other) - all_right(truth, one)
        gain = right.mean()
        low, high = intervals.of_mean(right, recordings, resamples, seed)
    return {"task": task.name, "gain": float(gain), "lo": float(low), "hi": float(high)}
