"""All that knows of ranks, devices, precision and checkpoints on disk."""
