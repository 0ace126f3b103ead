"""`kallos bench ingest|label|align`: both sides of a ratio measured in turns, in one run.

`kallos bench index`: what an approximate search finds of the true answer, and how fast.
"""
