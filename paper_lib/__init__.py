"""The thin helper package beside the notebooks: one sub-package a subject (README, "The house")."""

import os

from .core.errors import PaperError

__all__ = ["PaperError"]
__version__ = "0.2.0"

# torch's threads sleep rather than spin while they wait: on cores that others use too, spinning
# makes a step many times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
