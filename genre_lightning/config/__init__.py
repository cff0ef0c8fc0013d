"""Configuration files: reading them safely, and which classes they may name."""
