"""Keep a run good while films arrive: feedback, films to label next, drift, and doubtful labels."""
