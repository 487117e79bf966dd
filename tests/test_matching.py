"""Which preset makes a sound: a gradient through choices, losses and distances of known values."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from paper_lib.core import config
from paper_lib.evaluation import proxy_paper
from paper_lib.proxies import encoders, matching, presets, synth
from paper_lib.proxies.matching import Matching
from paper_lib.proxies.presets import SPACE, Presets

NUMBERS, SWITCHES = len(presets.NUMBERS), len(presets.SWITCHES)


def logits_of(rows: np.ndarray, sure: float = 30.0) -> torch.Tensor:
    """The logits of an estimator that is sure of these presets."""
    x = encoders.OneHot(SPACE)(torch.from_numpy(rows))
    numbers = torch.logit(x[:, :NUMBERS].double(), eps=1e-9).float()
    return torch.cat([numbers, (x[:, NUMBERS:] - 0.5) * 2 * sure], 1)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([presets.drawn(rng) for _ in range(64)])


def test_a_sure_answer_is_read_back_as_its_preset_and_costs_nothing(rows):
    logits = logits_of(rows)
    assert np.allclose(matching.rows_of(logits), rows, atol=1e-5)
    assert matching.parameter_loss(logits, torch.from_numpy(rows)) < 1e-4
    for how in ("hard", "soft", "straight"):
        one_hot = encoders.OneHot(SPACE)(torch.from_numpy(rows))
        assert torch.allclose(matching.soft(logits, how), one_hot, atol=1e-4), how


def test_of_all_ways_to_read_a_choice_only_the_hard_one_stops_the_gradient(rows):
    torch.manual_seed(0)
    model = encoders.new(config.load("tiny"), "TFM")
    given = torch.randn(8, SPACE.one_hot)
    said, moved = {}, {}
    for how in ("hard", "soft", "straight"):
        logits = given.clone().requires_grad_()
        said[how] = model(matching.soft(logits, how))
        said[how].square().sum().backward()
        moved[how] = logits.grad[:, NUMBERS:].abs().sum().item()  # switches and choices
        assert logits.grad[:, :NUMBERS].abs().sum() > 0
    assert moved["hard"] == 0 < min(moved["soft"], moved["straight"])
    assert torch.allclose(said["hard"], said["straight"], atol=1e-5)  # (the same on the way up)
    assert not torch.allclose(said["hard"], said["soft"], atol=1e-3)
    as_rows = torch.from_numpy(matching.rows_of(given))
    assert torch.allclose(said["hard"], model(as_rows), atol=1e-5)  # one encoder, two ways to ask


def test_the_losses_take_turns_as_the_paper_says():
    for schedule, end in (("PLoss", (1, 0)), ("Mix", (0.5, 0.5)), ("Switch", (0, 1))):
        assert matching.weights_at(schedule, 0.3) == (1, 0)
        assert matching.weights_at(schedule, 0.7) == pytest.approx(end)
    assert matching.weights_at("Mix", 0.5) == pytest.approx((0.75, 0.25))


def test_distances_are_nought_for_the_same_sound_and_grow_with_what_is_changed():
    t = np.arange(2 * synth.RATE) / synth.RATE
    tone = (0.3 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)
    other = (0.3 * np.sin(2 * np.pi * 900 * t)).astype(np.float32)
    assert set(matching.distances(tone, tone).values()) == {0.0}
    near, far = matching.distances(tone, 0.8 * tone), matching.distances(tone, other)
    assert all(0 < near[name] < far[name] for name in far)
    noise = np.random.default_rng(0).standard_normal(len(t)).astype(np.float32)
    halved = matching.distances(noise, 2 * noise)  # (so loud that the floors do not count)
    for name in ("stft", "mstft", "mel"):  # half of the target's norm is missing, and ln 2 of each
        assert halved[name] == pytest.approx(0.5 + np.log(2), abs=1e-3)
    assert halved["mfccd"] < 1e-3  # (the level is its first coefficient, which is left out)


def test_parameters_of_which_nothing_is_known_cost_what_a_guess_costs():
    rows = torch.zeros(4, len(SPACE))
    logits = torch.zeros(4, SPACE.one_hot)
    guess = 0.5 + np.log(2) + 0.01 * np.log(SPACE.choices).sum()  # (the paper's released weights)
    assert float(matching.parameter_loss(logits, rows)) == pytest.approx(guess, rel=1e-5)


def test_guitars_play_the_presets_note_and_differ_by_their_chains():
    names, sounds = matching.guitars(0)
    assert names[0] == "dry" and len(set(names)) == len(sounds) == 51
    assert np.allclose(np.abs(sounds).max(1), 0.5, atol=1e-3) and np.isfinite(sounds).all()
    spectrum = np.abs(np.fft.rfft(sounds[0][: synth.RATE] * np.hanning(synth.RATE)))
    pitch = 440 * 2 ** ((presets.NOTE - 69) / 12)
    partial = np.flatnonzero(spectrum > 0.1 * spectrum.max())
    assert np.abs(partial / pitch - np.round(partial / pitch)).max() < 0.04
    again = matching.guitars(0)[1]
    assert np.array_equal(again, sounds)


def sounds_of(rows: np.ndarray) -> np.ndarray:
    mixed = np.random.default_rng(9).normal(size=(rows.shape[1], 128))
    return (3 * np.tanh(rows @ mixed / 4) - 6).astype(np.float32)


def pictured(many: int, seed: int) -> Presets:
    """Presets whose 'pictures' and 'sounds' can be computed from them."""
    rng = np.random.default_rng(seed)
    rows = np.stack([presets.drawn(rng) for _ in range(many)])
    sounds = sounds_of(rows)
    pictures = np.repeat(sounds[..., None], 43, 2).astype(np.float16)
    return Presets(rows, sounds, pictures, many)


class Perfect(torch.nn.Module):
    """A proxy that is the very map that made the sounds."""

    def __init__(self, scale: tuple[np.ndarray, np.ndarray]):
        super().__init__()
        self.mean, self.deviation = (torch.from_numpy(one) for one in scale)
        mixed = np.random.default_rng(9).normal(size=(len(SPACE), 128))
        self.mixed = torch.from_numpy(mixed.astype(np.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = x[:, SPACE.numbers :].split(list(SPACE.choices), 1)
        which = [p @ torch.arange(p.shape[1], dtype=x.dtype) for p in parts]
        rows = torch.cat([x[:, : SPACE.numbers], torch.stack(which, 1)], 1)
        return (3 * torch.tanh(rows @ self.mixed / 4) - 6 - self.mean) / self.deviation


def test_an_estimator_learns_and_through_a_perfect_proxy_sounds_nearer(rows):
    data = {"drawn": pictured(600, 0), "by hand": pictured(100, 1)}
    scale = encoders.scaling(data["drawn"])
    judge = Perfect(scale)
    one_hot = encoders.OneHot(SPACE)(torch.from_numpy(rows))
    told = judge(one_hot).numpy() * scale[1] + scale[0]
    assert np.allclose(told, sounds_of(rows), atol=1e-3)
    profile = replace(config.load("tiny"), matching_epochs=9)
    ends = {}
    for training in (Matching("PLoss"), Matching("Switch", "straight")):
        torch.manual_seed(1)
        model = matching.Estimator(width=8)
        history = matching.train(model, judge, matching.together(data), scale, profile, training)
        assert history.validation_parameters.iloc[-1] < history.validation_parameters.iloc[0]
        seen = matching.together(data)["validation"]
        said = matching.rows_of(matching.answer(model, seen.pictures))
        ends[training.name] = np.abs(sounds_of(said) - seen.sounds).mean()
    assert ends["Switch, straight"] < ends["PLoss"]


def test_tests_are_of_presets_that_nothing_was_trained_on():
    data = {"drawn": pictured(100, 0), "by hand": pictured(50, 1)}
    parts = matching.together(data)
    assert [len(p) for p in parts.values()] == [80 + 40, 5, 5]
    key = lambda one: {row.tobytes() for row in one.presets}
    assert not key(parts["test"]) & (key(parts["train"]) | key(parts["validation"]))
    assert not key(parts["train"]) & key(parts["validation"])
    found = matching.nearest(data["drawn"].sounds[:3], data, (0.0, 1.0))
    assert np.array_equal(found, data["drawn"].presets[:3])


def test_every_split_has_presets_with_pictures_where_not_all_keep_one(monkeypatch):
    monkeypatch.setattr(presets, "PICTURES", 40)
    drawn = pictured(100, 0)
    some = presets.pictured(100)
    assert len(some) <= 40 and some[0] == 0
    fewer = Presets(drawn.presets, drawn.sounds, drawn.pictures[some], 100)
    parts = matching.together({"drawn": fewer, "by hand": pictured(50, 1)})
    assert len(parts["train"]) > 40  # (some drawn ones beside all made by hand)
    for part in parts.values():
        assert len(part.pictures) == len(part.sounds) == len(part)
        assert np.allclose(part.pictures[:, :, 0], part.sounds, atol=0.01)  # (its own picture)


def test_scores_of_parameters_and_gains_have_their_known_values(rows):
    said = rows.copy()
    said[:, 0] = 1 - said[:, 0]
    said[:32, NUMBERS] = 1 - said[:32, NUMBERS]  # half of one of two switches
    right = matching.parameters_right(said, rows)
    assert right["num_l1"] == pytest.approx(np.abs(1 - 2 * rows[:, 0]).mean() / NUMBERS)
    assert right["bin_acc"] == pytest.approx(0.75) and right["cat_acc"] == 1
    each = pd.DataFrame([
        {"domain": "guitar", "method": m, "seed": 0, "target": i, "mstft": value + i}
        for m, value in (("PLoss", 2.0), ("Mix", 1.5)) for i in range(20)
    ])  # fmt: skip
    gain = matching.gains(config.load("tiny"), each).iloc[0]
    assert (gain.less, gain.lo, gain.hi) == pytest.approx((0.5, 0.5, 0.5))
    again = each[each.method == "Mix"].assign(seed=1, mstft=lambda t: t.mstft + 0.2)
    both = pd.concat([each, again])  # (two trainings of one, beside one of the other)
    gain = matching.gains(config.load("tiny"), both).iloc[0]
    assert gain.less == pytest.approx(0.4) and gain.lo == pytest.approx(0.3)
    assert gain.hi == pytest.approx(0.5)


def test_the_ledger_of_matching_tells_right_from_wrong():
    table = pd.DataFrame([
        {"domain": domain, "method": method} | {
            "num_l1": 0.1 + 0.01 * i, "cat_acc": 0.4 - 0.1 * i, "stft": v, "mstft": v, "mel": v,
            "mfccd": v}
        for domain, values in (("amsynth", (2, 1, 1)), ("guitar", (3, 3.5, 2)))
        for i, (method, v) in enumerate(zip(("PLoss", "Mix", "Switch"), values, strict=True))
    ])  # fmt: skip
    ends = {"amsynth": (0.5, 1.5), "guitar": (-1.0, -0.2)}
    gains = pd.DataFrame([
        {"domain": domain, "method": method, "less": (lo + hi) / 2, "lo": lo, "hi": hi}
        for domain, (lo, hi) in ends.items() for method in ("Mix", "Switch")
    ])  # fmt: skip
    apart = pd.DataFrame([
        {"column": column, "one": one, "other": other, "more": gap, "lo": gap / 2, "hi": 1.5 * gap}
        for column, gap in (("num_l1", 0.01), ("cat_acc", -0.1))
        for one, other in combinations(("PLoss", "Mix", "Switch"), 2)
    ])  # fmt: skip
    ask = lambda gains, apart=apart: proxy_paper.ledger_of_matching(
        proxy_paper.Matched(table, gains, apart)).set_index("id").verdict  # fmt: skip
    verdict = ask(gains)
    wrong = set(verdict.index[verdict == "differs"])
    assert wrong == {f"proxy_matching_guitar_{name}" for name in ("mix", "switch")}
    assert verdict["proxy_matching_amsynth_mix"] == "reproduced" and len(verdict) == 7
    blurred = ask(gains, apart.assign(lo=-1.0, hi=1.0))
    for name in ("numbers", "choices"):
        assert verdict[f"proxy_matching_{name}"] == "reproduced"
        assert blurred[f"proxy_matching_{name}"] == "undecided"
    undecided = ask(gains.assign(lo=-1.0, hi=1.0))
    assert undecided["proxy_matching_amsynth_switch"] == "undecided"


# --- searches -------------------------------------------------------------------------------------


def test_a_search_begins_at_its_preset_and_asks_for_nothing_that_amsynth_has_not(rows):
    from paper_lib.proxies import search

    start = rows[0].copy()
    start[:8] = (0, 1, 0, 1, 0.5, 0.5, 0.5, 0.5)  # (people like to turn a knob all the way)
    cma = search.optimiser(start, 0)
    asked = np.stack([search.row_of(cma.ask()) for _ in range(300)])
    assert asked[:, 4:8].std(0) == pytest.approx(search.STEP, rel=0.2)
    assert asked.min() >= 0 and asked[:, : SPACE.numbers].max() <= 1
    assert (asked[:, SPACE.numbers :] < np.array(SPACE.choices)).all()
    pitch = [one.name for one in presets.NUMBERS].index("osc2_pitch")
    assert np.allclose(asked[:, pitch] * 24, np.round(asked[:, pitch] * 24), atol=1e-4)
    same = (asked[:, NUMBERS:] == rows[0, NUMBERS:]).mean()
    assert same == pytest.approx(search.SURE, abs=0.05)


def test_a_search_comes_nearer_keeps_its_best_and_is_the_same_again(amsynth, rows):
    from paper_lib.proxies import search

    with synth.player() as play:
        sound = search._heard(play, rows[0])
    deviation = np.full(128, 4.0)
    start = rows[1].copy()
    start[:4] = 0
    found, again = (search.search(sound, start, deviation, 43, 5) for _ in range(2))
    assert np.array_equal(found["preset"], again["preset"])
    curve = found["curve"]
    assert len(curve) == 44 and (np.diff(curve) <= 0).all() and curve[-1] < curve[0]
    with synth.player() as play:
        ends = [np.abs(search._heard(play, row) - sound).mean() / 4.0
                for row in (start, found["preset"])]  # fmt: skip
    assert ends == pytest.approx([curve[0], curve[-1]])
