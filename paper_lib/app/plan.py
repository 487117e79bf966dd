"""`paper plan`: clips, disk and hours of a run, from rates measured on the spot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..codec import encoder, l3ac
from ..core import machine
from ..core.config import Profile
from ..sound import audio, effects, plucked, rendering

PAPER_CLIPS = 442_884  # Section 2.3.3


@dataclass(frozen=True)
class Rates:
    """Seconds a clip on this machine, all cores at work."""

    render: float
    embed: float  # forward through the whole encoder
    train: float  # forward and backward through the whole encoder
    above_first: float  # the same, but nothing learned at the rate of the audio
    upper: float  # the same through its upper half
    lower_bytes: int  # of a clip half-way up the encoder


def measure(profile: Profile) -> Rates:
    """A few chains rendered, a few clips embedded, a few training steps."""
    machine.require_sox()
    machine.make_deterministic(profile.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clean = plucked.play(plucked.names()[0], profile.slice_seconds)
    clean = audio.to_int16(audio.resample(clean, plucked.RATE, profile.render_rate))
    lead = sum(rendering.lead_span(profile)) / 2
    chains = effects.plan(profile.chain_plan, profile.include_dry)[::5]
    start = time.perf_counter()
    for chain in chains:
        clip = rendering.render(clean, profile.render_rate, chain, audio.CODEC_RATE, lead)
    render = (time.perf_counter() - start) / len(chains) / max(1, machine.cores() * 0.8)
    # random weights cost the same, so the plan needs no download
    frozen = encoder.bake(encoder.Encoder(l3ac.build(l3ac.config_of(profile.codec)))).to(device)
    batch = torch.from_numpy(audio.to_float(clip))[None].repeat(4, 1).to(device)
    with machine.one_thread(), torch.inference_mode():
        embed = _timed(lambda: frozen(batch).mean().item()) / (
            machine.cores() * 0.9 if device == "cpu" else 1
        )
    trained = encoder.Encoder(l3ac.build(l3ac.config_of(profile.codec))).to(device)
    whole = _timed(lambda: trained(batch).square().mean().backward())
    for parameter in trained.first_parameters():
        parameter.requires_grad_(False)
    above_first = _timed(lambda: trained(batch).square().mean().backward())
    halfway = trained.lower(batch).detach()
    upper = _timed(lambda: trained(halfway).square().mean().backward())
    return Rates(render, embed, whole, above_first, upper, halfway[0].numel() * 2)


def _timed(work: Callable[[], object]) -> float:
    """Seconds a clip of a call on four, the second and third of three calls."""
    work()
    start = time.perf_counter()
    work()
    work()
    return (time.perf_counter() - start) / 8


def estimate(profile: Profile, clips: int, rates: Rates) -> dict[str, float]:
    """Step of the run -> seconds, for `clips` clips."""
    train = min(profile.finetune_clips or int(0.7 * clips), int(0.7 * clips))
    epochs = profile.finetune_epochs + profile.contrast_epochs
    judged = 0.15 * clips * rates.embed  # one look at the validation set
    # of each clip, in a step
    heard, heard_last = (
        min(1.0, seconds / profile.slice_seconds) or 1.0
        for seconds in (profile.upper_seconds, profile.finetune_seconds)
    )
    a_clip = heard_last * (rates.train if profile.finetune_part == "all" else rates.above_first)
    halfway = profile.finetune_order == "whole_first" or profile.upper_draws > 0
    drawn = (1 + 0.7 * profile.upper_draws) * halfway * profile.finetune_seeds
    rows = {
        "render the data set": clips * rates.render,
        "embed it (shipped and untrained codec)": (2 + drawn) * clips * rates.embed,
        "train the upper half": profile.upper_epochs * clips * rates.upper * (0.7 * heard + 0.05),
        "fine-tune end to end": epochs * (train * a_clip + judged),
    }
    for step in ("train the upper half", "fine-tune end to end"):
        rows[step] *= profile.finetune_seeds
    return {step: seconds for step, seconds in rows.items() if seconds}


def describe(profile: Profile) -> str:
    """What `paper plan` prints: the run, its bottleneck, and the paper's 442,884 clips at the same
    rates.
    """
    slices, clips, size = rendering.size(profile)
    rates = measure(profile)
    size += clips * rates.lower_bytes if profile.upper_epochs else 0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = [
        f"profile {profile.profile}: {slices} slices x {clips // max(slices, 1)} chains = "
        f"{clips:,} clips, {size * 1.1 / 1e9:.2f} GB on disk "
        f"(while stages are made up to twice that); on {device}:"
    ]
    rows = estimate(profile, clips, rates)
    lines += [f"  {step:40s} {_duration(s)}" for step, s in rows.items()]
    lines.append(f"  {'altogether, about':40s} {_duration(1.1 * sum(rows.values()))}")
    lines.append(f"the bottleneck: {max(rows, key=lambda step: rows[step])}")
    paper = replace(
        profile,
        finetune_part="all",
        finetune_seconds=0.0,
        finetune_clips=0,
        finetune_epochs=32,
        contrast_epochs=0,
        upper_epochs=0,
        upper_draws=0,
        finetune_order="upper_first",
    )
    rows = estimate(paper, PAPER_CLIPS, rates)
    hours = ", ".join(f"{step} {s / 3600:.1f} h" for step, s in rows.items())
    lines.append(f"the paper's {PAPER_CLIPS:,} clips and 32 epochs at these rates: {hours}")
    if profile.scheduler:
        lines.append(
            "with a Dask scheduler, divide rendering and embedding by its workers over this "
            "machine's cores"
        )
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
