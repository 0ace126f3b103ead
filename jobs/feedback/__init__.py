"""Summarise people's feedback, and export blind comparisons as votes.

    kallos feedback
    kallos feedback --export runs/votes.parquet && kallos evaluate --hpir runs/votes.parquet

Reads `feedback` and `preferences`. The export is in HPIR form: one row per query and pair of image groups,
whichever side each group was shown on. It counts the votes for either group and the ties
(votes_accuracy_tie, votes_aesthetic_tie). A person has one vote per query and pair of encoders: the last one.
"""
