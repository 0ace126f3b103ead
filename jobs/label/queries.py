"""Where queries come from: a file, or the captions of the images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from cluster.errors import UserError
from cluster.tables import Store, embeddings_table

NUM_DRAWN = 64
READERS = {
    ".parquet": pa.parquet.read_table,
    ".csv": pa.csv.read_csv,
    ".jsonl": pa.json.read_json,
}


def read_queries(path: str, num_queries: int) -> list[str]:
    """The file's queries, distinct, in its order; the first `num_queries` of them unless 0.

    Raises:
        UserError: no such file, an unknown ending, no column `query`, or no query in it.
    """
    if not Path(path).is_file():
        raise UserError(f"The file of queries {path!r} does not exist.")
    if Path(path).suffix == ".txt":
        texts = Path(path).read_text(encoding="utf-8").splitlines()
    else:
        texts = [str(text or "") for text in read_table(path, ("query",))["query"].to_pylist()]
    queries = distinct(texts)
    if not queries:
        raise UserError(f"The file of queries {path!r} holds no query.")
    return queries[: num_queries or None]


def read_table(path: str, columns: Sequence[str]) -> pa.Table:
    """Those columns of a .parquet, .csv or .jsonl file. Raises UserError when it cannot be read or lacks
    one.
    """
    reader = READERS.get(Path(path).suffix)
    if reader is None:
        raise UserError(f"{path!r} has an unknown ending: give one of {', '.join(READERS)}.")
    try:
        table = reader(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path!r} cannot be read: {error}.") from None
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise UserError(
            f"{path!r} has no column {missing[0]!r}: its columns are {', '.join(table.column_names)}."
        )
    return table.select(list(columns))


def draw_queries(store: Store, fingerprint: str, where: str, num_queries: int, seed: int) -> list[str]:
    """Distinct captions of the images that `where` keeps, drawn by the seed; fewer when there are fewer.

    Raises:
        UserError: no image has a caption.
    """
    table = store.read(embeddings_table(fingerprint), ["caption"], where or None)
    captions = sorted(distinct([text or "" for text in table["caption"].to_pylist()]))
    if not captions:
        raise UserError("No image has a caption to draw queries from: give a file with --queries.")
    order = np.random.default_rng(seed).permutation(len(captions))
    return [captions[position] for position in order[: num_queries or NUM_DRAWN]]


def distinct(texts: Sequence[str]) -> list[str]:
    """The texts on one line each, without blanks and repetitions, in order."""
    lines = (" ".join(text.split()) for text in texts)
    return [line for line in dict.fromkeys(lines) if line]
