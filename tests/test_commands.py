"""The command line as a stranger meets it: what it prints, what it refuses, how it exits."""

import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from paper_lib import PaperError
from paper_lib.app import publish
from paper_lib.core import machine, paths, stages
from paper_lib.core.random import generator_for
from paper_lib.evaluation import scores
from paper_lib.recognition import finetune, recognize
from paper_lib.recognition import model as models
from paper_lib.recognition.peers import MelRecognizer, spectrum
from paper_lib.sound import audio, dataset, effects


def fails(done, *words):
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    last = [line for line in done.stderr.strip().splitlines() if line.startswith("paper:")]
    assert len(last) == 1 and all(word in last[0] for word in words), done.stderr


@pytest.mark.slow
def test_doctor_finds_everything_here_and_names_what_is_missing(command, tmp_path):
    done = command("doctor")
    assert done.returncode == 0, done.stdout
    assert "SoX 14.4.2" in done.stdout and "torchaudio imports" in done.stdout
    (tmp_path / "bin").mkdir()
    done = command("doctor", PATH=str(tmp_path / "bin"))
    assert done.returncode == 1 and "NOT  SoX not found: install SoX 14.4.2" in done.stdout


@pytest.mark.slow
def test_plan_counts_clips_disk_and_time(command):
    done = command("plan", "-p", "quick")
    assert done.returncode == 0, done.stderr
    assert "240 slices x 12 chains = 2,880 clips, 0.91 GB on disk" in done.stdout
    assert re.search(r"altogether, about\s+\d+ (s|min)", done.stdout)


def test_render_is_the_oracles_renderer(command, oracle, tmp_path):
    done = command(
        "render",
        oracle / "clean" / "00_BN1-129-Eb_comp_1.wav",
        tmp_path / "out.wav",
        "--chain",
        "overdrive,flanger,reverb,slapback_delay,high_boost",
        "--lead",
        0,
    )
    assert done.returncode == 0, done.stderr
    ours, rate = soundfile.read(tmp_path / "out.wav", dtype="int16")
    theirs, _ = soundfile.read(
        oracle / "rendered" / "overdrive_flanger_reverb_sbdelay_hiboost.wav", dtype="int16"
    )
    assert rate == 44_100 and np.array_equal(theirs, ours)


@pytest.mark.slow
def test_a_rendered_file_does_not_begin_with_soxs_click(command, tmp_path):
    soundfile.write(tmp_path / "nothing.wav", np.zeros(22_050), 44_100)
    for lead, loudest in (((), (0, 2)), (("--lead", 0), (1000, 5000))):
        files = (tmp_path / "nothing.wav", tmp_path / "out.wav")
        assert command("render", *files, "--chain", "overdrive", *lead).returncode == 0
        peak = np.abs(soundfile.read(files[1], dtype="int16")[0].astype(int)).max()
        assert loudest[0] <= peak <= loudest[1]


@pytest.mark.slow
def test_render_refuses_with_one_sentence(command, tmp_path, make_tone):
    tone = make_tone(tmp_path / "a.wav", 1.0)
    fails(
        command("render", tone, tmp_path / "b.wav", "--chain", "reverb", "--lead", -1),
        "--lead is -1",
    )
    fails(
        command("render", tone, tmp_path / "b.wav", "--chain", "fuzz"),
        "unknown effect 'fuzz'",
        "overdrive",
    )
    fails(
        command("render", tmp_path / "none.wav", tmp_path / "b.wav", "--chain", "reverb"),
        "none.wav",
        "no such audio file",
    )
    fails(
        command("render", tone, tmp_path / "no" / "b.wav", "--chain", "reverb"),
        "could not be written",
    )
    (tmp_path / "text.wav").write_text("text")
    fails(
        command("render", tmp_path / "text.wav", tmp_path / "b.wav", "--chain", "reverb"),
        "text.wav",
        "not readable",
    )
    assert not (tmp_path / "b.wav").exists()
    before = tone.read_bytes()
    fails(command("render", tone, tone, "--chain", "reverb"), "a.wav is the input itself")
    assert tone.read_bytes() == before


@pytest.mark.slow
def test_recognize_takes_any_recording_and_speaks_json(command, small, tmp_path, make_tone):
    run, data, _ = small
    finetune.starting_point(run, data).save_pretrained(tmp_path / "model")
    tone = make_tone(tmp_path / "a.flac", 7.8, 48_000, 2)
    done = command("recognize", tone, "--json", "--model", tmp_path / "model", "--window", 5)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["files"][str(tone)]
    rows = [one["probabilities"] for one in answer["windows"]]
    assert len(rows) == 2 and all(list(row) == list(effects.NAMES) for row in rows)
    for name, mean in answer["overall"]["probabilities"].items():
        assert 0 <= mean <= 1 and mean == pytest.approx(
            (rows[0][name] + rows[1][name]) / 2, abs=1e-4
        )
    assert "0.00 s" in command("recognize", tone, "--model", tmp_path / "model").stdout
    fails(command("recognize", tone, "--model", tmp_path / "nothing"), "no recognizer in")
    fails(command("recognize", tone, "--model", tmp_path / "model", "--window", 0), "window")
    cut = make_tone(tmp_path / "cut.wav", 3.0)
    cut.write_bytes(cut.read_bytes()[:-1000])
    fails(command("recognize", cut, "--model", tmp_path / "model"), "shorter than its header says")


