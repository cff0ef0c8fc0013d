"""A run behind HTTP: the service, its page, and the processes that run them."""
