"""A profile is a run: every parameter, checked, in one section a room, read from a flat YAML file.

``notebooks/profiles/NAME.yaml`` is flat, so that ``papermill -f`` takes it as it is; the sections
below say who reads what, and a stage takes its section whole. The defaults are the ``quick``
profile's values; a test holds the two, and the notebooks' parameter cells, together. A new chapter
adds a section and its name to `Profile`'s bases.
"""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from . import paths
from .errors import PaperError

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Count = Annotated[int, Field(ge=0)]  # 0 often means all, or none
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]

RESERVED = (
    "weights",
    "reference",
    "guitarset",
    "real",
    "adapters",
)  # folders of other use beside the runs


@dataclass(frozen=True, config=STRICT)
class Run:
    # name of the run
    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "quick"
    seed: Count = 0  # every random draw is keyed by this and by its item
    threads: Positive = 2  # of torch; part of the result, since sums depend on their order
    # address of a Dask scheduler for rendering and extraction ("": this machine)
    scheduler: str = ""


@dataclass(frozen=True, config=STRICT)
class Rendering:
    """Notebook 01: corpus and rendering."""

    # varied: plucked, each recording with a microphone, room, noise and level of its own; played:
    # and played more freely; other: players and rooms that none of these have; sampled: sound
    # fonts; mixed: varied of both kinds
    corpus: Literal[
        "plucked", "varied", "played", "other", "sampled", "mixed", "guitarset", "folder"
    ] = "plucked"
    # varied, played, other, mixed: one part of the variation left out ("": none)
    vary_without: Literal["", "pickup", "equalizer", "room", "level", "noise", "hum"] = ""
    corpus_path: str = ""  # folder: your audio; guitarset: where the data set lies or goes to
    guitarset_audio: Literal[
        "audio_mic", "audio_mix", "audio_hex_original", "audio_hex_debleeded"
    ] = "audio_mic"
    recordings: Count = 240  # at most so many recordings, balanced (0: all)
    recording_seconds: Above0 = 5.0  # length of a plucked recording
    slice_seconds: Above0 = 5.0  # length of a clip
    # Hz at which SoX applies the chains (16000: the paper's condition)
    render_rate: Positive = 44100
    # 3 to so many seconds of silence go through the chain before (0: none)
    lead_seconds: NotNegative = 7.0
    chain_plan: Literal["paper50", "guo221", "singles"] = "paper50"
    settings: Literal["table", "drawn"] = "table"  # drawn: of every knob, anew for each clip
    include_dry: bool = True  # also keep the unprocessed clip, with all labels zero
    chains_per_slice: Count = 12  # so many of the plan's chains, drawn for each slice (0: all)
    split: Literal["by_recording", "by_clip"] = "by_recording"  # by_clip: only to measure the leak


@dataclass(frozen=True, config=STRICT)
class Codec:
    """Notebook 02: the codec and what of its embedding a head sees."""

    codec: Literal["shipped", "hub:3kbps", "hub:1k5bps", "hub:1kbps", "hub:0k75bps"] = "shipped"
    # Eq. 2, or mean, deviation, mean absolute difference
    pooling: Literal["mean", "mean_sd_mad"] = "mean"
    standardise: bool = True  # z-score the head's input with the training set's statistics


@dataclass(frozen=True, config=STRICT)
class HeadTraining:
    """Notebook 02: the head on frozen embeddings."""

    hidden: Positive = 256  # Eq. 3
    dropout: Share = 0.2
    head_rate: Above0 = 1e-3
    head_batch: Positive = 32
    head_epochs: Positive = 200  # at most
    head_patience: Positive = 20  # epochs without a better validation macro-F1
    head_seeds: Positive = 3  # trainings of each head in Table 2
    weight_decay: NotNegative = 1e-4


