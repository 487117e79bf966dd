"""A synthesizer that plays the same to the bit, and a ruler's score against known values."""

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from paper_lib import PaperError
from paper_lib.app import notebooks
from paper_lib.core import config, paths
from paper_lib.evaluation import proxy_paper
from paper_lib.proxies import ranking, synth


def named(name: str) -> ranking.Attribute:
    return next(a for a in ranking.ATTRIBUTES if a.name == name)


# --- the synthesizer ------------------------------------------------------------------------------


def test_a_preset_is_the_same_sound_whatever_was_played_before(amsynth):
    noisy = {"osc1_waveform": 1.0, "osc2_waveform": 1.0, "reverb_wet": 0.5}
    first = synth.render(noisy)
    synth.render({"lfo_freq": 0.5, "amp_mod_amount": 1.0})
    assert np.array_equal(first, synth.render(noisy))
    assert first.shape == (3 * synth.RATE,) and first.dtype == np.float32 and first.std() > 0.01


def test_playing_leaves_the_home_the_environment_and_the_terminal_alone(
    amsynth, tmp_path, monkeypatch, capfd
):
    for name in synth.FOLDERS:
        monkeypatch.setenv(name, str(tmp_path))
    synth.render({})
    assert not list(tmp_path.iterdir())
    assert {os.environ[name] for name in synth.FOLDERS} == {str(tmp_path)}
    assert capfd.readouterr() == ("", "")


def test_parameters_do_what_their_names_say(amsynth):
    """Against what can be computed: pitch in octaves, a slower attack, a longer decay."""

    def pitch(x: np.ndarray) -> float:
        part = x[22_050:66_150] * np.hanning(44_100)
        return float(np.abs(np.fft.rfft(part))[20:2000].argmax() + 20)  # Hz, in a second

    second = {"osc_mix": 1.0, "osc2_waveform": 0.0}
    heard = [pitch(synth.render(second | {"osc2_pitch": p})) for p in (0.0, 0.5, 1.0)]
    assert heard == pytest.approx([110, 220, 440], abs=1)
    loud = [np.abs(synth.render({"amp_attack": a})[:4410]).mean() for a in (0.0, 0.3, 0.6)]
    assert loud[0] > loud[1] > loud[2]
    late = [np.abs(synth.render({"amp_sustain": 0.0, "amp_decay": d})[44_100:]).mean()
            for d in (0.2, 0.45, 0.7)]  # fmt: skip
    assert late[0] < late[1] < late[2]


def test_every_attribute_names_parameters_that_there_are(amsynth):
    there = set(synth.parameters())
    for attribute in ranking.ATTRIBUTES:
        assert {attribute.parameter, *attribute.also, *ranking.DRAWN} <= there, attribute.name


def test_an_unknown_parameter_is_named_and_spoils_no_later_sound(amsynth):
    before = synth.render({"osc1_waveform": 1.0})
    with pytest.raises(PaperError, match="no parameter 'cutof'") as kept:
        synth.render({"cutof": 0.5})
    for _ in range(2):  # (the exception is still held, as a notebook holds the last one)
        assert np.array_equal(before, synth.render({"osc1_waveform": 1.0}))
    assert kept.value


def test_a_thread_is_refused_since_it_would_hang(amsynth):
    with ThreadPoolExecutor(1) as pool, pytest.raises(PaperError, match="main thread"):
        pool.submit(synth.render, {}).result(timeout=60)


def test_without_the_synthesizer_there_is_one_sentence_and_the_rest_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(synth, "PLACES", ())
    with pytest.raises(PaperError, match="apt-get install amsynth"):
        ranking.scores(config.load("tiny"))
    books = notebooks.listing("all")
    rest = notebooks.playable(books)
    assert {p.stem[:2] for p in set(books) - set(rest)} == set(notebooks.PLAYING)
    assert "left out: 18_attribute_ranking" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(synth, "NAME", "bash")  # (a file that is there)
    monkeypatch.setattr(synth, "PLACES", ("/bin",))
    monkeypatch.setattr(synth.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PaperError, match="requirements-synth"):
        synth.plugin()


def test_a_preset_that_stays_silent_is_named(monkeypatch):
    silence = contextlib.nullcontext(lambda preset: np.zeros(100, np.float32))
    monkeypatch.setattr(synth, "player", lambda: silence)
    with pytest.raises(PaperError, match="amp attack, preset 3: silent"):
        ranking.sounds(ranking.ATTRIBUTES[0], 3, 4, 0)


