"""Profiles, notebooks, environment files and manifest hold together."""

import ast
import json
import re
import tomllib

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml

from paper_lib import PaperError, notebooks, paths, profiles, provenance, report


@pytest.mark.parametrize("values, words", [
    ({"encoder_raet": 1e-5}, "unknown parameter 'encoder_raet'. Did you mean encoder_rate"),
    ({"recordings": "many"}, "recordings wants int, not 'many'"),
    ({"include_dry": 1}, "include_dry wants bool"),
    ({"threads": True}, "threads wants int"),
    ({"chain_plan": "paper51"}, "chain_plan is 'paper51'; it can be paper50, guo221, singles"),
    ({"slice_seconds": 0}, "slice_seconds must be above 0"),
    ({"corpus": "folder"}, "needs corpus_path"),
    ({"encoder_rate": "1e-5"}, "YAML wants a point in such a number: 1.0e-5"),
    ({"encoder_rate": float("nan")}, "encoder_rate cannot be nan"),
    ({"dropout": 1.5}, "dropout cannot be 1.5"),
    ({"profile": "../elsewhere"}, "cannot be the name of a run"),
    ({"profile": "reference"}, "cannot be the name of a run"),
])  # fmt: skip
def test_a_wrong_profile_is_refused(values, words):
    with pytest.raises(PaperError, match=re.escape(words)):
        profiles.build(values)


def test_an_unknown_key_comes_with_the_list_of_known_ones():
    with pytest.raises(PaperError) as said:
        profiles.build({"colour": "blue"})
    assert all(name in str(said.value) for name in profiles.names())


def test_broken_and_missing_profile_files(tmp_path):
    (tmp_path / "bad.yaml").write_text("seed: [1")
    with pytest.raises(PaperError, match="bad.yaml is not valid YAML"):
        profiles.load(str(tmp_path / "bad.yaml"))
    with pytest.raises(PaperError, match="no profile 'huge'.*full, paper, quick, tiny"):
        profiles.load("huge")


def test_a_copied_profile_cannot_overwrite_the_run_it_was_copied_from(tmp_path, monkeypatch):
    text = (paths.PROFILES / "quick.yaml").read_text().replace('corpus_path: ""', "corpus_path: sounds")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(PaperError, match="mine.yaml describes a run called 'quick' and would overwrite that: write profile: mine"):
        profiles.load(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text(text.replace("profile: quick", "profile: mine"))
    monkeypatch.chdir(tmp_path)  # a relative folder means the same to the command and to a notebook, which runs elsewhere
    assert profiles.load("mine.yaml").corpus_path == str(tmp_path / "sounds")


def test_every_profile_holds_all_parameters_and_quick_is_the_default():
    assert profiles.load("quick") == profiles.Profile()
    for path in paths.PROFILES.glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())) == set(profiles.names()), path.name
        assert profiles.load(path.stem).profile == path.stem
    with pytest.raises(PaperError, match="lead_seconds is 0.2; it can be 0, or at least 3,"):
        profiles.load("quick", lead_seconds=0.2)
    paper = profiles.load("paper")
    assert (paper.encoder_rate, paper.finetune_head_rate, paper.finetune_batch * paper.accumulation, paper.render_rate) == (1e-5, 1e-3, 32, 16_000)


BOOKS = notebooks.listing()


def parameters(book):
    cell = next(c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}


