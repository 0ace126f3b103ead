"""The truth about a studio's images: which match a query, how beautiful they are, what they show."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import UserError
from lab.studio.latents import Latents, accuracy, parse_query, true_aesthetics


def scenes(rows: pa.Table, split: str = "") -> dict[str, Latents]:
    """image_id -> latents of one split ("" = all)."""
    names = [field.name for field in dataclasses.fields(Latents)]
    return {
        row["image_id"]: Latents(**{name: row[name] for name in names})
        for row in rows.to_pylist()
        if not split or row["split"] == split
    }


def load_scenes(folder: str | Path) -> dict[str, Latents]:
    """image_id -> latents of a folder that `kallos studio` wrote. Raises UserError for another folder."""
    path = Path(folder) / "latents.parquet"
    if not path.exists():
        raise UserError(f"{folder} has no latents.parquet; give a folder that `kallos studio` wrote.")
    return scenes(pq.read_table(path))


def accurate_ids(query: str, of: Mapping[str, Latents]) -> list[str]:
    """Ids of the scenes that show everything the query names."""
    wanted = parse_query(query)
    return [image_id for image_id, latents in of.items() if accuracy(wanted, latents) == 1.0]


def truth_table(queries: Sequence[str], of: Mapping[str, Latents]) -> pa.Table:
    """What `kallos evaluate --truth` reads: query, image_id, accurate, aesthetics for every pair."""
    beauty = [true_aesthetics(latents) for latents in of.values()]
    tables = []
    for query in queries:
        accurate = set(accurate_ids(query, of))
        columns = {
            "query": [query] * len(of),
            "image_id": list(of),
            "accurate": [image_id in accurate for image_id in of],
            "aesthetics": beauty,
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def label_table(of: Mapping[str, Latents]) -> pa.Table:
    """What `kallos evaluate --labels` reads: image_id and label, the subject of each scene."""
    return pa.table({"image_id": list(of), "label": [latents.subject for latents in of.values()]})