# --- the score ------------------------------------------------------------------------------------


def test_the_score_has_its_known_values():
    line = np.linspace(0, 1, 9)[:, None] * np.array([[1.0, -2.0]])
    assert ranking.score(line) == pytest.approx(1)
    assert ranking.score(line**3) == pytest.approx(1)  # (the order alone counts)
    assert ranking.score(np.ones((9, 4))) == 0
    x = np.array([[0.0], [1.0], [3.0], [2.0]])
    assert ranking.score(x) == pytest.approx((0.5 + 0.75**0.5) / 2, abs=1e-9)
    folded = np.abs(np.linspace(-1, 1, 9))[:, None]  # the last is where the first is
    assert ranking.score(folded) < 0.2


def test_the_score_is_scipys_correlation_from_both_ends_which_have_no_say():
    x = np.random.default_rng(0).normal(size=(20, 5)).cumsum(0)
    first, last = (np.abs(x - x[end]).sum(1) for end in (0, -1))
    ends = [spearmanr(first[1:], np.arange(1, 20))[0], spearmanr(last[:-1], -np.arange(19))[0]]
    assert ranking.score(x) == pytest.approx(np.mean(ends))
    # with the ends, which are always in their place, less is missing to 1: (n - 2) of (n + 1)
    with_ends = [spearmanr(first, np.arange(20))[0], spearmanr(last, -np.arange(20))[0]]
    assert 1 - np.mean(with_ends) == pytest.approx((1 - ranking.score(x)) * 18 / 21)


def test_no_order_at_all_scores_nought():
    rng = np.random.default_rng(0)
    assert abs(np.mean([ranking.score(rng.normal(size=(20, 8))) for _ in range(400)])) < 0.03


def test_a_parameter_is_turned_up_evenly_and_a_two_sided_one_on_one_side():
    for attribute in ranking.ATTRIBUTES:
        for number in (0, 1):
            values = ranking.turned(attribute, number, 20)
            assert (np.diff(values) > 0).all() and np.allclose(np.diff(values, 2), 0)
            assert attribute.least <= values[0] and values[-1] <= attribute.most
    pitch = named("pitch coarse")
    assert ranking.turned(pitch, 0, 5).min() == 0.5 == ranking.turned(pitch, 1, 5).max()


def test_presets_are_drawn_by_key_and_never_set_what_is_turned():
    for attribute in ranking.ATTRIBUTES:
        one, again, other = (ranking.preset(attribute, n, 0) for n in (3, 3, 4))
        assert one == again != other and attribute.parameter not in one
        for name, (low, high) in attribute.also.items():
            assert low <= one[name] <= high


def test_every_representation_has_frames_and_one_row_a_sound():
    t = np.arange(synth.RATE) / synth.RATE
    x = np.stack([0.1 * np.sin(2 * np.pi * hz * t) for hz in (220, 330, 440)]).astype(np.float32)
    sizes = {"mel128": 128, "mfcc40": 40, "mSTFT": 4071, "L3AC + mel128": 256}
    for name, represent in ranking.representations("shipped", 0).items():
        frames = represent(x)
        assert frames.shape[0] == 3 and frames.shape[2] == sizes.get(name, 128), name
        assert np.isfinite(frames).all()
        assert np.allclose(represent(x[1:2]), frames[1:2], rtol=1e-4, atol=1e-4), name


# --- the tables -----------------------------------------------------------------------------------


