"""How much of an effect: knobs reach SoX as they say; a loss that asks only what can be said."""

import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from paper_lib import PaperError
from paper_lib.adapters import parameters
from paper_lib.core import config, paths
from paper_lib.evaluation import intervals
from paper_lib.sound import effects, rendering, settings
from paper_lib.sound.settings import KNOBS

RATE = 44_100
# where Table 1 has the knobs (an equalizer's frequencies, tremolo's and phaser's: SoX's own)
TABLE = {
    "overdrive.gain": 5, "distortion.gain": 15,
    "chorus.rate": 0.322, "chorus.depth": 1.88, "chorus.mix": 0.344,
    "flanger.rate": 0.5, "flanger.depth": 5, "flanger.feedback": 0,
    "phaser.rate": 0.5, "phaser.delay": 3, "phaser.feedback": 0.4,
    "tremolo.rate": 6, "tremolo.depth": 40, "reverb.decay": 80, "reverb.mix": 0,
    "feedback_delay.delay": 200, "feedback_delay.feedback": 0.5, "feedback_delay.mix": 0.4,
    "slapback_delay.delay": 200, "slapback_delay.feedback": 0.5, "slapback_delay.mix": 0.4,
    "low_boost.gain": 10, "low_boost.frequency": 200,
    "low_reduct.gain": -10, "low_reduct.frequency": 200,
    "high_boost.gain": 20, "high_boost.frequency": 8000,
    "high_reduct.gain": -20, "high_reduct.frequency": 8000,
}  # fmt: skip


def tone(hz: float, seconds: float = 2.0, level: float = 0.1) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    return (level * 32767 * np.sin(2 * np.pi * hz * t)).astype(np.int16)


def through(effect: str, sound: np.ndarray, **knobs: float) -> np.ndarray:
    asked = {f"{effect}.{name}": value for name, value in knobs.items()}
    return rendering.render(sound, RATE, (effect,), knobs=asked).astype(float)


@pytest.mark.parametrize("effect", effects.NAMES)
def test_knobs_set_as_table_1_has_them_are_table_1(effect):
    sound = np.random.default_rng(0).normal(0, 2000, RATE).astype(np.int16)
    asked = {column: value for column, value in TABLE.items() if column.startswith(f"{effect}.")}
    assert asked.keys() == {knob.column for knob in KNOBS if knob.effect == effect}
    set_so = rendering.render(sound, RATE, (effect,), knobs=asked)
    assert np.array_equal(set_so, rendering.render(sound, RATE, (effect,)))


