"""The head on frozen embeddings (notebook 02, section 3) and end-to-end fine-tuning (notebook 03)."""

from __future__ import annotations

import copy
import math
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset as TorchDataset
from tqdm import tqdm

from . import PaperError, codec, keyed, machine, metrics, paths, provenance
from .dataset import Dataset
from .embedding import Lowered, embed_dataset, embed_rows, halfway_up, pool
from .profiles import Profile, subset
from .recognizer import EffectRecognizer, Head, load

HEAD_PARAMETERS = ("seed", "threads", "hidden", "dropout", "head_rate", "head_batch", "head_epochs", "head_patience", "weight_decay")
FINETUNE_PARAMETERS = ("seed", "threads", "pooling", "finetune_start", "weight_decay", "dropout", "warmup", "mixed_precision")
PAPER_RATES = (1e-5, 1e-3)  # of encoder and head (Section 2.3.2)


def bce(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Eq. 4: binary cross-entropy, summed over the 13 labels and averaged over the batch."""
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / len(logits)


def judge(logits: torch.Tensor, truth: np.ndarray) -> dict[str, float]:
    """Validation loss, macro-F1 at 0.5 and mean average precision."""
    probability = torch.sigmoid(logits).numpy()
    return {
        "validation_loss": float(bce(logits, torch.from_numpy(truth))),
        "validation_macro_f1": metrics.scores(truth, probability > 0.5)["macro_f1"],
        "validation_map": metrics.mean_average_precision(truth, probability),
    }


# --- the head on frozen embeddings ------------------------------------------------------------------------------------


@machine.one_thread()
def train_head(x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray, profile: Profile, standardise: bool = True) -> tuple[Head, pd.DataFrame]:
    """Train Eq. 3 on embeddings (clips, inputs) and labels (clips, 13): AdamW at a constant rate, the epoch with the best
    validation macro-F1 kept, stopped after `head_patience` epochs without a better one. Returns the head in eval mode and one row an epoch."""
    torch.manual_seed(profile.seed)
    x, y, x_val = (torch.from_numpy(np.ascontiguousarray(a)).float() for a in (x, y, x_val))
    head = Head(x.shape[1], profile.hidden, profile.dropout)
    if standardise:
        head.fit_scaling(x)
    optimiser = torch.optim.AdamW(head.parameters(), lr=profile.head_rate, betas=(0.9, 0.999), weight_decay=profile.weight_decay)
    best, best_f1, history = None, -1.0, []
    for epoch in range(1, profile.head_epochs + 1):
        order = torch.from_numpy(keyed(profile.seed, "head", epoch).permutation(len(x)))
        head.train()
        total = 0.0
        for rows in order.split(profile.head_batch):
            loss = bce(head(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(rows)
        head.eval()
        with torch.inference_mode():
            seen = judge(head(x_val), y_val)
        history.append({"epoch": epoch, "train_loss": total / len(x)} | seen)
        if seen["validation_macro_f1"] > best_f1:
            best, best_f1, best_epoch = copy.deepcopy(head.state_dict()), seen["validation_macro_f1"], epoch
        elif epoch - best_epoch >= profile.head_patience:
            break
    head.load_state_dict(best)
    return head, pd.DataFrame(history)


def fit_head(profile: Profile, data: Dataset, statistics: np.ndarray, name: str, pooling: str, standardise: bool) -> tuple[np.ndarray, pd.DataFrame]:
    """Stage data/<profile>/models/<name>: a head trained on an embedding array; (clips, 13) probabilities of *all* clips, history."""
    machine.settle(profile.threads)
    folder = paths.data(profile.profile) / "models" / name
    parameters = subset(profile, *HEAD_PARAMETERS) | {"pooling": pooling, "standardise": standardise}
    inputs = {"dataset": data.content, "embedding": provenance.array_digest(np.asarray(statistics))}
    stage = provenance.Stage(folder, parameters, inputs, ("training", "recognizer", "embedding", "metrics"))
    if not stage.current():
        work = stage.begin()
        x = np.asarray(pool(statistics, pooling))
        train, val = data.rows("train"), data.rows("validation")
        head, history = train_head(x[train], data.labels[train], x[val], data.labels[val], profile, standardise)
        with torch.inference_mode():
            probability = torch.sigmoid(head(torch.from_numpy(x.astype(np.float32)))).numpy()
        save_file(head.state_dict(), work / "head.safetensors")
        np.save(work / "probabilities.npy", probability)
        history.to_csv(work / "history.csv", index=False)
        stage.finish(provenance.array_digest(probability))
    return np.load(folder / "probabilities.npy"), pd.read_csv(folder / "history.csv")


def load_head(profile: Profile, name: str, dataset: str = "") -> Head:
    """The head of a finished stage data/<profile>/models/<name>, made from the data set whose content hash is `dataset`."""
    folder = paths.data(profile.profile) / "models" / name
    provenance.require(folder, "02_frozen_embeddings", dataset)
    state = load_file(folder / "head.safetensors")
    head = Head(len(state["mean"]), len(state["layers.0.bias"]), profile.dropout)
    head.load_state_dict(state)
    return head.eval()


# --- end to end -------------------------------------------------------------------------------------------------------


class Clips(TorchDataset):
    """(audio (samples,) or activations (channels, frames) float32, labels (13,) float32) for each of `rows`; of `length` samples or
    frames, drawn for each clip from its own generator (its key begins with `key`), or whole (0)."""

    def __init__(self, data: Dataset | Lowered, rows: np.ndarray, length: int = 0, key: tuple = ()):
        self.data, self.rows, self.length, self.key = data, rows, length, key

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int):
        row = self.rows[i]
        clip = self.data.clips(row)
        if 0 < self.length < clip.shape[-1]:
            start = keyed(*self.key, int(row)).integers(clip.shape[-1] - self.length + 1)
            clip = np.ascontiguousarray(clip[..., start : start + self.length])
        return torch.from_numpy(clip), torch.from_numpy(self.data.labels[row])


def starting_point(profile: Profile, dataset: str = "") -> EffectRecognizer:
    """Pretrained codec and head as fine-tuning begins: the head already trained on frozen embeddings (of the data set whose
    content hash is `dataset`), or a fresh one."""
    head = load_head(profile, "frozen", dataset)
    if profile.finetune_start == "fresh_head":
        mean, scale = head.mean.clone(), head.scale.clone()
        torch.manual_seed(profile.seed)
        head = Head(len(mean), profile.hidden, profile.dropout)
        head.mean.copy_(mean), head.scale.copy_(scale)
    return EffectRecognizer.assemble(codec.load(profile.codec), head, profile.pooling)


def predict(model: EffectRecognizer, data: Dataset | Lowered, rows: np.ndarray, label: str = "") -> tuple[np.ndarray, torch.Tensor]:
    """(rows, 3, channels) embeddings and (rows, 13) logits of `model` in eval mode."""
    statistics = np.empty((len(rows), 3, model.network["feature_dim"]), np.float32)
    embed_rows(model.baked_encoder(), data, rows, statistics, label=label)
    return statistics, head_logits(model, statistics)


def head_logits(model: EffectRecognizer, statistics: np.ndarray) -> torch.Tensor:
    """(rows, 13) logits of the model's head in eval mode for (rows, 3, channels) embeddings."""
    head = copy.deepcopy(model.head).cpu().eval()
    with torch.inference_mode():
        return head(torch.from_numpy(np.ascontiguousarray(pool(statistics, model.pooling))))


def finetune_upper(profile: Profile, data: Dataset, name: str = "upper", **more) -> tuple[EffectRecognizer, pd.DataFrame]:
    """`finetune` for what lies at the frame rate: the encoder's last units, the attention and the head.

    What is below stays as pretrained, so that each clip goes through it once: a clip then costs a fifth. A step
    hears `upper_seconds` of its clips. Muon steps along all directions of a matrix's gradients alike, where Adam's steps are as long as the
    rate in every weight, noise or not. No early stop: the rate has to fall to its end. `more` as in `finetune`.
    """
    lowered = Lowered(data, halfway_up(profile, data))
    if "start" not in more:
        more["start"] = early_start(profile, data) if profile.finetune_start == "early_head" else starting_point(profile, data.content)
    pretrained = codec.load(profile.codec).encoder.blocks[:-2].state_dict()
    if not all(torch.equal(v, pretrained[k]) for k, v in more["start"].encoder.encoder.blocks[:-2].state_dict().items()):
        raise PaperError(f"the start of {name} has another lower half than the pretrained codec, through which the clips went: begin with the codec's own, or use finetune.")
    share = profile.upper_seconds / data.provenance["parameters"]["slice_seconds"]
    own = {"encoder_rate": profile.upper_rate, "head_rate": profile.upper_head_rate, "batch": profile.upper_batch, "epochs": profile.upper_epochs, "share": share, "muon": profile.upper_optimiser == "muon"}
    return finetune(profile, data, name, accumulation=1, clips=0, lowered=lowered, **own | more)


def early_start(profile: Profile, data: Dataset) -> EffectRecognizer:
    """`starting_point` with the frozen model's head as it was early: one that knows the training clips by heart has little gradient to pass
    on, and each move of the encoder makes it wrong with confidence."""
    model = starting_point(profile, data.content)
    history = pd.read_csv(paths.data(profile.profile) / "models" / "frozen" / "history.csv")
    model.head.load_state_dict(early_head(profile, history, *head_data(profile, data, data.rows("train"), data.rows("validation"))).state_dict())
    return model


def head_data(profile: Profile, data: Dataset, train: np.ndarray, validation: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `train_head` learns from: pooled frozen embeddings and labels of the rows `train`, then of `validation`."""
    x = np.asarray(pool(embed_dataset(profile, data, "frozen"), profile.pooling))
    return x[train], data.labels[train], x[validation], data.labels[validation]


def early_head(profile: Profile, history: pd.DataFrame, *clips: np.ndarray) -> Head:
    """The best head (macro-F1) up to the epoch at which `history` has its lowest validation loss."""
    brief = replace(profile, head_epochs=int(history.epoch[history.validation_loss.idxmin()]))
    return train_head(*clips, brief, profile.standardise)[0]


def finetune(
    profile: Profile, data: Dataset, name: str = "finetuned", encoder_rate: float | None = None, head_rate: float | None = None, epochs: int | None = None,
    start: EffectRecognizer | None = None, train_rows: np.ndarray | None = None, validation_rows: np.ndarray | None = None,
    batch: int | None = None, accumulation: int | None = None, clips: int | None = None, lowered: Lowered | None = None, muon: bool = False, share: float = 0.0, checkpoint_every: int = 8,
) -> tuple[EffectRecognizer, pd.DataFrame]:  # fmt: skip
    """Stage data/<profile>/models/<name>: encoder and head trained together (Eq. 5) through accelerate.

    AdamW, two rates (an `encoder_rate` of 0 leaves the encoder frozen: the control), warm-up, cosine annealing, gradient accumulation; of the
    epochs trained, the one with the best validation macro-F1 is kept, and `finetune_patience` without a better one end it. Epoch 0 in the
    history is the starting point itself, for comparison only. A checkpoint every `checkpoint_every` optimiser steps lets a killed run go on
    to the same result. What is not given is the profile's; `start` by default the frozen encoder with its head; a step hears the `share` of
    its clips (0: all). Returns the best model and one row an epoch.
    """
    machine.settle(profile.threads)
    given = lambda value, default: default if value is None else value
    plan = {
        "encoder_rate": given(encoder_rate, profile.encoder_rate), "head_rate": given(head_rate, profile.finetune_head_rate), "epochs": given(epochs, profile.finetune_epochs),
        "batch": given(batch, profile.finetune_batch), "accumulation": given(accumulation, profile.accumulation), "clips": given(clips, profile.finetune_clips),
        "part": "upper" if lowered else "all", "muon": muon, "beta2": 0.98 if lowered else 0.999,  # (many short steps: a shorter memory)
        "share": share, "patience": given(epochs, profile.finetune_epochs) if lowered else profile.finetune_patience,
    }  # fmt: skip
    begun, start = start, start or starting_point(profile, data.content)
    train_rows, validation_rows = given(train_rows, data.rows("train")), given(validation_rows, data.rows("validation"))
    folder = paths.data(profile.profile) / "models" / name
    weights = provenance.array_digest(*(v.numpy() for v in start.state_dict().values()))
    inputs = {"dataset": data.content, "start": weights, "rows": provenance.array_digest(train_rows, validation_rows)}
    stage = provenance.Stage(folder, subset(profile, *FINETUNE_PARAMETERS) | plan, inputs, ("training", "recognizer", "embedding", "metrics", "codec"))
    if not stage.current():
        # epoch 0 of the usual start is known: no need to embed the clips again
        start_logits = None if begun else head_logits(start, embed_dataset(profile, data, "frozen")[validation_rows])
        _finetune(stage, profile, lowered or data, start, train_rows, validation_rows, plan, checkpoint_every, name, start_logits)
    return load(folder), pd.read_csv(folder / "history.csv")


def warm_cosine(optimiser, steps: int, warmup: float) -> torch.optim.lr_scheduler.LambdaLR:
    """The rate rises along a line over the share `warmup` of all `steps`, then falls along half a cosine to zero."""
    rise = warmup * steps
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: (s + 1) / (rise + 1) if s < rise else 0.5 + 0.5 * math.cos(math.pi * (s - rise) / max(1, steps - rise)))


def optimisers(trained: list[torch.nn.Parameter], head: Head, plan: dict, weight_decay: float) -> list[torch.optim.Optimizer]:
    """AdamW with a rate for the parameters `trained` of the encoder and one for the head; or (`muon`) Muon with the encoder's rate for its
    matrices, and AdamW with the head's rate for the rest (Jordan et al., 2024: momentum, made orthogonal by a few Newton-Schulz steps)."""
    matrices = [p for p in trained if plan["muon"] and p.ndim == 2 and min(p.shape) >= 64]
    others = [p for p in trained if not any(p is m for m in matrices)]
    groups = [{"params": others, "lr": plan["head_rate" if matrices else "encoder_rate"]}, {"params": head.parameters(), "lr": plan["head_rate"]}]
    adam = torch.optim.AdamW(groups, betas=(0.9, plan["beta2"]), weight_decay=weight_decay)
    return [adam] + ([torch.optim.Muon(matrices, lr=plan["encoder_rate"], weight_decay=0.0, adjust_lr_fn="match_rms_adamw")] if matrices else [])


def _finetune(stage, profile, data, model, train_rows, validation_rows, plan, checkpoint_every, name, start_logits) -> None:
    work = stage.begin()
    truth, epochs, encoder_rate = data.labels[validation_rows], plan["epochs"], plan["encoder_rate"]
    per_epoch = min(plan["clips"] or len(train_rows), len(train_rows))
    accumulation = max(1, min(plan["accumulation"], per_epoch // plan["batch"]))
    per_step = plan["batch"] * accumulation
    steps = -(-per_epoch // per_step)  # of the optimiser, an epoch
    trained = model.encoder.upper_parameters() if plan["part"] == "upper" else list(model.encoder.parameters())
    model.encoder.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(encoder_rate > 0)
    accelerator = Accelerator(gradient_accumulation_steps=accumulation, mixed_precision=profile.mixed_precision, cpu=not torch.cuda.is_available())
    steppers = optimisers(trained, model.head, plan, profile.weight_decay)
    schedules = [warm_cosine(optimiser, epochs * steps, profile.warmup) for optimiser in steppers]
    model, *steppers = accelerator.prepare(model, *steppers)
    length = round(plan["share"] * data.clips(0).shape[-1])
    state = {"epoch": 1, "step": 0, "loss": 0.0, "history": [], "best_f1": -1.0, "best_epoch": 0}
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=accelerator.device, weights_only=True)
        accelerator.unwrap_model(model).load_state_dict(saved["model"])
        for kept, now in ((saved["optimisers"], steppers), (saved["schedules"], schedules)):
            for state_of, one in zip(kept, now):
                one.load_state_dict(state_of)
        state = saved["state"]

    def save() -> None:
        whole = {"model": accelerator.unwrap_model(model).state_dict(), "state": state}
        whole |= {name: [one.state_dict() for one in kind] for name, kind in (("optimisers", steppers), ("schedules", schedules))}
        torch.save(whole, checkpoint.with_suffix(".new"))
        os.replace(checkpoint.with_suffix(".new"), checkpoint)

    def close_epoch(epoch: int, train_loss: float) -> None:
        plain = accelerator.unwrap_model(model)
        logits = start_logits if epoch == 0 else None
        if logits is None:
            _, logits = predict(plain, data, validation_rows, f"validation, epoch {epoch}")
        seen = judge(logits, truth)
        state["history"].append({"epoch": epoch, "train_loss": train_loss} | seen)
        if epoch and seen["validation_macro_f1"] > state["best_f1"]:
            state.update(best_f1=seen["validation_macro_f1"], best_epoch=epoch)
            plain.save_pretrained(work / "best")
            np.save(work / "validation_probabilities.npy", torch.sigmoid(logits).numpy())

    if not state["history"]:
        close_epoch(0, float("nan"))
    with tqdm(total=epochs * steps, initial=(state["epoch"] - 1) * steps + state["step"], unit="step", desc=f"fine-tuning {name}") as bar:
        for epoch in range(state["epoch"], epochs + 1):
            if epoch - 1 - state["best_epoch"] >= plan["patience"]:
                break
            rows = train_rows[keyed(profile.seed, "finetune", epoch).permutation(len(train_rows))[:per_epoch]]
            loader = DataLoader(Clips(data, rows[state["step"] * per_step :], length, (profile.seed, "excerpt", epoch)), batch_size=plan["batch"])
            model.train()
            fresh = True
            for audio, labels in accelerator.prepare(loader):
                if fresh:  # dropout has a key of its own for every step, so that a resumed run draws the same
                    torch.manual_seed(int(keyed(profile.seed, "dropout", epoch, state["step"]).integers(2**31)))
                with accelerator.accumulate(model):
                    loss = bce(model(audio), labels)
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    for optimiser in steppers:
                        optimiser.step()
                        optimiser.zero_grad()
                state["loss"] += loss.item() * len(audio)
                fresh = accelerator.sync_gradients
                if fresh:
                    for schedule in schedules:
                        schedule.step()
                    state["step"] += 1
                    bar.update(1)
                    bar.set_postfix(loss=f"{state['loss'] / min(state['step'] * per_step, per_epoch):.3f}")
                    if state["step"] % checkpoint_every == 0:
                        save()
            if not np.isfinite(state["loss"]):
                raise PaperError(f"training {name} diverged in epoch {epoch} (the loss is not finite): lower encoder_rate, now {encoder_rate:g}.")
            close_epoch(epoch, state["loss"] / per_epoch)
            state.update(epoch=epoch + 1, step=0, loss=0.0)
            save()
    if (work / "best").exists():  # not if a run was killed after these lines
        for file in (work / "best").iterdir():
            os.replace(file, work / file.name)
        (work / "best").rmdir()
    pd.DataFrame(state["history"]).to_csv(work / "history.csv", index=False)
    stage.finish(provenance.digest(work / "model.safetensors"), best_epoch=state["best_epoch"])


def predictions(profile: Profile, data: Dataset, model: EffectRecognizer, name: str = "finetuned", split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Stage data/<profile>/predictions_<name>_<split>: embeddings (clips of the split, 3, channels) and probabilities (clips, 13)."""
    machine.settle(profile.threads)
    folder = paths.data(profile.profile) / f"predictions_{name}_{split}"
    weights = provenance.array_digest(*(v.numpy() for v in model.state_dict().values()))
    stage = provenance.Stage(folder, {"threads": profile.threads}, {"dataset": data.content, "model": weights}, ("training", "embedding", "recognizer", "codec"))
    if not stage.current():
        work = stage.begin()
        statistics, logits = predict(model, data, data.rows(split), f"{split}, {name}")
        np.save(work / "embedding.npy", statistics)
        np.save(work / "probabilities.npy", torch.sigmoid(logits).numpy())
        stage.finish(provenance.array_digest(statistics, torch.sigmoid(logits).numpy()))
    return np.load(folder / "embedding.npy"), np.load(folder / "probabilities.npy")
