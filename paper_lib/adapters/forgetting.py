"""What an adapted encoder forgets, and what keeps it from forgetting. Notebook 14.

The codec's decoder was made for the embeddings of the pretrained encoder. How much worse it gives a
sound back from an adapted one's says how far that has moved from what it could.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from l3ac.en_codec import EnCodec

from ..codec import l3ac, reconstruction
from ..codec.encoder import Encoder
from ..core import machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from ..evaluation import intervals
from ..recognition import features
from ..recognition.model import EffectRecognizer
from ..recognition.optimisers import Rates
from ..sound import audio, effects, other_sounds
from ..sound.dataset import Dataset
from . import training
from .methods import METHODS, Method

RATE = audio.CODEC_RATE
BY_NAME = {method.name: method for method in METHODS}
FULL = BY_NAME["full, Muon"]


@dataclass(frozen=True)
class Trial:
    """A training of notebook 13's ceiling with one thing changed."""

    name: str
    method: Method = FULL
    epochs: float = 1.0  # times the profile's
    head_rate: float = 1.0  # times the profile's
    weight_decay: float = 0.0
    dropout: float = -1.0  # of the head (-1: the profile's)
    fixed: bool = False  # the same excerpt of a clip in each epoch, none drawn anew
    prior: float = 0.0  # lambda of L_prior: other embeddings than the pretrained encoder's
    rebuild: float = 0.0  # lambda of the reconstruction, trained on jointly
    replay: bool = False  # what is reconstructed is the training guitar, dry, not other sounds
    one_style: bool = False  # only recordings of one style and part are heard, as many steps
    recordings: int = 0  # only so many of training, drawn, as many steps (0: all)
    labels: str = ""  # "any": every label says whether there is any effect


RECIPE = Trial("the recipe")
# what the guide advises against forgetting, one change at a time
MITIGATIONS = (
    RECIPE,
    Trial("a tenth of the rate", replace(FULL, rate=FULL.rate / 10), head_rate=0.1),
    Trial("a hundredth of the rate", replace(FULL, rate=FULL.rate / 100), head_rate=0.01),
    Trial("a third of the epochs", epochs=1 / 3),
    Trial("weight decay 0.1", weight_decay=0.1),
    Trial("dropout 0.5", dropout=0.5),
    Trial("no augmentation", fixed=True),
)
PRIORS = tuple(Trial(f"prior {weight:g}", prior=weight) for weight in (1.0, 10.0, 100.0))
REBUILDING = (Trial("reconstruction 10", rebuild=10.0),)
REPLAY = Trial("replay 10", rebuild=10.0, replay=True)
TOO_HIGH = Trial("rate ten times too high", replace(FULL, rate=10 * FULL.rate), head_rate=10.0)
# two of the remedies where more is lost than by the recipe
WHERE_LOST = (
    replace(TOO_HIGH, name="ten times the rate, prior 10", prior=10.0),
    replace(TOO_HIGH, name="ten times the rate, replay 10", rebuild=10.0, replay=True),
)
# the guide's five common pitfalls, on purpose (the fourth, forgetting, is the first's, too)
PITFALLS = (
    TOO_HIGH,
    Trial("too long", epochs=2.0, recordings=12),
    Trial("one style alone", one_style=True),
    Trial("labels too generic", labels="any"),
)
EARLIER = Trial("stopped earlier", epochs=1 / 3, recordings=12)  # the remedy for "too long"


# --- what is given back ---------------------------------------------------------------------------


def sounds(data: Dataset, many: int = 12, seconds: float = 2.5) -> dict[str, torch.Tensor]:
    """kind -> (many, samples) to give back, none of them trained on, each at a peak of 0.5.

    Guitar: `many` of the test recordings, dry and as their last chain has them.
    """
    test = data.index.iloc[data.rows("test")]
    dry = test[test.chain == effects.label(effects.DRY)]  # (not every slice's chains hold it)
    names = sorted(set(dry.recording), key=lambda n: generator_for(0, "given back", n).random())
    if not names:
        raise PaperError(
            "no test recording of this data set has its dry clip: set include_dry to true and "
            "chains_per_slice to 0, and run notebook 01 again."
        )
    each = [test[test.recording == name] for name in names[:many]]
    samples = round(min(seconds, data.audio.shape[1] / RATE) * RATE)
    others = [other_sounds.sound(10**6 + i, samples, RATE) for i in range(many)]
    found = {
        "guitar": data.clips(
            [one.index[one.chain == effects.label(effects.DRY)][0] for one in each]
        ),
        "guitar with effects": data.clips([one.index[-1] for one in each]),
        "other sounds": np.stack(others),
    }
    return {
        kind: reconstruction.loud(torch.from_numpy(np.ascontiguousarray(x[:, :samples])))
        for kind, x in found.items()
    }


