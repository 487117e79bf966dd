"""The codec, its loader, the hub and the embedding (notebook 02, sections 1 and 2).

The hub is a loopback server.
"""

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from paper_lib import PaperError
from paper_lib.codec import hub, l3ac
from paper_lib.codec.encoder import Encoder, bake
from paper_lib.core import paths
from paper_lib.recognition import features


def test_the_published_networks_have_the_known_sizes():
    whole = {"3kbps": 10_307_288, "1k5bps": 11_254_884, "1kbps": 11_271_268, "0k75bps": 11_289_700}
    for name, size in whole.items():
        assert l3ac.parameter_counts(l3ac.build(l3ac.hub_config(name)))["whole"] == size
    counts = l3ac.parameter_counts(l3ac.build(l3ac.hub_config("3kbps")))
    assert counts["encoder"] + counts["en_encoder"] == 1_117_578


def test_five_seconds_are_834_frames_of_128_channels():
    encoder = Encoder(l3ac.build(l3ac.hub_config("3kbps")))
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 80_000)).shape == (1, 834, 128)


def test_the_shipped_codec_loads_in_eval_mode_and_repeats_itself():
    network = l3ac.load("shipped")
    x = 0.1 * torch.randn(1, 16_000)
    assert not network.training
    with torch.inference_mode():
        assert torch.equal(network(x)["generated_audio"], network(x)["generated_audio"])


@pytest.mark.parametrize("name", ["shipped", "hub:3kbps", "hub:1kbps"])
def test_the_two_halves_in_a_row_are_the_encoder(name):
    network = l3ac.build(l3ac.config_of(name))
    encoder = Encoder(network)
    x = 0.1 * torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        halfway = encoder.lower(x)
        padded = torch.nn.functional.pad(x, (0, -x.shape[1] % network.mc.hop_length))
        assert torch.equal(encoder(halfway), encoder(x))
        assert encoder(x) == pytest.approx(
            network.en_encoder(network.encoder(padded[:, None])), abs=1e-4
        )
    # the upper half works at the frame rate (1kbps: and compresses it further)
    assert halfway.shape[2] >= encoder(x).shape[1]
    assert len(encoder.upper_parameters()) < len(list(encoder.parameters()))


def test_baking_the_weight_norm_changes_nothing():
    x = 0.1 * torch.randn(1, 16_000)
    with torch.inference_mode():
        plain, baked = Encoder(l3ac.load("shipped"))(x), bake(Encoder(l3ac.load("shipped")))(x)
    assert (plain - baked).abs().max() < 1e-6


def test_altered_or_missing_shipped_weights_are_refused(tmp_path, monkeypatch):
    shutil.copytree(paths.WEIGHTS / "shipped", tmp_path / "shipped")
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path)
    l3ac.load("shipped")
    file = tmp_path / "shipped" / "encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(PaperError, match=r"encoder\.safetensors has the wrong SHA-256"):
        l3ac.load("shipped")
    file.unlink()
    with pytest.raises(PaperError, match="git checkout data/weights"):
        l3ac.load("shipped")


def test_the_embedding_of_a_data_set_equals_the_open_formula(small):
    run, data, array = small
    network = l3ac.load(run.codec)
    with torch.inference_mode():
        for row in (0, 100, len(data) - 1):
            frames = network.en_encoder(
                network.encoder(torch.from_numpy(data.clips([row]))[:, None])
            )[0].numpy()
            assert array[row, 0] == pytest.approx(frames.mean(0), abs=2e-5)
            assert array[row, 2] == pytest.approx(np.abs(np.diff(frames, axis=0)).mean(0), abs=2e-5)


