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
from scipy.special import expit, softmax
from torch import nn
from torch.nn import functional as F

from ..core import config, loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import NotHere, PaperError
from ..core.random import generator_for
from ..evaluation import intervals, scores
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
HEAD_RATE = 10  # times the rate of the rest: the linear layer begins at nothing
JUDGED = ("validation", "test")
Logits = dict[str, np.ndarray]  # of the clips `JUDGED`, (clips, classes)


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
    not say: else the small differences between clips are learned slowly. It begins with one answer
    for all, `constant` (classes,): a drawn layer is wrong with confidence, and unlearns it first.
    """

    def __init__(self, net: TokenModel, constant: np.ndarray):
        super().__init__()
        width = net.norm.normalized_shape[0]
        self.net, self.last = net, nn.Linear(width, len(constant))
        nn.init.zeros_(self.last.weight)
        self.last.bias.data = torch.from_numpy(constant).float()
        self.scale = nn.BatchNorm1d(width, affine=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.last(self.scale(self.net.states(tokens).mean(1)))


def without_a_chunk(tokens: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """(codebooks, frames) -> fewer frames: one piece is left out."""
    gone = round(DROPPED * tokens.shape[1])
    begin = int(rng.integers(tokens.shape[1] - gone + 1))
    return torch.cat([tokens[:, :begin], tokens[:, begin + gone :]], 1)


def constant(task: Task) -> np.ndarray:
    """(classes,) logits of the best answer that hears nothing: the training clips' shares."""
    truth = task.truth[task.rows("train")]
    values = 2 if task.several else len(task.classes)  # (one clip more of each: none is ruled out)
    return _logits((truth.sum(0) + 1) / (len(truth) + values), task.several)


def _logits(probability: np.ndarray, several: bool) -> np.ndarray:
    p = probability.clip(1e-6, 1 - 1e-6)
    return np.log(p) - np.log1p(-p) if several else np.log(p)


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
) -> tuple[Logits, pd.DataFrame]:
    """What a trained classifier answers, and its history.

    A step hears a piece of each clip, of `token_task_seconds`, begun anywhere. The last epoch
    counts: nothing is chosen. With a `folder` a killed training goes on.
    """
    own, code = task(profile, data, training.task), codes.of_dataset(profile, data)[1]
    model = start_of(profile, data, code, training, own)
    seed = profile.seed + training.seed
    frames = round(profile.token_task_seconds * code.frame_rate)
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
    rates = {model.net: profile.token_rate, model.last: HEAD_RATE * profile.token_rate}
    groups = [{"params": list(part.parameters()), "lr": rate} for part, rate in rates.items()]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    plan = loop.Plan(steps=steps, per_epoch=per_epoch, seed=seed, clip=1.0,
                     checkpoint_every=per_epoch, label=training.task)  # fmt: skip
    schedule = warm_cosine(optimiser, steps, 0.1)
    plain = loop.Task(model, examples, loss, [optimiser], [schedule])
    history = loop.train(plain, plan, folder).history
    judged = {part: own.rows(part) for part in JUDGED if len(own.rows(part))}
    return {part: said(model, own.tokens[rows], frames) for part, rows in judged.items()}, history


def start_of(
    profile: Profile, data: Dataset, code: Code, training: Training, own: Task
) -> Classifier:
    """A classifier as it begins: on random weights, or on those of the masked model.

    (There is one masked model: what its own seed is worth, no interval here holds.)
    """
    fresh = pretraining.new(profile, code, profile.seed + training.seed)
    net = pretraining.load(profile, data) if training.start == "pretrained" else fresh
    net.keep_global()
    return Classifier(net, constant(own))


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
    names = ("token_task_epochs", "token_rate", "token_size", "token_task_seconds", "seed")
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


def fit(profile: Profile, folder: Path, training: Training) -> Logits:
    """Train, if that has not been done; what it answers."""
    data = Dataset(folder)
    made = stage(profile, data, training)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            logits, history = train(profile, data, training, work)
            np.savez(work / "said.npz", allow_pickle=False, **logits)
            history.to_csv(work / "history.csv", index=False)
            made.finish(stages.array_digest(np.concatenate(list(logits.values()))))
    with np.load(made.folder / "said.npz") as kept:
        return dict(kept)


def fit_all(profile: Profile, data: Dataset, trainings: list[Training]) -> dict[Training, Logits]:
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


def read_off(task: Task, x: np.ndarray) -> Logits:
    """What a linear reader answers that learned from training clips. x: (clips, numbers)."""
    line, rows = reader(task.several), task.rows("train")
    truth = task.truth[rows].astype(int)
    line.fit(x[rows], truth if task.several else truth.argmax(1))
    found = {}
    for part in JUDGED:
        said = np.zeros((len(task.rows(part)), len(task.classes)))
        said[:, line.classes_] = line.predict_proba(x[task.rows(part)])
        found[part] = _logits(said, task.several)
    return found


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


def listener_says(profile: Profile, data: Dataset, statistics: np.ndarray) -> list[Logits]:
    """What notebook 02's log-mel + MLP answers, which learned from the clips: one for each seed.

    statistics: (clips, 3, bands), of the clips or of what is made of them.
    """
    x, found = features.pool(statistics, "mean_sd_mad"), []
    for seed in range(profile.head_seeds):
        folder = paths.model(profile.profile, "logmel", seed)
        stages.require(folder, "02_frozen_embeddings", dataset=data.content)
        found.append(_heard(head.read_head(folder), data, x))
    return found


