"""A trained run as a function of texts."""
