"""SoX chains over clean slices -> the rendered data set. Notebook 01, sections 2 and 3."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import sox

from ..core import config, machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from . import audio, corpus, effects, settings
from .dataset import Dataset

# seconds after which SoX's own beginning, and its echo in delays and reverbs, is below -60 dB in
# every chain
SETTLED = 3.0


def lead_span(profile: Profile) -> tuple[float, float]:
    """Least and most seconds of silence before a clip of the data set."""
    return (SETTLED, profile.lead_seconds) if profile.lead_seconds else (0.0, 0.0)


def draw_lead(
    span: tuple[float, float], seed: int, recording: str, slice_: int, chain: effects.Chain
) -> float:
    """Seconds of silence before one clip, in whole hundredths.

    Drawn evenly within `span` from the clip's own generator.
    """
    least, most = (round(100 * seconds) for seconds in span)
    rng = generator_for(seed, "lead", recording, slice_, effects.label(chain))
    return int(rng.integers(least, most + 1)) / 100


def chains_of(
    profile: Profile, recording: str, slice_: int, plan: str | None = None
) -> list[effects.Chain]:
    """The chains that one slice goes through, in the plan's order.

    All of the profile's plan, or `chains_per_slice` of them, drawn from the slice's own generator;
    as many from another `plan`.
    """
    own = effects.plan(profile.chain_plan, profile.include_dry)
    whole = effects.plan(plan, profile.include_dry) if plan else own
    order = generator_for(profile.seed, "chains", recording, slice_).permutation(len(whole))
    drawn = order[: profile.chains_per_slice or len(own)]
    return [whole[i] for i in sorted(drawn)]


def settings_of(
    profile: Profile, recording: str, slice_: int, chain: effects.Chain
) -> dict[str, float]:
    """Where the knobs stand for one clip: drawn from its own generator, or as Table 1 has them."""
    if profile.settings == "table":
        return {}
    rng = generator_for(profile.seed, "settings", recording, slice_, effects.label(chain))
    return settings.draw(chain, rng)


def transformer(chain: effects.Chain, knobs: dict[str, float] | None = None) -> sox.Transformer:
    """The chain as a pysox Transformer: effects in order, no dither (SoX's own is random).

    knobs: values other than Table 1's, as `settings.draw` makes them.
    """
    tfm = sox.Transformer()
    tfm.set_globals(dither=False)
    for name in effects.check(chain):
        effect = effects.BY_NAME[name]
        changed = settings.arguments(name, knobs or {})
        getattr(tfm, effect.method)(**effect.arguments | changed)
    return tfm


def render(
    samples: np.ndarray,
    rate: int,
    chain: effects.Chain,
    out_rate: int | None = None,
    lead: float = 0.0,
    knobs: dict[str, float] | None = None,
) -> np.ndarray:
    """Apply `chain` to (n,) int16 at `rate` Hz.

    Returns (m,) int16 at `out_rate`, cut to the input's duration.

    SoX starts anew for every clip: its overdrive with a click, its LFOs at the same phase. `lead`
    seconds of silence go through the chain before the clip and are cut off again, so that the
    effects were already running, as on a recording.

    Resampling is done on SoX's 16-bit result, not by SoX at the end of the chain: SoX's tremolo
    lowers its level to leave headroom for whatever follows in the chain, a resampler included (by 3
    dB). An effect's tail beyond the clip is dropped.
    """
    out_rate = out_rate or rate
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise PaperError(
            f"render takes mono int16 samples, not {samples.dtype} of shape {samples.shape}."
        )
    tfm, before = transformer(chain, knobs), round(lead * rate)
    try:
        out = tfm.build_array(
            input_array=np.concatenate([np.zeros(before, np.int16), samples]), sample_rate_in=rate
        )
    except sox.SoxError as problem:
        machine.require_sox()
        message = str(problem).partition("Stderr:")[2].strip() or str(problem)
        raise PaperError(f"SoX failed on chain {effects.label(chain)}: {message}") from problem
    out = out[before : before + len(samples)]
    if len(out) < len(samples):
        raise PaperError(
            f"SoX returned {len(out)} samples instead of {len(samples)} "
            f"for chain {effects.label(chain)}."
        )
    if out_rate == rate:
        return out
    wanted = round(len(samples) * out_rate / rate)
    low = audio.to_int16(audio.resample(audio.to_float(out), rate, out_rate))[:wanted]
    return np.pad(low, (0, wanted - len(low)))


def size(profile: Profile) -> tuple[int, int, int]:
    """(slices, clips, bytes) of the data set that `profile` describes."""
    if profile.corpus == "guitarset" and not corpus.guitarset_home(profile).exists():
        count = int(corpus.GUITARSET_SLICES * 5 / profile.slice_seconds)  # not fetched yet
    else:
        count = sum(corpus.slice_count(r, profile) for r in corpus.recordings(profile))
    clips = count * len(chains_of(profile, "", 0))
    return count, clips, clips * 2 * clip_length(profile)


def clip_length(profile: Profile) -> int:
    """Samples of a clip of the data set."""
    return round(profile.slice_seconds * audio.CODEC_RATE)


def render_recording(recording: corpus.Recording, profile: Profile) -> dict[str, np.ndarray]:
    """Every slice of one recording through its chains.

    `clips`: (slices x chains, samples) int16 at 16 kHz.
    """
    machine.require_sox()
    expected = corpus.slice_count(recording, profile)
    cut = corpus.slices(corpus.load(recording, profile), profile)
    if len(cut) != expected:
        raise PaperError(
            f"{recording.path}: holds {len(cut)} slices, although its header promises {expected}: "
            "the file is cut short or damaged; repair or remove it."
        )
    clips = []
    for s, clean in enumerate(cut):
        for chain in chains_of(profile, recording.name, s):
            lead = draw_lead(lead_span(profile), profile.seed, recording.name, s, chain)
            knobs = settings_of(profile, recording.name, s, chain)
            try:
                clips.append(
                    render(clean, profile.render_rate, chain, audio.CODEC_RATE, lead, knobs)
                )
            except PaperError as problem:
                raise PaperError(f"recording {recording.name}, slice {s}: {problem}") from problem
    return {"clips": np.stack(clips)}


def stage(profile: Profile, found: list[corpus.Recording]) -> stages.Stage:
    """The data set's stage: its parameters, its audio files and its chains."""
    parameters = config.section(profile, config.Rendering) | {"seed": profile.seed}
    parameters["chains"] = [
        effects.label(c) for c in effects.plan(profile.chain_plan, profile.include_dry)
    ]
    inputs = {r.name: stages.digest(paths.Path(r.path)) for r in found if r.path}
    inputs |= corpus.instruments(profile)
    return stages.Stage("dataset", paths.dataset(profile.profile), parameters, inputs)


def render_dataset(profile: Profile) -> Dataset:
    """Make (or resume, or find) data/<profile>/dataset: every slice through its chains, in order.

    The unit of work is a recording: one shard each, made by `render_recording` on this machine's
    cores or on a Dask cluster (`profile.scheduler`). A run killed at any moment ends with the same
    bytes.
    """
    found = corpus.recordings(profile)
    made = stage(profile, found)
    with made.opened() as work:
        if work:
            machine.require_sox()
            counts = [corpus.slice_count(r, profile) for r in found]
            for recording, count in zip(found, counts, strict=True):
                if not count:
                    corpus.load(recording, profile)  # says what is wrong with it
            index = _index(found, counts, profile)  # too few to split: say so before rendering
            if not (work / "shards").exists():
                paths.require_disk(
                    work, 2 * len(index) * 2 * clip_length(profile), "rendering the data set"
                )
            local = replace(profile, scheduler="")
            items = {f"{i:06d}": (recording, local) for i, recording in enumerate(found)}
            files = parallel.shards(
                render_recording, items, work / "shards", "rendering", profile.scheduler
            )
            index["sha256"] = _assemble(files, work / "audio.npy", len(index), clip_length(profile))
            index.to_parquet(work / "index.parquet", index=False)
            content = stages.digest(index.astype(str).to_csv(index=False).encode())
            made.finish(content, clips=len(index), recordings=len(found))
    return Dataset(made.folder)


def _assemble(shards: list[paths.Path], file: paths.Path, clips: int, length: int) -> list[str]:
    """All shards' clips in one array on disk; the hash of each clip."""
    paths.new_array(file, np.int16, (clips, length))
    out, row, hashes = np.lib.format.open_memmap(file, "r+"), 0, []
    for shard in shards:
        part = np.load(shard)["clips"]
        out[row : row + len(part)] = part
        row += len(part)
        hashes += [hashlib.sha256(clip.tobytes()).hexdigest() for clip in part]
    out.flush()
    return hashes


def _index(found: list[corpus.Recording], counts: list[int], profile: Profile) -> pd.DataFrame:
    """One row a clip, in the data set's order."""
    rows: list[dict] = []
    for recording, count in zip(found, counts, strict=True):
        facts = {
            "recording": recording.name,
            "player": recording.player,
            "style": recording.style,
            "part": recording.part,
        }
        for s in range(count):
            for chain in chains_of(profile, recording.name, s):
                lead = draw_lead(lead_span(profile), profile.seed, recording.name, s, chain)
                row = {"clip": len(rows), "excerpt": f"{recording.name}_{s}"} | facts
                row |= {"slice": s, "chain": effects.label(chain), "lead": lead}
                labels = dict(zip(effects.NAMES, effects.multi_hot(chain), strict=True))
                rows.append(row | labels | settings_of(profile, recording.name, s, chain))
    index = pd.DataFrame(rows)
    if profile.split == "by_recording":
        index["split"] = index["recording"].map(corpus.split_of(profile))
    else:
        order = generator_for(profile.seed, "split by clip").permutation(len(index))
        share = (order + 0.5) / len(index)
        index["split"] = np.select([share < 0.70, share < 0.85], ["train", "validation"], "test")
    return index
