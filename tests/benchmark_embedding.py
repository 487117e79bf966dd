"""Not a test: how fast a CPU embeds clips, as a ratio within one run. python tests/benchmark_embedding.py

One worker with all threads and batches of four, against what `embedding.embed_rows` does: a worker a thread, clip by clip.
"""

import time

import numpy as np
import torch

from paper_lib import embedding, machine, profiles


class Noise:
    def clips(self, rows):
        return 0.1 * np.random.default_rng(0).standard_normal((len(rows), 80_000)).astype(np.float32)


def main(clips: int = 96) -> None:
    run = profiles.load("quick")
    machine.settle(run.threads)
    module, data, rows = embedding.front_end("frozen", run), Noise(), np.arange(clips)
    out = np.empty((clips, 3, 128), np.float32)
    seconds = {}
    for name in ("warm-up", "one worker", "workers"):
        start = time.perf_counter()
        if name == "one worker":
            with torch.inference_mode():
                for first in range(0, clips, 4):
                    out[first : first + 4] = embedding.time_statistics(
                        module(torch.from_numpy(data.clips(rows[first : first + 4])))
                    ).numpy()
        else:
            embedding.embed_rows(module, data, rows, out)
        seconds[name] = (time.perf_counter() - start) / clips
    print(
        f"one worker {1000 * seconds['one worker']:.0f} ms a clip, workers {1000 * seconds['workers']:.0f} ms: ratio {seconds['one worker'] / seconds['workers']:.2f}"
    )


if __name__ == "__main__":
    main()
