"""Methods of adaptation trained alike, and compared on the test recordings. Notebook 13."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from ..codec import l3ac
from ..codec.encoder import Encoder
from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from ..evaluation import intervals, scores
from ..recognition import features, finetune
from ..recognition.features import EncodedClips
from ..recognition.head import Head, bce, load_head, validation_scores
from ..recognition.model import EffectRecognizer
from ..recognition.optimisers import Rates, optimisers, warm_cosine
from ..sound.dataset import Dataset
from . import methods
from .methods import METHODS, Method


def starting_point(profile: Profile, data: Dataset, method: Method, seed: int) -> EffectRecognizer:
    """The pretrained codec and the frozen baseline's head, cooled, with what `method` adds."""
    head = cooled(profile, data, load_head(profile, data, seed % profile.head_seeds))
    model = EffectRecognizer.assemble(l3ac.load(profile.codec), head, profile.pooling)
    return methods.attach(model, method, profile.seed + seed).eval()


def cooled(profile: Profile, data: Dataset, head: Head) -> Head:
    """`head` itself, its logits divided by the temperature that fits validation clips.

    It knows the training clips by heart, and is too sure of all others: each move of the encoder
    would make it wrong with confidence. No answer at one half changes, nor any order of clips.
    """
    rows, embedding = data.rows("validation"), features.embed_dataset(profile, data, "frozen")
    x = torch.from_numpy(np.asarray(features.pool(embedding[rows], profile.pooling)))
    with torch.no_grad():
        temperature = scores.temperature(data.labels[rows], head.eval()(x).numpy())
        for parameter in head.layers[-1].parameters():
            parameter /= temperature
    return head


def own_weights(model: EffectRecognizer) -> dict[str, torch.Tensor]:
    """All that a training of `model` changes: what its method trains, and the head."""
    own = {f"encoder.{name}": p for name, p in methods.trained(model).items()}
    own |= {f"head.{name}": value for name, value in model.head.state_dict().items()}
    return {name: value.detach().cpu().clone() for name, value in own.items()}


@dataclass(frozen=True)
class Lesson:
    """What a training hears, what it is to answer, and what else it is judged by."""

    train: np.ndarray  # rows
    judged: np.ndarray  # rows, for the curve
    wanted: np.ndarray  # (clips, 13)
    fixed: bool = False  # of each clip the same excerpt every time, none drawn anew
    # (model, step) -> a further loss
    also: Callable[[EffectRecognizer, int], torch.Tensor] | None = None


def lesson(data: Dataset, judged: int = 200) -> Lesson:
    """All training clips and their labels; so many validation clips, drawn, for the curve."""
    rows = data.rows("validation")
    drawn = generator_for(0, "curve").choice(rows, min(judged, len(rows)), replace=False)
    return Lesson(data.rows("train"), np.sort(drawn), data.labels)


def judged(profile: Profile, data: Dataset, split: str) -> np.ndarray:
    """Rows of a split by which models are judged: `adapter_judged` of each recording, drawn."""
    if not profile.adapter_judged:
        return data.rows(split)
    rows, turns = data.in_turns(split, "judged")
    return np.sort(rows[turns < profile.adapter_judged])


