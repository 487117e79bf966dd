"""The corpora beside `plucked`: what lies between string and file, other guitars, sampled ones."""

import shutil

import numpy as np
import pytest

from paper_lib import PaperError
from paper_lib.core import config
from paper_lib.core.random import generator_for
from paper_lib.sound import audio, corpus, plucked, rendering, sampled, splits, variation

RATE = 44_100
NOISE = generator_for(0, "noise").standard_normal(RATE)


def gain_db(before: np.ndarray, after: np.ndarray, hz: float) -> float:
    """Of a filter around one frequency, from what it made of noise."""
    spectra = [np.abs(np.fft.rfft(x)) ** 2 for x in (before, after)]
    around = slice(int(hz * 0.97), int(hz * 1.03) + 1)  # (one second: bins of 1 Hz)
    return 10 * np.log10(spectra[1][around].sum() / spectra[0][around].sum())


def test_a_pickup_is_a_comb():
    out = variation.pickup(NOISE, RATE, delay=1e-3, depth=0.5)
    assert gain_db(NOISE, out, 1000) == pytest.approx(20 * np.log10(0.5), abs=0.3)
    assert gain_db(NOISE, out, 500) == pytest.approx(20 * np.log10(1.5), abs=0.3)


def test_an_equalizer_goes_through_its_points_and_delays_nothing():
    assert np.allclose(variation.equalizer(NOISE, RATE, np.zeros(6)), NOISE, atol=1e-6)
    out = variation.equalizer(NOISE, RATE, np.array([0, 0, 6, -6, 3, 3.0]))
    for hz, wanted in zip(np.geomspace(60, 16_000, 6)[2:5], (6, -6, 3), strict=True):
        assert gain_db(NOISE, out, hz) == pytest.approx(wanted, abs=0.7)


def test_a_room_is_as_loud_as_it_says_and_over_when_it_says():
    click = np.zeros(RATE)
    click[0] = 1.0
    out = variation.room(click, RATE, decay=0.2, wet_db=-20.0, rng=generator_for(0, "room"))
    wet = out - click
    assert 10 * np.log10(np.sum(wet**2)) == pytest.approx(-20, abs=1e-6)
    assert (
        not np.abs(wet[int(0.2 * RATE) + 1 :]).max() > 1e-9
        and wet[: int(0.001 * RATE)].max() < 1e-9
    )
    first, last = (np.sum(wet[int(a * RATE) : int((a + 0.05) * RATE)] ** 2) for a in (0.02, 0.12))
    assert 10 * np.log10(first / last) == pytest.approx(30, abs=3)  # 60 dB in 0.2 s


def test_hum_is_at_mains_and_odd_harmonics():
    out = variation.hum(RATE, RATE, 50.0, -60.0)
    spectrum = np.abs(np.fft.rfft(out))
    assert audio.level_db(out) == pytest.approx(-60, abs=0.01)
    assert sorted(np.argsort(spectrum)[-4:]) == [50, 150, 250, 350]


def test_a_varied_corpus_has_the_same_performances_and_splits_and_other_sound():
    plain, varied = (config.load("tiny", corpus=c) for c in ("plucked", "varied"))
    assert corpus.recordings(plain) == corpus.recordings(varied)
    assert corpus.split_of(plain) == corpus.split_of(varied)
    levels = []
    for recording in corpus.recordings(varied):
        one = corpus.load(recording, varied)
        assert one.dtype == np.int16 and np.array_equal(one, corpus.load(recording, varied))
        assert np.abs(one.astype(int)).max() < 0.96 * 32768
        levels.append(audio.level_db(one))
        same = corpus.load(recording, plain)
        assert len(one) == len(same) and not np.array_equal(one, same)
    assert np.ptp(levels) > 4 and min(levels) > -43 and max(levels) < -17


