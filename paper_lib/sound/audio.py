"""Read, check and resample audio. Ground floor of notebook 01.

Audio in memory is mono float32 in [-1, 1], shape (samples,); on disk and between stages it is
int16.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np
import soundfile
import soxr
from IPython.display import HTML

from ..core.errors import PaperError

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"}
CODEC_RATE = 16_000  # Hz, fixed by L3AC


def read(path: Path | str, rate: int, at_least: float = 0.0) -> np.ndarray:
    """Mono float32 samples of the file at `path`, resampled to `rate` Hz. Channels are averaged.

    Unreadable, empty, non-finite or shorter than `at_least` seconds: `PaperError` naming the file.
    """
    path = Path(path)
    if not path.exists():
        raise PaperError(f"{path}: there is no such audio file.")
    try:
        samples, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as problem:
        raise PaperError(
            f"{path}: not readable as audio ({problem}); convert it to WAV or FLAC."
        ) from problem
    if _cut_short(path):
        raise PaperError(
            f"{path}: is shorter than its header says (a broken download or recording): "
            "get it again, or save what is there under another name."
        )
    if not len(samples):
        raise PaperError(f"{path}: holds no samples; remove it or record it again.")
    if not np.isfinite(samples).all():
        raise PaperError(f"{path}: holds NaN or infinite samples; export it again from its source.")
    mono = resample(samples.mean(axis=1), file_rate, rate)
    if len(mono) < at_least * rate:
        raise PaperError(
            f"{path}: lasts {len(mono) / rate:.2f} s, but at least {at_least:g} s are needed for "
            "one clip."
        )
    return mono


def _cut_short(path: Path) -> bool:
    """Does a WAV file promise more bytes than it has? (Streams promise none, or the most.)"""
    with path.open("rb") as file:
        head = file.read(8)
    promised = int.from_bytes(head[4:], "little") + 8
    return head[:4] == b"RIFF" and path.stat().st_size < promised < 2**32


def resample(samples: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    """(samples,) float32 at `rate_in` Hz -> float32 at `rate_out` Hz (soxr, very high quality)."""
    if rate_in == rate_out:
        return samples.astype(np.float32, copy=False)
    return soxr.resample(samples, rate_in, rate_out, quality="VHQ").astype(np.float32)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """float in [-1, 1] -> int16, rounded and clipped; int16 passes through."""
    if samples.dtype == np.int16:
        return samples
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def to_float(samples: np.ndarray) -> np.ndarray:
    """int16 -> float32 in [-1, 1); float passes through."""
    return samples.astype(np.float32) / (32768.0 if samples.dtype == np.int16 else 1.0)


def level_db(samples: np.ndarray) -> float:
    """RMS level in dB relative to full scale."""
    x = to_float(samples) if samples.dtype == np.int16 else samples
    return float(20 * np.log10(np.sqrt(np.mean(np.square(x, dtype=np.float64))) + 1e-12))


def signal_to_error_db(reference: np.ndarray, other: np.ndarray) -> float:
    """10 log10(signal energy / energy of the difference), in dB; inf when equal."""
    r, o = reference.astype(np.float64), other.astype(np.float64)
    error = np.sum((r - o) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(np.sum(r**2) / error))


def players(clips: dict[str, np.ndarray], rate: int, seconds: float = 4.0) -> HTML:
    """A small table of audio players, one a clip ((n,) int16, or float in [-1, 1], at `rate` Hz).

    The sound is embedded as FLAC at 16 kHz.
    """
    cells = []
    for name, samples in clips.items():
        buffer = io.BytesIO()
        part = resample(to_float(samples[: int(seconds * rate)]), rate, CODEC_RATE)
        soundfile.write(buffer, to_int16(part), CODEC_RATE, format="FLAC", subtype="PCM_16")
        source = "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode()
        style = "width:190px;height:32px"
        player = f'<audio controls preload="none" style="{style}" src="{source}"></audio>'
        box = "display:inline-block;margin:4px;text-align:center"
        cells.append(f'<div style="{box}"><small>{html.escape(name)}</small><br>{player}</div>')
    return HTML("".join(cells))
