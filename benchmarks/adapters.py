"""What a training step costs each way of adapting the encoder (notebook 13), on one thread.

`make benchmark` runs it after `listeners.py`. The milliseconds are this machine's; their order is
what counts. `python benchmarks/adapters.py --write` keeps them in benchmarks/adapters.csv, by which
notebook 13 compares the methods at equal seconds.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd
import torch

from paper_lib.adapters import methods
from paper_lib.codec import l3ac
from paper_lib.core import config, machine, paths
from paper_lib.recognition import head
from paper_lib.recognition.model import EffectRecognizer
from paper_lib.recognition.optimisers import Rates, optimisers

STEPS = 15  # timed of each; the median counts


def seconds_per_step(method: methods.Method) -> float:
    """Forward, backward and optimiser on a batch of quick's excerpts, half-way up the encoder."""
    run = config.load("quick")
    model = EffectRecognizer.assemble(l3ac.load("shipped"), head.Head(128), "mean")
    methods.attach(model, method).train()
    frames = round(run.upper_seconds * 16_000 / model.encoder.hop)
    x = torch.randn(run.upper_batch, 128, frames, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(run.upper_batch, 13)
    rates = Rates(method.rate, run.adapter_head_rate, method.muon)
    steppers, found = optimisers(list(methods.trained(model).values()), model.head, rates), []
    for _ in range(STEPS):
        start = time.perf_counter()
        head.bce(model(x), y).backward()
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def main() -> None:
    machine.make_deterministic(1)
    rows = [(method.name, seconds_per_step(method)) for method in methods.METHODS]
    table = pd.DataFrame(rows, columns=["method", "seconds_per_step"]).round(4)
    print(table.to_string(index=False))
    if "--write" in sys.argv:
        table.to_csv(paths.ROOT / "benchmarks" / "adapters.csv", index=False)


if __name__ == "__main__":
    main()
