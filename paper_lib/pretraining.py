"""Pretrain a codec for reconstruction on the synthetic guitar: `paper pretrain`. See data/weights/shipped/README.md.

Loss, quantizer noise and one-cycle rate follow the authors' recipe (100 x mean squared error + multi-resolution STFT).
Recordings come from takes that no corpus lists, so no evaluation split is ever heard.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import torch
from l3ac.en_codec import EnCodec, ModelConfig
from tqdm import tqdm

from . import audio, codec, effects, keyed, machine, paths, plucked, provenance, rendering

# A network that two cores can embed thousands of clips with: hop 160 (100 frames/s), 128 channels as in the published ones.
SMALL = dict(
    feature_dim=128, compress_rates=(8, 5, 4), encoder_dims=(8, 32, 64, 128), encoder_depths=(1, 1, 1, 1),
    decode_rates=(4, 5, 4, 2), decoder_dims=(96, 64, 32, 16, 8), decoder_depths=(1, 1, 1, 1, 1), decoder_last_layer="legacy",
    vq_config=dict(name="super_fsq", levels=[9, 9, 9, 7, 7, 7], noise_rate=0.5),
    en_coder_depth=1, en_coder_window_size=250, en_coder_dynamic_pos=True,
)  # fmt: skip


def take(i: int) -> str:
    """The name of pretraining performance `i`: a take that is in no corpus."""
    rng = keyed(0, "take", i)
    style = list(plucked.STYLES)[rng.integers(5)]
    tempo = rng.integers(*plucked.STYLES[style].tempo)
    key = plucked.KEYS[rng.integers(12)]
    return f"p{rng.integers(6)}_{style}-{tempo}-{key}_{('comp', 'solo')[rng.integers(2)]}_take{i}"


def clips(takes: range, chains_each: int, seconds: float = 5.0) -> np.ndarray:
    """(len(takes) x chains_each, samples) int16 at 16 kHz: each take through random chains, the first of them dry."""
    pool, rows = effects.guo221() + effects.paper50(), []
    for i in tqdm(takes, desc="takes"):
        clean = audio.to_int16(plucked.play(take(i), seconds))
        picks = keyed(0, "chains", i).choice(len(pool), chains_each - 1, replace=False)
        rows += [rendering.render(clean, plucked.RATE, c, audio.CODEC_RATE) for c in [effects.DRY] + [pool[p] for p in picks]]
    return np.stack(rows)


def batch(source: np.ndarray, step: int, size: int, samples: int) -> torch.Tensor:
    """(size, samples) float32 crops, peak-normalised to 0.2..0.95; the same for the same step."""
    rng = keyed(0, "batch", step)
    out = np.empty((size, samples), np.float32)
    for row in out:
        start = rng.integers(source.shape[1] - samples)
        row[:] = source[rng.integers(len(source)), start : start + samples]
        row *= rng.uniform(0.2, 0.95) / max(1.0, np.abs(row).max())
    return torch.from_numpy(out)


def stft_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Multi-resolution STFT distance of two (batch, samples): L1 of magnitudes plus L1 of log10 power, FFT 64 to 1024."""
    total = 0.0
    for n in (64, 128, 256, 512, 1024):
        window = torch.hann_window(n)
        a, b = (torch.stft(s, n, n // 4, window=window, return_complex=True).abs().clamp_min(1e-4) for s in (x, y))
        total = total + (a - b).abs().mean() + (2 * (a.log10() - b.log10())).abs().mean()
    return total / 5


def loss_terms(network: EnCodec, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean squared error, multi-resolution STFT distance) of the reconstruction of (batch, samples)."""
    y = network(x)["generated_audio"]
    return torch.mean((y - x) ** 2), stft_distance(x, y)


def si_sdr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, one per row of (batch, samples)."""
    scale = (reference * estimate).sum(-1, keepdim=True) / (reference.square().sum(-1, keepdim=True) + 1e-9)
    target = scale * reference
    return 10 * torch.log10(target.square().sum(-1) / ((target - estimate).square().sum(-1) + 1e-9) + 1e-9)


def pretrain(folder: Path, steps: int, rate: float = 1e-3, size: int = 8, seconds: float = 0.5, takes: int = 200, threads: int = 2) -> EnCodec:
    """Train (or resume) the small codec for `steps` steps in `folder`; every 100 steps a checkpoint and a line in curve.csv."""
    machine.settle(threads)
    folder.mkdir(parents=True, exist_ok=True)
    cached = folder / "takes.npy"
    if not cached.exists():
        np.save(folder / "takes.tmp.npy", clips(range(takes), 6))
        os.replace(folder / "takes.tmp.npy", cached)
    source, held_out = np.load(cached), clips(range(100_000, 100_004), 4)
    held_out = batch(held_out, -1, 16, int(seconds * audio.CODEC_RATE) * 2)
    network = codec.build(ModelConfig(**SMALL))
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.8, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1, div_factor=10, final_div_factor=100)
    checkpoint, first = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"]), optimiser.load_state_dict(state["optimiser"]), schedule.load_state_dict(state["schedule"])
        first = state["step"]
    for step in tqdm(range(first, steps), initial=first, total=steps, unit="step", mininterval=10):
        torch.manual_seed(step)  # the quantizer's noise
        network.train()
        mse, spectral = loss_terms(network, batch(source, step, size, int(seconds * audio.CODEC_RATE)))
        optimiser.zero_grad()
        (100 * mse + spectral).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            network.eval()
            with torch.inference_mode():
                seen = loss_terms(network, held_out)
                quality = si_sdr(held_out, network(held_out)["generated_audio"]).mean()
            new = not (folder / "curve.csv").exists()
            with (folder / "curve.csv").open("a") as file:
                writer = csv.writer(file)
                if new:
                    writer.writerow(["step", "mse", "stft", "si_sdr_db"])
                writer.writerow([step + 1, *(f"{float(v):.6f}" for v in (*seen, quality))])
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(), "step": step + 1}
            torch.save(state, folder / "checkpoint.tmp")
            os.replace(folder / "checkpoint.tmp", checkpoint)
    return network.eval()


def ship(network: EnCodec, steps: int, folder: Path = paths.WEIGHTS / "shipped") -> None:
    """Write the network as the shipped weights: one safetensors file a part in half precision, and config.json with their hashes."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for part in codec.PARTS:
        path = folder / f"{part}.safetensors"
        save_file({k: v.half().contiguous() if v.is_floating_point() else v for k, v in getattr(network, part).state_dict().items()}, path)
        hashes[path.name] = provenance.digest(path)
    card = {"network": SMALL, "sha256": hashes, "steps": steps}
    paths.write_beside(folder / "config.json", json.dumps(card, indent=1, sort_keys=True) + "\n")
