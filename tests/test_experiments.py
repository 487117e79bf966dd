"""What a choice of the set-up is worth: the conditions and the judging behind notebook 08."""

import numpy as np
import pyloudnorm
import pytest

from paper_lib import PaperError, audio, effects, embedding, experiments, keyed, metrics, profiles, rendering


def note(seconds: float = 1.0, rate: int = 44_100) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return audio.to_int16(0.2 * np.sin(2 * np.pi * 196 * t) * np.exp(-t))


def test_a_run_as_it_is_gives_the_data_sets_own_features(small):
    run, data, _ = small
    made = experiments.variant(run, data, experiments.Condition(run.render_rate, run.chain_plan), "as_it_is")
    rows = np.flatnonzero(data.index.recording.isin(experiments.recordings(data, run)))
    known = embedding.pool(embedding.embed_dataset(run, data, "logmel")[rows], "mean_sd_mad")
    assert len(rows) == 3 * 51 and np.array_equal(made.features, known)
    assert np.array_equal(made.labels, data.labels[rows]) and np.array_equal(made.recordings, data.index.recording.to_numpy()[rows])
    assert not set(made.recordings) & set(data.index.recording[data.rows("test")])


@pytest.mark.parametrize("chain, moves", [(("low_boost",), False), (("tremolo",), True), (("phaser",), True)])
def test_a_preroll_moves_an_lfo_and_nothing_else(chain, moves):
    clean = note()
    fixed = rendering.render(clean, 44_100, chain, 16_000).astype(int)
    shifts = [np.abs(experiments.phased(clean, 44_100, chain, 4.0, (0, "x", i)).astype(int) - fixed).max() for i in range(3)]
    assert len(fixed) == 16_000 and (min(shifts) > 300 if moves else max(shifts) <= 2), shifts


def test_levelled_clips_have_that_loudness_and_silence_stays():
    loud = audio.to_float(note(2.0))
    meter = pyloudnorm.Meter(16_000)
    assert meter.integrated_loudness(experiments.level(loud, -26.0)) == pytest.approx(-26.0, abs=1e-6)
    assert not experiments.level(np.zeros(16_000), -26.0).any()


def test_a_longer_plan_is_drawn_from_for_each_recording_anew():
    run = profiles.load("tiny")
    drawn = [experiments.chains_of(run, experiments.Condition(44_100, "guo221"), name) for name in "ab"]
    whole = effects.plan("guo221", True)
    assert [len(d) for d in drawn] == [51, 51] and drawn[0] != drawn[1] and all(set(d) <= set(whole) for d in drawn)
    assert experiments.chains_of(run, experiments.Condition(16_000, "paper50"), "a") == effects.plan("paper50", True)


def test_what_is_known_of_a_recording_only_helps_where_the_split_lets_it():
    """Features that name the recording and nothing else, labels that hang on the recording: heart against hearing."""
    run, n = profiles.load("tiny", profile="x", head_epochs=60, head_patience=60, head_rate=1e-2), 24
    names = np.repeat([f"r{i:02d}" for i in range(n)], 20)
    labels = np.repeat([keyed(0, "label", i).integers(0, 2, 13) for i in range(n)], 20, axis=0).astype(np.float32)
    known = experiments.Variant(np.repeat(np.eye(n, dtype=np.float32), 20, axis=0), labels, names)
    score = lambda **how: metrics.scores(labels, experiments.judge(run, known, [known], **how)[0])["macro_f1"]
    assert score(by_clip=True) > 0.99 and score() < 0.65


def test_parts_keep_a_recording_together_whatever_else_is_judged():
    names = np.array(sorted(f"r{i}" for i in range(9)) * 4)
    one = experiments.Variant(np.zeros((36, 1)), np.zeros((36, 13)), names)
    other = experiments.Variant(np.zeros((9, 1)), np.zeros((9, 13)), np.unique(names))
    by_name = dict(zip(other.recordings, experiments.parts(other, 0)))
    assert all(by_name[n] == p for n, p in zip(names, experiments.parts(one, 0)))
    assert sorted(np.bincount(list(by_name.values()), minlength=6)) == [1, 1, 1, 2, 2, 2]


def test_a_gain_is_that_of_the_same_recordings(small):
    run, data, _ = small
    made = experiments.variant(run, data, experiments.Condition(run.render_rate, run.chain_plan), "as_it_is")
    right, none = made.labels.astype(int), np.zeros(made.labels.shape, int)
    row = experiments.row(run, made, right, made, none)
    assert row["macro_f1"] == row["gain"] == row["head_0"] == 1.0 and row["gain_lo"] > 0.9
    same = experiments.row(run, made, right, made, right)
    assert same["gain"] == same["gain_lo"] == same["gain_hi"] == 0.0


def test_too_few_recordings_are_refused_with_the_remedy(small):
    run, data, _ = small
    few = type("Few", (), {"index": data.index[data.index.recording.isin(sorted(set(data.index.recording))[:2])]})()
    with pytest.raises(PaperError, match="too few .* add recordings"):
        experiments.recordings(few, run)
