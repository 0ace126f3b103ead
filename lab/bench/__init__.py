"""`kallos bench`: each benchmark measures both sides of its ratios in turns, in one run."""
