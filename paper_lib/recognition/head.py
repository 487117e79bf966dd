"""The head of Equation 3 and its training on frozen embeddings (notebook 02, section 3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from ..core import config, loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..evaluation import scores
from ..sound import effects
from ..sound.dataset import Dataset
from . import features


class Head(nn.Module):
    """Eq. 3: Linear13(Dropout(ReLU(Linear256(x)))), after a fixed scaling of its input.

    (batch, inputs) -> (batch, 13) logits. The scaling is the identity unless `fit_scaling` is
    called.
    """

    def __init__(self, inputs: int, hidden: int = 256, dropout: float = 0.2):
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        last = nn.Linear(hidden, len(effects.NAMES))
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), last)

    def fit_scaling(self, x: torch.Tensor) -> None:
        """Standardise the input with the statistics of x (examples, inputs), the training set."""
        self.mean.copy_(x.mean(0))
        self.scale.copy_(x.std(0).clamp_min(1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers((x - self.mean) / self.scale)


def bce(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Eq. 4: binary cross-entropy, summed over the 13 labels and averaged over the batch."""
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / len(logits)


def validation_scores(logits: torch.Tensor, truth: np.ndarray) -> dict[str, float]:
    """Validation loss, macro-F1 at 0.5 and mean average precision."""
    logits = logits.float().cpu()
    probability = torch.sigmoid(logits).numpy()
    return {
        "validation_loss": float(bce(logits, torch.from_numpy(truth))),
        "validation_macro_f1": scores.scores(truth, probability > 0.5)["macro_f1"],
        "validation_map": scores.mean_average_precision(truth, probability),
    }


Examples = tuple[np.ndarray, np.ndarray]  # inputs (clips, inputs), labels (clips, 13)


