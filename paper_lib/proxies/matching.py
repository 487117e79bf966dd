"""Sound matching: a network that says which preset makes a sound. Notebook 20.

Section 7 of the synthesizers' paper. An estimator hears a spectrogram and answers with a preset. It
learns from the parameters alone, or also from what a preset encoder says that its answer would be
heard as.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.signal
import torch
from scipy.spatial.distance import cdist
from torch import nn
from torch.nn import functional as F

from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import generator_for
from ..evaluation import proxy_paper
from ..recognition.optimisers import warm_cosine
from ..sound import audio, effects, plucked, rendering
from . import encoders, presets, synth
from .encoders import Training
from .presets import SPACE, Presets, Space

PROXY = Training("TFM", 0)  # the encoder that says what an answer would be heard as
LEVEL = (-6.0, 4.0)  # mean and deviation, about, of a log-mel spectrogram


# --- the estimator --------------------------------------------------------------------------------


class Estimator(nn.Module):
    """Log-mel pictures (n, 128, frames) -> (n, numbers + values): a preset's logits, as one-hot.

    Seven convolutions and two layers, a norm and a ReLU after each but the last: of the kind that
    Section 7.1 takes from earlier work. It hears what notebook 19 hears, four frames a column, not
    the paper's spectrogram (32 kHz, windows of 1024).
    """

    def __init__(self, space: Space = SPACE, width: int = 16):
        super().__init__()
        widths = [1, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 4 * width]
        strides = [2, 1, 2, 1, 2, 1, 2]
        parts: list[nn.Module] = []
        for (of, to), stride in zip(pairwise(widths), strides, strict=True):
            parts += [nn.Conv2d(of, to, 3, stride, 1, bias=False), nn.BatchNorm2d(to), nn.ReLU()]
        self.features = nn.Sequential(*parts, nn.AdaptiveAvgPool2d((8, 3)), nn.Flatten())
        self.answer = nn.Sequential(
            nn.Linear(24 * widths[-1], 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(),
            nn.Linear(256, space.one_hot),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(self.features((x[:, None] - LEVEL[0]) / LEVEL[1]))


def soft(logits: torch.Tensor, how: str, space: Space = SPACE) -> torch.Tensor:
    """Logits -> a preset that a preset encoder reads, (n, numbers + values).

    how: `soft`, a probability for each value of a choice; `hard`, the likeliest alone, through
    which no gradient passes (as in the paper's released code); `straight`, the likeliest on the way
    up and the probabilities' gradient on the way back. Switches likewise.
    """
    n, switches = space.numbers, len(presets.SWITCHES)
    numbers, of_switches = logits[:, : n - switches].sigmoid(), logits[:, n - switches : n]
    parts = [torch.stack([1 - of_switches[:, i].sigmoid(), of_switches[:, i].sigmoid()], 1)
             for i in range(switches)]  # fmt: skip
    parts += [p.softmax(1) for p in logits[:, n:].split(list(space.choices), 1)]
    if how != "soft":
        sure = [F.one_hot(p.argmax(1), p.shape[1]).to(p) for p in parts]
        parts = [s + p - p.detach() if how == "straight" else s
                 for s, p in zip(sure, parts, strict=True)]  # fmt: skip
    chosen = [p[:, 1:] for p in parts[:switches]] + parts[switches:]
    return torch.cat([numbers, *chosen], 1)


def rows_of(logits: torch.Tensor, space: Space = SPACE) -> np.ndarray:
    """Logits -> presets as rows, (n, parameters): the likeliest of each choice."""
    sure = soft(logits, "hard", space)
    picked = [p.argmax(1, True) for p in sure[:, space.numbers :].split(list(space.choices), 1)]
    return torch.cat([sure[:, : space.numbers], *picked], 1).numpy().astype(np.float32)


def parameter_loss(logits: torch.Tensor, rows: torch.Tensor, space: Space = SPACE) -> torch.Tensor:
    """(): L1 of the numbers, cross-entropy of the switches, a hundredth of that of the choices."""
    n, switches = space.numbers, len(presets.SWITCHES)
    m = n - switches
    numbers = (logits[:, :m].sigmoid() - rows[:, :m]).abs().mean()
    of_switches = F.binary_cross_entropy_with_logits(logits[:, m:n], rows[:, m:n])
    each = logits[:, n:].split(list(space.choices), 1)
    of_choices = sum(F.cross_entropy(p, rows[:, n + i].long()) for i, p in enumerate(each))
    return numbers + of_switches + 0.01 * of_choices


# --- schedules ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matching:
    """One training of an estimator."""

    schedule: str  # PLoss | Mix | Switch
    choices: str = "hard"  # how the proxy reads its answer (`soft`)
    seed: int = 0

    @property
    def name(self) -> str:
        return self.schedule + ("" if self.choices == "hard" else f", {self.choices}")


TRAININGS = (
    Matching("PLoss"),
    Matching("Mix"),
    Matching("Switch"),
    Matching("Switch", "soft"),
    Matching("Switch", "straight"),
)


def trainings(profile: Profile) -> list[Matching]:
    """Each of `TRAININGS`, `matching_seeds` times."""
    return [replace(one, seed=seed) for one in TRAININGS for seed in range(profile.matching_seeds)]


def weights_at(schedule: str, progress: float) -> tuple[float, float]:
    """Of the parameter loss and of the embedding loss, at 0 to 1 of a training.

    In the first third the parameters alone; in the second the embedding comes in, to a half (Mix)
    or to one (Switch), and the parameters go down by as much (so the paper's released code).
    """
    come = float(np.clip(3 * progress - 1, 0, 1))
    share = come * {"PLoss": 0.0, "Mix": 0.5, "Switch": 1.0}[schedule]
    return 1 - share, share


# --- the proxy, on presets that people made -------------------------------------------------------


def proxy(profile: Profile) -> stages.Stage:
    """data/<profile>/matching/proxy: notebook 19's TFM, trained on with presets made by hand."""
    inputs = _inputs(profile) | {"size": profile.proxy_size}
    own = {"epochs": profile.matching_epochs, "seed": profile.seed}
    folder = paths.data(profile.profile) / "matching" / "proxy"
    return stages.Stage("matching_proxy", folder, own, inputs, threads=1)


def _inputs(profile: Profile) -> dict[str, str]:
    """The hashes of what comes from notebook 19."""
    earlier = {"presets": presets.stage(profile), "encoder": encoders.stage(profile, PROXY)}
    return {k: stages.ready(v, "19_preset_encoders")["content"] for k, v in earlier.items()}


def trained_on(
    model: nn.Module, data: Presets, scale: tuple, profile: Profile, folder: Path | None = None
) -> None:
    """Train a preset encoder on, in place, with the presets made by hand, at a third of its rate.

    The epoch with the least L1 on validation presets is kept.
    """
    x, rows = torch.from_numpy(data.presets), encoders.split(len(data))
    y = torch.from_numpy((data.sounds - scale[0]) / scale[1])
    size = encoders.SIZES[profile.proxy_size]["TFM"]
    heard = len(rows["train"]) // size.batch * size.batch
    examples, per_epoch = loop.shuffled(
        rows["train"], size.batch, profile.seed, "by hand", heard=heard
    )
    seen = torch.from_numpy(rows["validation"])

    def loss(model: nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        device = next(model.parameters()).device
        return encoders.l1(model(x[part].to(device)), y[part].to(device)).mean()

    def evaluate(model: nn.Module, epoch: int) -> dict:
        with torch.inference_mode():
            said = model.eval()(x[seen].to(next(model.parameters()).device)).cpu()
        error = float(encoders.l1(said, y[seen]).mean())
        return {"validation_l1": error, "minus": -error}

    optimiser = torch.optim.Adam(model.parameters(), lr=size.rate / 3)
    steps = profile.matching_epochs * per_epoch
    plan = loop.Plan(steps=steps, per_epoch=per_epoch, seed=profile.seed, clip=1.0, score="minus",
                     checkpoint_every=per_epoch)  # fmt: skip
    task = loop.Task(
        model, examples, loss, [optimiser], [warm_cosine(optimiser, steps, 0.1)], evaluate
    )
    model.load_state_dict(loop.train(task, plan, folder).weights)
    model.cpu()


def fit_proxy(profile: Profile) -> Path:
    """Train the proxy on, if that has not been done; its folder."""
    made = proxy(profile)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            data, model = presets.make(profile), first_proxy(profile)
            scale = encoders.scaling(data["drawn"])
            trained_on(model, data["by hand"], scale, profile, work)
            torch.save(model.state_dict(), work / "weights.pt")
            made.finish(stages.digest(work / "weights.pt"))
    return made.folder


def first_proxy(profile: Profile) -> nn.Sequential:
    """Notebook 19's TFM as it was left."""
    return _read(profile, encoders.stage(profile, PROXY), "19_preset_encoders")


def load_proxy(profile: Profile) -> nn.Sequential:
    """The same, trained on."""
    return _read(profile, proxy(profile), "20_sound_matching").requires_grad_(False)


def _read(profile: Profile, made: stages.Stage, notebook: str) -> nn.Sequential:
    stages.ready(made, notebook)
    model = encoders.new(profile, "TFM")
    model.load_state_dict(torch.load(made.folder / "weights.pt", "cpu", weights_only=True))
    return model.eval()


# --- training -------------------------------------------------------------------------------------


def together(data: dict[str, Presets]) -> dict[str, Presets]:
    """What estimators are trained, chosen and tested on: of parts of 80-10-10.

    They learn from drawn presets and from those made by hand; they are chosen and tested on the
    latter alone.
    """
    drawn, hand = data["drawn"], data["by hand"]
    seen, own = presets.pictured(len(drawn)), encoders.split(len(hand))

    which = np.isin(seen, encoders.split(len(drawn))["train"])  # (that keep a picture)
    pairs = {"presets": seen[which], "sounds": seen[which], "pictures": np.flatnonzero(which)}

    def joined(part: str, rows: np.ndarray) -> Presets:
        whole = {
            name: np.concatenate([getattr(drawn, name)[of]] * (part == "train")
                                 + [getattr(hand, name)[rows]])
            for name, of in pairs.items()
        }  # fmt: skip
        return Presets(**whole, tries=len(whole["presets"]))

    return {part: joined(part, rows) for part, rows in own.items()}


def stage(profile: Profile, training: Matching) -> stages.Stage:
    """data/<profile>/matching/<schedule>_<choices>_<seed>."""
    before = stages.ready(proxy(profile), "20_sound_matching")["content"]
    own = asdict(training) | {"epochs": profile.matching_epochs, "profile_seed": profile.seed}
    label = f"{training.schedule}_{training.choices}_{training.seed}"
    folder = paths.data(profile.profile) / "matching" / label
    inputs = {"proxy": before, "presets": _inputs(profile)["presets"]}
    return stages.Stage("matching", folder, own, inputs, threads=1)


def fit(profile: Profile, training: Matching) -> Path:
    """Train one estimator, if that has not been done; its folder."""
    made = stage(profile, training)
    with made.opened() as work:
        if work:
            machine.make_deterministic(1)
            data = presets.make(profile)
            scale = encoders.scaling(data["drawn"])
            torch.manual_seed(profile.seed + training.seed)
            model = Estimator()
            parts, judge = together(data), load_proxy(profile)
            history = train(model, judge, parts, scale, profile, training, work)
            torch.save(model.state_dict(), work / "weights.pt")
            history.to_csv(work / "history.csv", index=False)
            made.finish(stages.digest(work / "weights.pt"))
    return made.folder


def train(
    model: Estimator,
    judge: nn.Module,
    parts: dict[str, Presets],
    scale: tuple[np.ndarray, np.ndarray],
    profile: Profile,
    training: Matching,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Train `model` in place by the training's schedule; its history. The last epoch counts.

    With a `folder` a killed training goes on.
    """
    heard, seen = parts["train"], parts["validation"]
    x, rows = (torch.from_numpy(np.array(v, np.float32)) for v in (heard.pictures, heard.presets))
    sounds = torch.from_numpy((heard.sounds - scale[0]) / scale[1])
    batch = 64
    whole = len(heard) // batch * batch
    examples, per_epoch = loop.shuffled(
        np.arange(len(heard)), batch, profile.seed + training.seed, "match", heard=whole
    )
    steps = profile.matching_epochs * per_epoch

    def loss(model: nn.Module, part: np.ndarray, step: int) -> torch.Tensor:
        device = next(model.parameters()).device
        logits = model(x[part].to(device))
        by_parameters, by_ear = weights_at(training.schedule, step / steps)
        total = by_parameters * parameter_loss(logits, rows[part].to(device))
        if by_ear:
            said = judge.to(device)(soft(logits, training.choices))
            total = total + by_ear * encoders.l1(said, sounds[part].to(device)).mean()
        return total

    def evaluate(model: nn.Module, epoch: int) -> dict:
        logits = answer(model, seen.pictures)
        with torch.inference_mode():
            said = judge.cpu()(soft(logits, "hard"))
        wanted = torch.from_numpy((seen.sounds - scale[0]) / scale[1])
        return {
            "validation_parameters": float(parameter_loss(logits, torch.from_numpy(seen.presets))),
            "validation_l1": float(encoders.l1(said, wanted).mean()),
        }

    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    plan = loop.Plan(steps=steps, per_epoch=per_epoch, seed=profile.seed + training.seed, clip=1.0,
                     checkpoint_every=per_epoch)  # fmt: skip
    schedule = warm_cosine(optimiser, steps, 0.05)
    task = loop.Task(model, examples, loss, [optimiser], [schedule], evaluate)
    history = loop.train(task, plan, folder).history
    model.cpu()
    return history


@torch.inference_mode()
def answer(model: nn.Module, pictures: np.ndarray) -> torch.Tensor:
    """(n, numbers + values) logits."""
    device = next(model.parameters()).device
    parts = torch.from_numpy(np.array(pictures, np.float32)).split(256)
    return torch.cat([model.eval()(part.to(device)).cpu() for part in parts])


def load(profile: Profile, training: Matching) -> Estimator:
    """A trained estimator."""
    model, made = Estimator(), stage(profile, training)
    stages.ready(made, "20_sound_matching")
    model.load_state_dict(torch.load(made.folder / "weights.pt", "cpu", weights_only=True))
    return model.eval()


def fit_all(profile: Profile, chosen: list[Matching]) -> pd.DataFrame:
    """Every training, a core each; one row an epoch."""
    fitted = parallel.each(fit, [(profile, one) for one in chosen], "estimators")
    each = [
        pd.read_csv(folder / "history.csv").assign(name=one.name)
        for folder, one in zip(fitted, chosen, strict=True)
    ]
    return pd.concat(each, ignore_index=True)


# --- how alike two sounds are ---------------------------------------------------------------------


def distances(match: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Table 5's four of two sounds (samples,) at 44.1 kHz; lower is nearer.

    As its released code has them, at 32 kHz: `stft` and `mel` (128 bands of it) are `_apart` at one
    resolution, `mstft` is the mean of three; `mfccd` is a quarter of the mean absolute difference
    of 39 cepstral coefficients, without the first, which is the level. (There a batch has one norm;
    here each sound has its own.)
    """
    both = [torch.from_numpy(audio.resample(x, synth.RATE, HEARD_AT)) for x in (match, target)]
    magnitudes = {one: [_magnitude(x, *one) for x in both] for one in (ONE, *SEVERAL)}
    mels = [_bands() @ x for x in magnitudes[ONE]]
    cepstra = [_cepstrum(x) for x in both]
    return {
        "stft": _apart(*magnitudes[ONE]),
        "mstft": float(np.mean([_apart(*magnitudes[one]) for one in SEVERAL])),
        "mel": _apart(*mels),
        "mfccd": 0.25 * float((cepstra[0] - cepstra[1]).abs().mean()),
    }


HEARD_AT = 32_000  # Hz
ONE = (1024, 256, 1024)  # transform, hop, window
SEVERAL = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))


def _magnitude(x: torch.Tensor, size: int, hop: int, window: int) -> torch.Tensor:
    spectrum = torch.stft(x, size, hop, window, torch.hann_window(window), return_complex=True)
    return spectrum.abs().square().clamp_min(1e-8).sqrt()


def _apart(match: torch.Tensor, target: torch.Tensor) -> float:
    """||T - M|| / ||T||, plus the mean absolute difference of the logarithms."""
    share = torch.linalg.norm(target - match) / torch.linalg.norm(target)
    return float(share + (target.log() - match.log()).abs().mean())


@functools.cache
def _bands() -> torch.Tensor:
    """(128, 513) mel bands of a magnitude, Slaney's."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(513, 0, HEARD_AT / 2, 128, HEARD_AT, "slaney", "slaney").T


@functools.cache
def _bands_of_power() -> torch.Tensor:
    """(128, 513) mel bands of a power, Kaldi's."""
    from torchaudio.compliance.kaldi import get_mel_banks

    bands, _ = get_mel_banks(128, 1024, float(HEARD_AT), 0.0, HEARD_AT / 2, 100.0, -500.0, 1.0)
    return F.pad(bands, (0, 1))


def _cepstrum(x: torch.Tensor) -> torch.Tensor:
    """(39, frames) of a sound whose highs are raised: coefficients of its mel bands in dB."""
    window = torch.hann_window(1024, periodic=False)
    raised = x[1:] - 0.97 * x[:-1]
    power = torch.stft(raised, 1024, 512, window=window, return_complex=True).abs().square()
    return _cosines(40, 128)[1:] @ (10 * (_bands_of_power() @ power).clamp_min(1e-8).log10())


@functools.cache
def _cosines(many: int, bands: int) -> torch.Tensor:
    """(many, bands) orthonormal DCT-II."""
    from torchaudio.functional import create_dct

    return create_dct(many, bands, "ortho").T


# --- targets --------------------------------------------------------------------------------------


def guitars(seed: int) -> tuple[list[str], np.ndarray]:
    """Names, and (51, samples) at 44.1 kHz: sounds that no synthesizer preset made.

    The note that presets play, plucked on a guitar, through each of the paper's chains (and none);
    the players take turns. At a peak of 0.5.
    """
    samples, sounds, names = round(presets.SECONDS * synth.RATE), [], []
    for i, chain in enumerate(effects.plan("paper50", include_dry=True)):
        player, rng = plucked.PLAYERS[i % len(plucked.PLAYERS)], generator_for(seed, "target", i)
        dry = plucked.note(presets.NOTE, presets.HELD, 0.8, player, rng)
        dry = scipy.signal.fftconvolve(dry, plucked.body(player))[:samples]
        dry = np.pad(0.3 * dry / np.abs(dry).max(), (0, samples - len(dry)))
        wet = audio.to_float(rendering.render(audio.to_int16(dry), plucked.RATE, chain))
        sounds.append(0.5 * wet / np.abs(wet).max())
        names.append(effects.label(chain))
    return names, np.stack(sounds).astype(np.float32)


def play_all(rows: np.ndarray) -> np.ndarray:
    """(n, samples): the sounds of presets."""
    items = [(rows[i : i + 10],) for i in range(0, len(rows), 10)]
    return np.concatenate(parallel.each(_play, items, "matches played"))


def _play(rows: np.ndarray) -> np.ndarray:
    machine.make_deterministic(1)
    with synth.player() as play:
        return np.stack([
            play(presets.played(row), presets.NOTE, presets.HELD, presets.SECONDS) for row in rows
        ])  # fmt: skip


def rendered(data: dict[str, Presets]) -> tuple[np.ndarray, np.ndarray]:
    """Presets and sounds' embeddings of all that the proxy learned from: drawn, and by hand."""
    pairs = [(one, encoders.split(len(one))["train"]) for one in data.values()]
    return (np.concatenate([one.presets[rows] for one, rows in pairs]),
            np.concatenate([one.sounds[rows] for one, rows in pairs]))  # fmt: skip


def nearest(sounds: np.ndarray, data: dict[str, Presets], scale: tuple) -> np.ndarray:
    """The search that needs no network: of `rendered`, the presets whose sounds are nearest (L1).

    sounds: (n, 128) embeddings of targets. It costs no more renderings than the proxy did.
    """
    rows, heard = rendered(data)
    a, b = ((x - scale[0]) / scale[1] for x in (sounds, heard))
    return rows[cdist(a, b, "cityblock").argmin(1)]


def parameters_right(said: np.ndarray, rows: np.ndarray, space: Space = SPACE) -> dict[str, float]:
    """Table 5's first three: L1 of the numbers, share right of switches and of choices."""
    m = space.numbers - len(presets.SWITCHES)
    return {
        "num_l1": float(np.abs(said[:, :m] - rows[:, :m]).mean()),
        "bin_acc": float((said[:, m : space.numbers] == rows[:, m : space.numbers]).mean()),
        "cat_acc": float((said[:, space.numbers :] == rows[:, space.numbers :]).mean()),
    }


def compared(
    heard: np.ndarray,
    said: dict[str, list[np.ndarray]],
    deviation: np.ndarray,
    rows: np.ndarray | None = None,
) -> pd.DataFrame:
    """A row a method, training and target: distances of its match; of known `rows` parameters, too.

    heard: (n, samples) targets; said: method -> of each of its trainings presets, (n, parameters).
    deviation: (128,) of the training presets' embeddings, in which `l1`, the embedding's error, is.
    """
    found, wanted = [], [presets.embedding(sound) for sound in heard]
    for name, of_it in said.items():
        for seed, answers in enumerate(of_it):
            for i, sound in enumerate(play_all(answers)):
                row = {"method": name, "seed": seed, "target": i} | distances(sound, heard[i])
                error = presets.embedding(sound) - wanted[i]
                row["l1"] = float(np.abs(error / deviation).mean())
                if rows is not None:
                    row |= parameters_right(answers[i : i + 1], rows[i : i + 1])
                found.append(row)
    return pd.DataFrame(found)


def by_seed(each: pd.DataFrame, method: str, column: str = "mstft") -> np.ndarray:
    """(trainings, targets) `column` of a method in one domain."""
    part = each[each.method == method]
    return part.pivot(index="seed", columns="target", values=column).to_numpy()


def table(profile: Profile, each: pd.DataFrame) -> pd.DataFrame:
    """A row a domain and method: Tables 5 and 6, and the 95 % interval of `mstft`.

    (`mel` and `mfccd` are near what the training and the search go by, the mean of log-mel; `l1` is
    just that.)
    """
    rows = []
    for (domain, name), part in each.groupby(["domain", "method"], sort=False):
        found = by_seed(part, name)
        lo, hi = encoders.ends(profile, found)
        means = part.drop(columns=["domain", "method", "seed", "target"]).mean()
        published = proxy_paper.MATCHED[domain].get(name, {}).get("mstft", np.nan)
        row = {"domain": domain, "method": name, "targets": found.shape[1], "seeds": len(found)}
        row |= dict(means)
        rows.append(row | {"lo": lo, "hi": hi, "mstft published": published})
    return pd.DataFrame(rows)


def apart(profile: Profile, each: pd.DataFrame) -> pd.DataFrame:
    """What the three schedules find of amsynth's presets: a row a column and pair of schedules.

    `more`: by how much `other` has more than `one`, paired by target; lo, hi.
    """
    part, rows = each[each.domain == "amsynth"], []
    for column in ("num_l1", "cat_acc"):
        for one, other in combinations(("PLoss", "Mix", "Switch"), 2):
            both = (by_seed(part, name, column) for name in (one, other))
            row = {"column": column, "one": one, "other": other}
            rows.append(row | encoders.more(profile, *both))
    return pd.DataFrame(rows)


def gains(profile: Profile, each: pd.DataFrame, over: str = "PLoss") -> pd.DataFrame:
    """A row a domain and method: by how much its `mstft` is less than `over`'s; paired; lo, hi."""
    rows = []
    for domain, part in each.groupby("domain", sort=False):
        for name in dict.fromkeys(part.method):
            if name != over:
                gap = by_seed(part, over) - by_seed(part, name)  # (one without seeds beside each)
                lo, hi = encoders.ends(profile, gap)
                rows.append({"domain": domain, "method": name, "less": gap.mean(),
                             "lo": lo, "hi": hi})  # fmt: skip
    return pd.DataFrame(rows)
