"""Training the masked model on tokens without labels, and what it is compared with. Notebook 23."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import generator_for
from ..recognition.optimisers import warm_cosine
from ..sound import other_sounds
from ..sound.dataset import Dataset
from . import codes, model
from .codes import Code
from .statistics import counted

SHARE = 0.25  # of the tokens that are hidden (Section 3)

# --- what is heard --------------------------------------------------------------------------------


def of_sounds(first: int, last: int, samples: int, name: str, codec: str) -> dict[str, np.ndarray]:
    """`tokens` of other sounds than the guitar, number `first` to `last`."""
    machine.make_deterministic(1)
    encode = codes.cached_tokenizer(name, codec).encode
    heard = (other_sounds.sound(i, samples, codes.RATE) for i in range(first, last))
    return {"tokens": np.stack([encode(0.3 * x) for x in heard]).astype(np.uint16)}


def other(profile: Profile, data: Dataset) -> np.ndarray:
    """Stage data/<profile>/tokens_of_sounds: (sounds, codebooks, frames), as long as the clips."""
    many, samples = profile.token_sounds, data.audio.shape[1]
    codec = codes.tokenizer(profile.token_codec, profile.codec)
    parameters = {"codec": profile.token_codec, "sounds": many, "samples": samples}
    folder = paths.data(profile.profile) / "tokens_of_sounds"
    inputs = {"weights": codec.version}
    made = stages.Stage("token_sounds", folder, parameters, inputs, threads=1)
    with made.opened() as work:
        if work:
            own, step = (samples, profile.token_codec, profile.codec), codes.CHUNK
            items = {f"{a:07d}": (a, min(a + step, many), *own) for a in range(0, many, step)}
            files = parallel.shards(of_sounds, items, work / "shards", "sounds", profile.scheduler)
            found = np.concatenate([np.load(file)["tokens"] for file in files])
            codes.write(work / "tokens.parquet", [str(i) for i in range(many)], found, codec.code)
            made.finish(stages.array_digest(found))
    return codes.read(made.folder / "tokens.parquet")[1]


def unlabelled(profile: Profile, data: Dataset) -> tuple[np.ndarray, Code]:
    """What the model is trained on: the training clips of the data set, and other sounds."""
    tokens, code = codes.of_dataset(profile, data)
    parts = [tokens[data.rows("train")]]
    if profile.token_sounds:
        parts.append(other(profile, data))
    return np.concatenate(parts), code


def excerpts(tokens: np.ndarray, rows: np.ndarray, frames: int, key: tuple) -> torch.Tensor:
    """(rows, codebooks, frames) of clips, each begun where its own generator says."""
    frames = min(frames, tokens.shape[2])
    spare = tokens.shape[2] - frames
    begins = [int(generator_for(*key, int(row)).integers(spare + 1)) for row in rows]
    parts = [tokens[row, :, a : a + frames] for row, a in zip(rows, begins, strict=True)]
    return torch.from_numpy(np.stack(parts).astype(np.int64))


# --- training -------------------------------------------------------------------------------------


def new(profile: Profile, code: Code, seed: int) -> model.TokenModel:
    """A model of the profile's size with random weights of this seed."""
    torch.manual_seed(seed)
    return model.TokenModel(code.sizes, model.SIZES[profile.token_size])


