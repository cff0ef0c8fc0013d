"""What a model's predictions are worth: decisions, metrics, tables, figures, report, comparison. Needs no torch."""
