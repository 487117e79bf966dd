"""A new effect from a few examples: what each way of learning it needs, and what it costs.

Notebook 15. Two effects that are not among the 13, from pedalboard, are put on clips of the data
set as the last of their chain. The 13 old labels of these clips stay known, so that what is learned
of the new effect and what is lost of the old ones can both be counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pedalboard
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import generator_for
from ..evaluation import intervals, scores
from ..recognition import features, finetune
from ..recognition.features import EncodedClips
from ..recognition.model import EffectRecognizer
from ..recognition.optimisers import Rates, optimisers, warm_cosine
from ..sound import audio
from ..sound.dataset import Dataset
from . import methods, training
from .methods import Method

RATE = audio.CODEC_RATE
EXAMPLES = (3, 10, 30, 100)
TESTED = 96  # test clips, each with and without the new effect
ROW_RATE = 1e-2  # of the new row
# a bit crusher: steps of 1/64 of full scale. A wah pedal left half-way: a resonant band at 900 Hz
NEW = {
    "bit crusher": lambda: pedalboard.Bitcrush(bit_depth=6),
    "cocked wah": lambda: pedalboard.LadderFilter(
        pedalboard.LadderFilter.Mode.BPF12, cutoff_hz=900, resonance=0.6
    ),
}


@dataclass(frozen=True)
class Way:
    """One way to learn a new label."""

    name: str
    method: Method | None  # what of the encoder is trained (None: nothing)
    prior: float = 0.0  # weight of the old answers, kept on clips without the new effect
    direction: bool = False  # of the embedding space, not of the head's hidden layer


WAYS = (
    Way("a vector", None, direction=True),
    Way("a row of the head", None),
    Way("LoRA", Method("LoRA + pointwise 4", "lora", 4, methods.ALL, 3e-3)),
    Way("all of the upper half", Method("full, Muon", "unfreeze", 4, muon=True)),
    Way("all, with the old answers", Method("full, Muon", "unfreeze", 4, muon=True), 1.0),
)


# --- examples -------------------------------------------------------------------------------------


def put_on(clips: np.ndarray, effect: str | Callable) -> np.ndarray:
    """(clips, samples) float32 with the new effect last in the chain, each as loud as it was.

    The effect hears each clip at a peak of 0.9, as a pedal does behind a gain that is set for it.
    effect: a name of `NEW`, or what makes one.
    """
    out, make = np.empty_like(clips), NEW[effect] if isinstance(effect, str) else effect
    for wet, dry in zip(out, clips, strict=True):
        gain = 0.9 / max(float(np.abs(dry).max()), 1e-4)
        made = pedalboard.Pedalboard([make()])(gain * dry, RATE)
        wet[:] = made * np.sqrt(np.mean(dry**2) / max(float(np.mean(made**2)), 1e-12))
    return out.clip(-1, 1)


@dataclass(frozen=True)
class Examples:
    """Clips with the new effect, half-way up the encoder and embedded; and which they are."""

    train: np.ndarray  # rows of the data set that have it, in the order in which they are drawn
    test: np.ndarray
    lower: np.ndarray  # (train and test, channels, frames) float16
    embedding: np.ndarray  # (train and test, 3, channels): time statistics


def examples(profile: Profile, data: Dataset, effect: str) -> Examples:
    """Stage data/<profile>/few/<effect>: made, or found."""
    drawn = {
        split: data.in_turns(split, "new effect", effect)[0][:most]
        for split, most in (("train", max(EXAMPLES)), ("test", TESTED))
    }
    rows = np.concatenate(list(drawn.values()))
    inputs = {"dataset": data.content, "rows": stages.array_digest(rows)}
    inputs["weights"] = features.stage(profile, data, "frozen").inputs["weights"]
    if NEW[effect].__module__ != __name__:  # (a reader's own, which may change under its name)
        inputs["made"] = stages.array_digest(put_on(data.clips(rows[:1]), effect))
    folder = paths.data(profile.profile) / "few" / training.slug(effect)
    made = stages.Stage("few", folder, {"effect": effect}, inputs, threads=1)
    with made.opened() as work:
        if work:
            parts = np.array_split(rows, -(-len(rows) // features.CHUNK))
            # (what makes it travels: in a worker NEW has no effect that was added in a cell)
            own = (data.folder, NEW[effect], profile.codec, profile.seed)
            items = {f"{i:05d}": (*own, part) for i, part in enumerate(parts)}
            files = parallel.shards(encoded, items, work / "shards", effect, profile.scheduler)
            for name in ("lower", "embedding"):
                np.save(work / f"{name}.npy", np.concatenate([np.load(f)[name] for f in files]))
            made.finish(stages.digest(work / "lower.npy"))
    lower, embedding = (np.load(folder / f"{n}.npy") for n in ("lower", "embedding"))
    return Examples(drawn["train"], drawn["test"], lower, embedding)


def encoded(
    folder: Path, effect: Callable, codec: str, seed: int, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Clips of the data set with the new effect: `lower` and `embedding`, as in `Examples`."""
    machine.make_deterministic(1)
    module = features.front_end("frozen", codec, seed)
    clips = put_on(Dataset(folder).clips(rows), effect)
    statistics, lower = zip(*features.embed(module, clips, True), strict=True)
    return {"lower": torch.cat(lower).numpy(), "embedding": torch.cat(statistics).numpy()}


