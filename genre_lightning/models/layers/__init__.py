"""Parts of models: packing, attention, pooling, and kernels for the CPU."""
