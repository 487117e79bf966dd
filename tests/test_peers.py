"""The listeners without a codec (notebook 09), and the real clips that all are asked about."""

import numpy as np
import pytest
import soundfile
import torch

from paper_lib import PaperError
from paper_lib.core import paths
from paper_lib.core.random import generator_for
from paper_lib.recognition import features, peers
from paper_lib.recognition import model as models
from paper_lib.sound import corpus, pedals, rendering


@pytest.mark.parametrize("recurrent", [False, True])
def test_audio_and_its_spectrogram_get_the_same_answer(recurrent):
    model = peers.MelRecognizer(recurrent).eval()
    x = torch.from_numpy(generator_for(0, "noise").standard_normal((2, 16_000)).astype(np.float32))
    with torch.no_grad():
        assert torch.allclose(model(x), model(model.mel.lower(x)))
        one = model(x[:1])  # a clip's answer does not hang on its neighbours
    assert torch.allclose(one, model(x)[:1], atol=1e-5)


def test_another_recording_is_a_level_an_equalizer_and_a_noise_floor():
    loud = np.full((64, 40), 20.0, np.float32)  # so loud that no noise matters
    changed = peers.vary(loud, generator_for(0, "a")) - loud
    assert np.ptp(changed, axis=1).max() < 1e-4 < np.ptp(changed, axis=0).min()
    bends = np.abs(np.diff(changed[:, 0], 2)) > 1e-4  # straight between five points
    assert 1 <= bends.sum() <= 6
    levels = [peers.vary(loud, generator_for(0, i)).mean() - 20 for i in range(400)]
    # the level's own deviation of 1, and what the mean of five points of 0.8 adds (0.37)
    assert np.std(levels) == pytest.approx(np.hypot(1.0, 0.37), abs=0.1)
    silent = np.full((64, 40), np.log(1e-6), np.float32)
    floors = np.array([peers.vary(silent, generator_for(1, i)).mean() for i in range(100)])
    assert floors.min() > -13.5 and floors.max() < -7.4 and np.ptp(floors) > 3
    again = peers.vary(silent, generator_for(1, 0))
    assert np.array_equal(again, peers.vary(silent, generator_for(1, 0)))


def test_a_network_learns_and_a_killed_one_goes_on_to_the_same_weights(small, tmp_path):
    run, data, _ = small
    clips = features.kept(run, data, "logmel")
    assert clips.activations.shape[:2] == (len(data), 64)
    rows = data.rows("train")[:96], data.rows("validation")[:32]
    recipe = peers.Recipe(recurrent=False, varied=True, epochs=3)
    whole, history = peers.train_network(clips, recipe, rows)
    assert history.train_loss.iloc[-1] < 0.8 * 13 * np.log(2) < history.train_loss.max()
    true = peers.vary
    with pytest.MonkeyPatch.context() as patch:
        calls = []

        def killed(mel, rng):
            calls.append(1)
            if len(calls) > 130:
                raise KeyboardInterrupt
            return true(mel, rng)

        patch.setattr(peers, "vary", killed)
        with pytest.raises(KeyboardInterrupt):
            peers.train_network(clips, recipe, rows, tmp_path)
    again, _ = peers.train_network(clips, recipe, rows, tmp_path)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    whole.save_pretrained(tmp_path / "saved")
    loaded = models.load(tmp_path / "saved", peers.MelRecognizer)
    some = data.rows("test")[:3]
    assert torch.equal(
        peers.logits_of(loaded, data, some), peers.logits_of(whole.eval(), data, some)
    )


def test_the_penalty_of_the_svm_is_chosen_on_validation():
    rng = generator_for(0, "svm")
    x = rng.standard_normal((300, 60)).astype(np.float32)
    y = (x[:, :13] > 0).astype(np.float32)
    machines, history = peers.best_svm((x[:200], y[:200]), (x[200:], y[200:]))
    said = peers.svm_probabilities(machines, x[200:]) > 0.5
    assert (said == (y[200:] > 0)).mean() > 0.75
    best = history.loc[history.validation_macro_f1.idxmax(), "penalty"]
    assert best == machines.steps[-1][1].estimator.C


