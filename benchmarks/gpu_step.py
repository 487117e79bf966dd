"""A step of `full`'s first training on a GPU: started kernel by kernel, and as a CUDA graph.

`.venv/bin/python benchmarks/gpu_step.py`. Both ways take the same steps on the same noise, so that
their losses can be compared, too. On an NVIDIA H200: 51 ms and 33 ms, of which the GPU works 13.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from paper_lib.codec import l3ac
from paper_lib.core import config, graphs, loop, machine
from paper_lib.recognition import finetune
from paper_lib.recognition.head import Head
from paper_lib.recognition.model import EffectRecognizer
from paper_lib.sound import effects

STEPS = 100


@dataclass(frozen=True, eq=False)
class Noise:
    """What a training asks of a data set: labels, and clips of 5 s as they are stored."""

    labels: np.ndarray
    audio: np.ndarray  # (clips, samples) int16

    def clips(self, rows) -> np.ndarray:
        return self.audio[rows].astype(np.float32) / 32768

    def stored(self) -> tuple[tuple[np.ndarray, ...], float]:
        return (self.audio,), 1 / 32768


def noise(clips: int) -> Noise:
    rng = np.random.default_rng(0)
    labels = (rng.random((clips, len(effects.NAMES))) < 0.2).astype(np.float32)
    return Noise(labels, rng.integers(-3000, 3000, (clips, 80_000), dtype=np.int16))


def measured(data: Noise, part: str) -> tuple[float, list[float]]:
    """Milliseconds a step, and the losses of the first five."""
    run = config.load("full")
    torch.manual_seed(0)
    head = Head(3 * 128, run.hidden, run.dropout)
    model = EffectRecognizer.assemble(l3ac.load(run.codec), head, run.pooling)
    rows = np.arange(len(data.labels))
    task, plan = finetune.training_of(
        data, model, finetune.end_to_end(run, part=part), (rows, rows)
    )
    accelerator = loop.accelerator_for("tf32")
    net, losses = loop._placed(accelerator, task), []
    for step in range(STEPS + 5):
        if step == 5:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        losses.append(loop.one_step(accelerator, net, task, plan, step))
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / STEPS * 1e3, [float(one) for one in losses[:5]]


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no GPU is here: this measures what one gains by CUDA graphs.")
    machine.make_deterministic(2, tf32=True)
    data, by_graph = noise(512), graphs.by_graph
    for part in ("above_first", "all"):
        for name, way in (("kernel by kernel", lambda model: model), ("a graph", by_graph)):
            graphs.by_graph = way
            ms, losses = measured(data, part)
            print(f"{part}, {name}: {ms:.1f} ms a step; losses {np.round(losses, 4)}", flush=True)


if __name__ == "__main__":
    main()