@dataclass(frozen=True, config=STRICT)
class FineTuning:
    """Notebook 03: first the upper part of the encoder, then all of it."""

    # fresh: the paper's
    finetune_start: Literal["frozen_head", "early_head", "fresh_head"] = "frozen_head"
    finetune_seeds: Positive = 1  # trainings of the fine-tuned model in Table 2
    mixed_precision: Literal["no", "bf16", "tf32"] = "no"  # where the processor has it
    warmup: Share = 0.1  # share of the steps over which the rate rises
    upper_optimiser: Literal["muon", "adamw"] = "muon"  # muon: for matrices, AdamW for the rest
    upper_rate: NotNegative = 1e-3  # of the matrices (adamw: of all that is trained of the encoder)
    upper_head_rate: Above0 = 1e-3  # of the head (muon: and of the rest)
    upper_seconds: NotNegative = 1.5  # of a clip in a step, drawn anew each epoch (0: all of it)
    upper_batch: Positive = 16
    upper_epochs: Count = 20
    # of each training clip as it might have been recorded otherwise
    upper_draws: Annotated[int, Field(ge=0, le=4)] = 0
    # whole_first: end to end, and then the upper half, on what the lower has become
    finetune_order: Literal["upper_first", "whole_first"] = "upper_first"
    finetune_optimiser: Literal["adamw", "muon"] = "adamw"  # then end to end
    encoder_rate: NotNegative = 1e-5  # (muon: of the matrices; the paper: 1e-5)
    finetune_head_rate: Above0 = 3e-5  # (the paper: 1e-3)
    # above_first: without what runs at the audio's rate: a hundredth of the weights, most work
    finetune_part: Literal["all", "above_first"] = "all"
    finetune_batch: Positive = 4  # the paper accumulates 4 x 8
    accumulation: Positive = 2
    finetune_epochs: Positive = 1
    finetune_clips: Count = 128  # clips an epoch, drawn anew (0: the whole training set)
    finetune_seconds: NotNegative = 0.0  # of a clip in a step, drawn anew each epoch (0: all of it)
    # each time another level, equalizer and noise floor
    finetune_varied: bool = False
    finetune_patience: Count = 5  # epochs without a better one (0: to the end)
    contrast_epochs: Count = 0  # of a second training, end to end at the paper's rates


@dataclass(frozen=True, config=STRICT)
class Reporting:
    """Notebooks 04 and 05."""

    bootstrap: Positive = 1000  # resamples of recordings (and seeds) for the 95 % intervals
    tsne_perplexity: Above0 = 30.0


@dataclass(frozen=True, config=STRICT)
class Experiments:
    """Notebook 08."""

    experiment_recordings: Count = 48  # training and validation recordings rendered anew (0: all)


@dataclass(frozen=True, config=STRICT)
class Peers:
    """Notebook 09."""

    peer_epochs: Count = 12  # of the networks on log-mel (0: keep no spectrograms, no notebook 09)
    peer_seeds: Positive = 3  # trainings of each


@dataclass(frozen=True, config=STRICT)
class Variations:
    """Notebook 10."""

    variation_recordings: Positive = 160  # of each corpus that is compared
    variation_epochs: Count = 0  # of each network (0: show the published comparison)


@dataclass(frozen=True, config=STRICT)
class Recipes:
    """Appendices A2 and A3."""

    recipe_recordings: Positive = 48  # training recordings on which recipes are compared
    recipe_epochs: Count = 0  # epochs of each (0: show the published comparison)
    lift_recordings: Positive = 36  # training recordings on which what lifts the last is compared
    lift_epochs: Count = 0  # of each (0: show the published comparison)


