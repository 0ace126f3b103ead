"""`kallos bench ingest|label|align|serve`: both sides of a ratio measured in turns, in one run."""
