"""Measures how well people's votes on photographs can be predicted from a few hundred rated photographs.

    kallos photographs --folder ../shared/data/oasis_beauty

Each rater group is held out once: a method is fitted on the other groups, and its figure is the share of the
held-out pairs on which it agrees with the majority. `dataset.py` reads the folder, `methods.py` holds every
method, `votes_training.py` aligns an encoder with the votes, `agreement.py` compares scores with votes, and
`page.py` draws the report. No weights trained on the photographs are written to disk.
"""
