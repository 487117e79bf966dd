"""Scores against known values (Section 2.3.4, notebooks 04 and 05)."""

import numpy as np
import pytest

from paper_lib.core import config
from paper_lib.core.random import generator_for
from paper_lib.evaluation import intervals, neighbours, published, scores
from paper_lib.report import tables


def test_micro_and_macro_f1_by_hand():
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 0]])
    said = np.array([[1, 0], [0, 0], [0, 1], [0, 1]])
    # class 0: tp 1, fp 0, fn 1 -> 2/3; class 1: tp 1, fp 1, fn 0 -> 2/3; together tp 2, fp 1, fn 1
    # -> 4/6
    assert scores.scores(truth, said) == pytest.approx({"micro_f1": 2 / 3, "macro_f1": 2 / 3})
    assert scores.per_class(truth, said).tolist() == pytest.approx([2 / 3, 2 / 3])


def test_the_papers_tables_agree_with_each_other():
    values = np.array(list(published.PAPER_TABLE_3.values()))
    assert values.mean(0) == pytest.approx([0.5431, 0.8540], abs=5e-5)


def test_scores_are_scikit_learns():
    from sklearn.metrics import average_precision_score, f1_score

    rng = np.random.default_rng(0)
    truth, recordings = (rng.random((90, 13)) < 0.2).astype(int), np.repeat(np.arange(9), 10)
    truth[:, 4] = 0  # a class that never occurs
    probability = rng.random((90, 13)).round(1)  # many of them equal
    said = probability > 0.6
    for average in ("micro", "macro"):
        wanted = f1_score(truth, said, average=average, zero_division=0)
        assert scores.scores(truth, said)[f"{average}_f1"] == pytest.approx(wanted)
    assert scores.per_class(truth, said) == pytest.approx(
        f1_score(truth, said, average=None, zero_division=0)
    )
    tp, fp, fn = scores.counts(truth, said, recordings).sum(0)
    assert scores.f1_of(tp, fp, fn) == pytest.approx(scores.per_class(truth, said))
    there = truth.sum(0) > 0
    for p in (probability, rng.random((90, 13)).astype(np.float32)):
        wanted = average_precision_score(truth[:, there], p[:, there], average="macro")
        assert scores.mean_average_precision(truth, p) == pytest.approx(wanted)


def test_intervals_cover_the_truth_about_as_often_as_they_claim():
    # a recogniser that is right with probability 0.8, differently good from recording to recording
    covered, widths = 0, []

    def draw(rng, n):
        skill = np.repeat(rng.normal(0.8, 0.05, n), 20)
        truth = rng.integers(0, 2, (20 * n, 1))
        return (
            truth,
            np.where(rng.random((20 * n, 1)) < skill[:, None], truth, 1 - truth),
            np.repeat(np.arange(n), 20),
        )

    truth, said, _ = draw(np.random.default_rng(99), 20_000)
    expected = scores.scores(truth, said)["macro_f1"]
    for seed in range(100):
        ends = intervals.intervals(*draw(np.random.default_rng(seed), 30), 300, seed)["macro_f1"]
        covered += ends[0] <= expected <= ends[1]
        widths.append(np.ptp(ends))
    assert 86 <= covered <= 100 and np.mean(widths) < 0.09  # (infinitely wide ones cover always)


def test_intervals_over_recordings_are_wider_where_recordings_agree_within_themselves():
    truth = np.ones((100, 1), int)
    said = np.repeat(np.array([1, 0] * 5), 10)[:, None]
    by_recording = np.ptp(
        intervals.intervals(truth, said, np.repeat(np.arange(10), 10), 500, 0)["macro_f1"]
    )
    by_clip = np.ptp(intervals.intervals(truth, said, np.arange(100), 500, 0)["macro_f1"])
    assert by_recording > 2 * by_clip


