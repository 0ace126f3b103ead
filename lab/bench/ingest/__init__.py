"""Measures the ingest pipeline against a plain open_clip loop over the same JPEG files, in turns, in one run.

    kallos bench ingest --num-images 2000

ingest: read, sha256, decode, preview, pixels, embed, merge into `embeddings_<encoder>` and `images` of a new
store; from the first embedded block, which is not counted, to the last merge. Actors are up before the first
file is read, so that no decoded images pile up in front of them.
bare loop: open, decode, open_clip's own preprocessing, encode, L2-normalise; one process, torch's threads,
the same batch size and precision; the model is loaded and warm. No identity, no preview, no tables.
"""
