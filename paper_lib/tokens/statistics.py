"""What tokens cost in bits, and what each of them holds. Notebook 22."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from ..core.random import generator_for
from ..evaluation import scores
from ..sound import audio, plucked
from . import codes
from .codes import RATE, Code, Tokenizer

# --- bits -----------------------------------------------------------------------------------------


def counted(contexts: np.ndarray, tokens: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(contexts, values) how often each value came in each context."""
    pairs = contexts.astype(np.int64) * shape[1] + tokens
    return np.bincount(pairs.ravel(), minlength=shape[0] * shape[1]).reshape(shape)


def shares_of(contexts: np.ndarray, tokens: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(contexts, values) each value's share in each context, none of them nought.

    contexts, tokens: (clips, frames). A context that came seldom leans on the shares of all: as if
    it had come `lean` times more with these. `lean` is the best of four on the last tenth of the
    clips, by a table of the others.
    """
    few = counted(0 * tokens, tokens, (1, shape[1])) + 0.5
    all_alike = few / few.sum()
    if shape[0] == 1:
        return all_alike

    def leaning(counts: np.ndarray, lean: float) -> np.ndarray:
        return (counts + lean * all_alike) / (counts.sum(1, keepdims=True) + lean)

    last = len(tokens) - max(1, len(tokens) // 10)
    first = counted(contexts[:last], tokens[:last], shape)
    asked = contexts[last:], tokens[last:]
    lean = min((1, 10, 100, 1000), key=lambda one: bits(leaning(first, one), *asked))
    return leaning(counted(contexts, tokens, shape), lean)


def bits(shares: np.ndarray, contexts: np.ndarray, tokens: np.ndarray) -> float:
    """Mean bits a token costs by a table of shares that was counted elsewhere (cross-entropy)."""
    return float(-np.log2(shares[contexts, tokens]).mean())


def bits_table(train: np.ndarray, test: np.ndarray, code: Code) -> pd.DataFrame:
    """A row a codebook: bits a token of `test`, by tables counted on `train`.

    train, test: (clips, codebooks, frames). alone: by its frequency; after_last: knowing the same
    codebook's token of the frame before; after_other: knowing the codebook before it in the same
    frame (the first has none, and pays in full). used: values that come.
    """
    rows = []
    for i, size in enumerate(code.sizes):
        now, before = np.s_[:, i, 1:], np.s_[:, i, :-1]
        other = np.s_[:, i - 1, 1:]
        row: dict[str, float] = {
            "codebook": i + 1,
            "values": size,
            "used": len(np.unique(test[:, i])),
        }
        row["nominal"] = float(code.bits[i])
        none = np.zeros_like(train[now]), np.zeros_like(test[now])
        known = {
            "alone": (none, 1),
            "after_last": ((train[before], test[before]), size),
            "after_other": ((train[other], test[other]), code.sizes[i - 1]) if i else (none, 1),
        }
        for name, ((learned, asked), contexts) in known.items():
            shares = shares_of(learned, train[now], (contexts, size))
            row[name] = bits(shares, asked, test[now])
        rows.append(row)
    return pd.DataFrame(rows)


WINDOW = 512  # samples, 32 ms

# --- what they hold -------------------------------------------------------------------------------


def frame_targets(sounds: np.ndarray, frames: int, code: Code) -> dict[str, np.ndarray]:
    """(clips, samples) -> name -> (clips, frames): what one hears in a frame.

    level: RMS in dB; brightness: octaves of the spectrum's centre above 1 Hz, in a window around
    the frame's middle.
    """
    begins = np.round(np.arange(frames) * RATE / code.frame_rate).astype(int)
    hop = round(RATE / code.frame_rate)
    x = np.pad(sounds, ((0, 0), (WINDOW // 2, WINDOW + hop)))  # (a frame ends behind the clip)
    own = np.lib.stride_tricks.sliding_window_view(x, hop, 1)[:, begins + WINDOW // 2]
    level = 20 * np.log10(np.sqrt(np.square(own).mean(2)) + 1e-5)
    around = np.lib.stride_tricks.sliding_window_view(x, WINDOW, 1)[:, begins + hop // 2]
    hertz, centre = np.fft.rfftfreq(WINDOW, 1 / RATE), []
    for one in around:  # (clip by clip: all at once would be large)
        power = np.abs(np.fft.rfft(one * np.hanning(WINDOW))) ** 2
        centre.append(power @ hertz / np.maximum(power.sum(1), 1e-12))
    return {"level": level, "brightness": np.log2(np.stack(centre) + 1)}


def notes(tokenizer: Tokenizer, many: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Single plucked notes of half a second: tokens (notes, codebooks, frames), MIDI (notes,)."""
    pitches, tokens = [], []
    for number in range(many):
        rng = generator_for(seed, "note", number)
        player = plucked.PLAYERS[rng.integers(len(plucked.PLAYERS))]
        pitch, loud = float(rng.integers(40, 77)), rng.uniform(0.3, 1.0)
        sound = 0.3 * plucked.note(pitch, 0.5, loud, player, rng)
        low = audio.resample(sound, plucked.RATE, RATE).astype(np.float32)
        pitches.append(pitch)
        tokens.append(tokenizer.encode(low))
    return np.stack(tokens), np.array(pitches, float)


def explained(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """R squared on `test` of a sum of one number a value of each codebook (ridge, one-hot).

    Each: tokens (frames, codebooks), target (frames,). 0: no better than the mean; below 0: worse.
    """
    line = make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge(1.0))
    return float(line.fit(*train).score(*test))


def histograms(tokens: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """(clips, codebooks, frames) -> (clips, values of all): how often each comes in a clip."""
    each = [(tokens[:, i, :, None] == np.arange(n)).mean(1) for i, n in enumerate(sizes)]
    return np.concatenate(each, 1)


def reader(several: bool):
    """Logistic regressions on standardised inputs: one a class where several may hold, else one."""
    line = LogisticRegression(max_iter=500)
    return make_pipeline(StandardScaler(), OneVsRestClassifier(line) if several else line)


def effects_heard(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> float:
    """Mean average precision of a `reader` on `test`. Each: inputs, labels (clips, 13).

    A guess has the mean share of clips that have a label.
    """
    said = reader(several=True).fit(*train).predict_proba(test[0])
    return scores.mean_average_precision(test[1], said)


def held_table(
    clips: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    of_notes: tuple[np.ndarray, np.ndarray],
    code: Code,
) -> pd.DataFrame:
    """A row a codebook, and one of all: what is found from its tokens alone, on test clips.

    clips: "train", "test" -> sounds (clips, samples), tokens, labels (clips, 13). of_notes: see
    `notes`; the first two thirds are learned from. level, brightness, pitch: R squared over frames;
    effects: mean average precision of a clip's histogram.
    """
    targets = {
        split: frame_targets(sounds, tokens.shape[2], code)
        for split, (sounds, tokens, _) in clips.items()
    }
    tokens, midi = of_notes
    first = np.arange(len(tokens)) < 2 * len(tokens) // 3
    pitch = np.repeat(midi[:, None], tokens.shape[2], 1)

    def frames(x: np.ndarray, books: list[int]) -> np.ndarray:
        return x[:, books].transpose(0, 2, 1).reshape(-1, len(books))

    rows = []
    for books in [*([i] for i in range(len(code.sizes))), list(range(len(code.sizes)))]:
        found: dict[str, object] = {"codebook": books[0] + 1 if len(books) == 1 else "all"}
        for name in ("level", "brightness"):
            both = [(frames(clips[s][1], books), targets[s][name].ravel()) for s in clips]
            found[name] = explained(*both)
        found["pitch"] = explained(
            *((frames(tokens[part], books), pitch[part].ravel()) for part in (first, ~first))
        )
        sizes = tuple(code.sizes[i] for i in books)
        both = [(histograms(clips[s][1][:, books], sizes), clips[s][2]) for s in clips]
        found["effects"] = effects_heard(*both)
        rows.append(found)
    return pd.DataFrame(rows)


# --- what they cost to keep -----------------------------------------------------------------------


def storage_table(sounds: np.ndarray, tokens: np.ndarray, code: Code, folder: Path) -> pd.DataFrame:
    """A row a way to keep clips: bits a second of sound, and whether the sound comes back exactly.

    sounds: (clips, samples) int16; tokens: of the same clips. Files are written to `folder`.
    """
    seconds, flac = sounds.size / RATE, 0
    for one in sounds:
        buffer = io.BytesIO()
        soundfile.write(buffer, one, RATE, format="FLAC", subtype="PCM_16")
        flac += buffer.getbuffer().nbytes  # (it seeks back to its head)
    names = [str(i) for i in range(len(tokens))]
    codes.write(folder / "packed.parquet", names, tokens, code)
    width = np.uint8 if max(code.sizes) <= 256 else np.uint16
    raw = [one.astype(width).tobytes() for one in tokens]
    table = pa.table({"name": names, "tokens": pa.array(raw, pa.binary())})
    for how in ("none", "zstd"):
        path, plain = folder / f"{how}.parquet", {"use_dictionary": False}
        pq.write_table(table, path, compression=how, write_statistics=False, **plain)
    size = {
        name: (folder / f"{name}.parquet").stat().st_size for name in ("packed", "none", "zstd")
    }
    whole = {"16-bit samples": sounds.nbytes, "FLAC": flac}
    kept = {name: (many, True) for name, many in whole.items()} | {
        "tokens, bytes": (size["none"], False),
        "tokens, bytes, zstd": (size["zstd"], False),
        "tokens, bits packed": (size["packed"], False),
    }
    rows = [{"kept_as": name, "bits_a_second": 8 * size / seconds, "lossless": lossless}
            for name, (size, lossless) in kept.items()]  # fmt: skip
    return pd.DataFrame(rows)
