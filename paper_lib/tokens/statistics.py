"""What tokens cost in bits, and what each of them holds. Notebook 22."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
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


def bits(counts: np.ndarray, contexts: np.ndarray, tokens: np.ndarray) -> float:
    """Mean bits a token costs by a table that was counted elsewhere (cross-entropy).

    counts: (contexts, values), how often each value came in each context; half a time more is added
    to each, so that what never came is not impossible.
    """
    share = (counts + 0.5) / (counts + 0.5).sum(1, keepdims=True)
    return float(-np.log2(share[contexts, tokens]).mean())


def counted(contexts: np.ndarray, tokens: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(contexts, values) how often each pair comes."""
    pairs = contexts.astype(np.int64) * shape[1] + tokens
    return np.bincount(pairs.ravel(), minlength=shape[0] * shape[1]).reshape(shape)


def bits_table(train: np.ndarray, test: np.ndarray, code: Code) -> pd.DataFrame:
    """A row a codebook: bits a token of `test`, by tables counted on `train`.

    train, test: (clips, codebooks, frames). alone: by its frequency; after_last: knowing the same
    codebook's token of the frame before; after_other: knowing the codebook before it (of the first
    one the last) in the same frame. used: values that come.
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
            "after_other": ((train[other], test[other]), code.sizes[i - 1]),
        }
        for name, ((learned, asked), contexts) in known.items():
            counts = counted(learned, train[now], (contexts, size))
            row[name] = bits(counts, asked, test[now])
        rows.append(row)
    return pd.DataFrame(rows)


# --- what they hold -------------------------------------------------------------------------------


def frame_targets(sounds: np.ndarray, frames: int, code: Code) -> dict[str, np.ndarray]:
    """(clips, samples) -> name -> (clips, frames): what one hears in a frame.

    level: RMS in dB; brightness: octaves of the spectrum's centre above 1 Hz, of a window of 32 ms
    around the frame's middle.
    """
    hop = round(RATE / code.frame_rate)
    x = torch.from_numpy(sounds)[:, : frames * hop]
    x = torch.nn.functional.pad(x, (0, frames * hop - x.shape[1]))
    level = 20 * torch.log10(x.unflatten(1, (frames, hop)).square().mean(2).sqrt() + 1e-5)
    around = torch.nn.functional.pad(x, (256 - hop // 2, 256 + hop))
    power = torch.stft(around, 512, hop, window=torch.hann_window(512), center=False,
                       return_complex=True).abs().square()[..., :frames]  # fmt: skip
    hertz = torch.linspace(0, RATE / 2, 257)[:, None]
    centre = (power * hertz).sum(1) / power.sum(1).clamp_min(1e-12)
    return {"level": level.numpy(), "brightness": torch.log2(centre + 1).numpy()}


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


def effects_heard(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]):
    """Macro-F1 on `test` of logistic regressions, one a label. Each: inputs, labels (clips, 13)."""
    line = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(max_iter=500)))
    said = line.fit(*train).predict(test[0])
    return scores.scores(test[1], said)["macro_f1"]


def held_table(
    clips: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    of_notes: tuple[np.ndarray, np.ndarray],
    code: Code,
) -> pd.DataFrame:
    """A row a codebook, and one of all: what is found from its tokens alone, on test clips.

    clips: "train", "test" -> sounds (clips, samples), tokens, labels (clips, 13). of_notes: see
    `notes`; the first two thirds are learned from. level, brightness, pitch: R squared over frames;
    effects: macro-F1 of a clip's histogram.
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
    seconds = sounds.size / RATE
    flac = 0
    for one in sounds:
        buffer = io.BytesIO()
        soundfile.write(buffer, one, RATE, format="FLAC", subtype="PCM_16")
        flac += buffer.getbuffer().nbytes  # (it seeks back to its head)
    bits_file, byte_file = folder / "packed.parquet", folder / "bytes.parquet"
    codes.write(bits_file, [str(i) for i in range(len(tokens))], tokens, code)
    width = np.uint8 if max(code.sizes) <= 256 else np.uint16
    values = tokens.transpose(0, 2, 1).astype(width).reshape(len(tokens), -1)
    pq.write_table(pa.table({"tokens": list(values)}), byte_file, compression="zstd")
    kept = {
        "16-bit samples": (sounds.nbytes, True),
        "FLAC": (flac, True),
        "tokens, a byte each": (byte_file.stat().st_size, False),
        "tokens, bits packed": (bits_file.stat().st_size, False),
    }
    rows = [{"kept_as": name, "bits_a_second": 8 * size / seconds, "lossless": lossless}
            for name, (size, lossless) in kept.items()]  # fmt: skip
    return pd.DataFrame(rows)