@pytest.mark.parametrize("rate", [16_000, RATE])
@pytest.mark.parametrize("place", [0.0, 1.0])
def test_every_end_of_a_range_can_be_rendered_at_either_rate(rate, place):
    sound = np.random.default_rng(0).normal(0, 500, rate // 4).astype(np.int16)
    for effect in effects.NAMES:
        asked = {k.column: float(k.value(place)) for k in KNOBS if k.effect == effect}
        assert rendering.render(sound, rate, (effect,), knobs=asked).any()


def test_every_range_holds_table_1_and_goes_there_and_back():
    assert TABLE.keys() == {knob.column for knob in KNOBS}
    for knob in KNOBS:
        assert knob.least <= TABLE[knob.column] <= knob.most, knob.column
        ends = [knob.value(0.0), knob.value(1.0)]
        assert ends == pytest.approx([knob.least, knob.most])
        between = np.linspace(0, 1, 7)
        assert knob.place([knob.value(p) for p in between]) == pytest.approx(between, abs=1e-12)


def test_a_knob_does_what_it_says():
    """Against what can be computed: a tremolo's rate, an echo's time and level, a gain."""
    wave = np.abs(through("tremolo", tone(1000, 4), rate=3.0, depth=80.0))
    spectrum = np.abs(np.fft.rfft(wave - wave.mean()))[: 4 * 20]  # of the envelope, up to 20 Hz
    assert spectrum.argmax() / 4 == pytest.approx(3.0, abs=0.26)
    click = np.zeros(2 * RATE, np.int16)
    click[0] = 20_000
    echoes = through("slapback_delay", click, delay=120.0, feedback=0.5, mix=0.6)
    at = [round(0.12 * k * RATE) for k in (0, 1, 2, 3)]
    # (SoX lowers the direct sound to 0.8, and takes the echoes from the sound before that)
    assert 0.8 * echoes[at] / echoes[0] == pytest.approx([0.8, 0.6, 0.3, 0.15], abs=0.002)
    # (`echos` sends each echo through the later ones: they come out 1, 2 and 3 times as loud)
    again = through("feedback_delay", click, delay=120.0, feedback=0.5, mix=0.6)
    assert 0.8 * again[at] / again[0] == pytest.approx([0.8, 0.6, 0.6, 0.45], abs=0.002)
    loud = [through("low_boost", tone(50), gain=g, frequency=200.0).std() for g in (4.0, 10.0)]
    assert 20 * np.log10(loud[1] / loud[0]) == pytest.approx(5, abs=1.5)  # (a shelf's foot)
    # (a soft tone is not bent: half of it, and 3/4 of it times the gain; first SoX clicks)
    soft = [through("overdrive", tone(200, level=3e-3), gain=g)[RATE:].std() for g in (2.0, 8.0)]
    wanted = [0.5 + 0.75 * 10 ** (g / 20) for g in (2.0, 8.0)]
    assert soft[1] / soft[0] == pytest.approx(wanted[1] / wanted[0], rel=0.02)


def test_drawn_settings_change_the_knobs_and_nothing_else():
    table, drawn = (config.load("tiny", settings=how) for how in ("table", "drawn"))
    for recording in ("a", "b"):
        assert rendering.chains_of(table, recording, 0) == rendering.chains_of(drawn, recording, 0)
    chain = ("distortion", "reverb", "low_boost")
    assert rendering.settings_of(table, "a", 0, chain) == {}
    first, again, other = (rendering.settings_of(drawn, name, 0, chain) for name in "aab")
    assert first == again and first.keys() == other.keys() and first != other
    assert {c.split(".")[0] for c in first} == set(chain)


def test_draws_are_even_over_each_range():
    rng = np.random.default_rng(0)
    drawn = [settings.draw(("tremolo", "reverb"), rng) for _ in range(2000)]
    for knob in (k for k in KNOBS if k.effect in ("tremolo", "reverb")):
        places = np.array([knob.place(one[knob.column]) for one in drawn])
        assert places.min() >= -1e-3 and places.max() <= 1 + 1e-3
        counts = np.histogram(places, 4, (0, 1))[0]
        assert counts == pytest.approx(500, abs=100), knob.column


# --- the network's answers ------------------------------------------------------------------------


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Outputs that say just these labels, and the middle of every knob."""
    said = np.zeros((len(labels), parameters.OUTPUTS), np.float32)
    which = parameters.in_group(torch.from_numpy(labels).float()).numpy()
    for k, (start, _) in enumerate(parameters.SPANS):
        said[np.arange(len(labels)), start + which[:, k]] = 20
    return said


def test_every_chain_is_read_back_and_no_group_has_two():
    labels = np.array([effects.multi_hot(chain) for chain in effects.plan("guo221", True)])
    said, places = parameters.read(one_hot(labels))
    assert np.array_equal(said, labels) and np.all(places == 0.5)
    wild = np.random.default_rng(0).normal(size=(500, parameters.OUTPUTS))
    groups = [effects.BY_NAME[name].group for name in effects.NAMES]
    for labels_of_one in parameters.read(wild)[0]:
        on = [group for group, one in zip(groups, labels_of_one, strict=True) if one]
        assert all(a != b for a, b in pairwise(on))


def truth(chains: list[tuple[str, ...]], place: float) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.tensor([effects.multi_hot(chain) for chain in chains]).float()
    there = torch.tensor([[knob.effect in chain for knob in KNOBS] for chain in chains])
    return labels, torch.where(there, torch.tensor(place), torch.nan)


def test_the_loss_has_its_known_values_and_asks_only_for_knobs_that_are_on():
    labels, places = truth([("tremolo", "reverb"), ()], place=0.75)
    right = torch.from_numpy(one_hot(labels.numpy()))
    assert parameters.loss(right, labels, places, "labels").item() == pytest.approx(0, abs=1e-6)
    # four knobs on the first clip and none on the second, each a quarter of its range away
    assert parameters.loss(right, labels, places, "parameters").item() == pytest.approx(4 / 2)
    both = parameters.loss(right, labels, places, "both").item()
    assert both == pytest.approx(4 / 2, abs=1e-6)
    said = right.clone().requires_grad_()
    parameters.loss(said, labels, places, "parameters").backward()
    asked = said.grad[:, parameters.LOGITS :] != 0
    assert torch.equal(asked, ~places.isnan()) and not said.grad[:, : parameters.LOGITS].any()
    silent = parameters.loss(right[1:], labels[1:], places[1:], "parameters")
    assert silent.item() == 0


def test_always_the_middle_costs_one_a_knob():
    rng = np.random.default_rng(0)
    places = torch.from_numpy(rng.random((4000, len(KNOBS)))).float()
    said = torch.zeros(4000, parameters.OUTPUTS)
    found = parameters.loss(said, torch.zeros(4000, 13), places, "parameters")
    assert found.item() / len(KNOBS) == pytest.approx(1, abs=0.02)


def test_an_interval_of_a_mean_is_over_recordings():
    """Two recordings of 20 clips: a resample holds one, the other, or both."""
    values, two = np.repeat([[1.0, 3.0]], 20, axis=1), np.repeat([0, 1], 20)
    assert intervals.of_mean(values, two, 500, 0) == (1.0, 3.0)
    low, high = intervals.of_mean(values, np.arange(40), 500, 0)  # (clip by clip: far narrower)
    assert 1.5 < low < 2 < high < 2.5
    assert intervals.of_mean(values * 0 + 2, two, 50, 0) == (2.0, 2.0)
    # 30 clips of one and 10 of the other: their mean counts clips, not recordings
    uneven = np.repeat([0, 1], [30, 10])
    low, high = intervals.of_mean(np.where(uneven, 3.0, 1.0)[None], uneven, 2000, 0)
    assert (low, high) == (1.0, 3.0)
    both = np.stack([values[0], values[0] + 1])  # (a second seed that errs by one more)
    assert intervals.of_mean(both, two, 2000, 0) == (1.0, 4.0)


@pytest.fixture
def drawn():
    """A small run with drawn knobs, its clips rendered, embedded and described."""
    run = parameters.run_of(config.load("tiny", knob_epochs=2))
    data = rendering.render_dataset(run)
    for kind in ("frozen", "logmel"):
        parameters.described(run, data, kind)
    return run, data


def test_a_linear_probe_finds_what_is_there_and_no_more(drawn):
    _, data = drawn
    rng, knobs, train = np.random.default_rng(0), parameters.places(data), data.rows("train")
    columns = [knob.column for knob in KNOBS]
    k, absent = columns.index("distortion.gain"), columns.index("reverb.mix")
    there = np.nan_to_num(knobs[:, k : k + 1], nan=0.5)
    held = np.hstack([there * 3 - 1, rng.normal(size=(len(data), 3))])
    found = parameters.probed(held, knobs, train)
    assert ((found >= 0) & (found <= 1)).all()
    others = np.setdiff1d(np.arange(len(data)), train)
    error = np.nanmean(np.abs(found - knobs)[others], axis=0)
    assert error[k] < 0.05 and error[absent] > 0.15


def test_networks_learn_from_training_clips_alone_and_a_second_run_ends_alike(drawn, monkeypatch):
    run, data = drawn
    network = parameters.BY_NAME["codec, upper half"]
    said = parameters.fit(run, data.folder, network, "both", 0)
    shutil.rmtree(paths.data(run.profile) / "models")
    places = parameters.places
    hidden = np.setdiff1d(np.arange(len(data)), data.rows("train"))

    def scrambled(one):
        found = places(one)
        found[hidden] = 1 - found[hidden]
        return found

    monkeypatch.setattr(parameters, "places", scrambled)
    again = parameters.fit(run, data.folder, network, "both", 0)
    assert np.array_equal(said, again, equal_nan=True) and not np.isnan(said[hidden]).any()


def test_every_network_lowers_its_loss_and_has_its_rows_in_the_tables(drawn):
    run, data = drawn
    run = replace(run, knob_epochs=10)
    wanted = [(network.name, "both") for network in parameters.NETWORKS]
    said = parameters.fit_all(run, data, wanted)
    for name, goal in wanted:
        network = parameters.BY_NAME[name]
        folder = parameters.stage(run, data, network, goal, 0).folder
        lost = pd.read_csv(folder / "history.csv").train_loss
        assert lost.iloc[-1] < lost.iloc[0], name
    stand = {name: parameters.read(outputs)[1] for (name, _), outputs in said.items()}
    errors = parameters.error_table(run, data, stand)
    assert list(dict.fromkeys(errors.system)) == [name for name, _ in wanted]
    assert (errors.lo <= errors.error).all() and (errors.error <= errors.hi).all()
    levels = parameters.level_table(run, data, said)
    assert levels[["group_macro_f1", "effect_macro_f1", "error"]].notna().all().all()


def test_other_rates_or_another_start_are_another_training(drawn):
    run, data = drawn
    head = parameters.BY_NAME["head on the frozen codec"]
    parameters.fit(run, data.folder, head, "labels", 0)
    assert parameters.stage(run, data, head, "labels", 0).current()
    faster = replace(head, rates=replace(head.rates, head=1e-2))
    assert not parameters.stage(run, data, faster, "labels", 0).current()


def test_a_codec_that_cannot_be_trained_so_is_refused_at_once():
    with pytest.raises(PaperError, match="set codec to shipped"):
        parameters.run_of(config.load("tiny", codec="hub:1kbps"))
