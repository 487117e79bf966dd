"""A language model on a codec's tokens. Notebooks 22 and on."""
