"""L3AC: loading, encoding, anatomy, reconstruction, pretraining."""
