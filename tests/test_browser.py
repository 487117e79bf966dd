"""A student's way in: notebook 01 in JupyterLab, in a real browser, Run All Cells."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict

import nbformat
import pytest

from paper_lib.core import config, paths

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs chromium and chromedriver (apt-get install chromium chromium-driver)",
)


@pytest.mark.slow
def test_notebook_01_runs_in_jupyterlab(tmp_path):
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    book = nbformat.read(paths.NOTEBOOKS / "01_render_dataset.ipynb", 4)
    for cell in book.cells:
        # as a student would type another profile's values
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(
                f"\n{name} = {value!r}" for name, value in asdict(config.load("tiny")).items()
            )
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(book, tmp_path / "lesson.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={tmp_path}",
        "--expose-app-in-browser",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    log = (tmp_path / "lab.log").open("w")
    lab = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--window-size=1400,1000",
        f"--user-data-dir={tmp_path / 'chrome'}",
    ):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    driver = None
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        driver = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
        )
        driver.set_script_timeout(30)
        driver.get(f"http://127.0.0.1:{port}/lab/tree/lesson.ipynb?reset")
        wait = WebDriverWait(driver, 90)
        wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-Cell"))
        status = (
            "const s = window.jupyterapp.shell.currentWidget?.sessionContext; "
            "return s?.isReady && s.session?.kernel?.status"
        )
        wait.until(lambda d: d.execute_script(status) == "idle")
        driver.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        deadline = time.time() + 240
        while time.time() < deadline:
            driver.execute_script("window.jupyterapp.commands.execute('docmanager:save')")
            code = [
                c
                for c in nbformat.read(tmp_path / "lesson.ipynb", 4).cells
                if c.cell_type == "code"
            ]
            if all(c.execution_count for c in code) or any(
                o.output_type == "error" for c in code for o in c.outputs
            ):
                break
            time.sleep(1)
        assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
        assert not [o for c in code for o in c.outputs if o.output_type == "error"]
        assert (
            sum(
                "data:audio/flac" in o.get("data", {}).get("text/html", "")
                for c in code
                for o in c.outputs
            )
            >= 3
        )
        assert sum("image/png" in o.get("data", {}) for c in code for o in c.outputs) >= 1
    finally:
        if driver:
            driver.quit()
        lab.terminate()
        lab.wait()
