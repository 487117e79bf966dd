"""The cache tells the truth: keys, locks, lineage, the lock file of code, work in parallel."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest

from paper_lib import PaperError
from paper_lib.core import code, config, manifest, parallel, paths, stages
from paper_lib.recognition import features, finetune, head
from paper_lib.report import writer


def stage(folder, **changes) -> stages.Stage:
    entries = {
        "name": "head",
        "folder": folder,
        "parameters": {"rate": 1},
        "inputs": {"dataset": "x"},
    }
    return stages.Stage(**entries | changes)


def make(one: stages.Stage, content: str = "made") -> bool:
    """Make the stage if it is not there; was it made?"""
    with one.opened() as work:
        if work:
            (work / "result").write_text(content)
            one.finish(content)
    return bool(work)


# --- the key --------------------------------------------------------------------------------------


def test_what_a_stage_hangs_on_is_in_its_key(tmp_path, monkeypatch):
    assert make(stage(tmp_path / "s")) and not make(stage(tmp_path / "s"))
    for change in ({"parameters": {"rate": 2}}, {"inputs": {"dataset": "y"}}, {"threads": 3}):
        assert not stage(tmp_path / "s", **change).current(), change
    true = stages.version_of
    with monkeypatch.context() as other:
        other.setattr(stages, "version_of", lambda p: "9.9" if p == "torch" else true(p))
        assert not stage(tmp_path / "s").current(), "another torch"
    with monkeypatch.context() as other:
        other.setattr(stages.machine, "device", lambda: "another processor")
        assert not stage(tmp_path / "s").current(), "another device"
    with monkeypatch.context() as other:
        raised = code.declared() | {"head": code.declared()["head"] | {"version": 10**6}}
        other.setattr(code, "declared", lambda: raised)
        assert not stage(tmp_path / "s").current(), "another declared version"
    assert stage(tmp_path / "s").current()


def test_what_a_gpu_made_can_be_brought_to_a_machine_without_one(tmp_path, monkeypatch):
    true = stages.version_of
    with monkeypatch.context() as there:
        there.setattr(stages.machine, "device", lambda: "a GPU")
        there.setattr(stages, "version_of", lambda p: "2.0+cuda" if p == "torch" else true(p))
        make(stage(tmp_path / "s"), "made there")
    assert not make(stage(tmp_path / "s"))
    assert stages.read(tmp_path / "s")["device"] == "a GPU"
    for change in ({"parameters": {"rate": 2}}, {"inputs": {"dataset": "y"}}):
        assert not stage(tmp_path / "s", **change).current(), change


def test_the_key_is_taken_when_the_stage_begins(tmp_path, monkeypatch):
    """What is edited or installed while a stage is made does not become part of its seal."""
    one = stage(tmp_path / "s")
    with one.opened() as work:
        monkeypatch.setattr(stages, "version_of", lambda p: "9.9")
        monkeypatch.setattr(code, "vouched", lambda name: False)
        (work / "result").write_text("x")
        one.finish("x")
    assert stages.read(tmp_path / "s")["key"] == one.key
    assert not stage(tmp_path / "s").current(), "for the new code the stage is not there"
    monkeypatch.undo()
    assert stage(tmp_path / "s").current()


def test_a_source_edited_while_the_process_runs_changes_nothing_for_it(tmp_path):
    script = """
        import pathlib, sys
        sys.path.insert(0, sys.argv[1])
        from paper_lib.core import code
        before = pathlib.Path(sys.argv[1], "paper_lib/recognition/head.py")
        before.write_text(before.read_text().replace("hidden: int = 256", "hidden: int = 512"))
        print(code.digest("head"))
    """
    shutil.copytree(
        paths.PACKAGE, tmp_path / "paper_lib", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    digests = [
        subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
        for _ in range(2)
    ]
    assert digests[0].strip() == code.digest("head") != digests[1].strip()


def test_an_interrupted_stage_keeps_its_work_for_the_same_key_only(tmp_path):
    for key, kept in (({"rate": 1}, True), ({"rate": 2}, False)):
        with pytest.raises(KeyboardInterrupt), stage(tmp_path / "s").opened() as work:
            (work / "half").write_text("half")
            raise KeyboardInterrupt
        assert not (tmp_path / "s").exists()
        with stage(tmp_path / "s", parameters=key).opened() as work:
            assert (work / "half").exists() == kept
            stage(tmp_path / "s", parameters=key).finish("x")
        shutil.rmtree(tmp_path / "s")


def test_a_stage_killed_between_seal_and_renaming_is_whole(tmp_path, monkeypatch):
    one = stage(tmp_path / "s")
    with monkeypatch.context() as killed:
        killed.setattr(
            stages.Stage, "_install", lambda self: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            make(one)
    assert not (tmp_path / "s").exists() and not make(stage(tmp_path / "s"))
    assert (tmp_path / "s" / "result").read_text() == "made"


# --- two writers ----------------------------------------------------------------------------------

WRITER = """
    import pathlib, sys, time
    from paper_lib.core import stages
    one = stages.Stage("head", pathlib.Path(sys.argv[1]), {}, {})
    with one.opened() as work:
        if work:
            print("making", flush=True)
            file = work / "lines"
            for i in range(20):
                file.write_text((file.read_text() if file.exists() else "") + f"{i} ")
                time.sleep(0.1)
            one.finish(file.read_text())
    print((one.folder / "lines").read_text())
