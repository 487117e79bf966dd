"""Presets as rows, encoders counted against a published table, scores with known values."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from paper_lib import PaperError
from paper_lib.core import config
from paper_lib.core.random import generator_for
from paper_lib.evaluation import proxy_paper
from paper_lib.proxies import encoders, presets, synth
from paper_lib.proxies.encoders import Training
from paper_lib.proxies.presets import SPACE, Presets, Space

# --- presets --------------------------------------------------------------------------------------


def test_a_player_plays_every_preset_as_a_fresh_plug_in_does(amsynth):
    noisy = {"osc1_waveform": 0.75, "osc2_waveform": 1.0, "reverb_wet": 0.5}
    with synth.player() as play:
        many = [play(one, seconds=1.0) for one in ({}, noisy, {"lfo_freq": 0.6}, noisy)]
    assert np.array_equal(many[1], many[3]) and not np.array_equal(many[0], many[1])
    assert np.array_equal(many[1], synth.render(noisy, seconds=1.0))


def test_what_a_fork_returns_comes_whole_and_what_it_does_not_is_said():
    big = bytes(range(256)) * 8192
    assert synth._in_a_fork(lambda: big) == big
    for fault in (lambda: os._exit(3), lambda: 1 / 0, lambda: os.kill(os.getpid(), 9)):
        with pytest.raises(PaperError, match="amsynth ended"):
            synth._in_a_fork(fault)


def test_the_parameters_are_amsynths_and_their_ranges_hold_all_that_people_chose(amsynth):
    names = [one.name for one in presets.PARAMETERS]
    assert len(set(names)) == len(names) == 34 and set(names) <= set(synth.parameters())
    ranges = {one.name: one for one in presets.PARAMETERS}
    seen: dict[str, list[float]] = {name: [] for name in names}
    for bank in presets.BANKS.glob("*bank"):
        for line in bank.read_text(encoding="latin-1").splitlines():
            if line.startswith("<parameter>") and line.split()[1] in seen:
                seen[line.split()[1]].append(float(line.split()[2]))
    for name, values in seen.items():
        one = ranges[name]
        assert min(values) >= one.least - 1e-6 and max(values) <= one.most + 1e-6, name


def test_a_bank_is_read_as_its_units_say(tmp_path):
    text = """amSynth
