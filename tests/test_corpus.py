"""The three corpora behind one interface, bad audio, the split (notebook 01, sections 1 and 5)."""

import hashlib
import http.server
import io
import json
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from paper_lib import PaperError
from paper_lib.core import config, stages
from paper_lib.core.random import generator_for
from paper_lib.sound import audio, corpus, dataset, mirror, plucked, rendering, splits


def folder_run(path, **changes):
    return config.load("tiny", corpus="folder", corpus_path=str(path), recordings=0, **changes)


def test_a_performance_is_the_same_whenever_it_is_played():
    name = plucked.names()[7]
    one = plucked.play(name, 2.0)
    plucked.play(plucked.names()[3], 1.0)
    assert (
        np.array_equal(one, plucked.play(name, 2.0))
        and one.dtype == np.float32
        and len(one) == 88_200
    )


def test_the_synthetic_guitar_lies_in_the_range_of_real_clips(oracle):
    def measure(x):
        level = audio.level_db(x)
        power = np.abs(np.fft.rfft(x)) ** 2
        hertz = np.fft.rfftfreq(len(x), 1 / 44_100)
        return level, 20 * np.log10(np.abs(x).max()) - level, (hertz * power).sum() / power.sum()

    real = np.array(
        [measure(audio.read(p, 44_100)) for p in sorted((oracle / "clean").glob("*.wav"))]
    )
    comps = [n for n in plucked.names()[:60] if n.endswith("comp")][::3]
    ours = np.array([measure(plucked.play(n, 5.0)) for n in comps])
    # dB, dB, Hz: the medians of ours within the real ones' range and this much
    slack = np.array([3.0, 3.0, 120.0])
    median = np.median(ours, axis=0)
    assert (median > real.min(0) - slack).all() and (median < real.max(0) + slack).all()


def test_a_note_has_its_pitch():
    sound = plucked.note(57, 1.0, 1.0, plucked.PLAYERS[0], np.random.default_rng(0))  # A3, 220 Hz
    spectrum = np.abs(np.fft.rfft(sound[2000:] * np.hanning(len(sound) - 2000), 1 << 18))
    hertz = np.fft.rfftfreq(1 << 18, 1 / 44_100)
    low = (hertz > 180) & (hertz < 260)
    assert hertz[low][spectrum[low].argmax()] == pytest.approx(220, abs=1.0)


