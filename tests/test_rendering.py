"""The renderer (notebook 01, sections 2 and 4).

Against an independent group's files, and against kills, failures and full disks.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
import soundfile
import yaml

from paper_lib import PaperError
from paper_lib.core import config, paths, stages
from paper_lib.sound import audio, corpus, effects, plucked, rendering

ALIASES = {
    "fbdelay": "feedback_delay",
    "sbdelay": "slapback_delay",
    "hiboost": "high_boost",
    "lowreduct": "low_reduct",
    "hireduct": "high_reduct",
}


def test_the_oracles_files_come_out_again(oracle):
    clean, rate = soundfile.read(oracle / "clean" / "00_BN1-129-Eb_comp_1.wav", dtype="int16")
    files = sorted((oracle / "rendered").glob("*.wav"))
    assert len(files) == 5
    for file in files:
        wanted, _ = soundfile.read(file, dtype="int16")
        chain = tuple(ALIASES.get(name, name) for name in file.stem.split("_"))
        assert np.array_equal(wanted, rendering.render(clean, rate, chain)), file.name  # to the bit


# Table 1 as a SoX command line, written down from the paper and SoX's manual, not from this package
SOX = {
    "overdrive": "overdrive 5 20",
    "distortion": "overdrive 15 20",
    "flanger": "flanger 0 5 0 71 0.5 sine 50 linear",
    "phaser": "phaser 0.8 0.74 3 0.4 0.5 -s",
    "tremolo": "tremolo 6 40",
    "reverb": "reverb 80 50 100 100 0 0",
    "feedback_delay": "echos 0.8 0.5 200 0.4 400 0.2 600 0.1",
    "slapback_delay": "echo 0.8 0.5 200 0.4 400 0.2 600 0.1",
    "low_boost": "bass 10 200 0.5s",
    "high_reduct": "treble -20 8000 0.5s",
}


def test_a_chain_is_the_sox_command_of_table_1(tmp_path):
    """Bit for bit, also where the oracle's clips are not at hand."""
    clean = audio.to_int16(plucked.play(plucked.names()[0], 2.0))
    soundfile.write(tmp_path / "clean.wav", clean, plucked.RATE, subtype="PCM_16")
    for chain in (*((name,) for name in SOX), ("overdrive", "flanger", "reverb", "low_boost")):
        words = " ".join(SOX[name] for name in chain).split()
        command = ["sox", "-D", tmp_path / "clean.wav", tmp_path / "out.wav", *words]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        wanted, _ = soundfile.read(tmp_path / "out.wav", dtype="int16")
        ours = rendering.render(clean, plucked.RATE, chain)
        assert np.array_equal(wanted[: len(clean)], ours), chain


@pytest.fixture
def clip():
    return (3000 * np.random.default_rng(0).standard_normal(16_000).clip(-4, 4)).astype(np.int16)


def test_every_effect_is_repeatable_and_changes_the_sound(clip):
    low = audio.to_int16(audio.resample(audio.to_float(clip), 16_000, 44_100))
    for name in effects.NAMES:
        one = rendering.render(low, 44_100, (name,))
        assert np.array_equal(one, rendering.render(low, 44_100, (name,)))
        assert len(one) == len(low) and not np.array_equal(one, low)


def test_the_high_eqs_are_the_identity_at_16_khz(clip):
    for name in ("high_boost", "high_reduct"):
        assert np.abs(rendering.render(clip, 16_000, (name,)).astype(int) - clip).max() <= 1
        assert np.abs(rendering.render(clip, 44_100, (name,)).astype(int) - clip).max() > 100


def test_low_boost_adds_ten_decibels_at_the_bottom():
    t = np.arange(44_100) / 44_100
    hum = audio.to_int16(0.05 * np.sin(2 * np.pi * 30 * t))
    assert audio.level_db(rendering.render(hum, 44_100, ("low_boost",))[22_050:]) - audio.level_db(
        hum[22_050:]
    ) == pytest.approx(10, abs=0.6)


def test_a_chain_is_cut_and_resampled_to_the_clip(clip):
    out = rendering.render(clip, 44_100, ("reverb", "feedback_delay"), 16_000)
    assert out.dtype == np.int16 and len(out) == round(len(clip) * 16_000 / 44_100)
    assert np.array_equal(rendering.render(clip, 16_000, effects.DRY), clip)


