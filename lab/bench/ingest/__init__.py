"""Compare the speed of `kallos ingest` with a plain open_clip loop.

    kallos bench ingest --num-images 2000

The report has the ratio of images per second.
"""