"""


def test_two_processes_that_want_the_same_stage_make_it_once(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "s")]
    both = [
        subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert (
        sum(out.startswith("making\n") or "\nmaking\n" in out for out in outputs) == 1
        and sum("waiting for it" in out for out in outputs) == 1
    )
    assert all(out.strip().endswith("18 19") for out in outputs)


def test_a_killed_writer_gives_its_lock_back(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "s")]
    first = subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline().strip() == "making"
    first.kill()
    first.wait()
    out = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, timeout=60).stdout
    assert out.startswith("making") and out.strip().endswith("18 19")


def test_no_entry_of_the_manifest_is_lost_between_two_writers(tmp_path):
    script = """
        import pathlib, sys
        from paper_lib.core import manifest
        for i in range(40):
            file = pathlib.Path(sys.argv[1], f"{sys.argv[2]}_{i}")
            file.write_text("x")
            manifest.record("p", [file], sys.argv[2], {})
    """
    (tmp_path / "f").mkdir()
    commands = [
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "f"), name]
        for name in ("a", "b")
    ]
    for process in [subprocess.Popen(c, cwd=paths.ROOT) for c in commands]:
        assert process.wait(60) == 0
    assert len(manifest.read("p")["artefacts"]) == 80


# --- lineage --------------------------------------------------------------------------------------


def test_an_artefact_names_every_stage_that_was_read_for_it(small, monkeypatch, tmp_path):
    import pandas as pd

    run, data, _ = small
    monkeypatch.setattr(stages, "_READ", {})
    features.embed_dataset(run, data, "frozen")
    head.fitted(run, data, "frozen")
    writer.Report(run, "04", weights="abc").table("table_x", pd.DataFrame({"f1": [0.5]}))
    inputs = manifest.read(run.profile)["artefacts"]["table_x.csv"]["inputs"]
    folder = paths.data(run.profile)
    wanted = {
        name: stages.read(folder / name)["content"]
        for name in ("embedding_frozen", "models/frozen")
    }
    assert inputs == wanted | {"weights": "abc"}


def test_a_head_of_another_codec_pooling_or_training_is_refused(small):
    run, data, _ = small
    finetune.starting_point(run, data)
    for change in (
        {"pooling": "mean_sd_mad"},
        {"standardise": False},
        {"head_rate": 0.5},
        {"hidden": 16},
    ):
        with pytest.raises(PaperError, match="trained with another codec, pooling or parameters"):
            finetune.starting_point(replace(run, **change), data)


def test_a_head_of_another_data_set_is_refused(small):
    """Otherwise a new split would be judged with models that trained on its test recordings."""
    run, data, _ = small
    other = type("Other", (), {"content": "another", "folder": data.folder})()
    with pytest.raises(
        PaperError, match="made from another data set than the present one: run notebook 02"
    ):
        finetune.starting_point(run, other)


def test_a_notebook_opened_by_hand_reads_the_run_of_its_neighbours():
    """What its parameters cell leaves out comes from the profile's file, not from the defaults."""
    by_hand = config.from_notebook({"profile": "full", "seed": 0, "np": np})
    assert by_hand == config.load("full") and by_hand.pooling != config.Profile().pooling
    assert config.from_notebook({"profile": "full", "upper_epochs": 3}) == config.load(
        "full", upper_epochs=3
    )