def test_a_part_left_out_changes_no_other_draw():
    sound = (0.1 * NOISE).astype(np.float32)
    vary = lambda seed, without="": variation.vary(
        sound, RATE, generator_for(seed, "vary"), without=without
    )
    whole = vary(0)
    others = {part: vary(0, part) for part in variation.PARTS}
    assert not any(
        np.array_equal(whole, x) for p, x in others.items() if p not in ("pickup", "hum")
    )
    # (half of the recordings have a comb, a third a hum)
    for part, share in (("pickup", 0.5), ("hum", 0.3)):
        same = np.mean([np.array_equal(vary(i), vary(i, part)) for i in range(40)])
        assert same == pytest.approx(1 - share, abs=0.25)
    levels = [audio.level_db(vary(i, "level")) for i in range(8)]
    assert np.ptp(levels) < 0.6 and np.mean(levels) == pytest.approx(-29, abs=0.5)
    far = variation.vary(np.zeros(RATE, np.float32), RATE, generator_for(0, "x"), variation.OTHER)
    assert -62 < audio.level_db(far) < -46  # nothing is left but a louder noise


def test_nothing_is_trained_on_the_other_guitars():
    heard = {corpus.PERFORMANCE.match(n)["player"] for n in plucked.names()}
    other = config.load("tiny", corpus="other", recordings=30)
    players = {r.player for r in corpus.recordings(other)}
    assert players == {"p6", "p7", "p8"} and not players & heard
    assert len(corpus.everything(other)) == 360 == len({r.name for r in corpus.everything(other)})
    assert not set(plucked.OTHERS) & set(plucked.PLAYERS)


def test_another_take_is_other_music_on_the_same_guitar():
    """The colour that a recording's draws give it is its takes' too."""
    run = config.load("tiny", corpus="varied")
    recordings = corpus.recordings(run)[:4]
    spectrum = lambda x: np.log(np.abs(np.fft.rfft(audio.to_float(x), 8 * RATE))[: 4 * RATE] + 1e-3)
    bands = lambda x: np.array([b.mean() for b in np.array_split(spectrum(x)[: 4 * 8000], 24)])
    first = np.array([bands(corpus.load(r, run)) for r in recordings])
    takes = np.array([bands(corpus.another_take(r, run)) for r in recordings])
    assert not np.array_equal(first, takes)
    distance = np.abs(first[:, None] - takes[None]).mean(2)
    assert (distance.argmin(1) == np.arange(4)).sum() >= 3


def test_without_fluidsynth_the_sampled_guitars_say_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PaperError, match=r"sampled guitars are off.*apt-get install fluidsynth"):
        rendering.stage(config.load("tiny", corpus="sampled"), [])


def test_the_mixed_corpus_is_half_sampled_in_every_split():
    run = config.load("tiny", corpus="mixed", recordings=120)
    found = corpus.recordings(run)
    share = np.mean([r.name.startswith("s") for r in found])
    assert share == 0.5 and len(corpus.everything(run)) == 1440
    split = corpus.split_of(run)
    for name in splits.SHARES:
        of = [r.name.startswith("s") for r in found if split[r.name] == name]
        assert 0.2 < np.mean(of) < 0.8


def test_a_sampled_performance_is_in_tune_and_the_same_again():
    try:
        sampled.fonts()
    except PaperError as problem:
        pytest.skip(str(problem))
    name = next(n for n in sampled.names() if "-A_solo" in n)
    one = sampled.play(name, 2.0)
    assert np.array_equal(one, sampled.play(name, 2.0))
    assert one.dtype == np.float32 and len(one) == 2 * RATE and audio.level_db(one) > -36
    # energy lies on the notes of the scale: at the equal-tempered pitches, not between them
    power = np.abs(np.fft.rfft(one * np.hanning(len(one)), 8 * RATE)) ** 2
    hertz = np.fft.rfftfreq(8 * RATE, 1 / RATE)
    band = (hertz > 100) & (hertz < 1000)
    cents = (1200 * np.log2(hertz[band] / 440)) % 100
    near = np.minimum(cents, 100 - cents) < 25
    assert power[band][near].sum() > 2.5 * power[band][~near].sum()
