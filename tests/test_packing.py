"""A run travels as one file, from a path or a server; what is damaged takes no place."""

import http.server
import io
import json
import tarfile

import pytest

from paper_lib import PaperError
from paper_lib.app import packing
from paper_lib.app.cli import main
from paper_lib.core import paths, stages


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A small run, packed; the present data folder is empty again."""
    folder = paths.data("quick") / "dataset"
    folder.mkdir(parents=True)
    (folder / "audio.npy").write_bytes(bytes(1000))
    (folder / "provenance.json").write_text(json.dumps({"content": "abc"}))
    half = paths.data("quick") / "embedding_frozen.partial"
    half.mkdir()
    (half / "shard").write_text("half made")
    paths.figures("quick").mkdir(parents=True)
    (paths.figures("quick") / "table.csv").write_text("a,b\n1,2\n")
    target = tmp_path / "class.tar.gz"
    assert "3 files of the run 'quick'" in packing.pack("quick", target)
    monkeypatch.setenv("PAPER_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PAPER_FIGURES", str(tmp_path / "drawn"))
    return target


def test_a_packed_run_arrives_whole_and_only_once(packed):
    assert "the run 'quick' is here, 3 files" in packing.unpack(str(packed))
    assert stages.finished("quick") == ["dataset"]
    assert (paths.dataset("quick") / "audio.npy").read_bytes() == bytes(1000)
    assert (paths.figures("quick") / "table.csv").read_text() == "a,b\n1,2\n"
    with pytest.raises(PaperError, match="already here: remove"):
        packing.unpack(str(packed))


def test_it_comes_from_a_server_too(packed, serve):
    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(packed.read_bytes())

        def log_message(self, *_) -> None:
            pass

    address = serve(Files)
    assert "is here" in packing.unpack(f"{address}/class.tar.gz")


def rebuilt(packed, change):
    """The packed run with `change(name, bytes)` in place of each file's bytes."""
    out = packed.with_name("changed.tar.gz")
    with tarfile.open(packed) as old, tarfile.open(out, "w:gz") as new:
        for entry in old:
            content = change(entry.name, old.extractfile(entry).read())
            entry.size = len(content)
            new.addfile(entry, io.BytesIO(content))
    return str(out)


def test_what_is_damaged_is_refused_and_leaves_nothing(packed, tmp_path, capsys):
    one_bit = rebuilt(packed, lambda n, b: b[:-1] + b"\x01" if n.endswith(".npy") else b)
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(packed.read_bytes()[:-200])
    (tmp_path / "text.tar.gz").write_text("no archive")
    for source, words in {
        one_bit: "audio.npy is not what was packed",
        str(cut): "damaged",
        str(tmp_path / "text.tar.gz"): "damaged or no packed run",
        str(tmp_path / "nothing.tar.gz"): "is not a file",
    }.items():
        assert main(["fetch", "run", source]) == 1
        assert words in capsys.readouterr().err
        assert not paths.data("quick").exists() and not paths.figures("quick").exists()
    assert main(["fetch", "run"]) == 1 and "which run?" in capsys.readouterr().err
    with pytest.raises(PaperError, match="there is no run of 'full' to pack"):
        packing.pack("full", tmp_path / "none.tar.gz")


def test_a_folder_is_no_file_to_write(tmp_path, capsys):
    """Said before any work: there is no run to pack, and no recognizer of this name."""
    for command in (["pack", str(tmp_path)], ["export", str(tmp_path), "--model", "nowhere"]):
        assert main(command) == 1
        assert "is a folder: name a file" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["data/../../outside", "{}/outside", "outside", "data/a.joblib"])
def test_a_member_that_climbs_out_or_is_a_pickle_is_refused(packed, tmp_path, where):
    evil, where = tmp_path / "evil.tar.gz", where.format(tmp_path)
    with tarfile.open(packed) as old, tarfile.open(evil, "w:gz") as new:
        about = json.loads(old.extractfile(old.next()).read())
        about["files"][where] = stages.digest(packed)  # (it is on the list)
        for name, content in ((packing.LIST, json.dumps(about).encode()), (where, b"x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            new.addfile(entry, io.BytesIO(content))
    words = "holds a pickle" if where.endswith("joblib") else "is damaged: it lists no file"
    with pytest.raises(PaperError, match=words):
        packing.unpack(str(evil))
    assert not (tmp_path / "outside").exists() and not paths.data("quick").exists()


@pytest.mark.parametrize("profile", ["../evil", "reference", 7])
def test_a_packed_run_cannot_name_a_place_elsewhere(packed, profile):
    def renamed(name: str, content: bytes) -> bytes:
        if name != packing.LIST:
            return content
        return json.dumps(json.loads(content) | {"profile": profile}).encode()

    with pytest.raises(PaperError):
        packing.unpack(rebuilt(packed, renamed))
