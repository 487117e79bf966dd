"""Public data sets through mirdata: downloaded, unpacked, every file's checksum checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..core import paths
from ..core.errors import PaperError
from ..core.random import generator_for

# one effect a file: folder or fxtype of the set -> the nearest name of Table 1 ("dry": none)
EGFXSET = {  # pedals and an amplifier, one electric guitar (Pedroza et al., 2022, CC BY 4.0)
    "Clean": "dry",
    "BluesDriver": "overdrive",
    "TubeScreamer": "overdrive",
    "RAT": "distortion",
    "Chorus": "chorus",
    "Flanger": "flanger",
    "Phaser": "phaser",
    "Digital-Delay": "feedback_delay",
    "TapeEcho": "feedback_delay",
    "Sweep-Echo": "feedback_delay",
    "Hall-Reverb": "reverb",
    "Plate-Reverb": "reverb",
    "Spring-Reverb": "reverb",
}
# plug-ins on single notes and chords (Stein et al., 2010, CC BY-NC-ND 4.0); its vibrato and its
# equalizer (12) have no one name in Table 1
IDMT = {
    11: "dry",
    21: "feedback_delay",
    22: "slapback_delay",
    23: "reverb",
    31: "chorus",
    32: "flanger",
    33: "phaser",
    34: "tremolo",
    41: "distortion",
    42: "overdrive",
}
SIZES = {"egfxset": 15e9, "idmt_smt_audio_effects": 25e9}  # bytes of archives and files, estimated


def fetch(
    name: str, home: Path, label: str, again: str, parts: list[str] | None = None, ending: str = ""
) -> None:
    """Download `parts` (None: all) of mirdata's data set `name` and check each file.

    `ending`: of the files that count; `label` and `again`: what an error calls the set, and the
    command to repeat.
    """
    import mirdata

    dataset = mirdata.initialize(name, data_home=str(home))
    try:
        # (the list of files first: not every set's own download brings it)
        mirdata.core.Dataset.download(dataset, partial_download=["index"])
        dataset.download(partial_download=parts, cleanup=True)
    except (OSError, ValueError) as problem:
        what = f"{label}'s {parts[0]}" if parts else label
        raise PaperError(
            f"{what} could not be fetched ({problem}); check the network, then run {again} again."
        ) from problem
    missing, altered = dataset.validate(verbose=False)
    for word, found in (("missing", missing), ("altered", altered)):
        files = (path for files in found.get("tracks", {}).values() for path in files)
        ours = sorted(path for path in files if path.endswith(ending))
        if ours:
            raise PaperError(
                f"{len(ours)} files of {label} are {word}, {ours[0]} the first: delete {home} and "
                f"run {again} again."
            )


def fetch_pedals(name: str) -> str:
    """Download a data set of recorded effects; a line that says how it went."""
    home = paths.data(name)
    paths.require_disk(home, int(SIZES[name]), f"{name} (archives and files)")
    fetch(name, home, name, f"paper fetch {name}")
    found = recorded_effects(name)
    return f"{len(found)} files with a name of Table 1, checksums right, in {home}"


def recorded_effects(name: str, of_each: int = 0) -> pd.DataFrame:
    """The files of a set of recorded effects: track, path, effect; sorted by track.

    `of_each`: so many of each effect, drawn by key (0: all). Bass, effects that have no name in
    Table 1, and files that are not there are left out; a set that is not there is an empty table.
    """
    import mirdata

    home = paths.data(name)
    rows: list[tuple[str, str, str]] = []
    dataset = mirdata.initialize(name, data_home=str(home))
    if home.exists() and Path(dataset.index_path).exists():
        for track in (dataset.track(one) for one in sorted(dataset.track_ids)):
            if Path(track.audio_path).exists():
                rows.append((track.track_id, track.audio_path, _effect(name, track)))
    found = pd.DataFrame(rows, columns=["track", "path", "effect"])
    found = found[found.effect != ""]
    if of_each:
        order = [generator_for(0, name, track).random() for track in found.track]
        place = pd.Series(order, found.index, dtype=np.float64).groupby(found.effect).rank()
        found = found[place <= of_each]
    return found.reset_index(drop=True)


def _effect(name: str, track) -> str:
    """The name of Table 1 that is nearest to what is on a track; empty: there is none."""
    if name == "egfxset":
        return EGFXSET.get(track.track_id.split("_")[0], "")  # (TapeEcho_Bridge/2-0)
    folders = Path(track.audio_path).relative_to(paths.data(name)).parts
    bass = any(folder.startswith("Bass") for folder in folders)
    return "" if bass else IDMT.get(track.fx_type, "")
