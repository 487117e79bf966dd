"""Encoders that others trained, on random weights: from a folder, a file, and a loopback hub."""

import http.server
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from paper_lib import PaperError
from paper_lib.codec import pretrained
from paper_lib.core import paths
from paper_lib.proxies import ranking, synth

COMMIT = "5f" * 20


def small(name: str):
    """A small network of the encoder's kind with random weights, and its feature extractor."""
    import transformers as t

    torch.manual_seed(0)
    if name == "encodec":
        own = {"num_filters": 4, "hidden_size": 16, "codebook_dim": 16, "codebook_size": 32}
        return t.EncodecModel(t.EncodecConfig(**own)), None
    if name == "dac":
        own = {"encoder_hidden_size": 4, "decoder_hidden_size": 64, "hidden_size": 64}
        return t.DacModel(t.DacConfig(**own, codebook_size=16, sampling_rate=44_100)), None
    if name == "ast":
        own = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        network = t.ASTModel(t.ASTConfig(**own, intermediate_size=16))
        return network, t.ASTFeatureExtractor()
    both = {"num_hidden_layers": 2, "projection_dim": 16}
    heard = {"hidden_size": 32, "patch_embeds_hidden_size": 16, "depths": [1, 1]}
    read = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 10}
    heads = {"audio_config": {"num_attention_heads": [2, 2]}, "text_config": {}}
    heads["audio_config"] |= heard | both
    heads["text_config"] = {"num_attention_heads": 2} | read | both
    network = t.ClapModel(t.ClapConfig(**heads, projection_dim=16))
    return network, t.ClapFeatureExtractor(truncation="rand_trunc")


def kept(name: str, folder):
    for part in small(name):
        if part is not None:
            part.save_pretrained(folder)
    return folder


@pytest.fixture
def sounds() -> np.ndarray:
    t = np.arange(2 * synth.RATE) / synth.RATE
    return np.stack([0.1 * np.sin(2 * np.pi * hz * t) for hz in (220, 660)]).astype(np.float32)


# frames a second and features: of EnCodec 24,000 / 320 and the bottleneck, of DAC 44,100 / 512 and
# nine codebooks of eight; of CLAP one vector; of AST 12 x 101 patches of its ten seconds
SHAPES = {"encodec": (150, 16), "dac": (172, 72), "clap": (1, 16), "ast": (1212, 16)}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(pretrained.HUB))
def test_an_encoder_from_its_folder_has_its_frames_and_hears_a_sound(name, tmp_path, sounds):
    frames = pretrained.frames_of(name, kept(name, tmp_path), synth.RATE)(sounds)
    assert frames.shape[0] == 2 and frames.shape[2] == SHAPES[name][1]
    assert frames.shape[1] == pytest.approx(SHAPES[name][0], abs=1)
    assert np.isfinite(frames).all() and np.abs(frames[0] - frames[1]).max() > 1e-6


class Loudness(torch.nn.Module):
    """(1, samples) -> (1, frames, 1): the root mean square of each tenth of a second at 16 kHz."""

    def forward(self, x):
        return x.unfold(1, 1600, 1600).square().mean(2, keepdim=True).sqrt()


def exported(path, **also):
    longer = {"x": {1: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(Loudness(), (torch.zeros(1, 16_000),), dynamic_shapes=longer)
    torch.export.save(program, path, extra_files=also)
    return path


def test_an_encoder_of_ones_own_is_one_file_with_its_rate(tmp_path, sounds):
    path = exported(tmp_path / "loudness.pt2", rate="16000")
    frames = pretrained.frames_of(str(path), path, synth.RATE)(sounds)
    assert frames.shape == (2, 20, 1) and frames == pytest.approx(0.1 / 2**0.5, rel=0.02)
    assert pretrained.title(str(path)) == "loudness"
    assert "loudness" in ranking.representations("shipped", 0, ((str(path), path),))


def test_what_cannot_be_had_or_is_no_encoder_is_one_sentence(tmp_path):
    with pytest.raises(PaperError, match="'mert' is none of encodec"):
        pretrained.named("dac, mert")
    assert pretrained.named(" dac,own.pt2, ") == ["dac", "own.pt2"] and not pretrained.named("")
    with pytest.raises(PaperError, match=r"no file nowhere\.pt2"):
        pretrained.fetch("nowhere.pt2")
    (tmp_path / "words.pt2").write_text("no program")
    with pytest.raises(PaperError, match="no program that"):
        pretrained.frames_of("words.pt2", tmp_path / "words.pt2", synth.RATE)
    path = exported(tmp_path / "silent.pt2")
    with pytest.raises(PaperError, match="sampling rate"):
        pretrained.frames_of(str(path), path, synth.RATE)


FETCH = """
from paper_lib import PaperError
from paper_lib.codec import pretrained
try:
    folder, version = pretrained.fetch("encodec")
    pretrained.frames_of("encodec", folder, 44_100)
    print(version, sorted(p.name for p in folder.iterdir()))
except PaperError as e:
    print("refused:", e)
"""


def fetched(address: str, cache) -> str:
    own = {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", FETCH]
    done = subprocess.run(
        command, env=os.environ | own, capture_output=True, text=True, cwd=paths.ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_the_hub_is_asked_once_for_what_is_needed_and_then_the_cache_answers(tmp_path, serve):
    folder = kept("encodec", tmp_path / "published")
    files = {p.name: p.read_bytes() for p in folder.iterdir()} | {"README.md": b"of no use"}
    asked = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            what = self.path.split("?")[0].split("/")[-1]
            asked.append(what)
            content = files.get(what, b"")
            if "/tree/" in self.path:
                sizes = {name: len(kept) for name, kept in sorted(files.items())}
                tree = [{"type": "file", "path": n, "size": s, "oid": n} for n, s in sizes.items()]
                content = json.dumps(tree).encode()
            elif self.path.startswith("/api/"):
                content = json.dumps({"id": "x", "sha": COMMIT}).encode()
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{what}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def log_message(self, *_):
            pass

    needed = "['config.json', 'model.safetensors']"
    assert fetched(serve(Hub), tmp_path / "cache") == f"{COMMIT} {needed}"
    assert "README.md" not in asked
    nobody = "http://127.0.0.1:9"
    assert fetched(nobody, tmp_path / "cache") == f"{COMMIT} {needed}", "the cache answers"
    assert "check the network" in fetched(nobody, tmp_path / "empty")
