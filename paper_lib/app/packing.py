"""`paper pack` and `paper fetch run`: a finished run as one file, so that a class need not wait."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from ..core import config, manifest, paths, stages
from ..core.errors import PaperError

LIST = "pack.json"  # the first member: profile, versions, and the SHA-256 of every file
PICKLES = ".joblib"  # (loading one runs what is in it: none travels)


def pack(profile: str, target: Path) -> str:
    """Write the finished stages, notebooks, tables and figures of a run to `target` (.tar.gz).

    Returns a sentence about it. A stage that is half made is left out.

    Raises:
        PaperError: there is no such run.
    """
    paths.to_write(target)
    home, drawn = paths.data(profile), paths.figures(profile)
    folders = [home / stage for stage in stages.finished(profile)]
    if not folders:
        raise PaperError(f"there is no run of {profile!r} to pack: paper reproduce -p {profile}.")
    found = {f"data/{p.relative_to(home)}": p for folder in folders for p in folder.rglob("*")}
    for name, folder in {"data/notebooks": home / "notebooks", "figures": drawn}.items():
        found |= {f"{name}/{p.relative_to(folder)}": p for p in folder.rglob("*")}
    files = {name: p for name, p in sorted(found.items()) if p.is_file() and _kept(p)}
    sums = {name: stages.digest(p) for name, p in tqdm(files.items(), desc="hashing")}
    about = {"profile": profile, "versions": manifest.versions(), "files": sums}
    partial = target.with_name(target.name + ".partial")
    with tarfile.open(partial, "w:gz", compresslevel=1) as archive:
        text = json.dumps(about, indent=1, sort_keys=True).encode()
        entry = tarfile.TarInfo(LIST)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
        for name, path in tqdm(files.items(), desc="packing"):
            archive.add(path, name, filter=_plain)
    os.replace(partial, target)
    size = target.stat().st_size / 1e6
    return f"{len(files)} files of the run {profile!r} in {target}, {size:,.0f} MB"


def _kept(path: Path) -> bool:
    """Not a lock, nor a pickle, nor a notebook that failed or is being run."""
    unwanted = path.suffix in (".lock", PICKLES)
    return not unwanted and ".failed." not in path.name and path.name[0] != "."


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and time, which say nothing about the run."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def unpack(source: str) -> str:
    """Bring a packed run from `source`, a path or an address; returns a sentence about it.

    Everything is checked against its SHA-256 before anything takes its place.

    Raises:
        PaperError: no such file, not a packed run, a damaged one, or the run is already here.
    """
    with _opened(source) as stream, tempfile.TemporaryDirectory(dir=_home()) as scratch:
        work = Path(scratch)
        try:
            about = _extract(stream, work, source)
        except (tarfile.TarError, zlib.error, EOFError, http.client.HTTPException) as problem:
            raise PaperError(f"{source} is damaged or no packed run: {problem}.") from problem
        for name, wanted in tqdm(about["files"].items(), desc="checking"):
            if not (work / name).is_file() or stages.digest(work / name) != wanted:
                raise PaperError(f"{source} is damaged: {name} is not what was packed.")
        if (work / "figures").exists():
            shutil.move(work / "figures", paths.figures(about["profile"]))
        shutil.move(work / "data", paths.data(about["profile"]))  # (last: it says that all is here)
    now = manifest.versions()
    other = [
        f"{k} {v} (here {now.get(k)})" for k, v in about["versions"].items() if now.get(k) != v
    ]
    note = f"; made with other versions: {', '.join(other)}" if other else ""
    return f"the run {about['profile']!r} is here, {len(about['files'])} files{note}"


def _home() -> Path:
    home = paths.data("")
    home.mkdir(parents=True, exist_ok=True)
    return home


def _extract(stream: BinaryIO, work: Path, source: str) -> dict:
    """The files that the first member lists, into `work`; returns what that member says."""
    with tarfile.open(fileobj=stream, mode="r|gz") as archive:
        about = _about(archive, source)
        for here in (paths.data(about["profile"]), paths.figures(about["profile"])):
            if here.exists():
                raise PaperError(f"the run is already here: remove {here} first.")
        while (entry := archive.next()) is not None:  # (a stream: it cannot go back)
            content = archive.extractfile(entry)
            parts = Path(entry.name).parts
            inside = len(parts) > 1 and parts[0] in ("data", "figures") and ".." not in parts
            safe = inside and entry.name in about["files"]
            if entry.name.endswith(PICKLES):
                raise PaperError(
                    f"{source} holds a pickle ({entry.name}), which runs code when it is loaded: "
                    "pack that run again with the present version."
                )
            if content is None or not safe:
                raise PaperError(f"{source} is damaged: it lists no file {entry.name}.")
            (work / entry.name).parent.mkdir(parents=True, exist_ok=True)
            with (work / entry.name).open("wb") as out:
                shutil.copyfileobj(content, out)
    return about


def _about(archive: tarfile.TarFile, source: str) -> dict:
    """What the first member says."""
    first = archive.next()
    member = archive.extractfile(first) if first is not None and first.name == LIST else None
    try:
        about = json.loads(member.read()) if member else {}
        config.build({"profile": about["profile"]})  # (a name that a run can have)
        return {key: about[key] for key in ("profile", "versions", "files")}
    except (KeyError, TypeError, ValueError) as problem:
        raise PaperError(f"{source} is no packed run: paper pack makes one.") from problem


@contextlib.contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    """The bytes of a path or an address."""
    if source.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(source, timeout=60) as answer:
                yield answer
        except OSError as problem:
            raise PaperError(f"{source} could not be fetched: {problem}.") from problem
    else:
        path = Path(source.removeprefix("file://")).expanduser()
        if not path.is_file():
            raise PaperError(f"{source} is not a file.")
        with path.open("rb") as stream:
            yield stream