def test_chance_says_each_label_as_often_as_training_has_it():
    labels = (np.random.default_rng(0).random((4000, 13)) < 0.2).astype(int)
    assert scores.chance(labels, 4000, 0).mean(0) == pytest.approx(labels.mean(0), abs=0.04)
    assert scores.majority(labels, 3).sum() == 0


def test_confusions():
    truth, said = np.zeros((4, 13), int), np.zeros((4, 13), int)
    truth[:, 0] = 1
    # three misses, two of them answered with the second effect
    said[0, 0], said[1, 1], said[2, 1] = 1, 1, 1
    assert scores.confusions(truth, said).iloc[0, 1] == pytest.approx(2 / 3)


def test_purity_and_silhouette():
    blobs = np.repeat(np.eye(3) * 10, 6, axis=0) + np.random.default_rng(0).normal(size=(18, 3))
    labels = np.repeat([0, 1, 2], 6)
    assert (
        neighbours.neighbour_purity(blobs, labels) == 1.0
        and neighbours.silhouette(blobs, labels) > 0.5
    )
    noise = np.random.default_rng(1).normal(size=(600, 3))
    assert neighbours.neighbour_purity(noise, np.repeat(np.arange(4), 150)) == pytest.approx(
        0.25, abs=0.04
    )
    assert neighbours.neighbour_purity(
        np.zeros((8, 2)), np.array([0, 1] * 4), k=7
    ) == pytest.approx(3 / 7)
    assert np.isnan(neighbours.silhouette(blobs[:3], np.arange(3)))


def test_purity_among_other_recordings():
    """Two recordings far apart, each with two effects once.

    Within a recording nobody shares an effect, across they all do.
    """
    points = np.array([[0.0, 0], [0, 1], [50, 0], [50, 1]])
    effect, recording = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    assert neighbours.neighbour_purity(points, effect, k=1) == 0.0
    assert neighbours.neighbour_purity(points, effect, k=1, apart=recording) == 1.0
    assert np.isnan(neighbours.neighbour_purity(points, effect, apart=np.zeros(4)))


def test_saying_yes_always_scores_by_formula():
    truth = np.zeros((51, 13), int)
    truth[:9] = 1
    assert scores.scores(truth, scores.always(51))["macro_f1"] == pytest.approx(2 * 9 / (9 + 51))


def test_thresholds_find_the_cut_that_separates():
    truth = np.tile(np.array([[1], [0], [0], [1]]), 13)
    probability = np.tile(np.array([[0.30], [0.10], [0.20], [0.25]]), 13)
    assert (
        scores.scores(truth, probability > scores.thresholds(truth, probability))["macro_f1"] == 1.0
    )
    assert scores.scores(truth, probability > 0.5)["macro_f1"] == 0.0


def test_cautious_thresholds_leave_a_half_only_where_that_costs_something():
    rng = np.random.default_rng(1)
    truth = (rng.random((400, 13)) < 0.4).astype(float)
    probability = np.where(truth > 0, 0.9, 0.1)  # any cut between does
    probability[:, 3] = np.where(truth[:, 3] > 0, 0.9, 0.7)  # here a half would claim all
    found = scores.cautious_thresholds(truth, probability)
    assert np.allclose(np.delete(found, 3), 0.5) and found[3] == pytest.approx(0.7)


def test_the_paired_gain_is_sharper_than_two_intervals():
    rng = np.random.default_rng(0)
    skill = np.repeat(rng.uniform(0.3, 0.9, 12), 30)[:, None]
    truth = np.ones((360, 13), int)
    a = (rng.random((360, 13)) < skill).astype(int)
    b = np.where(rng.random((360, 13)) < 0.3, 1, a)  # always at least as good
    run, recordings = config.load("quick"), np.repeat(np.arange(12), 30)
    gain = tables.paired_gain(truth, a, b, recordings, run)
    assert gain["lo"] > 0 and gain["lo"] < gain["gain"] < gain["hi"]
    single = intervals.intervals(truth, b, recordings, 1000, 0)["macro_f1"]
    assert gain["hi"] - gain["lo"] < single[1] - single[0]