# --- stages.lock ----------------------------------------------------------------------------------


def test_stages_lock_vouches_for_the_present_code():
    """A change of code: raise the stage's version (results change), then `paper accept STAGE`."""
    for name in code.declared():
        assert code.vouched(name), f"the code of stage {name} is not what stages.lock holds"


SOURCES = {
    "core.random": "def draw(x):\n    return x\n",
    "core.paths": "def folder():\n    return 1\n",
    "sound.render": (
        "from ..core.random import draw\n"
        "from ..core import paths\n"
        "RATE = 44100\n"
        "OTHER = 1\n\n\n"
        "def render(x):\n"
        "    '''Says.'''\n"
        "    return draw(x) * RATE + paths.folder()\n\n\n"
        "def unused():\n"
        "    return OTHER\n"
    ),
    "sound.front": "from .render import RATE\n",  # a name that is only passed on
    "codec.train": (
        "from ..sound import render as r\n\n\n"
        "def train():\n"
        "    # comment\n"
        "    return 3\n\n\n"
        "def both():\n"
        "    return train() + r.render(1)\n"
    ),
}


@pytest.mark.parametrize("module, old, new, stale", [
    ("sound.render", "RATE = 44100", "RATE = 16000", {"render", "both", "front"}),  # a constant
    ("core.random", "return x", "return x + 1", {"render", "both"}),  # the root of every draw
    ("codec.train", "return 3", "return 4", {"train", "both"}),
    ("sound.render", "'''Says.'''", "'''Says more.'''", set()),
    ("codec.train", "# comment", "# another comment", set()),
    ("sound.render", "OTHER = 1", "OTHER = 2", set()),  # nothing that a stage runs
    ("core.paths", "return 1", "return 2", set()),  # bookkeeping
])  # fmt: skip
def test_changed_code_is_seen_where_it_runs_and_nowhere_else(module, old, new, stale):
    entries = {
        "render": "sound.render.render",
        "train": "codec.train.train",
        "both": "codec.train.both",
        "front": "sound.front.RATE",
    }
    changed = SOURCES | {module: SOURCES[module].replace(old, new)}
    assert changed != SOURCES
    seen = {
        n
        for n, e in entries.items()
        if code.digest_of([e], SOURCES) != code.digest_of([e], changed)
    }
    assert seen == stale


@pytest.mark.slow
def test_the_real_stages_hang_on_what_they_run():
    def changed(module: str, old: str, new: str) -> set[str]:
        assert old in code._SOURCES[module], old
        other = code._SOURCES | {module: code._SOURCES[module].replace(old, new)}
        return {
            n for n, e in code.declared().items() if code.digest_of(e["code"], other) != present[n]
        }

    everything = set(code.declared())
    present = {name: code.digest(name) for name in everything}
    played = {"dataset", "experiment", "dry", "bridge", "bridge_answers"}
    played |= {"token_collection", "token_task"}  # (speech or music: the guitar is the music)
    adapted = {"adapted", "trial", "few_row", "parameters"}
    tuned = {"finetuned"} | adapted
    assert changed("sound.plucked", "RATE = 44_100", "RATE = 48_000") == played
    assert changed("core.muon", "0.2 * math.sqrt", "0.1 * math.sqrt") == tuned
    assert {"dataset", "head", "finetuned", "experiment"} <= changed(
        "core.random", "digest[:16]", "digest[:15]"
    )
    scored = {"head", "peer", "svm", "bridge_answers"} | tuned - {"parameters"}
    assert changed("evaluation.scores", "2 * tp, 2 * tp + fp", "3 * tp, 2 * tp + fp") == scored
    assert changed("core.paths", 'ROOT / "data" / "weights"', 'ROOT / "w"') == set() != everything