# --- learning -------------------------------------------------------------------------------------


class Wider(nn.Module):
    """A recognizer with one more output: (batch, channels, frames) -> (batch, 13), (batch,)."""

    def __init__(self, model: EffectRecognizer):
        super().__init__()
        self.model, self.row = model, nn.Linear(model.head.layers[0].out_features, 1)
        nn.init.zeros_(self.row.weight)
        nn.init.constant_(self.row.bias, -2.0)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = features.pool(features.time_statistics(self.model.encoder(x)), self.model.pooling)
        return self.of(pooled)

    def of(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of pooled embeddings (batch, inputs of the head)."""
        head = self.model.head
        hidden = head.layers[1](head.layers[0]((pooled - head.mean) / head.scale))
        return head.layers[3](hidden), self.row(hidden)[:, 0]


def learn(
    profile: Profile, clips: EncodedClips, few: Examples, way: Way, many: int, others: np.ndarray
) -> Wider:
    """Train a model's new row, and what `way` trains of the encoder, on `many` examples.

    Each step hears eight excerpts with the new effect and eight of clips without it (`others`).
    The loss is that of the new label; with `way.prior` also that of the old answers on the latter.
    """
    data = Dataset(paths.dataset(profile.profile))
    assert way.method is not None
    model = training.starting_point(profile, data, way.method, 0)
    known = training.starting_point(profile, data, Method("head only", "head"), 0)
    model.head.requires_grad_(False)
    wider, new = Wider(model), EncodedClips(clips.labels, few.lower[:many])
    frames = round(profile.upper_seconds / profile.slice_seconds * clips.activations.shape[-1])
    draw = lambda rows, step, *key: rows[
        generator_for(profile.seed, "few", step, *key).integers(len(rows), size=8)
    ]

    def loss(wider: Wider, part: np.ndarray, step: int) -> torch.Tensor:
        key, device = (profile.seed, "few", step), wider.row.weight.device
        with_it = finetune.excerpts(new, draw(np.arange(many), step, "with"), frames, key, device)
        without = finetune.excerpts(clips, draw(others, step, "without"), frames, key, device)
        old, said = wider(torch.cat([with_it, without]))
        truth = torch.cat([torch.ones(8), torch.zeros(8)]).to(device)
        found = F.binary_cross_entropy_with_logits(said, truth)
        if way.prior:
            with torch.no_grad():
                wanted = torch.sigmoid(known.to(device)(without))
            kept = F.binary_cross_entropy_with_logits(old[8:], wanted, reduction="sum") / 8
            found = found + way.prior * kept
        return found

    # (with Muon the second rate is also that of the encoder's vectors: the row has its own)
    rates = Rates(way.method.rate, profile.adapter_head_rate, way.method.muon, 0.98)
    steppers = optimisers(list(methods.trained(model).values()), nn.ModuleList(), rates)
    steppers.append(torch.optim.AdamW(wider.row.parameters(), ROW_RATE, (0.9, 0.98)))
    steps = profile.few_steps
    plan = loop.Plan(steps=steps, per_epoch=steps, seed=profile.seed, clip=1.0)
    schedules = [warm_cosine(one, steps, profile.warmup) for one in steppers]
    one = lambda step: np.zeros(1, int)
    loop.train(loop.Task(wider, one, loss, steppers, schedules), plan)
    return wider.cpu().eval()


def regressed(
    profile: Profile, data: Dataset, few: Examples, way: Way, many: int, others: np.ndarray
) -> Wider:
    """A new row of the head, or one vector in the frozen embedding space, by logistic regression.

    The vector is the recogniser's counterpart of textual inversion: nothing of the network changes,
    one direction of its space is named.
    """
    wider = Wider(training.starting_point(profile, data, Method("head only", "head"), 0)).eval()
    frozen = np.load(paths.embedding(profile.profile, "frozen") / "embedding.npy", mmap_mode="r")
    statistics = np.concatenate([few.embedding[:many], frozen[others]])
    x = torch.from_numpy(features.pool(statistics, profile.pooling))
    head = wider.model.head
    scaled = (x - head.mean) / head.scale
    hidden = head.layers[1](head.layers[0](scaled))
    inputs = scaled if way.direction else hidden
    truth = np.arange(len(x)) < many
    fitted = LogisticRegression(class_weight="balanced", C=0.1, max_iter=2000)
    fitted.fit(inputs.detach().numpy(), truth)
    if way.direction:
        wider.row = nn.Linear(inputs.shape[1], 1)
        wider.of = lambda pooled: (head(pooled), wider.row((pooled - head.mean) / head.scale)[:, 0])
    with torch.no_grad():
        wider.row.weight.copy_(torch.from_numpy(fitted.coef_))
        wider.row.bias.copy_(torch.from_numpy(fitted.intercept_))
    return wider


# --- the table ------------------------------------------------------------------------------------


def judge(profile: Profile, folder: Path, effect: str, way: Way, many: int) -> dict:
    """A row of `table_few_examples`: F1 of the new effect on test clips; of the old 13 what no
    threshold touches, mean average precision.
    """
    machine.make_deterministic(1)
    data = Dataset(folder)
    clips, few = features.kept(profile, data, "frozen"), examples(profile, data, effect)
    others = np.setdiff1d(data.rows("train"), few.train[:many])
    if way.method is None:
        others = part_of(others, 0.25, "others")  # (enough, and balanced by their weight)
        wider = regressed(profile, data, few, way, many, others)
    else:
        wider = learn(profile, clips, few, way, many, others)
    both = np.concatenate([few.lower[len(few.train) :], clips.activations[few.test]])
    with torch.inference_mode():
        said = [wider(torch.from_numpy(x[None].astype(np.float32)))[1].item() for x in both]
        rest = part_of(training.judged(profile, data, "test"), 1 / 3, "old effects")
        old = torch.cat([wider(torch.from_numpy(clips.clips([row])))[0] for row in rest])
    truth = (np.arange(len(both)) < len(few.test))[:, None]  # (one label)
    found = np.array(said)[:, None] > 0
    right = scores.scores(truth, found)["macro_f1"]
    pieces = np.tile(data.index.recording.to_numpy()[few.test], 2)
    lo, hi = intervals.intervals(truth, found, pieces, profile.bootstrap, profile.seed)["macro_f1"]
    sure, names = torch.sigmoid(old).numpy()[None], data.index.recording.to_numpy()[rest]
    kept = intervals.average_precision(
        data.labels[rest], {"old": sure}, names, profile.bootstrap, profile.seed
    )
    row = {"effect": effect, "way": way.name, "examples": many, "f1": right, "lo": lo, "hi": hi}
    return row | dict(zip(("old_map", "old_lo", "old_hi"), kept.of((1, "old")), strict=True))


def part_of(rows: np.ndarray, share: float, word: str) -> np.ndarray:
    """A share of the rows, drawn (a stride would meet the same chains of every recording)."""
    order = generator_for(0, word).permutation(len(rows))
    return rows[np.sort(order[: max(1, round(share * len(rows)))])]


def row(profile: Profile, folder: Path, effect: str, way: Way, many: int) -> dict:
    """Stage data/<profile>/few/<effect>_<way>_<many>: what `judge` found, made or kept."""
    data, at = Dataset(folder), paths.data(profile.profile) / "few"
    names = (
        "few_steps",
        "upper_seconds",
        "warmup",
        "seed",
        "pooling",
        "bootstrap",
        "adapter_judged",
    )
    own = {name: getattr(profile, name) for name in (*names, "adapter_head_rate")}
    content = stages.require(at / training.slug(effect), "15_a_new_effect")["content"]
    place = at / training.slug(f"{effect} {way.name} {many}")
    made = stages.Stage(
        "few_row",
        place,
        own | {"way": asdict(way), "effect": effect, "many": many},
        training.inputs(profile, data, 0) | {"few": content},
        threads=1,
    )
    with made.opened() as work:
        if work:
            found = judge(profile, folder, effect, way, many)
            paths.write_beside(work / "row.json", json.dumps(found))
            made.finish(stages.digest(found))
    return json.loads((place / "row.json").read_text())


def table(profile: Profile, data: Dataset) -> pd.DataFrame:
    """Every new effect, way and number of examples; a core each."""
    for effect in NEW:
        examples(profile, data, effect)
    possible = [many for many in EXAMPLES if many < len(data.rows("train"))]
    jobs = [
        (profile, data.folder, effect, way, many)
        for effect in NEW
        for way in WAYS
        for many in possible
    ]
    return pd.DataFrame(parallel.each(row, jobs, "few examples"))
