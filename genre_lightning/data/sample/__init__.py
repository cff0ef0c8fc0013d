"""The embedded sample: films with invented plots, drawn from a grammar."""
