"""What a choice of the set-up is worth: some of the run's recordings made into clips in another way, and heads judged on recordings
that they did not hear. Notebook 08.

Everything here stays within the run's training and validation recordings: the test set is not touched.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import pyloudnorm
import torch
from tqdm import tqdm

from . import PaperError, audio, corpus, effects, keyed, machine, metrics, paths, provenance, rendering, training
from .dataset import Dataset
from .embedding import LogMel, pool, time_statistics
from .profiles import Profile

FOLDS = 3


@dataclass(frozen=True)
class Condition:
    """How clips are made. `preroll`: at most so many seconds of silence before a clip, drawn anew for each and cut off again, so that
    the LFOs of its chain stand elsewhere; `loudness`: LUFS (ITU-R BS.1770) to which each clip is brought, None: as it is."""

    render_rate: int
    chain_plan: str
    preroll: float = 0.0
    loudness: float | None = None


@dataclass(frozen=True)
class Variant:
    """The clips of one condition: features (clips, inputs), labels (clips, 13), and of which recording each is (clips,)."""

    features: np.ndarray
    labels: np.ndarray
    recordings: np.ndarray


def recordings(data: Dataset, profile: Profile) -> list[str]:
    """At most `experiment_recordings` of the training and validation recordings (0: all), drawn by key."""
    known = sorted(set(data.index.recording[data.index.split != "test"]))
    drawn = sorted(known, key=lambda name: keyed(profile.seed, "experiment", name).random())
    if len(drawn) < FOLDS:
        raise PaperError(f"{len(drawn)} training and validation recordings are too few to hold out one of {FOLDS} in turn: add recordings.")
    return sorted(drawn[: max(profile.experiment_recordings, FOLDS) if profile.experiment_recordings else None])


def level(samples: np.ndarray, loudness: float, rate: int = audio.CODEC_RATE) -> np.ndarray:
    """(n,) float brought to `loudness` LUFS; silence stays silence."""
    now = pyloudnorm.Meter(rate).integrated_loudness(samples)
    return samples * 10 ** ((loudness - now) / 20) if np.isfinite(now) else samples


def phased(clean: np.ndarray, rate: int, chain: effects.Chain, preroll: float, key: tuple) -> np.ndarray:
    """`rendering.render` to 16 kHz, begun with up to `preroll` seconds of silence (whole hundredths of a second) that are cut off again."""
    steps = int(keyed(*key).integers(0, int(100 * preroll) + 1))
    lead = np.zeros(steps * rate // 100, np.int16)
    return rendering.render(np.concatenate([lead, clean]), rate, chain, audio.CODEC_RATE)[steps * audio.CODEC_RATE // 100 :]


def chains_of(profile: Profile, condition: Condition, recording: str) -> list[effects.Chain]:
    """The chains that a recording goes through: the plan's, or as many as the run's plan has, drawn for this recording from a longer one."""
    plan = effects.plan(condition.chain_plan, profile.include_dry)
    drawn = keyed(profile.seed, "chains", recording).permutation(len(plan))[: len(effects.plan(profile.chain_plan, profile.include_dry))]
    return [plan[i] for i in sorted(drawn)]


def variant(profile: Profile, data: Dataset, condition: Condition, name: str) -> Variant:
    """Stage data/<profile>/experiments/<name>: log-mel statistics of the experiment's recordings under `condition`."""
    machine.settle(profile.threads)
    chosen, folder = recordings(data, profile), paths.data(profile.profile) / "experiments" / name
    parameters = asdict(condition) | {"seed": profile.seed, "recordings": chosen}
    stage = provenance.Stage(folder, parameters, {"dataset": data.content}, ("experiments", "embedding", "rendering", "effects", "corpus", "audio"))
    if not stage.current():
        machine.require_sox()
        work, front = stage.begin(), LogMel().eval()
        run = replace(profile, render_rate=condition.render_rate)
        found = [r for r in corpus.recordings(profile) if r.name in set(chosen)]

        def make(recording: corpus.Recording) -> tuple[list, list]:
            statistics, labels = [], []
            for s, clean in enumerate(corpus.slices(corpus.load(recording, run), run)):
                for chain in chains_of(profile, condition, recording.name):
                    clip = phased(clean, run.render_rate, chain, condition.preroll, (profile.seed, "preroll", recording.name, s, effects.label(chain)))
                    clip = audio.to_float(clip) if condition.loudness is None else level(audio.to_float(clip), condition.loudness)
                    with torch.inference_mode():
                        statistics.append(time_statistics(front(torch.from_numpy(clip.astype(np.float32))[None]))[0].numpy())
                    labels.append(effects.multi_hot(chain))
            return statistics, labels

        with machine.one_thread(), ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as workers:
            made = list(tqdm(workers.map(make, found), total=len(found), unit="recording", desc=name))
        features = pool(np.array([s for statistics, _ in made for s in statistics]), "mean_sd_mad")
        np.savez(work / "clips.npz", features=features, labels=np.array([row for _, rows in made for row in rows], np.float32), recordings=np.array([r.name for r, (s, _) in zip(found, made) for _ in s]))
        stage.finish(provenance.array_digest(features))
    return Variant(**np.load(folder / "clips.npz"))


