"""What proves the product: a drawn world, training of the shipped models, evaluations, benchmarks, demo."""
