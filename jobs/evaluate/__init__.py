"""Compares two encoders and the teacher on one gallery, in figures and in pictures.

Reads `images`, `embeddings_<encoder>` and tables of people's votes; writes `report.json`, `report.html` (one
self-contained page) and `resolved_config.yaml` into the output folder.

    kallos evaluate --aligned candidate --truth runs/studio --hpir runs/studio/hpir.parquet --out runs/report
"""