def train(
    clips: EncodedClips,
    model: EffectRecognizer,
    rates: Rates,
    profile: Profile,
    heard: Lesson,
    seed: int,
) -> pd.DataFrame:
    """Train `model` in place (Eq. 4); its history.

    All methods hear the same excerpts in the same order. The rate falls to nought, and the last
    epoch is the one that counts: nothing is chosen.
    """
    many = min(profile.adapter_clips or len(heard.train), len(heard.train))
    examples, per_epoch = loop.shuffled(heard.train, profile.upper_batch, seed, "adapt", heard=many)
    whole = clips.activations.shape[-1]
    length = round(profile.upper_seconds / profile.slice_seconds * whole)

    def loss(model: EffectRecognizer, part: np.ndarray, step: int) -> torch.Tensor:
        key = (seed, "excerpt", 1 if heard.fixed else step // per_epoch + 1)
        device = model.head.mean.device
        x = finetune.excerpts(clips, part, length, key, device)
        found = bce(model(x), torch.from_numpy(heard.wanted[part]).to(device))
        return found if heard.also is None else found + heard.also(model, step)

    def evaluate(model: EffectRecognizer, epoch: int) -> dict:
        return validation_scores(logits(model, clips, heard.judged), clips.labels[heard.judged])

    steppers = optimisers(list(methods.trained(model).values()), model.head, rates)
    for group in (g for muon in steppers[1:] for g in muon.param_groups):
        group["weight_decay"] = rates.weight_decay
    steps = profile.adapter_epochs * per_epoch
    plan = loop.Plan(
        steps=steps, per_epoch=per_epoch, seed=seed, clip=1.0, from_zero=True, evaluate_every=2
    )
    schedules = [warm_cosine(one, steps, profile.warmup) for one in steppers]
    task = loop.Task(model, examples, loss, steppers, schedules, evaluate)
    history = loop.train(task, plan).history.assign(steps=lambda h: h.epoch * per_epoch)
    model.cpu()
    return history


def logits(model: EffectRecognizer, clips: EncodedClips, rows: np.ndarray) -> torch.Tensor:
    """(rows, 13) of an adapted model, without dropout."""
    statistics = features.statistics_of(model.encoder.eval(), clips, rows)
    return finetune.head_logits(model, statistics)


# --- stages ---------------------------------------------------------------------------------------


def inputs(profile: Profile, data: Dataset, seed: int) -> dict[str, str]:
    """The hashes of what every training here begins with."""
    head = paths.model(profile.profile, "frozen", seed % profile.head_seeds)
    before = {"embedding": paths.embedding(profile.profile, "frozen"), "head": head}
    found = {
        name: stages.require(folder, "02_frozen_embeddings", dataset=data.content)["content"]
        for name, folder in before.items()
    }
    return found | {"dataset": data.content, "codec": l3ac.weights_name(profile.codec)}


PARAMETERS = (
    "adapter_clips",
    "adapter_epochs",
    "adapter_judged",
    "upper_batch",
    "upper_seconds",
    "adapter_head_rate",
    "warmup",
    "seed",
    "pooling",
)


def stage(profile: Profile, data: Dataset, method: Method, seed: int) -> stages.Stage:
    """data/<profile>/adapters/<method>_<seed>: what one training of one method leaves."""
    parameters = {name: getattr(profile, name) for name in PARAMETERS}
    folder = paths.data(profile.profile) / "adapters" / f"{slug(method.name)}_{seed}"
    own = parameters | asdict(method) | {"training_seed": seed}
    return stages.Stage("adapted", folder, own, inputs(profile, data, seed), threads=1)


def slug(name: str) -> str:
    """`LoRA + pointwise 4` -> LoRA_pointwise_4, for a folder."""
    return "_".join(re.findall(r"[A-Za-z0-9.]+", name))


def fit(profile: Profile, data: Dataset, method: Method, seed: int) -> Path:
    """Train one method with one seed, if that has not been done; its folder."""
    made = stage(profile, data, method, seed)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            clips = features.kept(profile, data, "frozen")
            model = starting_point(profile, data, method, seed)
            rates = Rates(method.rate, profile.adapter_head_rate, method.muon, 0.98)
            history = train(clips, model, rates, profile, lesson(data), profile.seed + seed)
            rows = {split: judged(profile, data, split) for split in ("test", "validation")}
            made.finish(save(model, clips, history, work, rows))
    return made.folder


def save(
    model: EffectRecognizer,
    clips: EncodedClips,
    history: pd.DataFrame,
    work: Path,
    judged_by: dict[str, np.ndarray],
) -> str:
    """What a training leaves, in the folder `work`: adapter, history, answers. Their hash.

    judged_by: split -> rows that are answered.
    """
    save_file(own_weights(model), work / "adapter.safetensors")
    history.to_csv(work / "history.csv", index=False)
    said = {}
    for split, rows in judged_by.items():
        said[split] = torch.sigmoid(logits(model, clips, rows)).numpy()
        np.save(work / f"{split}.npy", said[split])
    return stages.array_digest(*said.values())


def load(profile: Profile, data: Dataset, method: Method, seed: int = 0) -> EffectRecognizer:
    """The model of a finished training, its adapter attached."""
    made = stage(profile, data, method, seed)
    stages.require(made.folder, "13_how_little_has_to_be_trained", dataset=data.content)
    if not made.current():
        raise PaperError(
            f"the adapter {made.folder.name} was trained with other parameters than this run's: "
            "run notebook 13_how_little_has_to_be_trained again (or paper reproduce)."
        )
    return restored(starting_point(profile, data, method, seed), made.folder)


def restored(model: EffectRecognizer, folder: Path) -> EffectRecognizer:
    """`model`, in place, with the weights that a training left in `folder`."""
    state = load_file(folder / "adapter.safetensors")
    if set(own_weights(model)) != set(state):
        raise PaperError(f"the adapter in {folder.name} is of another method than asked for.")
    model.load_state_dict(state, strict=False)
    return model.eval()


def chosen(profile: Profile) -> tuple[Method, ...]:
    """The methods that a profile compares: all of them, or few (`methods.FEW`)."""
    few = profile.adapter_methods == "few"
    return tuple(m for m in METHODS if not few or m.name in methods.FEW)


def fit_all(
    profile: Profile, data: Dataset, compared: tuple[Method, ...] = METHODS
) -> pd.DataFrame:
    """Every method with `adapter_seeds` seeds, a core each; one row an epoch."""
    jobs = [(method, seed) for method in compared for seed in range(profile.adapter_seeds)]
    features.kept(profile, data, "frozen")  # (once for all)
    fitted = parallel.each(_fit, [(profile, data.folder, *job) for job in jobs], "adapting")
    each = [
        pd.read_csv(folder / "history.csv").assign(method=method.name, seed=seed)
        for folder, (method, seed) in zip(fitted, jobs, strict=True)
    ]
    return pd.concat(each, ignore_index=True)


def _fit(profile: Profile, folder: Path, method: Method, seed: int) -> Path:
    return fit(profile, Dataset(folder), method, seed)


# --- the table ------------------------------------------------------------------------------------


def memory(model: EffectRecognizer, x: torch.Tensor) -> float:
    """MiB that a training step on x holds: all weights, gradients, Adam's two moments, activations.

    Counted, not measured: what autograd keeps for the way back, each storage once.
    """
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = [p.untyped_storage() for p in model.parameters()]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x).sum()
    kept |= {w.data_ptr(): w.nbytes() for w in weights}
    changed = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return (sum(kept.values()) + 3 * 4 * changed) / 2**20


