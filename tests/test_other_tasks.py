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
from paper_lib.core.errors import NotHere
from paper_lib.recognition import features
from paper_lib.sound import plucked, sampled
from paper_lib.tokens import codes, downstream, other_tasks

RATE = codes.RATE


def a_file(path, seconds: float = 1.0, pitch: float = 220.0, rate: int = RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * pitch * t), rate)


@pytest.fixture(autouse=True)
def asked_anew():
    other_tasks.listing.cache_clear()
    yield
    other_tasks.listing.cache_clear()


def test_a_recording_is_in_one_split_and_the_shares_are_as_said():
    names = [f"r{i}" for i in range(100)]
    found = other_tasks.divided(names, "a")
    counts = {split: list(found.values()).count(split) for split in set(found.values())}
    assert counts == {"train": 70, "validation": 15, "test": 15} and set(found) == set(names)
    assert found == other_tasks.divided(names, "a") != other_tasks.divided(names, "b")


def nsynth(home, classes=("bass", "organ"), many=4):
    for folder in ("train", "test"):
        notes = {f"{family}_{i}": {"instrument_family_str": family, "instrument_str": f"{family}_i"}
                 for family in classes for i in range(many)}  # fmt: skip
        for name in notes:
            a_file(home / f"nsynth-{folder}" / "audio" / f"{name}.wav", 4.0)
        (home / f"nsynth-{folder}" / "examples.json").write_text(json.dumps(notes))


def test_nsynth_is_read_with_its_own_splits_and_of_each_class_so_many(tmp_path):
    nsynth(tmp_path)
    found = other_tasks.listing("families", str(tmp_path))
    assert found.source == "NSynth" and found.home == tmp_path and len(found.table) == 16
    assert (found.table["name"].str.contains("-train") == (found.table["split"] == "train")).all()
    heard = other_tasks.sounds("families", found.table["name"].tolist(), found.home)
    assert heard.shape == (16, other_tasks.SAMPLES) and heard.dtype == np.float32
    fewer = other_tasks.listing("families", str(tmp_path), 3).table
    assert fewer.groupby(["class", "split"]).size().tolist() == [3] * 4
    assert set(fewer["name"]) < set(found.table["name"])


