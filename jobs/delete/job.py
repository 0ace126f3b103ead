"""Removes images from every table; a later ingest of the same source adds them again."""

from cluster import command
from cluster.errors import UserError, shown
from cluster.tables import IMAGE_ID
from jobs.delete.config import DeleteConfig


def run(config: DeleteConfig) -> dict:
    """Remove the images; returns counts and the unknown ids.

    Raises UserError for a malformed id, before any is deleted, and for a store that has none of the images.
    """
    _, store = command.settings(config)
    store.open("images")
    if malformed := [image_id for image_id in config.image_ids if not IMAGE_ID.fullmatch(image_id)]:
        raise UserError(
            f"{shown(malformed[0])} is no image id: give the 64 characters 0-9 and a-f that searches return. "
            "Nothing was deleted."
        )
    num_rows, unknown = {}, []
    for image_id in dict.fromkeys(config.image_ids):
        try:
            num_rows[image_id] = store.delete_image(image_id)
        except KeyError:
            unknown.append(image_id)
    if not num_rows:
        raise UserError(
            f"{store} has none of the {len(unknown)} images, such as {unknown[0]}: check the ids, or give "
            "another --store."
        )
    return {"num_images": len(num_rows), "num_rows": sum(num_rows.values()), "unknown": unknown}
