"""A student's way in: notebooks in JupyterLab, in a real browser, Run All Cells.

They are run where the paper's part of a tiny run is finished, in the folder that PAPER_LAB names
(`make test` does that at its end); what their checked cells print is compared with what is stored,
as nbval would.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path

import nbformat
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from paper_lib.app import notebooks
from paper_lib.core import config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs chromium and chromedriver (apt-get install chromium chromium-driver)",
    ),
]
FINISHED = os.environ.get("PAPER_LAB", "")
ONLY = os.environ.get("PAPER_LAB_ONLY", "").split()  # numbers of notebooks (default: all)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--window-size=1400,1000",
)  # fmt: skip
KERNEL = (
    "const s = window.jupyterapp.shell.currentWidget?.sessionContext; "
    "return s?.isReady && s.session?.kernel?.status"
)


class Lab:
    """JupyterLab on a folder, and a browser that looks at it."""

    def __init__(self, folder: Path, environment: dict):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        options = [
            "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={self.port}",
            "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
            "--expose-app-in-browser", "--LabApp.news_url=",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]  # fmt: skip
        own = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "TQDM_DISABLE": "1"}
        own |= {"JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
        log = (folder / "lab.log").open("w")
        self.server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=os.environ | own | environment, stdout=log, stderr=log,
        )  # fmt: skip
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        chrome = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={folder / 'chrome'}"):
            chrome.add_argument(flag)
        chrome.binary_location = shutil.which("chromium")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=chrome, service=service)
        self.driver.set_script_timeout(30)
        # (without the focus, which a headless page may never get, no notebook is the current one)
        self.driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})

    def close(self) -> None:
        self.driver.quit()
        self.server.terminate()
        self.server.wait()

    def command(self, name: str) -> None:
        self.driver.execute_script(f"window.jupyterapp.commands.execute('{name}')")

    def run_all(self, book: str, seconds: int) -> list:
        """The code cells of a notebook of the folder after Run All Cells."""
        self.driver.get(f"http://127.0.0.1:{self.port}/lab/tree/{book}?reset")
        wait = WebDriverWait(self.driver, 90)
        wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-Cell"))
        wait.until(lambda d: d.execute_script(KERNEL) == "idle")
        self.command("notebook:run-all-cells")
        deadline = time.time() + seconds
        while time.time() < deadline:
            self.command("docmanager:save")
            cells = nbformat.read(self.folder / book, 4).cells
            code = [c for c in cells if c.cell_type == "code"]
            failed = any(o.output_type == "error" for c in code for o in c.outputs)
            if failed or all(c.execution_count for c in code):
                break
            time.sleep(1)
        return code


def as_tiny(path: Path, target: Path) -> None:
    """A notebook as a student would run it with another profile's values; without outputs."""
    book = notebooks.clean(nbformat.read(path, 4), asdict(config.load("tiny")))
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(book, target)


def counted(code: list) -> tuple[int, int]:
    """Audio players and pictures among the outputs."""
    outputs = [o.get("data", {}) for c in code for o in c.outputs]
    players = sum("data:audio/flac" in data.get("text/html", "") for data in outputs)
    return players, sum("image/png" in data for data in outputs)


@pytest.fixture
def lab(tmp_path):
    """lab(environment): JupyterLab on the test's folder."""
    opened = []

    def start(**environment: str) -> Lab:
        opened.append(Lab(tmp_path, environment))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def printed(cell) -> str:
    """What a cell prints and shows as text."""
    outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return "".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in outputs)


def assert_as_published(path: Path, code: list) -> None:
    failed = [o for c in code for o in c.outputs if o.output_type == "error"]
    assert not failed, (path.name, failed[0].ename, failed[0].evalue)
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    stored = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    here, there = counted(code), counted(stored)
    assert here[0] >= there[0] and here[1] >= there[1], (path.name, here, there)
    if path.stem[:2] in notebooks.PARTS["paper"]:
        return  # (they print quick's numbers; nbval compares them)
    for ours, theirs in zip(code, stored, strict=True):
        if theirs.source.startswith("# NBVAL_CHECK_OUTPUT"):
            assert printed(ours) == printed(theirs), (path.name, theirs.source)


# two at a time; what a notebook needs of an earlier one is in the same half, or in the paper's part
HALVES = {"06 to 09": ("06", "07", "08", "09"), "the others": ()}


@pytest.mark.skipif(not FINISHED, reason="PAPER_LAB names no finished tiny run (make test does)")
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("half", HALVES)
def test_every_notebook_runs_in_jupyterlab_and_the_menus_answer(lab, tmp_path, half):
    home, own = Path(FINISHED).resolve(), HALVES[half]
    here = lab(PAPER_DATA=str(home / "data"), PAPER_FIGURES=str(home / "figures"))
    taken = [number for numbers in HALVES.values() for number in numbers]
    books = [p for p in notebooks.listing() if (p.stem[:2] in (own or taken)) == bool(own)]
    if ONLY:
        books = [path for path in books if path.stem[:2] in ONLY]
    books.sort(key=lambda path: path.stem.startswith("12"))  # (its menus are clicked at the end)
    for path in books:
        as_tiny(path, tmp_path / path.name)
        assert_as_published(path, here.run_all(path.name, 1200))
    if "12" not in {path.stem[:2] for path in books}:
        return
    wait = WebDriverWait(here.driver, 120)
    menus = wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, ".widget-dropdown select"))
    assert len(menus) == 6
    here.driver.execute_script("arguments[0].scrollIntoView()", menus[1])
    Select(menus[1]).select_by_visible_text("tremolo")
    answer = ".widget-vbox .widget-output"
    wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, f"{answer} audio"))
    wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, f"{answer} table"))
    text = here.driver.find_element(By.CSS_SELECTOR, answer).text
    assert "tremolo" in text and "played" in text
    here.driver.save_screenshot(str(home / "menus.png"))
