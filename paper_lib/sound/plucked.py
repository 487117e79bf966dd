"""The synthetic guitar behind the embedded corpus (notebook 01, section 1).

A note is a bank of decaying partials: pick position shapes their amplitudes, stiffness stretches
their frequencies, losses set their decay, and a body resonator colours the sum. Six players, five
styles, comping and soloing, as in GuitarSet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # (scipy.signal is loaded when it is first used: it takes two seconds)

from ..core.random import generator_for

RATE = 44_100
OPEN_STRINGS = np.array([40, 45, 50, 55, 59, 64])  # MIDI, standard tuning
KEYS = ["C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"]


@dataclass(frozen=True)
class Player:
    """An instrument and a touch."""

    pick_position: float  # fraction of the string between bridge and pick
    # kHz: width of the pick as a low-pass, exp(-f / brightness) for a medium stroke
    brightness: float
    sustain: float  # s, decay time (60 dB) of a low fundamental
    stiffness: float  # inharmonicity B of the low E string: f_k = k f0 sqrt(1 + B k^2)
    pick_noise: float  # level of the pick's click
    air_mode: float  # Hz, the body's lowest resonance
    level_db: float  # RMS of a recording, dB full scale
    swing: float  # s, spread of the timing
    room_noise_db: float


PLAYERS = (
    Player(0.14, 9.0, 4.0, 4e-5, 0.16, 98, -30, 0.006, -68),
    Player(0.22, 6.0, 3.2, 6e-5, 0.07, 104, -29, 0.012, -66),
    Player(0.09, 14.0, 5.0, 3e-5, 0.22, 92, -27, 0.004, -70),
    Player(0.30, 4.5, 2.6, 8e-5, 0.05, 110, -32, 0.015, -64),
    Player(0.18, 10.0, 3.6, 5e-5, 0.19, 101, -28, 0.008, -67),
    Player(0.12, 7.0, 4.5, 4e-5, 0.11, 95, -30, 0.010, -72),
)
# three more, of strings, picks and bodies beyond those: nothing is trained on them (corpus `other`)
OTHERS = (
    Player(0.06, 16.0, 6.0, 1.2e-4, 0.30, 84, -26, 0.003, -62),
    Player(0.38, 3.5, 2.0, 1.5e-5, 0.03, 120, -31, 0.020, -70),
    Player(0.26, 12.0, 1.6, 1.0e-4, 0.25, 128, -28, 0.015, -60),
)


@dataclass(frozen=True)
class Style:
    """How a style fills a bar of eight eighths.

    Strummed hits (comp) and their accents, chords, tempo, note lengths.
    """

    tempo: tuple[int, int]
    hits: tuple[float, ...]  # in eighths
    chords: tuple[tuple[int, ...], ...]  # semitones above the key's root, one chord a bar
    hold: float  # of the time to the next hit
    arpeggio: float  # s between the strings of a chord
    scale: tuple[int, ...]
    density: float  # chance that an eighth carries a solo note


@dataclass(frozen=True)
class Manner:
    """How far a player leaves the page (corpus `played`); drawn anew for each recording."""

    tuned: int  # semitones that the whole guitar is tuned down
    cents: float  # that it is off pitch
    drift: float  # of the tempo, share of it
    muted: float  # chance of a stroke damped by the palm
    slid: float  # chance that a note of a solo begins at its neighbour and slides
    squeak: float  # chance that the finger is heard on the string where a chord changes
    voiced: float  # chance that a voice of a chord is left out or moved by an octave


def manner(rng: np.random.Generator) -> Manner:
    """A manner of playing. Guesses at what occurs, made to be wide, not measured on anyone."""
    return Manner(
        tuned=int(rng.choice([0, 0, 0, 0, 1, 2])),
        cents=float(rng.normal(0, 10)),
        drift=float(rng.uniform(0, 0.06)),
        muted=float(rng.choice([0, 0.1, 0.5])),
        slid=float(rng.uniform(0, 0.3)),
        squeak=float(rng.uniform(0, 0.5)),
        voiced=float(rng.uniform(0, 0.4)),
    )


MAJOR, MINOR_PENTATONIC = (0, 2, 4, 5, 7, 9, 11), (0, 3, 5, 7, 10)
STYLES = {
    "BN": Style(
        (110, 150),
        (0, 1.5, 3, 4, 5.5, 7),
        ((0, 4, 7, 11), (2, 5, 9, 12), (7, 11, 14, 17), (0, 4, 9, 14)),
        0.8,
        0.010,
        MAJOR,
        0.6,
    ),
    "Funk": Style(
        (90, 120),
        (0, 0.5, 1.5, 2.5, 3, 4.5, 5, 6.5),
        ((0, 4, 10, 14), (5, 9, 15, 19)),
        0.35,
        0.006,
        MINOR_PENTATONIC,
        0.7,
    ),
    "Jazz": Style(
        (100, 180),
        (0, 3, 4, 7),
        ((2, 5, 9, 12), (7, 11, 14, 17), (0, 4, 7, 11), (9, 12, 16, 19)),
        0.6,
        0.012,
        MAJOR,
        0.65,
    ),
    "Rock": Style(
        (90, 140),
        (0, 2, 3, 4, 5, 6, 7),
        ((0, 7, 12), (5, 12, 17), (7, 14, 19), (0, 7, 12)),
        0.9,
        0.008,
        MINOR_PENTATONIC,
        0.6,
    ),
    "SS": Style(
        (70, 110),
        (0, 2, 3, 5, 6, 7),
        ((0, 4, 7, 12), (9, 12, 16, 21), (5, 9, 12, 17), (7, 11, 14, 19)),
        1.2,
        0.020,
        MAJOR,
        0.5,
    ),
}


def note(
    midi: float, seconds: float, velocity: float, player: Player, rng: np.random.Generator
) -> np.ndarray:
    """One plucked string: (samples,) float64 at 44.1 kHz, peak about `velocity`."""
    f0 = 440.0 * 2 ** ((midi - 69) / 12)
    partials = np.arange(1, max(2, min(60, int(10_000 / f0))) + 1)
    f = partials * f0 * np.sqrt(1 + player.stiffness * (82 / f0) ** 0.5 * partials**2)
    position = player.pick_position * rng.uniform(0.85, 1.15)
    # an ideal string plucked at one point, then the width of pick or fingertip as a low-pass
    amplitude = np.sin(np.pi * partials * position) / partials**0.75
    amplitude *= np.exp(-f / (1000 * player.brightness * (0.3 + velocity)))
    sustain = player.sustain * (110 / f0) ** 0.4 / (1 + (f / 2500) ** 1.2 + 0.04 * (partials - 1))
    n = int(seconds * RATE)
    # two polarisations of each partial, 0.1 to 0.4 Hz apart and decaying differently, beat as on a
    # real string
    excitation = np.zeros(n)
    excitation[0] = 1.0
    out = np.zeros(n)
    for share, slower, detune in ((0.75, 1.0, 0.0), (0.25, 1.8, rng.uniform(0.1, 0.4))):
        radius = np.exp(-6.91 / (np.maximum(sustain * slower, 0.02) * RATE))
        angle = 2 * np.pi * (f + detune) / RATE
        for a, r, w in zip(amplitude * share, radius, angle, strict=True):
            if abs(a) > 1e-4:
                out += a * scipy.signal.lfilter(
                    [0, r * np.sin(w)], [1, -2 * r * np.cos(w), r * r], excitation
                )
    click = rng.standard_normal(int(0.004 * RATE)) * np.exp(-np.linspace(0, 6, int(0.004 * RATE)))
    out[: len(click)] += 1.5 * player.pick_noise * click[:n]
    attack, release = int(0.001 * RATE), min(n, int(0.03 * RATE))
    out[:attack] *= np.linspace(0, 1, attack)
    out[-release:] *= np.linspace(1, 0, release)  # the finger leaves the fret
    return velocity * out / (np.abs(out).max() + 1e-9)


def body(player: Player) -> np.ndarray:
    """Impulse response of body and room, 0.25 s at 44.1 kHz.

    Air and top-plate modes beside the direct sound.
    """
    t = np.arange(int(0.25 * RATE)) / RATE
    response = np.zeros_like(t)
    for ratio, gain, q in (
        (1.0, 1.0, 9),
        (1.95, 1.0, 14),
        (2.3, 0.5, 18),
        (3.9, 0.35, 22),
        (5.6, 0.25, 25),
        (8.4, 0.2, 28),
    ):
        f = player.air_mode * ratio
        response += gain * f * np.exp(-np.pi * f / q * t) * np.sin(2 * np.pi * f * t)
    response *= 1.2e-4
    noise = generator_for(0, "room", player.air_mode).standard_normal(len(t))
    tail = noise * np.exp(-6.91 * t / 0.35)
    response += 0.006 * scipy.signal.lfilter([0.5, 0.5], [1], tail)  # a small, dry room
    response[0] += 0.8
    return response


def comping(style: Style, root: int, beats: float, rng: np.random.Generator):
    """Strummed chords as (beat, midi, beats, velocity, delay in s)."""
    for bar in range(int(np.ceil(beats / 4))):
        chord = style.chords[bar % len(style.chords)]
        hits = [h for h in style.hits if rng.random() < 0.92]
        for i, hit in enumerate(hits):
            until = hits[i + 1] if i + 1 < len(hits) else 8
            accent = 0.9 if hit % 4 == 0 else rng.uniform(0.45, 0.8)
            voices = [root + s for s in chord] if hit % 4 == 0 else [root + s for s in chord[1:]]
            order = voices if rng.random() < 0.8 else voices[::-1]
            for string, midi in enumerate(order):
                yield (
                    bar * 4 + hit / 2,
                    midi,
                    style.hold * (until - hit) / 2,
                    accent * rng.uniform(0.8, 1),
                    string * style.arpeggio,
                )


def soloing(style: Style, root: int, beats: float, rng: np.random.Generator):
    """A line that walks through the scale, as (beat, midi, beats, velocity, delay in s)."""
    degree, size = int(rng.integers(4, 9)), len(style.scale)
    for eighth in range(int(beats * 2)):
        if rng.random() < style.density or eighth == 0:
            degree = int(np.clip(degree + rng.choice([-2, -1, -1, 1, 1, 2, 3]), 0, 2 * size + 2))
            midi = root + 12 + 12 * (degree // size) + style.scale[degree % size]
            yield eighth / 2, midi, rng.choice([0.5, 0.5, 1.0, 1.5]), rng.uniform(0.55, 1.0), 0.0


def names(players: range = range(len(PLAYERS))) -> list[str]:
    """All recordings in GuitarSet's manner, ``PLAYER_STYLE-TEMPO-KEY_PART``.

    They come in an order of which any prefix is balanced. 6 players x 5 styles x 12 keys x
    comp/solo = 720; tempo is drawn per recording.
    """
    out = []
    for key in range(12):
        for part in ("comp", "solo"):
            for s, style in enumerate(STYLES):
                for player in players:
                    k = (key * 5 + s * 2 + player * 7 + (part == "solo")) % 12
                    rng = generator_for(0, "tempo", style, player, k, part)
                    tempo = int(rng.integers(*STYLES[style].tempo))
                    out.append(f"p{player}_{style}-{tempo}-{KEYS[k]}_{part}")
    return out


def freely(performance, how: Manner, solo: bool, rng: np.random.Generator):
    """The notes of `comping` or `soloing` as a player of this manner takes them.

    Yields (beat, midi, beats, velocity, delay, semitones that it slides, squeak of the finger).
    """
    phase, last = rng.uniform(0, 2 * np.pi), -1.0
    for at, midi, beats, velocity, delay in performance:
        if not solo and rng.random() < how.voiced:
            octave = int(rng.choice([-99, 12, -12]))  # (-99: left out)
            if octave == -99 or midi + octave < 40:
                continue
            midi = midi + octave
        if rng.random() < how.muted:
            beats = min(beats, 0.12)
        slide = float(rng.choice([-2, -1, 1, 2])) if solo and rng.random() < how.slid else 0.0
        squeak = rng.uniform(0.02, 0.06) if at != last and rng.random() < how.squeak else 0.0
        last = at
        at = at + how.drift * 16 / (2 * np.pi) * np.sin(2 * np.pi * at / 16 + phase)
        pitch = midi - how.tuned + how.cents / 100
        yield max(at, 0.0), pitch, beats, velocity, delay, slide, squeak


def slid(sound: np.ndarray, semitones: float, seconds: float = 0.09) -> np.ndarray:
    """A note that begins `semitones` beside its pitch and gets there in `seconds`."""
    t = np.arange(len(sound)) / RATE
    ratio = 2 ** (semitones / 12 * np.clip(1 - t / seconds, 0, 1))
    return np.interp(np.cumsum(ratio) - ratio[0], np.arange(len(sound)), sound, right=0.0)


def squeaked(level: float, rng: np.random.Generator) -> np.ndarray:
    """A finger along a wound string: 60 ms of noise about 2 to 4 kHz."""
    n = int(0.06 * RATE)
    centre = rng.uniform(2000, 4000)
    taps = scipy.signal.firwin(127, [0.7 * centre, 1.3 * centre], fs=RATE, pass_zero=False)
    noise = scipy.signal.fftconvolve(rng.standard_normal(n), taps, "same") * np.hanning(n)
    return level * noise / (np.abs(noise).max() + 1e-9)


def play(name: str, seconds: float, free: bool = False) -> np.ndarray:
    """The recording called `name`, the same whenever it is asked for.

    (samples,) float32 mono at 44.1 kHz. Anything after PART is a take:
    ``p0_BN-121-C_comp_take7`` is another performance, which no corpus lists. `free`: in a manner of
    its own (`Manner`): tuning, drifting tempo, muted strokes, slides, squeaks, other voicings.
    """
    player_id, piece, part = name.split("_")[:3]
    style_name, tempo, key = piece.split("-")
    player, style = (*PLAYERS, *OTHERS)[int(player_id[1:])], STYLES[style_name]
    beat = 60.0 / int(tempo)
    rng = generator_for(0, "performance", name)
    root = 40 + (KEYS.index(key) - 4) % 12  # from the low E up
    bars = 4 * np.ceil(seconds / beat / 4)
    out = np.zeros(int(seconds * RATE) + RATE // 4)
    performed = (comping if part == "comp" else soloing)(style, root, bars, rng)
    if free:
        own = generator_for(0, "manner", name)
        notes = freely(performed, manner(own), part == "solo", own)
    else:
        notes = ((*one, 0.0, 0.0) for one in performed)
    for at, midi, beats, velocity, delay, slide, squeak in notes:
        start = int((at * beat + delay + abs(rng.normal(0, player.swing)) + 0.02) * RATE)
        sound = note(midi, min(max(beats * beat, 0.08), 3.0), velocity, player, rng)
        sound = slid(sound, slide) if slide else sound
        if squeak:
            heard = squeaked(squeak, rng)[: len(sound)]
            sound[: len(heard)] += heard
        if start < len(out):
            stop = min(len(out), start + len(sound))
            out[start:stop] += sound[: stop - start]
    n = round(seconds * RATE)
    out = scipy.signal.fftconvolve(out, body(player))[:n]
    out *= 10 ** ((player.level_db + rng.normal(0, 1.5)) / 20) / (np.sqrt(np.mean(out**2)) + 1e-9)
    noise = scipy.signal.lfilter([1], [1, -0.9], rng.standard_normal(n))
    out += noise / noise.std() * 10 ** (player.room_noise_db / 20)
    return np.clip(out, -0.99, 0.99).astype(np.float32)
