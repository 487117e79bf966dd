"""Exercises: four levels in each notebook; stubs wait, solutions are right, answers stay hidden."""

import contextlib
import io

import nbformat
import numpy as np
import pytest

from paper_lib.app import notebooks
from paper_lib.core import paths
from paper_lib.report import exercise

BOOKS = notebooks.listing()
LEVELS = ["recall", "change", "implement", "open"]


def exercises(book):
    return [c for c in book.cells if "exercise" in c.metadata.get("tags", [])]


def imports(book) -> str:
    """The notebook's import statements, which an exercise may count on."""
    code = [c.source for c in book.cells if c.cell_type == "code"]
    lines = [line for source in code for line in source.splitlines()]
    return "\n".join(line for line in lines if line.startswith(("import ", "from ")))


def printed(source: str, names: dict) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(source, names)
    return said.getvalue().strip()


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_stubs_wait_and_solutions_are_right(path):
    book = nbformat.read(path, 4)
    stubs = exercises(book)
    assert [c.metadata.tags[1] for c in stubs] == LEVELS
    names: dict = {}
    exec(imports(book), names)
    for stub in stubs:
        said = printed(stub.source, dict(names))
        assert said.startswith((exercise.EMPTY, "still missing")), said
    solved = nbformat.read(paths.NOTEBOOKS / "solutions" / path.name, 4)
    code = [c for c in solved.cells if c.cell_type == "code"]
    names = {}
    exec(code[0].source, names)
    for stub, solution in zip(stubs[:3], code[1:], strict=True):
        kept = stub.source.split("# replace this line")[1]
        assert solution.source.endswith(kept), "a solution is judged by the stub's own check"
        assert printed(solution.source, names) == exercise.RIGHT
        assert [o.text.strip() for o in solution.outputs] == [exercise.RIGHT]


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_a_hint_is_never_the_answer(path):
    for stub in exercises(nbformat.read(path, 4))[:2]:
        seen: dict = {}
        names = {"exercise": exercise}
        kept = exercise.check
        try:
            exercise.check = lambda answer, right, hints=None, digits=3, seen=seen: seen.update(
                right=right, hints=hints or {}
            )
            exec(stub.source, names)
        finally:
            exercise.check = kept
        assert seen["hints"] and seen["right"] not in seen["hints"], stub.source


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_each_notebook_asks_for_a_prediction_before_its_main_number(path):
    code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    asked = [i for i, source in enumerate(code) if "\nguess = None" in source]
    told = [i for i, source in enumerate(code) if "exercise.predicted(guess" in source]
    assert len(asked) == len(told) == 1 and asked[0] < told[0]


def test_checks_tell_right_from_wrong(capsys):
    exercise.predicted(None, 1.0)
    exercise.predicted(0.5, 0.25)
    exercise.predicted("logmel", "logmel")
    told = ["no prediction was made", "predicted 0.5; it is 0.25", "as predicted"]
    assert capsys.readouterr().out.splitlines() == told
    right = exercise.fingerprint(0.6667)
    exercise.check(2 / 3, right)
    exercise.check(0.5, right, {exercise.fingerprint(0.5): "Count the dry clip."})
    exercise.check(0.4, right)
    exercise.check(None, right)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == exercise.RIGHT and lines[1] == "not yet. Count the dry clip."
    assert lines[2].startswith("not yet.") and lines[3] == exercise.EMPTY
    cases = [(np.arange(3.0),)]
    exercise.compare(lambda x: x * 2, lambda x: x + x, cases)
    exercise.compare(lambda x: x[:2], lambda x: x, cases)
    exercise.compare(lambda x: x + 1, lambda x: x, cases, "No one to add.")
    exercise.compare(lambda x: x[9], lambda x: x, cases)
    exercise.compare(lambda x: None, lambda x: x, cases)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == exercise.RIGHT and "(2,), wanted (3,)" in lines[1]
    assert (
        lines[2].endswith("No one to add.") and "fails" in lines[3] and lines[4] == exercise.EMPTY
    )
    exercise.compare(lambda x: np.multiply(x, 2, out=x), lambda x: x + x, cases)  # in place
    exercise.compare(lambda x: "many", lambda x: x, cases)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == exercise.RIGHT and lines[1].startswith("not yet.")
    exercise.reported({"a": 1.0}, ["a", "b"])
    exercise.reported({"a": 1.0, "b": 2.0}, ["a", "b"])
    assert capsys.readouterr().out.splitlines() == ["still missing: b", exercise.COMPLETE]
