"""A study of settings: encoders of like size, and the same questions when it is asked again."""

from dataclasses import replace

import pytest

from paper_lib.core import config

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
    assert mean["by TPE"] > mean["evenly"] and (table.drawn == "evenly").sum() == 12