def test_resampling_does_not_change_a_chains_level():
    # SoX's own resampler at the end of a chain would take 3 dB off every tremolo
    t = np.arange(44_100) / 44_100
    note = audio.to_int16(0.3 * np.sin(2 * np.pi * 440 * t))
    for name in ("tremolo", "phaser", "reverb"):
        levels = [
            audio.level_db(rendering.render(note, 44_100, (name,), rate))
            for rate in (44_100, 16_000)
        ]
        assert levels[0] == pytest.approx(levels[1], abs=0.05)


@pytest.mark.parametrize("name", effects.NAMES)
def test_leads_of_other_lengths_move_an_lfo_and_nothing_else(name):
    t = np.arange(44_100) / 44_100
    note = audio.to_int16(0.2 * np.sin(2 * np.pi * 196 * t) * np.exp(-t))
    settled = [
        rendering.render(note, 44_100, (name,), lead=s).astype(int) for s in (3.0, 3.27, 4.51)
    ]
    moved = [np.abs(s - settled[0]).max() for s in settled[1:]]
    assert {len(s) for s in settled} == {len(note)}
    assert (
        min(moved) > 300 if name in ("chorus", "flanger", "phaser", "tremolo") else max(moved) <= 2
    )


@pytest.mark.parametrize(
    "chain",
    [
        ("overdrive",),
        ("distortion", "chorus", "reverb", "low_boost", "high_reduct"),
        ("overdrive", "reverb", "feedback_delay", "low_boost", "high_boost"),
    ],
)
def test_a_lead_ends_the_click_with_which_sox_begins_and_its_echoes(chain):
    silence = np.zeros(44_100, np.int16)
    at_once, settled = (
        np.abs(rendering.render(silence, 44_100, chain, lead=s).astype(int)).max()
        for s in (0.0, rendering.SETTLED)
    )
    assert at_once > 1000 and settled < 33, (at_once, settled)  # -60 dB


def test_every_clip_has_a_lead_of_its_own_and_the_paper_none(small):
    run, data, _ = small
    assert (
        rendering.lead_span(config.load("paper")) == (0.0, 0.0)
        and rendering.draw_lead((0.0, 0.0), 0, "x", 0, ("reverb",)) == 0.0
    )
    leads = data.index.lead
    assert leads.between(rendering.SETTLED, run.lead_seconds).all() and leads.nunique() > 100
    row = data.index[data.index.chain == "tremolo"].index[0]
    recording = next(r for r in corpus.recordings(run) if r.name == data.index.recording[row])
    clean = corpus.slices(corpus.load(recording, run), run)[data.index.slice[row]]
    with_lead, without = (
        rendering.render(clean, run.render_rate, ("tremolo",), 16_000, lead)
        for lead in (leads[row], 0.0)
    )
    assert np.array_equal(with_lead, data.audio[row]) and not np.array_equal(
        without, data.audio[row]
    )


def content(folder):
    return {p.name: stages.digest(p) for p in sorted(folder.iterdir())}


@pytest.mark.slow
def test_killed_at_any_moment_the_data_set_ends_with_the_same_bytes(tmp_path):
    run = config.load("tiny", profile="few", chains_per_slice=5)
    whole = rendering.render_dataset(run).folder
    environment = os.environ | {"PAPER_DATA": str(tmp_path / "killed"), "PAPER_WORKERS": "2"}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(asdict(run)))
    command = [sys.executable, "-m", "paper_lib", "render-dataset", "-p", tmp_path / "few.yaml"]
    made = tmp_path / "killed" / "few" / "dataset"
    shards, kills = made.with_name("dataset.partial") / "shards", 0
    for done in (1, 3, 5):
        process = subprocess.Popen(
            command, env=environment, cwd=paths.ROOT, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(shards.glob("*.npz"))) < done:
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    assert not made.exists(), "a half-made data set was taken for a whole one"
    subprocess.run(command, env=environment, cwd=paths.ROOT, check=True, capture_output=True)
    assert content(made) == content(whole)


def test_no_clip_is_lost_or_doubled_and_hashes_hold(small):
    import hashlib

    _, data, _ = small
    assert len(data) == 16 * 51 == len(data.index[["excerpt", "chain"]].drop_duplicates())
    for i in range(0, len(data), 97):
        assert hashlib.sha256(data.audio[i].tobytes()).hexdigest() == data.index.sha256[i]
        assert (
            effects.label(tuple(n for n in effects.NAMES if data.index[n][i]))
            == data.index.chain[i]
        )


