"""The metadata table of a folder: captions and tags by file name."""

from dataclasses import asdict, dataclass, fields

import pyarrow as pa
from pyarrow import csv, fs, parquet
from pyarrow import json as arrow_json

from cluster.errors import UserError
from cluster.schemas import SCHEMAS
from jobs.ingest.lookup import Lookup
from jobs.ingest.sources.image_text import ImageText, TextColumns, read_text
from jobs.ingest.sources.listing import extension

KEY_COLUMNS = ("file_name", "file")
TEXT_SCHEMA = pa.schema(
    [
        *(SCHEMAS["images"].field(name) for name in ("caption", "detailed_caption", "tags")),
        pa.field("error", pa.string()),
    ]
)
READERS = {"parquet": parquet.read_table, "csv": csv.read_csv, "jsonl": arrow_json.read_json}


@dataclass(frozen=True)
class Metadata:
    """Captions and tags by the file's path relative to the source folder."""

    lookup: Lookup
    texts: pa.Table

    def text_of(self, file: str) -> ImageText:
        """Captions and tags of a file; empty when the table does not list it."""
        row = self.lookup.row(file)
        if row < 0:
            return ImageText()
        values = self.texts.slice(row, 1).to_pylist()[0]
        return ImageText(values["caption"], values["detailed_caption"], tuple(values["tags"]))


def read_metadata(filesystem: fs.FileSystem, path: str, columns: TextColumns) -> Metadata:
    """Read and check a metadata table. Raises UserError when it is broken or has no column of file names."""
    if extension(path) not in READERS:
        raise UserError(f"metadata table '{path}' has an unknown format; use one of {', '.join(READERS)}.")
    try:
        with filesystem.open_input_file(path) as file:
            table = READERS[extension(path)](file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"metadata table '{path}' cannot be read ({error}): repair it, or name another with --metadata."
        ) from error
    key = next((name for name in KEY_COLUMNS if name in table.column_names), "")
    if not key:
        raise UserError(
            f"metadata table '{path}' has no column '{KEY_COLUMNS[0]}' or '{KEY_COLUMNS[1]}'; it has "
            f"{', '.join(table.column_names)}: rename the one that names the files."
        )
    return _metadata(table, key, columns)


def _metadata(table: pa.Table, key: str, columns: TextColumns) -> Metadata:
    wanted = [name for name in dict.fromkeys((key, *columns.names())) if name in table.column_names]
    texts: dict[str, ImageText] = {}
    for row in table.select(wanted).to_pylist():
        if row[key]:
            texts.setdefault(str(row[key]).removeprefix("./"), read_text(row, columns))
    rows = pa.Table.from_pylist([asdict(text) for text in texts.values()], TEXT_SCHEMA)
    return Metadata(Lookup(pa.array(list(texts), pa.string())), rows)
