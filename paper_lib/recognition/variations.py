"""What variation of the recordings is worth: one network, many corpora (notebook 10).

Each is judged on recordings made alike, on guitars and rooms that no training draws, on sampled
guitars, and on the real clips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ..codec.frontends import LogMel
from ..core import paths
from ..core.config import Profile
from ..core.errors import PaperError
from ..evaluation import intervals
from ..sound import corpus, effects, rendering, sampled, variation
from ..sound.dataset import Dataset
from . import features, peers
from .features import EncodedClips

# the effects that leave traces which no guitar makes by itself
TOLD = [e.name for e in effects.EFFECTS if "eq" not in e.group and e.name != "overdrive"]


@dataclass(frozen=True)
class Training:
    """A corpus to learn from, and whether `peers.vary` changes its spectrograms each epoch."""

    corpus: str
    without: str = ""
    varied: bool = False
    referenced: bool = False  # told how the same guitar sounds dry


TRAININGS = {
    "plucked": Training("plucked"),
    "plucked, spectrograms varied": Training("plucked", varied=True),
    "varied": Training("varied"),
    **{f"varied without {part}": Training("varied", part) for part in variation.PARTS},
    "varied, spectrograms varied": Training("varied", varied=True),
    "varied, and a dry reference": Training("varied", varied=True, referenced=True),
    "sampled, spectrograms varied": Training("sampled", varied=True),
    "mixed, spectrograms varied": Training("mixed", varied=True),
}
DOMAINS = ("plucked", "varied", "other", "sampled")  # their test recordings; `other`: all of them


def run_of(profile: Profile, corpus_name: str, without: str = "") -> Profile:
    """The run that makes one corpus: 12 chains of each of `variation_recordings` recordings.

    Of `other`, of which nothing is trained, a sixth of them.
    """
    count = profile.variation_recordings
    changes: dict[str, Any] = {
        "profile": "-".join(
            [profile.profile, corpus_name, *([f"no-{without}"] if without else [])]
        ),
        "corpus": corpus_name,
        "vary_without": without,
        "corpus_path": "",
        "recordings": max(3, count // 6) if corpus_name == "other" else count,
        "chains_per_slice": 12,
        "peer_epochs": profile.variation_epochs,
    }
    return replace(profile, **changes)


def available() -> dict[str, Training]:
    """`TRAININGS`, without those that want sampled guitars where there are none."""
    try:
        sampled.fonts()
    except PaperError as problem:
        print(problem)
        return {k: t for k, t in TRAININGS.items() if t.corpus not in ("sampled", "mixed")}
    return TRAININGS


def compare(profile: Profile) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train each of `available` with `peer_seeds` seeds and judge it.

    Two tables, a row a training and domain: macro-F1 (mean over seeds) with its interval over
    recordings and seeds, and the mean over the effects in `TOLD`; F1 of each effect.
    """
    trainings = available()
    corpora = {t.corpus for t in trainings.values()}
    judged = {d: _judge(run_of(profile, d), d) for d in DOMAINS if d in corpora or d == "other"}
    judged["real"] = _judge(corpus.real_clips(profile), "real")
    rows, each = [], []
    for name, training in trainings.items():
        run = run_of(profile, training.corpus, training.without)
        recipe = peers.Recipe(False, training.varied, profile.variation_epochs)
        stage = "cnn" + "_varied" * training.varied + "_dry" * training.referenced
        data = rendering.render_dataset(run)
        peers.fit_networks(run, data, {stage: recipe}, training.referenced)
        models = [peers.load(paths.model(run.profile, stage, s)) for s in range(profile.peer_seeds)]
        for domain, (clips, dry, which, pieces) in judged.items():
            heard = replace(clips, dry=dry if training.referenced else None)
            said = [(peers.logits_of(m, heard, which) > 0).numpy() for m in models]
            found, f1 = score(profile, np.stack(said), clips.labels[which], pieces)
            rows.append({"training": name, "domain": domain} | found)
            each.append({"training": name, "domain": domain} | f1)
    return pd.DataFrame(rows), pd.DataFrame(each)


def train_referenced(profile: Profile) -> tuple[Profile, Dataset]:
    """The network behind `paper recognize --dry`: one seed, three times the epochs of `compare`.

    Returns the run whose data it learned from; the stage is models/referenced.
    """
    one_seed: dict[str, Any] = {"peer_seeds": 1}
    run = replace(run_of(profile, "varied"), **one_seed)
    data = rendering.render_dataset(run)
    recipe = peers.Recipe(False, True, 3 * profile.variation_epochs)
    peers.fit_networks(run, data, {"referenced": recipe}, referenced=True)
    return run, data


def _judge(run: Profile, domain: str) -> tuple[EncodedClips, np.ndarray, np.ndarray, np.ndarray]:
    """Clips that are judged on: spectrograms, spectra of their guitars dry, rows, recordings."""
    data = rendering.render_dataset(run)
    rows = data.rows("test") if domain in ("plucked", "varied", "sampled") else np.arange(len(data))
    clips = features.kept(run, data, "logmel")
    dry = real_dry(data) if domain == "real" else peers.dry_spectra(run, data)
    return clips, dry, rows, data.index.recording.to_numpy()[rows]


def real_dry(data: Dataset) -> np.ndarray:
    """(clips, 64): for each real clip the dry spectrum of the next slice of the same recording."""
    front, slices = LogMel(), sorted(set(data.index.excerpt))
    dry = np.flatnonzero(data.index.chain == "dry")
    of = {data.index.excerpt[i]: peers.spectrum(front, data.clips(np.array([i]))[0]) for i in dry}
    after = dict(zip(slices, slices[1:] + slices[:1], strict=True))
    return np.stack([of[after[excerpt]] for excerpt in data.index.excerpt])


def score(
    profile: Profile, said: np.ndarray, truth: np.ndarray, pieces: np.ndarray
) -> tuple[dict, dict]:
    """Of answers (seeds, clips, 13): macro-F1, its interval, the mean over `TOLD`; and each F1."""
    said = said.astype(int)
    ends = intervals.intervals(truth, said, pieces, profile.bootstrap, profile.seed)["macro_f1"]
    each = dict(zip(effects.NAMES, intervals.mean_per_class(truth, said), strict=True))
    found = {
        "macro_f1": np.mean(list(each.values())),
        "lo": ends[0],
        "hi": ends[1],
        "told": np.mean([each[name] for name in TOLD]),
        "n_clips": len(truth),
        "n_recordings": len(set(pieces)),
        "n_seeds": len(said),
    }
    return found, each
