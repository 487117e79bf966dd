"""Run the notebooks of a part in order through papermill, and store them clean."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from dataclasses import asdict
from pathlib import Path

import nbformat

from ..codec import hub
from ..core import code, manifest, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..proxies import synth
from ..sound import corpus

# Part -> the notebooks that belong to it, by number. A part reads the stages of the paper's own.
PARTS = {
    "paper": ("01", "02", "03", "04", "05"),
    "codec": ("06", "07", "08", "A1", "A2", "A3"),
    "peers": ("09", "10", "11", "12"),
    "adapters": ("13", "14", "15", "16", "17"),
    "proxies": ("18", "19", "20", "21", "A4"),
    "tokens": ("22", "23", "24"),
}


# these play a synthesizer, which may not be here -> what else each needs (20 goes on from 19)
PLAYING = {"18": (), "19": ("umap",), "20": ("umap", "cmaes"), "A4": ("optuna",)}


def listing(part: str = "all") -> list[Path]:
    """A part's notebooks in order, after those of the paper, which every part stands on; appendices
    last.

    Raises:
        PaperError: there is no such part.
    """
    if part not in (*PARTS, "all"):
        raise PaperError(f"there is no part {part!r}; there are: {', '.join(PARTS)}, all.")
    books = sorted(paths.NOTEBOOKS.glob("[0-9A][0-9]_*.ipynb"))
    wanted = {*PARTS["paper"], *PARTS.get(part, ())}
    return [p for p in books if part == "all" or p.stem[:2] in wanted]


def playable(books: list[Path]) -> list[Path]:
    """Without those whose synthesizer or packages are not here, and a sentence why."""
    left: dict[str, list[Path]] = {}
    for path in books:
        try:
            _ready(path)
        except PaperError as problem:
            left.setdefault(str(problem), []).append(path)
    for why, out in left.items():
        print(f"left out: {', '.join(p.stem for p in out)}. {why}", flush=True)
    return [p for p in books if not any(p in out for out in left.values())]


def _ready(path: Path) -> None:
    """`PaperError` where what a notebook plays or searches with is not here."""
    if path.stem[:2] in PLAYING:
        synth.ready(*PLAYING[path.stem[:2]])


def clean(notebook: nbformat.NotebookNode, parameters: dict | None = None) -> nbformat.NotebookNode:
    """Without what differs between two equal runs: timings, papermill's notes, progress bars
    (stderr), addresses in memory.

    The injected cell's `parameters` go into the notebook's own parameters cell, so that a stored
    notebook says with which values it ran.
    """
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            for name, value in (parameters or {}).items():
                cell.source = _assigned(cell.source, name, value)
    notebook.cells = [
        c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])
    ]
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k == "kernelspec"} | {
        "language_info": {"name": "python"}
    }
    count = 0
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:02d}"
        # (tags, and a figure's description for those who cannot see it)
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in ("tags", "mystnb") and v}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _joined([o for o in cell.outputs if _lasts(o)])
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = count
                if plain := output.get("data", {}).get("text/plain"):
                    output["data"]["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", plain)
    return notebook


def _assigned(source: str, name: str, value: object) -> str:
    """A parameters cell in which `name` gets this value."""
    line = f"{name} = {value!r}"
    return re.sub(rf"^{name} = .*$", lambda _: line, source, flags=re.MULTILINE)


def _lasts(output: nbformat.NotebookNode) -> bool:
    """Not a progress bar, and not a widget: it lives only beside its kernel."""
    live = "application/vnd.jupyter.widget-view+json"
    return output.get("name") != "stderr" and live not in output.get("data", {})


def _joined(outputs: list) -> list:
    """Adjacent pieces of printed text as one: where the kernel cuts the stream is chance."""
    out: list = []
    for output in outputs:
        stream = output.output_type == "stream"
        if out and stream and out[-1].output_type == "stream" and output.name == out[-1].name:
            out[-1].text += output.text
        else:
            out.append(output)
    return out


def source_digest(path: Path) -> str:
    """SHA-256 of a notebook's cells without their outputs."""
    cells = nbformat.read(path, 4).cells
    return stages.digest([[c.cell_type, c.source] for c in cells])


def _inputs(profile: Profile) -> dict[str, str]:
    """What a run reads beside its profile and the code -> a hash of each.

    Audio files, weights, chains, measured times, packages. (Not the published reference: publishing
    would make its own run old.)
    """
    files = [Path(r.path) for r in corpus.recordings(profile) if r.path]
    seen = {str(p): f"{p.stat().st_size} {p.stat().st_mtime_ns}" for p in files}
    shipped = (
        paths.WEIGHTS / "shipped" / "config.json",
        *sorted(paths.WEIGHTS.glob("*/release.json")),
        *sorted((paths.ROOT / "benchmarks").glob("*.csv")),
        *sorted(paths.REAL.rglob("*.flac")),
    )
    for path in (*shipped, hub.pins_file(), paths.PACKAGE / "sound" / "paper50.txt"):
        seen["/".join(path.parts[-2:])] = stages.digest(path) if path.exists() else ""
    return seen | manifest.versions()


