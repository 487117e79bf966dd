"""What every room stands on: errors, randomness, folders, profiles, stages, work in parallel, the training loop."""
