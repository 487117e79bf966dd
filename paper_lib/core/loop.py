"""The one training loop: heads, fine-tuning, pretraining.

All that a step hears is a function of its number, so a training that was killed ends with the same
bytes as one that was not. With several processes (torchrun, accelerate launch) each takes its part of
every batch, the first one writes, and the losses are those of one process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from tqdm import tqdm

from . import machine
from .errors import PaperError
from .random import seed_for


@dataclass(frozen=True)
class Plan:
    """How long, how, and what is kept."""

    steps: int  # of the optimisers, in all
    per_epoch: int  # steps between two evaluations
    seed: int = 0
    batches: int = 1  # that a step's examples are cut into (gradient accumulation)
    clip: float = 0.0  # largest norm of the gradient (0: any)
    precision: str = "no"  # no | bf16 | tf32
    score: str = ""  # column of the evaluation whose best epoch is kept ("": the last epoch)
    patience: int = 0  # epochs without a better score that end the training (0: never)
    from_zero: bool = False  # evaluate before the first step, too (epoch 0, never kept)
    checkpoint_every: int = 0  # steps (0: none, for what takes seconds)
    label: str = ""


@dataclass
class Task:
    """What is trained. The model is changed in place: hand in a copy of what you want to keep."""

    model: nn.Module
    examples: Callable[[int], np.ndarray]  # step -> the examples that it hears
    loss: Callable[[nn.Module, np.ndarray, int], torch.Tensor]  # (model, examples, step) -> mean loss
    optimisers: list[torch.optim.Optimizer]
    schedules: list = field(default_factory=list)
    evaluate: Callable[[nn.Module, int], dict] = lambda model, epoch: {}  # -> columns of the history
    after: Callable[[int], None] = lambda step: None  # called after each step
    also: dict = field(default_factory=dict)  # further state_dict holders that a checkpoint keeps


@dataclass(frozen=True)
class Result:
    """Weights of the kept epoch, its number, and one row an epoch (epoch, train_loss, evaluation)."""

    weights: dict[str, torch.Tensor]
    epoch: int
    history: pd.DataFrame


def accelerator_for(precision: str) -> Accelerator:
    """An accelerator of this precision, also where the same process had one of another."""
    wanted = "bf16" if precision == "bf16" else "no"
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != wanted:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=wanted, cpu=not torch.cuda.is_available())


def train(task: Task, plan: Plan, folder: Path | None = None) -> Result:
    """Train `task.model` as planned; with a `folder`, a checkpoint there lets a killed training go on."""
    accelerator = accelerator_for(plan.precision)
    model = accelerator.prepare(task.model)
    plain = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    holders = {"model": plain} | {f"optimiser{i}": o for i, o in enumerate(task.optimisers)}
    holders |= {f"schedule{i}": s for i, s in enumerate(task.schedules)} | task.also
    state = {"step": 0, "loss": 0.0, "history": [], "best": -np.inf, "best_epoch": 0}
    kept = _Kept(folder, holders, state)
    kept.load(accelerator.device)

    def close(epoch: int, loss: float) -> None:
        row = {"epoch": epoch, "train_loss": loss} | task.evaluate(plain, epoch)
        state["history"].append(row)
        score = row[plan.score] if plan.score else epoch
        if epoch and score > state["best"]:
            state.update(best=float(score), best_epoch=epoch)
            kept.keep(plain)

    def waited(epoch: int) -> bool:
        return bool(plan.patience) and epoch - state["best_epoch"] >= plan.patience

    if plan.from_zero and not state["history"]:
        close(0, float("nan"))
    bar = tqdm(total=plan.steps, initial=state["step"], unit="step", desc=plan.label, disable=not plan.label)
    with bar:
        for step in range(state["step"], plan.steps):
            if step % plan.per_epoch == 0 and waited(step // plan.per_epoch):
                break
            state["loss"] += _step(accelerator, model, task, plan, step)
            for schedule in task.schedules:
                schedule.step()
            task.after(step)
            state["step"], epoch = step + 1, step // plan.per_epoch + 1
            bar.update(1)
            if (step + 1) % plan.per_epoch == 0 or step + 1 == plan.steps:
                heard = (step % plan.per_epoch) + 1
                loss = float(accelerator.reduce(torch.tensor(state["loss"], dtype=torch.float64))) / heard
                if not np.isfinite(loss):
                    raise PaperError(
                        f"training {plan.label} diverged in epoch {epoch} (the loss is not finite): "
                        "lower its learning rate."
                    )
                state["loss"] = 0.0
                close(epoch, loss)
                bar.set_postfix(loss=f"{loss:.3f}")
            if plan.checkpoint_every and ((step + 1) % plan.checkpoint_every == 0 or state["loss"] == 0.0):
                kept.save()
    return Result(kept.weights(), state["best_epoch"], pd.DataFrame(state["history"]))


def _step(accelerator: Accelerator, model: nn.Module, task: Task, plan: Plan, step: int) -> float:
    """One step of the optimisers; this process's share of the mean loss over the step's examples."""
    examples, total = task.examples(step), 0.0
    ranks = accelerator.num_processes
    # dropout has a seed of its own for every step and process, so that a resumed run draws the same
    _seed(seed_for(plan.seed, "step", step, accelerator.process_index))
    model.train()
    parts = np.array_split(examples, min(plan.batches, len(examples)))
    for i, part in enumerate(parts):
        own = part[accelerator.process_index :: ranks]
        weight = len(own) / len(examples)
        with accelerator.no_sync(model) if ranks > 1 and i + 1 < len(parts) else contextlib.nullcontext():
            # a process without an example of its own still takes part in the exchange of gradients
            with accelerator.autocast() if plan.precision == "bf16" else contextlib.nullcontext():
                loss = task.loss(model, own if len(own) else part[:1], step) * weight
            (loss * ranks).backward()  # (gradients are averaged over processes)
        total += loss.item()
    if plan.clip:
        nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
    for optimiser in task.optimisers:
        optimiser.step()
        optimiser.zero_grad()
    return total


def _seed(seed: int) -> None:
    """torch.manual_seed without the search for other devices, which takes longer than a head's step."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


@dataclass
class _Kept:
    """The checkpoint of a training, and the weights of its best epoch, on disk if there is a folder."""

    folder: Path | None
    holders: dict
    state: dict
    best: dict | None = None

    def keep(self, model: nn.Module) -> None:
        self.best = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        if self.folder:
            _write(self.folder / "best.pt", self.best)

    def weights(self) -> dict:
        if self.best is None:
            raise PaperError("a training of no epoch has no weights to keep: plan one epoch or more.")
        return self.best

    def save(self) -> None:
        if self.folder:
            parts = {name: one.state_dict() for name, one in self.holders.items()}
            _write(self.folder / "checkpoint.pt", parts | {"state": self.state})

    def load(self, device: torch.device) -> None:
        checkpoint = self.folder / "checkpoint.pt" if self.folder else None
        if not (checkpoint and checkpoint.exists()):
            return
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        for name, one in self.holders.items():
            one.load_state_dict(saved[name])
        self.state.update(saved["state"])
        if self.state["best_epoch"]:
            self.best = torch.load(self.folder / "best.pt", weights_only=True)


def _write(path: Path, value: dict) -> None:
    if machine.rank() == 0:
        torch.save(value, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)
