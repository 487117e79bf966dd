"""Profiles, notebooks, environment files and manifest hold together."""

import ast
import base64
import io
import json
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import requires

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from matplotlib import pyplot as plt

from paper_lib import PaperError
from paper_lib.app import notebooks, publish
from paper_lib.core import config, machine, manifest, paths, stages, verify
from paper_lib.report import findings, writer
from paper_lib.sound import audio


@pytest.mark.parametrize("values, words", [
    ({"encoder_raet": 1e-5}, "unknown parameter 'encoder_raet'. Did you mean encoder_rate"),
    ({"recordings": "many"}, "recordings wants int, not 'many'"),
    ({"recordings": -1}, "recordings must be at least 0, not -1"),
    ({"include_dry": 1}, "include_dry wants bool"),
    ({"threads": True}, "threads wants int"),
    ({"chain_plan": "paper51"},
     "chain_plan is 'paper51'; it can be 'paper50', 'guo221', 'singles'"),
    ({"slice_seconds": 0}, "slice_seconds must be above 0"),
    ({"corpus": "folder"}, "needs corpus_path"),
    ({"encoder_rate": "1e-5"}, "YAML wants a point in such a number: 1.0e-5"),
    ({"encoder_rate": float("nan")}, "encoder_rate cannot be nan"),
    ({"dropout": 1.5}, "dropout must be below 1, not 1.5"),
    ({"profile": "../elsewhere"}, "cannot be the name of a run"),
    ({"profile": "reference"}, "profile 'reference' is reserved"),
])  # fmt: skip
def test_a_wrong_profile_is_refused(values, words):
    with pytest.raises(PaperError, match=re.escape(words)):
        config.build(values)


def test_an_unknown_key_comes_with_the_list_of_known_ones():
    with pytest.raises(PaperError) as said:
        config.build({"colour": "blue"})
    assert all(name in str(said.value) for name in config.names())


def test_broken_and_missing_profile_files(tmp_path):
    (tmp_path / "bad.yaml").write_text("seed: [1")
    with pytest.raises(PaperError, match=r"bad\.yaml is not valid YAML"):
        config.load(str(tmp_path / "bad.yaml"))
    with pytest.raises(PaperError, match=r"no profile 'huge'.*full, paper, quick, tiny"):
        config.load("huge")


def test_a_copied_profile_cannot_overwrite_the_run_it_was_copied_from(tmp_path, monkeypatch):
    quick = (paths.PROFILES / "quick.yaml").read_text()
    text = quick.replace('corpus_path: ""', "corpus_path: sounds")
    (tmp_path / "mine.yaml").write_text(text)
    words = "mine.yaml describes a run called 'quick' and would overwrite that: write profile: mine"
    with pytest.raises(PaperError, match=re.escape(words)):
        config.load(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text(text.replace("profile: quick", "profile: mine"))
    # a relative folder means the same to the command and to a notebook, which runs elsewhere
    monkeypatch.chdir(tmp_path)
    assert config.load("mine.yaml").corpus_path == str(tmp_path / "sounds")


def test_every_profile_holds_all_parameters_and_quick_is_the_default():
    assert config.load("quick") == config.Profile()
    for path in paths.PROFILES.glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())) == set(config.names()), path.name
        assert config.load(path.stem).profile == path.stem
    with pytest.raises(PaperError, match=r"lead_seconds is 0\.2; it can be 0, or at least 3,"):
        config.load("quick", lead_seconds=0.2)
    paper = config.load("paper")
    assert (
        paper.encoder_rate,
        paper.finetune_head_rate,
        paper.finetune_batch * paper.accumulation,
        paper.render_rate,
    ) == (1e-5, 1e-3, 32, 16_000)


BOOKS = notebooks.listing()


