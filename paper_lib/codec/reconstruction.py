"""How well does a codec give a sound back? Appendix A1, section 4.

SI-SDR, spectral distances, codebook use; MP3 and Opus beside it.
"""

from __future__ import annotations

import functools
import io

import numpy as np
import soundfile
import torch
from l3ac.en_codec import EnCodec

from ..sound import audio
from .frontends import LogMel, spectrum

RATE = audio.CODEC_RATE


def si_sdr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, one per row of (batch, samples)."""
    scale = (reference * estimate).sum(-1, keepdim=True) / (
        reference.square().sum(-1, keepdim=True) + 1e-9
    )
    target = scale * reference
    return 10 * torch.log10(
        target.square().sum(-1) / ((target - estimate).square().sum(-1) + 1e-9) + 1e-9
    )


def stft_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Multi-resolution STFT distance of two (batch, samples).

    L1 of magnitudes plus L1 of log10 power, FFT 64 to 1024.
    """
    total = 0.0
    for n in (64, 128, 256, 512, 1024):
        a, b = (spectrum(s, n).abs().clamp_min(1e-4) for s in (x, y))
        total = total + (a - b).abs().mean() + (2 * (a.log10() - b.log10())).abs().mean()
    return total / 5


def log_mel_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of two (batch, samples)' log-mel spectra in dB, one per row."""
    front = _front()
    return (10 / np.log(10)) * (front(x) - front(y)).abs().mean((1, 2))


@functools.cache
def _front() -> LogMel:
    return LogMel()


def loud(x: torch.Tensor, peak: float = 0.5) -> torch.Tensor:
    """Each row of (batch, samples) scaled to `peak`, as the authors' training does.

    Silence stays silence.
    """
    return x * (peak / x.abs().amax(-1, keepdim=True).clamp_min(1e-4))


def rebuilt(network: EnCodec, embedding: torch.Tensor) -> torch.Tensor:
    """(batch, frames, channels) -> (batch, samples): quantizer and decoder of the codec."""
    quantized = network.quantizer(embedding)[0]
    return network.decoder(network.en_decoder(quantized)).squeeze(1)


@torch.inference_mode()
def encode_decode(network: EnCodec, x: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """(batch, samples) through the codec, clip by clip.

    Returns what comes back, and the tokens (batch, frames).
    """
    back, tokens = torch.empty_like(x), []
    for i in range(len(x)):
        out = network(x[i : i + 1])
        back[i] = out["generated_audio"][0]
        tokens.append(out["indices"].reshape(-1).numpy().copy())
    return back, np.stack(tokens)


def encode_decode_file(x: torch.Tensor, kind: str) -> tuple[torch.Tensor, float]:
    """(batch, samples) through libsndfile's "MP3" or "OPUS" at its strongest compression.

    Returns what comes back, and its kbit/s.
    """
    container, subtype, level = {
        "MP3": ("MP3", "MPEG_LAYER_III", 0.99),
        "OPUS": ("OGG", "OPUS", 1.0),
    }[kind]
    back, size = torch.zeros_like(x), 0
    for row, out in zip(x.numpy(), back.numpy(), strict=True):
        buffer = io.BytesIO()
        soundfile.write(
            buffer, row, RATE, format=container, subtype=subtype, compression_level=level
        )
        size += buffer.tell()
        buffer.seek(0)
        decoded = soundfile.read(buffer, dtype="float32")[0]
        lag = _lag(row, decoded)  # codecs delay
        decoded = decoded[lag:] if lag > 0 else np.pad(decoded, (-lag, 0))
        out[: len(decoded[: len(out)])] = decoded[: len(out)]
    return back, size * 8 / 1000 / (x.numel() / RATE)


def _lag(reference: np.ndarray, other: np.ndarray, most: int = 4000) -> int:
    """Samples by which `other` comes later, found by correlation."""
    n = 1 << (len(reference) + len(other)).bit_length()
    match = np.fft.irfft(np.fft.rfft(other, n) * np.conj(np.fft.rfft(reference, n)), n)
    around = np.concatenate([match[-most:], match[:most]])
    return int(around.argmax()) - most


def quality(reference: torch.Tensor, estimate: torch.Tensor) -> dict[str, float]:
    """Means over rows: SI-SDR (dB), log-mel distance (dB), multi-resolution STFT distance."""
    return {
        "si_sdr_db": float(si_sdr(reference, estimate).mean()),
        "log_mel_db": float(log_mel_distance(reference, estimate).mean()),
        "stft": float(stft_distance(reference, estimate)),
    }


def usage(tokens: np.ndarray) -> dict[str, float]:
    """Tokens used: how many different ones, and the perplexity of their frequencies."""
    _, count = np.unique(tokens, return_counts=True)
    share = count / count.sum()
    return {
        "tokens": int(tokens.size),
        "different": len(count),
        "perplexity": float(np.exp(-(share * np.log(share)).sum())),
    }
