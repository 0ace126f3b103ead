"""Remove images from every table: `images`, all embeddings, and the preferences and rankings with them.

    kallos delete --image-ids 3b1f... 9c0e...

An image that is still in its source comes back when that is ingested again.
"""