def parameters(book):
    cell = next(c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    return {
        node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body
    }


def test_the_parameter_cells_repeat_the_quick_profile():
    quick, seen = config.load("quick"), set()
    for path in BOOKS:
        for name, value in parameters(nbformat.read(path, 4)).items():
            assert getattr(quick, name) == value, (path.name, name)
            seen.add(name)
    assert seen == set(config.names())


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_no_cell_overwrites_a_parameter_or_a_module(path):
    """Else the first cells, run again in JupyterLab, would read a result as a parameter.

    And a later cell would find a string where it expects a module.
    """
    taken = set(config.names())
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code" or "parameters" in cell.metadata.get("tags", []):
            continue
        nodes = list(ast.walk(ast.parse(cell.source)))
        bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        assert not bound & taken, (path.name, bound & taken)
        imports = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
        taken |= {alias.asname or alias.name for one in imports for alias in one.names}


def test_an_executed_notebook_is_stored_with_the_parameters_it_ran_with():
    book = notebooks.clean(
        nbformat.read(BOOKS[2], 4),
        {"profile": "mine", "seed": 7, "encoder_rate": 2e-5, "not_there": 1},
    )
    assert parameters(book) == parameters(nbformat.read(BOOKS[2], 4)) | {
        "profile": "mine",
        "seed": 7,
        "encoder_rate": 2e-5,
    }


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_a_stored_notebook_is_a_clean_run_from_top_to_bottom(path):
    book = nbformat.read(path, 4)
    code = [c for c in book.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [
        o for c in code for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"
    ]
    assert sum("NBVAL_CHECK_OUTPUT" in c.source and bool(c.outputs) for c in code) >= 3
    assert all(len(c.source.splitlines()) <= 20 for c in code)
    prose = "".join(c.source for c in book.cells if c.cell_type == "markdown")
    assert all(
        word in prose
        for word in (
            "**Question.**",
            "**Answers**",
            "**You will be able to**",
            "**Time to run**",
            "## What was learned",
            "## Exercises",
        )
    )


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_a_figure_is_described_for_those_who_cannot_see_it(path):
    cells = [c for c in nbformat.read(path, 4).cells if "out.figure(" in c.source]
    assert cells
    for cell in cells:
        said = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert len(said) >= 60 and not re.search(r"0\.\d", said), cell.source


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_no_player_in_a_stored_notebook_is_silent(path):
    for number, cell in enumerate(nbformat.read(path, 4).cells):
        pages = [o.get("data", {}).get("text/html", "") for o in cell.get("outputs", [])]
        for sound in re.findall(r"data:audio/flac;base64,([^\"]+)", "".join(pages)):
            samples, _ = soundfile.read(io.BytesIO(base64.b64decode(sound)))
            assert np.abs(samples).max() > 1e-3, f"{path.name}, cell {number}"


def test_a_player_plays_floats_as_it_plays_16_bits():
    x = 0.3 * np.sin(np.arange(16_000) / 9).astype(np.float32)
    assert (
        audio.players({"x": x}, 16_000).data == audio.players({"x": audio.to_int16(x)}, 16_000).data
    )


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_what_a_checked_cell_prints_does_not_hang_on_what_is_cached(path):
    """A stage that has to be made shows a progress bar; one that is there does not."""
    bars = re.compile(
        r"render_dataset|embed_dataset|features\.kept|fit_heads|fit_networks|fit_svm|"
        r"finetune\.(finetune|predict)|experiments\.variant|as_it_is\(|recipes\.compare|pretrain\(|"
        r"\.fit(_all)?\("
    )
    for cell in nbformat.read(path, 4).cells:
        if cell.source.startswith("# NBVAL_CHECK_OUTPUT"):
            assert not bars.search(cell.source), (path.name, cell.source)


NUMBER = re.compile(
    r"(?<![\w.])\d+\.\d+|(?<![\w.,])\d{1,3}(?:,\d{3})+(?!\w)"
    r"|(?<![\w.,])\d+(?=\s?(?:%|dB|ms|kbit|Hz|steps|times)\b)"
)
# formulas, code, links, and places in the paper are no measured numbers
NO_NUMBER = re.compile(r"\$[^$]*\$|`[^`]*`|\]\([^)]*\)|Sections? [\d., and]+|Eqs?\. \d")


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_a_number_in_prose_is_computed_in_that_notebook_or_quoted_with_its_source(path):
    book = nbformat.read(path, 4)
    quoted = yaml.safe_load((paths.NOTEBOOKS / "quoted.yaml").read_text()).get(path.stem, {})
    code = [c for c in book.cells if c.cell_type == "code"]
    outputs = [o for c in code for o in c.outputs]
    shown = " ".join(
        o.get("text", "")
        + o.get("data", {}).get("text/plain", "")
        + re.sub(r'base64,[^"]*', "", o.get("data", {}).get("text/html", ""))
        for o in outputs
    ) + " ".join(c.source for c in code)
    for cell in [c for c in book.cells if c.cell_type == "markdown"]:
        text = NO_NUMBER.sub("", cell.source.split("**Time to run**")[0])
        for number in NUMBER.findall(text):
            known = number in shown or number.replace(",", "_") in shown or number in quoted
            assert known, (path.name, cell.id, number)


def pins(name: str) -> dict[str, str]:
    lines = (paths.ROOT / name).read_text().splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found.items()}


def test_environment_yml_and_pyproject_and_the_locks_name_the_same_packages():
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())
    *conda, last = yaml.safe_load((paths.ROOT / "environment.yml").read_text())["dependencies"]
    assert last == {"pip": ["-r requirements.lock", "-r requirements-dev.lock", "-e ."]}
    assert {"python=3.11", "sox=14.4.2"} <= set(conda)
    run, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    plain = lambda names: {re.sub(r"[-_.]+", "-", d.split("==")[0]).lower() for d in names}
    assert plain(project["project"]["dependencies"]) <= set(run)
    groups = project["dependency-groups"]
    assert plain(groups["test"] + groups["check"] + groups["docs"]) <= set(dev) and not set(
        run
    ) & set(dev)
    more = project["project"]["optional-dependencies"]["synth"]
    synth = set(pins("requirements-synth.lock"))
    needed = {need for package in synth for need in requires(package) or []}
    assert (
        plain(more) <= synth <= plain(more) | plain(re.split(r"[ <>=;!~(\[]", n)[0] for n in needed)
    )
    assert run["torch"] == "2.13.0" and not [
        n for n in (*run, *dev) if "nvidia" in n or "cuda" in n
    ]
    assert not {"selenium", "pytest", "mypy"} & set(run), (
        "a user of the library does not install these"
    )


