"""The one kind of error that ends a command with a sentence instead of a traceback."""


class PaperError(Exception):
    """A fault the user can mend: one sentence that names the thing and the remedy."""
