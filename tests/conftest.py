"""Shared by all tests: a small finished run, the oracle's clips, loopback servers.

No test touches the checkout's own data. Tests work on one item at a time: two run side by side.
"""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from filelock import FileLock

os.environ.setdefault("PAPER_WORKERS", "1")

from paper_lib import PaperError
from paper_lib.core import config, paths
from paper_lib.proxies import synth
from paper_lib.recognition import features, head
from paper_lib.sound import rendering

ORACLE = paths.ROOT.parent / "shared" / "oracle"


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "slow: takes more than a few seconds (left out by make check)"
    )


def pytest_collection_modifyitems(items):
    """What takes long comes first, so that no worker is left alone with it at the end.

    The tests that share the cloned run are neighbours: else one worker waits for the other's.
    """
    slow = lambda item: item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: (not slow(item), "clone" not in item.fixturenames))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Data and figures of every test lie in its own folder (a fixture may point them elsewhere)."""
    monkeypatch.setenv("PAPER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PAPER_FIGURES", str(tmp_path / "figures"))


@pytest.fixture
def oracle() -> Path:
    """Real GuitarSet clips and an independent group's renderings of one; not ours to ship."""
    if not ORACLE.exists():
        pytest.skip("the oracle's GuitarSet clips are not beside this checkout (../shared/oracle)")
    return ORACLE


HEADS = {"frozen": ("frozen", "mean", True)}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A finished data set of 1-s clips (16 recordings x 51 chains) with frozen embedding and head.

    (profile, data, embedding, folder); made once for all pytest workers.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "small"
    before = os.environ.get("PAPER_DATA")
    os.environ["PAPER_DATA"] = str(folder)
    run = config.load("tiny", profile="small", recordings=16, chains_per_slice=0, head_epochs=40)
    with FileLock(base / "small.lock"):
        data = rendering.render_dataset(run)
        array = features.embed_dataset(run, data, "frozen")
        head.fit_heads(run, data, HEADS)
    if before is None:
        del os.environ["PAPER_DATA"]
    else:
        os.environ["PAPER_DATA"] = before
    return run, data, array, folder


@pytest.fixture
def small(small_run, monkeypatch):
    run, data, array, folder = small_run
    monkeypatch.setenv("PAPER_DATA", str(folder))
    return run, data, array


def paper(*arguments, **environment) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "paper_lib", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=paths.ROOT, env=os.environ | environment
    )


@pytest.fixture
def command():
    return paper


@pytest.fixture
def amsynth():
    """Part IV's synthesizer, where it is."""
    try:
        return synth.plugin()
    except PaperError as problem:
        pytest.skip(str(problem))


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


@pytest.fixture
def read_json():
    return lambda path: json.loads(Path(path).read_text())
