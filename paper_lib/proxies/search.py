"""Sound matching without a network: amsynth is played again and again. Notebook 20, section 7.

CMA-ES (Hansen, 2016) draws presets around a middle, moves it to those that sound nearest, and
learns in which directions to go on. This kind of it, CatCMA with margin (Hamano et al., 2025), also
has choices: of each a probability for every value.
"""

from __future__ import annotations

import numpy as np
from cmaes import CatCMAwM

from ..core import machine, parallel, paths, stages
from ..core.config import Profile
from ..core.random import generator_for, seed_for
from . import presets, synth
from .presets import CHOICES, NUMBERS, SPACE, SWITCHES

STEP = 0.05  # deviation of the first draws, of each number's range
SURE = 0.9  # probability of the value of a choice that the search begins with


def optimiser(start: np.ndarray, seed: int) -> CatCMAwM:
    """A search around the preset `start`, (34,)."""
    free, stepped = _numbers()
    sizes = [2] * len(SWITCHES) + [len(one.choices) for one in CHOICES]
    begin = np.zeros((len(sizes), max(sizes)))
    for i, (many, value) in enumerate(zip(sizes, start[len(NUMBERS) :], strict=True)):
        begin[i, :many] = (1 - SURE) / (many - 1)
        begin[i, int(value)] = SURE
    return CatCMAwM(
        x_space=[[0, 1]] * len(free),
        z_space=[np.linspace(0, 1, NUMBERS[i].steps) for i in stepped],
        c_space=sizes,
        mean=start[free + stepped].astype(float),
        sigma=STEP,
        # (its own begins at the distance to the nearer bound, and so at 0 on a bound)
        cov=np.eye(len(NUMBERS)),
        cat_param=begin,
        seed=seed,
    )


def _numbers() -> tuple[list[int], list[int]]:
    """Places in a preset of the numbers that can be anything, and of those that go in steps."""
    free = [i for i, one in enumerate(NUMBERS) if not one.steps]
    return free, [i for i, one in enumerate(NUMBERS) if one.steps]


def row_of(solution) -> np.ndarray:
    """(34,) float32: what `optimiser` asks for, as a preset."""
    row = np.zeros(len(SPACE), np.float32)
    free, stepped = _numbers()
    row[free], row[stepped] = solution.x, solution.z
    row[len(NUMBERS) :] = solution.c.argmax(1)
    return row


def search(
    sound: np.ndarray, start: np.ndarray, deviation: np.ndarray, many: int, seed: int
) -> dict[str, np.ndarray]:
    """The nearest of `many` presets that CMA-ES plays for one target, and of `start`.

    sound: (128,), the target's embedding; start: (34,); deviation: (128,), in which each band's
    error is told.

    Returns:
        preset (34,); curve (many + 1,): the least error so far, the first that of `start`.
    """
    machine.make_deterministic(1)
    cma, curve = optimiser(start, seed), []
    with synth.player() as play:
        error = lambda row: float(np.mean(np.abs(_heard(play, row) - sound) / deviation))
        best, least = start, error(start)
        curve.append(least)
        found: list = []
        for _ in range(many):
            solution = cma.ask()
            row = row_of(solution)
            found.append((solution, error(row)))
            if found[-1][1] < least:
                best, least = row, found[-1][1]
            curve.append(least)
            if len(found) == cma.population_size:
                cma.tell(found)
                found = []
    return {"preset": best.astype(np.float32), "curve": np.array(curve)}


def _heard(play, row: np.ndarray) -> np.ndarray:
    return presets.embedding(play(presets.played(row), presets.NOTE, presets.HELD, presets.SECONDS))


def chosen(profile: Profile, domain: str, many: int) -> np.ndarray:
    """Which of so many targets are searched for: `search_targets` of them, drawn."""
    order = generator_for(profile.seed, "search", domain).permutation(many)
    return np.sort(order[: profile.search_targets])


def searched(
    profile: Profile,
    domain: str,
    targets: np.ndarray,
    sounds: np.ndarray,
    starts: np.ndarray,
    deviation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """A search for each target, a core each, kept: presets (n, 34) and curves (n, sounds + 1).

    targets: (n,) their numbers, by which each search is drawn; sounds: (n, 128); starts: (n, 34).
    """
    inputs = {"targets": stages.array_digest(targets, sounds, starts, deviation)}
    inputs["amsynth"] = stages.digest(synth.plugin())
    own = {"sounds": profile.search_sounds, "seed": profile.seed}
    folder = paths.data(profile.profile) / "matching" / f"search_{domain}"
    made = stages.Stage("search", folder, own, inputs, threads=1)
    with made.opened() as work:
        if work:
            items = {
                f"{i:03d}": (sound, start, deviation, profile.search_sounds,
                             seed_for(profile.seed, "search", domain, int(i)))
                for i, sound, start in zip(targets, sounds, starts, strict=True)
            }  # fmt: skip
            files = parallel.shards(search, items, work / "shards", f"searches, {domain}")
            each = [dict(np.load(file)) for file in files]
            found = {name: np.stack([one[name] for one in each]) for name in ("preset", "curve")}
            for name, values in found.items():
                np.save(work / f"{name}.npy", values)
            made.finish(stages.array_digest(*found.values()))
    return np.load(made.folder / "preset.npy"), np.load(made.folder / "curve.npy")
