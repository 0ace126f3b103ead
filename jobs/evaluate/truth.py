"""Known accuracy and beauty of images for a query: from a table that the user gives, or from ratings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cluster.errors import UserError, shown
from cluster.table_files import flag, number, query, read_table, text


class Truth(Protocol):
    """Which images are accurate and how beautiful they are, for the queries of an evaluation."""

    def accurate(self, query: str, image_ids: Sequence[str]) -> np.ndarray:
        """Whether each image shows everything that the query names, bool [N]; False where it is unknown."""
        ...

    def aesthetics(self, query: str, image_ids: Sequence[str]) -> np.ndarray:
        """How beautiful each image is for the query, float [N] in [0, 1]; NaN where it is unknown."""
        ...


@dataclass(frozen=True)
class TruthTable:
    """Rows of a truth table: query -> image_id -> (accurate, aesthetics)."""

    marks: Mapping[str, Mapping[str, tuple[bool, float]]]

    def accurate(self, query: str, image_ids: Sequence[str]) -> np.ndarray:
        """See `Truth`."""
        known = self.marks[query]
        return np.array([image_id in known and known[image_id][0] for image_id in image_ids], bool)

    def aesthetics(self, query: str, image_ids: Sequence[str]) -> np.ndarray:
        """See `Truth`."""
        known = self.marks[query]
        return np.array([known[i][1] if i in known else np.nan for i in image_ids], float)


class RatedTruth:
    """Ratings in place of a truth, for images of unknown accuracy and beauty.

    accuracy: (query, image_id) -> [1, 5], by the judge, or by the teacher's gate where the judge did not rate
    it. aesthetics: (query, image_id) -> [1, 5], by the judge, which did not rate all inaccurate images.
    """

    def __init__(
        self,
        accuracy: Mapping[tuple[str, str], float],
        aesthetics: Mapping[tuple[str, str], float],
        threshold: float,
    ) -> None:
        self.rated_accuracy, self.rated_aesthetics, self.threshold = accuracy, aesthetics, threshold

    def accurate(self, query: str, image_ids: Sequence[str]) -> np.ndarray:
        """Rated accuracy is at least the threshold, bool [N]; an image without a rating is inaccurate."""
        return np.array([self.rated_accuracy[query, i] >= self.threshold for i in image_ids], bool)

    def aesthetics(self, query: str, image_ids: Sequence[str]) -> np.ndarray:
        """Rated aesthetics scaled from [1, 5] to [0, 1], float [N]; NaN without a rating."""
        return (np.array([self.rated_aesthetics.get((query, i), np.nan) for i in image_ids]) - 1) / 4


def load_truth(path: str, queries: Sequence[str]) -> TruthTable:
    """The truth table in a file.

    Raises UserError for an unreadable file, a missing value, aesthetics outside [0, 1], or a query that the
    table lacks.
    """
    rows = read_table(path, {"query": query, "image_id": text, "accurate": flag, "aesthetics": number})
    marks: dict[str, dict[str, tuple[bool, float]]] = {}
    for row in rows:
        if None in row.values() or "" in row.values():
            empty = next(name for name, value in row.items() if value is None or value == "")
            raise UserError(f"the truth table {shown(path)} has a row without {empty}: fill or remove it")
        if not 0 <= row["aesthetics"] <= 1:
            raise UserError(
                f"the truth table {shown(path)} has aesthetics {row['aesthetics']}: scale them to 0..1"
            )
        marks.setdefault(row["query"], {})[row["image_id"]] = (row["accurate"], row["aesthetics"])
    missing = [query for query in queries if query not in marks]
    if missing:
        raise UserError(
            f"the truth table {shown(path)} lacks {len(missing)} of the {len(queries)} queries, such as "
            f"{shown(missing[0])}: give --queries those that it knows"
        )
    return TruthTable(marks)


def load_labels(path: str) -> dict[str, str]:
    """image_id -> what the image shows, from a table. Raises UserError for an unreadable one."""
    rows = read_table(path, {"image_id": text, "label": query})
    return {row["image_id"]: row["label"] for row in rows if row["label"]}
