"""What pretraining hears, asks for and survives (appendix A1)."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from paper_lib import PaperError
from paper_lib.codec import l3ac, pretraining, reconstruction
from paper_lib.core import paths
from paper_lib.sound import other_sounds, plucked, sampled


def test_pretraining_hears_no_recording_of_any_corpus(monkeypatch):
    heard, play = [], plucked.play
    monkeypatch.setattr(
        plucked,
        "play",
        lambda name, seconds, free=False: heard.append(name) or play(name, seconds, free),
    )
    pretraining.clips(range(3), 2)
    pretraining.clips(pretraining.HELD_OUT, 2)
    performance = lambda name: name.removesuffix("_" + name.split("_")[-1])
    assert len(set(heard)) == 7 and not set(heard) & set(plucked.names())
    assert not np.array_equal(play(heard[0], 1.0), play(performance(heard[0]), 1.0)), (
        "a take is another performance than its namesake"
    )
    assert not {pretraining.take(i) for i in range(2000)} & {
        pretraining.take(i) for i in pretraining.HELD_OUT
    }


def test_a_wide_pretraining_hears_four_players_in_turns(monkeypatch):
    """None of them a performance of any corpus, the first as it always was."""
    options = pretraining.Options(wide=True)
    turns = [pretraining._recorded(i, options) for i in range(4)]
    assert [by for _, by in turns] == list(pretraining.PLAYED_BY)
    assert [varied for varied, _ in turns] == [False, True, True, True]
    assert pretraining._recorded(1, replace(options, wide=False, varied=True)) == (True, "plucked")
    asked: list = []
    tone = np.sin(np.arange(44_100) / 20).astype(np.float32)

    def play(name: str, seconds: float, instrument: sampled.Guitar) -> np.ndarray:
        asked.append((name, instrument.program))
        return tone[: round(seconds * 44_100)]

    monkeypatch.setattr(sampled, "play", play)
    for i in range(2, 40, 4):
        pretraining.chains_of(i, 2, 1.0, *pretraining._recorded(i, options))
    assert not {name for name, _ in asked} & set(sampled.names())
    assert {program for _, program in asked} <= set(sampled.PLUCKED) and len(set(asked)) > 5


def test_every_sound_is_finite_loud_and_the_same_again():
    for i in range(40):
        x = other_sounds.sound(i, 8000, 16_000)
        assert (
            x.dtype == np.float32
            and np.isfinite(x).all()
            and np.abs(x).max() == pytest.approx(1, abs=1e-3)
        ), i
    assert np.array_equal(other_sounds.sound(3, 8000, 16_000), other_sounds.sound(3, 8000, 16_000))


def test_a_batch_depends_on_its_step_alone():
    source = (1000 * np.random.default_rng(0).standard_normal((3, 40_000))).astype(np.int16)
    one, again, other = (
        pretraining.batch(source, step, 4, 16_000, others=0.5) for step in (5, 5, 6)
    )
    assert torch.equal(one, again) and not torch.equal(one, other) and one.abs().max() <= 1


def test_trailing_means_by_hand():
    assert pretraining._trailing_mean(torch.tensor([[1.0, 3, 5, 7]]), 2).tolist() == [[1, 2, 4, 6]]


def test_an_embedding_that_is_the_targets_explains_them():
    torch.manual_seed(0)
    probe, x = pretraining.Probe(256, 160), 0.1 * torch.randn(2, 32_000)
    probe.fit(x)
    wanted = probe.wanted(x)
    assert wanted.shape == (2, 200, 256) and wanted.mean((0, 1)).abs().max() < 0.1
    with torch.no_grad():
        probe.map.weight.copy_(torch.eye(256))
        probe.map.bias.zero_()
    assert probe(wanted, x).item() == pytest.approx(0, abs=1e-8)
    assert probe.explained(wanted, x) == pytest.approx([1, 1, 1, 1])
    assert max(probe.explained(torch.zeros_like(wanted), x)) < 0.05


def test_si_sdr_by_hand():
    x = torch.tensor([[1.0, -1, 1, -1]])
    noise = torch.tensor([[0.1, 0.1, -0.1, -0.1]])  # orthogonal, 20 dB below
    assert reconstruction.si_sdr(x, 3 * (x + noise)).item() == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("adversarial", [0.0, 0.5])
@pytest.mark.slow
def test_a_killed_pretraining_goes_on_to_the_same_weights(adversarial, tmp_path, monkeypatch):
    options = pretraining.Options(
        steps=4, size=2, seconds=0.5, takes=2, note_every=2, decode_every=1, adversarial=adversarial
    )
    whole = pretraining.pretrain(tmp_path / "whole", options).state_dict()
    true = pretraining.batch

    def killed(source, step, *rest, **more):
        if step == 3:
            raise KeyboardInterrupt
        return true(source, step, *rest, **more)

    monkeypatch.setattr(pretraining, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(tmp_path / "killed", options)
    monkeypatch.setattr(pretraining, "batch", true)
    resumed = pretraining.pretrain(tmp_path / "killed", options).state_dict()
    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())
    one, other = ((tmp_path / name / "curve.csv").read_bytes() for name in ("whole", "killed"))
    assert one == other
    with pytest.raises(PaperError, match="was begun with steps = 4, not 8"):
        pretraining.pretrain(tmp_path / "killed", replace(options, steps=8))
    file = tmp_path / "killed" / "options.json"
    older = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("muon", "varied")}
    file.write_text(json.dumps(older))  # as of a training that was begun before these came
    pretraining._same_options(tmp_path / "killed", options)
    with pytest.raises(PaperError, match="was begun with muon = False, not True"):
        pretraining._same_options(tmp_path / "killed", replace(options, muon=True))


@pytest.mark.slow
def test_a_kept_first_stage_stays_and_all_else_learns(tmp_path):
    options = pretraining.Options(
        steps=2, size=2, seconds=0.5, takes=2, note_every=2, decode_every=1, keep_first=True,
        start="shipped", smoothing=0.5, muon=True, varied=True,
    )  # fmt: skip
    before = l3ac.load("shipped").state_dict()
    after = pretraining.pretrain(tmp_path, options).state_dict()
    kept = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert {n for n in after if n.startswith(("encoder.blocks.0.", "encoder.blocks.1."))} <= kept
    learn = ("encoder.blocks.3.", "en_encoder.", "decoder.")
    assert not [name for name in kept if name.startswith(learn) and "weight" in name]


@pytest.mark.slow
def test_two_processes_pretrain_as_one_does(tmp_path):
    options = ["--steps", "3", "--size", "4", "--seconds", "0.5", "--takes", "2", "--muon",
               "--decode-every", "2", "--keep-first", "--threads", "1"]  # fmt: skip
    alone = [sys.executable, "-m", "paper_lib", "pretrain", str(tmp_path / "one")]
    joint = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
             "-m", "--", "paper_lib", "pretrain", str(tmp_path / "two")]  # fmt: skip
    for command in (alone, joint):
        more = {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *options, "--start", "shipped"], capture_output=True, text=True,
            cwd=paths.ROOT, env=os.environ | more,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = (pd.read_csv(tmp_path / name / "curve.csv") for name in ("one", "two"))
    names = list(pretraining.Probe.NAMES)  # (each process draws its own quantizer noise)
    assert np.allclose(one[names], two[names], atol=5e-3) and len(one) == len(two) == 1
    losses = [
        torch.load(tmp_path / name / "checkpoint.pt")["state"]["history"][0]["train_loss"]
        for name in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_mp3_and_opus_come_back_in_time_and_small():
    t = torch.arange(48_000) / 16_000
    x = (0.4 * torch.sin(2 * torch.pi * (300 + 200 * t) * t) * (-(((t - 1.5) / 0.6) ** 2)).exp())[
        None
    ]
    for kind, most in (("MP3", 40), ("OPUS", 40)):
        back, rate = reconstruction.encode_decode_file(x, kind)
        assert 1 < rate < most and reconstruction.si_sdr(x, back).item() > 5, (kind, rate)


def test_token_usage_by_hand():
    assert reconstruction.usage(np.array([[1, 1], [2, 2]])) == {
        "tokens": 4,
        "different": 2,
        "perplexity": pytest.approx(2.0),
    }


def test_the_critic_learns_to_tell_noise_from_tone_and_leads_a_signal_towards_the_tone():
    torch.manual_seed(0)
    critic, t = pretraining.Critic(8), torch.arange(4000) / 16_000
    tones = lambda: torch.sin(
        2 * torch.pi * (200 + 800 * torch.rand(4, 1)) * t + 6 * torch.rand(4, 1)
    )
    optimiser = torch.optim.AdamW(critic.parameters(), lr=3e-3)
    before = critic.loss(tones(), torch.randn(4, 4000)).item()
    for _ in range(40):
        optimiser.zero_grad()
        critic.loss(tones(), torch.randn(4, 4000)).backward()
        optimiser.step()
    x, noise = tones(), torch.randn(4, 4000)
    assert critic.loss(x, noise).item() < 0.1 * before and critic.verdict(x, x) < critic.verdict(
        x, x + 0.3 * noise
    ) < critic.verdict(x, noise)
    noise.requires_grad_()
    critic.verdict(x, noise).backward()
    assert noise.grad.abs().max() > 0
