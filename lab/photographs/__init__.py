"""Measure how well a few hundred rated photographs predict people's votes on other photographs.

    kallos photographs --folder ../shared/data/oasis_beauty

Each rater group is held out once. A method is fitted on the other groups, and its figure is the share of the
held-out pairs on which it agrees with the majority. No weights trained on photographs are written to disk.

`dataset.py` reads the folder, `methods.py` has every method, `votes_training.py` trains an encoder on the
votes, `agreement.py` compares scores with votes, and `page.py` draws the report.
"""
