"""Removes images from every table; a later ingest of the same source adds them again."""

from cluster import command
from jobs.delete.config import DeleteConfig


def run(config: DeleteConfig) -> dict:
    """Remove the images; returns counts and the unknown ids. Raises UserError for a store without images."""
    _, store = command.settings(config)
    store.open("images")
    num_rows, unknown = {}, []
    for image_id in dict.fromkeys(config.image_ids):
        try:
            num_rows[image_id] = store.delete_image(image_id)
        except KeyError:
            unknown.append(image_id)
    return {"num_images": len(num_rows), "num_rows": sum(num_rows.values()), "unknown": unknown}