def parts(made: Variant, seed: int, by_clip: bool = False) -> np.ndarray:
    """(clips,) numbers from 0 to 5, one a recording (or a clip), as even as it goes: of each fold two parts are held out, one chooses
    the epoch, three are learned from."""
    items = np.arange(len(made.labels)) if by_clip else made.recordings
    names, place = np.unique(items, return_inverse=True)
    order = np.argsort([keyed(seed, "part", str(name)).random() for name in names])
    return (np.argsort(order) * 2 * FOLDS // len(names))[place]


def judge(profile: Profile, learned: Variant, judged: list[Variant], by_clip: bool = False, standardise: bool = True) -> list[np.ndarray]:
    """0/1 answers (clips, 13) for every clip of each variant in `judged`, each from the one of three heads (one a seed) that heard
    neither its recording nor anything of it; `by_clip`: that heard other clips of it."""
    learned_part, *judged_part = (parts(v, profile.seed, by_clip) for v in (learned, *judged))
    said = [np.zeros(v.labels.shape, int) for v in judged]
    for fold in range(FOLDS):
        held, validation = (2 * fold, 2 * fold + 1), (2 * fold + 2) % (2 * FOLDS)
        train, val = ~np.isin(learned_part, (*held, validation)), learned_part == validation
        run = replace(profile, seed=profile.seed + fold)
        head, _ = training.train_head(learned.features[train], learned.labels[train], learned.features[val], learned.labels[val], run, standardise)
        for answers, v, part in zip(said, judged, judged_part):
            rows = np.isin(part, held)
            with torch.inference_mode():
                answers[rows] = (head(torch.from_numpy(v.features[rows]).float()) > 0).numpy()
    return said


def row(profile: Profile, judged: Variant, said: np.ndarray, base: Variant, base_said: np.ndarray, by_clip: bool = False) -> dict:
    """Macro-F1 with its 95 % interval, of each of the three heads and of saying yes always; gain over the answers to `base`, with its
    interval, the same recordings resampled for both."""
    ends = metrics.intervals(judged.labels, said, judged.recordings, profile.bootstrap, profile.seed)["macro_f1"]
    fold = parts(judged, profile.seed, by_clip) // 2
    each = {f"head_{f}": metrics.scores(judged.labels[fold == f], said[fold == f])["macro_f1"] for f in range(FOLDS)}
    macro = metrics.scores(judged.labels, said)["macro_f1"]
    a, b = metrics.counts(base.labels, base_said, base.recordings), metrics.counts(judged.labels, said, judged.recordings)
    low, high = metrics.paired_interval(a, b, profile.bootstrap, profile.seed)
    gain = macro - metrics.scores(base.labels, base_said)["macro_f1"]
    always = metrics.scores(judged.labels, metrics.always(len(judged.labels)))["macro_f1"]
    return {"macro_f1": macro, "lo": ends[0], "hi": ends[1], **each, "always": always, "gain": gain, "gain_lo": low, "gain_hi": high, "clips": len(said)}
