"""What the masked model is good for: tasks, with and without what it was trained on. Notebook 24.

As the token paper has it: the local encoder is left out, the global states are averaged over time,
and one linear layer answers. Fine-tuned or from scratch, with or without a chunk of each sequence
dropped; and a linear reader of each layer as it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import generator_for
from ..evaluation import intervals
from ..recognition.optimisers import warm_cosine
from ..sound.dataset import Dataset
from . import codes, pretraining
from .codes import Code
from .model import TokenModel

DROPPED = 0.25  # of a sequence, in one piece (the paper does not say how much)
BATCH = 16


@dataclass(frozen=True, eq=False)
class Task:
    """Clips and what is to be said of them."""

    name: str
    classes: tuple[str, ...]
    truth: np.ndarray  # (clips, classes) 0/1
    several: bool = False  # may hold at once (else just one does)


def tasks(data: Dataset) -> dict[str, Task]:
    """Effects, as in Part I; stand-ins for the paper's: who plays, and in which style."""
    from ..sound.effects import NAMES

    found = {"effects": Task("effects", tuple(NAMES), data.labels, several=True)}
    for name, column in (("player", "player"), ("style", "style")):
        each = data.index[column].to_numpy(str)
        classes = tuple(np.unique(each))
        truth = (each[:, None] == np.array(classes)).astype(np.float32)
        found[name] = Task(name, classes, truth)
    return found


