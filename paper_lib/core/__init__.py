"""What every room stands on.

Errors, randomness, folders, profiles, stages, work in parallel, the training loop.
"""
