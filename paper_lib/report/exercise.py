"""Checks for the exercises: they say whether an answer is right, and do not hold the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np

RIGHT, COMPLETE = "right", "complete: compare with the solution"
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
        try:
            answer = mine(*case)
        except Exception as error:  # (a student's code may fail in any way)
            return print(f"not yet. Case {number} fails: {error} {hint}".rstrip())
        if answer is None:
            return print(EMPTY)
        wanted = library(*case)
        if np.shape(answer) != np.shape(wanted):
            shapes = f"{np.shape(answer)}, wanted {np.shape(wanted)}"
            return print(f"not yet. Case {number}: the shape is {shapes}. {hint}".rstrip())
        if not np.allclose(answer, wanted, rtol=1e-4, atol=1e-5):
            return print(f"not yet. Case {number}: other values than wanted. {hint}".rstrip())
    print(RIGHT)


def predicted(guess: str | float | None, found: str | float) -> None:
    """What you expected beside what came out."""
    if guess is None:
        return print("no prediction was made")
    if isinstance(found, str):
        return print("as predicted" if guess == found else f"predicted {guess}; it is {found}")
    print(f"predicted {guess}; it is {found:.3g}")


def reported(found: dict[str, float] | None, wanted: Iterable[str]) -> None:
    """Print which measurements of an open question are still missing."""
    missing = [name for name in wanted if not np.isfinite((found or {}).get(name, np.nan))]
    print(f"still missing: {', '.join(missing)}" if missing else COMPLETE)