def test_chains_are_drawn_for_each_slice_anew_as_many_from_any_plan():
    run = config.load("tiny", chains_per_slice=12)
    for plan, whole in (
        (None, effects.plan("paper50", True)),
        ("guo221", effects.plan("guo221", True)),
    ):
        drawn = [
            rendering.chains_of(run, name, s, plan) for name, s in (("a", 0), ("b", 0), ("a", 1))
        ]
        assert (
            all(len(set(d)) == 12 and d == [c for c in whole if c in d] for d in drawn)
            and len(set(map(tuple, drawn))) == 3
        )
    count = Counter(c for i in range(600) for c in rendering.chains_of(run, str(i), 0))
    assert len(count) == 51 and all(
        abs(n - 600 * 12 / 51) < 5 * (600 * 12 / 51) ** 0.5 for n in count.values()
    )
    every = replace(run, chains_per_slice=0)
    assert (
        rendering.chains_of(every, "a", 0) == effects.plan("paper50", True)
        and len(rendering.chains_of(every, "a", 0, "guo221")) == 51
    )


def test_the_data_set_holds_the_chains_that_were_drawn():
    run = config.load("tiny", recordings=4, chains_per_slice=3)
    index = rendering.render_dataset(run).index
    for name, part in index.groupby("recording"):
        assert list(part.chain) == [effects.label(c) for c in rendering.chains_of(run, name, 0)]


def test_a_finished_stage_is_not_made_again(small):
    run, data, _ = small
    before = (data.folder / "audio.npy").stat().st_mtime_ns
    assert (rendering.render_dataset(run).folder / "audio.npy").stat().st_mtime_ns == before


def test_sox_failing_names_clip_chain_and_its_own_message(monkeypatch):
    monkeypatch.setitem(
        effects.BY_NAME,
        "low_boost",
        effects.Effect("low_boost", "low_eq", "bass", {"gain_db": 10, "frequency": 30_000}),
    )
    run = config.load("tiny", chain_plan="singles")
    with pytest.raises(
        PaperError, match=r"recording p\d_BN.*slice 0.*SoX failed on chain low_boost: .*Nyquist"
    ):
        rendering.render_dataset(run)


@pytest.mark.parametrize(
    "script, word",
    [(None, "SoX is not installed"), ("echo 'sox:      SoX v14.3.1'", "SoX 14.3.1 is on PATH")],
)
def test_missing_or_wrong_sox(monkeypatch, tmp_path, script, word):
    if script:
        (tmp_path / "sox").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "sox").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if script else str(tmp_path))
    with pytest.raises(PaperError, match=word):
        rendering.render_dataset(config.load("tiny"))


def test_a_full_disk_is_seen_before_work_begins(monkeypatch):
    from collections import namedtuple

    monkeypatch.setattr(paths.shutil, "disk_usage", lambda _: namedtuple("usage", "free")(1000))
    with pytest.raises(PaperError, match=r"needs .* GB but only .* are free"):
        rendering.render_dataset(config.load("tiny"))
    assert not (paths.data("tiny") / "dataset").exists()


def test_an_interrupted_run_goes_on_where_the_disk_is_full_of_its_own_shards(monkeypatch):
    """The need for disk is checked before the first clip.

    What is free later says nothing about a resumed run.
    """
    from collections import namedtuple

    run, true = config.load("tiny", chain_plan="singles"), corpus.load
    last = corpus.recordings(run)[-1]
    broken = lambda r, p: (_ for _ in ()).throw(KeyboardInterrupt) if r == last else true(r, p)
    monkeypatch.setattr(rendering.corpus, "load", broken)
    with pytest.raises(KeyboardInterrupt):
        rendering.render_dataset(run)
    monkeypatch.setattr(rendering.corpus, "load", true)
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda _: namedtuple("usage", "free")(1000))
    assert len(rendering.render_dataset(run)) == run.recordings * 14


def test_a_file_shorter_than_its_header_says_is_named(tmp_path):
    home = tmp_path / "sounds"
    home.mkdir()
    for i in range(3):
        soundfile.write(
            home / f"{i}.mp3", np.random.default_rng(i).standard_normal(44_100 * 6) * 0.1, 44_100
        )
    whole = (home / "1.mp3").read_bytes()
    (home / "1.mp3").write_bytes(whole[: len(whole) // 2])
    assert soundfile.info(home / "1.mp3").duration > 5.9, (
        "the header no longer lies: this test says nothing"
    )
    run = config.load(
        "tiny",
        profile="cut",
        corpus="folder",
        corpus_path=str(home),
        recordings=0,
        chain_plan="singles",
        slice_seconds=2.0,
    )
    with pytest.raises(
        PaperError, match=r"1\.mp3: holds 1 slices, although its header promises [23]"
    ):
        rendering.render_dataset(run)
