"""The truth about a studio folder, for measurements: what answers which query, and how beautiful it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from cluster.errors import UserError
from lab.studio.job import scenes
from lab.studio.latents import Latents, accuracy, parse_query, true_aesthetics


@dataclass(frozen=True)
class Truth:
    """Latents by image_id."""

    latents: dict[str, Latents]

    def accurate(self, query: str, image_ids: Sequence[str]) -> np.ndarray:
        """bool [N]: does the image show everything that the query names?"""
        wanted = parse_query(query)
        return np.array([accuracy(wanted, self.latents[image_id]) == 1.0 for image_id in image_ids], bool)

    def aesthetics(self, image_ids: Sequence[str]) -> np.ndarray:
        """float [N] in [0, 1]: true aesthetic values."""
        return np.array([true_aesthetics(self.latents[image_id]) for image_id in image_ids], float)


def load_truth(folder: str) -> Truth:
    """Read the truth of a folder that `kallos studio` wrote.

    Raises:
        UserError: the folder has no latents.
    """
    path = Path(folder) / "latents.parquet"
    if not path.exists():
        raise UserError(f"{folder} has no latents.parquet; give a folder that `kallos studio` wrote.")
    return Truth(scenes(pq.read_table(path)))