def test_a_stream_is_answered_window_by_window_as_its_file_would_be(tmp_path, make_tone):
    heard = []

    class Ear(torch.nn.Module):
        def forward(self, x):
            heard.append(x)
            return torch.full((1, 13), float(x.abs().mean()))

    file = make_tone(tmp_path / "a.wav", 2.6, 16_000, 2)
    wav = bytearray(file.read_bytes())
    wav[4:8] = wav[40:44] = b"\xff\xff\xff\x7f"  # as a recorder writes that cannot know the end
    whole = recognize.recognize(Ear(), file, 1.0)
    pipe = io.BytesIO(bytes(wav))
    answers = recognize.stream(Ear(), pipe, 1.0)
    first = next(answers)
    assert pipe.tell() <= 44 + 4 * 16_000  # nothing of the second window was read for the first
    for one, other in zip([first, *answers], whole, strict=True):
        assert one[0] == other[0] == "" and np.allclose(one[1], other[1], atol=1e-6)
    assert len(whole) == 3 and all(x.shape == (1, 16_000) for x in heard)
    for window, hop in ((1.0, 0.25), (1.0, 0.5), (1.0, 0.9), (2.01, 0.3)):  # that overlap
        each = [row[0] for _, row in recognize.recognize(Ear(), file, window, hop=hop)]
        live = [row[0] for _, row in recognize.stream(Ear(), io.BytesIO(wav), window, hop=hop)]
        assert len(each) == len(live) >= 3 and np.allclose(each, live, atol=1e-4)
    with pytest.raises(PaperError, match="leave no gap"):
        recognize.recognize(Ear(), file, 1.0, hop=2.0)
    with pytest.raises(PaperError, match="standard input is no WAV"):
        next(recognize.stream(Ear(), io.BytesIO(b"not audio at all"), 1.0))


def test_what_cannot_be_told_is_said_and_one_effect_of_a_group_named(tmp_path):
    loud = np.sin(np.arange(32_000) / 20).astype(np.float32)
    hiss = 1e-5 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    reasons = {"": 0.3 * loud, "silent": hiss, "clipped": np.clip(3 * loud, -1, 1)}
    for why, samples in (reasons | {"too short": loud[:4_000]}).items():
        assert recognize.cannot_tell(samples) == why
    lengths = lambda n: [len(part) for part in recognize.windows(np.zeros(n), 1.0)]
    assert lengths(40_000) == [16_000, 16_000, 8_000] and lengths(39_998) == [16_000, 16_000]
    assert lengths(3_000) == [3_000]
    sure, unsure = np.full(13, 0.9, np.float32), np.full(13, 0.2, np.float32)
    nothing = ("silent", np.full(13, np.nan, np.float32))
    why, mean = recognize.overall([("", sure), nothing, ("", unsure)])
    assert why == "" and mean == pytest.approx(np.full(13, 0.55))  # what cannot be told is left out
    assert recognize.overall([nothing, nothing, ("clipped", sure)])[0] == "silent"
    probability = np.zeros(13)
    probability[[0, 1, 6]] = 0.7, 0.9, 0.8  # overdrive and distortion exclude each other
    assert recognize.named(probability) == ["distortion", "reverb"]
    thresholds = np.full(13, 0.5)
    thresholds[1] = 0.85
    assert recognize.named(probability, thresholds) == ["reverb", "overdrive"]


def test_a_recognizer_is_released_with_its_temperature_in_its_weights(small, tmp_path):
    run, data, _ = small
    model = MelRecognizer().eval()
    validation = data.rows("validation")
    truth = data.labels[validation]
    logits = 8 * (truth - 0.5) + generator_for(0, "release").normal(0, 4, truth.shape)
    target = tmp_path / "weights"
    target.mkdir()
    (target / "README.md").write_text("the card")
    samples = torch.from_numpy(data.clips(validation[:2]))
    with torch.no_grad():
        before = model(samples)
        publish.release(model, logits, data, run, target)
        after = models.load(target, MelRecognizer)(samples)
    record = json.loads((target / "release.json").read_text())
    assert torch.allclose(before, after * record["temperature"], atol=1e-5)
    assert record["temperature"] == pytest.approx(scores.temperature(truth, logits), abs=1e-3)
    assert len(record["thresholds"]) == 13 and set(record["recordings"]) == set(dataset.SPLITS)
    assert (target / "README.md").read_text() == "the card"
    name = "model.safetensors"
    assert stages.digest(target / name) == record["sha256"][name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["codec", "cnn", "cnn_dry"])
