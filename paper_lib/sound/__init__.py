"""From clean recordings to the rendered data set."""
