"""What a choice of the set-up is worth. Notebook 08.

Some of the run's recordings are made into clips in another way, and heads are judged on recordings
that they did not hear. Everything here stays within the run's training and validation recordings:
the test set is not touched.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import IntEnum

import numpy as np
import pyloudnorm
import torch
from joblib import Parallel, delayed

from ..codec.frontends import LogMel
from ..core import machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from ..evaluation import intervals, scores
from ..sound import audio, corpus, effects, rendering
from ..sound.dataset import Dataset
from . import head
from .features import embed_dataset, pool, time_statistics

POOLING = "mean_sd_mad"  # of the log-mel spectrogram
OPENING = 256  # samples of a clip's first 16 ms, kept to see what its start gives away


@dataclass(frozen=True)
class Condition:
    """How clips are made.

    `lead`: least and most seconds of silence before a clip (`rendering.lead_span`), drawn for each;
    `loudness`: LUFS (ITU-R BS.1770) to which each clip is brought, None: as it is.
    """

    render_rate: int
    chain_plan: str
    lead: tuple[float, float]
    loudness: float | None = None


@dataclass(frozen=True)
class Variant:
    """The clips of one condition."""

    features: np.ndarray  # (clips, inputs)
    labels: np.ndarray  # (clips, 13)
    recordings: np.ndarray  # (clips,) names: of which recording each clip is
    opening: np.ndarray | None = None  # (clips, OPENING) each clip's first samples, float16


def recordings(data: Dataset, profile: Profile) -> list[str]:
    """At most `experiment_recordings` of the training and validation recordings (0: all).

    Three at least, drawn by key.
    """
    if profile.split != "by_recording":
        raise PaperError(
            "the experiments hold out whole recordings, and this run's test set does not: "
            "they need split: by_recording."
        )
    known = sorted(set(data.index.recording[data.index.split != "test"]))
    if len(known) < 3:
        raise PaperError(
            f"{len(known)} training and validation recordings are too few to hold out one in "
            "three: add recordings."
        )
    drawn = sorted(known, key=lambda name: generator_for(profile.seed, "experiment", name).random())
    if profile.experiment_recordings:
        drawn = drawn[: max(3, profile.experiment_recordings)]
    return sorted(drawn)


def level(samples: np.ndarray, loudness: float, rate: int = audio.CODEC_RATE) -> np.ndarray:
    """(n,) float brought to `loudness` LUFS; silence stays silence."""
    if len(samples) < 0.4 * rate:
        raise PaperError(
            "loudness is measured over 0.4 s or more, and these clips last "
            f"{len(samples) / rate:.2f} s: set slice_seconds higher."
        )
    now = pyloudnorm.Meter(rate).integrated_loudness(samples)
    return samples * 10 ** ((loudness - now) / 20) if np.isfinite(now) else samples


def statistics(front: LogMel, clip: np.ndarray) -> np.ndarray:
    """(samples,) float at 16 kHz -> (inputs,): log-mel statistics over time.

    Pooled as in notebook 02.
    """
    with torch.inference_mode():
        frames = front(torch.from_numpy(clip.astype(np.float32))[None])
        return pool(time_statistics(frames), POOLING)[0].numpy()


def as_it_is(profile: Profile, data: Dataset) -> Variant:
    """The experiment's recordings as notebooks 01 and 02 made them."""
    rows = np.flatnonzero(data.index.recording.isin(recordings(data, profile)))
    return Variant(
        np.asarray(pool(embed_dataset(profile, data, "logmel")[rows], POOLING)),
        data.labels[rows],
        data.index.recording.to_numpy()[rows],
        data.clips(rows)[:, :OPENING].astype(np.float16),
    )


def variant_of_recording(
    recording: corpus.Recording, profile: Profile, condition: Condition
) -> dict[str, np.ndarray]:
    """One recording rendered under `condition`: `features`, `labels`, `opening` of its clips."""
    machine.make_deterministic(1)
    run = replace(profile, render_rate=condition.render_rate)
    front = LogMel().eval()
    found, labels, openings = [], [], []
    for s, clean in enumerate(corpus.slices(corpus.load(recording, run), run)):
        for chain in rendering.chains_of(run, recording.name, s, condition.chain_plan):
            lead = rendering.draw_lead(condition.lead, run.seed, recording.name, s, chain)
            knobs = rendering.settings_of(run, recording.name, s, chain)
            wet = rendering.render(clean, run.render_rate, chain, audio.CODEC_RATE, lead, knobs)
            clip = audio.to_float(wet)
            if condition.loudness is not None:
                clip = level(clip, condition.loudness)
            found.append(statistics(front, clip))
            labels.append(effects.multi_hot(chain))
            openings.append(clip[:OPENING].astype(np.float16))
    return {
        "features": np.array(found),
        "labels": np.array(labels, np.float32),
        "opening": np.array(openings),
    }


def variant(profile: Profile, data: Dataset, condition: Condition, name: str) -> Variant:
    """The experiment's recordings rendered under `condition`.

    Stage data/<profile>/experiments/<name>.
    """
    chosen = recordings(data, profile)
    found = [r for r in corpus.recordings(profile) if r.name in set(chosen)]
    parameters = asdict(condition) | {"seed": profile.seed, "recordings": chosen}
    inputs = {"dataset": data.content}
    made = stages.Stage(
        "experiment", paths.experiment(profile.profile, name), parameters, inputs, threads=1
    )
    with made.opened() as work:
        if work:
            machine.require_sox()
            local = replace(profile, scheduler="")
            items = {f"{i:05d}": (recording, local, condition) for i, recording in enumerate(found)}
            files = parallel.shards(
                variant_of_recording, items, work / "shards", name, profile.scheduler
            )
            parts = [dict(np.load(file)) for file in files]
            features = np.concatenate([part["features"] for part in parts])
            labels = np.concatenate([part["labels"] for part in parts])
            opening = np.concatenate([part["opening"] for part in parts])
            clips = [len(part["labels"]) for part in parts]
            of = np.repeat([r.name for r in found], clips)
            np.savez(
                work / "clips.npz", features=features, labels=labels, recordings=of, opening=opening
            )
            made.finish(stages.array_digest(features, labels, opening))
    return Variant(**np.load(made.folder / "clips.npz"))