def test_an_onnx_file_answers_as_the_recognizer_does(command, tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    target = tmp_path / "it.onnx"
    done = command("export", target, "--model", name)
    assert done.returncode == 0 and "within" in done.stdout, done.stderr
    session = onnxruntime.InferenceSession(target)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["effects"]) == list(effects.NAMES) and len(about) == 3
    clip = soundfile.read(sorted((paths.REAL / "guitarset").glob("*.flac"))[0], dtype="float32")[0]
    clip = audio.resample(clip, 44_100, 16_000)[None, :80_000].astype(np.float32)
    kind = () if name == "codec" else (name, MelRecognizer)
    model = models.released(*kind)[0]
    given = {"samples": clip}
    if name == "cnn_dry":
        given["dry"] = spectrum(model.mel, clip[0])[None]
    with torch.no_grad():
        wanted = torch.sigmoid(model(*(torch.from_numpy(x) for x in given.values()))).numpy()
    assert np.abs(session.run(None, given)[0] - wanted).max() < 1e-4


@pytest.mark.slow
def test_a_dry_reference_is_heard_and_asks_for_no_other_model(command, tmp_path, make_tone):
    real = sorted((paths.REAL / "guitarset").glob("*.flac"))
    wet = tmp_path / "wet.wav"
    assert command("render", real[0], wet, "--chain", "low_boost").returncode == 0
    done = command("recognize", wet, "--dry", real[1], "--json")
    assert done.returncode == 0, done.stderr
    plain = command("recognize", wet, "--dry", wet, "--json")
    assert json.loads(done.stdout) != json.loads(plain.stdout)  # the reference is heard
    fails(command("recognize", wet, "--dry", real[1], "--model", "cnn"), "--dry asks a network")
    fails(command("recognize", wet, "--dry", tmp_path / "no.wav"), "no.wav")


@pytest.mark.slow
def test_standard_input_speaks_json_too(tmp_path, make_tone):
    file = make_tone(tmp_path / "a.wav", 2.0, 16_000)
    done = subprocess.run(
        [sys.executable, "-m", "paper_lib", "recognize", "-", "--json", "--model", "cnn"],
        input=file.read_bytes(), capture_output=True, cwd=paths.ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["files"]) == ["-"]


@pytest.mark.slow
def test_unknown_profile_notebook_and_reference(command):
    fails(command("plan", "-p", "huge"), "no profile 'huge'")
    fails(
        command("reproduce", "-p", "tiny", "--from", "99"),
        "no notebook begins with '99'",
        "01_render_dataset",
    )
    fails(
        command("verify", "-p", "tiny"), "no reference run is published for profile 'tiny'", "quick"
    )
    fails(command("verify", "-p", "quick"), "there is no run of 'quick' to verify")


def test_reproduce_without_sox_stops_at_once(command, tmp_path):
    fails(
        command("reproduce", "-p", "tiny", PATH=str(tmp_path)),
        "SoX is not installed",
        "apt-get install sox",
    )


@pytest.mark.slow
def test_a_failing_cell_is_named_and_an_earlier_stage_is_asked_for(command):
    done = command("reproduce", "-p", "tiny", "--from", "03")
    fails(done, "notebook 03_fine_tuning, cell [2] failed", "run notebook 01_render_dataset first")


@pytest.fixture
def no_torchaudio():
    """No torchaudio among the loaded modules.

    Whatever the test loads under that name is gone afterwards.
    """
    loaded = {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if name.partition(".")[0] == "torchaudio"
    }
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio"]:
        del sys.modules[name]
    sys.modules.update(loaded)


def test_a_cuda_only_torchaudio_is_mended_and_said(tmp_path, monkeypatch, no_torchaudio):
    """A stand-in package that fails at import like the real wheel beside a CPU build of torch."""
    package = tmp_path / "torchaudio"
    (package / "lib").mkdir(parents=True)
    (package / "lib" / "_torchaudio.abi3.so").write_bytes(b"")
    (package / "__init__.py").write_text(
        "import pathlib\n"
        "if list((pathlib.Path(__file__).parent / 'lib').glob('*.so')):\n"
        "    raise OSError('libc10_cuda.so: cannot open shared object file')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = machine.mend_torchaudio()
    assert "mended" in said and "CUDA-only" in said and "(1 files" in said
    sys.modules.pop("torchaudio", None)
    assert machine.mend_torchaudio() == "torchaudio imports"


def test_torchaudio_works_where_it_is_used():
    """In a process of its own: mel filter bank and resampling run without the native library."""
    import subprocess

    code = (
        "import torch, torchaudio; "
        "print(torchaudio.transforms.MelSpectrogram(16000)(torch.ones(1, 16000)).shape[1])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
    assert done.stdout.strip() == "128"
