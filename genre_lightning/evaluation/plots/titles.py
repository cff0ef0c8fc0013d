"""The plots of an evaluation, by name; apart from what draws them, as matplotlib takes long to import."""

FIGURES = {
    "loss": "Loss by epoch",
    "threshold_curve": "Threshold curve",
    "precision_recall": "Precision and recall of each genre",
    "confusion": "Confusion of each genre",
    "reliability": "Reliability",
    "taken_for": "Which genre is taken for which",
    "f1_by_length": "F1 by length of overview",
    "f1_by_genre_count": "F1 by number of genres",
}
"""File names without .png, in the order of the report, and what they show."""
