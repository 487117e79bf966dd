"""A released recognizer goes to the hub with its card (a loopback hub: none is reached here)."""

import base64
import hashlib
import http.server
import json
import re

import pandas as pd
import pytest
from huggingface_hub import ModelCard

from paper_lib.app import sharing
from paper_lib.core import paths
from paper_lib.recognition.model import load
from paper_lib.recognition.peers import MelRecognizer


def hub(received: dict):
    """A hub that takes commits, and large files as git-lfs does; `received`: path -> content."""
    large: dict[str, bytes] = {}

    class Hub(http.server.BaseHTTPRequestHandler):
        def answer(self, body: object, status: int = 200) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_POST(self) -> None:
            body, here = self.body(), f"http://{self.headers['Host']}"
            if self.headers.get("Authorization") != "Bearer right":
                self.answer({"error": "who are you?"}, 401)
            elif self.path.endswith("/repos/create"):
                self.answer({"url": f"{here}/someone/it", "id": "someone/it"})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                mode = lambda path: "lfs" if path.endswith(".safetensors") else "regular"
                self.answer({"files": [{"path": f["path"], "uploadMode": mode(f["path"]),
                                        "shouldIgnore": False} for f in files]})  # fmt: skip
            elif self.path.endswith("/info/lfs/objects/batch"):
                objects = json.loads(body)["objects"]
                links = [{"upload": {"href": f"{here}/large/{o['oid']}"}} for o in objects]
                pairs = zip(objects, links, strict=True)
                self.answer(
                    {"transfer": "basic", "objects": [o | {"actions": a} for o, a in pairs]}
                )
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        received[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        received[value["path"]] = large[value["oid"]]
                self.answer({"commitUrl": f"{here}/someone/it/commit/0", "commitOid": "0" * 40,
                             "pullRequestUrl": None})  # fmt: skip
            else:  # the card's head is asked for its errors
                self.answer({"errors": [], "warnings": []})

        def do_PUT(self) -> None:
            content = self.body()
            large[hashlib.sha256(content).hexdigest()] = content
            self.answer({})

        def log_message(self, *_) -> None:
            pass

    return Hub


@pytest.mark.slow
def test_a_pushed_recognizer_is_the_released_one_with_its_card(command, serve, tmp_path):
    received: dict[str, bytes] = {}
    hub_here = {"HF_ENDPOINT": serve(hub(received)), "HF_HOME": str(tmp_path), "HF_TOKEN": "right",
                "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    done = command("push", "someone/it", "--model", "cnn", **hub_here)
    assert done.returncode == 0 and "/someone/it/commit/" in done.stdout, done.stderr
    for name, content in received.items():
        (tmp_path / name).write_bytes(content)
    ours = load(paths.WEIGHTS / "cnn", MelRecognizer).state_dict()
    theirs = load(tmp_path, MelRecognizer).state_dict()
    assert all((value == theirs[key]).all() for key, value in ours.items())
    found = ModelCard.load(tmp_path / "README.md")
    scores = pd.read_csv(paths.reference("quick") / "table_real.csv").set_index("model")
    assert found.data.eval_results[0].metric_value == scores.macro_f1.released_cnn
    refused = command("push", "someone/it", **hub_here | {"HF_TOKEN": "wrong"})
    assert refused.returncode and "check HF_TOKEN" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", list(sharing.SCORES))
def test_a_hub_card_is_whole_and_points_nowhere_beside_it(name):
    text = sharing.card(name)
    about = ModelCard(text).data
    assert about.license == "mit" and len(about.eval_results) == 2
    assert len(re.findall(r"^\| \w+ \| \d", text, re.M)) == 13 and "](../" not in text