def train_head(
    train: Examples,
    validation: Examples,
    profile: Profile,
    standardise: bool = True,
    seed: int | None = None,
) -> tuple[Head, pd.DataFrame]:
    """Train Eq. 3 on embeddings.

    AdamW at a constant rate, the epoch of the best validation macro-F1 kept. Stops after
    `head_patience` epochs without a better one. Returns the head in eval mode and one row an epoch.
    `seed`: of initial weights, order and dropout; by default the profile's.
    """
    seed = profile.seed if seed is None else seed
    x, y, x_val = (
        torch.from_numpy(np.ascontiguousarray(a)).float() for a in (*train, validation[0])
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Head(x.shape[1], profile.hidden, profile.dropout)
    if standardise:
        head.fit_scaling(x)
    examples, per_epoch = loop.shuffled(np.arange(len(x)), profile.head_batch, seed, "head")

    def evaluate(model: Head, epoch: int) -> dict:
        with torch.inference_mode():
            return validation_scores(model.eval()(x_val.to(model.mean.device)), validation[1])

    def loss(model: Head, rows: np.ndarray, step: int) -> torch.Tensor:
        device = next(model.parameters()).device
        return bce(model(x[rows].to(device)), y[rows].to(device))

    optimiser = torch.optim.AdamW(
        head.parameters(), profile.head_rate, (0.9, 0.999), weight_decay=profile.weight_decay
    )
    plan = loop.Plan(
        steps=profile.head_epochs * per_epoch,
        per_epoch=per_epoch,
        seed=seed,
        score="validation_macro_f1",
        patience=profile.head_patience,
    )
    # matrices so small that waking a second thread costs more than it saves
    with machine.one_thread():
        result = loop.train(loop.Task(head, examples, loss, [optimiser], evaluate=evaluate), plan)
    head = head.cpu()
    head.load_state_dict(result.weights)
    return head.eval(), result.history


def probabilities(head: Head, x: np.ndarray) -> np.ndarray:
    """(clips, inputs) pooled embeddings -> (clips, 13)."""
    with torch.inference_mode():
        return torch.sigmoid(head(torch.from_numpy(np.array(x, np.float32)))).numpy()


def stage(
    profile: Profile, data: Dataset, front: str, how: tuple[str, str, bool], seed: int = 0
) -> stages.Stage:
    """The stage of one head: `front` end, how = (name, pooling, standardise), training seed."""
    name, pooling, standardise = how
    parameters = config.section(profile, config.HeadTraining) | {
        "pooling": pooling,
        "standardise": standardise,
    }
    del parameters["head_seeds"]
    parameters |= {"seed": profile.seed + seed}
    embedding = stages.read(paths.embedding(profile.profile, front)) or {}
    inputs = {"dataset": data.content, "embedding": embedding.get("content", "")}
    return stages.Stage(
        "head", paths.model(profile.profile, name, seed), parameters, inputs, threads=1
    )


def fit_heads(
    profile: Profile, data: Dataset, heads: dict[str, tuple[str, str, bool]], seeds: int = 1
) -> None:
    """Stages data/<profile>/models/<name>: heads on frozen embeddings.

    heads: name -> front end, pooling, standardise. Each with several training seeds; several at a
    time, a core each.
    """
    for front in dict.fromkeys(front for front, *_ in heads.values()):
        features.embed_dataset(profile, data, front)
    jobs = [
        (profile, data.folder, front, (name, pooling, standardise), seed)
        for seed in range(seeds)
        for name, (front, pooling, standardise) in heads.items()
    ]
    wanted = [job for job in jobs if not stage(profile, data, *job[2:]).current()]
    if machine.cores() == 1 or len(wanted) < 2:
        for job in wanted:
            _fit(*job)
    else:
        parallel.each(_fit, wanted, "heads")


def _fit(profile: Profile, folder: Path, front: str, how: tuple[str, str, bool], seed: int) -> None:
    machine.make_deterministic(1)
    data = Dataset(folder)
    _, pooling, standardise = how
    made = stage(profile, data, front, how, seed)
    with made.opened() as work:
        if work:
            x = np.asarray(features.pool(features.embed_dataset(profile, data, front), pooling))
            train, validation = (
                (x[r], data.labels[r]) for r in (data.rows("train"), data.rows("validation"))
            )
            head, history = train_head(train, validation, profile, standardise, profile.seed + seed)
            probability = probabilities(head, x)
            save_file(head.state_dict(), work / "head.safetensors")
            np.save(work / "probabilities.npy", probability)
            history.to_csv(work / "history.csv", index=False)
            made.finish(stages.array_digest(probability))


def fitted(
    profile: Profile, data: Dataset, name: str, seed: int = 0
) -> tuple[np.ndarray, pd.DataFrame]:
    """A finished head's probabilities (clips, 13) of *all* clips, and its history."""
    folder = paths.model(profile.profile, name, seed)
    stages.require(folder, "02_frozen_embeddings", dataset=data.content)
    return np.load(folder / "probabilities.npy"), pd.read_csv(folder / "history.csv")


def fitted_seeds(profile: Profile, data: Dataset, name: str) -> np.ndarray:
    """(seeds, clips, 13) probabilities of a head's trainings, as many as `head_seeds` says."""
    return np.stack([fitted(profile, data, name, seed)[0] for seed in range(profile.head_seeds)])


def load_head(profile: Profile, data: Dataset, seed: int = 0) -> Head:
    """The frozen baseline's head.

    Raises:
        PaperError: there is none, or it was not made from just this data set, codec, pooling and
            training parameters.
    """
    how = ("frozen", profile.pooling, profile.standardise)
    made = stage(profile, data, "frozen", how, seed)
    stages.require(made.folder, "02_frozen_embeddings", dataset=data.content)
    if not (made.current() and features.stage(profile, data, "frozen").current()):
        raise PaperError(
            f"the head in {made.folder.parent.name}/{made.folder.name} was trained with another "
            "codec, pooling or parameters than this run's: run notebook 02_frozen_embeddings again "
            "(or paper reproduce)."
        )
    return read_head(made.folder, profile.dropout)


def read_head(folder: Path, dropout: float = 0.0) -> Head:
    """The head in a finished folder of `fit_heads`, in eval mode."""
    state = load_file(folder / "head.safetensors")
    head = Head(len(state["mean"]), len(state["layers.0.bias"]), dropout)
    head.load_state_dict(state)
    return head.eval()
