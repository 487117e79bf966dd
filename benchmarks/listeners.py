"""What each listener costs: parameters, milliseconds a clip, seconds an epoch of 2,016 clips.

`make benchmark` runs it after `speed.py`, on one thread. The milliseconds are this machine's; their
order is what counts. What is prepared once for all epochs (spectrograms, half-way activations) is
in the column `prepare_ms`. `python benchmarks/listeners.py --write` keeps the table in
benchmarks/listeners.csv, by which notebook 09 compares its listeners at equal seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from paper_lib.codec import encoder, l3ac
from paper_lib.core import config, loop, machine, paths
from paper_lib.recognition import features, finetune, head, peers
from paper_lib.recognition.model import EffectRecognizer

CLIPS, SAMPLES = 64, 80_000
TRAINING_CLIPS = 2016  # of quick: what an epoch of the last column holds


@dataclass
class Listener:
    """How one answers a clip, prepares one, and what its epoch of `per_epoch` clips does."""

    network: torch.nn.Module
    answer: Callable[[torch.Tensor], object]
    prepare: Callable[[torch.Tensor], object]
    epoch: Callable[[], object]
    per_epoch: int = CLIPS  # clips


def listeners() -> dict[str, Listener]:
    """The networks of notebooks 02, 03 and 09 on noise: what is on a clip changes no time."""
    rng = np.random.default_rng(0)
    labels = np.zeros((CLIPS, 13), np.float32)
    rows, few = np.arange(CLIPS), np.arange(2)
    codec, mel = encoder.Encoder(l3ac.load("shipped")), peers.LogMel().eval()
    frozen = encoder.bake(encoder.Encoder(l3ac.load("shipped"))).eval()
    audio = torch.from_numpy(0.1 * rng.standard_normal((2, SAMPLES)).astype(np.float32))
    with torch.inference_mode():
        shape = {"mel": mel.lower(audio).shape[1:], "half": codec.lower(audio).shape[1:]}
    clips = {
        kind: features.EncodedClips(labels, rng.standard_normal((CLIPS, *size)).astype(np.float16))
        for kind, size in shape.items()
    }
    run = config.load("quick")
    out: dict[str, Listener] = {}
    for name, inputs, front in (("logmel", 192, mel), ("frozen", 128, frozen)):
        one, x = head.Head(inputs).eval(), rng.standard_normal((CLIPS, inputs)).astype(np.float32)
        brief = replace(run, head_epochs=1)
        pooling = "mean_sd_mad" if name == "logmel" else "mean"

        def embed(a, front=front, pooling=pooling):
            return features.pool(features.time_statistics(front(a)), pooling)

        out[name] = Listener(
            one,
            lambda a, one=one, embed=embed: one(embed(a)),
            embed,
            lambda x=x, brief=brief: head.train_head((x, labels), (x[:2], labels[:2]), brief),
        )
    for name, recurrent in (("logmel_cnn", False), ("logmel_crnn", True)):
        recipe, net = peers.Recipe(recurrent, False, 1), peers.MelRecognizer(recurrent).eval()
        train = lambda recipe=recipe: peers.train_network(clips["mel"], recipe, (rows, few))
        out[name] = Listener(net, net, mel.lower, train)
    model = EffectRecognizer.assemble(l3ac.load("shipped"), head.Head(128), "mean").eval()
    fast = model.baked_encoder()
    recipe = finetune.upper_half(run, epochs=1)
    train = lambda: loop.train(*finetune.training_of(clips["half"], model, recipe, (rows, few)))
    answer = lambda a: model.head(features.pool(features.time_statistics(fast(a)), "mean"))
    out["upper"] = Listener(model, answer, fast.lower, train)
    return out


def timed(work: Callable[[], object], times: int = 3) -> float:
    """Seconds, the least of several."""
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    machine.make_deterministic(1)
    clip = 0.1 * torch.randn(1, SAMPLES, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, one in listeners().items():
        with torch.inference_mode():
            answer, prepare = (timed(partial(f, clip)) for f in (one.answer, one.prepare))
        epoch = timed(one.epoch, 1) * TRAINING_CLIPS / one.per_epoch
        count = sum(p.numel() for p in one.network.parameters())
        rows.append((name, count, 1000 * answer, 1000 * prepare, epoch))
    columns = ["listener", "parameters", "ms_a_clip", "prepare_ms", "s_an_epoch"]
    table = pd.DataFrame(rows, columns=columns).round(1)
    print(table.to_string(index=False))
    if "--write" in sys.argv:
        table.to_csv(paths.ROOT / "benchmarks" / "listeners.csv", index=False)


if __name__ == "__main__":
    main()
