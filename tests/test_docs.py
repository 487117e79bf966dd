"""The documentation site builds without a warning, and shows every notebook with its sounds."""

import subprocess
import sys

import nbformat
import pytest

from paper_lib.app import notebooks
from paper_lib.core import paths


@pytest.mark.slow
def test_the_site_has_every_notebook_with_its_sounds_and_pictures(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), ".", str(tmp_path / "site")],
        cwd=paths.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for path in notebooks.listing():
        page = (tmp_path / "site" / "notebooks" / f"{path.stem}.html").read_text()
        cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        outputs = [o.get("data", {}) for c in cells for o in c.outputs]
        players = sum(data.get("text/html", "").count("<audio") for data in outputs)
        assert page.count("<audio") == players, path.name
        for cell in cells:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
            if alt and any("image/png" in o.get("data", {}) for o in cell.outputs):
                assert f'alt="{alt}"'.replace("'", "&#39;") in page or alt in page, alt