def test_gtzan_is_read_by_its_folders_and_of_a_long_sound_the_middle(tmp_path):
    for genre in ("blues", "rock"):
        for i in range(10):
            a_file(tmp_path / "gtzan_genre" / "genres" / genre / f"{genre}.{i:05d}.wav", 0.1)
    (tmp_path / "gtzan_genre" / "genres" / "rock" / "._rock.00001.wav").write_bytes(b"not a sound")
    table = other_tasks.listing("genre", str(tmp_path)).table
    assert len(table) == 16 and set(table["split"]) == {"train", "test"}
    for kind in ("music", "speech"):
        for i in range(10):
            a_file(tmp_path / "music_speech" / f"{kind}_wav" / f"{i}.wav", 6.0, rate=22050)
    found = other_tasks.listing("speech", str(tmp_path))
    assert found.source == "GTZAN's music and speech"
    assert set(found.table["class"]) == {"music", "speech"}
    steps = np.repeat([0.0, 0.4, 0.0], 2 * RATE)
    soundfile.write(tmp_path / "steps.wav", steps, RATE)
    heard = other_tasks.sounds("genre", ["steps.wav"], tmp_path)[0]
    assert (heard[RATE : 3 * RATE] > 0.1).mean() > 0.99 and abs(heard[: RATE // 2]).max() < 0.01


def test_a_loud_peak_is_not_clipped():
    click = np.full(other_tasks.SAMPLES, 1e-3)
    click[100] = 1.0
    found = other_tasks._level(click)
    assert found.max() == pytest.approx(other_tasks.PEAK) and (found > 0.9).sum() == 1


def test_what_cannot_be_read_or_is_not_whole_is_named(tmp_path):
    with pytest.raises(PaperError, match="no folder"):
        other_tasks.listing("speech", str(tmp_path / "nowhere"))
    a_file(tmp_path / "music_speech" / "music_wav" / "a.wav")
    a_file(tmp_path / "music_speech" / "music_wav" / "b.wav")
    with pytest.raises(PaperError, match="not whole"):
        other_tasks.listing("speech", str(tmp_path))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(PaperError, match=r"broken\.wav: not readable"):
        other_tasks.sounds("speech", ["broken.wav"], tmp_path)
    with pytest.raises(PaperError, match="token_others: 'effects' is none of families"):
        downstream.named("effects", "token_others")


def test_without_its_data_or_programs_a_task_is_off_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for kind, missing in (("families", "fluidsynth"), ("speech", "espeak-ng"), ("genre", "gtzan")):
        with pytest.raises(NotHere, match=missing):
            other_tasks.listing(kind)
    assert downstream.tasks(config.load("tiny"), None, ["speech", "genre"]) == {}
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_relative_folder_is_the_one_seen_from_where_the_profile_was_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load("tiny").token_data == ""
    (tmp_path / "own.yaml").write_text("profile: own\ntoken_data: sets\n")
    assert config.load(str(tmp_path / "own.yaml")).token_data == str(tmp_path / "sets")


def test_voices_and_guitars_are_the_same_again_and_no_voice_is_split():
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not here")
    table = other_tasks.listing("speech").table
    assert table.groupby("recording")["split"].nunique().max() == 1
    counts = table.groupby(["split", "class"]).size().unstack()
    assert (counts.min(axis=1) > 0.9 * counts.max(axis=1)).all()  # (as many of both)
    music = set(table["name"][table["class"] == "music"])
    assert not music & set(plucked.names()), "pre-training has heard none of them"
    names = table.groupby("class")["name"].first().tolist()
    one, again = (other_tasks.sounds("speech", names) for _ in range(2))
    assert np.array_equal(one, again)
    assert np.sqrt((one**2).mean(1)) == pytest.approx(other_tasks.LEVEL, rel=0.01)


def test_notes_of_a_program_sound_and_what_shares_samples_is_not_split():
    try:
        sampled.fonts()
    except PaperError as missing:
        pytest.skip(str(missing))
    table = other_tasks.listing("families").table
    assert table.groupby("recording")["split"].nunique().max() == 1
    assert (table.groupby(["class", "split"]).size().unstack().min(axis=1) > 0).all()
    split = table.assign(program=table["name"].str.split(":").str[0].astype(int))
    split = split.groupby("program")["split"].first()
    for many in other_tasks.TOGETHER:
        assert split.reindex(many).nunique(dropna=False) == 1, many
    names = table["name"].tolist()[: other_tasks.NOTES]
    one, again = (other_tasks.sounds("families", names) for _ in range(2))
    assert np.array_equal(one, again) and (abs(one).max(1) > 0.1).all()
    other_tasks._program.cache_clear()
    assert np.array_equal(one, other_tasks.sounds("families", names))
    assert not np.array_equal(one[0], one[1])


@pytest.mark.slow
def test_a_task_of_other_sounds_is_trained_from_its_tokens(small_run, tmp_path):
    small, data, *_ = small_run
    for kind, pitch in (("music", 200.0), ("speech", 2000.0)):
        for i in range(24):
            file = tmp_path / "music_speech" / f"{kind}_wav" / f"{kind}{i}.wav"
            a_file(file, 1.0, pitch + 10 * i)
    run = replace(small, token_data=str(tmp_path), token_task_epochs=40, token_task_seconds=0.5)
    run = replace(run, token_most=0)
    codes.of_dataset(run, data)
    task = downstream.task(run, data, "speech")
    assert task.tokens.shape[:2] == (40, 6) and task.source == "GTZAN's music and speech"
    training = downstream.Training("speech", "scratch")
    said = downstream.fit_all(run, data, [training])[training]
    table = downstream.table(run, task, {"scratch": [said]})
    assert table.score[0] == 1.0  # (low tones and high ones)
    before = downstream.stage(run, data, training)
    assert before.current()
    fewer = replace(run, token_most=10)
    other_tasks.tokens(fewer, "speech")
    assert not downstream.stage(fewer, data, training).current(), "other sounds, another training"


@pytest.mark.slow
def test_a_listener_hears_what_the_decoder_makes_of_the_tokens(small_run):
    small, data, *_ = small_run
    tokens, _ = codes.of_dataset(small, data)
    found = downstream.heard_again(small, data)
    rows = data.rows("test")
    assert found.shape[0] == len(data)
    decode = codes.tokenizer("l3ac", small.codec).decode
    sound = decode(tokens[rows[0]].astype(np.int64))[: data.audio.shape[1]]
    own = next(iter(features.embed(LogMel().eval(), sound[None])))[0][0]
    assert found[rows[0]] == pytest.approx(own.numpy(), abs=1e-4)
    answered = downstream.learned_again(small, data, found)
    assert len(answered) == small.head_seeds and answered[0]["test"].shape == (len(rows), 13)
    deaf = downstream.learned_again(small, data, 0 * found)
    assert (answered[0]["test"] != deaf[0]["test"]).any(), "it answers by what it heard"
