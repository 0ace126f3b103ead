"""Summarise the feedback given on the search page, and export blind comparisons as votes.

    kallos feedback
    kallos feedback --export runs/votes.parquet && kallos evaluate --hpir runs/votes.parquet

Reads `feedback` and `preferences`. The export is in HPIR form: one row per query and pair of image groups,
whichever side each group was shown on, with the votes for either group and for neither (votes_accuracy_tie,
votes_aesthetic_tie). If a person compares the same results twice, only the last verdict counts.
"""
