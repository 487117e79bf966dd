"""How fast, and in how much memory, against the plain loop that a student would write.

`make benchmark` measures five jobs, each in two ways and each way in a process of its own, the two
by turns, so that a slow minute of the machine meets both. What counts is the ratio; milliseconds
and megabytes are this machine's.

* render: a chain of SoX over a clip. Plain: pysox clip by clip. Here: `parallel.shards`.
* embed: the frozen encoder over a clip. Plain: l3ac's modules, batches of 8. Here: `features`.
* end to end: a training step on 8 clips of 5 s. Plain: l3ac's modules and AdamW. Here: `finetune`.
* upper half: a step that trains what lies at the frame rate, 16 excerpts of 1.5 s. Plain: l3ac's
  modules, the lower half without gradients. Here: from stored half-way activations.
* head: an epoch of the head on 2,000 embeddings. Plain: AdamW and a DataLoader. Here: `head`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import psutil

JOBS = ("render", "embed", "end to end", "upper half", "head")
WAYS = ("plain", "here")
SECONDS, RATE = 5, 16_000
CONFIG = Path(__file__).resolve().parent.parent / "data" / "weights" / "shipped" / "config.json"


def noise(clips: int, samples: int) -> np.ndarray:
    """(clips, samples) float32: what is on a clip does not change the time that it takes."""
    return 0.1 * np.random.default_rng(0).standard_normal((clips, samples)).astype(np.float32)


# --- the plain loops: nothing of this project is imported -----------------------------------------


def plain_network():
    import torch
    from l3ac.en_codec import EnCodec, ModelConfig

    torch.manual_seed(0)
    return EnCodec(ModelConfig(**json.loads(CONFIG.read_text())["network"]))


def recordings() -> list[Path]:
    """Two files of 20 s: four slices each."""
    import soundfile

    folder = Path(tempfile.mkdtemp())
    files = [folder / f"{name}.wav" for name in ("a", "b")]
    for file in files:
        soundfile.write(file, noise(1, 20 * 44_100)[0], 44_100, subtype="PCM_16")
    return files


def plain_render() -> tuple[Callable[[], object], int]:
    import soundfile
    import sox
    import soxr

    from paper_lib.sound import effects  # (the 13 effects' arguments are not part of the race)

    chains, files = effects.plan("paper50", False)[::6], recordings()

    def work() -> None:
        for file in files:
            samples, _ = soundfile.read(file, dtype="int16")
            for clean in samples.reshape(4, -1):
                for chain in chains:
                    transformer = sox.Transformer()
                    transformer.set_globals(dither=False)
                    for name in chain:
                        effect = effects.BY_NAME[name]
                        getattr(transformer, effect.method)(**effect.arguments)
                    led = np.concatenate([np.zeros(5 * 44_100, np.int16), clean])
                    out = transformer.build_array(input_array=led, sample_rate_in=44_100)
                    soxr.resample(out[5 * 44_100 :] / 32768, 44_100, RATE)

    return work, 4 * len(files) * len(chains)


def plain_embed() -> tuple[Callable[[], object], int]:
    import torch

    network, audio = plain_network().eval(), torch.from_numpy(noise(48, SECONDS * RATE))

    def work() -> None:
        with torch.inference_mode():
            for batch in audio.split(8):
                network.en_encoder(network.encoder(batch[:, None])).mean(1)

    return work, len(audio)


def plain_training(clips: int, seconds: float, upper: bool) -> tuple[Callable[[], object], int]:
    import torch
    from torch import nn

    network, audio = plain_network(), torch.from_numpy(noise(clips, int(seconds * RATE)))
    head = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 13))
    blocks = network.encoder.blocks
    trained = [*blocks[-2:].parameters()] if upper else [*network.encoder.parameters()]
    optimiser = torch.optim.AdamW([*trained, *network.en_encoder.parameters(), *head.parameters()])
    truth = torch.zeros(clips, 13)

    def work() -> None:
        x = audio[:, None]
        with torch.set_grad_enabled(not upper):
            for block in blocks[:-2]:
                x = block(x)
        for block in blocks[-2:]:
            x = block(x)
        logits = head(network.en_encoder(x).mean(1))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return work, clips


def plain_head() -> tuple[Callable[[], object], int]:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    head = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 13))
    optimiser = torch.optim.AdamW(head.parameters())
    examples = TensorDataset(torch.from_numpy(noise(2000, 128)), torch.zeros(2000, 13))

    def work() -> None:
        for x, y in DataLoader(examples, batch_size=32, shuffle=True):
            loss = nn.functional.binary_cross_entropy_with_logits(head(x), y, reduction="sum")
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()

    return work, 2000


# --- the same by this project ---------------------------------------------------------------------


def here_render() -> tuple[Callable[[], object], int]:
    from paper_lib.core import config, parallel
    from paper_lib.sound import effects, rendering, splits

    chains = effects.plan("paper50", False)[::6]
    run = config.load("quick", include_dry=False, chains_per_slice=len(chains), lead_seconds=7.0)
    found = [splits.Recording(file.stem, path=str(file)) for file in recordings()]

    def work() -> None:
        items = {recording.name: (recording, run) for recording in found}
        parallel.shards(rendering.render_recording, items, Path(tempfile.mkdtemp()), "render")

    return work, 4 * len(found) * len(chains)


def here_embed() -> tuple[Callable[[], object], int]:
    from paper_lib.core import parallel
    from paper_lib.recognition import features

    data = Path(tempfile.mkdtemp())
    np.save(data / "audio.npy", (32768 * noise(48, SECONDS * RATE)).astype(np.int16))

    def work() -> None:
        own = (data, "frozen", "shipped", 0, False)
        items = {str(a): (own[0], slice(a, a + 24), *own[1:]) for a in (0, 24)}
        parallel.shards(features.embed_rows_of, items, Path(tempfile.mkdtemp()), "embed")

    return work, 48


def here_training(clips: int, seconds: float, upper: bool) -> tuple[Callable[[], object], int]:
    import torch

    from paper_lib.codec import l3ac
    from paper_lib.core import config, loop, machine
    from paper_lib.recognition import finetune
    from paper_lib.recognition.features import EncodedClips

    run = config.load("quick", profile="benchmark")
    machine.make_deterministic(run.threads)
    head = finetune.Head(128, run.hidden, run.dropout)
    model = finetune.EffectRecognizer.assemble(l3ac.load("shipped"), head, "mean")
    audio = noise(clips, SECONDS * RATE if upper else int(seconds * RATE))
    data = EncodedClips(np.zeros((clips, 13), np.float32), audio)
    recipe = finetune.end_to_end(run, batch=4, accumulation=2, clips=0)
    if upper:
        with torch.inference_mode():
            lower = model.encoder.lower(torch.from_numpy(audio)).numpy()
        data = EncodedClips(np.zeros((clips, 13), np.float32), lower)
        recipe = finetune.upper_half(run, batch=clips, share=seconds / SECONDS)
    task, plan = finetune.training_of(data, model, recipe, (np.arange(clips), np.arange(clips)))
    accelerator = loop.accelerator_for("no")
    return lambda: loop.one_step(accelerator, model, task, plan, 0), clips


def here_head() -> tuple[Callable[[], object], int]:
    from paper_lib.core import config, machine
    from paper_lib.recognition import head

    run = replace(config.load("quick", profile="benchmark"), head_epochs=1)
    machine.make_deterministic(run.threads)
    examples = (noise(2000, 128), np.zeros((2000, 13), np.float32))
    return lambda: head.train_head(examples, (examples[0][:32], examples[1][:32]), run), 2000


def prepared(job: str, way: str) -> tuple[Callable[[], object], int]:
    """A job's work and the number of clips that one call of it goes through."""
    own = way == "here"
    training = here_training if own else plain_training
    match job:
        case "render":
            return here_render() if own else plain_render()
        case "embed":
            return here_embed() if own else plain_embed()
        case "end to end":
            return training(8, SECONDS, False)
        case "upper half":
            return training(16, 1.5, True)
        case _:
            return here_head() if own else plain_head()


