"""Tells what people said on the search page, and exports their blind comparisons as votes.

    kallos feedback
    kallos feedback --export runs/votes.parquet && kallos evaluate --hpir runs/votes.parquet

Reads `feedback` and `preferences`. The export is in HPIR form: a row for a query and two groups of images,
however the sides were shuffled, with the votes for either and for neither (votes_accuracy_tie,
votes_aesthetic_tie). Of a person who compares the same two answers again, the last word counts.
"""
