"""Remove images from every table: `images`, all embeddings, preferences, rankings and feedback.

    kallos delete --image-ids 3b1f... 9c0e...

An image that is still in its source returns when the source is ingested again.
"""
