"""A profile is a run: every parameter, in one flat dataclass, read from ``notebooks/profiles/NAME.yaml``.

The defaults below are the ``quick`` profile's values; a test holds the two, and the notebooks' parameter cells, together.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from . import PaperError, paths


@dataclass(frozen=True)
class Profile:
    profile: str = "quick"  # name of the run: its folders are data/<profile> and figures/<profile>
    seed: int = 0  # every random draw is keyed by this and by its item
    threads: int = 2  # of torch; part of the result, since sums depend on their order
    # 01 corpus and rendering
    corpus: str = "plucked"  # plucked | guitarset | folder
    corpus_path: str = ""  # folder: your audio; guitarset: where the data set lies or goes to
    guitarset_audio: str = "audio_mic"  # audio_mic | audio_mix | audio_hex_original | audio_hex_debleeded
    recordings: int = 240  # at most so many recordings (0: all)
    recording_seconds: float = 5.0  # length of a plucked recording
    slice_seconds: float = 5.0  # length of a clip
    render_rate: int = 44100  # Hz at which SoX applies the chains (16000: the paper's condition)
    lead_seconds: float = 7.0  # 3 to so many seconds of silence, drawn for each clip, go through the chain before it (0: SoX starts with the clip)
    chain_plan: str = "paper50"  # paper50 | guo221 | singles
    include_dry: bool = True  # also keep the unprocessed clip, with all labels zero
    chains_per_slice: int = 12  # so many of the plan's chains, drawn for each slice (0: all)
    split: str = "by_recording"  # by_recording | by_clip (only to measure the leak)
    # 02 codec and frozen baseline
    codec: str = "shipped"  # shipped | hub:3kbps | hub:1k5bps | hub:1kbps | hub:0k75bps
    pooling: str = "mean"  # mean (Eq. 2) | mean_sd_mad (mean, deviation, mean absolute difference over time)
    standardise: bool = True  # z-score the head's input with the training set's statistics
    hidden: int = 256  # Eq. 3
    dropout: float = 0.2
    head_rate: float = 1e-3
    head_batch: int = 32
    head_epochs: int = 200  # at most
    head_patience: int = 20  # epochs without a better validation macro-F1
    weight_decay: float = 1e-4
    # 03 fine-tuning
    finetune_start: str = "frozen_head"  # frozen_head (head first, then end to end) | early_head (as it was before it knew the training clips by heart) | fresh_head (the paper's text)
    mixed_precision: str = "no"  # no | bf16 (faster where the processor has it)
    warmup: float = 0.1  # share of the steps over which the rate rises
    upper_optimiser: str = "muon"  # muon (for matrices, AdamW for the rest) | adamw: first the upper part of the encoder, on clips that went through the lower part once
    upper_rate: float = 1e-3  # of the matrices (adamw: of all that is trained of the encoder)
    upper_head_rate: float = 1e-3  # of the head (muon: and of the rest)
    upper_seconds: float = 1.5  # of a clip in a training step, drawn anew each epoch (0: all of it)
    upper_batch: int = 16
    upper_epochs: int = 16
    encoder_rate: float = 1e-5  # then end to end (the paper: 1e-5)
    finetune_head_rate: float = 3e-5  # (the paper: 1e-3)
    finetune_batch: int = 4  # the paper accumulates 4 x 8
    accumulation: int = 2
    finetune_epochs: int = 1
    finetune_clips: int = 128  # clips per epoch, drawn anew each epoch (0: the whole training set)
    finetune_patience: int = 5  # epochs
    contrast_epochs: int = 1  # epochs of a second training for comparison, end to end at the paper's rates (0: none)
    # 04, 05 report
    bootstrap: int = 1000  # resamples of the test recordings for the 95 % intervals
    tsne_perplexity: float = 30.0
    # 08 experiments
    experiment_recordings: int = 48  # training and validation recordings that are rendered anew (0: all)
    # A2 recipes
    recipe_recordings: int = 48  # training recordings on which the recipes of fine-tuning are compared
    recipe_epochs: int = 0  # epochs of each (0: show the published comparison)


CHOICES = {
    "corpus": ("plucked", "guitarset", "folder"),
    "guitarset_audio": ("audio_mic", "audio_mix", "audio_hex_original", "audio_hex_debleeded"),
    "chain_plan": ("paper50", "guo221", "singles"),
    "split": ("by_recording", "by_clip"),
    "codec": ("shipped", "hub:3kbps", "hub:1k5bps", "hub:1kbps", "hub:0k75bps"),
    "pooling": ("mean", "mean_sd_mad"),
    "finetune_start": ("frozen_head", "early_head", "fresh_head"),
    "upper_optimiser": ("muon", "adamw"),
    "mixed_precision": ("no", "bf16"),
}
RESERVED = ("weights", "reference", "guitarset")  # folders of other use beside the runs
NOT_NEGATIVE = {"seed", "recordings", "chains_per_slice", "dropout", "weight_decay", "finetune_clips", "contrast_epochs", "lead_seconds", "warmup", "upper_epochs", "upper_seconds", "experiment_recordings", "recipe_epochs"}


def names() -> list[str]:
    return [f.name for f in fields(Profile)]


def build(values: dict, source: str = "the profile") -> Profile:
    """A checked `Profile` from a mapping. Unknown key, wrong type or impossible value: `PaperError`."""
    known = {f.name: f for f in fields(Profile)}
    checked = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise PaperError(f"{source}: unknown parameter {key!r}.{hint} Known: {', '.join(known)}.")
        wanted = type(known[key].default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            hint = " YAML wants a point in such a number: 1.0e-5." if wanted is float and isinstance(value, str) else ""
            raise PaperError(f"{source}: {key} wants {wanted.__name__}, not {value!r} ({type(value).__name__}).{hint}")
        if wanted is float and not math.isfinite(value) or key in ("dropout", "warmup") and value >= 1:
            raise PaperError(f"{source}: {key} cannot be {value}.")
        if key in CHOICES and value not in CHOICES[key]:
            raise PaperError(f"{source}: {key} is {value!r}; it can be {', '.join(CHOICES[key])}.")
        if wanted in (int, float) and (value < 0 or (value == 0 and key not in NOT_NEGATIVE)):
            raise PaperError(f"{source}: {key} must be {'0 or more' if key in NOT_NEGATIVE else 'above 0'}, not {value}.")
        checked[key] = value
    profile = Profile(**checked)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", profile.profile) or profile.profile in RESERVED:
        raise PaperError(f"{source}: {profile.profile!r} cannot be the name of a run: letters, digits, _ and -, and not {', '.join(RESERVED)}.")
    if 0 < profile.lead_seconds < 3:
        raise PaperError(f"{source}: lead_seconds is {profile.lead_seconds}; it can be 0, or at least 3, after which effects have settled.")
    if profile.corpus == "folder" and not profile.corpus_path:
        raise PaperError(f"{source}: corpus 'folder' needs corpus_path, the folder of your audio.")
    return profile


def load(name: str, **changes) -> Profile:
    """Profile `name` (a file in notebooks/profiles, or a path to a YAML file), with `changes` on top."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else paths.PROFILES / f"{name}.yaml"
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in paths.PROFILES.glob("*.yaml")))
        raise PaperError(f"there is no profile {name!r} ({path.name} not found); there are: {have}.")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as problem:
        raise PaperError(f"{path.name} is not valid YAML: {str(problem).splitlines()[0]}.") from problem
    if not isinstance(values, dict):
        raise PaperError(f"{path.name} must hold one 'parameter: value' a line.")
    if values.get("profile", path.stem) != path.stem:
        raise PaperError(f"{path.name} describes a run called {values['profile']!r} and would overwrite that: write profile: {path.stem} in it.")
    if values.get("corpus_path"):
        values["corpus_path"] = str(Path(str(values["corpus_path"])).expanduser().resolve())  # notebooks run in another folder
    return build({"profile": path.stem} | values | changes, path.name)


def from_notebook(variables: dict) -> Profile:
    """The run that a notebook's `parameters` cell (and papermill's injected one) describes; pass ``globals()``."""
    return build({k: variables[k] for k in names() if k in variables}, "the notebook's parameters cell")


def subset(profile: Profile, *keys: str) -> dict:
    """The named parameters, for a stage's provenance."""
    values = asdict(profile)
    return {k: values[k] for k in keys}
