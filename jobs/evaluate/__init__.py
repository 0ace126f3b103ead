"""Compares two encoders and the teacher on one gallery, in figures and in images.

    kallos evaluate --queries queries.txt --hpir votes.parquet --out runs/evaluate

Writes report.json and report.html (one self-contained page) into the output folder.
"""
