"""Remove images from every table: `images`, all embeddings, preferences, rankings and feedback.

    kallos delete --image-ids 3b1f... 9c0e...

Remove the files from the source as well: the next `kallos ingest` would add them again.
"""
