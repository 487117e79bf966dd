"""The token paper's own tasks: data sets of their shape, stand-ins, and splits that keep whole."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from paper_lib import PaperError
from paper_lib.codec.frontends import LogMel
from paper_lib.core import config
from paper_lib.recognition import features
from paper_lib.sound import plucked, sampled
from paper_lib.tokens import codes, downstream, other_tasks

RATE = codes.RATE


def a_file(path, seconds: float = 1.0, pitch: float = 220.0, rate: int = RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * pitch * t), rate)


def test_a_recording_is_in_one_split_and_the_shares_are_as_said():
    names = [f"r{i}" for i in range(100)]
    found = other_tasks.divided(names, "a")
    counts = {split: list(found.values()).count(split) for split in other_tasks.SPLITS}
    assert counts == {"train": 70, "validation": 15, "test": 15} and set(found) == set(names)
    assert found == other_tasks.divided(names, "a") != other_tasks.divided(names, "b")


def test_nsynth_is_read_with_its_own_splits(tmp_path):
    for folder, family in (("train", "bass"), ("valid", "organ"), ("test", "bass")):
        notes = {f"{family}_{i}": {"instrument_family_str": family, "instrument_str": f"{family}_i"}
                 for i in range(2)}  # fmt: skip
        home = tmp_path / f"nsynth-{folder}"
        for name in notes:
            a_file(home / "audio" / f"{name}.wav", 4.0)
        (home / "examples.json").write_text(json.dumps(notes))
    table, source = other_tasks.index("families", tmp_path)
    assert source == "NSynth" and table["split"].tolist() == [
        "train", "train", "validation", "validation", "test", "test"]  # fmt: skip
    assert set(table["class"]) == {"bass", "organ"}
    heard = other_tasks.sounds("families", table["name"].tolist())
    assert heard.shape == (6, other_tasks.SAMPLES) and heard.dtype == np.float32


def test_gtzan_is_read_by_its_folders_and_of_a_long_sound_the_middle(tmp_path):
    for genre in ("blues", "rock"):
        for i in range(10):
            a_file(tmp_path / "gtzan_genre" / "genres" / genre / f"{genre}.{i:05d}.wav", 0.1)
    table, source = other_tasks.index("genre", tmp_path)
    assert source == "GTZAN" and len(table) == 20
    assert table.groupby(["class", "split"]).size().min() >= 1
    for kind in ("music", "speech"):
        for i in range(10):
            a_file(tmp_path / "music_speech" / f"{kind}_wav" / f"{i}.wav", 6.0, rate=22050)
    table, source = other_tasks.index("speech", tmp_path)
    assert source == "GTZAN's music and speech" and set(table["class"]) == {"music", "speech"}
    one = tmp_path / "steps.wav"
    steps = np.repeat([0.0, 0.4, 0.0], 2 * RATE)
    soundfile.write(one, steps, RATE)
    heard = other_tasks.sounds("genre", [str(one)])[0]
    assert (heard[RATE : 3 * RATE] > 0.1).mean() > 0.99 and abs(heard[: RATE // 2]).max() < 0.01


def test_without_its_data_or_programs_a_task_is_off_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for kind, missing in (("families", "fluidsynth"), ("speech", "espeak-ng"), ("genre", "GTZAN")):
        with pytest.raises(PaperError, match=missing):
            other_tasks.index(kind, tmp_path)
    assert downstream.tasks(config.load("tiny"), None, ["speech", "genre"]) == {}
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_voices_and_guitars_are_the_same_again_and_no_voice_is_split():
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not here")
    table, _ = other_tasks.index("speech", None)
    assert table.groupby("recording")["split"].nunique().max() == 1
    counts = table.groupby(["split", "class"]).size().unstack()
    assert (counts.min(axis=1) > 0.9 * counts.max(axis=1)).all()  # (as many of both)
    names = table.groupby("class")["name"].first().tolist()
    one, again = (other_tasks.sounds("speech", names) for _ in range(2))
    assert np.array_equal(one, again)
    level = np.sqrt((one**2).mean(1))
    assert level == pytest.approx(other_tasks.LEVEL, rel=0.1)
    assert set(names) & set(plucked.names(range(6, 12))) and not set(names) & set(plucked.names())


def test_notes_of_an_instrument_sound_and_no_instrument_is_split():
    try:
        sampled.fonts()
    except PaperError as missing:
        pytest.skip(str(missing))
    table, _ = other_tasks.index("families", None)
    assert table.groupby("recording")["split"].nunique().max() == 1
    assert (table.groupby(["class", "split"]).size().unstack().min(axis=1) > 0).all()
    names = table["name"].tolist()[: other_tasks.NOTES]
    one, again = (other_tasks.sounds("families", names) for _ in range(2))
    assert np.array_equal(one, again) and (abs(one).max(1) > 0.1).all()
    other_tasks._instrument.cache_clear()
    assert np.array_equal(one, other_tasks.sounds("families", names))
    assert not np.array_equal(one[0], one[1])


@pytest.mark.slow
def test_a_task_of_other_sounds_is_trained_from_its_tokens(small_run, tmp_path):
    small, data, *_ = small_run
    for kind, pitch in (("music", 200.0), ("speech", 2000.0)):
        for i in range(16):
            file = tmp_path / "music_speech" / f"{kind}_wav" / f"{kind}{i}.wav"
            a_file(file, 1.0, pitch + 10 * i)
    run = replace(small, token_data=str(tmp_path), token_task_epochs=6, token_seconds=0.5)
    codes.of_dataset(run, data)
    task = downstream.task(run, data, "speech")
    assert task.tokens.shape[:2] == (32, 6) and task.source == "GTZAN's music and speech"
    training = downstream.Training("speech", "scratch")
    said = downstream.fit_all(run, data, [training])[training]
    table = downstream.table(run, task, {"scratch": downstream.answers(said, False)[None]})
    assert table.score[0] == 1.0  # (low tones and high ones)


@pytest.mark.slow
def test_a_listener_hears_what_the_decoder_makes_of_the_tokens(small_run):
    small, data, *_ = small_run
    tokens, _ = codes.of_dataset(small, data)
    found = downstream.heard_again(small, data)
    rows = data.rows("test")
    assert found.shape[0] == len(rows)
    decode = codes.tokenizer("l3ac", small.codec).decode
    sound = decode(tokens[rows[0]].astype(np.int64))[: data.audio.shape[1]]
    own = next(iter(features.embed(LogMel().eval(), sound[None])))[0][0]
    assert found[0] == pytest.approx(own.numpy(), abs=1e-4)
