"""A recognizer as one ONNX file, for programs without PyTorch: `paper export FILE.onnx`."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..core import paths
from ..core.errors import PaperError
from ..core.random import generator_for
from ..sound import audio, effects
from .model import EffectRecognizer

SECONDS = 5.0  # of the one window that the file takes
WITHIN = 1e-4  # of the original's probabilities


class _Probabilities(nn.Module):
    """A recognizer that answers with probabilities."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.model(*inputs))


def to_onnx(model: nn.Module, path: Path, thresholds=0.5) -> float:
    """Write `model` to `path` and run it there beside the original.

    The file takes `samples` (1, 80,000) float32 at 16 kHz (a network that wants one also `dry`
    (1, 64)) and gives `probabilities` (1, 13); its metadata hold the effects' names and
    thresholds. Returns the largest difference of probabilities over some noise at several levels.

    Raises:
        PaperError: the packages for it are not installed; the answers differ.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter wants it)
    except ImportError as problem:
        raise PaperError(
            f"{problem.name} is not installed, which writing ONNX needs: pip install '.[onnx]'."
        ) from problem
    if isinstance(model, EffectRecognizer):
        model = model.copy().eval()
        model.encoder = model.baked_encoder()
        model.encoder.prepared = None  # (what is kept for this machine does not travel)
    whole, inputs = _Probabilities(model).eval(), _inputs(model)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    names = ["samples", "dry"][: len(inputs[0])]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            whole, inputs[0], dynamo=True, input_names=names, output_names=["probabilities"]
        )
    proto = program.model_proto
    about = {"effects": list(effects.NAMES), "sample_rate": audio.CODEC_RATE}
    about["thresholds"] = np.broadcast_to(thresholds, len(effects.NAMES)).tolist()
    onnx.helper.set_model_props(proto, {k: json.dumps(v) for k, v in about.items()})
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    difference = 0.0
    for given in inputs:
        with torch.inference_mode():
            original = whole(*given).numpy()
        here = session.run(None, {n: x.numpy() for n, x in zip(names, given, strict=True)})[0]
        difference = max(difference, float(np.abs(here - original).max()))
    if difference > WITHIN:
        raise PaperError(f"the ONNX file's answers differ by {difference:.1e}: it is not written.")
    paths.write_beside(path, proto.SerializeToString())
    return difference


def _inputs(model: nn.Module) -> list[tuple[torch.Tensor, ...]]:
    """Noise at five levels, and what a referenced network wants beside it."""
    out = []
    for i, level in enumerate((0.001, 0.01, 0.05, 0.1, 0.5)):
        rng = generator_for(0, "export", i)
        samples = level * rng.standard_normal((1, int(SECONDS * audio.CODEC_RATE)))
        given = [torch.from_numpy(samples.astype(np.float32))]
        if getattr(model, "referenced", False):
            given.append(torch.from_numpy(rng.normal(-5, 2, (1, 64)).astype(np.float32)))
        out.append(tuple(given))
    return out
