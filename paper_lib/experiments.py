"""What a choice of the set-up is worth: some of the run's recordings made into clips in another way, and heads judged on recordings
that they did not hear. Notebook 08.

Everything here stays within the run's training and validation recordings: the test set is not touched.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyloudnorm
import torch
from tqdm import tqdm

from . import PaperError, audio, corpus, effects, keyed, machine, metrics, paths, provenance, rendering, training
from .dataset import Dataset
from .embedding import LogMel, embed_dataset, pool, time_statistics
from .profiles import Profile

POOLING = "mean_sd_mad"  # of the log-mel spectrogram


@dataclass(frozen=True)
class Condition:
    """How clips are made. `lead`: least and most seconds of silence before a clip (`rendering.lead_span`), drawn for each; `loudness`: LUFS
    (ITU-R BS.1770) to which each clip is brought, None: as it is."""

    render_rate: int
    chain_plan: str
    lead: tuple[float, float]
    loudness: float | None = None


@dataclass(frozen=True)
class Variant:
    """The clips of one condition: features (clips, inputs), labels (clips, 13), and of which recording each is (clips,)."""

    features: np.ndarray
    labels: np.ndarray
    recordings: np.ndarray


def recordings(data: Dataset, profile: Profile) -> list[str]:
    """At most `experiment_recordings` of the training and validation recordings (0: all), drawn by key; three at least."""
    if profile.split != "by_recording":
        raise PaperError("the experiments hold out whole recordings, and this run's test set does not: they need split: by_recording.")
    known = sorted(set(data.index.recording[data.index.split != "test"]))
    if len(known) < 3:
        raise PaperError(f"{len(known)} training and validation recordings are too few to hold out one in three: add recordings.")
    drawn = sorted(known, key=lambda name: keyed(profile.seed, "experiment", name).random())
    return sorted(drawn[: max(3, profile.experiment_recordings) if profile.experiment_recordings else None])


def level(samples: np.ndarray, loudness: float, rate: int = audio.CODEC_RATE) -> np.ndarray:
    """(n,) float brought to `loudness` LUFS; silence stays silence."""
    if len(samples) < 0.4 * rate:
        raise PaperError(f"loudness is measured over 0.4 s or more, and these clips last {len(samples) / rate:.2f} s: set slice_seconds higher.")
    now = pyloudnorm.Meter(rate).integrated_loudness(samples)
    return samples * 10 ** ((loudness - now) / 20) if np.isfinite(now) else samples


def statistics(front: LogMel, clip: np.ndarray) -> np.ndarray:
    """(samples,) float at 16 kHz -> (inputs,): log-mel statistics over time, as notebook 02 pools them."""
    with torch.inference_mode():
        return pool(time_statistics(front(torch.from_numpy(clip.astype(np.float32))[None])), POOLING)[0].numpy()


def as_it_is(profile: Profile, data: Dataset) -> Variant:
    """The experiment's recordings as notebooks 01 and 02 made them."""
    rows = np.flatnonzero(data.index.recording.isin(recordings(data, profile)))
    return Variant(np.asarray(pool(embed_dataset(profile, data, "logmel")[rows], POOLING)), data.labels[rows], data.index.recording.to_numpy()[rows])


def variant(profile: Profile, data: Dataset, condition: Condition, name: str) -> Variant:
    """Stage data/<profile>/experiments/<name>: the experiment's recordings rendered under `condition`, recording by recording."""
    machine.settle(profile.threads)
    chosen, folder = recordings(data, profile), paths.data(profile.profile) / "experiments" / name
    parameters = asdict(condition) | {"seed": profile.seed, "recordings": chosen}
    stage = provenance.Stage(folder, parameters, {"dataset": data.content}, ("experiments", "embedding", "rendering", "effects", "corpus", "audio"))
    if not stage.current():
        machine.require_sox()
        run, front = replace(profile, render_rate=condition.render_rate), LogMel().eval()
        found = [r for r in corpus.recordings(profile) if r.name in set(chosen)]
        done = stage.begin() / "recordings"
        done.mkdir(exist_ok=True)

        def make(k: int) -> dict[str, np.ndarray]:
            file, name = done / f"{k:05d}.npz", found[k].name
            if not file.exists():
                features, labels = [], []
                for s, clean in enumerate(corpus.slices(corpus.load(found[k], run), run)):
                    for chain in rendering.chains_of(profile, name, s, condition.chain_plan):
                        lead = rendering.draw_lead(condition.lead, profile.seed, name, s, chain)
                        clip = audio.to_float(rendering.render(clean, run.render_rate, chain, audio.CODEC_RATE, lead))
                        features.append(statistics(front, clip if condition.loudness is None else level(clip, condition.loudness)))
                        labels.append(effects.multi_hot(chain))
                beside = done / f"{k:05d}.half.npz"
                np.savez(beside, features=np.array(features), labels=np.array(labels, np.float32), recordings=np.array([name] * len(labels)))
                os.replace(beside, file)
            return dict(np.load(file))

        with machine.one_thread(), ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as workers:
            made = list(tqdm(workers.map(make, range(len(found))), total=len(found), unit="recording", desc=name))
        whole = {key: np.concatenate([part[key] for part in made]) for key in made[0]}
        np.savez(stage.partial / "clips.npz", **whole)
        shutil.rmtree(done)
        stage.finish(provenance.array_digest(whole["features"]))
    return Variant(**np.load(folder / "clips.npz"))


