"""The published weights on the Hugging Face hub: pinned, verified, cached."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..core import paths, stages
from ..core.errors import PaperError

REPOSITORY = "zhai-lw/L3AC"
PARTS = ("encoder", "en_encoder", "quantizer", "en_decoder", "decoder")


def pins_file() -> Path:
    """What each hub model is pinned to: revision and SHA-256 of every file."""
    return Path(os.environ.get("PAPER_HUB_PINS", paths.WEIGHTS / "hub_pins.json"))


def pin(name: str, revision: str = "main") -> dict:
    """Pin hub model `name` to the commit that `revision` is now.

    The pin holds the SHA-256 that the hub declares for each file: it keeps large files under their
    SHA-256, which it gives as their ETag. A download is checked against it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    declared = {}
    try:
        for part in PARTS:
            file = f"weights/{name}.v1/{part}.pt"
            seen = get_hf_file_metadata(hf_hub_url(REPOSITORY, file, revision=revision))
            commit, etag = seen.commit_hash, (seen.etag or "").strip('"')
            if len(etag) != 64:
                raise PaperError(
                    f"the hub declares no SHA-256 for {file}: pin it by hand in {pins_file().name}."
                )
            declared[file] = etag
    except PaperError:
        raise
    except Exception as problem:
        raise PaperError(_unreachable(name, problem)) from problem
    pins = json.loads(pins_file().read_text()) if pins_file().exists() else {}
    pins[name] = {"repository": REPOSITORY, "revision": commit, "sha256": declared}
    paths.write_beside(pins_file(), json.dumps(pins, indent=1, sort_keys=True) + "\n")
    return pins[name]


def fetch(name: str) -> dict[str, Path]:
    """Download (or find in the cache) every part of hub model `name` at its pinned revision.

    Each file's SHA-256 is checked: one of the right size with wrong bytes is put out of the cache
    and refused. A model without a pin is pinned first.
    """
    from huggingface_hub import hf_hub_download

    pins = json.loads(pins_file().read_text()) if pins_file().exists() else {}
    pinned = pins.get(name) or pin(name)
    files = {}
    for file, sha256 in pinned["sha256"].items():
        try:
            path = Path(hf_hub_download(pinned["repository"], file, revision=pinned["revision"]))
        except Exception as problem:
            raise PaperError(_unreachable(name, problem)) from problem
        if stages.digest(path) != sha256:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise PaperError(
                f"{file} of {pinned['repository']} has the wrong SHA-256 and was removed: run "
                "paper fetch weights again; if it stays so, the hub's file was changed."
            )
        files[path.stem] = path
    return files


def _unreachable(name: str, problem: Exception) -> str:
    reason = next(iter(str(problem).strip().splitlines()), "no reason given")
    return (
        f"the weights hub:{name} could not be fetched ({type(problem).__name__}: {reason}): "
        "check the network and HF_ENDPOINT, or use codec: shipped, which needs none."
    )
