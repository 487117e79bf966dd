"""Whole runs.

Part I twice in a clone of its own, real clips, the paper's condition, papermill without our
command.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import test_codec
import yaml
from filelock import FileLock

from paper_lib.app import cli, notebooks
from paper_lib.core import config, paths, stages
from paper_lib.recognition import finetune, head
from paper_lib.sound import rendering


def run_in(folder: Path, *command: str, **environment: str) -> str:
    """A command in `folder`, with its own data and figures; what it printed."""
    own = {k: v for k, v in os.environ.items() if k not in ("PAPER_DATA", "PAPER_FIGURES")}
    # (that checkout's package, in kernels, too)
    environment = own | {"PYTHONPATH": str(folder)} | environment
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The checkout's present files in a repository of their own; Part I of `tiny` is run in it.

    Made once for all pytest workers.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, ready = base / "clone" / "checkout", base / "clone" / "ready"
    with FileLock(base / "clone.lock"):
        if not ready.exists():
            _make_clone(folder)
            ready.touch()
    return folder


def _make_clone(folder: Path) -> None:
    files = run_in(paths.ROOT, "git", "ls-files", "-co", "--exclude-standard").splitlines()
    for name in files:
        if (paths.ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, folder / name)
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-q", "-m", "all")):
        run_in(folder, "git", *words)
    run_in(folder, sys.executable, "-m", "paper_lib", "reproduce", "-p", "tiny")
    if keep := os.environ.get("PAPER_KEEP_TINY"):  # `make test` goes on from it with other parts
        for part in ("data", "figures"):
            target = paths.ROOT / keep / part / "tiny"
            shutil.copytree(folder / part / "tiny", target, dirs_exist_ok=True)


def digests(folder: Path) -> dict[str, str]:
    return {
        p.name: stages.digest(p)
        for p in sorted(folder.iterdir())
        if p.name != "manifest.json" and p.is_file()
    }


@pytest.mark.slow
def test_two_runs_give_the_same_bytes_and_a_third_does_nothing(clone):
    paper = (sys.executable, "-m", "paper_lib", "reproduce", "-p", "tiny")
    again = run_in(clone, *paper)
    assert again.count("unchanged, skipped") == len(notebooks.listing("paper"))
    run_in(
        clone,
        *paper,
        PAPER_DATA="data/second",
        PAPER_FIGURES="data/second_figures",
        PAPER_WORKERS="2",
    )
    one = digests(clone / "figures" / "tiny")
    two = digests(clone / "data" / "second_figures" / "tiny")
    assert one == two
    assert sum(n.endswith(".png") for n in one) == sum(n.endswith(".svg") for n in one) >= 4
    for path in notebooks.listing("paper"):
        kept = (
            clone / "data" / place / "tiny" / "notebooks" / path.name for place in ("", "second")
        )
        assert nbformat.read(next(kept), 4) == nbformat.read(next(kept), 4), path.name


@pytest.mark.slow
def test_a_run_leaves_git_clean_also_where_the_last_bits_differ(clone):
    """As on another processor: weights moved by one unit in the last place, two threads, not one.

    The run's numbers differ, and neither git nor the tests of what is published sees anything.
    """
    values = yaml.safe_load((paths.PROFILES / "tiny.yaml").read_text()) | {
        "profile": "other",
        "threads": 2,
    }
    (clone.parent / "other.yaml").write_text(yaml.safe_dump(values))
    nudge = (
        "import torch; from paper_lib.codec import l3ac; load = l3ac.load\n"
        "def nudged(*a, **k):\n"
        "    network = load(*a, **k)\n"
        "    for p in network.parameters():\n"
        "        p.data = torch.nextafter(p.data, torch.full_like(p.data, 9.0))\n"
        "    return network\n"
        "l3ac.load = nudged\n"
    )
    (clone.parent / "sitecustomize.py").write_text(nudge)
    paper = (sys.executable, "-m", "paper_lib", "reproduce", "-p", str(clone.parent / "other.yaml"))
    for notebook in ("01", "02"):  # (where the codec's numbers first become tables)
        run_in(clone, *paper, "--only", notebook, PYTHONPATH=f"{clone.parent}:{clone}")
    made = [clone / "data" / p / "embedding_frozen" / "embedding.npy" for p in ("tiny", "other")]
    assert stages.digest(made[0]) != stages.digest(made[1]), "the last bits made no difference"
    assert (clone / "figures" / "other" / "table_frozen_heads.csv").exists()
    assert run_in(clone, "git", "status", "--porcelain") == ""
    tests = "test_every_published or test_the_readme or test_the_published or test_git_tracks"
    run_in(
        clone,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/test_house.py",
        "-k",
        tests,
        "-p",
        "no:cacheprovider",
    )
    assert run_in(clone, "git", "status", "--porcelain") == ""


published = test_codec.published  # a fixture: the files of the loopback hub


def small_profile(**changes) -> config.Profile:
    few = {
        "threads": 1,
        "head_epochs": 5,
        "head_seeds": 1,
        "upper_epochs": 1,
        "finetune_epochs": 1,
        "finetune_clips": 16,
        "bootstrap": 50,
    }
    return config.load("quick", **few | changes)


def through_part_1(run: config.Profile) -> tuple[rendering.Dataset, np.ndarray]:
    """The stages of notebooks 01 to 04 for one run: data set and test probabilities."""
    data = rendering.render_dataset(run)
    head.fit_heads(run, data, {"frozen": ("frozen", run.pooling, run.standardise)})
    model, _ = finetune.finetune_both(run, data)
    return data, finetune.predictions(run, data, model)[1]


def test_the_command_line_fine_tunes_in_the_other_order(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PAPER_DATA", str(tmp_path))
    changes = {"profile": "few", "recordings": 8, "recording_seconds": 1.0, "slice_seconds": 1.0}
    changes |= {"finetune_order": "whole_first", "upper_draws": 1, "upper_seconds": 0.5}
    changes |= {"finetune_part": "above_first", "finetune_varied": True, "chains_per_slice": 4}
    run = small_profile(**changes)
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(dataclasses.asdict(run)))
    for _ in range(2):  # the second time all is there
        assert cli.main(["finetune", "-p", str(tmp_path / "few.yaml"), "--seed", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines] == ["whole", "finetuned"]
    made = {"whole_seed1", "finetuned_seed1", "frozen", "frozen_seed1"}
    assert {p.name for p in (tmp_path / "few" / "models").iterdir() if p.is_dir()} == made
    kept = sorted(p.name[-2:] for p in (tmp_path / "few" / "half_way").glob("[0-9a-f]*"))
    assert kept == ["_0", "_1"], "what the first step made of the lower half, and its other draw"
    assert cli.main(["finetune", "-p", str(tmp_path / "few.yaml"), "--seed", "-1"]) == 1


@pytest.mark.slow
def test_real_clips_of_any_folder_run_through(oracle):
    run = small_profile(
        profile="mine",
        corpus="folder",
        corpus_path=str(oracle / "clean"),
        recordings=0,
        chains_per_slice=6,
    )
    data, probability = through_part_1(run)
    assert (
        len(data) == 4 * 6
        and set(data.index.player) == {"00"}
        and set(data.index["style"]) == {"BN"}
    )
    assert probability.shape == (6, 13) and np.isfinite(probability).all()


@pytest.mark.slow
def test_the_papers_own_condition_runs_as_far_as_this_machine_can(
    tmp_path, make_tone, serve, published
):
    """GuitarSet's names, chains at 16 kHz, the 3kbps network through the loopback hub."""
    home = tmp_path / "guitarset" / "audio_mono-mic"
    home.mkdir(parents=True)
    names = [
        "00_BN1-129-Eb_comp",
        "01_Funk1-114-Ab_comp",
        "02_Jazz1-130-D_solo",
        "03_Rock1-130-A_comp",
    ]
    for name in names:
        make_tone(home / f"{name}_mic.wav", 2.1)
    declared = {f: hashlib.sha256(b).hexdigest() for f, b in published.items()}
    address = serve(test_codec.hub_server(published, declared, {}))
    script = (
        "import test_runs as t; from paper_lib.core import config\n"
        "run = config.load('paper', profile='small_paper', threads=1, chain_plan='singles',"
        f" corpus_path={str(tmp_path / 'guitarset')!r}, slice_seconds=1.0, chains_per_slice=4,"
        " head_epochs=3, head_seeds=1, finetune_epochs=1, finetune_clips=16)\n"
        "t.through_part_1(run)\n"
    )
    environment = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "hf"),
        "PAPER_HUB_PINS": str(tmp_path / "pins.json"),
    }
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trained = stages.read(paths.model("small_paper", "finetuned"))["parameters"]
    assert trained["rates"]["encoder"] == 1e-5 and trained["accumulation"] == 8
    data = rendering.Dataset(paths.dataset("small_paper"))
    assert data.provenance["parameters"]["render_rate"] == 16_000
    assert sorted(data.index.recording.unique()) == names and len(data) == 4 * 2 * 4
    assert json.loads((tmp_path / "pins.json").read_text())["3kbps"]["sha256"] == declared
    assert np.load(paths.embedding("small_paper", "frozen") / "embedding.npy").shape == (32, 3, 128)