def test_paired_scores_are_those_of_each_and_a_system_is_as_good_as_itself():
    rng = np.random.default_rng(0)
    truth, recordings = (rng.random((120, 13)) < 0.4).astype(int), np.repeat(np.arange(12), 10)
    said = {"one": truth ^ (rng.random((3, 120, 13)) < 0.1), "other": 1 - truth}
    both = intervals.macro_f1(truth, said, recordings, 300, 0)
    own = intervals.intervals(truth, said["one"], recordings, 300, 0)["macro_f1"]
    assert both.of((1, "one"))[1:] == pytest.approx(tuple(own))
    assert both.more("one", "one") == (0, 0, 0)
    assert both.of((2, "one"), (-1, "other"))[0] == pytest.approx(2 * both.value["one"])
    guess = truth + rng.normal(size=(2, 120, 13)).round(1)  # (with equals)
    ranked = intervals.average_precision(truth, {"one": guess}, recordings, 200, 0)
    alone = [scores.mean_average_precision(truth, one) for one in guess]
    assert ranked.value["one"] == pytest.approx(np.mean(alone))
    once = np.ones((1, 120))
    assert intervals._precision(truth, guess[0], once)[0] == pytest.approx(alone[0], abs=1e-5)
    twice = once * np.where(recordings < 6, 2, 1)
    again = np.concatenate([np.arange(120), np.flatnonzero(recordings < 6)])
    wanted = scores.mean_average_precision(truth[again], guess[0][again])
    assert intervals._precision(truth, guess[0], twice)[0] == pytest.approx(wanted, abs=1e-5)
    assert ranked.of((1, "one"))[1] < np.mean(alone) < ranked.of((1, "one"))[2]
    lengths = intervals.means({"a": np.arange(5.0), "b": np.arange(5.0) + 1}, 300, 0)
    assert lengths.more("b", "a") == pytest.approx((1, 1, 1))


def test_intervals_hold_the_training_seeds():
    """Two trainings that differ: the interval spans both, that of either alone does not."""
    truth, recordings = np.ones((200, 2), int), np.repeat(np.arange(20), 10)
    rng = np.random.default_rng(0)
    good, bad = ((rng.random((200, 2)) < share).astype(int) for share in (0.9, 0.5))
    both = intervals.intervals(truth, np.stack([good, bad]), recordings, 500, 0)["macro_f1"]
    alone = [intervals.intervals(truth, one, recordings, 500, 0)["macro_f1"] for one in (good, bad)]
    assert (
        both[0] < alone[1][1]
        and both[1] > alone[0][0]
        and np.ptp(both) > 2 * max(np.ptp(a) for a in alone)
    )
    mean = intervals.mean_score(truth, np.stack([good, bad]))["macro_f1"]
    assert mean == pytest.approx(
        np.mean([scores.scores(truth, one)["macro_f1"] for one in (good, bad)])
    )
    same = intervals.intervals(truth, np.stack([good, good]), recordings, 500, 0)["macro_f1"]
    assert same == pytest.approx(alone[0])


def test_a_temperature_makes_a_boaster_as_sure_as_he_is_right():
    rng = generator_for(0, "temperature")
    logits = rng.normal(0, 2, (4000, 13))
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    assert scores.temperature(truth, logits) == pytest.approx(1, abs=0.03)
    assert scores.temperature(truth, 3 * logits) == pytest.approx(3, abs=0.1)
    sure = lambda x: scores.calibration_error(truth, 1 / (1 + np.exp(-x)))
    assert sure(logits) < 0.01 < 0.08 < sure(3 * logits)
    table = scores.reliability(truth, 1 / (1 + np.exp(-logits)))
    assert table.share.sum() == pytest.approx(1) and (table.probability.diff()[1:] > 0).all()
    assert np.allclose(table.probability, table.there, atol=0.03)
