"""The figures of an evaluation: pure functions of arrays, and the registry that describes every metric."""
