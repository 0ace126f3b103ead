"""Remove images from every table: `images`, all embeddings, and the preferences and rankings with them.

    kallos delete --image-ids 3b1f... 9c0e...

An image that is still in its source comes back when that is ingested again.
"""

from pydantic import Field

from jobs import command


class DeleteConfig(command.JobConfig):
    """Which images."""

    image_ids: tuple[str, ...] = Field(
        min_length=1, description="the images, each the sha256 of its file's bytes, 64 hex characters"
    )


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


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    command.main(DeleteConfig, run, argv)


if __name__ == "__main__":
    main()
