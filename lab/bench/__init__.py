"""`kallos bench ingest|label|align|serve|index`: both sides of a ratio measured in turns, in one run."""
