"""SoX chains over clean slices -> the rendered data set. Notebook 01, sections 2 and 3."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pandas as pd
import sox
from tqdm import tqdm

from . import PaperError, audio, corpus, effects, keyed, machine, paths, provenance
from .dataset import Dataset, assign_splits
from .profiles import Profile, subset

PARAMETERS = (
    "seed", "corpus", "corpus_path", "guitarset_audio", "recordings", "recording_seconds", "slice_seconds", "render_rate",
    "lead_seconds", "chain_plan", "include_dry", "chains_per_slice", "split",
)
CODE = ("plucked", "audio", "corpus", "effects", "rendering", "dataset")
SETTLED = 3.0  # seconds after which SoX's own beginning, and its echo in delays and reverbs, is below -60 dB in every chain


def lead_span(profile: Profile) -> tuple[float, float]:
    """Least and most seconds of silence before a clip of the data set."""
    return (SETTLED, profile.lead_seconds) if profile.lead_seconds else (0.0, 0.0)


def draw_lead(span: tuple[float, float], seed: int, recording: str, slice_: int, chain: effects.Chain) -> float:
    """Seconds of silence before one clip, in whole hundredths, drawn evenly within `span` from the clip's own generator."""
    least, most = (round(100 * seconds) for seconds in span)
    return int(keyed(seed, "lead", recording, slice_, effects.label(chain)).integers(least, most + 1)) / 100


def chains_of(profile: Profile, recording: str, slice_: int, plan: str | None = None) -> list[effects.Chain]:
    """The chains that one slice goes through, in the plan's order: all of the profile's plan, or `chains_per_slice` of them, drawn from
    the slice's own generator; as many from another `plan`."""
    own = effects.plan(profile.chain_plan, profile.include_dry)
    whole = effects.plan(plan, profile.include_dry) if plan else own
    drawn = keyed(profile.seed, "chains", recording, slice_).permutation(len(whole))[: profile.chains_per_slice or len(own)]
    return [whole[i] for i in sorted(drawn)]


def transformer(chain: effects.Chain) -> sox.Transformer:
    """The chain as a pysox Transformer: effects in order, no dither (SoX's default dither is random)."""
    tfm = sox.Transformer()
    tfm.set_globals(dither=False)
    for name in effects.check(chain):
        effect = effects.BY_NAME[name]
        getattr(tfm, effect.method)(**effect.arguments)
    return tfm


def render(samples: np.ndarray, rate: int, chain: effects.Chain, out_rate: int | None = None, lead: float = 0.0) -> np.ndarray:
    """Apply `chain` to (n,) int16 at `rate` Hz; (m,) int16 at `out_rate`, cut to the input's duration.

    SoX starts anew for every clip: its overdrive with a click, its LFOs at the same phase. `lead` seconds of silence go through the chain
    before the clip and are cut off again, so that the effects were already running, as on a recording.

    Resampling is done on SoX's 16-bit result, not by SoX at the end of the chain: SoX's tremolo lowers its level to leave headroom for
    whatever follows in the chain, a resampler included (by 3 dB). An effect's tail beyond the clip is dropped.
    """
    out_rate = out_rate or rate
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise PaperError(f"render takes mono int16 samples, not {samples.dtype} of shape {samples.shape}.")
    tfm, before = transformer(chain), round(lead * rate)
    try:
        out = tfm.build_array(input_array=np.concatenate([np.zeros(before, np.int16), samples]), sample_rate_in=rate)
    except sox.SoxError as problem:
        machine.require_sox()
        message = str(problem).partition("Stderr:")[2].strip() or str(problem)
        raise PaperError(f"SoX failed on chain {effects.label(chain)}: {message}") from problem
    out = out[before : before + len(samples)]
    if len(out) < len(samples):
        raise PaperError(f"SoX returned {len(out)} samples instead of {len(samples)} for chain {effects.label(chain)}.")
    if out_rate == rate:
        return out
    wanted = int(round(len(samples) * out_rate / rate))
    low = audio.to_int16(audio.resample(audio.to_float(out), rate, out_rate))[:wanted]
    return np.pad(low, (0, wanted - len(low)))


def size(profile: Profile) -> tuple[int, int, int]:
    """(slices, clips, bytes) of the data set that `profile` describes."""
    if profile.corpus == "guitarset" and not corpus.guitarset_home(profile).exists():
        count = int(corpus.GUITARSET_SLICES * 5 / profile.slice_seconds)  # not fetched yet
    else:
        count = sum(corpus.slice_count(r, profile) for r in corpus.recordings(profile))
    clips = count * len(chains_of(profile, "", 0))
    return count, clips, clips * 2 * int(round(profile.slice_seconds * audio.CODEC_RATE))


