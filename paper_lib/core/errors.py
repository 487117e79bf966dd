"""The one kind of error that ends a command with a sentence instead of a traceback."""


class PaperError(Exception):
    """A fault the user can mend: one sentence that names the thing and the remedy."""


class NotHere(PaperError):
    """Something that a part can do without is not on this machine."""


class Diverged(PaperError):
    """The loss of a training is no longer finite."""