@pytest.mark.slow
def test_plain_papermill_with_a_profile_file_is_the_same_run(tmp_path):
    """`papermill NB OUT -f profile.yaml` from the notebooks' folder, without our command."""
    papermill = (
        sys.executable,
        "-m",
        "papermill",
        "01_render_dataset.ipynb",
        str(tmp_path / "out.ipynb"),
    )
    environment = {
        "PAPER_DATA": os.environ["PAPER_DATA"],
        "PAPER_FIGURES": os.environ["PAPER_FIGURES"],
    }
    run_in(paths.NOTEBOOKS, *papermill, "-f", "profiles/tiny.yaml", "-k", "python3", **environment)
    made = stages.read(paths.dataset("tiny"))
    assert made["parameters"]["recordings"] == config.load("tiny").recordings
    assert rendering.stage(config.load("tiny"), []).current(), "the command would make it again"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(name, *tables): a notebook in place of the real ones.

    It makes a stage data/tiny/<name> and those tables.
    """
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)

    def notebook(name: str, *tables: str) -> None:
        made = [f"{table}.csv" for table in tables]
        lines = [
            "from paper_lib.core import manifest, paths, stages",
            f"stage = stages.Stage('dataset', paths.data('tiny') / {name!r}, {{}}, {{}})",
            "with stage.opened() as work:",
            "    work and stage.finish('made')",
            f"files = [paths.figures('tiny') / name for name in {made!r}]",
            "for file in files:",
            "    paths.write_beside(file, 'x,y')",
            f"manifest.record('tiny', files, {name!r}, {{}})",
        ]
        cell = nbformat.v4.new_code_cell("\n".join(lines))
        nbformat.write(
            nbformat.v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python"}}),
            tmp_path / f"{name}.ipynb",
        )

    return notebook


@pytest.mark.slow
def test_a_spoilt_table_or_a_deleted_stage_is_made_again_and_nothing_before_it(write, capsys):
    run, names = config.load("tiny"), ("01_first", "02_second", "03_third")
    for name in names:
        write(name, name[3:])
    notebooks.reproduce(run)
    skipped = lambda: capsys.readouterr().out.count("unchanged, skipped")
    assert skipped() == 0
    table, stage = paths.figures("tiny") / "third.csv", paths.data("tiny") / "02_second"
    whole = table.read_bytes()
    for harm, left in (
        (lambda: None, 3),
        (lambda: table.write_bytes(b""), 2),
        (lambda: shutil.rmtree(stage), 1),
    ):
        harm()
        notebooks.reproduce(run)
        assert skipped() == left and table.read_bytes() == whole and stage.exists()


@pytest.mark.slow
def test_what_a_notebook_no_longer_makes_is_removed_whichever_notebook_the_run_began_with(write):
    run = config.load("tiny")
    write("01_first", "one")
    write("02_second", "two", "old")
    notebooks.reproduce(run)
    assert {p.name for p in paths.figures("tiny").glob("*.csv")} == {
        "one.csv",
        "two.csv",
        "old.csv",
    }
    write("01_first", "one", "another")
    write("02_second", "two")
    notebooks.reproduce(run)
    assert {p.name for p in paths.figures("tiny").glob("*.csv")} == {
        "one.csv",
        "another.csv",
        "two.csv",
    }