def test_the_real_clips_are_whole_licensed_and_in_no_corpus(small):
    run = small[0]
    files = sorted((paths.REAL / "guitarset").glob("*.flac"))
    assert [soundfile.info(f).frames for f in files] == [5 * 44_100] * 4
    card = (paths.REAL / "guitarset" / "README.md").read_text()
    assert "Attribution 4.0" in card and "Xi" in card and "10.5281/zenodo.3371780" in card
    real = corpus.real_clips(run)
    assert rendering.size(real)[:2] == (4, 4 * 51)
    names = {r.name for r in corpus.everything(real)}
    assert len(names) == 4 and not names & {r.name for r in corpus.everything(run)}


def test_a_dry_reference_cancels_the_colour_of_the_guitar():
    """What equalizes clip and reference alike leaves their difference as it was."""
    model = peers.MelRecognizer(referenced=True).eval()
    rng = generator_for(0, "dry")
    mel, dry = (torch.from_numpy(rng.normal(-4, 2, s).astype("f4")) for s in ((2, 64, 80), (2, 64)))
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    colour = torch.linspace(-3, 3, 64)
    with torch.no_grad():
        model(mel, dry)
        model(mel + colour[:, None], dry + colour)
    assert seen[0].shape == (2, 2, 64, 80) and torch.allclose(
        seen[0][:, 1], seen[1][:, 1], atol=1e-5
    )
    assert not torch.allclose(seen[0][:, 0], seen[1][:, 0])
    sine = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    loud, soft = (peers.spectrum(peers.LogMel(), a * sine) for a in (0.4, 0.04))
    assert loud.max() - soft.max() == pytest.approx(np.log(100), abs=0.01)  # 20 dB


def test_a_referenced_network_learns_on_the_references_of_its_own_clips(small, monkeypatch):
    run, data, _ = small
    dry = peers.dry_spectra(run, data)
    assert dry.shape == (len(data), 64) and len(np.unique(dry, axis=0)) == 16
    same = data.index.groupby("recording").indices.values()
    assert all(len(np.unique(dry[rows], axis=0)) == 1 for rows in same)
    clips = features.EncodedClips(data.labels, features.kept(run, data, "logmel").activations, dry)
    recipe = peers.Recipe(recurrent=False, varied=True, epochs=1)
    rows = data.rows("train")[:64], data.rows("validation")[:32]
    model, _ = peers.train_network(clips, recipe, rows)
    assert model.referenced and peers.logits_of(model, clips, rows[1]).shape == (32, 13)


def test_without_the_ladspa_plugins_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("LADSPA_PATH", str(tmp_path))
    with pytest.raises(PaperError, match=r"plugins are off, caps, tap_echo.* tap-plugins caps"):
        pedals.render(np.zeros(4_410, np.int16), 44_100, "tremolo", "LADSPA")


@pytest.mark.parametrize("maker", ["pedalboard", "LADSPA"])
def test_another_makers_effects_keep_length_and_do_what_they_say(maker):
    if maker == "LADSPA":
        try:
            pedals.require_plugins()
        except PaperError as problem:
            pytest.skip(str(problem))
    made = {"pedalboard": pedals.PEDALS, "LADSPA": pedals.LADSPA}[maker]
    render = lambda clean, effect: pedals.render(clean, 44_100, effect, maker)
    noise = generator_for(0, "pedals").standard_normal(44_100)
    clean = (3000 * noise).astype(np.int16)
    spectrum = lambda x: np.abs(np.fft.rfft(x.astype(float))) ** 2
    for effect in made:
        out = render(clean, effect)
        assert out.dtype == np.int16 and len(out) == len(clean), effect
        assert np.array_equal(out, render(clean, effect)), effect
        assert not np.array_equal(out, clean), effect
    gain = lambda effect, a, b: (
        10 * np.log10(spectrum(render(clean, effect))[a:b].sum() / spectrum(clean)[a:b].sum())
    )
    for effect, (a, b), wanted in (
        ("low_boost", (20, 60), 10),
        ("low_reduct", (20, 60), -10),
        ("high_reduct", (15_000, 20_000), -20),
    ):
        assert gain(effect, a, b) == pytest.approx(wanted, abs=1.5)
        assert gain(effect, 1000, 2000) == pytest.approx(0, abs=1.0)
    click = np.zeros(44_100, np.int16)
    click[0] = 10_000
    echo = render(click, "slapback_delay")
    first, *later = np.flatnonzero(np.abs(echo) > 1000)
    assert first == 0 and later == pytest.approx([8820], abs=2)  # 200 ms later, once
