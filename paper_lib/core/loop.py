"""The one training loop: heads, fine-tuning, pretraining.

All that a step hears is a function of its number, so a training that was killed ends with the same
bytes as one that was not. With several processes (torchrun, accelerate launch) each takes its part
of every batch, the first one writes, and the losses are those of one process (where no layer
normalises over the batch).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch import nn
from tqdm import tqdm

from . import machine
from .errors import Diverged, PaperError
from .random import generator_for, seed_for


@dataclass(frozen=True)
class Plan:
    """How long, how, and what is kept."""

    steps: int  # of the optimisers, in all
    per_epoch: int  # steps
    seed: int = 0
    batches: int = 1  # that a step's examples are cut into (gradient accumulation)
    clip: float = 0.0  # largest norm of the gradient (0: any)
    precision: str = "no"  # no | bf16 | tf32
    score: str = ""  # column of the evaluation whose best epoch is kept ("": the last epoch)
    patience: int = 0  # epochs without a better score that end the training (0: never)
    evaluate_every: int = 1  # epochs (and after the last)
    from_zero: bool = False  # evaluate before the first step, too (epoch 0, never kept)
    checkpoint_every: int = 0  # steps (0: none, for what takes seconds)
    label: str = ""


@dataclass
class Task:
    """What is trained. The model is changed in place: hand in a copy of what you want to keep."""

    model: nn.Module
    examples: Callable[[int], np.ndarray]  # step -> the examples that it hears
    # (model, examples, step) -> mean loss
    loss: Callable[[nn.Module, np.ndarray, int], torch.Tensor]
    optimisers: list[torch.optim.Optimizer]
    schedules: list = field(default_factory=list)
    # -> columns of the history; what is a tensor goes with the kept epoch's weights instead
    evaluate: Callable[[nn.Module, int], dict] = lambda model, epoch: {}
    after: Callable[[int], None] = lambda step: None  # called after each step
    also: dict = field(default_factory=dict)  # further state_dict holders that a checkpoint keeps
    kept: nn.Module | None = None  # whose weights are judged and kept (None: the model's)


@dataclass(frozen=True)
class Result:
    """What a training leaves: the kept epoch, and the history of all."""

    weights: dict[str, torch.Tensor]  # of the kept epoch
    answers: dict[str, torch.Tensor]  # the tensors of its evaluation
    epoch: int  # its number
    history: pd.DataFrame  # one row an epoch: epoch, train_loss, evaluation (empty: not due)


def shuffled(
    rows: np.ndarray, batch: int, *key, heard: int = 0
) -> tuple[Callable[[int], np.ndarray], int]:
    """What each step hears of `rows`, in an order of its own each epoch; and steps an epoch.

    `key`: of the order, whose generator adds the epoch; `heard`: rows an epoch (0: all).
    """
    heard = heard or len(rows)
    per_epoch = -(-heard // batch)

    @functools.lru_cache(1)
    def order(epoch: int) -> np.ndarray:
        return rows[generator_for(*key, epoch).permutation(len(rows))[:heard]]

    def examples(step: int) -> np.ndarray:
        epoch, place = divmod(step, per_epoch)
        return order(epoch + 1)[place * batch : (place + 1) * batch]

    return examples, per_epoch


def accelerator_for(precision: str) -> Accelerator:
    """An accelerator of this precision, also where the same process had one of another."""
    wanted = "bf16" if precision == "bf16" else "no"
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != wanted:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=wanted, cpu=not torch.cuda.is_available())


def train(task: Task, plan: Plan, folder: Path | None = None) -> Result:
    """Train `task.model` as planned.

    With a `folder`, a checkpoint there lets a killed training go on.
    """
    accelerator = accelerator_for(plan.precision)
    model = _placed(accelerator, task)
    holders = {"model": model} | {f"optimiser{i}": o for i, o in enumerate(task.optimisers)}
    holders |= {f"schedule{i}": s for i, s in enumerate(task.schedules)} | task.also
    kept = _Kept(folder, holders)
    progress = kept.load()

    def close(epoch: int, loss: float) -> None:
        due = epoch % plan.evaluate_every == 0 or epoch * plan.per_epoch >= plan.steps
        found = task.evaluate(task.kept or model, epoch) if due else {}
        answers = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)}
        row = {k: v for k, v in found.items() if k not in answers}
        progress.history.append({"epoch": epoch, "train_loss": loss} | row)
        score = row.get(plan.score, -np.inf) if plan.score else epoch
        if epoch and score > progress.best:
            progress.best = float(score)
            progress.best_epoch = epoch
            kept.keep(task.kept or model, answers)

    def waited(epoch: int) -> bool:
        return bool(plan.patience) and epoch - progress.best_epoch >= plan.patience

    if plan.from_zero and not progress.history:
        close(0, float("nan"))
    bar = tqdm(
        total=plan.steps,
        initial=progress.step,
        unit="step",
        desc=plan.label,
        disable=not plan.label,
        mininterval=1.0,
    )
    with bar:
        for step in range(progress.step, plan.steps):
            if step % plan.per_epoch == 0 and waited(step // plan.per_epoch):
                break
            progress.loss += one_step(accelerator, model, task, plan, step)
            for schedule in task.schedules:
                schedule.step()
            task.after(step)
            progress.step = step + 1
            bar.update(1)
            closes = (step + 1) % plan.per_epoch == 0 or step + 1 == plan.steps
            if closes:
                epoch = step // plan.per_epoch + 1
                heard = (step % plan.per_epoch) + 1
                loss = _over_processes(accelerator, progress.loss) / heard
                if not np.isfinite(loss):
                    raise Diverged(
                        f"training {plan.label} diverged in epoch {epoch} (the loss is not "
                        "finite): lower its learning rate."
                    )
                progress.loss = 0.0
                close(epoch, loss)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if plan.checkpoint_every and ((step + 1) % plan.checkpoint_every == 0 or closes):
                kept.save(progress, _over_processes(accelerator, progress.loss))
    weights, answers = kept.chosen()
    return Result(weights, answers, progress.best_epoch, pd.DataFrame(progress.history))


def _placed(accelerator: Accelerator, task: Task) -> nn.Module:
    """The model on its device; with several processes it begins in all as in the first one."""
    model = task.model.to(accelerator.device)
    if task.kept is not None:
        task.kept.to(accelerator.device)
    if accelerator.num_processes > 1:
        with torch.no_grad():
            for value in model.state_dict().values():
                value.copy_(broadcast(value))
    return model


def _over_processes(accelerator: Accelerator, value: float | torch.Tensor) -> float:
    """The sum of every process's `value`."""
    there = torch.as_tensor(value, dtype=torch.float64, device=accelerator.device)
    return float(accelerator.reduce(there))


