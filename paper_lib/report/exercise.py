"""Checks for the exercises: they say whether an answer is right, and do not hold the answer."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable
from numbers import Real

import numpy as np

RIGHT, COMPLETE = "right", "complete: compare with notebooks/solutions"
EMPTY = "no answer yet: replace the line above"


def fingerprint(answer: str | float, digits: int = 3) -> str:
    """Eight letters for an answer: of its text, or of the number rounded to `digits` places."""
    if isinstance(answer, str):
        text = answer.strip().lower()
    else:
        text = f"{round(float(answer), digits) + 0.0:.{digits}f}"  # (+ 0.0: no minus zero)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def check(
    answer: str | float | None, right: str, hints: dict[str, str] | None = None, digits: int = 3
) -> None:
    """Print whether `answer` (a number or a word; None: none yet) is the one behind `right`.

    right: the fingerprint of the answer. hints: fingerprint of a common mistake -> what went wrong.
    """
    if answer is None:
        return print(EMPTY)
    found = fingerprint(answer, digits)
    wrong = (hints or {}).get(found, "Read the section again, and try another way.")
    print(RIGHT if found == right else f"not yet. {wrong}")


def compare(mine: Callable, library: Callable, cases: Iterable[tuple], hint: str = "") -> None:
    """Print whether `mine` gives what `library` gives, for each tuple of arguments in `cases`."""
    for number, case in enumerate(cases, 1):
        wanted = library(*copy.deepcopy(case))
        try:
            answer = mine(*copy.deepcopy(case))
            if answer is None:
                return print(EMPTY)
            shape, fits = np.shape(answer), np.shape(answer) == np.shape(wanted)
            alike = fits and np.allclose(answer, wanted, rtol=1e-4, atol=1e-5)
        except Exception as error:  # (a student's code may fail in any way)
            return print(f"not yet. Case {number} fails: {error} {hint}".rstrip())
        if not fits:
            return print(
                f"not yet. Case {number}: shape {shape}, wanted {np.shape(wanted)}. {hint}"
            )
        if not alike:
            return print(f"not yet. Case {number}: other values than wanted. {hint}".rstrip())
    print(RIGHT)


def predicted(guess: str | float | None, found: str | float) -> None:
    """What you expected beside what came out."""
    if guess is None:
        return print("no prediction was made")
    if isinstance(found, str):
        return print("as predicted" if guess == found else f"predicted {guess}; it is {found}")
    print(
        f"predicted {guess}; it is {found:,}"
        if isinstance(found, int)
        else f"predicted {guess}; it is {found:.3g}"
    )


def reported(found: dict[str, float] | None, wanted: Iterable[str]) -> None:
    """Print which measurements of an open question are still missing."""
    given = found or {}
    missing = [name for name in wanted if not isinstance(given.get(name), Real)]
    print(f"still missing: {', '.join(missing)}" if missing else COMPLETE)