def size(profile: Profile, data: Dataset, method: Method) -> dict[str, float]:
    """trained_parameters (without the head), their share of the encoder's, and peak_mib."""
    model = starting_point(profile, data, method, 0)
    number = sum(p.numel() for p in methods.trained(model).values())
    whole = sum(p.numel() for p in Encoder(l3ac.load(profile.codec)).parameters())
    clips = features.kept(profile, data, "frozen")
    frames = round(profile.upper_seconds / profile.slice_seconds * clips.activations.shape[-1])
    x = torch.from_numpy(clips.clips(range(profile.upper_batch))[..., : frames or None])
    return {
        "trained_parameters": number,
        "share": number / whole,
        "peak_mib": memory(model.train(), x),
    }


def probabilities(profile: Profile, data: Dataset, method: Method, split: str) -> np.ndarray:
    """(seeds, clips, 13) that a method's finished trainings say of the clips of a split."""
    each = [stage(profile, data, method, s) for s in range(profile.adapter_seeds)]
    for made in each:
        stages.ready(made, "13_how_little_has_to_be_trained")
    return np.stack([np.load(one.folder / f"{split}.npy") for one in each])


def scored(
    profile: Profile, data: Dataset, compared: tuple[Method, ...] = METHODS
) -> tuple[intervals.Paired, intervals.Paired]:
    """Macro-F1, and mean average precision, of each method on the test recordings.

    An effect is claimed above a threshold that was chosen on validation clips: what is trained on
    short excerpts claims too little at one half.
    """
    test, chosen_on = (judged(profile, data, split) for split in ("test", "validation"))
    truth, recordings = data.labels[test].astype(int), data.index.recording.to_numpy()[test]
    said = {method.name: probabilities(profile, data, method, "test") for method in compared}
    answers = {}
    for method in compared:
        before = probabilities(profile, data, method, "validation")
        limits = [scores.cautious_thresholds(data.labels[chosen_on], one) for one in before]
        answers[method.name] = (said[method.name] > np.stack(limits)[:, None]).astype(int)
    own = recordings, profile.bootstrap, profile.seed
    return (
        intervals.macro_f1(truth, answers, *own),
        intervals.average_precision(truth, said, *own),
    )


def table(
    profile: Profile, data: Dataset, seconds: pd.Series, compared: tuple[Method, ...] = METHODS
) -> pd.DataFrame:
    """A row a method: what it trains, what that costs, and how well it does on test recordings.

    seconds: of a step, by method (benchmarks/adapters.csv). lo, hi: of macro-F1, 95 %, over
    recordings and training seeds; map, map_lo, map_hi: mean average precision; more, more_lo,
    more_hi: how much more of that than the head alone has, paired by recording.
    """
    rows, (macro_f1, precision) = [], scored(profile, data, compared)
    for method in compared:
        row = {"method": method.name, "kind": method.kind, "rank": method.rank}
        row |= size(profile, data, method)
        row |= {"seconds_per_step": seconds.get(method.name), "seeds": profile.adapter_seeds}
        for names, found in (
            (("macro_f1", "lo", "hi"), macro_f1.of((1, method.name))),
            (("map", "map_lo", "map_hi"), precision.of((1, method.name))),
            (("more", "more_lo", "more_hi"), precision.more(method.name, "head only")),
        ):
            row |= dict(zip(names, found, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)