def render_dataset(profile: Profile) -> Dataset:
    """Make (or resume, or find) data/<profile>/dataset: every slice through its chains, in that order.

    The unit of work is a recording. Its clips are written to their fixed place in one array, then a line is added to
    the journal; a run killed at any moment goes on after the last line, and ends with the same bytes.
    """
    folder = paths.data(profile.profile) / "dataset"
    found = corpus.recordings(profile)
    inputs = {r.name: provenance.digest(paths.Path(r.path)) for r in found if r.path}
    chains = effects.plan(profile.chain_plan, profile.include_dry)
    parameters = subset(profile, *PARAMETERS) | {"chains": provenance.digest([effects.label(c) for c in chains])}
    stage = provenance.Stage(folder, parameters, inputs, CODE)
    if stage.current():
        return Dataset(folder)
    machine.require_sox()
    counts = [corpus.slice_count(r, profile) for r in found]
    for recording, count in zip(found, counts):
        if not count:
            corpus.load(recording, profile)  # says what is wrong with it
    each = len(chains_of(profile, "", 0))
    starts = np.concatenate([[0], np.cumsum(counts)]) * each
    length, span = int(round(profile.slice_seconds * audio.CODEC_RATE)), lead_span(profile)
    assign_splits(found, profile)  # too few recordings: say so before rendering, not after
    work = stage.begin()
    journal = work / "journal.jsonl"
    done = _journalled(journal)
    shape = (int(starts[-1]), length)
    file = work / "audio.npy"
    if not file.exists():  # (an interrupted run's file has its blocks already)
        done = {}
        paths.require_disk(folder, shape[0] * length * 2, "the rendered data set")
        paths.new_array(file, np.int16, shape)
    clips = np.lib.format.open_memmap(file, "r+")

    def work_on(i: int) -> tuple[int, list[str]]:
        hashes, cut = [], corpus.slices(corpus.load(found[i], profile), profile)
        if len(cut) != counts[i]:
            raise PaperError(f"{found[i].path}: holds {len(cut)} slices, although its header promises {counts[i]}: the file is cut short or damaged; repair or remove it.")
        for s, clean in enumerate(cut):
            for row, chain in enumerate(chains_of(profile, found[i].name, s), starts[i] + s * each):
                try:
                    lead = draw_lead(span, profile.seed, found[i].name, s, chain)
                    clips[row] = render(clean, profile.render_rate, chain, audio.CODEC_RATE, lead)
                except PaperError as problem:
                    raise PaperError(f"recording {found[i].name}, slice {s}: {problem}") from problem
                hashes.append(hashlib.sha256(clips[row].tobytes()).hexdigest())
        return i, hashes

    todo = [i for i in range(len(found)) if found[i].name not in done]
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(total=shape[0], initial=shape[0] - sum(counts[i] for i in todo) * each, unit="clip", desc="rendering") as bar:
        tasks = [pool.submit(work_on, i) for i in todo]
        try:
            for task in as_completed(tasks):
                i, hashes = task.result()
                clips.flush()
                with journal.open("a") as lines:
                    lines.write(json.dumps({"recording": found[i].name, "sha256": hashes}) + "\n")
                done[found[i].name] = hashes
                bar.update(len(hashes))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    index = _index(found, counts, profile)
    index["sha256"] = [h for r in found for h in done[r.name]]
    del clips
    index.to_parquet(work / "index.parquet", index=False)
    content = provenance.digest(index.astype(str).to_csv(index=False).encode())
    stage.finish(content, clips=len(index), recordings=len(found), chains=len(chains))
    return Dataset(folder)


def _journalled(journal) -> dict[str, list[str]]:
    """Finished recordings and their clips' hashes; a last line cut short by a kill does not count."""
    done = {}
    if journal.exists():
        text = journal.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            journal.write_text(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            done[entry["recording"]] = entry["sha256"]
    return done


def _index(found, counts, profile) -> pd.DataFrame:
    split = assign_splits(found, profile)
    rows = []
    for recording, count in zip(found, counts):
        for s in range(count):
            for chain in chains_of(profile, recording.name, s):
                rows.append(
                    {"clip": len(rows), "excerpt": f"{recording.name}_{s}", "recording": recording.name, "player": recording.player,
                     "style": recording.style, "part": recording.part, "slice": s, "chain": effects.label(chain),
                     "lead": draw_lead(lead_span(profile), profile.seed, recording.name, s, chain)}
                    | dict(zip(effects.NAMES, effects.multi_hot(chain)))
                )  # fmt: skip
    index = pd.DataFrame(rows)
    if profile.split == "by_recording":
        index["split"] = index["recording"].map(split)
    else:
        order = keyed(profile.seed, "split by clip").permutation(len(index))
        share = (order + 0.5) / len(index)
        index["split"] = np.select([share < 0.70, share < 0.85], ["train", "validation"], "test")
    return index
