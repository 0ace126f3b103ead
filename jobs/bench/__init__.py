"""`kallos bench ingest|label|align`: both sides of a ratio measured in turns, in one run."""
