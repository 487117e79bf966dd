"""Set up all that a run needs on a bare machine: virtual environment, locked packages, SoX. Standard library only.

``python3 paper_lib/bootstrap.py`` (make calls it); ``--test`` also wants the browser that one test drives.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


def stop(message: str) -> None:
    sys.exit(f"setup: {message}")


def say(message: str) -> None:
    print(f"setup: {message}", flush=True)


def run(*command: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run([str(c) for c in command], **more)


def debian_root() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt(*packages: str) -> bool:
    """Install Debian packages where we may; True if that worked."""
    if not debian_root():
        return False
    say(f"installing {' '.join(packages)} with apt-get")
    quiet = {"stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
    run("apt-get", "update", "-qq", **quiet)
    return run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages, **quiet).returncode == 0


def environment() -> None:
    if PYTHON.exists() and run(PYTHON, "-c", "import pip", stderr=subprocess.DEVNULL).returncode == 0:
        return
    if run(sys.executable, "-c", "import ensurepip", stderr=subprocess.DEVNULL).returncode and not apt(f"python3.{sys.version_info.minor}-venv"):
        stop("Python's venv module is missing; as root: apt-get install python3-venv. Then run make again.")
    say("making the virtual environment .venv")
    if run(sys.executable, "-m", "venv", "--clear", VENV).returncode:
        stop("the virtual environment could not be made; see the lines above.")


def check_torch(pin: str) -> list[str]:
    """Never a CUDA build by accident: ask pip which torch it would take, before several GB are on their way."""
    index = os.environ.get("TORCH_INDEX_URL")
    extra = ["--index-url", index] if index else []
    asked = run(PYTHON, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", *extra, pin, capture_output=True, text=True)
    if asked.returncode:
        stop(f"pip finds no {pin} for this machine: {asked.stderr.strip().splitlines()[-1] if asked.stderr.strip() else 'no message'}")
    metadata = json.loads(asked.stdout)["install"][0]["metadata"]
    needs = " ".join(metadata.get("requires_dist", []))
    cuda = "+cu" in metadata["version"] or (("nvidia" in needs or "cuda" in needs) and sys.platform == "linux" and "+cpu" not in metadata["version"])
    if cuda and not (os.path.exists("/dev/nvidia0") or os.environ.get("ALLOW_CUDA")):
        stop(
            f"pip would take the CUDA build of {pin} (several GB), but no NVIDIA GPU is here. Set TORCH_INDEX_URL to the index of CPU wheels "
            "that PyTorch's 'Get Started' page names for 'Compute Platform: CPU', or ALLOW_CUDA=1 to take it all the same; then run make again."
        )
    say(f"torch: pip takes {metadata['version']} ({'CUDA' if cuda else 'CPU'} build)")
    return extra + ([] if not cuda else ["--with-needs"])


def packages() -> None:
    lock = ROOT / "requirements.lock"
    stamp, wanted = VENV / "ready", hashlib.sha256(lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    pin = next(line.strip() for line in lock.read_text().splitlines() if line.startswith("torch=="))
    options = check_torch(pin)
    say("installing the locked packages (a minute or two)")
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = [*pip, *[o for o in options if o != "--with-needs"], *([] if "--with-needs" in options else ["--no-deps"]), pin]
    rest = [*pip, "--no-deps", "-r", lock]
    project = [*pip, "--no-deps", "--no-build-isolation", "-e", ROOT]
    for command in (torch, rest, project):
        if run(*command).returncode:
            stop("pip failed, see its message above; mend that and run make again, what is installed stays.")
    stamp.write_text(wanted)


def sox() -> None:
    def version() -> str:
        return run("sox", "--version", capture_output=True, text=True).stdout if shutil.which("sox") else ""

    if "14.4.2" not in version() and not (apt("sox") and "14.4.2" in version()):
        stop(f"SoX 14.4.2 is needed ({version().strip() or 'none found'}); as root on Debian: apt-get install sox. Then run make again.")


def browser() -> None:
    if not (shutil.which("chromium") and shutil.which("chromedriver")) and not apt("chromium", "chromium-driver"):
        say("no chromium and chromedriver: the test that drives JupyterLab in a browser will be skipped (as root on Debian: apt-get install chromium chromium-driver)")


def main() -> None:
    if sys.version_info[:2] != (3, 11):
        stop(f"the locked packages are for Python 3.11, this is {sys.version.split()[0]}: run make PYTHON=python3.11, or use environment.yml with conda.")
    environment()
    packages()
    sox()
    if "--test" in sys.argv:
        browser()
    if run(PYTHON, "-m", "paper_lib", "doctor", "--mend", cwd=ROOT).returncode:
        stop("something is still missing, see the lines marked NOT above.")


if __name__ == "__main__":
    main()
