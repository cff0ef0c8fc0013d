"""Search for a configuration: studies of many trials, each an ordinary run."""
