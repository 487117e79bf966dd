"""Pretrain a codec on sounds made here: `paper pretrain`. Appendix A1; card in data/weights/shipped/README.md.

Reconstruction follows the authors' recipe (100 x mean squared error + multi-resolution STFT, quantizer noise, one-cycle rate). Their
perceptual term compares features of a speech network; ours asks the embedding itself: a linear map of it has to give the
log-mel spectrum, its flux and its deviation over the past (self-supervised: no label of any effect enters).
Recordings come from takes that no corpus lists, so no evaluation split is ever heard.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from l3ac.en_codec import EnCodec, ModelConfig
from torch import nn
from tqdm import tqdm

from . import PaperError, audio, codec, effects, keyed, machine, paths, plucked, provenance, rendering, sounds
from .reconstruction import loud, si_sdr, stft_distance

# A network that two cores can embed thousands of clips with: hop 160 (100 frames/s), 128 channels as in the published ones.
SMALL = dict(
    feature_dim=128, compress_rates=(8, 5, 4), encoder_dims=(8, 32, 64, 128), encoder_depths=(1, 1, 1, 1),
    decode_rates=(4, 5, 4, 2), decoder_dims=(96, 64, 32, 16, 8), decoder_depths=(1, 1, 1, 1, 1), decoder_last_layer="legacy",
    vq_config=dict(name="super_fsq", levels=[9, 9, 9, 7, 7, 7], noise_rate=0.5),
    en_coder_depth=1, en_coder_window_size=250, en_coder_dynamic_pos=True,
)  # fmt: skip
RATE = audio.CODEC_RATE
HELD_OUT = range(100_000, 100_004)  # takes that are never trained on


# --- what it hears ----------------------------------------------------------------------------------------------------


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
        rows += [rendering.render(clean, plucked.RATE, c, RATE) for c in [effects.DRY] + [pool[p] for p in picks]]
    return np.stack(rows)


def batch(source: np.ndarray, step: int, size: int, samples: int, others: float = 0.0) -> torch.Tensor:
    """(size, samples) float32: crops of `source` at their own level +-12 dB, a share `others` of them other sounds at -45 to
    -10 dB peak. The same for the same step."""
    rng = keyed(0, "batch", step)
    out = np.empty((size, samples), np.float32)
    for i, row in enumerate(out):
        if rng.random() < others:
            row[:] = 10 ** (rng.uniform(-45, -10) / 20) * sounds.sound(step * size + i, samples, RATE)
        else:
            start = rng.integers(source.shape[1] - samples)
            row[:] = source[rng.integers(len(source)), start : start + samples] * (10 ** (rng.uniform(-12, 12) / 20) / 32768)
    return torch.from_numpy(out.clip(-1, 1))


# --- what it has to do ------------------------------------------------------------------------------------------------


def loss_terms(network: EnCodec, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean squared error and multi-resolution STFT distance of the reconstruction of (batch, samples), and the reconstruction."""
    y = network(x)["generated_audio"]
    return torch.mean((y - x) ** 2), stft_distance(x, y), y


class Probe(nn.Module):
    """What a linear map of each embedding frame has to give: 64 bands of log-mel, their flux (mean change over the past 0.16 s) and
    their deviation over the past 0.5 s and 2 s; each standardised by `fit`, and cut at 3 deviations, so that a sound that breaks off
    (16 bits of silence lie far below any room) does not outweigh all others."""

    NAMES = ("log-mel", "flux", "deviation 0.5 s", "deviation 2 s")

    def __init__(self, channels: int, hop: int, bands: int = 64):
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.hop, self.frames = hop, RATE / hop
        self.mel = MelSpectrogram(sample_rate=RATE, n_fft=1024, hop_length=hop, n_mels=bands, f_max=RATE / 2)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.map = nn.Linear(channels, 4 * bands)
        self.register_buffer("mean", torch.zeros(4 * bands)), self.register_buffer("scale", torch.ones(4 * bands))

    def fit(self, x: torch.Tensor) -> None:
        """Standardise the targets with the statistics of these (batch, samples)."""
        targets = self._spectrum(x)
        self.mean.copy_(targets.mean((0, 1))), self.scale.copy_(targets.std((0, 1)).clamp_min(1e-3))

    @torch.no_grad()
    def wanted(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, frames, 4 x bands), standardised."""
        return ((self._spectrum(x) - self.mean) / self.scale).clamp(-3, 3)

    def _spectrum(self, x: torch.Tensor) -> torch.Tensor:
        mel = torch.log(self.mel(x) + 1e-6)[..., : -(-x.shape[-1] // self.hop)].double()
        over = lambda v, seconds: _trailing_mean(v, max(2, round(seconds * self.frames)))
        parts = [mel, over(nn.functional.pad(mel.diff(dim=-1).abs(), (1, 0)), 0.16)]
        parts += [(over(mel**2, s) - over(mel, s) ** 2).clamp_min(0).sqrt() for s in (0.5, 2.0)]
        return torch.cat(parts, 1).transpose(1, 2).float()

    def forward(self, embedding: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Mean squared error for the embedding (batch, frames, channels) of x (batch, samples)."""
        return (self.map(embedding) - self.wanted(x)).square().mean()

    @torch.no_grad()
    def explained(self, embedding: torch.Tensor, x: torch.Tensor) -> list[float]:
        """Share of the variance explained (R2) of each of the four targets."""
        wanted = self.wanted(x)
        left = (self.map(embedding) - wanted).square().mean((0, 1)).reshape(4, -1).mean(1)
        return (1 - left / wanted.var((0, 1)).reshape(4, -1).mean(1)).tolist()