def training_of(
    net: model.TokenModel, heard: np.ndarray, judged: np.ndarray, profile: Profile, code: Code
) -> tuple[loop.Task, loop.Plan]:
    """What the loop needs to train `net` on clips `heard`; `judged`: validation clips."""
    frames = round(profile.token_seconds * code.frame_rate)
    rows = np.arange(len(heard))
    examples, per_epoch = loop.shuffled(rows, profile.token_batch, profile.seed, "tokens")

    def loss(net: nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        device, key = next(net.parameters()).device, (profile.seed, "masked", step)
        tokens = excerpts(heard, part, frames, key)
        hidden = model.hide(tuple(tokens.shape), SHARE, generator_for(*key, "hidden"))
        tokens, hidden = tokens.to(device), hidden.to(device)
        return model.loss_of(net(tokens, hidden), tokens, hidden)

    def evaluate(net: nn.Module, epoch: int) -> dict:
        found = judge(net, judged, frames, profile.seed)
        bits, right = float(found.bits.mean()), float(found.accuracy.mean())
        return {"validation_bits": bits, "validation_accuracy": right}

    steps = profile.token_epochs * per_epoch
    optimiser = torch.optim.AdamW(net.parameters(), profile.token_rate, weight_decay=0.01)
    plan = loop.Plan(
        steps=steps,
        per_epoch=per_epoch,
        seed=profile.seed,
        clip=1.0,
        checkpoint_every=per_epoch,
        label="masked model",
    )
    schedule = warm_cosine(optimiser, steps, 0.1)
    return loop.Task(net, examples, loss, [optimiser], [schedule], evaluate), plan


MOST_COUNTS = 10_000_000  # in a table
JUDGED = 96  # validation clips on which each epoch is judged
PARAMETERS = ("token_size", "token_seconds", "token_batch", "token_rate", "token_epochs", "seed")


def stage(profile: Profile, data: Dataset) -> stages.Stage:
    """data/<profile>/token_model: the trained model."""
    own = {name: getattr(profile, name) for name in PARAMETERS}
    found = paths.data(profile.profile)
    inputs = {"tokens": stages.require(found / "tokens", NOTEBOOK, dataset=data.content)["content"]}
    if profile.token_sounds:
        inputs["sounds"] = stages.require(found / "tokens_of_sounds", NOTEBOOK)["content"]
    folder = found / "token_model"
    return stages.Stage("token_model", folder, own, inputs, threads=profile.threads)


NOTEBOOK = "23_masked_tokens"


def fit(profile: Profile, data: Dataset) -> tuple[model.TokenModel, pd.DataFrame]:
    """Train the model, if that has not been done; it, and its history, a row an epoch."""
    heard, code = unlabelled(profile, data)
    made = stage(profile, data)
    with made.opened() as work:
        if work:
            net = new(profile, code, profile.seed)
            tokens, _ = codes.of_dataset(profile, data)
            judged = tokens[data.rows("validation")][:: _every(len(data.rows("validation")))]
            task, plan = training_of(net, heard, judged, profile, code)
            result = loop.train(task, plan, work)
            save_file({k: v.contiguous() for k, v in result.weights.items()}, work / WEIGHTS)
            result.history.to_csv(work / "history.csv", index=False)
            made.finish(stages.array_digest(*(v.numpy() for v in result.weights.values())))
    return load(profile, code, made.folder), pd.read_csv(made.folder / "history.csv")


WEIGHTS = "model.safetensors"


def _every(clips: int) -> int:
    return max(1, clips // JUDGED)


def load(profile: Profile, code: Code, folder: Path) -> model.TokenModel:
    """The trained model in `folder`."""
    net = new(profile, code, 0)
    net.load_state_dict(load_file(folder / WEIGHTS))
    return net.eval()


# --- how well hidden tokens are guessed -----------------------------------------------------------


@torch.inference_mode()
def judge(net: nn.Module, tokens: np.ndarray, frames: int, seed: int) -> pd.DataFrame:
    """A row a codebook: accuracy and bits of hidden tokens, a quarter of them, of whole excerpts.

    Clips are heard from their beginning; what is hidden is drawn for each clip by its place.
    """
    device, found = next(net.parameters()).device, []
    net.eval()
    for start in range(0, len(tokens), 16):
        part = torch.from_numpy(tokens[start : start + 16, :, :frames].astype(np.int64))
        hidden = hidden_of(start, len(part), part.shape[1:], seed)
        logits = net(part.to(device), hidden.to(device))
        for i, one in enumerate(logits):
            asked = hidden[:, i]
            truth, said = part[:, i][asked], one.cpu()[asked]
            nats = torch.nn.functional.cross_entropy(said, truth, reduction="none")
            found.append((i, (said.argmax(1) == truth).double().numpy(), nats.double().numpy()))
    rows = []
    for i in range(tokens.shape[1]):
        right, nats = (np.concatenate([f[k] for f in found if f[0] == i]) for k in (1, 2))
        rows.append({"codebook": i + 1, "accuracy": right.mean(), "bits": nats.mean() / np.log(2)})
    return pd.DataFrame(rows)


def hidden_of(first: int, clips: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """(clips, codebooks, frames) which tokens of judged clips are hidden."""
    each = [
        model.hide(tuple(shape), SHARE, generator_for(seed, "judged", first + i))
        for i in range(clips)
    ]
    return torch.stack(each)


def counted_out(
    train: np.ndarray, tokens: np.ndarray, sizes: tuple[int, ...], frames: int, seed: int
) -> pd.DataFrame:
    """The same of tables that were counted on `train`: a row a table and codebook.

    unigram: the commonest value; bigram: knowing the same codebook's token of the frame before;
    both neighbours: and of the frame after. Tables may look at neighbours that the model does not
    see, since those are hidden to it: they are the stronger for that.
    """
    hidden, rows = hidden_of(0, len(tokens), tokens[0, :, :frames].shape, seed).numpy(), []
    tokens = tokens[..., :frames]
    for i, size in enumerate(sizes):
        learned, asked = train[:, i].astype(np.int64), tokens[:, i].astype(np.int64)
        where = hidden[:, i, 1:-1]
        now = asked[:, 1:-1][where]
        tables = {
            "unigram": (0 * learned[:, 1:-1], 0 * now, 1),
            "bigram": (learned[:, :-2], asked[:, :-2][where], size),
            "both neighbours": (
                learned[:, :-2] * size + learned[:, 2:],
                (asked[:, :-2] * size + asked[:, 2:])[where],
                size**2,
            ),
        }
        for name, (contexts, known, many) in tables.items():
            if many * size > MOST_COUNTS:
                continue  # (of large codebooks: most pairs never come)
            counts = counted(contexts, learned[:, 1:-1], (many, size)) + 0.5
            share = (counts / counts.sum(1, keepdims=True))[known]
            right = (share.argmax(1) == now).mean()
            bits = -np.log2(share[np.arange(len(now)), now]).mean()
            rows.append({"model": name, "codebook": i + 1, "accuracy": right, "bits": bits})
    return pd.DataFrame(rows)