def test_a_manner_of_nothing_changes_no_note_and_a_free_one_does():
    style, rng = plucked.STYLES["Jazz"], generator_for(0, "notes")
    notes = list(plucked.comping(style, 50, 8, rng))
    plain = plucked.Manner(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    taken = list(plucked.freely(iter(notes), plain, False, generator_for(0, "free")))
    assert taken == [(*note, 0.0, 0.0) for note in notes]
    tuned = replace(plain, tuned=1, cents=20.0, muted=1.0)
    for one, note in zip(
        plucked.freely(iter(notes), tuned, False, generator_for(0, "free")), notes, strict=True
    ):
        assert one[1] == pytest.approx(note[1] - 0.8) and one[2] <= 0.12
    first = plucked.play("p0_Jazz-120-C_solo", 2.0, free=True)
    assert np.array_equal(first, plucked.play("p0_Jazz-120-C_solo", 2.0, free=True))
    assert not np.array_equal(first, plucked.play("p0_Jazz-120-C_solo", 2.0))


def test_a_slide_begins_beside_its_pitch_and_ends_on_it():
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    slid = plucked.slid(tone, 2.0, seconds=0.2)
    rising = np.flatnonzero((slid[:-1] < 0) & (slid[1:] >= 0)) / 44_100
    heard = 1 / np.diff(rising)
    assert heard[0] == pytest.approx(440 * 2 ** (2 / 12), rel=0.02)
    assert heard[rising[1:] > 0.25][:100] == pytest.approx(440, rel=0.02)


def test_the_first_sixty_performances_are_balanced():
    found = corpus.recordings(config.load("quick", recordings=60))
    assert len({r.name for r in found}) == 60
    assert set(Counter((r.player, r.style, r.part) for r in found).values()) == {1}


def test_guitarset_names_are_read(tmp_path, make_tone):
    for name in (
        "00_BN1-129-Eb_comp_mic.wav",
        "05_Jazz3-137-Eb_solo_mic.wav",
        "05_Jazz3-137-Eb_solo_mix.wav",
    ):
        make_tone(tmp_path / name, 1.5)
    found = corpus.recordings(config.load("paper", corpus_path=str(tmp_path)))
    assert [(r.name, r.player, r.style, r.part) for r in found] == [
        ("00_BN1-129-Eb_comp", "00", "BN", "comp"),
        ("05_Jazz3-137-Eb_solo", "05", "Jazz", "solo"),
    ]
    with pytest.raises(PaperError, match="paper fetch guitarset"):
        corpus.recordings(
            config.load("paper", corpus_path=str(tmp_path), guitarset_audio="audio_hex_original")
        )


@pytest.mark.parametrize("wrong", ["", "archive", "file"])
def test_guitarset_comes_through_mirdata_with_its_checksums(
    tmp_path, make_tone, serve, monkeypatch, wrong
):
    from mirdata.core import Index
    from mirdata.datasets import guitarset
    from mirdata.download_utils import RemoteFileMetadata

    name, md5 = "00_Funk1-114-Ab_comp_mic.wav", lambda data: hashlib.md5(data).hexdigest()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(make_tone(tmp_path / "x.wav", 1.2), name)
    file = b"other bytes" if wrong == "file" else (tmp_path / "x.wav").read_bytes()
    index = json.dumps(
        {
            "version": "1",
            "tracks": {
                "00_Funk1-114-Ab_comp": {"audio_mic": [f"audio_mono-mic/{name}", md5(file)]}
            },
        }
    ).encode()
    files = {"/mic.zip": buffer.getvalue(), "/index.json": index}

    class Mirror(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[self.path])))
            self.end_headers()
            self.wfile.write(files[self.path])

        def log_message(self, *_):
            pass

    address = serve(Mirror)
    local = Index("index.json", f"{address}/index.json", md5(index))
    local.indexes_dir = local.remote.destination_dir = str(tmp_path)
    monkeypatch.setitem(guitarset.INDEXES, guitarset.INDEXES["default"], local)
    sum_ = "0" * 32 if wrong == "archive" else md5(buffer.getvalue())
    monkeypatch.setitem(
        guitarset.REMOTES,
        "audio_mic",
        RemoteFileMetadata("audio_mono-mic.zip", f"{address}/mic.zip", sum_, "audio_mono-mic"),
    )
    run = config.load("paper", corpus_path=str(tmp_path / "home"))
    if wrong:
        with pytest.raises(
            PaperError,
            match={"archive": "could not be fetched", "file": "1 files of GuitarSet are altered"}[
                wrong
            ],
        ):
            corpus.fetch_guitarset(run)
    else:
        assert corpus.fetch_guitarset(run).startswith(
            "1 recordings of GuitarSet (audio_mic), checksums right"
        )
        assert corpus.recordings(run)[0].style == "Funk"


def index_of(monkeypatch, tmp_path, module, tracks: dict[str, str]) -> None:
    """Let a data set of mirdata have these tracks: name -> file below its home."""
    from mirdata.core import Index

    content = {"version": "1", "tracks": {k: {"audio": [v, None]} for k, v in tracks.items()}}
    (tmp_path / "index.json").write_text(json.dumps(content))
    local = Index("index.json")
    local.indexes_dir = str(tmp_path)
    monkeypatch.setitem(module.INDEXES, module.INDEXES["default"], local)


def test_recorded_effects_of_folders_in_egfxsets_shape(tmp_path, make_tone, monkeypatch):
    from mirdata.datasets import egfxset

    monkeypatch.setenv("PAPER_DATA", str(tmp_path))
    assert mirror.recorded_effects("egfxset").empty  # it is not there
    names = [f"{e}/Bridge/1-{n}" for e in ("Clean", "RAT", "TapeEcho") for n in (0, 1)]
    tracks = {n.replace("/", "_", 1): f"{n}.wav" for n in [*names, "RAT/Neck/1-0"]}
    index_of(monkeypatch, tmp_path, egfxset, tracks)
    for name in names:  # (one that the index knows is missing)
        (tmp_path / "egfxset" / name).parent.mkdir(parents=True, exist_ok=True)
        make_tone(tmp_path / "egfxset" / f"{name}.wav", 0.2)
    found = mirror.recorded_effects("egfxset")
    assert found.effect.tolist() == 2 * ["dry"] + 2 * ["distortion"] + 2 * ["feedback_delay"]
    few = mirror.recorded_effects("egfxset", of_each=1)
    assert few.effect.tolist() == ["dry", "distortion", "feedback_delay"]
    assert few.equals(mirror.recorded_effects("egfxset", of_each=1))