@pytest.mark.parametrize("name", ["shipped", "hub:3kbps", "hub:1k5bps", "hub:1kbps", "hub:0k75bps"])
@pytest.mark.parametrize("gradients", [False, True])
def test_the_fast_way_through_the_encoder_is_l3acs_own(name, gradients):
    """Folded units, tiles, trends by doubling, attention by blocks: equal up to rounding.

    For any length.
    """
    network = l3ac.build(l3ac.config_of(name)) if name != "shipped" else l3ac.load("shipped")
    generator = torch.Generator().manual_seed(0)
    # (gains and offsets are 1 and 0 in an untrained network)
    for parameter in network.parameters():
        parameter.data.add_(
            0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        )
    encoder = Encoder(network)
    for samples, level in ((23_456, 0.1), (65_001, 0.1), (16_000, 0.0)):
        x = level * torch.randn(2, samples, generator=generator)
        with torch.set_grad_enabled(gradients):
            padded = torch.nn.functional.pad(x, (0, -x.shape[1] % network.mc.hop_length))
            plain = network.en_encoder(network.encoder(padded[:, None]))
            ours = encoder(x)
        assert (plain - ours).abs().max() < 1e-5 * plain.abs().max() + 1e-5, (samples, level)


def test_the_fast_way_has_l3acs_gradients():
    network, other = l3ac.load("shipped"), l3ac.load("shipped")
    x = 0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    other.en_encoder(other.encoder(x[:, None])).square().mean().backward()
    Encoder(network)(x).square().mean().backward()
    for (name, one), two in zip(network.named_parameters(), other.parameters(), strict=True):
        if two.grad is not None:
            assert (one.grad - two.grad).norm() <= 1e-3 * two.grad.norm() + 1e-8, name


