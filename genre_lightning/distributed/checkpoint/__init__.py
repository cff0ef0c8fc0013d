"""Checkpoints on disk: one file or a directory of shards, each with a manifest."""
