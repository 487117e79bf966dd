"""The classical front end that a codec's embedding is compared with."""

from __future__ import annotations

import torch
from torch import nn


class LogMel(nn.Module):
    """(batch, samples) at 16 kHz -> (batch, frames, 64) log-mel power.

    Windows of 64 ms, one every 16 ms.
    """

    def __init__(self):
        super().__init__()
        from torchaudio.transforms import MelSpectrogram  # (slow to import)

        self.mel = MelSpectrogram(
            sample_rate=16_000, n_fft=1024, hop_length=256, n_mels=64, f_max=8000.0
        )

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        return torch.log(self.mel(audio) + 1e-6).transpose(1, 2)
