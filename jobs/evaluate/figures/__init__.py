"""The figures of an evaluation, as pure functions and the registry that describes each metric."""
