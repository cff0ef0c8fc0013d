"""Learning goes on: what people say of predictions, which films to label next, drift, and doubtful labels."""
