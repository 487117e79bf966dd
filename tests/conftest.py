"""Shared by all tests: a small finished run, the oracle's clips, loopback servers. No test touches the checkout's own data."""

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from paper_lib import embedding, paths, profiles, rendering, training

ORACLE = paths.ROOT.parent / "shared" / "oracle"


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Data and figures of every test lie in its own folder (a fixture may point them elsewhere)."""
    monkeypatch.setenv("PAPER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PAPER_FIGURES", str(tmp_path / "figures"))


@pytest.fixture
def oracle() -> Path:
    if not ORACLE.exists():
        pytest.skip("the oracle's GuitarSet clips are not beside this checkout (../shared/oracle)")
    return ORACLE


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A finished data set of 1-s clips (16 recordings x 51 chains), its frozen embedding and head: (profile, data, embedding)."""
    folder = tmp_path_factory.mktemp("small")
    os.environ["PAPER_DATA"] = str(folder)
    run = profiles.load("tiny", profile="small", recordings=16, chains_per_slice=0, head_epochs=40)
    data = rendering.render_dataset(run)
    array = embedding.embed_dataset(run, data, "frozen")
    training.fit_head(run, data, array, "frozen", run.pooling, run.standardise)
    return run, data, array, folder


@pytest.fixture
def small(small_run, monkeypatch):
    run, data, array, folder = small_run
    monkeypatch.setenv("PAPER_DATA", str(folder))
    return run, data, array


def paper(*arguments, **environment) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    return subprocess.run([sys.executable, "-m", "paper_lib", *map(str, arguments)], capture_output=True, text=True, cwd=paths.ROOT, env=os.environ | environment)


@pytest.fixture
def command():
    return paper


@pytest.fixture
def serve():
    """serve(handler class) -> the address of a loopback server that runs until the test ends."""
    servers = []

    def start(handler) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


def tone(path: Path, seconds: float, rate: int = 44_100, channels: int = 1, **more) -> Path:
    t = np.arange(int(seconds * rate)) / rate
    sound = 0.3 * np.sin(2 * np.pi * 220 * t)
    soundfile.write(path, np.stack([sound] * channels, axis=1), rate, **more)
    return path


@pytest.fixture
def make_tone():
    return tone
