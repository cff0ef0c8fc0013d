"""Where curves and evaluations go: CSV, TensorBoard, Weights & Biases."""
