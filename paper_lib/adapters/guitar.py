"""The released recognizer fitted to one guitar: `paper adapt FOLDER`, notebook 16.

A few minutes of dry recordings are rendered through the chains, and a small LoRA and the last layer
of the head are trained on them. What is left is one file of 70 kB beside the released weights,
which stay as they are.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..core import loop, machine, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from ..evaluation import scores
from ..recognition import finetune
from ..recognition.features import EncodedClips
from ..recognition.head import bce
from ..recognition.model import EffectRecognizer, released
from ..recognition.optimisers import Rates, optimisers, warm_cosine
from ..sound import rendering
from ..sound.dataset import Dataset
from . import methods, training
from .methods import Method

METHOD = Method("LoRA + pointwise 4", "lora", 4, methods.ALL, 1e-3)
HEAD_RATE, BATCH, SECONDS = 1e-4, 16, 1.5
WEIGHTS, RECORD = "adapter.safetensors", "adapter.json"


def base() -> tuple[EffectRecognizer, str]:
    """The released recognizer, and the hash of its weights."""
    found = released()
    if found is None:
        raise PaperError(
            "data/weights/released is missing: git checkout data/weights brings it back."
        )
    return found[0], found[1]["sha256"]["model.safetensors"]


def activations(profile: Profile, data: Dataset, model: EffectRecognizer) -> EncodedClips:
    """All clips of a data set half-way up `model`'s encoder, once."""
    return finetune.half_way(replace(profile, upper_draws=0), data, model, np.arange(0))[0]