def one_step(
    accelerator: Accelerator, model: nn.Module, task: Task, plan: Plan, step: int
) -> torch.Tensor:
    """One step of the optimisers.

    Returns this process's share of the mean loss over the step's examples.
    """
    examples = task.examples(step)
    total = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    ranks = accelerator.num_processes
    # dropout has a seed of its own for every step and process, so that a resumed run draws the same
    _seed(seed_for(plan.seed, "step", step, accelerator.process_index))
    model.train()
    parts = np.array_split(examples, min(plan.batches, len(examples)))
    for part in parts:
        own = part[accelerator.process_index :: ranks]
        # (a process without an example of its own adds nought)
        with accelerator.autocast() if plan.precision == "bf16" else contextlib.nullcontext():
            loss = task.loss(model, own if len(own) else part[:1], step)
            loss = loss * (len(own) / len(examples))
        loss.backward()
        total += loss.detach().double()  # (not .item(), which would wait for a GPU at every step)
    if ranks > 1:
        _add_gradients(accelerator, model)
    if plan.clip:
        nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
    for optimiser in task.optimisers:
        optimiser.step()
        optimiser.zero_grad()
    return total


def _add_gradients(accelerator: Accelerator, model: nn.Module) -> None:
    """Every process's gradients become the sum of all; running statistics become their mean."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    running = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
    for values, how in ((gradients, "sum"), (running, "mean")):
        if values:
            joint = accelerator.reduce(torch.cat([v.flatten() for v in values]), how)
            for value, part in zip(values, joint.split([v.numel() for v in values]), strict=True):
                value.copy_(part.view_as(value))


def _seed(seed: int) -> None:
    """torch.manual_seed without its search for other devices.

    That takes longer than a step of a head.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


@dataclass
class _Progress:
    """How far a training has come: what a checkpoint keeps beside the weights."""

    step: int = 0  # the next one
    loss: float | torch.Tensor = 0.0  # summed over the steps of the epoch so far
    history: list[dict] = field(default_factory=list)  # one row an epoch
    best: float = -np.inf
    best_epoch: int = 0


@dataclass
class _Kept:
    """The checkpoint of a training and the weights of its best epoch; on disk, given a folder."""

    folder: Path | None
    holders: dict  # name -> what has a state_dict
    best: dict | None = None

    def keep(self, model: nn.Module, answers: dict) -> None:
        weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        self.best = {"weights": weights, "answers": {k: v.cpu() for k, v in answers.items()}}
        if self.folder:
            _write(self.folder / "best.pt", self.best)

    def chosen(self) -> tuple[dict, dict]:
        if self.best is None:
            raise PaperError(
                "a training of no epoch has no weights to keep: plan one epoch or more."
            )
        return self.best["weights"], self.best["answers"]

    def save(self, progress: _Progress, loss: float) -> None:
        if self.folder:
            parts = {name: one.state_dict() for name, one in self.holders.items()}
            _write(
                self.folder / "checkpoint.pt", parts | {"state": asdict(progress) | {"loss": loss}}
            )

    def load(self) -> _Progress:
        """Put back what a killed training had saved; its progress, or that of a new one."""
        if self.folder is None or not (self.folder / "checkpoint.pt").exists():
            return _Progress()
        saved = torch.load(self.folder / "checkpoint.pt", map_location="cpu", weights_only=True)
        for name, one in self.holders.items():
            one.load_state_dict(saved[name])
        progress = _Progress(**saved["state"])
        if machine.rank():
            progress.loss = 0.0  # (what is saved is the sum over processes)
        if progress.best_epoch:
            self.best = torch.load(self.folder / "best.pt", weights_only=True)
        return progress


def _write(path: Path, value: dict) -> None:
    if machine.rank() == 0:
        torch.save(value, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)
