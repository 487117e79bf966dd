"""The corpus `varied`: each part of a recording's way from string to file does what it says."""

import numpy as np
import pytest

from paper_lib.core import config
from paper_lib.core.random import generator_for
from paper_lib.sound import audio, corpus, variation

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
