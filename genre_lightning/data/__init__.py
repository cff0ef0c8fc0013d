"""From a movies file to the batches of each rank; nothing here knows of models."""