class Fold(IntEnum):
    """What a clip is for in one round of a cross-validation."""

    LEARN = 0
    CHOOSE = 1  # the epoch
    JUDGE = 2


def folds_of(
    clips: Variant, seed: int, fold: int, folds: int = 3, by_clip: bool = False
) -> np.ndarray:
    """(clips,) of `Fold`: what each clip is for.

    One recording (or clip) in `folds` judges, one in four of the others chooses.
    """
    units = np.arange(len(clips.labels)) if by_clip else clips.recordings
    names, place = np.unique(units, return_inverse=True)
    order = sorted(
        range(len(names)), key=lambda i: generator_for(seed, "part", str(names[i])).random()
    )
    part = np.full(len(names), Fold.LEARN, int)
    part[[i for k, i in enumerate(order) if k % folds == fold]] = Fold.JUDGE
    part[[i for i in order if part[i] == Fold.LEARN][::4]] = Fold.CHOOSE
    return part[place]


@dataclass(frozen=True)
class How:
    """How `cross_validate` holds out and trains; `again` gives the same heads other seeds."""

    folds: int = 3
    by_clip: bool = False  # hold out clips instead of recordings: the leak
    standardise: bool = True
    again: int = 0


def cross_validate(
    profile: Profile, learned: Variant, judged: list[Variant], how: How = How()
) -> list[np.ndarray]:
    """0/1 answers (clips, 13) for every clip of each variant in `judged`.

    Each comes from the one of the heads (one a fold) that heard nothing of the clip's recording
    (`by_clip`: that heard other clips of it). Every head learns from half as many clips as there
    are.
    """
    jobs = [delayed(_answers)(profile, learned, judged, how, fold) for fold in range(how.folds)]
    answers = [np.zeros(v.labels.shape, int) for v in judged]
    for fold, found in enumerate(Parallel(min(machine.cores(), how.folds))(jobs)):
        for out, clips, part in zip(answers, judged, found, strict=True):
            out[folds_of(clips, profile.seed, fold, how.folds, how.by_clip) == Fold.JUDGE] = part
    return answers


def _answers(
    profile: Profile, learned: Variant, judged: list[Variant], how: How, fold: int
) -> list[np.ndarray]:
    """One fold's head, asked about the clips that the fold judges in each variant."""
    machine.make_deterministic(1)
    part = folds_of(learned, profile.seed, fold, how.folds, how.by_clip)
    learn, choose = np.flatnonzero(part == Fold.LEARN), part == Fold.CHOOSE
    half = -(-len(part) // 2)
    learn = np.sort(generator_for(profile.seed, "half", fold).permutation(learn)[:half])
    train, validation = ((learned.features[r], learned.labels[r]) for r in (learn, choose))
    seed = profile.seed + fold + 100 * how.again
    model, _ = head.train_head(train, validation, profile, how.standardise, seed)
    answers = []
    for asked in judged:
        rows = folds_of(asked, profile.seed, fold, how.folds, how.by_clip) == Fold.JUDGE
        answers.append(head.probabilities(model, asked.features[rows]) > 0.5)
    return answers


def row(
    profile: Profile, judged: Variant, said: np.ndarray, against: np.ndarray | None = None
) -> dict:
    """One row of a table: macro-F1 with its 95 % interval over recordings, and of always yes.

    With answers `against` on the same clips, also the gain over them and its interval. The
    intervals hold what other recordings would change, not what other training seeds would.
    """
    low, high = intervals.intervals(
        judged.labels, said, judged.recordings, profile.bootstrap, profile.seed
    )["macro_f1"]
    macro = lambda answers: scores.scores(judged.labels, answers)["macro_f1"]
    out = {
        "macro_f1": macro(said),
        "lo": low,
        "hi": high,
        "always": macro(scores.always(len(said))),
        "clips": len(said),
    }
    if against is None:
        return out | dict.fromkeys(("gain", "gain_lo", "gain_hi"), np.nan)
    both = {"before": against, "after": said}
    scored = intervals.macro_f1(
        judged.labels, both, judged.recordings, profile.bootstrap, profile.seed
    )
    gain = scored.more("after", "before")
    return out | dict(zip(("gain", "gain_lo", "gain_hi"), gain, strict=True))


def label_leakage(labels: np.ndarray, effect: int) -> float:
    """The best F1 for an effect that one could reach without listening.

    From the clip's other labels alone; `labels`: (clips, 13), 0/1.
    """
    _, group = np.unique(np.delete(labels, effect, axis=1), axis=0, return_inverse=True)
    share = np.bincount(group, labels[:, effect]) / np.bincount(group)
    said = share[group][:, None] >= np.unique(share)[None]
    true = labels[:, effect, None] > 0
    tp, fp, fn = (x.sum(0).astype(float) for x in (said & true, said & ~true, ~said & true))
    return float(scores.f1_of(tp, fp, fn).max())