def fit(
    clips: EncodedClips, rows: np.ndarray, steps: int, share: float, seed: int = 0
) -> EffectRecognizer:
    """The released recognizer with a LoRA and its last layer trained on these rows.

    share: of a clip that a step hears, drawn anew each time.
    """
    machine.make_deterministic(1)
    model = attached(METHOD, seed)
    examples, per_epoch = loop.shuffled(rows, BATCH, seed, "guitar")
    length = round(share * clips.activations.shape[-1])

    def loss(model: EffectRecognizer, part: np.ndarray, step: int) -> torch.Tensor:
        device = model.head.mean.device
        x = finetune.excerpts(clips, part, length, (seed, "guitar", step // per_epoch), device)
        return bce(model(x), torch.from_numpy(clips.labels[part]).to(device))

    rates = Rates(METHOD.rate, HEAD_RATE, beta2=0.98)
    steppers = optimisers(list(methods.trained(model).values()), model.head.layers[3], rates)
    plan = loop.Plan(steps=steps, per_epoch=steps, seed=seed, clip=1.0, label="adapting")
    schedules = [warm_cosine(one, steps, 0.1) for one in steppers]
    loop.train(loop.Task(model, examples, loss, steppers, schedules), plan)
    return model.cpu().eval()


def attached(method: Method = METHOD, seed: int = 0) -> EffectRecognizer:
    """The released recognizer with a fresh LoRA; that and its last layer are to be trained."""
    model = methods.attach(base()[0], method, seed)
    model.head.requires_grad_(False)
    model.head.layers[3].requires_grad_(True)
    return model.eval()


def own_weights(model: EffectRecognizer) -> dict[str, torch.Tensor]:
    """All that `fit` changes."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def answers(model: EffectRecognizer, clips: EncodedClips, rows: np.ndarray) -> np.ndarray:
    """(rows, 13) probabilities."""
    return torch.sigmoid(training.logits(model, clips, rows)).numpy()


@dataclass(frozen=True)
class Adapted:
    """What `adapt` leaves beside the weights (adapter.json)."""

    base: str  # SHA-256 of the weights that it fits
    before: float  # macro-F1 of the released recognizer on recordings that were held out
    after: float
    clips: int  # that these two are of
    held_out: list[str]
    learned_from: list[str]
    steps: int
    seed: int


def adapt(profile: Profile, target: Path, steps: int) -> Adapted:
    """Fit the released recognizer to the corpus of `profile` (a folder), into the folder `target`.

    Every fourth recording, and at least one, is held out: `before` and `after` are of those.
    """
    data = rendering.render_dataset(profile)
    names = sorted(set(data.index.recording))
    order = sorted(names, key=lambda n: generator_for(profile.seed, "held out", n).random())
    held_out = order[: max(1, len(order) // 4)]
    apart = data.index.recording.isin(held_out).to_numpy()
    released_one, digest = base()
    clips = activations(profile, data, released_one)
    learned, judged = np.flatnonzero(~apart), np.flatnonzero(apart)
    share = min(1.0, SECONDS / profile.slice_seconds)
    model = fit(clips, learned, steps, share, profile.seed)
    record = (released() or (None, {}))[1]
    limits = np.array(record.get("thresholds", 0.5))  # (as `paper recognize` asks it)
    before, after = (
        scores.scores(data.labels[judged], answers(one, clips, judged) > limit)["macro_f1"]
        for one, limit in ((released_one, limits), (model, 0.5))
    )
    rest = [name for name in names if name not in held_out]
    made = Adapted(digest, before, after, len(judged), held_out, rest, steps, profile.seed)
    save(model, made, target)
    return made


# --- on disk --------------------------------------------------------------------------------------


def save(model: EffectRecognizer, made: Adapted, target: Path) -> None:
    """Weights, record and card of an adapter, in the folder `target`."""
    target.mkdir(parents=True, exist_ok=True)
    beside = target / f".{WEIGHTS}.new"
    save_file(own_weights(model), beside)
    beside.replace(target / WEIGHTS)
    record = asdict(made) | {"method": asdict(METHOD), "sha256": stages.digest(target / WEIGHTS)}
    paths.write_beside(target / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")
    paths.write_beside(target / "README.md", card(made, (target / WEIGHTS).stat().st_size))


def card(made: Adapted, size: int) -> str:
    """The adapter's README."""
    return f"""# Card: the released recognizer, fitted to one guitar

An adapter for `paper recognize --adapter FOLDER FILE`: low-rank changes (LoRA, rank {METHOD.rank})
to the upper half of the released codec recognizer, and its last layer. {size / 1000:.0f} kB.

- **Fits** the released weights with SHA-256 {made.base[:16]}... and no others.
- **Learned from** {len(made.learned_from)} dry recordings, rendered through chains of the 13
  effects; {made.steps} steps, seed {made.seed}.
- **Scores.** Macro-F1 on {made.clips} clips of {len(made.held_out)} recordings that it did not
  hear: {made.before:.3f} before (with the released thresholds), {made.after:.3f} after (with one
  half, as `paper recognize` asks an adapter).
- **Limits.** SoX's effects at fixed settings; the guitar, player and room of these recordings. What
  it has learned of them it may have lost of others.
"""


def load(folder: Path) -> EffectRecognizer:
    """The released recognizer with the adapter of a folder merged into it, in eval mode."""
    if _record(folder).get("base") != base()[1]:
        raise PaperError(
            f"the adapter in {folder} was made for other released weights than the present ones: "
            "run paper adapt again."
        )
    return methods.merge(switch(attached(), load_file(folder / WEIGHTS))).eval()


def _record(folder: Path) -> dict:
    try:
        record = json.loads((folder / RECORD).read_text())
        whole = stages.digest(folder / WEIGHTS) == record["sha256"]
    except (FileNotFoundError, NotADirectoryError):
        raise PaperError(
            f"no adapter in {folder}: give the folder that paper adapt made."
        ) from None
    except (ValueError, KeyError) as problem:
        raise PaperError(f"{folder / RECORD} is damaged: run paper adapt again.") from problem
    if not whole:
        raise PaperError(f"{folder / WEIGHTS} has the wrong SHA-256: run paper adapt again.")
    return record


# --- several of them ------------------------------------------------------------------------------


def switch(model: EffectRecognizer, weights: dict[str, torch.Tensor]) -> EffectRecognizer:
    """`model`, in place, with the weights of another adapter of the same shape."""
    shapes = lambda tensors: {name: tuple(value.shape) for name, value in tensors.items()}
    if shapes(weights) != shapes(own_weights(model)):
        raise PaperError("this adapter is of another shape than the network that it is given to.")
    model.load_state_dict(weights, strict=False)
    return model


def between(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], weight: float
) -> EffectRecognizer:
    """The released recognizer with `weight` B1 A1 + (1 - weight) B2 A2 of two adapters.

    The Bs stand side by side and the As on top of each other: an adapter of twice the rank, whose
    change is just that sum. (The average of the Bs times that of the As would have cross-terms.)
    The last layers, which are no low-rank change, are averaged weight by weight.
    """
    joint = {}
    for name in one:
        a, b = one[name], other[name]
        if "lora_B" in name:
            joint[name] = torch.cat([weight * a, (1 - weight) * b], 1)
        elif "lora_A" in name:
            joint[name] = torch.cat([a, b], 0)
        else:
            joint[name] = weight * a + (1 - weight) * b
    return switch(attached(replace(METHOD, rank=2 * METHOD.rank)), joint)