def parts(made: Variant, seed: int, fold: int, folds: int = 3, by_clip: bool = False) -> np.ndarray:
    """(clips,) 2: held out in this fold (one recording, or clip, in `folds`); 1: chooses the epoch (one in four of the others); 0: learned from."""
    names, place = np.unique(np.arange(len(made.labels)) if by_clip else made.recordings, return_inverse=True)
    order = sorted(range(len(names)), key=lambda i: keyed(seed, "part", str(names[i])).random())
    part = np.zeros(len(names), int)
    part[[i for k, i in enumerate(order) if k % folds == fold]] = 2
    part[[i for i in order if part[i] == 0][::4]] = 1
    return part[place]


def judge(profile: Profile, learned: Variant, judged: list[Variant], folds: int = 3, by_clip: bool = False, standardise: bool = True, again: int = 0) -> list[np.ndarray]:
    """0/1 answers (clips, 13) for every clip of each variant in `judged`, each from the one of `folds` heads (one a seed) that heard
    nothing of its recording; `by_clip`: that heard other clips of it. Every head learns from half as many clips as there are.
    `again` gives the same heads other seeds."""
    said = [np.zeros(v.labels.shape, int) for v in judged]
    for fold in range(folds):
        part = parts(learned, profile.seed, fold, folds, by_clip)
        train, val = np.flatnonzero(part == 0), part == 1
        train = np.sort(keyed(profile.seed, "half", fold).permutation(train)[: -(-len(part) // 2)])
        run = replace(profile, seed=profile.seed + fold + 100 * again)
        head, _ = training.train_head(learned.features[train], learned.labels[train], learned.features[val], learned.labels[val], run, standardise)
        for answers, v in zip(said, judged):
            rows = parts(v, profile.seed, fold, folds, by_clip) == 2
            with torch.inference_mode():
                answers[rows] = (head(torch.from_numpy(v.features[rows]).float()) > 0).numpy()
    return said


def row(profile: Profile, judged: Variant, said: np.ndarray, against: np.ndarray | None = None) -> dict:
    """Macro-F1 with its 95 % interval over recordings, and of saying yes always; the gain over the answers `against` on the same clips,
    with the interval of the difference. The intervals hold what other recordings would change, not what other training seeds would."""
    low, high = metrics.intervals(judged.labels, said, judged.recordings, profile.bootstrap, profile.seed)["macro_f1"]
    macro = lambda answers: metrics.scores(judged.labels, answers)["macro_f1"]
    out = {"macro_f1": macro(said), "lo": low, "hi": high, "always": macro(metrics.always(len(said))), "clips": len(said)}
    if against is None:
        return out | dict.fromkeys(("gain", "gain_lo", "gain_hi"), np.nan)
    counts = [metrics.counts(judged.labels, answers, judged.recordings) for answers in (against, said)]
    low, high = metrics.paired_interval(*counts, profile.bootstrap, profile.seed)
    return out | {"gain": out["macro_f1"] - macro(against), "gain_lo": low, "gain_hi": high}


def given_away(labels: np.ndarray, effect: int) -> float:
    """The best F1 for an effect that one could reach without listening, from the clip's other labels alone ((clips, 13), 0/1)."""
    _, group = np.unique(np.delete(labels, effect, axis=1), axis=0, return_inverse=True)
    share = np.bincount(group, labels[:, effect]) / np.bincount(group)
    said = share[group][:, None] >= np.unique(share)[None]
    true = labels[:, effect, None] > 0
    return float(metrics.f1_of(*(x.sum(0).astype(float) for x in (said & true, said & ~true, ~said & true))).max())
