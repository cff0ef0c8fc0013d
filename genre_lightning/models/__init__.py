"""The models; each is a `GenreClassifier` or writes the same table of predictions as one."""