def test_code_that_the_lock_does_not_know_is_kept_apart(tmp_path, monkeypatch):
    make(stage(tmp_path / "s"))
    monkeypatch.setattr(code, "vouched", lambda name: False)
    assert not stage(tmp_path / "s").current() and make(
        stage(tmp_path / "s"), "of the changed code"
    )
    assert not make(stage(tmp_path / "s"))
    monkeypatch.undo()
    assert not stage(tmp_path / "s").current()


def test_accept_enters_one_stage_and_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "LOCK", tmp_path / "stages.lock")
    for name in code.declared():
        code.accept(name)
    entries = json.loads((tmp_path / "stages.lock").read_text())
    (tmp_path / "stages.lock").write_text(
        json.dumps(entries | {"head": {"version": 1, "digest": "old"}})
    )
    assert not code.vouched("head") and code.vouched("dataset")
    code.accept("head")
    assert code.vouched("head") and json.loads((tmp_path / "stages.lock").read_text()) == entries


# --- parallel work --------------------------------------------------------------------------------


def double(x: int) -> dict[str, np.ndarray]:
    return {"x": np.full(3, 2 * x)}


def test_items_that_are_done_are_not_done_again(tmp_path):
    items, calls = {f"{i}": (i,) for i in range(6)}, []

    def counted(x: int) -> dict[str, np.ndarray]:
        calls.append(x)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return double(x)

    with pytest.raises(KeyboardInterrupt):
        parallel.shards(counted, items, tmp_path, "x")
    (tmp_path / "1.npz").write_bytes(b"PK damaged")
    calls.clear()
    calls.extend([None] * 10)
    files = parallel.shards(counted, items, tmp_path, "x")
    assert calls[10:] == [1, 3, 4, 5]
    assert [int(np.load(f)["x"][0]) for f in files] == [0, 2, 4, 6, 8, 10]


@pytest.mark.slow
def test_several_processes_leave_the_same_shards(tmp_path, monkeypatch):
    items = {f"{i}": (i,) for i in range(5)}
    parallel.shards(double, items, tmp_path / "one", "x")
    monkeypatch.setenv("PAPER_WORKERS", "2")
    parallel.shards(double, items, tmp_path / "two", "x")
    one, two = (
        {p.name: p.read_bytes() for p in sorted((tmp_path / n).iterdir())} for n in ("one", "two")
    )
    assert one == two and len(one) == 5


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 1)
    with pytest.raises(PaperError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        parallel.shards(double, {"0": (0,)}, tmp_path, "x", "tcp://127.0.0.1:9")


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_renders_and_embeds_the_same_bytes(
    small, tmp_path, monkeypatch
):
    """Two worker processes of a real Dask cluster on this machine; one is killed mid-way."""
    from dask.distributed import LocalCluster

    run, data, array = small
    monkeypatch.setenv("PAPER_DATA", str(tmp_path / "elsewhere"))
    from paper_lib.sound import rendering

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        victim = next(iter(cluster.workers.values())).pid
        killed, replace_file = [], os.replace

        def replaced(source, target):
            if not killed and str(target).endswith(".npz"):
                os.kill(victim, 9)
                killed.append(time.time())
            replace_file(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(parallel.os, "replace", replaced)
            far = replace(run, scheduler=cluster.scheduler_address)
            again = rendering.render_dataset(far)
        embedded = features.embed_dataset(far, again, "frozen")
    assert killed and again.content == data.content
    for name in ("audio.npy", "index.parquet"):
        assert stages.digest(again.folder / name) == stages.digest(data.folder / name)
    assert np.array_equal(embedded, array)
