"""Simpler listeners beside the codec (notebook 09): networks on log-mel, and MFCC with an SVM.

The networks hear the log-mel spectrogram as a picture (bands x frames); what they train on is kept
by notebook 02. Their answers lie where a head's do, so that one table holds all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from ..codec.frontends import BANDS, LogMel
from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import generator_for
from ..evaluation import scores
from ..sound import audio, corpus, effects
from ..sound.dataset import Dataset
from . import features
from .features import EncodedClips
from .head import bce, validation_scores
from .model import load as load_recognizer
from .optimisers import warm_cosine

CHANNELS = (16, 32, 64, 96)
SHORTEST = 200  # frames of a training excerpt; the longest is the whole clip
PENALTIES = (1.0, 10.0, 100.0)  # of the SVM: one of them, chosen on validation


class MelRecognizer(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="l3ac-guitar-effects",
    license="mit",
    tags=["audio-classification"],
):
    """Log-mel, four strided blocks of convolutions, statistics or a GRU over time, 13 logits.

    `recurrent` False: mean and deviation over time (the CNN); True: a GRU in both directions and
    the mean of its states (the CRNN). `referenced`: it is also told how the same guitar sounds
    dry, as that recording's mean log-mel spectrum, and sees the difference beside the spectrogram.
    """

    def __init__(
        self,
        recurrent: bool = False,
        hidden: int = 128,
        dropout: float = 0.3,
        referenced: bool = False,
    ):
        super().__init__()
        self.recurrent, self.referenced = recurrent, referenced
        self.mel = LogMel()
        before, blocks = (2 if referenced else 1, *CHANNELS[:-1]), []
        for i, (inside, out) in enumerate(zip(before, CHANNELS, strict=True)):
            # (the GRU keeps its frames: only the first two blocks shorten time)
            blocks.append(_block(inside, out, stride=(2, 1 if recurrent and i > 1 else 2)))
        # (channels last: on a processor these convolutions take a third less time)
        self.blocks = nn.Sequential(*blocks).to(memory_format=torch.channels_last)
        width = CHANNELS[-1] * BANDS // 2 ** len(CHANNELS)
        self.gru = nn.GRU(width, hidden // 2, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(hidden if recurrent else 2 * width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, len(effects.NAMES)),
        )
        if not recurrent:
            del self.gru

    def forward(self, x: torch.Tensor, dry: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, samples) at 16 kHz, or what `LogMel.lower` made of it -> (batch, 13) logits.

        dry: (batch, 64), what `spectrum` makes of a dry recording of the same guitar.
        """
        mel = self.mel.lower(x) if x.ndim == 2 else x
        layers = [mel] if dry is None else [mel, mel - dry[:, :, None]]
        picture = torch.stack(layers, 1).contiguous(memory_format=torch.channels_last)
        y = self.blocks(picture).flatten(1, 2)  # (batch, channels x bands, frames)
        if self.recurrent:
            return self.head(self.gru(y.transpose(1, 2))[0].mean(1))
        return self.head(torch.cat([y.mean(2), y.std(2, correction=0)], 1))


def _block(inside: int, out: int, stride: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1, groups=out, bias=False),
        nn.Conv2d(out, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )


def spectrum(front: LogMel, samples: np.ndarray) -> np.ndarray:
    """(n,) float at 16 kHz -> (64,): the log-mel spectrum of its mean power over time."""
    with torch.inference_mode():
        power = front.mel(torch.from_numpy(samples.astype(np.float32))[None])
        return torch.log(power.mean(-1) + 1e-6)[0].numpy()