# --- measuring ------------------------------------------------------------------------------------


def peak_megabytes() -> float:
    """Largest resident memory so far of this process and its workers, added up."""
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total / 1024


def measure(job: str, way: str, repeats: int) -> dict[str, float]:
    """Milliseconds a clip (the median of some calls, after one to warm up) and peak memory."""
    work, clips = prepared(job, way)
    work()
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - start) / clips)
    return {"ms": median(took), "mb": peak_megabytes()}


def measured(jobs: list[str], rounds: int, repeats: int) -> Iterator[dict]:
    """A row a job: milliseconds a clip and megabytes of either way, and their ratios."""
    for job in jobs:
        found: dict[str, list[dict]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                command = [sys.executable, __file__, "--one", job, way, "--repeats", str(repeats)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"benchmark: {job} ({way}) failed: {done.stderr.strip()[-800:]}")
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
        ms, mb = ({w: median(o[k] for o in found[w]) for w in WAYS} for k in ("ms", "mb"))
        row = {f"{way}_ms": ms[way] for way in WAYS} | {f"{way}_mb": mb[way] for way in WAYS}
        ratios = {"faster": ms["plain"] / ms["here"], "memory": mb["here"] / mb["plain"]}
        yield {"job": job} | row | ratios


def main() -> None:
    parser = argparse.ArgumentParser(description="Times and memory, as ratios to the plain loop.")
    parser.add_argument("jobs", nargs="*", help=f"some of: {', '.join(JOBS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="processes a way, by turns")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls in each")
    parser.add_argument("--one", nargs=2, metavar=("JOB", "WAY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := sorted({*args.jobs, *(args.one or [])[:1]} - {*JOBS}):
        sys.exit(f"benchmark: there is no job {unknown[0]!r}; there are: {', '.join(JOBS)}.")
    if args.one:
        print(json.dumps(measure(*args.one, args.repeats)))
        return
    head = ("plain ms", "here ms", "faster", "plain MB", "here MB", "memory")
    print(f"{'job':12s}" + "".join(f"{name:>10s}" for name in head), flush=True)
    for row in measured(args.jobs or list(JOBS), args.rounds, args.repeats):
        times = "{job:12s}{plain_ms:10.2f}{here_ms:10.2f}{faster:9.2f}x"
        sizes = "{plain_mb:10.0f}{here_mb:10.0f}{memory:9.2f}x"
        print((times + sizes).format(**row), flush=True)


if __name__ == "__main__":
    main()
