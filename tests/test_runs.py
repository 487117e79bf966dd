"""All notebooks through papermill: twice the same bytes, on real clips, in the paper's own condition, without papermill."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from test_codec import hub, published  # noqa: F401  (the loopback hub and its files)

from paper_lib import notebooks, paths, profiles, provenance


def start(profile, folder: Path, **environment) -> subprocess.Popen:
    environment = os.environ | {"PAPER_DATA": str(folder / "data"), "PAPER_FIGURES": str(folder / "figures")} | environment
    return subprocess.Popen([sys.executable, "-m", "paper_lib", "reproduce", "-p", str(profile)], env=environment, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process) -> str:
    out, error = process.communicate(timeout=900)
    assert process.returncode == 0, error[-3000:]
    return out


def write_profile(folder: Path, name: str, base: str, **changes) -> Path:
    values = yaml.safe_load((paths.PROFILES / f"{base}.yaml").read_text()) | changes | {"profile": name}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder / f"{name}.yaml"


def test_two_runs_give_the_same_bytes_and_a_third_does_nothing(tmp_path):
    runs = [start("tiny", tmp_path / name) for name in ("one", "two")]
    for process in runs:
        finish(process)
    one, two = ({p.name: provenance.digest(p) for p in sorted((tmp_path / name / "figures" / "tiny").iterdir())} for name in ("one", "two"))
    assert one == two and sum(n.endswith(".png") for n in one) == sum(n.endswith(".svg") for n in one) >= 6
    for path in notebooks.listing():
        books = [nbformat.read(tmp_path / name / "data" / "tiny" / "notebooks" / path.name, 4) for name in ("one", "two")]
        assert books[0] == books[1], path.name
    again = finish(start("tiny", tmp_path / "one"))
    assert again.count("unchanged, skipped") == len(notebooks.listing())


def test_real_clips_of_any_folder_run_through(oracle, tmp_path):
    profile = write_profile(tmp_path, "mine", "quick", corpus="folder", corpus_path=str(oracle / "clean"), recordings=0, head_epochs=10, upper_epochs=1, finetune_epochs=1, finetune_clips=32, contrast_epochs=0, bootstrap=50)
    finish(start(profile, tmp_path))
    table = pd.read_csv(tmp_path / "figures" / "mine" / "table_2_overall.csv")
    assert set(table.model) == {"chance", "majority", "logmel", "random_frozen", "frozen", "frozen_statistics", "upper_half", "finetuned", "always", "released"}
    assert (table[table.source == "run"].n_clips == 12).all()
    index = pd.read_parquet(tmp_path / "data" / "mine" / "dataset" / "index.parquet")
    assert len(index) == 4 * 12 and set(index.player) == {"00"} and set(index["style"]) == {"BN"}


def test_the_papers_own_condition_runs_as_far_as_this_machine_can(oracle, tmp_path, serve, published):  # noqa: F811
    """GuitarSet's names with the oracle's real audio, chains at 16 kHz, the 3kbps network through the loopback hub."""
    home = tmp_path / "guitarset" / "audio_mono-mic"
    home.mkdir(parents=True)
    names = ["00_BN1-129-Eb_comp", "01_Funk1-114-Ab_comp", "02_Jazz1-130-D_solo", "03_Rock1-130-A_comp"]
    for name, clip in zip(names, sorted((oracle / "clean").glob("*.wav"))):
        shutil.copy(clip, home / f"{name}_mic.wav")
    declared = {f: hashlib.sha256(b).hexdigest() for f, b in published.items()}
    address = serve(hub(published, declared, {}))
    profile = write_profile(tmp_path, "small_paper", "paper", corpus_path=str(tmp_path / "guitarset"), chain_plan="singles", head_epochs=5, finetune_epochs=1, finetune_clips=16, bootstrap=50)
    environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "PAPER_HUB_PINS": str(tmp_path / "pins.json"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    finish(start(profile, tmp_path, **environment))
    stage = provenance.read(tmp_path / "data" / "small_paper" / "models" / "finetuned")
    assert stage["parameters"]["encoder_rate"] == 1e-5 and stage["parameters"]["accumulation"] == 8
    assert provenance.read(tmp_path / "data" / "small_paper" / "dataset")["parameters"]["render_rate"] == 16_000
    index = pd.read_parquet(tmp_path / "data" / "small_paper" / "dataset" / "index.parquet")
    assert sorted(index.recording.unique()) == names and len(index) == 4 * 13
    assert json.loads((tmp_path / "pins.json").read_text())["3kbps"]["sha256"] == declared
    assert np.load(tmp_path / "data" / "small_paper" / "embedding_frozen" / "embedding.npy").shape == (52, 3, 128)


def test_plain_papermill_with_a_profile_file_is_the_same_run(tmp_path, monkeypatch):
    """`papermill NB OUT -f profile.yaml` from the notebooks' folder, without our command."""
    done = subprocess.run([sys.executable, "-m", "papermill", "01_render_dataset.ipynb", str(tmp_path / "out.ipynb"), "-f", "profiles/tiny.yaml", "-k", "python3"], cwd=paths.NOTEBOOKS, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert provenance.read(paths.data("tiny") / "dataset")["parameters"]["recordings"] == profiles.load("tiny").recordings


def test_solutions_of_the_exercises_are_right():
    """Each notebook ends with a stub and its check; with the line from notebooks/solutions the check says True."""
    solutions = yaml.safe_load((paths.NOTEBOOKS / "solutions" / "solutions.yaml").read_text())
    for path in notebooks.listing():
        stub = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"][-1].source
        assert stub.count("# replace this line") == 1, path.name
        lines = [solutions[path.stem] if "# replace this line" in line else line for line in stub.splitlines()]
        for source, wanted in (("\n".join(lines), "True"), (stub, "False")):
            code = f"from paper_lib import effects\n{source}"
            said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
            assert said.stdout.strip() == wanted, (path.name, said.stdout, said.stderr)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(name, *tables): a notebook that makes a stage data/tiny/<name> and those tables, instead of the real ones."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)

    def notebook(name: str, *tables: str) -> None:
        lines = ["import pandas as pd", "from paper_lib import paths, profiles, provenance, report", f"out = report.Report(profiles.load('tiny'), {name!r})"]
        lines += [f"stage = provenance.Stage(paths.data('tiny') / {name!r}, {{}}, {{}}, ())", "stage.current() or (stage.begin(), stage.finish('made'))"]
        cell = nbformat.v4.new_code_cell("\n".join(lines + [f"out.table({table!r}, pd.DataFrame({{'x': [1]}}))" for table in tables]))
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python"}}), tmp_path / f"{name}.ipynb")

    return notebook


def test_a_spoilt_table_or_a_deleted_stage_is_made_again_and_nothing_before_it(write, capsys):
    run, names = profiles.load("tiny"), ("01_first", "02_second", "03_third")
    for name in names:
        write(name, name[3:])
    notebooks.reproduce(run)
    skipped = lambda: capsys.readouterr().out.count("unchanged, skipped")
    assert skipped() == 0
    table, stage = paths.figures("tiny") / "third.csv", paths.data("tiny") / "02_second"
    whole = table.read_bytes()
    for harm, left in ((lambda: None, 3), (lambda: table.write_bytes(b""), 2), (lambda: shutil.rmtree(stage), 1)):
        harm()
        notebooks.reproduce(run)
        assert skipped() == left and table.read_bytes() == whole and stage.exists()


def test_what_a_notebook_no_longer_makes_is_removed_whichever_notebook_the_run_began_with(write):
    run = profiles.load("tiny")
    write("01_first", "one"), write("02_second", "two", "old")
    notebooks.reproduce(run)
    assert {p.name for p in paths.figures("tiny").glob("*.csv")} == {"one.csv", "two.csv", "old.csv"}
    write("01_first", "one", "another"), write("02_second", "two")
    notebooks.reproduce(run)
    assert {p.name for p in paths.figures("tiny").glob("*.csv")} == {"one.csv", "another.csv", "two.csv"}
