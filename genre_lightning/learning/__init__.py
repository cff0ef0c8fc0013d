"""Keep a model up to date while films arrive: feedback, films to label next, drift, and doubtful labels."""
