"""A study of settings: encoders of like size, and the same questions when it is asked again."""

from dataclasses import replace

import numpy as np
import pytest

from paper_lib.core import config, stages
from paper_lib.core.errors import Diverged

optuna = pytest.importorskip("optuna")
from paper_lib.proxies import encoders, tuning  # noqa: E402

HERE = replace(config.load("tiny"), tuning_trials=24)


def answered_at_once(monkeypatch, best_rate: float) -> list[str]:
    """Trials are answered at once, best at `best_rate`; what they asked."""
    asked = []

    def answer(profile, name, size, number):
        asked.append((number, size))
        return 1 / (1 + abs(size.rate - best_rate) / best_rate)

    each = lambda work, items, label: [answer(*item) for item in items]
    monkeypatch.setattr(tuning.parallel, "each", each)
    return asked


def test_every_encoder_that_is_tried_has_about_as_many_weights():
    for name in encoders.NAMES:
        for layers in (1, 2, 3, 4):
            size = tuning.fitted(name, encoders.Size(0, layers, token=16))
            assert 0.75 * tuning.WEIGHTS < tuning.weights(name, size) <= tuning.WEIGHTS


def test_a_study_that_is_asked_again_asks_the_same_and_knows_the_best(monkeypatch):
    asked = answered_at_once(monkeypatch, 5e-3)
    for name in encoders.NAMES:
        asked.clear()
        first = tuning.study(HERE, name)
        questions = list(asked)
        asked.clear()
        second = tuning.study(HERE, name)
        assert asked == questions and len(questions) == 24
        assert len({size for _, size in questions}) > 20  # (none is asked all over again)
        table = tuning.table(HERE, name, first)
        assert list(table.mrr) == [t.value for t in second.trials]
        assert table.mrr.max() == first.best_value
        assert [size.rate for _, size in questions] == pytest.approx(list(table.rate))


def test_the_second_half_of_a_study_draws_near_what_did_well(monkeypatch):
    answered_at_once(monkeypatch, 2e-3)
    table = tuning.table(HERE, "TFM", tuning.study(HERE, "TFM"))
    mean = table.groupby("drawn").mrr.mean()
    assert mean["by TPE"] > mean["evenly"] and (table.drawn == "evenly").sum() == 8


def test_the_first_trials_are_sobols_points_and_more_even_than_chance():
    ranges = tuning.settings("TFM")
    found = tuning.evenly("TFM", 64, 0)
    for name, one in ranges.items():
        values = np.array([chosen[name] for chosen in found])
        assert one.low <= values.min() and values.max() <= one.high
        if isinstance(one, optuna.distributions.IntDistribution):
            counts = [(values == v).sum() for v in range(one.low, one.high + 1)]
            assert min(counts) == max(counts) == 64 // len(counts), name
        else:  # (as many below the geometric mean as above)
            assert (values < np.sqrt(one.low * one.high)).sum() == 32, name


def test_a_training_that_diverges_is_an_answer(monkeypatch, tmp_path):
    def diverges(*own):
        raise Diverged("the loss is not finite")

    monkeypatch.setattr(tuning, "short", diverges)
    monkeypatch.setenv("PAPER_DATA", str(tmp_path))
    made = stages.Stage("tuning", tmp_path / "one", {}, {}, threads=1)
    monkeypatch.setattr(tuning, "stage", lambda *own: made)
    size = tuning.fitted("MLP-OH", encoders.Size(0, 1))
    assert tuning.tried(HERE, "MLP-OH", size, 0) == 0.0