def test_the_doctor_asks_a_run_for_no_package_of_the_tests():
    """Else `make reproduce` stops in a fresh environment where `make test` was not run first."""
    run = pins("requirements.lock")
    plain = {name.replace("sklearn", "scikit-learn").replace("_", "-") for name in machine.PACKAGES}
    assert plain <= set(run)


def test_every_published_artefact_is_in_its_manifest_and_unaltered():
    """References are tracked, runs are not: nothing that a run writes is compared here."""
    for reference in sorted(
        p for p in (paths.ROOT / "figures" / "reference").iterdir() if p.is_dir()
    ):
        entries = json.loads((reference / "manifest.json").read_text())["artefacts"]
        stored = [p for p in reference.iterdir() if p.name not in ("manifest.json", "README.md")]
        for path in stored:
            assert stages.digest(path) == entries[path.name]["sha256"], path
        assert set(entries) == {p.name for p in stored}
        for name in ("table_1_effects", "table_2_overall", "table_3_per_class"):
            assert {f"{name}.csv", f"{name}.md"} <= set(entries)
        for name in ("figure_1_training", "figure_2_tsne"):
            assert {f"{name}.csv", f"{name}.png", f"{name}.svg"} <= set(entries)


def test_publishing_keeps_what_this_machine_cannot_make(tmp_path):
    """A table of plugins stays where they are not installed; another table that is gone, goes."""
    optional, gone, other = "table_ladspa.csv", "table_old.csv", "table_of_another.csv"
    entries = {n: {"notebook": "11", "sha256": ""} for n in (optional, gone)}
    entries[other] = {"notebook": "12", "sha256": ""}
    for folder, artefacts in (("run", {}), ("reference", entries)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "manifest.json").write_text(json.dumps({"artefacts": artefacts}))
        for name in artefacts:
            (tmp_path / folder / name).write_text("x")
    publish._copy(tmp_path / "run", tmp_path / "reference", {"11"})
    left = json.loads((tmp_path / "reference" / "manifest.json").read_text())["artefacts"]
    assert set(left) == {optional, other}
    assert all((tmp_path / "reference" / name).exists() for name in left)
    assert not (tmp_path / "reference" / gone).exists()


def test_git_tracks_nothing_that_a_run_writes():
    command = ["git", "ls-files", "data", "figures"]
    tracked = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True).stdout.split()
    allowed = ("data/README.md", "data/weights/", "data/real/", "figures/reference/")
    assert tracked and [f for f in tracked if not f.startswith(allowed)] == []


def test_the_readme_says_what_the_reference_runs_found():
    readme = (paths.ROOT / "README.md").read_text()
    assert findings.into(readme) == readme, "paper publish writes these parts"
    assert max(len(line) for line in findings.findings().splitlines()) <= 100


