"""A new effect from a few examples: what is put on, what is drawn, what stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from paper_lib.adapters import few
from paper_lib.core import paths
from paper_lib.recognition import features


@pytest.fixture
def crushed(small):
    profile, data, _ = small
    run = replace(profile, few_steps=6)
    return run, data, few.examples(run, data, "bit crusher")


def test_a_new_effect_keeps_the_level_and_changes_the_sound():
    tone = 0.1 * np.sin(np.arange(16_000) / 12)[None].astype(np.float32)
    for effect in few.NEW:
        wet = few.put_on(tone, effect)
        assert np.sqrt(np.mean(wet**2)) == pytest.approx(np.sqrt(np.mean(tone**2)), rel=1e-3)
        assert np.abs(wet - tone).max() > 0.0005
        assert np.isfinite(few.put_on(np.zeros((1, 800), np.float32), effect)).all()
    assert len(np.unique(few.put_on(tone, "bit crusher").round(6))) <= 129


def test_examples_are_of_their_own_splits_and_every_recording_comes_before_a_second_clip(crushed):
    _run, data, examples = crushed
    names = data.index.recording.to_numpy()
    assert set(data.index.split.iloc[examples.train]) == {"train"}
    assert set(data.index.split.iloc[examples.test]) == {"test"}
    assert not set(names[examples.train]) & set(names[examples.test])
    recordings = len(set(names[data.rows("train")]))
    assert len(set(names[examples.train[:recordings]])) == recordings
    assert examples.lower.shape[0] == len(examples.train) + len(examples.test)


def test_a_row_and_a_vector_leave_the_old_answers_to_the_bit(crushed):
    run, data, examples = crushed
    clips = features.kept(run, data, "frozen")
    x = torch.from_numpy(clips.clips(data.rows("test")[:3]))
    others, answers = data.rows("train")[20:], []
    for way in few.WAYS[:2]:
        wider = few.regressed(run, data, examples, way, 10, others)
        with torch.inference_mode():
            old, new = wider(x)
            assert torch.equal(old, wider.model(x)) and new.shape == (3,)
        answers.append(old)
    assert torch.equal(*answers)


def test_the_old_answers_in_the_loss_hold_them(crushed):
    run, data, examples = crushed
    clips, others = features.kept(run, data, "frozen"), data.rows("train")
    x = torch.from_numpy(clips.clips(data.rows("validation")[:8]))
    known = few.regressed(run, data, examples, few.WAYS[0], 10, others).model
    moved = []
    for way in few.WAYS[3:]:
        longer = replace(run, few_steps=25)
        wider = few.learn(longer, clips, examples, way, 10, others)
        with torch.inference_mode():
            moved.append((torch.sigmoid(wider(x)[0]) - torch.sigmoid(known(x))).abs().mean().item())
    assert moved[1] < moved[0]


def test_a_row_of_the_table_is_the_same_twice(crushed):
    run, data, _ = crushed
    assert paths.data(run.profile).joinpath("few").exists()
    one, two = (few.judge(run, data.folder, "bit crusher", few.WAYS[2], 10) for _ in range(2))
    assert one == two and 0 <= one["lo"] <= one["f1"] <= one["hi"] <= 1