def test_recorded_effects_of_folders_in_idmts_shape(tmp_path, make_tone, monkeypatch):
    from mirdata.datasets import idmt_smt_audio_effects as idmt

    monkeypatch.setenv("PAPER_DATA", str(tmp_path))
    files = {"G61-40100-2221-00001": 22, "G61-40100-3351-00002": 35, "G61-40100-1111-00003": 11}
    lists = "<listinformation><listID>1</listID></listinformation>"
    tracks = {}
    for folder, letter in (("Gitarre monophon", "G"), ("Bass monophon", "B")):
        samples = tmp_path / "idmt_smt_audio_effects" / folder / "Samples"
        samples.mkdir(parents=True)
        for name, kind in files.items():
            own = name.replace("G", letter)
            tracks[own] = f"{folder}/Samples/{own}.wav"
            make_tone(samples / f"{own}.wav", 0.2)
            lists += (
                f"<audiofile><fileID>{own}</fileID><instrument>{own[:3]}</instrument><midinr>40"
                f"</midinr><fxgroup>{kind // 10}</fxgroup><fxtype>{kind}</fxtype><fxsetting>1"
                "</fxsetting></audiofile>"
            )
    (samples.parent / "list.xml").write_text(f"<all>{lists}</all>")
    index_of(monkeypatch, tmp_path, idmt, tracks)
    found = mirror.recorded_effects("idmt_smt_audio_effects")
    assert found.effect.tolist() == ["dry", "slapback_delay"]  # neither vibrato nor bass
    assert all("Gitarre" in path for path in found.path)


def test_a_folder_of_any_rate_channels_and_length(tmp_path, make_tone):
    make_tone(tmp_path / "a.wav", 2.7, 48_000, 2)
    make_tone(tmp_path / "b.flac", 1.0, 22_050)
    make_tone(tmp_path / "c.ogg", 3.1, 44_100, 1)
    run = folder_run(tmp_path)
    found = sorted(corpus.recordings(run), key=lambda r: r.name)
    assert [corpus.slices(corpus.load(r, run), run).shape for r in found] == [
        (2, 44_100),
        (1, 44_100),
        (3, 44_100),
    ]
    assert [corpus.slice_count(r, run) for r in found] == [2, 1, 3]
    assert audio.level_db(corpus.load(found[0], run)) == pytest.approx(
        audio.level_db(corpus.load(found[1], run)), abs=0.1
    )


def bad(path, kind) -> None:
    if kind == "text":
        path.write_text("this is no audio")
    elif kind == "empty":
        soundfile.write(path, np.zeros(0), 44_100)
    elif kind == "nan":
        soundfile.write(path, np.full(60_000, np.nan), 44_100, subtype="FLOAT")
    elif kind == "short":
        soundfile.write(path, np.zeros(4000), 44_100)


@pytest.mark.parametrize(
    "kind, words",
    [
        ("text", "not readable as audio"),
        ("empty", "holds no samples"),
        ("nan", "NaN"),
        ("short", "lasts 0.09 s, but at least 1 s"),
    ],
)
def test_bad_audio_is_named_with_the_remedy(tmp_path, kind, words):
    bad(tmp_path / "bad.wav", kind)
    with pytest.raises(PaperError, match=words) as said:
        corpus.load(corpus.recordings(folder_run(tmp_path))[0], folder_run(tmp_path))
    assert "bad.wav" in str(said.value)


def test_empty_folder_missing_folder_and_twins(tmp_path, make_tone):
    with pytest.raises(PaperError, match="holds no audio file"):
        corpus.recordings(folder_run(tmp_path))
    with pytest.raises(PaperError, match="is not a folder"):
        corpus.recordings(folder_run(tmp_path / "nowhere"))
    make_tone(tmp_path / "a.wav", 1.0)
    make_tone(tmp_path / "a.flac", 1.0)
    with pytest.raises(PaperError, match="two files called a"):
        corpus.recordings(folder_run(tmp_path))


