"""What a choice of the set-up is worth: the conditions and the judging behind notebook 08."""

from dataclasses import replace

import numpy as np
import pyloudnorm
import pytest

from paper_lib import PaperError
from paper_lib.core import config
from paper_lib.core.random import generator_for
from paper_lib.evaluation import scores
from paper_lib.recognition import experiments
from paper_lib.sound import audio, corpus, effects, rendering


def note(seconds: float = 1.0, rate: int = 44_100) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return audio.to_int16(0.2 * np.sin(2 * np.pi * 196 * t) * np.exp(-t))


def test_a_rendering_of_ones_own_condition_is_the_data_set_itself(small):
    run, data, _ = small
    run = replace(run, experiment_recordings=3)
    known, made = (
        experiments.as_it_is(run, data),
        experiments.variant(
            run,
            data,
            experiments.Condition(run.render_rate, run.chain_plan, rendering.lead_span(run)),
            "own",
        ),
    )
    assert len(known.labels) == 3 * 51 and np.array_equal(made.features, known.features)
    assert np.array_equal(made.labels, known.labels) and np.array_equal(
        made.recordings, known.recordings
    )
    assert not set(made.recordings) & set(data.index.recording[data.rows("test")])


def test_the_first_milliseconds_hold_a_click_where_sox_starts_with_the_clip(small):
    """Overdrive's output is then off zero before any note; after a lead it is not."""
    run, data, _ = small
    recording = next(r for r in corpus.recordings(run) if r.name == data.index.recording[0])
    start = {}
    for name, lead in {"at once": (0.0, 0.0), "settled": (5.0, 5.0)}.items():
        condition = experiments.Condition(run.render_rate, "singles", lead)
        made = experiments.variant_of_recording(recording, run, condition)
        row = np.flatnonzero(made["labels"][:, effects.NAMES.index("overdrive")])[0]
        assert made["opening"].shape == (len(made["labels"]), experiments.OPENING)
        start[name] = float(np.abs(made["opening"][row, :8].astype(float)).mean())
    assert start["at once"] > 0.05 and start["settled"] < 0.005


def test_a_killed_variant_keeps_the_recordings_that_it_has(small, monkeypatch):
    run, data, _ = small
    run, true, count = (
        replace(run, experiment_recordings=4, chain_plan="singles"),
        rendering.render,
        [],
    )
    condition = experiments.Condition(16_000, "singles", (0.5, 1.0))

    def killed(*rest):
        count.append(rest)
        if len(count) > 40:
            raise KeyboardInterrupt
        return true(*rest)

    monkeypatch.setattr(rendering, "render", killed)
    with pytest.raises(KeyboardInterrupt):
        experiments.variant(run, data, condition, "killed")
    count.clear()
    monkeypatch.setattr(rendering, "render", lambda *rest: count.append(rest) or true(*rest))
    made = experiments.variant(run, data, condition, "killed")
    assert len(made.labels) == 4 * 14 and 0 < len(count) < 4 * 14
    assert np.array_equal(
        made.features, experiments.variant(run, data, condition, "whole").features
    )


def test_levelled_clips_have_that_loudness_and_silence_stays():
    loud = audio.to_float(note(2.0))
    meter = pyloudnorm.Meter(16_000)
    assert meter.integrated_loudness(experiments.level(loud, -26.0)) == pytest.approx(
        -26.0, abs=1e-6
    )
    assert not experiments.level(np.zeros(16_000), -26.0).any()
    with pytest.raises(PaperError, match="set slice_seconds higher"):
        experiments.level(loud[:1000], -26.0)


def test_what_is_known_of_a_recording_only_helps_where_the_split_lets_it():
    """Features that name the recording and nothing else, labels that hang on the recording.

    Heart against hearing.
    """
    run, n = config.load("tiny", profile="x", head_epochs=60, head_patience=60, head_rate=1e-2), 24
    names = np.repeat([f"r{i:02d}" for i in range(n)], 20)
    labels = np.repeat(
        [generator_for(0, "label", i).integers(0, 2, 13) for i in range(n)], 20, axis=0
    ).astype(np.float32)
    known = experiments.Variant(np.repeat(np.eye(n, dtype=np.float32), 20, axis=0), labels, names)
    score = lambda **how: scores.scores(
        labels, experiments.cross_validate(run, known, [known], experiments.How(**how))[0]
    )["macro_f1"]
    assert score(by_clip=True) > 0.99 and score() < 0.65


@pytest.mark.parametrize("n", range(3, 13))
def test_every_recording_is_held_out_once_and_each_fold_has_all_three_parts(n):
    names = np.repeat([f"r{i:02d}" for i in range(n)], 4)
    made, one_each = (
        experiments.Variant(np.zeros((len(x), 1)), np.zeros((len(x), 13)), x)
        for x in (names, np.unique(names))
    )
    held = np.zeros(len(names), int)
    for fold in range(3):
        part = experiments.folds_of(made, 0, fold)
        assert set(part) == {0, 1, 2} and len(set(zip(names, part, strict=True))) == n
        # the same, whatever else is judged
        alone = experiments.folds_of(one_each, 0, fold)
        by_name = dict(zip(one_each.recordings, alone, strict=True))
        assert all(by_name[name] == p for name, p in zip(names, part, strict=True))
        held += part == 2
    assert (held == 1).all()


def test_a_gain_is_that_of_the_same_recordings(small):
    run, data, _ = small
    made = experiments.as_it_is(run, data)
    right, none = made.labels.astype(int), np.zeros(made.labels.shape, int)
    row = experiments.row(run, made, right, none)
    assert row["macro_f1"] == row["gain"] == 1.0 and row["gain_lo"] > 0.9
    same = experiments.row(run, made, right, right)
    assert same["gain"] == same["gain_lo"] == same["gain_hi"] == 0.0 and np.isnan(
        experiments.row(run, made, right)["gain"]
    )


def test_what_other_labels_give_away_by_hand():
    labels = np.zeros((4, 13))
    labels[:, 0], labels[:, 1] = [1, 1, 0, 0], [1, 1, 0, 0]
    assert experiments.label_leakage(labels, 0) == 1.0  # always together
    labels[:, 1] = [1, 0, 1, 0]
    # nothing to go by: claiming it always
    assert experiments.label_leakage(labels, 0) == pytest.approx(2 * 2 / (2 + 4))


def test_too_few_recordings_are_refused_with_the_remedy(small):
    run, data, _ = small
    few = type(
        "Few",
        (),
        {"index": data.index[data.index.recording.isin(sorted(set(data.index.recording))[:2])]},
    )()
    with pytest.raises(PaperError, match=r"too few .* add recordings"):
        experiments.recordings(few, run)
    with pytest.raises(PaperError, match="need split: by_recording"):
        experiments.recordings(data, replace(run, split="by_clip"))
