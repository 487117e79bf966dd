"""Encoder and head trained together (Section 2.3.2; notebook 03)."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..codec import l3ac
from ..codec.encoder import Encoder
from ..core import graphs, loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import generator_for, seed_for
from ..sound import variation
from ..sound.dataset import Dataset
from . import beyond_labels, features
from .beyond_labels import Beside, Dense, mixed, partners
from .features import EncodedClips
from .head import Examples, Head, bce, load_head, train_head, validation_scores
from .model import EffectRecognizer, load
from .optimisers import Rates, optimisers, warm_cosine

PAPER_RATES = (1e-5, 1e-3)  # of encoder and head (Section 2.3.2)


@dataclass(frozen=True)
class Recipe:
    """One fine-tuning: what of the encoder is trained, on how much, how fast, for how long."""

    rates: Rates
    epochs: int
    batch: int
    accumulation: int = 1
    clips: int = 0  # an epoch, drawn anew (0: all)
    # of the encoder: all | above_first (all but what runs at the rate of the audio) | upper (its
    # last units and the attention)
    part: str = "all"
    share: float = 0.0  # of a clip that a step hears (0: all of it)
    varied: bool = False  # each time as another recording (`variation.as_recorded_otherwise`)
    # with another chain of the same slice, weights and labels alike (mixup: Zhang et al., 2018)
    mixed: bool = False
    pairs: bool = False  # a batch holds two chains of each of its slices
    dense: float = 0.0  # weight of saying, at each frame, what another network makes of the clip
    average: float = 0.0  # of the weights, a step's share that stays (0: none; they are kept)
    patience: int = 0  # epochs without a better one (0: no early stop)
    evaluate_every: int = 1  # epochs
    warmup: float = 0.1
    precision: str = "no"
    seed: int = 0
    checkpoint_every: int = 32  # steps


def end_to_end(profile: Profile, **changes) -> Recipe:
    """The profile's end-to-end training (Eq. 5), with `changes` on top."""
    muon, decay = profile.finetune_optimiser == "muon", profile.weight_decay
    epochs = changes.get("epochs", profile.finetune_epochs)
    recipe = Recipe(
        rates=Rates(
            profile.encoder_rate, profile.finetune_head_rate, muon, 0.98 if muon else 0.999, decay
        ),
        epochs=epochs,
        batch=profile.finetune_batch,
        accumulation=profile.accumulation,
        clips=profile.finetune_clips,
        part=profile.finetune_part,
        share=profile.finetune_seconds / profile.slice_seconds,
        varied=profile.finetune_varied,
        patience=profile.finetune_patience,
        evaluate_every=1 if profile.finetune_patience else max(2, epochs // 12),
        warmup=profile.warmup,
        precision=profile.mixed_precision,
        seed=profile.seed,
    )
    return dataclasses.replace(recipe, **changes)


def upper_half(profile: Profile, **changes) -> Recipe:
    """The profile's training of what lies at the frame rate, with `changes` on top.

    What is below stays as pretrained, so that each clip goes through it once: a clip then costs a
    fifth. Muon steps along all directions of a matrix's gradients alike, where Adam's steps are as
    long as the rate in every weight, noise or not. No early stop: the rate has to fall to its end.
    """
    muon, decay = profile.upper_optimiser == "muon", profile.weight_decay
    recipe = Recipe(
        # (many short steps: a shorter memory)
        rates=Rates(profile.upper_rate, profile.upper_head_rate, muon, 0.98, decay),
        epochs=profile.upper_epochs,
        batch=profile.upper_batch,
        part="upper",
        evaluate_every=2,
        share=profile.upper_seconds / profile.slice_seconds,
        warmup=profile.warmup,
        precision=profile.mixed_precision,
        seed=profile.seed,
    )
    return dataclasses.replace(recipe, **changes)


def paper_rates(profile: Profile) -> Recipe:
    """End to end at the paper's two rates, for comparison."""
    rates = Rates(*PAPER_RATES, weight_decay=profile.weight_decay)
    return end_to_end(profile, rates=rates, epochs=profile.contrast_epochs)


# --- where a training begins ----------------------------------------------------------------------


def starting_point(
    profile: Profile, data: Dataset, seed: int = 0, head: str = ""
) -> EffectRecognizer:
    """Pretrained codec and head as fine-tuning begins.

    `head` is by default the profile's `finetune_start`: `frozen_head`, the one trained on frozen
    embeddings (training seed `seed`); `early_head`, the same as it was early; `fresh_head`, the
    paper's text.
    """
    kind, trained = head or profile.finetune_start, load_head(profile, data, seed)
    if kind == "fresh_head":
        with torch.random.fork_rng():
            torch.manual_seed(profile.seed + seed)
            fresh = Head(len(trained.mean), profile.hidden, profile.dropout)
        trained.layers = fresh.layers
    elif kind == "early_head":
        history = pd.read_csv(paths.model(profile.profile, "frozen", seed) / "history.csv")
        train, validation = head_data(profile, data)
        trained = early_head(profile, history, train, validation, profile.seed + seed)
    return EffectRecognizer.assemble(l3ac.load(profile.codec), trained.eval(), profile.pooling)


def head_data(
    profile: Profile, data: Dataset, rows: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[Examples, Examples]:
    """What `train_head` learns from: inputs and labels of training and validation rows.

    `rows`: of the two; by default all.
    """
    x = np.asarray(features.pool(features.embed_dataset(profile, data, "frozen"), profile.pooling))
    train, validation = rows or (data.rows("train"), data.rows("validation"))
    return (x[train], data.labels[train]), (x[validation], data.labels[validation])


def early_head(
    profile: Profile,
    history: pd.DataFrame,
    train: Examples,
    validation: Examples,
    seed: int | None = None,
) -> Head:
    """The best head up to the epoch at which `history` has its lowest validation loss.

    One that knows the training clips by heart has little gradient to pass on, and each move of the
    encoder makes it wrong with confidence.
    """
    epochs = int(history.epoch[history.validation_loss.idxmin()])
    brief = dataclasses.replace(profile, head_epochs=epochs)
    return train_head(train, validation, brief, profile.standardise, seed)[0]


# --- training -------------------------------------------------------------------------------------


def finetune(
    profile: Profile,
    data: Dataset,
    recipe: Recipe,
    start: EffectRecognizer,
    name: str = "finetuned",
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    beside: Beside = Beside(),
) -> tuple[EffectRecognizer, pd.DataFrame]:
    """Stage data/<profile>/models/<name>: `start`, left as it is, trained by `recipe`.

    Of the epochs trained the one with the best validation macro-F1 is kept; epoch 0 of the history
    is the start itself, for comparison only. A checkpoint every few steps lets a killed run go on
    to the same result. `rows`: to train and to choose on; by default those splits. Returns the
    model and its history.
    """
    rows = rows or (data.rows("train"), data.rows("validation"))
    inputs = {
        "dataset": data.content,
        "start": features.weights_digest(start),
        "rows": stages.array_digest(*rows),
    }
    clips: Dataset | EncodedClips = data
    if recipe.part == "upper":
        clips, inputs["embedding"] = half_way(profile, data, start, rows[0])
    given = {key: value for key, value in vars(beside).items() if value is not None}
    inputs |= {key: stages.array_digest(value) for key, value in given.items()}
    parameters = dataclasses.asdict(recipe) | {"pooling": profile.pooling}
    del parameters["checkpoint_every"]
    for key in ("mixed", "pairs", "dense"):
        if not parameters[key]:
            del parameters[key]  # (so that older runs stand)
    # (here: what is half-way up may have been made in this process, with one thread)
    machine.make_deterministic(profile.threads, profile.mixed_precision == "tf32")
    threads = machine.torch_threads(profile.threads)
    made = stages.Stage(
        "finetuned", paths.model(profile.profile, name), parameters, inputs, threads
    )
    with made.opened() as work:
        if work:
            result, model = train_recognizer(clips, start.copy(), recipe, rows, work, beside)
            if machine.rank() == 0:
                model.save_pretrained(work)
                result.history.to_csv(work / "history.csv", index=False)
                chosen = torch.sigmoid(result.answers["logits"]).numpy()
                np.save(work / "validation_probabilities.npy", chosen)
                made.finish(stages.digest(work / "model.safetensors"), best_epoch=result.epoch)
    return load(made.folder), pd.read_csv(made.folder / "history.csv")


# --- half-way up ----------------------------------------------------------------------------------


def half_way(
    profile: Profile, data: Dataset, start: EffectRecognizer, train: np.ndarray
) -> tuple[EncodedClips, str]:
    """All clips through the lower half of `start`, once; and the hash of that.

    What notebook 02 kept, if that half is still the pretrained codec's. Beside them, `upper_draws`
    times, the clips of the rows `train` as they might have been recorded otherwise.
    """
    pretrained, own = (
        features.weights_digest(network.encoder.blocks[:-2])
        for network in (l3ac.load(profile.codec), start.encoder)
    )
    folders = [paths.embedding(profile.profile, "frozen")]
    if own == pretrained:
        features.kept(profile, data, "frozen")
    else:
        folders = [_passed(profile, data, start, own, 0, np.arange(len(data)))]
    for draw in range(1, profile.upper_draws + 1):
        folders.append(_passed(profile, data, start, own, draw, train))
    plain, *otherwise = (np.load(folder / "lower.npy", mmap_mode="r") for folder in folders)
    contents = [stages.require(folder, "03_fine_tuning")["content"] for folder in folders]
    content = stages.digest(contents) if otherwise else contents[0]
    return EncodedClips(data.labels, plain, otherwise=tuple(otherwise)), content


def _passed(
    profile: Profile, data: Dataset, start: EffectRecognizer, own: str, draw: int, rows: np.ndarray
) -> Path:
    """Stage data/<profile>/half_way/<hash of the lower half>_<draw>: its folder.

    Clips of `rows` through the lower half of `start`; 0 for the others.
    """
    made = stages.Stage(
        "half_way",
        paths.data(profile.profile) / "half_way" / f"{own[:12]}_{draw}",
        {"draw": draw, "seed": profile.seed},
        {"dataset": data.content, "weights": own, "rows": stages.array_digest(rows)},
        threads=1,
    )
    with made.opened() as work:
        if work and machine.rank() == 0:  # (also amid a training of several processes)
            start.save_pretrained(work / "start")
            parts = np.array_split(rows, -(-len(rows) // features.CHUNK))
            items = {
                f"{i:05d}": (data.folder, work / "start", part, draw, profile.seed)
                for i, part in enumerate(parts)
            }
            label = f"half-way up, draw {draw}"
            files = parallel.shards(half_way_rows, items, work / "shards", label, profile.scheduler)
            first = np.load(files[0])["lower"]
            paths.new_array(work / "lower.npy", first.dtype, (len(data), *first.shape[1:]))
            out = np.lib.format.open_memmap(work / "lower.npy", "r+")
            for file, part in zip(files, parts, strict=True):
                out[part] = np.load(file)["lower"]
            out.flush()
            shutil.rmtree(work / "start")
            made.finish(stages.digest(work / "lower.npy"))
    return made.folder


def half_way_rows(
    dataset: Path, model: Path, rows: np.ndarray, draw: int, seed: int
) -> dict[str, np.ndarray]:
    """`lower`: (rows, channels, frames) float16 of clips; `draw` 0: as they are."""
    machine.make_deterministic(1)
    encoder, data = load(model).baked_encoder(), Dataset(dataset)
    encoder = encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    device, out = next(encoder.parameters()).device, []
    for row in rows:
        with torch.inference_mode(), torch.random.fork_rng():
            clip = torch.from_numpy(data.clips([row])).to(device)
            if draw:
                torch.manual_seed(seed_for(seed, "recorded otherwise", int(row), draw))
                clip = variation.as_recorded_otherwise(clip)
            out.append(encoder.lower(clip)[0].half().cpu().numpy())
    return {"lower": np.stack(out)}


# --- training of either part ----------------------------------------------------------------------


def train_recognizer(
    clips: Dataset | EncodedClips,
    model: EffectRecognizer,
    recipe: Recipe,
    rows: tuple[np.ndarray, np.ndarray],
    folder: Path | None = None,
    beside: Beside = Beside(),
) -> tuple[loop.Result, EffectRecognizer]:
    """Train `model` in place on clips (Eq. 5).

    Returns the result, and the model with the kept epoch's weights.
    """
    result = loop.train(*training_of(clips, model, recipe, rows, beside), folder)
    model = model.cpu()
    model.load_state_dict(result.weights)
    return result, model.eval()


def training_of(
    clips: Dataset | EncodedClips,
    model: EffectRecognizer,
    recipe: Recipe,
    rows: tuple[np.ndarray, np.ndarray],
    beside: Beside = Beside(),
) -> tuple[loop.Task, loop.Plan]:
    """What the loop needs to train `model` by `recipe`, on rows to learn from and to choose on."""
    train, validation = rows
    heard = min(recipe.clips or len(train), len(train))
    accumulation = max(1, min(recipe.accumulation, heard // recipe.batch))
    beyond_labels.check(recipe.mixed, recipe.pairs, recipe.dense, beside, accumulation)
    partner = partners(beside.slices, train, recipe.seed)
    heard, per_step = (n // (1 + recipe.pairs) for n in (heard, recipe.batch * accumulation))
    drawn, per_epoch = loop.shuffled(train, per_step, recipe.seed, "finetune", heard=heard)

    def examples(step: int) -> np.ndarray:
        first = drawn(step)
        return np.append(first, partner(first, "pair", step)) if recipe.pairs else first

    trained = trained_parameters(model.encoder, recipe.part)
    model.encoder.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(recipe.rates.encoder > 0)
    hear = hearing(clips, recipe, per_epoch, beside, partner)
    answers = graphs.by_graph(model) if accumulation == 1 else model
    say = beside.frames if recipe.dense else None
    dense = None if say is None else Dense(model, say, train)

    def loss(model: torch.nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        x, y, begins = hear(part, step, next(model.parameters()).device)
        if dense is None:
            return bce(answers(x), y)
        logits, away = dense(x, part, begins, recipe.share)
        return bce(logits, y) + recipe.dense * away

    def evaluate(model: EffectRecognizer, epoch: int) -> dict:
        logits = predict(model, clips, validation)[1]
        return validation_scores(logits, clips.labels[validation]) | {"logits": logits}

    with_head = model.head if dense is None else torch.nn.ModuleList([model.head, dense.line])
    steppers = optimisers(trained, with_head, recipe.rates)
    steps = recipe.epochs * per_epoch
    plan = loop.Plan(
        steps=steps,
        per_epoch=per_epoch,
        seed=recipe.seed,
        batches=accumulation,
        clip=1.0,
        precision=recipe.precision,
        score="validation_macro_f1",
        patience=recipe.patience,
        evaluate_every=recipe.evaluate_every,
        from_zero=True,
        checkpoint_every=recipe.checkpoint_every,
        label=f"{recipe.part} of the encoder",
    )
    schedules = [warm_cosine(one, steps, recipe.warmup) for one in steppers]
    task = loop.Task(model, examples, loss, steppers, schedules, evaluate)
    task.also = {} if dense is None else {"line": dense.line}
    if recipe.average:
        smooth = torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.average)
        average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=smooth)
        task.after, task.kept = lambda step: average.update_parameters(model), average.module
        task.also |= {"average": average}
    return task, plan


def hearing(
    clips: Dataset | EncodedClips, recipe: Recipe, per_epoch: int, beside: Beside, partner: Callable
) -> Callable[[np.ndarray, int, torch.device], tuple[torch.Tensor, torch.Tensor, np.ndarray]]:
    """A function of rows, step and device: excerpts, what to say of them, and where each begins.

    That is a share of its clip. partner: see `partners`.
    """
    wanted = clips.labels if beside.targets is None else beside.targets
    whole = clips.stored()[0][0].shape[-1]
    length = round(recipe.share * whole)

    def hear(part: np.ndarray, step: int, device: torch.device):
        key = (recipe.seed, "excerpt", step // per_epoch + 1)
        x = excerpts(clips, part, length, key, device)
        y = torch.from_numpy(wanted[part]).to(device)
        if recipe.mixed:
            other = partner(part, "mixed", step)
            share = generator_for(recipe.seed, "share", step).beta(0.4, 0.4, len(part))
            share = torch.from_numpy(share.astype(np.float32)).to(device)
            x = mixed(x, excerpts(clips, other, length, key, device, part), share)
            y = mixed(y, torch.from_numpy(wanted[other]).to(device), share)
        x = variation.as_recorded_otherwise(x) if recipe.varied else x
        begins = starts(clips, part, length, key) / whole if recipe.dense else np.zeros(len(part))
        return x, y, begins

    return hear


def trained_parameters(encoder: Encoder, part: str) -> list[torch.nn.Parameter]:
    """The weights of a `part` of the encoder: all | above_first | upper."""
    if part == "upper":
        return encoder.upper_parameters()
    first = encoder.first_parameters() if part == "above_first" else []
    return [p for p in encoder.parameters() if not any(p is f for f in first)]


def excerpts(
    clips: Dataset | EncodedClips,
    rows: np.ndarray,
    length: int,
    key: tuple,
    device: torch.device | str = "cpu",
    drawn: np.ndarray | None = None,
) -> torch.Tensor:
    """(rows, ..., length) of clips, on `device`; 0: whole.

    Each is begun where its own generator says, whose key begins with `key`, and taken as it is
    or as it might have been recorded otherwise, where clips have both. drawn: rows whose generators
    say it instead.
    """
    stored, scale = clips.stored()
    there = [features.on_gpu(one, device) for one in stored]
    on_gpu, whole = all(one is not None for one in there), stored[0].shape[-1]
    sources: Sequence[Any] = there if on_gpu else stored
    length = length if 0 < length < whole else whole
    spare = whole - length
    parts = []
    for row, one in zip(rows, rows if drawn is None else drawn, strict=True):
        rng = generator_for(*key, int(one))
        start = rng.integers(spare + 1) if spare else 0
        source = sources[int(rng.integers(len(sources))) if len(sources) > 1 else 0]
        parts.append(source[row, ..., start : start + length])
    joined = torch.stack(parts) if on_gpu else torch.from_numpy(np.stack(parts))
    return joined.to(device).float() * scale


def starts(clips: Dataset | EncodedClips, rows: np.ndarray, length: int, key: tuple) -> np.ndarray:
    """(rows,) where `excerpts` begins each."""
    spare = clips.stored()[0][0].shape[-1] - length
    if length <= 0 or spare <= 0:
        return np.zeros(len(rows), int)
    return np.array([generator_for(*key, int(row)).integers(spare + 1) for row in rows])


def finetune_both(
    profile: Profile, data: Dataset, seed: int = 0
) -> tuple[EffectRecognizer, dict[str, tuple[EffectRecognizer, pd.DataFrame]]]:
    """The profile's steps, one after the other, from the frozen head of training seed `seed`.

    Returns the fine-tuned model and, by name (`order`), each step's model and history.
    """
    start, steps = starting_point(profile, data, seed), {}
    suffix = f"_seed{seed}" if seed else ""
    for name, recipe in order(profile, seed).items():
        steps[name] = finetune(profile, data, recipe, start, name + suffix)
        start = steps[name][0]
    return start, steps


def order(profile: Profile, seed: int = 0) -> dict[str, Recipe]:
    """The steps of a fine-tuning by name; the last one is always "finetuned".

    Upper half, then end to end; or end to end ("whole"), then the upper half.
    """
    own = profile.seed + seed
    steps = {"whole": end_to_end(profile, seed=own)}
    if profile.upper_epochs and profile.finetune_order == "upper_first":
        steps = {"upper": upper_half(profile, seed=own)} | steps
    elif profile.upper_epochs:
        steps["upper"] = upper_half(profile, seed=own)
    *before, last = steps
    return {name: steps[name] for name in before} | {"finetuned": steps[last]}


# --- answers --------------------------------------------------------------------------------------


def predict(
    model: EffectRecognizer, clips: Dataset | EncodedClips, rows: np.ndarray
) -> tuple[np.ndarray, torch.Tensor]:
    """(rows, 3, channels) embeddings and (rows, 13) logits of `model`."""
    statistics = features.statistics_of(model.baked_encoder(), clips, rows)
    return statistics, head_logits(model, statistics)


def head_logits(model: EffectRecognizer, statistics: np.ndarray) -> torch.Tensor:
    """(rows, 3, channels) embeddings -> (rows, 13) logits of the model's head, without dropout."""
    x = torch.from_numpy(np.ascontiguousarray(features.pool(statistics, model.pooling)))
    was_training = model.head.training
    with torch.inference_mode():
        logits = model.head.eval()(x.to(model.head.mean.device)).cpu()
    model.head.train(was_training)
    return logits


def predictions(
    profile: Profile,
    data: Dataset,
    model: EffectRecognizer,
    name: str = "finetuned",
    split: str = "test",
) -> tuple[np.ndarray, np.ndarray]:
    """Stage data/<profile>/predictions_<name>_<split>.

    (clips, 3, channels) embeddings, (clips, 13) probabilities.
    """
    machine.make_deterministic(profile.threads)
    inputs = {"dataset": data.content, "model": features.weights_digest(model)}
    parameters = {"split": split, "pooling": model.pooling}
    folder = paths.predictions(profile.profile, name, split)
    made = stages.Stage("predictions", folder, parameters, inputs, threads=1)
    with made.opened() as work:
        if work:
            statistics, logits = predict(model, data, data.rows(split))
            probability = torch.sigmoid(logits).numpy()
            np.save(work / "embedding.npy", statistics)
            np.save(work / "probabilities.npy", probability)
            made.finish(stages.array_digest(statistics, probability))
    return np.load(folder / "embedding.npy"), np.load(folder / "probabilities.npy")
