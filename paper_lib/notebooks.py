"""Run the notebooks in order through papermill, store them clean, publish a reference run."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import nbformat
import pandas as pd

from . import PaperError, codec, corpus, dataset, paths, provenance, recognizer, report
from .profiles import Profile


def listing() -> list[Path]:
    """The numbered notebooks in order, then the appendices."""
    return sorted(paths.NOTEBOOKS.glob("[0-9A][0-9]_*.ipynb"))


def clean(notebook: nbformat.NotebookNode, parameters: dict | None = None) -> nbformat.NotebookNode:
    """Without what differs between two equal runs: timings, papermill's notes, progress bars (stderr). The injected cell's
    `parameters` go into the notebook's own parameters cell, so that a stored notebook says with which values it ran."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            for name, value in (parameters or {}).items():
                cell.source = re.sub(rf"^{name} = .*$", lambda _: f"{name} = {value!r}", cell.source, flags=re.MULTILINE)
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k == "kernelspec"} | {"language_info": {"name": "python"}}
    count = 0
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:02d}"
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags" and v}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _joined([o for o in cell.outputs if o.get("name") != "stderr"])
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = count
    return notebook


def _joined(outputs: list) -> list:
    """Adjacent pieces of printed text as one: where the kernel cuts the stream is chance."""
    out = []
    for output in outputs:
        if out and output.output_type == out[-1].output_type == "stream" and output.name == out[-1].name:
            out[-1].text += output.text
        else:
            out.append(output)
    return out


def source_digest(path: Path) -> str:
    """SHA-256 of a notebook's cells without their outputs."""
    cells = nbformat.read(path, 4).cells
    return provenance.digest([[c.cell_type, c.source] for c in cells])


def _inputs(profile: Profile) -> dict[str, str]:
    """What a run reads beside its profile and the code: audio files, weights, chains, package versions -> a hash of each."""
    files = [paths.Path(r.path) for r in corpus.recordings(profile) if r.path]
    seen = {str(p): f"{p.stat().st_size} {p.stat().st_mtime_ns}" for p in files}
    for path in (paths.WEIGHTS / "shipped" / "config.json", paths.WEIGHTS / "released" / "release.json", codec.pins_file(), paths.ROOT / "paper_lib" / "paper50.txt"):
        seen[path.name] = provenance.digest(path) if path.exists() else ""
    return seen | provenance.versions()


def _key(path: Path, profile: Profile, before: str) -> str:
    modules = sorted(p.stem for p in (paths.ROOT / "paper_lib").glob("*.py"))
    return provenance.digest([source_digest(path), asdict(profile), provenance.code_digest(*modules), before])


def _unchanged(record: Path, key: str, profile: Profile) -> bool:
    if not record.exists() or not record.with_suffix(".ipynb").exists():
        return False
    seen = json.loads(record.read_text())
    if seen["key"] != key or not set(seen["stages"]) <= set(provenance.stages(profile.profile)):
        return False
    made = {n: a for n, a in provenance.manifest(profile.profile)["artefacts"].items() if a["notebook"] == record.stem}
    folder = paths.figures(profile.profile)
    return bool(made) and all((folder / n).exists() and provenance.digest(folder / n) == a["sha256"] for n, a in made.items())


