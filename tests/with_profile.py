"""Not a test: copies of notebooks with another profile's parameters, for nbval.

python tests/with_profile.py tiny FOLDER NOTEBOOK... The stored outputs stay, so that nbval compares
what the checked cells say under that profile with what they said in the reference run.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import nbformat

from paper_lib.app import notebooks
from paper_lib.core import config


def main(profile: str, folder: str, *books: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    values = asdict(config.load(profile))
    for book in notebooks.playable([Path(book) for book in books]):
        copy = notebooks.clean(nbformat.read(book, 4), values)
        nbformat.write(copy, Path(folder) / book.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
