"""The tables (LanceDB, a local folder or s3://, gs://): their schemas, and a store that merges rows safely.

Rows are inserted once and never updated in place; a merge of rows that are there already adds nothing, so
every job can be run again.
"""

import datetime
import json
import os
from collections.abc import Sequence
from typing import Any

import lancedb
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import UserError

TIMESTAMP = pa.timestamp("us", tz="UTC")

SCHEMAS: dict[str, pa.Schema] = {
    "images": pa.schema(
        {
            "image_id": pa.string(),
            "uri": pa.string(),
            "caption": pa.string(),
            "detailed_caption": pa.string(),
            "width_px": pa.int32(),
            "height_px": pa.int32(),
            "preview": pa.binary(),
            "tags": pa.list_(pa.string()),
            "source": pa.string(),
            "added_at": TIMESTAMP,
        }
    ),
    "rejects": pa.schema({"uri": pa.string(), "stage": pa.string(), "error": pa.string(), "at": TIMESTAMP}),
    "preferences": pa.schema(
        {
            "query": pa.string(),
            "rephrased": pa.string(),
            "style": pa.string(),
            "winner": pa.string(),
            "loser": pa.string(),
            "p_winner": pa.float32(),
            "winner_cell": pa.list_(pa.int32()),
            "loser_cell": pa.list_(pa.int32()),
            "source": pa.string(),
            "consistent": pa.bool_(),
            "judge": pa.string(),
            "run_id": pa.string(),
        }
    ),
    "rankings": pa.schema(
        {
            "run_id": pa.string(),
            "query": pa.string(),
            "rephrased": pa.string(),
            "style": pa.string(),
            "image_ids": pa.list_(pa.string()),
            "semantic_scores": pa.list_(pa.float32()),
            "aesthetic_scores": pa.list_(pa.float32()),
            "judge": pa.string(),
            "source": pa.string(),
            "encoder": pa.string(),
            "created_at": TIMESTAMP,
        }
    ),
    "encoders": pa.schema(
        {
            "encoder": pa.string(),
            "parent": pa.string(),
            "checkpoint": pa.string(),
            "dim": pa.int32(),
            "metrics": pa.string(),
            "created_at": TIMESTAMP,
        }
    ),
    "aliases": pa.schema({"alias": pa.string(), "encoder": pa.string(), "set_at": TIMESTAMP}),
}

# The verb that makes a table, for the error that says it is missing.
MADE_BY = {
    "images": "kallos ingest",
    "rejects": "kallos ingest",
    "preferences": "kallos label",
    "rankings": "kallos label",
    "encoders": "kallos ingest",
    "aliases": "kallos ingest",
}


def embeddings_table(fingerprint: str) -> str:
    """The name of the table that holds the vectors of the encoder with that fingerprint."""
    return f"embeddings_{fingerprint}"


def embeddings_schema(dim: int) -> pa.Schema:
    """Columns of an embeddings table: an L2-normalised float32 vector [dim] and what searches filter on."""
    images = SCHEMAS["images"]
    names = ("caption", "width_px", "height_px", "tags", "source", "added_at")
    return pa.schema(
        [
            pa.field("image_id", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), dim)),
            *(images.field(name) for name in names),
        ]
    )


def now() -> datetime.datetime:
    """The present moment, UTC, as the tables store it."""
    return datetime.datetime.now(datetime.UTC)


