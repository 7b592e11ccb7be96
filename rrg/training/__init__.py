"""A training run: set-up, batches, step, checkpoints, journal."""
