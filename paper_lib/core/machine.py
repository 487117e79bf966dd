"""This machine: determinism, cores, processes, SoX, torchaudio's native library; `paper doctor`."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import paths
from .errors import PaperError

SOX_VERSION = "14.4.2"
PACKAGES = (  # that a run imports (all in requirements.lock; what tests need is not asked for)
    "numpy",
    "pandas",
    "sklearn",
    "seaborn",
    "sox",
    "l3ac",
    "accelerate",
    "papermill",
    "jupyterlab",
    "huggingface_hub",
    "mirdata",
)


def make_deterministic(threads: int, tf32: bool = False) -> None:
    """Make torch repeatable on this machine.

    Fixed threads, deterministic algorithms, and a tuned allocator: glibc returns large
    blocks to the kernel at every free, which makes training steps two to three times slower;
    keeping them is safe as long as results go to preallocated arrays, as they do here. `tf32` lets
    an NVIDIA GPU round the factors of matrix products to ten bits: faster, less exact.
    """
    import torch

    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-4, 0)  # M_MMAP_MAX: no mmap'd blocks
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: keep what was freed
        except (OSError, AttributeError):
            pass  # another C library: slower, never wrong
    torch.set_num_threads(torch_threads(threads))
    # torch.use_deterministic_algorithms(True, warn_only=True) without its import of the compiler,
    # which takes two seconds in every process
    torch.set_deterministic_debug_mode("warn")
    # (which would also write NaN into each new tensor: a tenth of a step of a CNN)
    torch.utils.deterministic.fill_uninitialized_memory = False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # (repeatable sums there)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def torch_threads(wanted: int) -> int:
    """As many of torch's threads as wanted and as there are cores: part of a stage's key.

    How many items are worked on at a time (`cores`) does not count: sums depend on threads.
    """
    import joblib

    return max(1, min(wanted, joblib.cpu_count()))


def cores() -> int:
    """Processor cores that this process may use (container limits and affinity count).

    `PAPER_WORKERS` (environment) sets another number: how many items are worked on at a time.
    """
    import joblib

    wanted = os.environ.get("PAPER_WORKERS") or str(joblib.cpu_count())
    if not wanted.isdecimal() or int(wanted) < 1:
        raise PaperError(f"PAPER_WORKERS is {wanted!r}; it can be 1 or more.")
    return int(wanted)


def device() -> str:
    """`cpu`, or the name of the GPU: part of a stage's key, since sums differ between them."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


# --- several processes ----------------------------------------------------------------------------


def rank() -> int:
    """Number of this process among those that train together (0: the one that writes)."""
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def together(value):
    """Rank 0's `value`, in every process of a training; a barrier. Alone: the value itself."""
    if processes() == 1:
        return value
    from accelerate.state import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState(cpu=device() == "cpu")
    return broadcast_object_list([value])[0]


# --- threads --------------------------------------------------------------------------------------


@contextlib.contextmanager
def one_thread():
    """Inside, torch uses one thread.

    For work on matrices so small that waking a second thread costs more than it saves.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sox_version() -> str | None:
    """The version of the SoX on PATH, or None."""
    if not shutil.which("sox"):
        return None
    out = subprocess.run(["sox", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"v?(\d+\.\d+\.\d+)", out)
    return found.group(1) if found else "unknown"


def require_sox() -> None:
    version = sox_version()
    if version is None:
        raise PaperError(
            f"SoX is not installed: install version {SOX_VERSION} (Debian: apt-get install sox), "
            "then run this again."
        )
    if version != SOX_VERSION:
        raise PaperError(
            f"SoX {version} is on PATH, but the data set is defined by SoX {SOX_VERSION}: "
            "install that one (Debian 12: apt-get install sox)."
        )


def mend_torchaudio() -> str:
    """Put aside torchaudio's optional native library if torch cannot load it.

    That is so where a CPU build of torch meets the CUDA-only library. Everything that this project
    uses of torchaudio is pure PyTorch. Returns one line that says what was done.
    """
    try:
        importlib.import_module("torchaudio")
        return "torchaudio imports"
    except ImportError as problem:
        return f"torchaudio is missing ({problem}); run make setup"
    except OSError:
        pass
    # `import torchaudio` failed half-way: find its folder without importing it
    spec = importlib.util.find_spec("torchaudio")
    assert spec is not None and spec.origin is not None  # (else the import had found nothing)
    folder = Path(spec.origin).parent / "lib"
    moved = sorted(folder.glob("*.so"))
    for library in moved:
        library.rename(library.with_suffix(".so.cuda-only"))
    check = subprocess.run(
        [sys.executable, "-c", "import torchaudio"], capture_output=True, text=True
    )
    if check.returncode:
        reason = check.stderr.strip().splitlines()[-1]
        return f"torchaudio does not import even without its native library: {reason}"
    return (
        f"torchaudio mended: its CUDA-only native library ({len(moved)} files in torchaudio/lib) "
        "was put aside; nothing here needs it"
    )


def doctor(mend: bool = False) -> list[tuple[bool, str]]:
    """(fine, one line) for each thing a run needs; the line carries the remedy."""
    python = sys.version.split()[0]
    lines = [(sys.version_info[:2] >= (3, 11), f"Python {python} (3.11 or newer is needed)")]
    version = sox_version()
    right = version == SOX_VERSION
    remedy = "" if right else f": install SoX {SOX_VERSION} (Debian: apt-get install sox)"
    lines.append((right, f"SoX {version or 'not found'}{remedy}"))
    for name in PACKAGES:
        found = importlib.util.find_spec(name) is not None
        if not found:
            lines.append((False, f"package {name} is missing: run make setup"))
    try:
        import torch

        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
        lines.append((True, f"torch {torch.__version__} ({build}), {cores()} cores"))
    except (ImportError, OSError) as problem:
        lines.append((False, f"torch does not import ({problem}): run make setup"))
    if mend:
        said = mend_torchaudio()
        lines.append(("does not import" not in said and "missing" not in said, said))
    else:
        check = subprocess.run(
            [sys.executable, "-c", "import torchaudio"], capture_output=True, text=True
        )
        fine = check.returncode == 0
        state = "imports" if fine else "does not import: run paper doctor --mend"
        lines.append((fine, f"torchaudio {state}"))
    free = shutil.disk_usage(paths.ROOT).free / 1e9
    lines.append((free > 3, f"{free:.0f} GB free on disk (quick needs 3)"))
    here = (paths.WEIGHTS / "shipped" / "config.json").exists()
    state = "here" if here else "missing: git checkout data/weights"
    lines.append((here, f"shipped weights are {state}"))
    return lines
