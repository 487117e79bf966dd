"""A token model begun from a language model of text (a plan of source 004, Section 3). Notebook 23.

GPT-2 has layers like ours: attention and a feed-forward network, each behind a norm and added to
what comes in. What differs: it adds learned places where ours turns by them (RoPE), it sees the
past alone, and its GELU is an approximation.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..codec import pretrained
from ..core import paths, stages
from ..core.errors import PaperError
from . import model

# ours -> GPT-2's, which keeps its matrices (in, out)
PARTS = {
    "norm": "ln_1",
    "to_qkv": "attn.c_attn",
    "to_out": "attn.c_proj",
    "norm_2": "ln_2",
    "feed_forward.0": "mlp.c_fc",
    "feed_forward.2": "mlp.c_proj",
}


def fetch(name: str) -> tuple[Path, str]:
    """Where a GPT-2 lies, a folder or a repository of the hub, and its version."""
    folder = paths.ROOT / Path(name).expanduser()
    if folder.is_dir():
        weights = folder / pretrained.WEIGHTS[0]
        if not weights.exists():
            raise PaperError(f"token_start: {name} holds no {weights.name}.")
        return folder, stages.digest(weights)
    folder = pretrained.snapshot(name, ["config.json"], 'begin at random (token_start: "")')
    return folder, folder.name


def begin(net: model.TokenModel, folder: Path) -> None:
    """The layers of `net`'s global encoder, and its last norm, become the first of that GPT-2.

    Raises:
        PaperError: it is no GPT-2, or its layers are not like these.
    """
    about = json.loads((folder / "config.json").read_text())
    if about.get("model_type") != "gpt2":
        raise PaperError(f"token_start: a GPT-2 is needed, not {about.get('model_type')!r}.")
    own = (net.norm.weight.numel(), net.layers[0].heads)
    if own != (about["n_embd"], about["n_head"]) or len(net.layers) > about["n_layer"]:
        raise PaperError(
            f"token_start: that model is {about['n_embd']} wide, with {about['n_head']} heads and "
            f"{about['n_layer']} layers; token_size asks for {own[0]}, {own[1]} and "
            f"{len(net.layers)} (or fewer layers than it has)."
        )
    kept = {k.removeprefix("transformer."): v for k, v in _weights(folder).items()}
    with torch.no_grad():
        for number, layer in enumerate(net.layers):
            for ours, theirs in PARTS.items():
                part, key = layer.get_submodule(ours), f"h.{number}.{theirs}"
                weight = kept[f"{key}.weight"]
                part.weight.copy_(weight.T if weight.ndim == 2 else weight)
                part.bias.copy_(kept[f"{key}.bias"])
        net.norm.weight.copy_(kept["ln_f.weight"])
        net.norm.bias.copy_(kept["ln_f.bias"])


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    safe = folder / pretrained.WEIGHTS[0]
    if safe.exists():
        return load_file(safe)
    return torch.load(folder / pretrained.WEIGHTS[1], map_location="cpu", weights_only=True)
