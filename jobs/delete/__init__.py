"""Remove images from every table: `images`, all embeddings, preferences, rankings and feedback.

    kallos delete --image-ids 3b1f... 9c0e...

Ids that the store does not have are reported as `unknown`; if it has none of them, or an id is malformed, the
status is 2.

Remove the files from the source as well: the next `kallos ingest` would add them again.
"""
