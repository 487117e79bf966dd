"""Which settings suit a preset encoder: a study with Optuna. Appendix A4.

Appendix A.3 of the synthesizers' paper: settings are first spread evenly (quasi-Monte Carlo), then
drawn near those that did well (TPE), each judged by a short training. Encoders of any settings have
about as many weights.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace

import optuna
import pandas as pd
import torch

from ..core import loop, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import seed_for
from . import encoders, presets
from .encoders import Size, Training

WEIGHTS = 165_000  # of an encoder, at most
AT_ONCE = 4  # trials between two looks at the answers, however many cores there are
MORE = {"token": "log2 token", "heads": "log2 heads", "spread": "spread"}  # not all have these
OWN = -1  # "number" of the settings that notebook 19 has


def suggest(name: str, trial: optuna.trial.BaseTrial) -> Size:
    """The settings of a trial, as Optuna draws them."""
    rate = trial.suggest_float("rate", 3e-4, 3e-2, log=True)
    batch = 2 ** trial.suggest_int("log2 batch", 4, 7)
    layers = trial.suggest_int("layers", 1, 4 if name in ("MLP-OH", "TFM") else 6)
    size = Size(0, layers, rate=rate, batch=batch)
    if name.endswith("OH"):
        return fitted(name, size)
    size = replace(size, spread=trial.suggest_float("spread", 0.02, 2.0, log=True))
    if name == "TFM":
        return fitted(name, replace(size, heads=2 ** trial.suggest_int("log2 heads", 0, 3)))
    most = 5 if name == "HN-PT" else 6  # (its tokens lie side by side, all of them)
    return fitted(name, replace(size, token=2 ** trial.suggest_int("log2 token", 3, most)))


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
    """Mean reciprocal rank among 256 validation presets after a short training; kept."""
    made = stage(profile, name, size, number)
    with made.opened() as work:
        if work:
            history = short(profile, name, size).history
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
    return encoders.train(model, data, encoders.scaling(data), run, Training(name, 0, size=size))


def sampler(profile: Profile, first: int) -> optuna.samplers.BaseSampler:
    """Who draws trial number `first` and the next: evenly at first, then where it went well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        seed = seed_for(profile.seed, "tuning", first) % 2**31
        if first < profile.tuning_trials // 2:
            return optuna.samplers.QMCSampler(seed=profile.seed, warn_independent_sampling=False)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


def study(profile: Profile, name: str) -> optuna.Study:
    """The whole study of one encoder.

    It is kept in the answers of its trials: asked anew, with the same seeds, it draws the same
    settings, reads the answers that are there and goes on.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study(direction="maximize")
    for first in range(0, profile.tuning_trials, AT_ONCE):
        found.sampler = sampler(profile, first)
        trials = [found.ask() for _ in range(min(AT_ONCE, profile.tuning_trials - first))]
        items = [(profile, name, suggest(name, trial), trial.number) for trial in trials]
        for trial, score in zip(
            trials, parallel.each(tried, items, f"{name}, trials"), strict=True
        ):
            found.tell(trial, score)
    return found


def table(profile: Profile, name: str, found: optuna.Study) -> pd.DataFrame:
    """A row a trial, in order: its settings, and the mean reciprocal rank."""
    rows = []
    for trial in found.trials:
        size = suggest(name, optuna.trial.FixedTrial(trial.params))
        even = trial.number < -(-(profile.tuning_trials // 2) // AT_ONCE) * AT_ONCE
        row = {"encoder": name, "trial": trial.number, "drawn": "evenly" if even else "by TPE"}
        own = {setting: value for setting, value in asdict(size).items() if
               setting not in MORE or MORE[setting] in trial.params}  # fmt: skip
        rows.append(row | own | {"weights": weights(name, size), "mrr": trial.value})
    return pd.DataFrame(rows)
