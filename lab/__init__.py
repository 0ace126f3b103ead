"""Experiments: a drawn world, training of the shipped models, evaluations, benchmarks and the demo."""
