"""Training the masked model on tokens without labels, and what it is compared with. Notebook 23."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from torch import nn

from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import generator_for
from ..recognition.optimisers import warm_cosine
from ..sound import other_sounds
from ..sound.dataset import Dataset
from . import codes, model, text
from .codes import Code
from .statistics import shares_of

SHARE = 0.25  # of the tokens that are hidden (Section 3)

# --- what is heard --------------------------------------------------------------------------------


def of_sounds(first: int, last: int, samples: int, name: str, codec: str) -> dict[str, np.ndarray]:
    """`tokens` of other sounds than the guitar, number `first` to `last`."""
    machine.make_deterministic(1)
    encode = codes.cached_tokenizer(name, codec).encode
    heard = (other_sounds.sound(i, samples, codes.RATE) for i in range(first, last))
    return {"tokens": np.stack([encode(0.3 * x) for x in heard]).astype(np.uint16)}


def sounds_stage(profile: Profile, data: Dataset) -> stages.Stage:
    """data/<profile>/tokens_of_sounds: of `token_sounds` sounds, as long as the clips."""
    own = {"codec": profile.token_codec, "sounds": profile.token_sounds}
    own["samples"] = data.audio.shape[1]
    folder = paths.data(profile.profile) / "tokens_of_sounds"
    inputs = {"weights": codes.version_of(profile.token_codec, profile.codec)}
    return stages.Stage("token_sounds", folder, own, inputs, threads=1)


def other(profile: Profile, data: Dataset) -> np.ndarray:
    """(sounds, codebooks, frames): tokens of other sounds, made, resumed or found."""
    many, step, made = profile.token_sounds, codes.CHUNK, sounds_stage(profile, data)
    own = (data.audio.shape[1], profile.token_codec, profile.codec)
    with made.opened() as work:
        if work:
            parts = {f"{a:07d}": (a, min(a + step, many), *own) for a in range(0, many, step)}
            names = [str(i) for i in range(many)]
            made.finish(codes.encoded(of_sounds, parts, names, work, profile))
    return codes.read(made.folder / codes.FILE)[1]


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

# name -> seconds that the global encoder sees of what comes (None: all of it)
LOOK_AHEAD = {"both ways": None, "0.1 s ahead": 0.1, "causal": 0.0}


def new(profile: Profile, code: Code, seed: int, look: str = "both ways") -> model.TokenModel:
    """A model of the profile's size with random weights of this seed."""
    seconds = LOOK_AHEAD[look]
    ahead = None if seconds is None else round(seconds * code.frame_rate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.TokenModel(code.sizes, model.SIZES[profile.token_size], ahead)


def training_of(
    net: model.TokenModel, heard: np.ndarray, judged: np.ndarray, profile: Profile, code: Code
) -> tuple[loop.Task, loop.Plan]:
    """What the loop needs to train `net` on clips `heard`; `judged`: validation clips."""
    frames = round(profile.token_seconds * code.frame_rate)
    rows = np.arange(len(heard))
    examples, per_epoch = loop.shuffled(rows, profile.token_batch, profile.seed, "tokens")

    def loss(net: nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        device, key = next(net.parameters()).device, (profile.seed, "masked", step)
        tokens = excerpts(heard, part, frames, key).to(device)
        draws = (generator_for(*key, "hidden", int(row)) for row in part)
        hidden = [model.hide(tuple(tokens.shape[1:]), SHARE, rng) for rng in draws]
        hidden = torch.stack(hidden).to(device)
        return model.loss_of(net(tokens, hidden), tokens, hidden)

    def evaluate(net: nn.Module, epoch: int) -> dict:
        found = judge(net, judged, frames, profile.seed)
        return {"validation_bits": float(found.bits.mean()),
                "validation_accuracy": float(found.accuracy.mean())}  # fmt: skip

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


JUDGED = 96  # validation clips, at most, on which each epoch is judged
PARAMETERS = (
    "token_size",
    "token_seconds",
    "token_batch",
    "token_rate",
    "token_epochs",
    "token_sounds",
    "seed",
)
NOTEBOOK = "23_masked_tokens"
WEIGHTS = "model.safetensors"


def stage(profile: Profile, data: Dataset, look: str = "both ways") -> stages.Stage:
    """data/<profile>/token_models/<look>: a trained model."""
    own = {name: getattr(profile, name) for name in PARAMETERS}
    own |= {"look": look}
    inputs = {"tokens": stages.ready(codes.stage(profile, data), NOTEBOOK)["content"]}
    inputs["dataset"] = data.content  # (which clips are to train on)
    if profile.token_sounds:
        inputs["sounds"] = stages.ready(sounds_stage(profile, data), NOTEBOOK)["content"]
    if profile.token_start:
        inputs["start"] = text.fetch(profile.token_start)[1]
    folder = paths.data(profile.profile) / "token_models" / look.replace(" ", "_")
    return stages.Stage("token_model", folder, own, inputs, threads=1)


def fit(profile: Profile, folder: Path, look: str = "both ways") -> pd.DataFrame:
    """Train a model, if that has not been done; its history, a row an epoch."""
    data = Dataset(folder)
    heard, code = unlabelled(profile, data)
    made = stage(profile, data, look)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            net, tokens = new(profile, code, profile.seed, look), codes.of_dataset(profile, data)[0]
            if profile.token_start:
                text.begin(net, text.fetch(profile.token_start)[0])
            rows = generator_for(profile.seed, "judged").permutation(data.rows("validation"))
            judged = tokens[np.sort(rows[:JUDGED])]
            result = loop.train(*training_of(net, heard, judged, profile, code), work)
            save_file({k: v.contiguous() for k, v in result.weights.items()}, work / WEIGHTS)
            result.history.to_csv(work / "history.csv", index=False)
            made.finish(stages.array_digest(*(v.numpy() for v in result.weights.values())))
    return pd.read_csv(made.folder / "history.csv")


def fit_all(profile: Profile, data: Dataset) -> pd.DataFrame:
    """A model of each look-ahead, a core each; one row an epoch."""
    unlabelled(profile, data)  # (once for all)
    fitted = parallel.each(fit, [(profile, data.folder, look) for look in LOOK_AHEAD], "models")
    each = [one.assign(look=look) for one, look in zip(fitted, LOOK_AHEAD, strict=True)]
    return pd.concat(each, ignore_index=True)


def load(profile: Profile, data: Dataset, look: str = "both ways") -> model.TokenModel:
    """A trained model; `PaperError` where there is none of these parameters."""
    made = stage(profile, data, look)
    stages.ready(made, NOTEBOOK)
    _, code = codes.of_dataset(profile, data)
    net = new(profile, code, 0, look)
    net.load_state_dict(load_file(made.folder / WEIGHTS))
    return net.eval()


# --- how well hidden tokens are guessed -----------------------------------------------------------


@torch.inference_mode()
def judge(net: nn.Module, tokens: np.ndarray, frames: int, seed: int) -> pd.DataFrame:
    """A row a clip and codebook: accuracy and bits, on average over its hidden tokens.

    Heard are the first `frames` frames of each; a quarter of the tokens is hidden (`hidden_of`).
    """
    device, rows = next(net.parameters()).device, []
    net.eval()
    for start in range(0, len(tokens), 16):
        part = torch.from_numpy(tokens[start : start + 16, :, :frames].astype(np.int64))
        hidden = hidden_of(start, len(part), part.shape[1:], seed)
        for i, one in enumerate(net(part.to(device), hidden.to(device))):
            chances = torch.log_softmax(one.double(), 2).cpu().numpy()
            for clip in range(len(part)):
                where = hidden[clip, i].numpy()
                row = guessed(chances[clip, where], part[clip, i].numpy()[where])
                rows.append({"clip": start + clip, "codebook": i + 1} | row)
    return pd.DataFrame(rows)


def guessed(chances: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """accuracy and bits of guesses: log chances (tokens, values), in nats, and what was there."""
    right = chances.argmax(1) == truth
    bits = -chances[np.arange(len(truth)), truth] / np.log(2)
    return {"accuracy": float(right.mean()), "bits": float(bits.mean())}


def hidden_of(first: int, clips: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """(clips, codebooks, frames) which tokens of judged clips are hidden.

    None of the first frame or the last, which have one neighbour alone.
    """
    draws = (generator_for(seed, "judged", first + i) for i in range(clips))
    hidden = torch.stack([model.hide(tuple(shape), SHARE, rng) for rng in draws])
    hidden[..., [0, -1]] = False
    return hidden


MOST_COUNTS = 10_000_000  # in a table


def counted_out(
    train: np.ndarray, tokens: np.ndarray, sizes: tuple[int, ...], frames: int, seed: int
) -> pd.DataFrame:
    """What tables counted on `train` guess of the same hidden tokens: a row a table beside.

    unigram: the commonest value; bigram: knowing the same codebook's token of the frame before;
    both neighbours: and of the frame after. Tables see these neighbours also where they are hidden
    to the model; in this they are the stronger.
    """
    hidden, rows = hidden_of(0, len(tokens), tokens[0, :, :frames].shape, seed).numpy(), []
    for i, size in enumerate(sizes):
        learned, asked = (x[:, i].astype(np.int64) for x in (train, tokens[..., :frames]))
        for name, many in {"unigram": 1, "bigram": size, "both neighbours": size**2}.items():
            if many * size > MOST_COUNTS:
                continue  # (of large codebooks: most pairs never come)
            shares = shares_of(beside(learned, size, many), learned[:, 1:-1], (many, size))
            known = beside(asked, size, many)
            for clip, where in enumerate(hidden[:, i, 1:-1]):
                row = guessed(np.log(shares[known[clip][where]]), asked[clip, 1:-1][where])
                rows.append({"model": name, "clip": clip, "codebook": i + 1} | row)
    return pd.DataFrame(rows)


def beside(tokens: np.ndarray, size: int, many: int) -> np.ndarray:
    """(clips, frames) -> (clips, frames - 2) which of `many` contexts each token stands in.

    many: 1 (none), size (the token before), or its square (and the one after).
    """
    before, after = tokens[:, :-2], tokens[:, 2:]
    return before * size + after if many > size else before % many


def around(tokens: np.ndarray, hidden: np.ndarray, book: int, sizes: tuple[int, ...]):
    """What the model, too, sees beside each token of a codebook: (clips, frames - 2, books + 1).

    The other codebooks' tokens of its frame, and its own of the frame before and after; a hidden
    one is one value more than there are.
    """
    seen = np.where(hidden, np.array(sizes)[:, None], tokens.astype(np.int64))
    others = np.delete(seen[:, :, 1:-1], book, 1)
    both = np.stack([seen[:, book, :-2], seen[:, book, 2:]], 1)
    return np.concatenate([others, both], 1).transpose(0, 2, 1)


def read_beside(
    train: np.ndarray, tokens: np.ndarray, sizes: tuple[int, ...], frames: int, seed: int
) -> pd.DataFrame:
    """The same of a linear reader of what is `around`: a row a clip and codebook.

    It learns, a codebook at a time, on the hidden tokens of `READ` frames of `train`, of clips that
    are drawn.
    """
    drawn = np.sort(generator_for(seed, "read").permutation(len(train))[: max(1, READ // frames)])
    rows, parts = [], {}
    for name, x in (("train", train[drawn]), ("test", tokens)):
        hidden = hidden_of(0, len(x), x[0, :, :frames].shape, seed).numpy()
        parts[name] = (x[..., :frames], hidden)
    for i, size in enumerate(sizes):
        seen = {name: around(*part, i, sizes) for name, part in parts.items()}
        asked = {name: hidden[:, i, 1:-1] for name, (_, hidden) in parts.items()}
        truth = {name: x[:, i, 1:-1].astype(np.int64) for name, (x, _) in parts.items()}
        line = make_pipeline(
            OneHotEncoder(handle_unknown="ignore"), LogisticRegression(max_iter=60)
        )
        learned = truth["train"][asked["train"]]
        line.fit(seen["train"][asked["train"]], learned)
        chances = np.full((*asked["test"].shape, size), -30.0)
        own = line.predict_log_proba(seen["test"][asked["test"]])
        least = np.log(0.5 / (len(learned) + 0.5 * size))  # (half a count, as the other rows have)
        said = np.full((len(own), size), least)  # (a value that never came in training)
        said[:, line.classes_] = own
        chances[asked["test"]] = said
        for clip, where in enumerate(asked["test"]):
            row = guessed(chances[clip][where], truth["test"][clip][where])
            rows.append({"model": "linear reader", "clip": clip, "codebook": i + 1} | row)
    return pd.DataFrame(rows)


READ = 160_000  # frames, of which a quarter is asked
