"""Part III: the encoder adapted by few trained numbers, and what is lost on the way."""