def vary(mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(64, frames) log-mel as another recording might have it: level, equalizer, noise floor.

    In natural-log power: a level (deviation 1.0, that is 4.3 dB), an equalizer through five random
    points (deviation 0.8), and noise at -59 to -33 dB.
    """
    level = rng.normal(0, 1.0)
    points = np.linspace(0, len(mel) - 1, 5)
    equalizer = np.interp(np.arange(len(mel)), points, rng.normal(0, 0.8, 5))
    floor = rng.uniform(-13.5, -7.5) + 0.5 * rng.standard_normal(mel.shape)
    return np.logaddexp(mel + level + equalizer[:, None], floor).astype(np.float32)


# --- training the networks ------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """One training of a network on log-mel."""

    recurrent: bool
    varied: bool
    epochs: int
    rate: float = 2e-3
    batch: int = 32
    weight_decay: float = 1e-2
    seed: int = 0


def training_of(
    clips: EncodedClips, model: MelRecognizer, recipe: Recipe, rows: tuple[np.ndarray, np.ndarray]
) -> tuple[loop.Task, loop.Plan]:
    """What the loop needs to train `model` on rows to learn from and to choose on."""
    train, validation = rows
    examples, per_epoch = loop.shuffled(train, recipe.batch, recipe.seed, "peer")
    longest = clips.clips(train[:1]).shape[-1]

    def heard(row: int, length: int, epoch: int) -> tuple[np.ndarray, ...]:
        """Another excerpt, and another recording of it, each epoch."""
        rng = generator_for(recipe.seed, "excerpt", epoch, int(row))
        start = rng.integers(longest - length + 1)
        mel = clips.clips(row)[:, start : start + length]
        if clips.dry is not None:  # (what changes the clip changes its dry reference alike)
            both = np.concatenate([mel, clips.dry[row][:, None]], 1)
            both = vary(both, rng) if recipe.varied else both + np.float32(rng.normal(0, 0.5))
            return both[:, :-1], both[:, -1]
        return (vary(mel, rng) if recipe.varied else mel + np.float32(rng.normal(0, 0.5)),)

    def loss(model: nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        device, epoch = next(model.parameters()).device, step // per_epoch + 1
        rng = generator_for(recipe.seed, "length", step)
        length = int(rng.integers(min(SHORTEST, longest), longest + 1))
        parts = zip(*(heard(row, length, epoch) for row in part), strict=True)
        inputs = [torch.from_numpy(np.stack(one)).to(device) for one in parts]
        return bce(model(*inputs), torch.from_numpy(clips.labels[part]).to(device))

    def evaluate(model: nn.Module, epoch: int) -> dict:
        return validation_scores(logits_of(model, clips, validation), clips.labels[validation])

    optimiser = torch.optim.AdamW(model.parameters(), recipe.rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * per_epoch
    plan = loop.Plan(
        steps=steps,
        per_epoch=per_epoch,
        seed=recipe.seed,
        score="validation_macro_f1",
        checkpoint_every=per_epoch,
        label="CRNN" if recipe.recurrent else "CNN",
    )
    schedule = warm_cosine(optimiser, steps, 0.25)
    return loop.Task(model, examples, loss, [optimiser], [schedule], evaluate), plan


def logits_of(model: nn.Module, clips: EncodedClips | Dataset, rows: np.ndarray) -> torch.Tensor:
    """(rows, 13) logits of clips or of their log-mel spectrograms."""
    device, out = next(model.parameters()).device, []
    dry = clips.dry if isinstance(clips, EncodedClips) else None
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), 32):
            part = rows[start : start + 32]
            inputs = [clips.clips(part)]
            if dry is not None:
                inputs.append(dry[part])
            out.append(model(*(torch.from_numpy(one).to(device) for one in inputs)).cpu())
    return torch.cat(out)


def train_network(
    clips: EncodedClips,
    recipe: Recipe,
    rows: tuple[np.ndarray, np.ndarray],
    folder: Path | None = None,
) -> tuple[MelRecognizer, pd.DataFrame]:
    """A network from random weights, its best epoch kept; and its history."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = MelRecognizer(recipe.recurrent, referenced=clips.dry is not None)
    result = loop.train(*training_of(clips, model, recipe, rows), folder)
    model = model.cpu()
    model.load_state_dict(result.weights)
    return model.eval(), result.history


def fit_networks(
    profile: Profile, data: Dataset, recipes: dict[str, Recipe], referenced: bool = False
) -> None:
    """Stages data/<profile>/models/<name>: each network with `peer_seeds` seeds.

    Several at a time, a core each. `referenced`: beside each clip it hears its guitar dry.
    """
    features.kept(profile, data, "logmel")
    dry = dry_spectra(profile, data) if referenced else None
    jobs = [
        (profile, data.folder, name, recipe, seed, dry)
        for name, recipe in sorted(recipes.items(), key=lambda one: -one[1].recurrent)  # long first
        for seed in range(profile.peer_seeds)
        if not _stage(profile, data, name, recipe, seed, dry)[0].current()
    ]
    parallel.each(_fit, jobs, "networks on log-mel")


def _stage(
    profile: Profile,
    data: Dataset,
    name: str,
    recipe: Recipe,
    seed: int,
    dry: np.ndarray | None = None,
) -> tuple[stages.Stage, Recipe]:
    own = Recipe(**asdict(recipe) | {"seed": profile.seed + seed})
    folder = paths.model(profile.profile, name, seed)
    embedding = stages.read(paths.embedding(profile.profile, "logmel")) or {}
    inputs = {"dataset": data.content, "embedding": embedding.get("content", "")}
    if dry is not None:
        inputs["dry"] = stages.array_digest(dry)
    return stages.Stage("peer", folder, asdict(own), inputs, threads=1), own


def _fit(
    profile: Profile,
    folder: Path,
    name: str,
    recipe: Recipe,
    seed: int,
    dry: np.ndarray | None = None,
) -> None:
    machine.make_deterministic(1)
    data = Dataset(folder)
    made, own = _stage(profile, data, name, recipe, seed, dry)
    with made.opened() as work:
        if work:
            clips = replace(features.kept(profile, data, "logmel"), dry=dry)
            rows = data.rows("train"), data.rows("validation")
            model, history = train_network(clips, own, rows, work)
            model.save_pretrained(work)
            probability = torch.sigmoid(logits_of(model, clips, np.arange(len(data)))).numpy()
            np.save(work / "probabilities.npy", probability)
            np.save(work / "validation_probabilities.npy", probability[rows[1]])
            history.to_csv(work / "history.csv", index=False)
            made.finish(stages.array_digest(probability))


def dry_spectra(profile: Profile, data: Dataset) -> np.ndarray:
    """Stage data/<profile>/dry_spectra: (clips, 64), how each clip's guitar sounds without effects.

    From another performance on it, of which no clip is made (`corpus.another_take`).
    """
    made = stages.Stage(
        "dry", paths.data(profile.profile) / "dry_spectra", {}, {"dataset": data.content}, threads=1
    )
    with made.opened() as work:
        if work:
            found = corpus.recordings(profile)
            jobs = (joblib.delayed(_dry)(recording, profile) for recording in found)
            of = dict(
                zip((r.name for r in found), joblib.Parallel(machine.cores())(jobs), strict=True)
            )
            spectra = np.stack([of[name] for name in data.index.recording])
            np.save(work / "spectra.npy", spectra)
            made.finish(stages.array_digest(spectra))
    return np.load(made.folder / "spectra.npy")


def _dry(recording: corpus.Recording, profile: Profile) -> np.ndarray:
    machine.make_deterministic(1)
    take = audio.to_float(corpus.another_take(recording, profile))
    return spectrum(LogMel(), audio.resample(take, profile.render_rate, audio.CODEC_RATE))


def load(folder: Path) -> MelRecognizer:
    """A saved network, in eval mode."""
    stages.require(folder, "09_peers_and_real_guitars")
    return load_recognizer(folder, MelRecognizer)


# --- MFCC and a support vector machine ------------------------------------------------------------


def mfcc(clips: np.ndarray) -> np.ndarray:
    """(clips, samples) at 16 kHz -> (clips, 60): mean, deviation, difference of 20 coefficients.

    As in the early literature (Stein et al., 2010; Schmitt & Schuller, 2017).
    """
    from torchaudio.transforms import MFCC  # (slow to import)

    settings = {"n_fft": 1024, "hop_length": 256, "n_mels": BANDS}
    front = MFCC(16_000, n_mfcc=20, melkwargs=settings)
    found = []
    with torch.inference_mode():
        for clip in clips:
            frames = front(torch.from_numpy(clip)[None]).transpose(1, 2)
            found.append(features.time_statistics(frames).flatten(1))
    return torch.cat(found).numpy()


def fit_svm(profile: Profile, data: Dataset) -> None:
    """Stage data/<profile>/models/mfcc_svm: one RBF machine an effect on MFCC statistics.

    The penalty of best validation macro-F1 is kept; its "probabilities" are logistic functions of
    the margins, so that 0.5 is the boundary.
    """
    folder = paths.model(profile.profile, "mfcc_svm")
    parameters = {"penalties": PENALTIES}
    made = stages.Stage("svm", folder, parameters, {"dataset": data.content}, threads=1)
    with made.opened() as work:
        if work:
            x = mfcc(data.clips(np.arange(len(data))))
            machines, history = best_svm(*_of_splits(x, data))
            history.to_csv(work / "history.csv", index=False)
            joblib.dump(machines, work / "svm.joblib")
            probability = svm_probabilities(machines, x)
            np.save(work / "probabilities.npy", probability)
            made.finish(stages.array_digest(probability))


def load_svm(profile: Profile, data: Dataset):
    """The machines of `fit_svm`, fitted again where the run was fetched: no pickle travels."""
    folder = paths.model(profile.profile, "mfcc_svm")
    stages.require(folder, "09_peers_and_real_guitars", dataset=data.content)
    if (folder / "svm.joblib").exists():
        return joblib.load(folder / "svm.joblib")
    return best_svm(*_of_splits(mfcc(data.clips(np.arange(len(data)))), data))[0]


def _of_splits(x: np.ndarray, data: Dataset) -> tuple[tuple, tuple]:
    """Inputs and labels to train on, and to choose on."""
    train, validation = ((x[r], data.labels[r]) for r in map(data.rows, ("train", "validation")))
    return train, validation


def best_svm(train: tuple, validation: tuple):
    """Standardised inputs, one RBF machine a label; the penalty chosen on `validation`.

    Returns the machines and the macro-F1 of each penalty there.
    """
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    best, rows = None, list[dict]()
    for penalty in PENALTIES:
        one = OneVsRestClassifier(SVC(C=penalty), n_jobs=machine.cores())
        machines = make_pipeline(StandardScaler(), one).fit(*train)
        said = svm_probabilities(machines, validation[0]) > 0.5
        score = scores.scores(validation[1], said)["macro_f1"]
        if score > max((row["validation_macro_f1"] for row in rows), default=-1.0):
            best = machines
        rows.append({"penalty": penalty, "validation_macro_f1": score})
    return best, pd.DataFrame(rows)


def svm_probabilities(machines, x: np.ndarray) -> np.ndarray:
    """(clips, 60) -> (clips, 13)."""
    return 1 / (1 + np.exp(-machines.decision_function(x)))