class EncoderRecord(BaseModel):
    """A registered encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field(description="fingerprint, 16 hex characters")
    parent: str = Field("", description='fingerprint of the encoder it was aligned from, "" for a root')
    checkpoint: str = Field(description="open_clip folder or hub name")
    dim: int = Field(ge=1, description="length of its vectors")
    metrics: dict[str, Any] = Field(default_factory=dict, description="figures measured on it")
    created_at: datetime.datetime = Field(default_factory=now, description="when it was registered")


class Store:
    """The tables at one address. Picklable: it reopens the database where it is unpickled."""

    def __init__(self, uri: str) -> None:
        """`uri`: a local folder (made when the first table is written), or s3://, gs://, az://."""
        self.uri = uri if "://" in uri else os.path.abspath(uri)
        self._database: Any = None

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.uri, self._database = state["uri"], None

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    @property
    def database(self) -> Any:
        """The LanceDB connection of this process."""
        if self._database is None:
            if "://" not in self.uri and os.path.exists(self.uri) and not os.path.isdir(self.uri):
                raise UserError(
                    f"The store {self.uri} is a file: give a folder, or an address such as s3://bucket/store."
                )
            self._database = lancedb.connect(self.uri)
        return self._database

    def names(self) -> list[str]:
        """Names of the tables that exist, sorted."""
        names: list[str] = []
        while page := list(self.database.table_names(page_token=names[-1] if names else None, limit=100)):
            names += page
        return names

    def exists(self, name: str) -> bool:
        """Whether the table exists."""
        return name in self.names()

    def open(self, name: str) -> Any:
        """The LanceDB table at its newest version.

        Raises:
            UserError: it does not exist; the message names the verb that makes it.
        """
        if not self.exists(name):
            verb = MADE_BY.get(name, "kallos index")
            raise UserError(f"{self} has no table {name!r}: run `{verb}` first, or give another --store.")
        return self.database.open_table(name)

    def count(self, name: str, where: str | None = None) -> int:
        """Rows in the table, or those that `where` (SQL) keeps."""
        return self.open(name).count_rows(where or None)

    def read(self, name: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The table's rows, all columns or those named, filtered by `where` (SQL)."""
        query = self.open(name).search()
        if where:
            query = query.where(where)
        if columns is not None:
            query = query.select(list(columns))
        return query.to_arrow()

    def merge(self, name: str, rows: pa.Table, on: Sequence[str]) -> int:
        """Insert the rows whose key `on` the table does not hold yet; returns how many were new.

        Creates the table, with the schema of `SCHEMAS` (or that of the rows), when it does not exist. Safe
        with concurrent writers: a conflict is tried again.
        """
        schema = SCHEMAS.get(name, rows.schema)
        rows = _first_of_each(rows.select(schema.names).cast(schema), on)
        return self._merge(name, rows, list(on))

    def _merge(self, name: str, rows: pa.Table, on: list[str]) -> int:
        table = self.database.create_table(name, schema=rows.schema, exist_ok=True)
        result = table.merge_insert(on).when_not_matched_insert_all().execute(rows)
        return result.num_inserted_rows

    def register_encoder(self, record: EncoderRecord) -> None:
        """Register an encoder; one whose fingerprint is known already is left as it is."""
        row = {**record.model_dump(), "metrics": json.dumps(record.metrics, sort_keys=True)}
        self.merge("encoders", pa.Table.from_pylist([row], SCHEMAS["encoders"]), on=["encoder"])

    def encoder(self, fingerprint_or_alias: str) -> EncoderRecord:
        """The registered encoder of that fingerprint or alias.

        Raises:
            UserError: there is none; the message names those that exist.
        """
        aliases = self.aliases()
        fingerprint = aliases.get(fingerprint_or_alias, fingerprint_or_alias)
        rows = self.read("encoders").to_pylist() if self.exists("encoders") else []
        for row in rows:
            if row["encoder"] == fingerprint:
                return EncoderRecord(**{**row, "metrics": json.loads(row["metrics"])})
        known = sorted(aliases) + sorted(row["encoder"] for row in rows)
        raise UserError(
            f"{self} has no encoder {fingerprint_or_alias!r}: it knows {', '.join(known) or 'none'}; "
            "`kallos ingest` registers one as `baseline`."
        )

    def set_alias(self, alias: str, fingerprint: str) -> None:
        """Let `alias` name the encoder from now on; the history of what it named stays in the table."""
        if self.aliases().get(alias) == fingerprint:
            return
        row = {"alias": alias, "encoder": fingerprint, "set_at": now()}
        self.merge("aliases", pa.Table.from_pylist([row], SCHEMAS["aliases"]), on=["alias", "set_at"])

    def aliases(self) -> dict[str, str]:
        """What each alias names now."""
        if not self.exists("aliases"):
            return {}
        rows = sorted(self.read("aliases").to_pylist(), key=lambda row: row["set_at"])
        return {row["alias"]: row["encoder"] for row in rows}

    def alias(self, alias: str) -> str:
        """The fingerprint that `alias` names.

        Raises:
            UserError: no encoder has that alias.
        """
        aliases = self.aliases()
        if alias not in aliases:
            raise UserError(
                f"{self} has no alias {alias!r}: it knows {', '.join(sorted(aliases)) or 'none'}."
            )
        return aliases[alias]


def _first_of_each(rows: pa.Table, on: Sequence[str]) -> pa.Table:
    """The first row of each key: a merge would insert every copy of a new key."""
    numbered = rows.select(list(on)).append_column("_row", pa.array(range(rows.num_rows), pa.int64()))
    first = numbered.group_by(list(on)).aggregate([("_row", "min")])["_row_min"]
    if len(first) == rows.num_rows:
        return rows
    return rows.take(first.combine_chunks().sort())