@dataclass(frozen=True, config=STRICT)
class Adapters:
    """Part III, notebooks 13 and on."""

    adapter_methods: Literal["few", "all"] = "few"  # ways to adapt the encoder that are compared
    adapter_epochs: Positive = 7  # of each
    adapter_clips: Count = 2016  # clips an epoch, drawn anew (0: the whole training set)
    adapter_seeds: Positive = 1  # trainings of each
    adapter_judged: Count = 0  # clips of a recording by which each is judged, drawn (0: all)
    adapter_head_rate: Above0 = 1e-4  # of the head meanwhile
    trial_epochs: Positive = 3  # of each trial against forgetting
    few_steps: Positive = 120  # of each way to learn a new effect
    guitar_steps: Positive = 150  # of an adapter for one guitar
    knob_chains: Count = 0  # chains of a slice whose knobs are drawn (0: chains_per_slice)
    knob_epochs: Positive = 20  # of a network that also says where the effects' knobs stand


@dataclass(frozen=True, config=STRICT)
class Proxies:
    """Part IV, notebooks 18 and on."""

    ranking_presets: Positive = 10  # of each sound attribute
    ranking_steps: Annotated[int, Field(ge=3)] = 20  # in which its parameter is turned up
    ranking_models: str = ""  # more encoders: of encodec, dac, clap, ast (the hub), and NAME.pt2
    proxy_presets: Annotated[int, Field(ge=100)] = 6000  # drawn, that are heard
    proxy_by_hand: Count = 1200  # made by hand, at most (0: all)
    proxy_size: Literal["small", "paper"] = "small"  # of the preset encoders
    proxy_epochs: Positive = 20  # of each
    proxy_seeds: Positive = 3  # trainings of each
    tuning_trials: Positive = 24  # of each encoder whose settings are searched for
    tuning_epochs: Positive = 5  # of a trial
    matching_epochs: Positive = 9  # of each estimator, and of the proxy on presets made by hand
    matching_seeds: Positive = 3  # trainings of each estimator
    search_targets: Positive = 8  # sounds of each domain for which amsynth itself is searched
    search_sounds: Positive = 200  # that a search plays
    order_recordings: Positive = 5  # test recordings heard behind two effects in both orders


@dataclass(frozen=True, config=STRICT)
class Tokens:
    """Part V, notebooks 22 and on."""

    token_codec: Literal["l3ac", "encodec_1.5", "encodec_12"] = "l3ac"  # whose tokens
    token_sounds: Count = 600  # other sounds that the masked model also hears
    token_size: Literal["tiny", "small", "medium", "paper"] = "small"  # of the model
    token_start: str = ""  # GPT-2 (hub, or folder) whose layers begin it ("": random weights)
    token_seconds: Above0 = 2.0  # of a clip in a step
    token_batch: Positive = 16
    token_rate: Above0 = 1e-3
    token_epochs: Positive = 4  # of the masked model
    token_tasks: str = "effects, player"  # by commas: of effects, player, style
    # by commas, of families, speech, genre: the token paper's own tasks, or their like
    token_others: str = "families, speech"
    token_most: Count = 400  # sounds of each class and split of these (0: all)
    token_data: str = ""  # folder of its data sets: nsynth-train, ..., music_speech, gtzan_genre
    token_task_epochs: Positive = 6  # of each task
    token_task_seconds: Above0 = 1.0  # of a clip in a step of these
    token_seeds: Positive = 3  # trainings of each task


@dataclass(frozen=True, config=STRICT)
class Profile(
    Tokens,
    Proxies,
    Adapters,
    Recipes,
    Variations,
    Peers,
    Experiments,
    Reporting,
    FineTuning,
    HeadTraining,
    Codec,
    Rendering,
    Run,
):
    """All sections; attributes are flat, since every key belongs to one section only."""

    def __post_init__(self):
        if self.profile in RESERVED:
            raise PaperError(
                f"profile {self.profile!r} is reserved: name the run otherwise, "
                f"not {', '.join(RESERVED)}."
            )
        if 0 < self.lead_seconds < 3:
            raise PaperError(
                f"lead_seconds is {self.lead_seconds}; it can be 0, or at least 3, "
                "after which effects have settled."
            )
        if 0 < self.recordings < 3 and self.split == "by_recording":
            raise PaperError(
                f"recordings is {self.recordings}; 3 are needed, one for each split (0: all)."
            )
        if self.corpus == "folder" and not self.corpus_path:
            raise PaperError("corpus 'folder' needs corpus_path, the folder of your audio.")


