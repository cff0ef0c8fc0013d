"""What a model's predictions are worth: decisions, metrics, tables, plots, report, comparison. Needs no torch."""