@pytest.mark.slow
def test_an_interrupted_extraction_goes_on_where_it_was(small, monkeypatch, tmp_path):
    run, data, array = small
    monkeypatch.setenv("PAPER_DATA", str(tmp_path))
    monkeypatch.setattr(features, "CHUNK", 32)
    true, seen = features.embed, []

    def killed(*given):
        seen.append(given)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return true(*given)

    monkeypatch.setattr(features, "embed", killed)
    with pytest.raises(KeyboardInterrupt):
        features.embed_dataset(run, data, "frozen")
    assert not (tmp_path / "small" / "embedding_frozen").exists()
    again = features.embed_dataset(run, data, "frozen")
    assert len(seen) == 1 + -(-len(data) // 32) and np.array_equal(again, array)
    halfway, rows = features.kept(run, data, "frozen").activations, [0, 95, 96, len(data) - 1]
    with torch.inference_mode():
        lower = torch.from_numpy(halfway[rows].astype(np.float32))
        upper = features.time_statistics(features.front_end("frozen", run.codec, 0)(lower))
    assert upper.numpy() == pytest.approx(array[rows], abs=2e-3)


# --- the hub --------------------------------------------------------------------------------------

REVISION = "5f" * 20


def hub_server(files: dict[str, bytes], declared: dict[str, str], behaviour: dict):
    """A loopback stand-in for the hub: HEAD and GET of resolve URLs, with commit, ETag and size."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            parts = self.path.split("/resolve/")
            revision, _, file = parts[-1].partition("/")
            behaviour.setdefault("requests", []).append((self.command, revision, file))
            if len(parts) != 2 or file not in files or revision not in ("main", REVISION):
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{declared[file]}"')
            self.send_header("Content-Length", str(len(files[file])))
            self.end_headers()
            if body:
                self.wfile.write(
                    files[file][: len(files[file]) // 2] if behaviour.get("drop") else files[file]
                )

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def log_message(self, *_):
            pass

    return Hub


@pytest.fixture(scope="session")
def published() -> dict[str, bytes]:
    """The 3kbps network with random weights in the hub's layout."""
    network, files = l3ac.build(l3ac.hub_config("3kbps"), seed=7), {}
    for part in hub.PARTS:
        buffer = io.BytesIO()
        torch.save(getattr(network, part).state_dict(), buffer)
        files[f"weights/3kbps.v1/{part}.pt"] = buffer.getvalue()
    return files


LOAD = """
from paper_lib import PaperError
from paper_lib.codec import l3ac

try:
    n = l3ac.load("hub:3kbps")
    bias = float(n.encoder.blocks[0].conv_1.bias.sum())
    print("ok", n.training, bias, l3ac.parameter_counts(n)["whole"])
except PaperError as e:
    print("refused:", e)
"""


def load_in_a_fresh_process(address: str, folder) -> str:
    environment = os.environ | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder / "hf"),
        "PAPER_HUB_PINS": str(folder / "pins.json"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "HF_HUB_ETAG_TIMEOUT": "5",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        capture_output=True,
        text=True,
        env=environment,
        cwd=paths.ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_hub_weights_are_pinned_verified_and_cached(serve, published, tmp_path):
    declared = {f: hashlib.sha256(b).hexdigest() for f, b in published.items()}
    behaviour = {}
    address = serve(hub_server(published, declared, behaviour))
    assert load_in_a_fresh_process(address, tmp_path).startswith("ok False")
    assert "10307288" in load_in_a_fresh_process(address, tmp_path)
    pins = json.loads((tmp_path / "pins.json").read_text())["3kbps"]
    assert pins["revision"] == REVISION and pins["sha256"] == declared
    assert all(
        revision == REVISION for method, revision, _ in behaviour["requests"] if method == "GET"
    )
    before = len(behaviour["requests"])
    load_in_a_fresh_process(address, tmp_path)
    assert len(behaviour["requests"]) == before, "a pinned model in the cache asks the hub nothing"


@pytest.mark.slow
def test_wrong_bytes_of_the_right_size_are_refused_and_not_kept(serve, published, tmp_path):
    declared = {f: hashlib.sha256(b).hexdigest() for f, b in published.items()}
    file = "weights/3kbps.v1/en_encoder.pt"
    wrong = dict(published) | {file: published[file][:-1] + bytes([published[file][-1] ^ 1])}
    said = load_in_a_fresh_process(serve(hub_server(wrong, declared, {})), tmp_path)
    assert said.startswith("refused:") and "wrong SHA-256" in said and file in said
    assert load_in_a_fresh_process(serve(hub_server(published, declared, {})), tmp_path).startswith(
        "ok"
    )


def test_an_unreachable_hub_a_dropped_file_and_an_unknown_one(serve, published, tmp_path):
    declared = {f: hashlib.sha256(b).hexdigest() for f, b in published.items()}
    said = load_in_a_fresh_process("http://127.0.0.1:9", tmp_path)
    assert said.startswith("refused:") and "check the network" in said and "codec: shipped" in said
    fewer = {f: b for f, b in published.items() if "quantizer" not in f}
    assert "refused:" in load_in_a_fresh_process(serve(hub_server(fewer, declared, {})), tmp_path)
    with pytest.raises(PaperError, match="unknown L3AC model '9kbps'"):
        l3ac.load("hub:9kbps")


def test_the_eager_formulas_are_l3acs_own():
    """`codec` replaces two compiled functions of l3ac; the numbers stay.

    The same network, in a process that replaces them and in one that does not.
    """
    code = (
        "import torch, json\n"
        "from l3ac import CONFIG_DIR, L3ACConfig\n"
        "from l3ac.en_codec import EnCodec\n"
        "{}\n"
        "torch.manual_seed(0)\n"
        "n = EnCodec(L3ACConfig(config_file=CONFIG_DIR / '3kbps.toml').network_config).eval()\n"
        "x = torch.randn(1, 960)\n"
        "with torch.inference_mode():\n"
        "    print(json.dumps(n(x)['generated_audio'][0].tolist()))\n"
    )

    def audio_of(script: str) -> list[float]:
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
        return json.loads(done.stdout)

    plain, ours = (audio_of(code.format(more)) for more in ("", "import paper_lib.codec.l3ac"))
    assert plain == pytest.approx(ours, abs=1e-6) and np.ptp(plain) > 0
