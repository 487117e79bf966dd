"""Pretrain a codec on sounds made here: `paper pretrain`.

Appendix A1; card in data/weights/shipped/README.md.

Reconstruction follows the authors' recipe (100 x mean squared error + multi-resolution STFT,
quantizer noise, one-cycle rate). Their perceptual term compares features of a speech network; ours
asks the embedding itself: a linear map of it has to give the log-mel spectrum, its flux and its
deviation over the past (self-supervised: no label of any effect enters). Recordings come from takes
that no corpus lists, so no evaluation split is ever heard.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from l3ac.en_codec import EnCodec, ModelConfig
from torch import nn
from tqdm import tqdm

from ..core import loop, machine, parallel, paths, stages
from ..core.errors import PaperError
from ..core.muon import Muon, apart
from ..core.random import generator_for
from ..sound import audio, effects, other_sounds, plucked, rendering, sampled, variation
from . import l3ac as codec
from .encoder import Encoder
from .frontends import spectrum
from .reconstruction import loud, rebuilt, si_sdr, stft_distance

# A network that two cores can embed thousands of clips with: hop 160 (100 frames/s), 128 channels
# as in the published ones.
SMALL = {
    "feature_dim": 128,
    "compress_rates": (8, 5, 4),
    "encoder_dims": (8, 32, 64, 128),
    "encoder_depths": (1, 1, 1, 1),
    "decode_rates": (4, 5, 4, 2),
    "decoder_dims": (96, 64, 32, 16, 8),
    "decoder_depths": (1, 1, 1, 1, 1),
    "decoder_last_layer": "legacy",
    "vq_config": {"name": "super_fsq", "levels": [9, 9, 9, 7, 7, 7], "noise_rate": 0.5},
    "en_coder_depth": 1,
    "en_coder_window_size": 250,
    "en_coder_dynamic_pos": True,
}
RATE = audio.CODEC_RATE
HELD_OUT = range(100_000, 100_004)  # takes that are never trained on
# by whom takes are played, in turns, where a training is to hear more than one guitar
PLAYED_BY = ("plucked", "plucked, freely", "sampled", "sampled, any")


# --- what it hears --------------------------------------------------------------------------------


TAKE = 5.0  # s that a performance lasts


def take(i: int) -> str:
    """The name of pretraining performance `i`: a take that is in no corpus."""
    rng = generator_for(0, "take", i)
    style = list(plucked.STYLES)[rng.integers(5)]
    tempo = rng.integers(*plucked.STYLES[style].tempo)
    key = plucked.KEYS[rng.integers(12)]
    return f"p{rng.integers(6)}_{style}-{tempo}-{key}_{('comp', 'solo')[rng.integers(2)]}_take{i}"


def chains_of(
    i: int,
    chains_each: int,
    seconds: float = TAKE,
    varied: bool = False,
    played_by: str = "plucked",
) -> dict[str, np.ndarray]:
    """Take `i` through random chains, the first of them dry: "clips", (chains, samples) int16.

    `varied`: as another guitar, microphone and room might have it. `played_by`: one of `PLAYED_BY`.
    """
    pool = effects.guo221() + effects.paper50()
    if played_by.startswith("sampled"):
        rng = generator_for(0, "instrument", i)
        programs = sampled.ANY if played_by == "sampled, any" else sampled.PLUCKED
        # (FluidSynth takes six seconds to unpack the second one)
        font = sampled.FLUID if rng.random() < 0.9 else sampled.MUSESCORE
        instrument = sampled.Guitar(font, int(rng.choice(programs)))
        played = sampled.play("s" + take(i)[1:], seconds, instrument)
    else:
        played = plucked.play(take(i), seconds, free=played_by == "plucked, freely")
    if varied:
        played = variation.vary(played, plucked.RATE, generator_for(0, "vary", i))
    clean = audio.to_int16(played)
    picks = generator_for(0, "chains", i).choice(len(pool), chains_each - 1, replace=False)
    chains = [effects.DRY] + [pool[p] for p in picks]
    return {"clips": np.stack([rendering.render(clean, plucked.RATE, c, RATE) for c in chains])}


def clips(takes: range, chains_each: int, seconds: float = TAKE) -> np.ndarray:
    """(len(takes) x chains_each, samples) int16 at 16 kHz: `chains_of` each take."""
    each = [chains_of(i, chains_each, seconds)["clips"] for i in tqdm(takes, desc="takes")]
    return np.concatenate(each)


def batch(
    source: np.ndarray, step: int, size: int, samples: int, others: float = 0.0
) -> torch.Tensor:
    """(size, samples) float32: what a step hears, the same for the same step.

    Crops of `source` at their own level +-12 dB; a share `others` of them are other sounds at -45
    to -10 dB peak.
    """
    rng = generator_for(0, "batch", step)
    out = np.empty((size, samples), np.float32)
    for i, row in enumerate(out):
        if rng.random() < others:
            level = 10 ** (rng.uniform(-45, -10) / 20)
            row[:] = level * other_sounds.sound(step * size + i, samples, RATE)
        else:
            start = rng.integers(source.shape[1] - samples)
            crop = source[rng.integers(len(source)), start : start + samples]
            row[:] = crop * (10 ** (rng.uniform(-12, 12) / 20) / 32768)
    return torch.from_numpy(out.clip(-1, 1))


# --- what it has to do ----------------------------------------------------------------------------


def loss_terms(
    network: EnCodec, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How far (batch, samples) and its reconstruction are apart, and the reconstruction.

    Mean squared error, multi-resolution STFT distance, (batch, samples).
    """
    y = rebuilt(network, Encoder(network)(x))[..., : x.shape[-1]]
    return torch.mean((y - x) ** 2), stft_distance(x, y), y