def _trailing_mean(v: torch.Tensor, n: int) -> torch.Tensor:
    """Mean over the last `n` values (fewer at the start) along the last axis."""
    total = nn.functional.pad(v.cumsum(-1), (1, 0))
    end = torch.arange(1, v.shape[-1] + 1, device=v.device)
    begin = (end - n).clamp_min(0)
    return (total[..., end] - total[..., begin]) / (end - begin)


class Critic(nn.Module):
    """Discriminators on three complex spectrograms (after EnCodec's multi-scale STFT discriminator, of a size for small machines): each
    judges, place by place, whether (batch, samples) is a recording or a reconstruction."""

    SIZES = (256, 512, 1024)

    def __init__(self, width: int = 16):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            widths = (2, width, width, width)
            self.stacks = nn.ModuleList(
                nn.ModuleList([nn.Conv2d(a, b, (9, 3), stride=(2, 1), padding=(4, 1)) for a, b in zip(widths, widths[1:])] + [nn.Conv2d(width, 1, 3, padding=1)]) for _ in self.SIZES
            )  # fmt: skip

    def forward(self, x: torch.Tensor) -> list[list[torch.Tensor]]:
        """For each spectrogram what each layer makes of it; the last are the scores: high for a recording."""
        out = []
        for size, stack in zip(self.SIZES, self.stacks):
            spectrum = torch.stft(x.float(), size, size // 4, window=torch.hann_window(size, device=x.device), return_complex=True)
            layers = [torch.stack([spectrum.real, spectrum.imag], 1)]
            for i, layer in enumerate(stack):
                layers.append(layer(layers[-1] if i == 0 else nn.functional.leaky_relu(layers[-1], 0.2)))
            out.append(layers[1:])
        return out

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What the critic learns by: hinge, above 1 for recordings x, below -1 for reconstructions y."""
        pairs = zip(self(x), self(y.detach()))
        return sum((1 - real[-1]).relu().mean() + (1 + made[-1]).relu().mean() for real, made in pairs) / len(self.SIZES)

    def verdict(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What the codec learns by: high scores for its y, and layers that answer to y as to x (relative distance)."""
        with torch.no_grad():
            real = self(x)
        made = self(y)
        fooled = sum(-m[-1].mean() for m in made)
        alike = sum((a - b).abs().mean() / a.abs().mean().clamp_min(1e-3) for r, m in zip(real, made) for a, b in zip(r[:-1], m[:-1]))
        return (fooled + alike) / len(self.SIZES)


# --- training ---------------------------------------------------------------------------------------------------------


def pretrain(
    folder: Path, steps: int, network: dict | None = None, start: str = "", rate: float = 1e-3, size: int = 8, seconds: float = 2.0,
    decode_every: int = 4, takes: int = 200, threads: int = 2, smoothing: float = 0.998, note_every: int = 100, adversarial: float = 0.0,
) -> EnCodec:  # fmt: skip
    """Train (or resume) a codec for `steps` steps in `folder`; every `note_every` steps a checkpoint and a line in curve.csv.

    A step: the embedding of `size` crops of `seconds` has to give `Probe`'s targets; every `decode_every`-th step a quarter of that audio,
    peak-normalised, is also reconstructed. `network`: a configuration (default SMALL); `start`: weights to begin with ("shipped" or
    "hub:..."); `adversarial`: weight of `Critic`'s verdict on the reconstruction (0: none), for when the rest works. What comes back is the exponential moving average of the weights (`smoothing`). Parameters are part of the checkpoint:
    a training goes on only as it was begun.
    """
    if network and start:
        raise PaperError("give either weights to start with or a network to build: the weights bring their own network.")
    options = {
        "steps": steps, "network": network or SMALL, "start": codec.weights_name(start) if start else "", "rate": rate, "size": size,
        "seconds": seconds, "decode_every": decode_every, "takes": takes, "smoothing": smoothing, "adversarial": adversarial,
    }  # fmt: skip
    machine.settle(threads)
    folder.mkdir(parents=True, exist_ok=True)
    source, held_out = _source(folder, takes), batch(clips(HELD_OUT, 4), -1, 16, 2 * RATE)
    model = codec.load(start) if start else codec.build(ModelConfig(**(network or SMALL)))
    probe, encoder = Probe(model.mc.feature_dim, model.mc.hop_length), codec.Encoder(model)
    average = torch.optim.swa_utils.AveragedModel(nn.ModuleList([model, probe]), multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(smoothing))
    probe.fit(batch(source, -2, 64, int(seconds * RATE)))
    parameters = [*model.parameters(), *probe.map.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1, div_factor=10, final_div_factor=100)
    critic = Critic()
    opponent = torch.optim.AdamW(critic.parameters(), lr=3e-4, betas=(0.5, 0.9))
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no", cpu=not torch.cuda.is_available())
    model, probe, encoder, average, critic = (m.to(accelerator.device) for m in (model, probe, encoder, average, critic))
    checkpoint, first = folder / "checkpoint.pt", 0
    parts = {"model": model, "average": average, "probe": probe, "optimiser": optimiser, "schedule": schedule} | ({"critic": critic, "opponent": opponent} if adversarial else {})
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=accelerator.device, weights_only=True)
        for name, value in json.loads(json.dumps(options)).items():
            begun = ({"adversarial": 0.0} | state["options"])[name]  # (older ones do not say)
            if begun != value:
                raise PaperError(f"{checkpoint} was begun with {name} = {begun}, not {value}: give that again, or another folder.")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        first = state["step"]
        lines = (folder / "curve.csv").read_text().splitlines(keepends=True)
        paths.write_beside(folder / "curve.csv", "".join(lines[:1] + [line for line in lines[1:] if int(line.partition(",")[0]) <= first]))
    short = max(RATE // 2, int(seconds * RATE / 4))
    for step in tqdm(range(first, steps), initial=first, total=steps, unit="step", mininterval=10):
        torch.manual_seed(step)  # the quantizer's noise
        model.train()
        x = batch(source, step, size, int(seconds * RATE), others=0.1).to(accelerator.device)
        with accelerator.autocast():
            loss = probe(encoder(x), x)
            if step % decode_every == 0:
                heard = loud(x[:, :short])
                mse, spectral, made = loss_terms(model, heard)
                loss = loss + 100 * mse + spectral
                if adversarial:
                    loss = loss + adversarial * critic.verdict(heard, made)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(nn.ModuleList([model, probe]))
        if adversarial and step % decode_every == 0:
            opponent.zero_grad()  # (the codec's own step has left gradients there)
            critic.loss(heard, made).backward()
            opponent.step()
        if (step + 1) % note_every == 0 or step + 1 == steps:
            _note(folder / "curve.csv", step + 1, *average.module.eval(), held_out.to(accelerator.device))
            torch.save({n: p.state_dict() for n, p in parts.items()} | {"step": step + 1, "options": json.loads(json.dumps(options))}, folder / "checkpoint.tmp")
            os.replace(folder / "checkpoint.tmp", checkpoint)
    out = codec.build(model.mc)  # (a fresh one: copies of weight-normed modules share their class)
    out.load_state_dict(average.module[0].cpu().state_dict())
    paths.write_beside(folder / "options.json", json.dumps(options, indent=1) + "\n")
    return out


def _source(folder: Path, takes: int) -> np.ndarray:
    cached = folder / "takes.npy"
    if not cached.exists():
        np.save(folder / "takes.tmp.npy", clips(range(takes), 6))
        os.replace(folder / "takes.tmp.npy", cached)
    return np.load(cached, mmap_mode="r")


@torch.no_grad()
def _note(path: Path, step: int, network: EnCodec, probe: Probe, held_out: torch.Tensor) -> None:
    """A line of the learning curve: reconstruction and explained variance on held-out clips."""
    y = network(loud(held_out))["generated_audio"]
    row = [float(v) for v in (torch.mean((y - loud(held_out)) ** 2), stft_distance(loud(held_out), y), si_sdr(loud(held_out), y).mean())]
    row += probe.explained(codec.Encoder(network)(held_out), held_out)
    new = not path.exists()
    with path.open("a") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["step", "mse", "stft", "si_sdr_db", *Probe.NAMES])
        writer.writerow([step, *(f"{v:.6f}" for v in row)])


def ship(network: EnCodec, run: Path, folder: Path = paths.WEIGHTS / "shipped") -> None:
    """Write the network as the shipped weights: one safetensors file a part in half precision, config.json with their hashes
    and how they were made, and the learning curve of the training in `run`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    made_by = json.loads((run / "options.json").read_text())
    paths.write_beside(folder / "curve.csv", (run / "curve.csv").read_bytes())
    hashes = {}
    for part in codec.PARTS:
        path = folder / f"{part}.safetensors"
        save_file({k: v.half().contiguous() if v.is_floating_point() else v for k, v in getattr(network, part).state_dict().items()}, path)
        hashes[path.name] = provenance.digest(path)
    card = {"network": network.mc.model_dump(exclude={"hop_length"}, mode="json"), "sha256": hashes, "made_by": made_by}
    paths.write_beside(folder / "config.json", json.dumps(card, indent=1, sort_keys=True) + "\n")