# --- the split ------------------------------------------------------------------------------------


def splits_of(run) -> dict[str, str]:
    all_of_them = corpus.split_of(run)
    return {r.name: all_of_them[r.name] for r in corpus.recordings(run)}


@pytest.mark.parametrize("n", [3, 4, 7, 20, 41, 60, 100, 240, 333, 720])
def test_recordings_stay_whole_and_shares_are_70_15_15(n):
    run = config.load("quick", recordings=n)
    found = corpus.recordings(run)
    given = splits_of(run)
    count = Counter(given.values())
    assert len(found) == len(given) == n and sum(count.values()) == n
    for split in ("validation", "test"):
        assert count[split] >= 1 and abs(count[split] - 0.15 * n) <= 1
    if n >= 60:  # each of the ten strata (style x part) near its share
        for split, share in splits.SHARES.items():
            strata = Counter((r.style, r.part) for r in found if given[r.name] == split)
            worst = max(
                abs(strata[s, p] - share * n / 10) for s in plucked.STYLES for p in ("comp", "solo")
            )
            assert worst <= (1.01 if n == 60 else 3.0 if n % 60 else 2.5)


@pytest.mark.parametrize(
    "few, many", [(3, 4), (7, 41), (60, 100), (100, 240), (60, 61), (241, 333), (240, 720)]
)
def test_a_larger_run_keeps_the_recordings_and_splits_of_a_smaller_one(few, many):
    small, large = (splits_of(config.load("quick", recordings=n)) for n in (few, many))
    assert small.items() <= large.items()


def test_a_part_of_guitarset_is_balanced_and_not_one_player(tmp_path):
    """Players, styles and parts as in the 360 files.

    An alphabetical prefix of 60 would be player 00 alone.
    """
    styles = [f"{style}{i}" for style in ("BN", "Funk", "Jazz", "Rock", "SS") for i in (1, 2, 3)]
    names = [
        f"{p:02d}_{s}-{100 + t}-C_{part}"
        for p in range(6)
        for t in (0, 9)
        for s in styles
        for part in ("comp", "solo")
    ]
    for name in names:
        (tmp_path / f"{name}_mic.wav").touch()
    assert len(names) == 360
    for n in (30, 60, 77):
        run = config.load("paper", corpus_path=str(tmp_path), recordings=n)
        found = corpus.recordings(run)
        for facts in ("player", "style", "part"):
            count = Counter(getattr(r, facts) for r in found)
            assert len(count) == {"player": 6, "style": 5, "part": 2}[facts]
            assert max(count.values()) - min(count.values()) <= {30: 3, 60: 2, 77: 5}[n], (
                n,
                facts,
                count,
            )
        whole = splits_of(config.load("paper", corpus_path=str(tmp_path)))
        assert splits_of(run).items() <= whole.items()


def test_no_test_recording_was_heard_in_training(small):
    _, data, _ = small
    by_split = {s: set(data.index.recording[data.rows(s)]) for s in dataset.SPLITS}
    assert (
        all(by_split.values())
        and not by_split["train"] & by_split["test"]
        and not by_split["validation"] & (by_split["train"] | by_split["test"])
    )


def test_by_clip_leaks_as_it_is_meant_to():
    data = rendering.render_dataset(config.load("tiny", split="by_clip"))
    assert set(data.index.recording[data.rows("test")]) <= set(
        data.index.recording[data.rows("train")]
    )
    assert len(data.rows("train")) / len(data) == pytest.approx(0.7, abs=0.01)


def test_too_few_recordings_to_split():
    with pytest.raises(PaperError, match="3 or more are needed"):
        splits.assign(corpus.everything(config.load("quick"))[:2], 0)


def test_a_missing_or_damaged_data_set_is_named():
    with pytest.raises(PaperError, match="run notebook 01_render_dataset first"):
        dataset.load(config.load("quick"))
    data = rendering.render_dataset(config.load("tiny", chain_plan="singles"))
    (data.folder / "audio.npy").write_bytes(b"half a file")
    with pytest.raises(PaperError, match="damaged"):
        dataset.load(config.load("tiny"))
    assert stages.read(data.folder)