<preset> <name> one
<parameter> filter_cutoff 0.5
<parameter> osc1_waveform 3
<parameter> osc2_range -3
<parameter> lfo_waveform 5
<parameter> osc2_pitch 12
<preset> <name> noise moves it
<parameter> lfo_waveform 4
"""
    bank = tmp_path / "one.bank"
    bank.write_text(text)
    rows = presets.read(bank)
    assert len(rows) == 1  # (the second's LFO is one that is never drawn)
    preset = presets.played(rows[0])
    told = {"filter_cutoff": 0.5, "osc1_waveform": 0.75, "osc2_range": 0.0, "osc2_pitch": 1.0,
            "lfo_waveform": 5 / 6, "filter_slope": 1.0, "osc_mix": 0.5}  # fmt: skip
    assert {name: preset[name] for name in told} == pytest.approx(told)


def test_drawn_presets_are_their_numbers_own_and_fill_their_ranges():
    row = lambda n: presets.drawn(generator_for(0, "preset", n, 0))
    assert np.array_equal(row(5), row(5)) and not np.array_equal(row(5), row(6))
    many = np.stack([row(n) for n in range(400)])
    assert many.min() >= 0 and (many[:, : SPACE.numbers] <= 1).all()
    for place, categories in enumerate(SPACE.choices):
        assert set(many[:, SPACE.numbers + place]) == set(range(categories))
    pitch = [one.name for one in presets.PARAMETERS].index("osc2_pitch")
    assert np.allclose(many[:, pitch] * 24, np.round(many[:, pitch] * 24), atol=1e-5)


def test_a_part_that_is_played_alone_is_the_same_as_in_a_longer_one(amsynth):
    whole = presets.play_drawn(range(3), 0)
    last = presets.play_drawn(range(2, 3), 0)
    for name in ("presets", "sounds", "pictures"):
        assert np.array_equal(whole[name][2:], last[name]), name
    assert np.allclose(whole["pictures"].mean(2), whole["sounds"], atol=0.15)  # (of four frames)
    assert whole["sounds"].shape == (3, 128) and np.isfinite(whole["sounds"]).all()
    silent = np.zeros((1, 34), np.float32)  # (no sustain, no decay: a click at most)
    assert len(presets.play_rows(np.concatenate([silent, whole["presets"][:1]]))["presets"]) == 1


@pytest.mark.slow
def test_presets_whose_playing_is_killed_are_played_to_the_same_bytes(
    amsynth, tmp_path, monkeypatch
):
    made = "from paper_lib.core import config; from paper_lib.proxies import presets; "
    made += "presets.make(config.load('tiny'))"
    command = [sys.executable, "-c", made]

    def shards() -> list[Path]:
        return list((tmp_path / "killed").rglob("*.npz"))

    environment = os.environ | {"PAPER_DATA": str(tmp_path / "killed"), "PAPER_WORKERS": "1"}
    environment.pop("TQDM_DISABLE", None)
    running = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        while not shards() and running.poll() is None:
            time.sleep(0.01)
        assert running.poll() is None, "it was to be killed while it plays"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    kept = shards()
    assert not (tmp_path / "killed" / "tiny" / "presets").exists()
    resumed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert f"{len(kept)}/2 [00:00<?" in resumed.stderr, "what had been played was not played again"
    monkeypatch.setenv("PAPER_DATA", str(tmp_path / "whole"))
    presets.make(config.load("tiny"))
    folders = [tmp_path / name / "tiny" / "presets" for name in ("killed", "whole")]
    both = [{file.name: file.read_bytes() for file in folder.glob("*.npy")} for folder in folders]
    assert both[0] == both[1] and len(both[0]) == 8


# --- encoders -------------------------------------------------------------------------------------


def test_at_the_papers_sizes_the_weights_are_those_of_its_table_2():
    """(Of MLP-OH by construction: `spaces` takes from it what the paper does not print.)"""
    for name, published in proxy_paper.WEIGHTS.items():
        for space, stated in zip(encoders.spaces().values(), published, strict=True):
            model = encoders.build(name, encoders.SIZES["paper"][name], space, 192)
            counted = sum(p.numel() for p in model.parameters()) / 1e6
            assert abs(counted - stated) < 0.051, (name, len(space))


def test_tokens_are_what_equation_5_says():
    tokens = encoders.Tokenizer(Space(2, (3, 2)), 4)
    out = tokens(torch.tensor([[0.5, 0.0, 2.0, 1.0]]))[0]
    assert torch.equal(out[0], 0.5 * tokens.of_numbers[0]) and not out[1].any()
    assert torch.equal(out[2], tokens.of_choices.weight[2])
    assert torch.equal(out[3], tokens.of_choices.weight[3 + 1])
    sure = torch.tensor([[0.5, 0.0, 0, 0, 1, 0, 1]])
    assert torch.allclose(tokens(sure)[0], out)
    unsure = tokens(torch.tensor([[0.5, 0.0, 0.5, 0.5, 0, 0, 1]]))[0, 2]
    assert torch.allclose(unsure, tokens.of_choices.weight[:2].mean(0))
    one_hot = encoders.OneHot(Space(2, (3, 2)))(torch.tensor([[0.5, 0.0, 2.0, 1.0]]))
    assert one_hot.tolist() == [[0.5, 0.0, 0, 0, 1, 0, 1]]


def test_positions_tell_places_apart_and_a_highway_begins_nearly_open():
    places = encoders.positions(40, 16)
    assert places.shape == (40, 16) and torch.allclose(places[0, ::2], torch.zeros(8))
    assert torch.allclose(places[3, 0], torch.tensor(3.0).sin())
    assert torch.cdist(places, places).fill_diagonal_(9).min() > 0.1
    x = torch.randn(64, 8)
    assert torch.corrcoef(torch.stack([encoders.Highway(8)(x).flatten(), x.flatten()]))[0, 1] > 0.8


def test_reciprocal_ranks_have_their_known_values_and_two_directions():
    sounds = torch.tensor([[0.0], [1.0], [2.0]])
    said = torch.tensor([[0.0], [1.1], [1.2]])
    ranks = encoders.reciprocal_ranks(said, sounds)
    # the sound 1.0 is nearest to the second preset; the sound 2.0 to the third
    assert ranks["preset by sound"].tolist() == [1, 1, 1]
    # but the third preset, at 1.2, is nearer to the sound 1.0 than to its own
    assert ranks["sound by preset"].tolist() == [1, 1, 0.5]
    constant = encoders.reciprocal_ranks(torch.zeros(3, 1), sounds)["preset by sound"]
    assert constant.tolist() == pytest.approx([1 / 3] * 3)  # (ties count against it)


def test_a_guess_has_the_score_of_chance():
    assert encoders.chance(4) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    rng = np.random.default_rng(0)
    said, sounds = (rng.normal(size=(600, 16)).astype(np.float32) for _ in range(2))
    each, found = encoders.runs(said, sounds, 64, 40, 0)
    for name in ("preset by sound", "sound by preset"):
        assert abs(found[name].mean() - encoders.chance(64)) < 0.01
    assert abs(np.nanmean(each) - encoders.chance(64)) < 0.01
    few, _ = encoders.runs(sounds, sounds, 8, 20, 0)  # (a perfect encoder, presets in no pool)
    assert np.isnan(few).any() and np.nanmean(few) == 1
    assert each.shape == (600,) and abs(found["l1"].mean() - np.abs(said - sounds).mean()) < 0.02


def test_the_wasserstein_distance_has_its_known_values():
    a, b = np.array([[0.0], [1.0], [5.0]]), np.array([[2.0], [2.0], [2.0]])
    assert encoders.wasserstein(a, b) == 2
    cloud = np.random.default_rng(0).normal(size=(50, 3))
    assert encoders.wasserstein(cloud, cloud[::-1]) == 0
    assert encoders.wasserstein(cloud, cloud + np.array([3, 0, 4])) == pytest.approx(5)


def test_clouds_are_as_far_apart_as_they_were_moved_and_shapes_are_not():
    rng = np.random.default_rng(0)
    half, other = (rng.normal(size=(40, 5)) for _ in range(2))
    first = {"drawn": half, "by hand": half + 9.0}
    second = {"drawn": other, "by hand": half + 2.0}
    found = encoders.clouds_apart(first, second).set_index(["from", "to"])
    assert found.wasserstein["drawn", "by hand"] == pytest.approx(2 * 5**0.5)
    assert found.wasserstein["by hand", "by hand"] == pytest.approx(7 * 5**0.5)
    near = np.linalg.norm(other[:, None] - half[None], axis=2).min(1)
    assert found.nearest["drawn", "drawn"] == pytest.approx(np.median(near))
    assert np.allclose(encoders.shape(half + rng.normal(size=(40, 1))), encoders.shape(half))


def made_up(many: int, seed: int) -> Presets:
    """Presets whose 'sound' can be computed from them."""
    rng = np.random.default_rng(seed)
    rows = np.stack([presets.drawn(rng) for _ in range(many)])
    mixed = np.random.default_rng(9).normal(size=(rows.shape[1], 128))
    sounds = np.tanh(rows @ mixed / 3).astype(np.float32)
    return Presets(rows, sounds, np.zeros((0, 128, 43), np.float16), many)


@pytest.mark.parametrize("name", encoders.NAMES)
def test_every_encoder_learns_a_sound_that_follows_its_preset(name):
    data = made_up(400, 0)
    profile = replace(config.load("tiny"), proxy_epochs=12)
    torch.manual_seed(0)
    model = encoders.new(profile, name)
    history = encoders.train(
        model, data, encoders.scaling(data), profile, Training(name, 0)
    ).history
    assert history.validation_l1.iloc[-1] < 0.9 * history.validation_l1.iloc[0]
    assert history.validation_mrr.max() > 2 * encoders.chance(40)


def test_splits_do_not_meet_and_a_smaller_share_takes_as_many_steps():
    rows = encoders.split(403)
    assert np.array_equal(np.concatenate(list(rows.values())), np.arange(403))
    data, profile = made_up(300, 1), replace(config.load("tiny"), proxy_epochs=2)
    lengths = []
    for share in (0.3, 1.0):
        model = encoders.new(profile, "MLP-OH")
        lesson = Training("MLP-OH", 0, share)
        result = encoders.train(model, data, encoders.scaling(data), profile, lesson)
        lengths.append(result.history.validation_l1.notna().sum())
    assert lengths[1] == 2 and lengths[0] >= 2


def test_the_ledger_of_encoders_tells_right_from_wrong():
    names = list(proxy_paper.Stated().encoders)
    rows = []
    for kind, scores in (
        ("drawn", (0.9, 0.6, 0.7, 0.5, 0.3)),
        ("by hand", (0.4, 0.35, 0.3, 0.2, 0.4)),
    ):
        rows += [{"encoder": n, "presets": kind, "preset by sound": s, "l1": 1 - s}
                 for n, s in zip(names, scores, strict=True)]  # fmt: skip
    sizes = pd.DataFrame({"encoder": ["MLP-OH", "TFM"], "counted": [4.93, 5.6],
                          "published": [4.9, 5.4]})  # fmt: skip
    more = pd.DataFrame({"encoder": "TFM", "presets": "drawn", "training": [10, 100, 1000],
                         "mrr": [0.3, 0.7, 0.9]})  # fmt: skip
    scores = pd.DataFrame(rows).pivot(index="presets", columns="encoder", values="preset by sound")
    apart = pd.DataFrame([
        {"presets": kind, "one": one, "other": other, "more": gap,
         "lo": gap - 0.02, "hi": gap + 0.02}
        for kind, row in scores.iterrows()
        for one, other in combinations(names, 2) for gap in [row[other] - row[one]]
    ])  # fmt: skip
    measured = proxy_paper.Encoded(pd.DataFrame(rows), sizes, more, apart)
    verdict = proxy_paper.ledger_of_encoders(measured).set_index("id").verdict
    wide = replace(measured, apart=apart.assign(lo=apart.more - 1, hi=apart.more + 1))
    unsure = proxy_paper.ledger_of_encoders(wide).set_index("id").verdict
    by_intervals = ["proxy_tfm", "proxy_encoders", "proxy_tokens", "proxy_gru", "proxy_trend"]
    assert (unsure[by_intervals] == "undecided").all()
    right = {"proxy_tfm", "proxy_tokens", "proxy_gru", "proxy_l1_mrr"}
    assert verdict["proxy_tfm_by_hand"] == "undecided"  # (as good as another)
    wrong = {"proxy_sizes", "proxy_encoders", "proxy_trend", "proxy_by_hand"}
    assert set(verdict.index[verdict == "reproduced"]) == right
    assert set(verdict.index[verdict == "differs"]) == wrong
