"""Set up all that a run needs on a bare machine: virtual environment, locked packages, SoX.

Standard library only: ``python3 paper_lib/bootstrap.py`` (make calls it). ``--test`` also wants the
packages of the test and check groups, and the browser that one test drives.
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
PIP = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
# installs the locked packages ten times as fast as pip; pip does it where uv cannot
UV = "uv==0.13.9"


def stop(message: str) -> None:
    sys.exit(f"setup: {message}")


def say(message: str) -> None:
    print(f"setup: {message}", flush=True)


def run(*command, **more) -> subprocess.CompletedProcess:
    return subprocess.run([str(c) for c in command], **more)


def apt(*packages: str) -> bool:
    """Install Debian packages where we may; True if that worked."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    say(f"installing {' '.join(packages)} with apt-get")
    quiet = {
        "stdout": subprocess.DEVNULL,
        "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
    }
    run("apt-get", "update", "-qq", **quiet)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
    return run(*install, *packages, **quiet).returncode == 0


def environment() -> None:
    """Make .venv, if it is not there."""
    if (
        PYTHON.exists()
        and run(PYTHON, "-c", "import pip", stderr=subprocess.DEVNULL).returncode == 0
    ):
        return
    missing = run(sys.executable, "-c", "import ensurepip", stderr=subprocess.DEVNULL).returncode
    if missing and not apt(f"python3.{sys.version_info.minor}-venv"):
        stop(
            "Python's venv module is missing; as root: apt-get install python3-venv. "
            "Then run make again."
        )
    say("making the virtual environment .venv")
    if run(sys.executable, "-m", "venv", "--clear", VENV).returncode:
        stop("the virtual environment could not be made; see the lines above.")


def torch_options(pin: str) -> list[str]:
    """How to install torch: never a CUDA build by accident.

    Asks pip before several GB are on their way.
    """
    index = os.environ.get("TORCH_INDEX_URL")
    extra = ["--index-url", index] if index else []
    ask = [*PIP, "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", *extra, pin]
    asked = run(*ask, capture_output=True, text=True)
    if asked.returncode:
        last = asked.stderr.strip().splitlines()[-1] if asked.stderr.strip() else "no message"
        stop(f"pip finds no {pin} for this machine: {last}")
    metadata = json.loads(asked.stdout)["install"][0]["metadata"]
    version, needs = metadata["version"], " ".join(metadata.get("requires_dist", []))
    linux_default = sys.platform == "linux" and "+cpu" not in version
    cuda = "+cu" in version or (linux_default and ("nvidia" in needs or "cuda" in needs))
    if cuda and not (os.path.exists("/dev/nvidia0") or os.environ.get("ALLOW_CUDA")):
        stop(
            f"pip would take the CUDA build of {pin} (several GB), but no NVIDIA GPU is here. "
            "Set TORCH_INDEX_URL to the index of CPU wheels that PyTorch's 'Get Started' page "
            "names for 'Compute Platform: CPU', or ALLOW_CUDA=1 to take it all the same; "
            "then run make again."
        )
    say(f"torch: pip takes {version} ({'CUDA' if cuda else 'CPU'} build)")
    return extra if cuda else [*extra, "--no-deps"]


def locked(file: Path) -> list[str]:
    """The pins of a lock file."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def install(pins: list[str]) -> None:
    """Exactly these packages, and nothing that they would pull in."""
    fast = [PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", PYTHON, "--no-deps"]
    if (
        run(*PIP, UV, stderr=subprocess.DEVNULL).returncode == 0
        and run(*fast, *pins).returncode == 0
    ):
        return
    say("installing with pip (slower)")
    if run(*PIP, "--no-deps", *pins).returncode:
        stop(
            "pip failed, see its message above; mend that and run make again, "
            "what is installed stays."
        )


def packages(test: bool) -> None:
    """The locked packages: those of a run, and with `test` those of the test and check groups."""
    files = [ROOT / "requirements.lock"] + ([ROOT / "requirements-dev.lock"] if test else [])
    for file in files:
        stamp = VENV / f"ready-{file.stem}"
        sources = file.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
        wanted = hashlib.sha256(sources).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            continue
        pins = locked(file)
        say(f"installing {len(pins)} locked packages ({file.name})")
        for pin in [p for p in pins if p.startswith("torch==")]:
            if run(*PIP, *torch_options(pin), pin).returncode:
                stop(
                    f"{pin} could not be installed, see pip's message above; "
                    "mend that and run make again."
                )
            pins.remove(pin)
        install(pins)
        if (
            file.stem == "requirements"
            and run(*PIP, "--no-deps", "--no-build-isolation", "-e", ROOT).returncode
        ):
            stop("the project itself could not be installed, see pip's message above.")
        stamp.write_text(wanted)


def sox() -> None:
    """SoX 14.4.2, by which the data set is defined."""

    def version() -> str:
        if not shutil.which("sox"):
            return ""
        return run("sox", "--version", capture_output=True, text=True).stdout

    if "14.4.2" not in version() and not (apt("sox") and "14.4.2" in version()):
        found = version().strip() or "none found"
        stop(
            f"SoX 14.4.2 is needed ({found}); as root on Debian: apt-get install sox. "
            "Then run make again."
        )


def browser() -> None:
    """Chromium and its driver, for the test that opens JupyterLab."""
    there = shutil.which("chromium") and shutil.which("chromedriver")
    if not there and not apt("chromium", "chromium-driver"):
        say(
            "no chromium and chromedriver: the test that drives JupyterLab in a browser will be "
            "skipped (as root on Debian: apt-get install chromium chromium-driver)"
        )


def synthesizer() -> None:
    """amsynth and its host, for Part IV."""
    run(*PIP, "--no-deps", *locked(ROOT / "requirements-synth.lock"))
    ask = "from paper_lib.proxies import synth; synth.plugin()"
    if run(PYTHON, "-c", ask, cwd=ROOT, stderr=subprocess.DEVNULL).returncode:
        apt("amsynth")
    found = run(PYTHON, "-c", ask, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        say(found.stderr.strip().splitlines()[-1].partition(": ")[2])


def voices(test: bool) -> None:
    """What the stand-ins of notebook 24 are made with (the tests: the small one of them)."""
    missing = [] if shutil.which("espeak-ng") else ["espeak-ng"]
    ask = "from paper_lib.sound import sampled; sampled.fonts()"
    if not test and run(PYTHON, "-c", ask, cwd=ROOT, stderr=subprocess.DEVNULL).returncode:
        missing += ["fluidsynth", "fluid-soundfont-gm", "musescore-general-soundfont-small"]
    if missing and not apt(*missing):
        say(
            "notebook 24 will leave out a task (as root on Debian: apt-get install "
            f"{' '.join(missing)})"
        )


def main() -> None:
    if sys.version_info[:2] != (3, 11):
        stop(
            f"the locked packages are for Python 3.11, this is {sys.version.split()[0]}: "
            "run make PYTHON=python3.11, or use environment.yml with conda."
        )
    test = "--test" in sys.argv
    environment()
    packages(test)
    sox()
    if test:
        browser()
    if test or "--synth" in sys.argv:
        synthesizer()
    if test or "--voices" in sys.argv:
        voices(test)
    if run(PYTHON, "-m", "paper_lib", "doctor", "--mend", cwd=ROOT).returncode:
        stop("something is still missing, see the lines marked NOT above.")


if __name__ == "__main__":
    main()
