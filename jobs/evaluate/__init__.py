"""Compare an aligned encoder with the baseline, the nulls and the teacher on one gallery.

    kallos evaluate --queries queries.txt --hpir votes.parquet --out runs/evaluate

Writes report.json and report.html (one self-contained page) into the output folder. docs/evaluation.md
explains the metrics and the tables that the options name.

Everything is read as it was when the evaluation began, so images may be added and deleted meanwhile. Votes on
an image that was deleted before are left out and counted.
"""
