"""The thin helper package beside the notebooks: one module per room of the study (see README, "The house")."""

import os

__version__ = "0.1.0"

# torch's threads sleep rather than spin while they wait: on cores that others use too, spinning makes a step many times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class PaperError(Exception):
    """A fault the user can mend: one sentence that names the thing and the remedy."""


def keyed(seed: int, *item):
    """A NumPy generator of this item's own: the same for the same seed and item, whatever else was drawn before."""
    import hashlib

    import numpy as np

    digest = hashlib.sha256(repr((seed, *item)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