def test_what_is_said_of_a_real_guitar_is_what_the_reference_run_found():
    real = pd.read_csv(paths.reference("quick") / "table_real.csv").set_index("model")
    codec, cnn = real.loc["released"], real.loc["released_cnn"]
    card = " ".join((paths.WEIGHTS / "cnn" / "README.md").read_text().split())
    assert f"macro-F1 {cnn.macro_f1:.3f}, and {cnn.told:.3f} over the eight" in card
    assert f"codec recognizer has {codec.macro_f1:.3f} and {codec.told:.3f} there" in card
    dry = pd.read_csv(paths.reference("quick") / "table_dry.csv").set_index("model")
    eqs = dry[["low_boost", "low_reduct", "high_boost", "high_reduct"]].mean(axis=1)
    one, two = eqs["released_cnn_dry"], eqs["released_cnn"]
    assert one > two  # a dry reference helps most with equalizers
    card = " ".join((paths.WEIGHTS / "cnn_dry" / "README.md").read_text().split())
    own = dry.loc["released_cnn_dry"]
    assert f"macro-F1 {own.macro_f1:.3f}, {own.told:.3f} over the eight effects" in card
    assert f"and {one:.3f} over the four equalizers. The CNN has {cnn.macro_f1:.3f}," in card
    pedals = pd.read_csv(paths.reference("quick") / "table_pedals.csv")
    foreign = pedals[(pedals.effect == "chorus") & (pedals.made_by == "pedalboard")]
    assert len(foreign) == 2 and foreign.heard.max() == 0  # "of pedalboard's chorus neither any"
    plugins = pd.read_csv(paths.reference("quick") / "table_ladspa.csv")
    third = plugins[(plugins.effect == "chorus") & (plugins.made_by == "LADSPA")]
    third = third.set_index("model").heard  # "the codec a third of a plugin's, the CNN none"
    assert third["released_cnn"] == 0 and third["released"] == pytest.approx(1 / 3, abs=0.05)
    nobody = ["overdrive", "low_boost", "low_reduct", "high_boost", "high_reduct"]
    assert cnn[nobody].max() < 0.55  # "Neither is to be believed there on ..."


def test_what_is_said_of_full_is_what_its_published_run_found():
    rates = pd.read_csv(paths.reference("full") / "table_rates.csv")
    first, second = (part for _, part in rates.groupby("model", sort=False))
    steps = (first.macro_f1[first.epoch == 0].item(), first.macro_f1.max(), second.macro_f1.max())
    book = nbformat.read(next(p for p in BOOKS if p.stem.startswith("03")), 4)
    text = " ".join(" ".join(c.source for c in book.cells if c.cell_type == "markdown").split())
    said = (
        "from {:.3f} with a head that was stopped early (appendix A2) to {:.3f} after its first "
        "step (all but the first block), and to {:.3f} with the upper half after it"
    )
    assert said.format(*steps) in text
    card = " ".join((paths.WEIGHTS / "released" / "README.md").read_text().split())
    said = "{:.3f} with the early head, {:.3f} after the first step, {:.3f} after the second"
    assert said.format(*steps) in card


@pytest.fixture
def published(tmp_path, monkeypatch):
    """published(tables): publish these as the reference of `tiny`, and return the run's writer."""
    monkeypatch.setattr(paths, "reference", lambda profile: tmp_path / "reference" / profile)

    def publish(frames: dict[str, pd.DataFrame]) -> writer.Report:
        out = writer.Report(config.load("tiny"), "04")
        for name, frame in frames.items():
            out.table(name, frame)
        shutil.copytree(paths.figures("tiny"), tmp_path / "reference" / "tiny")
        return out

    return publish


def test_verify_tells_equal_near_far_and_altered(published):
    frame = pd.DataFrame({"model": ["a", "b"], "f1": [0.50, 0.60], "best_epoch": [3, 4]})
    out = published(dict.fromkeys(("same", "near", "far", "text", "touched", "loose"), frame))
    assert set(verify.verify("tiny").verdict) == {"equal"}
    out.table("near", frame.assign(f1=[0.52, 0.60]))
    out.table("far", frame.assign(f1=[0.9, 0.6]))
    out.table("text", frame.assign(model=["a", "c"]))
    out.table("loose", frame.assign(best_epoch=[30, 4]))
    (paths.figures("tiny") / "touched.csv").write_text("model,f1\na,1.0\n")
    verdicts = verify.verify("tiny").set_index("artefact").verdict
    wanted = {"same": "equal", "near": "within tolerance", "far": "different", "text": "different"}
    wanted |= {"touched": "altered after the run", "loose": "within tolerance"}
    assert {name: verdicts[f"{name}.csv"] for name in wanted} == wanted
    (paths.figures("tiny") / "same.csv").unlink()
    assert verify.verify("tiny").set_index("artefact").verdict["same.csv"] == "missing"
    # as when a run begins: what an earlier one left counts no longer
    manifest.forget("tiny", ["04"])
    with pytest.raises(PaperError, match="there is no run of 'tiny'"):
        verify.verify("tiny")