def _unchanged(record: Path, key: str, profile: Profile) -> bool:
    """Was this notebook run from the same, and is all that it made still there and as it was?"""
    if not record.exists() or not record.with_suffix(".ipynb").exists():
        return False
    seen = json.loads(record.read_text())
    if seen["key"] != key or not set(seen["stages"]) <= set(stages.finished(profile.profile)):
        return False
    made = {
        n: a
        for n, a in manifest.read(profile.profile)["artefacts"].items()
        if a["notebook"] == record.stem
    }
    folder = paths.figures(profile.profile)
    return bool(made) and all(
        (folder / n).exists() and stages.digest(folder / n) == a["sha256"] for n, a in made.items()
    )


def reproduce(
    profile: Profile, part: str = "paper", first: str = "", only: str = "", force: bool = False
) -> None:
    """Execute a part's notebooks in order with `profile`'s parameters.

    Those whose sources, parameters, inputs and results are unchanged are skipped (not with
    `force`). `first`: begin with the notebook whose number or name starts so; `only`: run that one
    alone.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)  # each notebook gets the whole profile
    paths.require_disk(paths.data(profile.profile), 100_000_000, "a run")
    books = listing("all" if first or only else part)
    begin = next((i for i, p in enumerate(books) if p.stem.startswith(only or first)), None)
    if begin is None:
        raise PaperError(
            f"no notebook begins with {only or first!r}; "
            f"there are: {', '.join(p.stem for p in books)}."
        )
    if first:
        books = [p for i, p in enumerate(books) if i < begin or p in (*listing(part), books[begin])]
    if not only and part != "proxies":
        books = books[:begin] + playable(books[begin:])
    end = begin + 1 if only else len(books)
    if part == "proxies":
        for path in books[begin:end]:
            _ready(path)  # (says at once what is missing)
    paths.executed(profile.profile).mkdir(parents=True, exist_ok=True)
    before, rerun = stages.digest(_inputs(profile)), force
    old: dict[str, list[str]] = {}  # notebook -> what it had made
    for i, path in enumerate(books[:end]):
        before = stages.digest(
            [source_digest(path), asdict(profile), code.package_digest(), before]
        )
        record = paths.executed(profile.profile) / f"{path.stem}.json"
        note = f"[{i + 1}/{len(books)}] {path.stem}"
        unchanged = _unchanged(record, before, profile)
        if i < begin:
            if not unchanged:
                print(
                    f"{note}: left as it is, "
                    "although its sources, parameters or inputs have changed",
                    flush=True,
                )
        elif unchanged and not rerun:
            print(f"{note}: unchanged, skipped", flush=True)
        else:
            if not old:  # what this and the later ones made before counts no longer
                old = manifest.forget(profile.profile, [p.stem for p in books[i:end]])
            rerun = True
            print(note, flush=True)
            seconds = _execute(path, profile)
            present = set(manifest.read(profile.profile)["artefacts"])
            for name in set(old.get(path.stem, ())) - present:  # it no longer makes that
                (paths.figures(profile.profile) / name).unlink(missing_ok=True)
            finished = stages.finished(profile.profile)
            entry = {"key": before, "stages": finished, "seconds": round(seconds)}
            paths.write_beside(record, json.dumps(entry) + "\n")
            print(f"{note}: done in {seconds:.0f} s", flush=True)
    print(f"tables and figures: {paths.figures(profile.profile)}", flush=True)


def _execute(path: Path, profile: Profile) -> float:
    """Run one notebook with papermill and store it, clean, in the run's folder; seconds that it
    took.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    folder = paths.executed(profile.profile)
    beside, start = folder / f".{path.stem}.running.ipynb", time.perf_counter()
    try:
        papermill.execute_notebook(
            str(path),
            str(beside),
            parameters=asdict(profile),
            kernel_name="python3",
            cwd=str(paths.NOTEBOOKS),
            progress_bar={"desc": path.stem, "unit": "cell"},
            log_output=False,
        )
    except PapermillExecutionError as problem:
        os.replace(beside, folder / f"{path.stem}.failed.ipynb")
        # counted without the cell that papermill injects
        raise PaperError(
            f"notebook {path.stem}, cell [{problem.exec_count - 1}] failed: "
            f"{problem.ename}: {problem.evalue}"
        ) from problem
    except DeadKernelError as problem:
        raise PaperError(
            f"notebook {path.stem}: its kernel was killed, most often for want of memory; "
            "free some and run the same command again."
        ) from problem
    nbformat.write(clean(nbformat.read(beside, 4), asdict(profile)), beside)
    os.replace(beside, folder / path.name)
    (folder / f"{path.stem}.failed.ipynb").unlink(missing_ok=True)
    return time.perf_counter() - start
