"""The classical front end that a codec's embedding is compared with."""

from __future__ import annotations

import torch
from torch import nn

BANDS = 64


def spectrum(x: torch.Tensor, size: int) -> torch.Tensor:
    """(..., samples) -> complex spectra: Hann windows, a quarter of their size apart."""
    window = torch.hann_window(size, device=x.device)
    return torch.stft(x, size, size // 4, window=window, return_complex=True)


class LogMel(nn.Module):
    """(batch, samples) at 16 kHz -> (batch, frames, 64) log-mel power, natural logarithm.

    Windows of 64 ms, one every 16 ms. What `lower` has made of audio goes through as it is.
    """

    def __init__(self):
        super().__init__()
        from torchaudio.transforms import MelSpectrogram  # (slow to import)

        self.mel = MelSpectrogram(
            sample_rate=16_000, n_fft=1024, hop_length=256, n_mels=BANDS, f_max=8000.0
        )
        # (torch cuts the window out of a longer one, which safetensors refuses to store)
        self.mel.spectrogram.window = self.mel.spectrogram.window.clone()

    def lower(self, audio: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, 64, frames): the spectrogram as networks take it."""
        return torch.log(self.mel(audio) + 1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.lower(x) if x.ndim == 2 else x).transpose(1, 2)