def test_the_parameter_cells_repeat_the_quick_profile():
    quick, seen = profiles.load("quick"), set()
    for path in BOOKS:
        for name, value in parameters(nbformat.read(path, 4)).items():
            assert getattr(quick, name) == value, (path.name, name)
            seen.add(name)
    assert seen == set(profiles.names())


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_no_cell_overwrites_a_parameter(path):
    """Otherwise running the first cells again in JupyterLab would read a result as a parameter."""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            bound = {n.id for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            assert not bound & set(profiles.names()), (path.name, bound & set(profiles.names()))


def test_an_executed_notebook_is_stored_with_the_parameters_it_ran_with():
    book = notebooks.clean(nbformat.read(BOOKS[2], 4), {"profile": "mine", "seed": 7, "encoder_rate": 2e-5, "not_there": 1})
    assert parameters(book) == parameters(nbformat.read(BOOKS[2], 4)) | {"profile": "mine", "seed": 7, "encoder_rate": 2e-5}


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_a_stored_notebook_is_a_clean_run_from_top_to_bottom(path):
    book = nbformat.read(path, 4)
    code = [c for c in book.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("NBVAL_CHECK_OUTPUT" in c.source and bool(c.outputs) for c in code) >= 3
    assert all(len(c.source.splitlines()) <= 20 for c in code)
    prose = "".join(c.source for c in book.cells if c.cell_type == "markdown")
    assert all(word in prose for word in ("**Question.**", "**Answers**", "**You will be able to**", "**Time to run**", "## What was learned", "## Exercises"))


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_what_a_checked_cell_prints_does_not_hang_on_what_is_cached(path):
    """A stage that has to be made shows a progress bar; one that is there does not."""
    bars = re.compile(r"render_dataset|embed_dataset|halfway_up|fit_head|finetune(_upper)?\(|predict(ions)?\(|experiments\.variant|as_it_is\(|recipes\.compare|pretrain\(")
    for cell in nbformat.read(path, 4).cells:
        if cell.source.startswith("# NBVAL_CHECK_OUTPUT"):
            assert not bars.search(cell.source), (path.name, cell.source)


def test_environment_yml_and_pyproject_and_the_lock_name_the_same_packages():
    declared = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    *conda, last = yaml.safe_load((paths.ROOT / "environment.yml").read_text())["dependencies"]
    assert last == {"pip": ["-r requirements.lock", "-e ."]} and {"python=3.11", "sox=14.4.2"} <= set(conda)
    lock = dict(line.split("==") for line in (paths.ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#"))
    known = {re.sub(r"[-_.]+", "-", name).lower() for name in lock}
    assert {re.sub(r"[-_.]+", "-", d.split("==")[0]).lower() for d in declared} <= known
    assert "torch==2.13.0" in declared and lock["torch"] == "2.13.0" and not [n for n in lock if "nvidia" in n or "cuda" in n]


def test_imports_point_from_right_to_left():
    order = "paths profiles effects machine provenance audio plucked sounds corpus dataset rendering codec embedding reconstruction anatomy recognizer metrics training recipes report pretraining claims experiments notebooks cli".split()
    for path in (paths.ROOT / "paper_lib").glob("*.py"):
        tree = ast.parse(path.read_text())
        top = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.level == 1]  # (imports inside functions are for the command's speed)
        imported = {n for node in top for n in ([node.module] if node.module else [a.name for a in node.names])} & set(order)
        later = order[order.index(path.stem) :] if path.stem in order else []
        assert not imported & set(later), (path.name, imported & set(later))


def test_every_published_artefact_is_in_its_manifest_and_unaltered():
    for reference in sorted((paths.ROOT / "figures" / "reference").iterdir()):
        manifest = json.loads((reference / "manifest.json").read_text())["artefacts"]
        stored = [*reference.glob("*.csv"), *(p for p in (paths.ROOT / "figures" / reference.name).iterdir() if p.name != "manifest.json")]
        for path in stored:
            assert provenance.digest(path) == manifest[path.name]["sha256"], path
        assert set(manifest) == {p.name for p in stored}
        for name in ("table_1_effects", "table_2_overall", "table_3_per_class"):
            assert {f"{name}.csv", f"{name}.md"} <= set(manifest)
        for name in ("figure_1_training", "figure_2_tsne"):
            assert {f"{name}.csv", f"{name}.png", f"{name}.svg"} <= set(manifest)


def test_the_readme_shows_the_reference_run():
    table = report.overview(pd.read_csv(paths.reference("quick") / "table_2_overall.csv"))
    assert f"<!-- table_2 -->\n{table}\n<!-- /table_2 -->" in (paths.ROOT / "README.md").read_text()


def test_verify_tells_equal_near_far_and_altered(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "reference", lambda profile: tmp_path / "reference" / profile)
    run = profiles.load("tiny")
    frame = pd.DataFrame({"model": ["a", "b"], "f1": [0.50, 0.60]})
    out = report.Report(run, "04", dataset="x")
    for name in ("same", "near", "far", "text", "touched", "loose"):
        out.table(name, frame.assign(best_epoch=[3, 4]))
    import shutil

    shutil.copytree(paths.figures("tiny"), tmp_path / "reference" / "tiny")
    with pytest.raises(PaperError, match="there is no run of 'tiny'"):  # figures alone are what git holds
        provenance.verify("tiny")
    provenance.Stage(paths.data("tiny") / "dataset", {}, {}, ()).begin()
    provenance.Stage(paths.data("tiny") / "dataset", {}, {}, ()).finish("x")
    assert set(provenance.verify("tiny").verdict) == {"equal"}
    frame = frame.assign(best_epoch=[3, 4])
    out.table("near", frame.assign(f1=[0.52, 0.60])), out.table("far", frame.assign(f1=[0.9, 0.6])), out.table("text", frame.assign(model=["a", "c"]))
    out.table("loose", frame.assign(best_epoch=[30, 4]))
    (paths.figures("tiny") / "touched.csv").write_text("model,f1\na,1.0\n")
    verdicts = provenance.verify("tiny").set_index("artefact").verdict
    assert verdicts[["same.csv", "near.csv", "far.csv", "text.csv", "touched.csv", "loose.csv"]].tolist() == ["equal", "within tolerance", "different", "different", "altered after the run", "within tolerance"]
    (paths.figures("tiny") / "same.csv").unlink()
    assert provenance.verify("tiny").set_index("artefact").verdict["same.csv"] == "missing"
    provenance.forget_artefacts("tiny", ["04"])  # as when a run begins: what an earlier one left counts no longer
    assert set(provenance.verify("tiny").verdict) == {"missing"}


def test_the_published_notebook_04_shows_the_published_reference():
    book = nbformat.read(next(p for p in BOOKS if p.stem.startswith("04")), 4)
    text = next(o.data["text/plain"] for c in book.cells if c.cell_type == "code" and 'columns=["paper", "reference", "this run"]' in c.source for o in c.outputs)
    pairs = [line.split()[-2:] for line in text.splitlines()[2:]]
    assert len(pairs) >= 7 and all(float(reference) == float(run) for reference, run in pairs)


def test_a_figure_is_the_same_bytes_every_time():
    from matplotlib import pyplot as plt

    files = []
    for name in ("one", "two"):
        out = report.Report(profiles.load("tiny", profile=name), "x")
        figure, axis = plt.subplots()
        axis.plot(np.arange(5))
        out.figure("figure_x", figure, pd.DataFrame({"x": range(5)}))
        files.append([provenance.digest(paths.figures(name) / f"figure_x.{s}") for s in ("png", "svg", "csv")])
    assert files[0] == files[1]


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    target = tmp_path / "table.csv"
    target.write_text("the old table")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(paths.Path, "write_bytes", full)
    with pytest.raises(PaperError, match="No space left on device"):
        paths.write_beside(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "the old table" and list(tmp_path.glob(".table*")) == []