def reproduce(profile: Profile, first: str = "", force: bool = False, alone: bool = False) -> None:
    """Execute the notebooks in order with `profile`'s parameters; those whose sources, parameters, inputs and results are unchanged
    are skipped (not with `force`). `first`: begin with the notebook whose number or name starts so; `alone`: and end with it."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # every notebook gets the whole profile; profiles.build checks its keys

    paths.require_disk(paths.data(profile.profile), 100_000_000, "a run")
    books = listing()
    begin = next((i for i, p in enumerate(books) if p.stem.startswith(first)), None)
    if begin is None:
        raise PaperError(f"no notebook begins with {first!r}; there are: {', '.join(p.stem for p in books)}.")
    books = books[: begin + 1] if alone else books
    folder = paths.data(profile.profile) / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    before, rerun, struck = provenance.digest(_inputs(profile)), force, {}
    for i, path in enumerate(books):
        key = _key(path, profile, before)
        before = key
        record = folder / f"{path.stem}.json"
        if i < begin:
            if not _unchanged(record, key, profile):
                print(f"[{i + 1}/{len(books)}] {path.stem}: left as it is, although its sources, parameters or inputs have changed since", flush=True)
            continue
        if not rerun and _unchanged(record, key, profile):
            print(f"[{i + 1}/{len(books)}] {path.stem}: unchanged, skipped", flush=True)
            continue
        rerun = True
        struck = provenance.forget_artefacts(profile.profile, [p.stem for p in books[i:]]) | struck
        print(f"[{i + 1}/{len(books)}] {path.stem}", flush=True)
        beside, start = folder / f".{path.stem}.running.ipynb", time.perf_counter()
        try:
            papermill.execute_notebook(str(path), str(beside), parameters=asdict(profile), kernel_name="python3", cwd=str(paths.NOTEBOOKS), progress_bar={"desc": path.stem, "unit": "cell"}, log_output=False)  # fmt: skip
        except PapermillExecutionError as problem:
            os.replace(beside, folder / f"{path.stem}.failed.ipynb")
            # counted without the cell that papermill injects
            raise PaperError(f"notebook {path.stem}, cell [{problem.exec_count - 1}] failed: {problem.ename}: {problem.evalue}") from problem
        except DeadKernelError as problem:
            raise PaperError(f"notebook {path.stem}: its kernel was killed, most often for want of memory; free some and run the same command again.") from problem
        for name in set(struck[path.stem]) - set(provenance.manifest(profile.profile)["artefacts"]):
            (paths.figures(profile.profile) / name).unlink(missing_ok=True)  # it no longer makes that
        done = clean(nbformat.read(beside, 4), asdict(profile))
        nbformat.write(done, beside)
        os.replace(beside, folder / path.name)
        (folder / f"{path.stem}.failed.ipynb").unlink(missing_ok=True)
        paths.write_beside(record, json.dumps({"key": key, "stages": provenance.stages(profile.profile)}) + "\n")
        print(f"[{i + 1}/{len(books)}] {path.stem}: done in {time.perf_counter() - start:.0f} s", flush=True)
    print(f"tables and figures: {paths.figures(profile.profile)}", flush=True)


def publish(profile: Profile) -> None:
    """Make the present run of `profile` the reference: tables and manifest to figures/reference; for `quick` also the executed notebooks
    and the README's table; for `full` also its fine-tuned model, as the released one."""
    source, target = paths.figures(profile.profile), paths.reference(profile.profile)
    made = provenance.manifest(profile.profile)["artefacts"]
    for path in listing():
        if not (paths.data(profile.profile) / "notebooks" / path.name).exists() or path.stem not in {a["notebook"] for a in made.values()}:
            raise PaperError(f"the run of {profile.profile} is not whole ({path.stem} is missing): paper reproduce -p {profile.profile} first.")
    if profile.profile == "full":
        data = dataset.load(profile)
        heard = {split: sorted(set(data.index.recording[data.rows(split)])) for split in dataset.SPLITS}
        recognizer.release(paths.data("full") / "models" / "finetuned", heard, {"profile": asdict(profile), "dataset": data.content})
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in [source / name for name in sorted(made) if name.endswith(".csv")] + [source / "manifest.json"]:
        shutil.copy(path, target / path.name)
    reproduce(profile, first="04", force=True, alone=True)  # it shows the reference beside the run
    if profile.profile == "quick":
        for path in listing():
            shutil.copy(paths.data("quick") / "notebooks" / path.name, path)
        readme = paths.ROOT / "README.md"
        before, _, rest = readme.read_text().partition("<!-- table_2 -->")
        after = rest.partition("<!-- /table_2 -->")[2]
        table = report.overview(pd.read_csv(target / "table_2_overall.csv"))
        paths.write_beside(readme, f"{before}<!-- table_2 -->\n{table}\n<!-- /table_2 -->{after}")
