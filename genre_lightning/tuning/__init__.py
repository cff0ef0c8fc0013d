"""Hyperparameter search: studies of many trials, each an ordinary run."""