def test_a_picture_of_words_alone_that_is_drawn_otherwise_is_near(published):
    frame = pd.DataFrame({"step": ["rendering", "head"], "notebook": ["01", "02"]})
    out = published({"figure_words": frame})
    (paths.reference("tiny") / "figure_words.png").write_bytes(b"as it was drawn")
    record = paths.reference("tiny") / "manifest.json"
    known = json.loads(record.read_text())
    known["artefacts"]["figure_words.png"] = {"sha256": "0", "notebook": "04"}
    record.write_text(json.dumps(known))
    figure, _ = plt.subplots()
    out.figure("figure_words", figure, frame)
    verdicts = verify.verify("tiny").set_index("artefact").verdict
    assert verdicts["figure_words.csv"] == "equal"
    assert verdicts["figure_words.png"] == "within tolerance"


def test_a_curve_of_another_number_of_points_stands_for_the_same(published):
    points = lambda *recall: pd.DataFrame({"model": "a", "effect": "reverb (12)", "recall": recall})
    out = published({"figure_precision_recall": points(0.1, 0.5, 0.9)})
    out.table("figure_precision_recall", points(0.2, 0.8).assign(effect="reverb (14)"))
    assert set(verify.verify("tiny").verdict) == {"same points"}
    out.table("figure_precision_recall", points(0.2, 0.8).assign(effect="chorus (12)"))
    assert set(verify.verify("tiny").verdict) == {"different"}


def test_losing_half_of_the_fine_tuning_gain_fails_verify(published):
    """In quick's published tables: half-way back to frozen is `different`, in Tables 2 and 3."""
    names = {"table_2_overall": "macro_f1", "table_3_per_class": "f1"}
    frames = {n: pd.read_csv(paths.ROOT / f"figures/reference/quick/{n}.csv") for n in names}
    out = published(frames)
    for name, score in names.items():
        frame, by = frames[name].copy(), ["effect" if name.startswith("table_3") else "source"]
        frozen, rows = (
            (frame.source == "run") & (frame.model == m) for m in ("frozen", "finetuned")
        )
        low, high = (frame[r].set_index(by)[score] for r in (frozen, rows))
        assert high.mean() - low.mean() >= 0.10
        frame.loc[rows, score] = ((high + low) / 2).to_numpy()
        out.table(name, frame)
    verdicts = verify.verify("tiny").set_index("artefact").verdict
    assert {verdicts[f"{name}.csv"] for name in names} == {"different"}


def test_curves_are_compared_by_what_they_reach(published):
    frame = pd.DataFrame(
        {"model": ["a"] * 3, "epoch": [0, 1, 2], "validation_macro_f1": [0.4, 0.5, 0.6]}
    )
    out = published({"figure_1_training": frame, "table_rates": frame})
    out.table("figure_1_training", frame.assign(validation_macro_f1=[0.4, 0.61, 0.3]))
    out.table("table_rates", frame.assign(validation_macro_f1=[0.4, 0.5, 0.4]))
    verdicts = verify.verify("tiny").set_index("artefact").verdict
    assert verdicts[["figure_1_training.csv", "table_rates.csv"]].tolist() == [
        "within tolerance",
        "different",
    ]


def test_the_published_notebook_04_shows_the_published_table_2():
    book = nbformat.read(next(p for p in BOOKS if p.stem.startswith("04")), 4)
    shown = next(
        output.data["text/plain"]
        for cell in book.cells
        if cell.cell_type == "code" and 'columns=["paper", "reference", "this run"]' in cell.source
        for output in cell.outputs
    )
    table = pd.read_csv(paths.reference("quick") / "table_2_overall.csv")
    macro = table[table.source == "run"].set_index("model").macro_f1
    rows = [line.split() for line in shown.splitlines()[2:]]
    assert {row[0] for row in rows} == set(macro.index)
    for model, *_, reference, run in rows:
        assert float(reference) == float(run) == pytest.approx(macro[model], abs=1e-4)


def test_a_figure_is_the_same_bytes_every_time():
    files = []
    for name in ("one", "two"):
        out = writer.Report(config.load("tiny", profile=name), "x")
        figure, axis = plt.subplots()
        axis.plot(np.arange(5))
        out.figure("figure_x", figure, pd.DataFrame({"x": range(5)}))
        files.append(
            [stages.digest(paths.figures(name) / f"figure_x.{s}") for s in ("png", "svg", "csv")]
        )
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


def test_functions_are_short():
    """A student reads each on one screen: at most 60 lines of code and 7 parameters."""
    for path in sorted(paths.PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                where = f"{path.relative_to(paths.PACKAGE)}: {node.name}"
                described = ast.get_docstring(node) is not None
                first = node.body[0].end_lineno if described else node.lineno
                assert node.end_lineno - first <= 60, where
                assert len(node.args.args) + len(node.args.kwonlyargs) <= 7, where
