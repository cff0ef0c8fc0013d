"""Fine-tunes language models to tag films with genres."""

__version__ = "0.1.0"