def learned_again(profile: Profile, data: Dataset, statistics: np.ndarray) -> list[Logits]:
    """The same of one that learned from what the tokens of training clips sound like."""
    x = features.pool(statistics, "mean_sd_mad")
    items = [(profile, data.folder, x, seed) for seed in range(profile.head_seeds)]
    return parallel.each(_learned, items, "listeners")


def _learned(profile: Profile, folder: Path, x: np.ndarray, seed: int) -> Logits:
    machine.make_deterministic(1)
    data = Dataset(folder)
    learned, judged = ((x[r], data.labels[r]) for r in map(data.rows, ("train", "validation")))
    listener, _ = head.train_head(learned, judged, profile, True, profile.seed + seed)
    return _heard(listener, data, x)


def _heard(listener: head.Head, data: Dataset, x: np.ndarray) -> Logits:
    found = {part: head.probabilities(listener, x[data.rows(part)]) for part in JUDGED}
    return {part: _logits(one, True) for part, one in found.items()}


# --- the table ------------------------------------------------------------------------------------


def without_sound(task: Task) -> list[Logits]:
    """The `constant` answer, for every clip."""
    rows = {part: len(task.rows(part)) for part in JUDGED}
    return [{part: np.tile(constant(task), (many, 1)) for part, many in rows.items()}]


def answers(task: Task, each: list[Logits]) -> np.ndarray:
    """(trainings, test clips, classes) 0/1.

    Of several labels, those above thresholds that each training's own answers to the validation
    clips set; else the likeliest.
    """
    if not task.several:
        found = np.stack([one["test"] for one in each])
        return (np.arange(len(task.classes)) == found.argmax(-1)[..., None]).astype(int)
    truth = task.truth[task.rows("validation")]
    limits = [scores.cautious_thresholds(truth, expit(one["validation"])) for one in each]
    both = zip(each, limits, strict=True)
    return np.stack([expit(one["test"]) > limit for one, limit in both]).astype(int)


def probabilities(task: Task, each: list[Logits]) -> np.ndarray:
    """(trainings, test clips, classes)."""
    found = np.stack([one["test"] for one in each])
    return expit(found) if task.several else softmax(found, axis=-1)


def cross_entropy(task: Task, each: list[Logits]) -> float:
    """`loss_of` the answers to test clips, the mean over trainings."""
    truth = torch.from_numpy(task.truth[task.rows("test")]).double()
    said = (torch.from_numpy(one["test"]).double() for one in each)
    return float(np.mean([float(loss_of(one, truth, task.several)) for one in said]))


def all_right(truth: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """(..., clips) 1 where all that is said of a clip is right: of one class, the accuracy."""
    return (truth == answered).all(-1).astype(float)


def table(profile: Profile, task: Task, found: dict[str, list[Logits]]) -> pd.DataFrame:
    """A row a system on test clips: `score`, which is macro-F1 of several labels, else accuracy.

    found: system -> its trainings. lo, hi: 95 % over recordings, and over trainings where there are
    several. average_precision: the mean over labels, where they are several. cross_entropy: of the
    probabilities, in nats (that of `without_sound` is what hearing nothing costs). by_lot: the
    accuracy of drawing lots, where one class holds.
    """
    test, rows = task.rows("test"), []
    truth = task.truth[test]
    own = task.recordings[test], profile.bootstrap, profile.seed
    for system, each in found.items():
        row = {"task": task.name, "system": system, "seeds": len(each), "clips": len(test)}
        row["measure"] = "macro-F1" if task.several else "accuracy"
        said, sure = answers(task, each), probabilities(task, each)
        if task.several:
            score = intervals.mean_score(truth.astype(int), said)["macro_f1"]
            low, high = intervals.intervals(truth.astype(int), said, *own)["macro_f1"]
            each_precision = [scores.mean_average_precision(truth, one) for one in sure]
            precision = float(np.mean(each_precision))
        else:
            right = all_right(truth, said)
            score, (low, high) = right.mean(), intervals.of_mean(right, *own)
            precision = float("nan")
        row |= {"score": float(score), "lo": float(low), "hi": float(high)}
        row |= {"average_precision": precision, "cross_entropy": cross_entropy(task, each)}
        rows.append(row | {"by_lot": np.nan if task.several else 1 / len(task.classes)})
    return pd.DataFrame(rows)


def gains(
    task: Task, one: list[Logits], other: list[Logits], resamples: int, seed: int
) -> dict[str, float | str]:
    """What `other` has more than `one`, with its 95 % interval; recordings are drawn once for both.

    `measure`: of several labels mean average precision (no threshold is in it), else accuracy, of
    as many trainings of both.
    """
    test = task.rows("test")
    truth, recordings = task.truth[test], task.recordings[test]
    if task.several:
        both = {"before": probabilities(task, one), "after": probabilities(task, other)}
        scored = intervals.average_precision(truth, both, recordings, resamples, seed)
        gain, low, high = scored.more("after", "before")
    else:
        right = [all_right(truth, answers(task, each)) for each in (one, other)]
        more = right[1] - right[0]
        gain = more.mean()
        low, high = intervals.of_mean(more, recordings, resamples, seed)
    measure = "average precision" if task.several else "accuracy"
    row = {"task": task.name, "measure": measure}
    return row | {"gain": float(gain), "lo": float(low), "hi": float(high)}
