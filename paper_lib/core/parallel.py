"""Work on many items that can be killed and goes on: a pure function, one shard an item.

Locally in as many processes as there are cores (joblib), or on a Dask cluster. This process alone
writes; what a worker needs travels in the item. Results do not depend on who computed them.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from . import machine
from .errors import PaperError

Item = tuple  # the arguments of one call
Work = Callable[..., dict[str, np.ndarray]]
PATIENCE = 20  # s, for a scheduler to answer
KILLED = (
    "a worker was killed, most often for want of memory: free some, or set PAPER_WORKERS=1, and "
    "run the same command again; what is finished stays."
)


def shards(
    work: Work, items: dict[str, Item], folder: Path, label: str, scheduler: str = ""
) -> list[Path]:
    """Make sure that every item has its shard, `folder`/NAME.npz; all of them, in the items' order.

    Args:
        work: a function of a module; item -> named arrays; the same item always gives the same
            arrays.
        items: name -> arguments.
        folder: of the shards; those that are whole are kept, so a killed run goes on.
        label: what the progress bar says.
        scheduler: address of a Dask scheduler; empty: this machine's cores. The workers of a
            cluster have to see the audio files and the data folder under the same paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.npz" for name in items}
    todo = {name: item for name, item in items.items() if not _whole(paths[name])}
    run = _on_dask if scheduler else _on_this_machine
    with tqdm(total=len(items), initial=len(items) - len(todo), desc=label, unit="part") as bar:
        for name, arrays in run(work, todo, scheduler) if todo else ():
            beside = folder / f".{name}.half"
            with beside.open("wb") as file:
                np.savez(file, **arrays)
            os.replace(beside, paths[name])
            bar.update(1)
    return list(paths.values())


def each(work: Callable, items: list[Item], label: str) -> list:
    """`work(*item)` of every item, a core each, with a progress bar; the answers in order.

    For work that keeps its own results (stages): a killed run goes on with what is missing.
    """
    with tqdm(total=len(items), desc=label, unit="run") as bar:
        found = []
        jobs = (joblib.delayed(work)(*item) for item in items)
        try:
            for answer in joblib.Parallel(machine.cores(), return_as="generator")(jobs):
                found.append(answer)
                bar.update(1)
        except TerminatedWorkerError as problem:
            raise PaperError(KILLED) from problem
    return found


def _whole(path: Path) -> bool:
    """Is the shard there and undamaged?

    It is renamed when it is written; a disk that lost power may still hold a damaged one.
    """
    try:
        return path.exists() and bool(zipfile.ZipFile(path).namelist())
    except zipfile.BadZipFile:
        return False


def _named(work: Work, name: str, item: Item) -> tuple[str, dict[str, np.ndarray]]:
    return name, work(*item)


def _on_this_machine(work: Work, items: dict[str, Item], _: str) -> Iterator:
    workers = min(machine.cores(), len(items))
    if workers == 1:
        yield from (_named(work, *one) for one in items.items())
        return
    jobs = (joblib.delayed(_named)(work, *one) for one in items.items())
    try:
        yield from joblib.Parallel(workers, return_as="generator_unordered")(jobs)
    except TerminatedWorkerError as problem:
        raise PaperError(KILLED) from problem


def _on_dask(work: Work, items: dict[str, Item], scheduler: str) -> Iterator:
    try:
        from dask.distributed import Client, as_completed
    except ImportError as problem:
        raise PaperError("a scheduler needs Dask: pip install 'paper_lib[cluster]'.") from problem
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except OSError as problem:
        raise PaperError(
            f"no Dask scheduler answers at {scheduler}: start it, or leave scheduler empty."
        ) from problem
    with client:
        futures = [client.submit(_named, work, *one, pure=False) for one in items.items()]
        for future in as_completed(futures):
            yield future.result()
            future.release()
