"""How far real people's taste can be learned from a few hundred rated photographs, and from which features.

    kallos photographs --folder ../shared/data/oasis_beauty --out runs/photographs

`votes.py` reads people's ratings and tells how often a score sides with them, `learn.py` makes features and
aligns an encoder with votes, `job.py` holds one rater group out at a time, `page.py` draws the report.
No weight that has seen the photographs is written to a disk.
"""
