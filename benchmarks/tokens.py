"""What tokens cost in time (notebooks 22 to 24), on one thread.

Milliseconds to read a clip of 5 s, as each way to keep it wants; and for a model to answer sounds
of some lengths, with one place for each frame (patches), or for each token (flat); and for a step
of training.

`make benchmark` runs it after `adapters.py`. Ready for a network is log-mel, or (`to tokens`) what
the codec's encoder makes of it; of tokens the numbers themselves, or (`to sound`) log-mel of what
the decoder makes of them. The milliseconds are this machine's; what counts is their order. `python
benchmarks/tokens.py --write` keeps them beside it, in tokens.csv, token_models.csv and
token_training.csv.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import pandas as pd
import pyarrow as pa
import soundfile
import torch

from paper_lib.codec import frontends
from paper_lib.core import machine, paths
from paper_lib.sound import audio, plucked
from paper_lib.tokens import codes, downstream, model

CLIPS, ROUNDS = 8, 7


def milliseconds(read: Callable[[int], object]) -> float:
    """The median over rounds of the mean over clips."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for i in range(CLIPS):
            read(i)
        found.append(1000 * (time.perf_counter() - start) / CLIPS)
    return median(found)


def clips() -> np.ndarray:
    """(clips, samples) int16: recordings of the synthetic guitar, as FLAC minds what is on them."""
    names = plucked.names()[:CLIPS]
    played = (audio.resample(plucked.play(n, 5.0), plucked.RATE, audio.CODEC_RATE) for n in names)
    return np.stack([audio.to_int16(x) for x in played])


def model_milliseconds() -> pd.DataFrame:
    """A row a length: the global encoder of the small model, and its layers on single tokens."""
    codebooks, size, rows = (9, 9, 9, 7, 7, 7), model.SIZES["small"], []
    net = model.TokenModel(codebooks, size).eval()
    for seconds in (1, 2, 5, 10):
        tokens = torch.zeros(1, len(codebooks), 100 * seconds, dtype=torch.long)
        places = torch.randn(1, 100 * seconds * len(codebooks), size.width)

        def flat(_: int, x: torch.Tensor = places) -> None:
            for layer in net.layers:
                x = layer(x)

        with torch.inference_mode():
            answer = partial(lambda x, _: net.states(x), tokens)
            row = {"seconds": seconds, "patches_ms": milliseconds(answer)}
            rows.append(row | {"flat_ms": milliseconds(flat)})
    return pd.DataFrame(rows).round(2)


def one_step(net: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[int], None]:
    """A step of training: there, back, and the weights moved."""
    optimiser = torch.optim.AdamW(net.parameters())

    def step(_: int) -> None:
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()

    return step


def step_milliseconds() -> pd.DataFrame:
    """A row a kind of training of the small model: ms of a step on 16 clips, a second of each."""
    codebooks, size = (9, 9, 9, 7, 7, 7), model.SIZES["small"]
    heard = {name: torch.zeros(16, len(codebooks), frames, dtype=torch.long)
             for name, frames in (("masked", 200), ("task", 100))}  # fmt: skip
    hidden = model.hide(tuple(heard["masked"].shape), 0.25, np.random.default_rng(0))
    masked, net = (model.TokenModel(codebooks, size) for _ in range(2))
    net.keep_global()
    task, labels = downstream.Classifier(net, np.zeros(13)), torch.zeros(16, 13)
    both = {
        "masked": one_step(masked, lambda: model.loss_of(
            masked(heard["masked"], hidden), heard["masked"], hidden)),
        "task": one_step(task, lambda: downstream.loss_of(task(heard["task"]), labels, True)),
    }  # fmt: skip
    rows = [{"step": name, "ms_a_second": milliseconds(step) / (heard[name].shape[2] / 100)}
            for name, step in both.items()]  # fmt: skip
    return pd.DataFrame(rows).round(1)


def main() -> None:
    machine.make_deterministic(1)
    sounds, mel = clips(), frontends.LogMel().eval()
    tokenizer = codes.tokenizer("l3ac", "shipped")
    floats = sounds.astype(np.float32) / 32768
    tokens = np.stack([tokenizer.encode(x) for x in floats])
    sizes, frames = tokenizer.code.sizes, tokens.shape[2]
    zstd = pa.Codec("zstd")
    packed, flac = [codes.packed(one, sizes) for one in tokens], []
    raw = [one.astype(np.uint8).tobytes() for one in tokens]
    values = [zstd.compress(one) for one in raw]
    for sound in sounds:
        buffer = io.BytesIO()
        soundfile.write(buffer, sound, audio.CODEC_RATE, format="FLAC", subtype="PCM_16")
        flac.append(buffer.getvalue())

    def decoded(i: int) -> np.ndarray:
        return soundfile.read(io.BytesIO(flac[i]), dtype="float32")[0]

    def spectrogram(x: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            return mel(torch.from_numpy(x)[None])

    ways = {
        "16-bit samples": lambda i: spectrogram(sounds[i].astype(np.float32) / 32768),
        "FLAC": lambda i: spectrogram(decoded(i)),
        "FLAC, to tokens": lambda i: tokenizer.encode(decoded(i)),
        "tokens, to sound": lambda i: spectrogram(
            tokenizer.decode(codes.unpacked(packed[i], sizes, frames))
        ),
        "tokens, bytes": lambda i: np.frombuffer(raw[i], np.uint8),
        "tokens, bytes, zstd": lambda i: np.frombuffer(
            zstd.decompress(values[i], tokens[i].size), np.uint8
        ),
        "tokens, bits packed": lambda i: codes.unpacked(packed[i], sizes, frames),
    }
    rows = [(name, milliseconds(read)) for name, read in ways.items()]
    table = pd.DataFrame(rows, columns=["kept_as", "ms_to_read"]).round(4)
    print(table.to_string(index=False))
    models = model_milliseconds()
    print(models.to_string(index=False))
    steps = step_milliseconds()
    print(steps.to_string(index=False))
    if "--write" in sys.argv:
        table.to_csv(paths.ROOT / "benchmarks" / "tokens.csv", index=False)
        models.to_csv(paths.ROOT / "benchmarks" / "token_models.csv", index=False)
        steps.to_csv(paths.ROOT / "benchmarks" / "token_training.csv", index=False)


if __name__ == "__main__":
    main()