class Classifier(nn.Module):
    """Tokens (batch, codebooks, frames) -> (batch, classes) logits."""

    def __init__(self, net: TokenModel, width: int, classes: int):
        super().__init__()
        self.net, self.last = net, nn.Linear(width, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.last(self.net.states(tokens).mean(1))


def without_a_chunk(tokens: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """(batch, codebooks, frames) -> fewer frames: of each clip one piece is left out."""
    frames = tokens.shape[2]
    gone = round(DROPPED * frames)
    kept = []
    for one, begin in zip(tokens, rng.integers(frames - gone + 1, size=len(tokens)), strict=True):
        kept.append(torch.cat([one[:, :begin], one[:, begin + gone :]], 1))
    return torch.stack(kept)


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


def train(profile: Profile, data: Dataset, training: Training) -> tuple[np.ndarray, pd.DataFrame]:
    """(test clips, classes) logits of a trained classifier, and its history.

    The last epoch counts: nothing is chosen.
    """
    task = tasks(data)[training.task]
    tokens, code = codes.of_dataset(profile, data)
    model = start_of(profile, data, code, training, len(task.classes))
    rows, frames = data.rows("train"), round(profile.token_seconds * code.frame_rate)
    seed = profile.seed + training.seed
    examples, per_epoch = loop.shuffled(rows, BATCH, seed, training.task)

    def loss(model: nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        key = (seed, "excerpt", step)
        heard = pretraining.excerpts(tokens, part, frames, key)
        if training.dropped:
            heard = without_a_chunk(heard, generator_for(*key, "dropped"))
        device = next(model.parameters()).device
        truth = torch.from_numpy(task.truth[part]).to(device)
        return loss_of(model(heard.to(device)), truth, task.several)

    steps = profile.token_task_epochs * per_epoch
    optimiser = torch.optim.AdamW(model.parameters(), profile.token_rate, weight_decay=0.01)
    plan = loop.Plan(steps=steps, per_epoch=per_epoch, seed=seed, clip=1.0)
    schedule = warm_cosine(optimiser, steps, 0.1)
    history = loop.train(loop.Task(model, examples, loss, [optimiser], [schedule]), plan).history
    return said(model, tokens[data.rows("test")]), history


def start_of(
    profile: Profile, data: Dataset, code: Code, training: Training, classes: int
) -> Classifier:
    """A classifier as it begins: on random weights, or on those of the masked model."""
    net = pretraining.new(profile, code, profile.seed + training.seed)
    if training.start == "pretrained":
        made = pretraining.stage(profile, data)
        stages.ready(made, pretraining.NOTEBOOK)
        net = pretraining.load(profile, code, made.folder)
    net.keep_global()
    return Classifier(net, net.norm.normalized_shape[0], classes)


@torch.inference_mode()
def said(model: nn.Module, tokens: np.ndarray) -> np.ndarray:
    """(clips, classes) logits of whole clips."""
    device, found = next(model.parameters()).device, []
    model.eval()
    for start in range(0, len(tokens), 16):
        part = torch.from_numpy(tokens[start : start + 16].astype(np.int64)).to(device)
        found.append(model(part).cpu())
    return torch.cat(found).numpy()


def stage(profile: Profile, data: Dataset, training: Training) -> stages.Stage:
    """data/<profile>/token_tasks/<...>: what one training leaves."""
    own = {"epochs": profile.token_task_epochs, "rate": profile.token_rate, "seed": profile.seed}
    own |= {"size": profile.token_size, "seconds": profile.token_seconds} | asdict(training)
    found = paths.data(profile.profile)
    made = stages.require(found / "tokens", pretraining.NOTEBOOK, dataset=data.content)
    inputs = {"dataset": data.content, "tokens": made["content"]}
    if training.start == "pretrained":
        inputs["model"] = stages.require(found / "token_model", pretraining.NOTEBOOK)["content"]
    name = f"{training.task}_{training.start}{'_dropped' * training.dropped}_{training.seed}"
    return stages.Stage("token_task", found / "token_tasks" / name, own, inputs, threads=1)


def fit(profile: Profile, folder: Path, training: Training) -> np.ndarray:
    """Train, if that has not been done; (test clips, classes) logits."""
    data = Dataset(folder)
    made = stage(profile, data, training)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            logits, history = train(profile, data, training)
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
def averages(net: TokenModel, tokens: np.ndarray, layer: int) -> np.ndarray:
    """(clips, width): the mean over time of the global states after so many layers."""
    parts = torch.from_numpy(tokens.astype(np.int64)).split(16)
    return torch.cat([net.states(part, layer=layer).mean(1) for part in parts]).numpy()


def read_off(train: tuple[np.ndarray, np.ndarray], test: np.ndarray, several: bool) -> np.ndarray:
    """(clips, classes) 0/1 of logistic regressions. train: inputs, truth (clips, classes)."""
    if several:
        line = make_pipeline(
            StandardScaler(), OneVsRestClassifier(LogisticRegression(max_iter=500))
        )
        return line.fit(*train).predict(test).astype(int)
    line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    which = line.fit(train[0], train[1].argmax(1)).predict(test)
    return (which[:, None] == np.arange(train[1].shape[1])).astype(int)


# --- the table ------------------------------------------------------------------------------------


def answers(logits: np.ndarray, several: bool) -> np.ndarray:
    """(..., classes) logits -> 0/1."""
    if several:
        return (logits > 0).astype(int)
    return (logits == logits.max(-1, keepdims=True)).astype(int)


def accuracy(truth: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """(..., clips) 1 where all classes of a clip are right."""
    return (truth == answered).all(-1).astype(float)


def table(
    profile: Profile, data: Dataset, task: Task, found: dict[str, np.ndarray]
) -> pd.DataFrame:
    """A row a system: accuracy and macro-F1 on test clips, with intervals.

    found: system -> (seeds, test clips, classes) 0/1. lo, hi: 95 % over recordings and seeds.
    """
    test, rows = data.rows("test"), []
    truth = task.truth[test].astype(int)
    recordings = data.index.recording.to_numpy()[test]
    for system, said in found.items():
        ends = intervals.intervals(truth, said, recordings, profile.bootstrap, profile.seed)
        right = accuracy(truth, said)
        row = {"task": task.name, "system": system, "seeds": len(said), "clips": len(test)}
        row |= {"accuracy": right.mean()}
        row["accuracy_lo"], row["accuracy_hi"] = intervals.of_mean(
            right, recordings, profile.bootstrap, profile.seed
        )
        row["macro_f1"] = intervals.mean_score(truth, said)["macro_f1"]
        row["lo"], row["hi"] = ends["macro_f1"]
        rows.append(row)
    return pd.DataFrame(rows)