def scored(**shift: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    drawn = {(a.name, n): rng.uniform(0.5, 0.9) for a in ranking.ATTRIBUTES for n in range(6)}
    return pd.DataFrame([
        {"attribute": a, "preset": n, "representation": name.replace("_", ", "), "reduction": how,
         "score": value + more - 0.01 * (how == "nop")}
        for (a, n), value in drawn.items()
        for name, more in shift.items()
        for how in ranking.REDUCTIONS
    ])  # fmt: skip


def test_a_difference_is_paired_by_preset():
    best = ranking.best_reduction(scored(L3AC=0.0, other=0.05))
    assert set(best.reduction) == {"avg time"} and len(best) == 2 * 13 * 6
    change = ranking.difference(best, "L3AC", "other", 200, 0)
    assert np.allclose(change[["difference", "lo", "hi"]], 0.05)  # (no spread: every pair alike)


def test_the_table_has_the_papers_numbers_beside_and_means_within_their_intervals():
    table = ranking.table(ranking.best_reduction(scored(mel128=0.0, L3AC=0.0)), 300, 0)
    assert len(table) == 2 * 14
    assert ((table.lo <= table["mean"]) & (table["mean"] <= table.hi)).all()
    mel = table[table.representation == "mel128"].set_index("attribute")
    assert mel.published["lfo rate on filter"] == 0.549  # (Figure 2)
    assert round(mel.published["mean"], 3) == 0.921  # (as printed there)
    assert table[table.representation == "L3AC"].published.isna().all()


def test_printed_means_and_deviations_are_those_of_the_printed_rows():
    """(Figure 2 rounds to three places: so may a mean of thirteen such numbers.)"""
    stated = ranking.published()
    each = stated[[f"mean {attribute.name}" for attribute in ranking.ATTRIBUTES]]
    assert len(stated) == 16 and (stated["mean mean"].diff()[1:] <= 0).all()  # (best first)
    assert np.allclose(each.mean(axis=1), stated["mean mean"], atol=0.001)
    assert np.allclose(each.std(axis=1), stated["sd mean"], atol=0.001)


def test_the_ledger_turns_with_what_is_measured():
    names = {"mel128": 0.03, "mfcc40": 0.02, "mSTFT": 0.01, "L3AC": 0.0, "L3AC untrained": -0.2,
             "L3AC + mel128": 0.04}  # fmt: skip
    each = pd.concat([scored(one=more).assign(representation=name) for name, more in names.items()])
    table = ranking.table(ranking.best_reduction(each), 50, 0)
    averages = ranking.averages_over_frames(each, 50, 0)
    assert averages.more.tolist() == pytest.approx([0.01] * 6) and "mSTFT avg time" in set(
        averages.other
    )
    pairs = [
        ("L3AC", "mel128"),
        ("L3AC", "mfcc40"),
        ("L3AC", "mSTFT"),
        ("mfcc40", "mel128"),
        ("mSTFT", "mfcc40"),
        ("mel128", "L3AC + mel128"),
        ("L3AC", "L3AC + mel128"),
    ]
    apart = ranking.apart(ranking.best_reduction(each), pairs, 50, 0)
    assert apart.more.tolist() == pytest.approx([0.03, 0.02, 0.01, 0.01, 0.01, 0.01, 0.04])
    by_pairs = ["proxy_codecs", "proxy_order", "proxy_hybrid", "proxy_average"]
    pitch = ranking.apart(ranking.best_reduction(each), [("mel128", "L3AC")], 50, 0, "pitch coarse")
    assert pitch.more[0] == pytest.approx(-0.03)
    at_pitch = pd.concat([pitch.assign(one=name) for name in ("mel128", "mfcc40", "mSTFT")])

    def verdicts(**ends: float) -> pd.Series:
        measured = proxy_paper.Ranked(
            table, apart.assign(**ends), apart.assign(**ends), at_pitch, averages.assign(**ends)
        )
        return proxy_paper.ledger(measured).set_index("id").verdict

    assert set(verdicts()[by_pairs]) == {"reproduced"}
    assert verdicts()["proxy_pitch_learned"] == "differs"
    assert set(verdicts(lo=-0.1)[by_pairs]) == {"undecided"}
    assert set(verdicts(lo=-0.2, hi=-0.1)[by_pairs]) == {"differs"}


def test_our_rows_stand_best_first_above_the_papers_sixteen():
    table = ranking.table(ranking.best_reduction(scored(mel128=-0.1, L3AC=0.0)), 50, 0)
    both = ranking.beside_the_paper(table)
    assert both.representation.tolist()[:3] == ["L3AC", "mel128", "mn20"] and len(both) == 18
    assert both.theirs.tolist() == [False] * 2 + [True] * 16 and not both.isna().any().any()


@pytest.mark.slow
def test_a_killed_ranking_goes_on_and_ends_with_the_same_bytes(amsynth, monkeypatch):
    run, judge, asked = config.load("tiny"), ranking.judge, []
    kept = paths.data(run.profile) / "ranking" / "scores.npy"
    first = ranking.scores(run)
    whole = kept.read_bytes()
    shutil.rmtree(kept.parent)

    def dies(which, *more):
        asked.append(which)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return judge(which, *more)

    monkeypatch.setenv("PAPER_WORKERS", "1")
    monkeypatch.setattr(ranking, "judge", dies)
    with pytest.raises(KeyboardInterrupt):
        ranking.scores(run)
    pd.testing.assert_frame_equal(first, ranking.scores(run))
    assert kept.read_bytes() == whole
    assert len(asked) == len(ranking.ATTRIBUTES) + 1  # (only the one that was killed came twice)