class Probe(nn.Module):
    """What a linear map of each embedding frame has to give.

    64 bands of log-mel, their flux (mean change over the past 0.16 s) and their deviation over the
    past 0.5 s and 2 s. Each is standardised by `fit`, and cut at 3 deviations, so that a sound that
    breaks off (16 bits of silence lie far below any room) does not outweigh all others.
    """

    NAMES = ("log-mel", "flux", "deviation 0.5 s", "deviation 2 s")

    def __init__(self, channels: int, hop: int, bands: int = 64):
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.hop, self.frames = hop, RATE / hop
        self.mel = MelSpectrogram(
            sample_rate=RATE, n_fft=1024, hop_length=hop, n_mels=bands, f_max=RATE / 2
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.map = nn.Linear(channels, 4 * bands)
        self.register_buffer("mean", torch.zeros(4 * bands))
        self.register_buffer("scale", torch.ones(4 * bands))

    def fit(self, x: torch.Tensor) -> None:
        """Standardise the targets with the statistics of these (batch, samples)."""
        targets = self._spectrum(x)
        self.mean.copy_(targets.mean((0, 1)))
        self.scale.copy_(targets.std((0, 1)).clamp_min(1e-3))

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
    """Discriminators on three complex spectrograms.

    Each judges, place by place, whether (batch, samples) is a recording or a reconstruction. After
    EnCodec's multi-scale STFT discriminator, of a size for small machines.
    """

    SIZES = (256, 512, 1024)

    def __init__(self, width: int = 16):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stacks = nn.ModuleList(self._stack(width) for _ in self.SIZES)

    @staticmethod
    def _stack(width: int) -> nn.ModuleList:
        """The layers behind one spectrogram."""
        layers = [
            nn.Conv2d(a, b, (9, 3), stride=(2, 1), padding=(4, 1))
            for a, b in pairwise((2, width, width, width))
        ]
        return nn.ModuleList([*layers, nn.Conv2d(width, 1, 3, padding=1)])

    def forward(self, x: torch.Tensor) -> list[list[torch.Tensor]]:
        """For each spectrogram what each layer makes of it.

        The last are the scores: high for a recording.
        """
        out = []
        for size, stack in zip(self.SIZES, self.stacks, strict=True):
            found = spectrum(x.float(), size)
            made: list[torch.Tensor] = []
            for layer in stack:
                if made:
                    given = nn.functional.leaky_relu(made[-1], 0.2)
                else:
                    given = torch.stack([found.real, found.imag], 1)
                made.append(layer(given))
            out.append(made)
        return out

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What the critic learns by: hinge, above 1 for recordings x, below -1 for copies y."""
        pairs = zip(self(x), self(y.detach()), strict=True)
        total = sum(
            (1 - real[-1]).relu().mean() + (1 + made[-1]).relu().mean() for real, made in pairs
        )
        return total / len(self.SIZES)

    def verdict(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What the codec learns by.

        High scores for its y, and layers that answer to y as to x (relative distance).
        """
        with torch.no_grad():
            real = self(x)
        made = self(y)
        fooled = sum(-m[-1].mean() for m in made)
        alike = sum(
            (a - b).abs().mean() / a.abs().mean().clamp_min(1e-3)
            for r, m in zip(real, made, strict=True)
            for a, b in zip(r[:-1], m[:-1], strict=True)
        )
        return (fooled + alike) / len(self.SIZES)


# --- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """One pretraining. A training that was begun goes on only with the same options."""

    steps: int = 4500
    network: dict | None = None  # configuration (default: SMALL)
    start: str = ""  # weights to begin with: "shipped" or "hub:..."; they bring their own network
    rate: float = 1e-3  # top of the one-cycle learning rate
    size: int = 8  # crops a step
    seconds: float = 2.0  # of a crop
    decode_every: int = 4  # reconstruct on every so manyth step
    takes: int = 200  # guitar performances to train on
    smoothing: float = 0.998  # of the moving average of the weights, which is what comes out
    note_every: int = 100  # steps between two lines of the learning curve, and two checkpoints
    adversarial: float = 0.0  # weight of `Critic`'s verdict (0: none), for when the rest works
    # leave the first stage (the trends and units at 16 kHz) as it is: a hundredth of the encoder's
    # weights and four fifths of its time
    keep_first: bool = False
    muon: bool = False  # step the matrices by Muon (the rest always by AdamW)
    varied: bool = False  # every second take as another guitar, microphone and room might have it
    # takes by `PLAYED_BY` in turns, all but the first varied; crops as they might have been
    # recorded otherwise
    wide: bool = False


def pretrain(folder: Path, options: Options, threads: int = 2) -> EnCodec:
    """Train (or resume) a codec in `folder`, with its learning curve in curve.csv.

    Returns the moving average of the weights.
    """
    if options.network and options.start:
        raise PaperError(
            "give either weights to start with or a network to build: "
            "the weights bring their own network."
        )
    whole = min(options.steps, options.size, options.takes, options.decode_every)
    if whole < 1 or not 0.1 <= options.seconds < TAKE:
        raise PaperError(
            "steps, size, takes and decode-every are 1 or more, and seconds 0.1 to less than "
            f"{TAKE:g} (a take's length)."
        )
    machine.make_deterministic(threads)
    if options.adversarial and machine.processes() > 1:
        raise PaperError("discriminators train in one process: leave torchrun out.")
    if machine.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        _same_options(folder, options)
        _make_source(folder, options)
    machine.together(None)
    source = np.load(folder / "takes.npy", mmap_mode="r")
    if options.start:
        model = codec.load(options.start)
    else:
        model = codec.build(ModelConfig(**(options.network or SMALL)))
    for parameter in Encoder(model).first_parameters():
        parameter.requires_grad_(not options.keep_first)
    task, plan, average = training_of(model, options, source)
    curve = loop.train(task, plan, folder).history.drop(columns=["epoch", "train_loss"])
    text = curve.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    if machine.rank() == 0:
        paths.write_beside(folder / "curve.csv", text)
    out = codec.build(model.mc)  # (a fresh one: copies of weight-normed modules share their class)
    out.load_state_dict(average.module[0].cpu().state_dict())
    return out


def training_of(
    model: EnCodec, options: Options, source: np.ndarray
) -> tuple[loop.Task, loop.Plan, torch.optim.swa_utils.AveragedModel]:
    """What the loop needs, and the moving average of codec and probe that it leaves.

    A step: the embedding of some crops has to give `Probe`'s targets; every so manyth step a
    quarter of that audio, peak-normalised, is also reconstructed.
    """
    held_out = batch(clips(HELD_OUT, 4), -1, 16, 2 * RATE)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples = int(options.seconds * RATE)
    probe = Probe(model.mc.feature_dim, model.mc.hop_length)
    probe.fit(batch(source, -2, 64, samples))
    both, critic = nn.ModuleList([model, probe]).to(device), Critic().to(device)
    smooth = torch.optim.swa_utils.get_ema_multi_avg_fn(options.smoothing)
    average = torch.optim.swa_utils.AveragedModel(both, multi_avg_fn=smooth)
    parameters = [p for p in [*model.parameters(), *probe.map.parameters()] if p.requires_grad]
    optimisers, schedules = _optimisers(parameters, options)
    opponent = torch.optim.AdamW(critic.parameters(), lr=3e-4, betas=(0.5, 0.9))
    short = max(RATE // 2, int(options.seconds * RATE / 4))
    heard: dict[str, torch.Tensor] = {}  # what the step reconstructed, for the critic to learn from

    def loss(both: nn.ModuleList, crops: np.ndarray, step: int) -> torch.Tensor:
        x = batch(source, step, options.size, samples, others=0.1)[crops].to(device)
        x = variation.as_recorded_otherwise(x).clamp(-1, 1) if options.wide else x
        total = probe(Encoder(model)(x), x)
        heard.clear()
        if step % options.decode_every == 0:
            heard["original"] = loud(x[:, :short])
            mse, spectral, heard["made"] = loss_terms(model, heard["original"])
            total = total + 100 * mse + spectral
            if options.adversarial:
                verdict = critic.verdict(heard["original"], heard["made"])
                total = total + options.adversarial * verdict
        return total

    def after(step: int) -> None:
        average.update_parameters(both)
        if options.adversarial and heard:
            opponent.zero_grad()  # (the codec's own step has left gradients there)
            critic.loss(heard["original"], heard["made"]).backward()
            opponent.step()

    def evaluate(_: nn.Module, epoch: int) -> dict:
        step = min(epoch * options.note_every, options.steps)
        return {"step": step} | _note(*average.module.eval(), held_out.to(device))

    task = loop.Task(
        model=both,
        examples=lambda step: np.arange(options.size),
        loss=loss,
        optimisers=optimisers,
        schedules=schedules,
        evaluate=evaluate,
        after=after,
        also={"average": average, "critic": critic, "opponent": opponent},
    )
    plan = loop.Plan(
        options.steps,
        options.note_every,
        clip=1.0,
        precision="bf16" if torch.cuda.is_available() else "no",
        checkpoint_every=options.note_every,
        label="pretraining",
    )
    return task, plan, average


def _optimisers(
    parameters: list[nn.Parameter], options: Options
) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
    """AdamW, and Muon for the matrices if it is asked for; the schedule of each."""
    matrices, others = apart(parameters, 32) if options.muon else ([], parameters)
    adam = torch.optim.AdamW(others, lr=options.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    found = [adam, Muon(matrices, lr=options.rate)] if matrices else [adam]
    return found, [
        torch.optim.lr_scheduler.OneCycleLR(
            one, options.rate, options.steps, pct_start=0.1, cycle_momentum=not options.muon,
            div_factor=10, final_div_factor=100,
        )
        for one in found
    ]  # fmt: skip


def _same_options(folder: Path, options: Options) -> None:
    """Write options.json, or refuse if the training in `folder` was begun with others."""
    file = folder / "options.json"
    made_by = asdict(options) | {"network": options.network or SMALL}
    made_by |= {"start": codec.weights_name(options.start) if options.start else ""}
    made_by = json.loads(json.dumps(made_by))
    if not file.exists():
        paths.write_beside(file, json.dumps(made_by, indent=1) + "\n")
    begun_with = asdict(Options()) | json.loads(
        file.read_text()
    )  # (older ones lack what came later)
    for name, given in made_by.items():
        begun = begun_with[name]
        if begun != given:
            raise PaperError(
                f"the training in {folder} was begun with {name} = {begun}, not {given}: "
                "give that again, or another folder."
            )


def _make_source(folder: Path, options: Options) -> None:
    """The clips that a training hears, in takes.npy, unless they are there."""
    if not (folder / "takes.npy").exists():
        items = {f"{i:05d}": (i, 6, TAKE, *_recorded(i, options)) for i in range(options.takes)}
        parts = parallel.shards(chains_of, items, folder / "takes", "takes")
        np.save(folder / "takes.tmp.npy", np.concatenate([np.load(p)["clips"] for p in parts]))
        os.replace(folder / "takes.tmp.npy", folder / "takes.npy")
        shutil.rmtree(folder / "takes")


def _recorded(i: int, options: Options) -> tuple[bool, str]:
    """Whether take `i` is varied, and by whom it is played."""
    if options.wide:
        return i % len(PLAYED_BY) > 0, PLAYED_BY[i % len(PLAYED_BY)]
    return options.varied and i % 2 == 1, PLAYED_BY[0]


@torch.no_grad()
def _note(network: EnCodec, probe: Probe, held_out: torch.Tensor) -> dict[str, float]:
    """A line of the learning curve: reconstruction and explained variance on held-out clips."""
    x = loud(held_out)
    y = network(x)["generated_audio"]
    row = {
        "mse": torch.mean((y - x) ** 2),
        "stft": stft_distance(x, y),
        "si_sdr_db": si_sdr(x, y).mean(),
    }
    explained = probe.explained(Encoder(network)(held_out), held_out)
    return {k: float(v) for k, v in row.items()} | dict(zip(Probe.NAMES, explained, strict=True))


def ship(network: EnCodec, run: Path, folder: Path = paths.WEIGHTS / "shipped") -> None:
    """Write the network as the shipped weights.

    One safetensors file a part in half precision, config.json with their hashes and how they were
    made, and the learning curve of the training in `run`.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    made_by = json.loads((run / "options.json").read_text())
    paths.write_beside(folder / "curve.csv", (run / "curve.csv").read_bytes())
    hashes = {}
    for part in codec.PARTS:
        path = folder / f"{part}.safetensors"
        state = {
            k: v.half().contiguous() if v.is_floating_point() else v
            for k, v in getattr(network, part).state_dict().items()
        }
        save_file(state, path)
        hashes[path.name] = stages.digest(path)
    card = {
        "network": network.mc.model_dump(exclude={"hop_length"}, mode="json"),
        "sha256": hashes,
        "made_by": made_by,
    }
    paths.write_beside(folder / "config.json", json.dumps(card, indent=1, sort_keys=True) + "\n")
