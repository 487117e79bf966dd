"""Which settings suit a preset encoder: a study with Optuna. Appendix A4.

Appendix A.3 of the synthesizers' paper: settings are first spread evenly (quasi-Monte Carlo), then
drawn near those that did well (TPE), each judged by a short training. Encoders of any settings have
about as many weights.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, replace

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from scipy.stats import qmc

from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import Diverged
from ..core.random import seed_for
from . import encoders, presets
from .encoders import Size, Training

WEIGHTS = 165_000  # of an encoder, at most
AT_ONCE = 4  # trials between two looks at the answers, however many cores there are
OWN = -1  # "number" of the settings that notebook 19 has


def settings(name: str) -> dict[str, BaseDistribution]:
    """What can be set of an encoder, and from where to where."""
    found: dict[str, BaseDistribution] = {
        "rate": FloatDistribution(3e-4, 3e-2, log=True),
        "log2 batch": IntDistribution(4, 7),
        "layers": IntDistribution(1, 4 if name in ("MLP-OH", "TFM") else 6),
    }
    if not name.endswith("OH"):
        found["spread"] = FloatDistribution(0.02, 2.0, log=True)
    if name == "TFM":
        found["log2 heads"] = IntDistribution(0, 3)
    elif name.startswith("HN-PT"):  # (HN-PT's tokens lie side by side, all of them)
        found["log2 token"] = IntDistribution(3, 5 if name == "HN-PT" else 6)
    return found


def size_of(name: str, chosen: dict[str, float]) -> Size:
    """The encoder of these settings, as wide as `WEIGHTS` allows."""
    plain = {key: value for key, value in chosen.items() if not key.startswith("log2 ")}
    powers = {key.removeprefix("log2 "): 2 ** int(value) for key, value in chosen.items()
              if key.startswith("log2 ")}  # fmt: skip
    return fitted(name, Size(0, **plain, **powers))  # type: ignore[arg-type]


def even(profile: Profile) -> int:
    """How many trials are spread evenly: a power of two, as the proxy paper's 128 of 203 are."""
    return 2 ** int(math.log2(max(1, 0.64 * profile.tuning_trials)))


def points(name: str, many: int, seed: int) -> np.ndarray:
    """(many, settings) from 0 to 1: Sobol's points, scrambled (quasi-Monte Carlo)."""
    return qmc.Sobol(len(settings(name)), seed=seed_for(seed, "evenly", name)).random(many)


def evenly(name: str, many: int, seed: int) -> list[dict[str, float]]:
    """The settings at these points."""
    ranges, found = settings(name), []
    for point in points(name, many, seed):
        chosen: dict[str, float] = {}
        for (key, one), u in zip(ranges.items(), point, strict=True):
            low, high = one.low, one.high  # type: ignore[attr-defined]
            if isinstance(one, IntDistribution):
                chosen[key] = int(low + math.floor(u * (high - low + 1)))
            else:
                chosen[key] = float(low * (high / low) ** u)
        found.append(chosen)
    return found


def weights(name: str, size: Size) -> int:
    """How many an encoder of this size has."""
    with torch.device("meta"):  # (counted, not filled)
        model = encoders.build(name, size, presets.SPACE, 128)
    return sum(p.numel() for p in model.parameters())


def fitted(name: str, size: Size) -> Size:
    """The same with the largest width, in steps of 8, that `WEIGHTS` allows."""
    width = 8
    while weights(name, replace(size, width=width + 8)) <= WEIGHTS:
        width += 8
    return replace(size, width=width, token=width if name == "TFM" else size.token)


def stage(profile: Profile, name: str, size: Size, number: int) -> stages.Stage:
    """data/<profile>/tuning/<name>_<number>."""
    content = stages.ready(presets.stage(profile), "19_preset_encoders")["content"]
    own = asdict(size) | {"name": name, "epochs": profile.tuning_epochs, "seed": profile.seed}
    folder = paths.data(profile.profile) / "tuning" / f"{name}_{number}"
    return stages.Stage("tuning", folder, own, {"presets": content}, threads=1)


def tried(profile: Profile, name: str, size: Size, number: int) -> float:
    """Mean reciprocal rank among up to 256 validation presets after a short training; kept."""
    made = stage(profile, name, size, number)
    with made.opened() as work:
        if work:
            try:
                history = short(profile, name, size).history
            except Diverged:  # (a rate too high is an answer, too)
                history = pd.DataFrame({"epoch": [0], "validation_mrr": [0.0]})
            history.to_csv(work / "history.csv", index=False)
            made.finish(stages.digest(work / "history.csv"))
    return float(pd.read_csv(made.folder / "history.csv").validation_mrr.iloc[-1])


def short(profile: Profile, name: str, size: Size) -> loop.Result:
    """A training of `tuning_epochs`."""
    machine.make_deterministic(1)
    data = presets.make(profile)["drawn"]
    torch.manual_seed(profile.seed)
    model = encoders.build(name, size, presets.SPACE, 128)
    run = replace(profile, proxy_epochs=profile.tuning_epochs)
    return encoders.train(model, data, encoders.scaling(data), run, Training(name, 0), size=size)


def study(profile: Profile, name: str) -> optuna.Study:
    """The whole study of one encoder.

    It is kept in the answers of its trials: asked anew, with the same seeds, it draws the same
    settings, reads the answers that are there and goes on.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study(direction="maximize")
    for chosen in evenly(name, even(profile), profile.seed):
        found.enqueue_trial(chosen)
    first = 0
    while first < profile.tuning_trials:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            seed = seed_for(profile.seed, "tuning", name, first)
            found.sampler = TPESampler(
                seed=seed, n_startup_trials=even(profile), multivariate=True, constant_liar=True
            )
        end = even(profile) if first < even(profile) else profile.tuning_trials
        many = min(AT_ONCE, end - first)
        trials = [found.ask(settings(name)) for _ in range(many)]
        items = [(profile, name, size_of(name, one.params), one.number) for one in trials]
        scores = parallel.each(tried, items, f"{name}, trials")
        for trial, score in zip(trials, scores, strict=True):
            found.tell(trial, score)
        first += many
    return found


def table(profile: Profile, name: str, found: optuna.Study) -> pd.DataFrame:
    """A row a trial, in order: its settings, and the mean reciprocal rank."""
    rows = []
    for trial in found.trials:
        size, free = size_of(name, trial.params), {key.split()[-1] for key in trial.params}
        drawn = "evenly" if trial.number < even(profile) else "by TPE"
        row = {"encoder": name, "trial": trial.number, "drawn": drawn, "width": size.width}
        row |= {key: value for key, value in asdict(size).items() if key in free}
        rows.append(row | {"weights": weights(name, size), "mrr": trial.value})
    return pd.DataFrame(rows)
