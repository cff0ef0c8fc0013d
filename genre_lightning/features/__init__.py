"""Vectors of films made from other sources: what users rate, and posters."""