def names(section: type = Profile) -> list[str]:
    return [f.name for f in dataclasses.fields(section)]


def listed(text: str) -> list[str]:
    """`a, b,` -> both, without blanks."""
    return [one.strip() for one in text.split(",") if one.strip()]


def section(profile: Profile, kind: type) -> dict:
    """The values of one section, for a stage's parameters."""
    return {name: getattr(profile, name) for name in names(kind)}


def build(values: dict, source: str = "the profile") -> Profile:
    """A checked `Profile` from a mapping.

    Raises:
        PaperError: unknown key, wrong type or impossible value, in one sentence.
    """
    for key in values:
        if key not in names():
            near = difflib.get_close_matches(str(key), names(), 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise PaperError(
                f"{source}: unknown parameter {key!r}.{hint} Known: {', '.join(names())}."
            )
    try:
        return Profile(**values)
    except ValidationError as problem:
        raise PaperError(f"{source}: {_sentence(problem.errors()[0])}") from None
    except PaperError as problem:
        raise PaperError(f"{source}: {problem}") from None


def _sentence(error: ErrorDetails) -> str:
    """pydantic's first finding in our words."""
    key, value, kind = error["loc"][0], error["input"], error["type"]
    if kind == "literal_error":
        return f"{key} is {value!r}; it can be {error['ctx']['expected'].replace(' or ', ', ')}."
    words = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below"}
    if kind in words:
        bound = next(iter(error["ctx"].values()))
        return f"{key} must be {words[kind]} {bound:g}, not {value}."
    if kind == "finite_number":
        return f"{key} cannot be {value}."
    if kind == "string_pattern_mismatch":
        return f"{value!r} cannot be the name of a run: letters, digits, _ and -."
    wanted = kind.removesuffix("_type").removesuffix("_parsing")
    hint = ""
    if wanted == "float" and isinstance(value, str):
        hint = " YAML wants a point in such a number: 1.0e-5."
    return f"{key} wants {wanted}, not {value!r} ({type(value).__name__}).{hint}"


def load(name: str, **changes) -> Profile:
    """Profile `name`, with `changes` on top.

    `name` is that of a file in notebooks/profiles, or a path to a YAML file.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else paths.PROFILES / f"{name}.yaml"
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in paths.PROFILES.glob("*.yaml")))
        raise PaperError(
            f"there is no profile {name!r} ({path.name} not found); there are: {have}."
        )
    values = _read(path)
    if values.get("profile", path.stem) != path.stem:
        raise PaperError(
            f"{path.name} describes a run called {values['profile']!r} and would overwrite that: "
            f"write profile: {path.stem} in it."
        )
    for key in ("corpus_path", "token_data"):  # (notebooks run in another folder)
        if values.get(key):
            values[key] = str(Path(str(values[key])).expanduser().resolve())
    return build({"profile": path.stem} | values | changes, path.name)


def _read(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as problem:
        raise PaperError(
            f"{path.name} is not valid YAML: {str(problem).splitlines()[0]}."
        ) from problem
    if not isinstance(values, dict):
        raise PaperError(f"{path.name} must hold one 'parameter: value' a line.")
    return values


def from_notebook(variables: dict) -> Profile:
    """The run that a notebook's `parameters` cell (and papermill's injected one) describes.

    Pass ``globals()``. What this notebook's cell does not hold is taken from the profile's own
    file, if it has one, so that a notebook opened by hand reads the same run as its neighbours.
    """
    named = {k: variables[k] for k in names() if k in variables}
    file = paths.PROFILES / f"{named.get('profile', '')}.yaml"
    known = _read(file) if file.exists() else {}
    return build(known | named, "the notebook's parameters cell")