@torch.inference_mode()
def given_back(
    network: EnCodec, encoder: Encoder, heard: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The sounds after `encoder` and the decoder of `network`, clip by clip.

    (A batch is no faster, and its last bits turn some rounded value of the codec over.)
    """
    one = lambda x: reconstruction.rebuilt(network, encoder.eval()(x[None]))[0, : x.shape[-1]]
    return {kind: torch.stack([one(x) for x in batch]) for kind, batch in heard.items()}


def quality(heard: dict[str, torch.Tensor], back: dict[str, torch.Tensor]) -> dict[str, float]:
    """SI-SDR, log-mel and STFT distance of what is given back: `si_sdr_db guitar`, ..."""
    return {
        f"{name} {kind}": value
        for kind in heard
        for name, value in reconstruction.quality(heard[kind], back[kind]).items()
    }


# --- what keeps it from forgetting ----------------------------------------------------------------


@dataclass
class General:
    """Sounds of all kinds, half-way up the encoder, and what the pretrained one makes of them."""

    network: EnCodec
    audio: torch.Tensor  # (sounds, samples)
    lower: torch.Tensor  # (sounds, channels, frames)
    pretrained: Encoder
    spread: torch.Tensor = field(init=False)  # mean square of the embeddings' deviation

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.spread = self.pretrained(self.lower).var((0, 1)).mean()

    def to(self, device: torch.device) -> None:
        """All of it moved to a device (the pretrained encoder is the network's own)."""
        self.network.to(device)
        self.audio, self.lower = self.audio.to(device), self.lower.to(device)
        self.spread = self.spread.to(device)

    def crops(self, step: int, frames: int, many: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
        """(many, channels, frames) half-way up, and the samples that they are of."""
        rng, hop = generator_for(0, "general", step), self.pretrained.hop
        rows = rng.integers(len(self.lower), size=many)
        whole = self.audio.shape[-1] // hop  # (without a last frame that is part padding)
        starts = rng.integers(whole - frames + 1, size=many)
        pairs = list(zip(rows, starts, strict=True))
        lower = torch.stack([self.lower[r, :, a : a + frames] for r, a in pairs])
        return lower, torch.stack([self.audio[r, a * hop : (a + frames) * hop] for r, a in pairs])

    def prior(self, encoder: Encoder, step: int) -> torch.Tensor:
        """L_prior: mean squared distance to the pretrained embeddings; 1: as far as their mean."""
        lower, _ = self.crops(step, min(100, self.lower.shape[-1]))
        with torch.no_grad():
            wanted = self.pretrained(lower)
        return (encoder(lower) - wanted).square().mean() / self.spread

    def reconstruction(self, encoder: Encoder, step: int) -> torch.Tensor:
        """The part of the pretraining's loss that compares sounds, of half seconds.

        100 x squared error + STFT distance, through the decoder as it is; attention has no past
        before the crop.
        """
        lower, x = self.crops(step, min(50, self.lower.shape[-1]))
        y = reconstruction.rebuilt(self.network, encoder(lower))[..., : x.shape[-1]]
        return 100 * (y - x).square().mean() + reconstruction.stft_distance(x, y)


def general(
    profile: Profile, many: int = 48, seconds: float = 2.0, guitar: Dataset | None = None
) -> General:
    """`many` other sounds than those of `sounds`, with what the pretrained codec makes of them.

    With a data set `guitar`, its dry training clips in their place.
    """
    network = l3ac.load(profile.codec)
    network.requires_grad_(False)
    samples = round(seconds * RATE)
    if guitar is None:
        made = [other_sounds.sound(2 * 10**6 + i, samples, RATE) for i in range(many)]
        x = torch.from_numpy(np.stack(made))
    else:
        rows = guitar.rows("train")
        dry = rows[guitar.index.chain.to_numpy()[rows] == effects.label(effects.DRY)]
        drawn = np.sort(generator_for(0, "replay").permutation(dry)[:many])
        x = torch.from_numpy(guitar.clips(drawn)[:, :samples].copy())
    x = reconstruction.loud(x)
    encoder = Encoder(network)
    with torch.no_grad():
        lower = torch.cat([encoder.lower(one[None]) for one in x])
    return General(network, x, lower, encoder)


# --- trials ---------------------------------------------------------------------------------------


def lesson(data: Dataset, trial: Trial, general: General | None) -> training.Lesson:
    """What a trial hears, and what it is judged by beside the labels."""
    usual = replace(training.lesson(data), fixed=trial.fixed)
    rows, wanted = usual.train, usual.wanted
    if trial.one_style:
        rows = np.resize(rows[styles(data)[rows] == commonest_style(data)], len(rows))
    if trial.recordings:
        of = data.index.recording.to_numpy()
        drawn = generator_for(0, "few recordings").permutation(np.unique(of[rows]))
        rows = np.resize(rows[np.isin(of[rows], drawn[: trial.recordings])], len(rows))
    if trial.labels == "any":
        wanted = np.repeat(wanted.max(1, keepdims=True), wanted.shape[1], 1)
    if general is None:
        return replace(usual, train=rows, wanted=wanted)

    def also(model: EffectRecognizer, step: int) -> torch.Tensor:
        general.to(model.head.mean.device)
        terms = []
        if trial.prior:
            terms.append(trial.prior * general.prior(model.encoder, step))
        if trial.rebuild:
            terms.append(trial.rebuild * general.reconstruction(model.encoder, step))
        return torch.stack(terms).sum()

    return replace(usual, train=rows, wanted=wanted, also=also)


def styles(data: Dataset) -> np.ndarray:
    """(clips,) style and part of each clip, such as `Jazz comp`."""
    return (data.index["style"] + " " + data.index["part"]).to_numpy()


def commonest_style(data: Dataset) -> str:
    """That of most training clips; of equals the first by name."""
    names, counts = np.unique(styles(data)[data.rows("train")], return_counts=True)
    return str(names[counts.argmax()])


def stage(profile: Profile, data: Dataset, trial: Trial) -> stages.Stage:
    """data/<profile>/adapters/trial_<name>: what a trial leaves; one training seed."""
    parameters = {name: getattr(profile, name) for name in (*training.PARAMETERS, "trial_epochs")}
    del parameters["adapter_epochs"]
    folder = paths.data(profile.profile) / "adapters" / f"trial_{training.slug(trial.name)}"
    inputs = training.inputs(profile, data, 0)
    return stages.Stage("trial", folder, parameters | asdict(trial), inputs, threads=1)


def fit(profile: Profile, folder: Path, trial: Trial) -> Path:
    """Train as the trial says, if that has not been done; its folder."""
    data = Dataset(folder)
    made = stage(profile, data, trial)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            clips = features.kept(profile, data, "frozen")
            model = _model(profile, data, trial)
            rates = Rates(
                trial.method.rate,
                profile.adapter_head_rate * trial.head_rate,
                trial.method.muon,
                0.98,
                trial.weight_decay,
            )
            epochs = max(1, round(profile.trial_epochs * trial.epochs))
            run = replace(profile, adapter_epochs=epochs)
            guitar = data if trial.replay else None
            other = general(profile, guitar=guitar) if trial.prior or trial.rebuild else None
            heard = lesson(data, trial, other)
            history = training.train(clips, model, rates, run, heard, profile.seed)
            rows = {"validation": training.judged(profile, data, "validation")}
            made.finish(training.save(model, clips, history, work, rows))
    return made.folder


def _model(profile: Profile, data: Dataset, trial: Trial) -> EffectRecognizer:
    model = training.starting_point(profile, data, trial.method, 0)
    if trial.dropout >= 0:
        model.head.layers[2].p = trial.dropout
    return model


def load(profile: Profile, data: Dataset, trial: Trial) -> EffectRecognizer:
    """The model of a finished trial."""
    made = stage(profile, data, trial)
    stages.ready(made, "14_what_is_forgotten")
    return training.restored(_model(profile, data, trial), made.folder)


def fit_all(profile: Profile, data: Dataset, trials: tuple[Trial, ...]) -> None:
    """Every trial, a core each; the long ones first."""
    features.kept(profile, data, "frozen")  # (once for all)
    slow = lambda trial: trial.epochs * (1 + bool(trial.prior) + 2 * bool(trial.rebuild))
    longest_first = sorted(trials, key=slow, reverse=True)
    parallel.each(fit, [(profile, data.folder, trial) for trial in longest_first], "trials")


def answered(folder: Path) -> np.ndarray:
    """(validation clips, 13) probabilities of a finished training."""
    return np.load(folder / "validation.npy")


def scored(
    profile: Profile, data: Dataset, said: dict[str, np.ndarray], style: str = ""
) -> intervals.Paired:
    """Mean average precision of what several trainings say of validation clips.

    said: name -> probabilities (validation clips, 13). style: one that is left out.
    """
    where = training.judged(profile, data, "validation")
    of = styles(data)[where] != style
    truth, recordings = data.labels[where][of], data.index.recording.to_numpy()[where][of]
    each = {name: one[of][None] for name, one in said.items()}
    return intervals.average_precision(truth, each, recordings, profile.bootstrap, profile.seed)


def judged(
    profile: Profile, data: Dataset, models: dict[str, tuple[Encoder, np.ndarray]]
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """How well each model names effects, and how well sounds come back.

    models: name -> its encoder, and what it says of the validation clips, (clips, 13).

    Returns:
        A row a model: mean average precision on validation (map, lo, hi), and `quality`. And of
        each model the log-mel distance (dB) of every guitar sound, (sounds,), for paired
        comparisons.
    """
    network, heard, rows, left = l3ac.load(profile.codec), sounds(data), [], {}
    precision = scored(profile, data, {name: said for name, (_, said) in models.items()})
    for name, (encoder, _) in models.items():
        back = given_back(network, encoder, heard)
        row: dict = {"name": name}
        row |= dict(zip(("map", "lo", "hi"), precision.of((1, name)), strict=True))
        rows.append(row | quality(heard, back))
        left[name] = reconstruction.log_mel_distance(heard["guitar"], back["guitar"]).numpy()
    return pd.DataFrame(rows), left
