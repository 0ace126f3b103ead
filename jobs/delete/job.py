"""Remove images from every table: `images`, all embeddings, and the preferences and rankings with them.

    kallos delete --image-ids 3b1f... 9c0e...

An image that is still in its source comes back when that is ingested again.
"""

from cluster import command
from jobs.delete.config import DeleteConfig


def run(config: DeleteConfig) -> dict:
    """Remove them; returns what was removed and which ids are unknown. Raises UserError without images."""
    _, store = command.settings(config)
    store.open("images")
    num_rows, unknown = {}, []
    for image_id in dict.fromkeys(config.image_ids):
        try:
            num_rows[image_id] = store.delete_image(image_id)
        except KeyError:
            unknown.append(image_id)
    return {"num_images": len(num_rows), "num_rows": sum(num_rows.values()), "unknown": unknown}
