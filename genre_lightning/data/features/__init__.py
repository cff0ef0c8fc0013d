"""Inputs of the head: read from cells, fitted on the training films, and encoded for a batch."""
