"""A store of LanceDB tables in a local folder or at s3://, gs://, az://, with safe concurrent merges.

Rows are inserted once and never updated in place, except the address of an encoder whose folder has moved,
and `p_winner`, which `kallos label` calibrates. Merging existing rows adds nothing, so every job can be run
again. Deleting an image removes it from all tables.
"""

import datetime
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import lancedb
import pyarrow as pa
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from cluster.compat.errors import is_commit_conflict, is_missing_table, lance_reason, storage_fault
from cluster.errors import UserError, shown
from cluster.schemas import (
    EMBEDDINGS,
    SCHEMAS,
    embeddings_schema,
    embeddings_table,
    key_of,
    keyed,
    schema_difference,
    unkeyed,
)
from cluster.sql import in_list, literal, one_condition
from cluster.store.addresses import located, remembered, store_address

__all__ = [
    "SCHEMAS",
    "EncoderRecord",
    "Snapshot",
    "Store",
    "embeddings_schema",
    "embeddings_table",
    "first_rows",
    "now",
]

IDS_PER_READ = 500
IMAGE_ID = re.compile("[0-9a-f]{64}")
# SQL conditions for the rows that refer to an image, besides `images` and the tables of embeddings.
REFERENCES = {
    "preferences": "winner = '{0}' OR loser = '{0}'",
    "rankings": "array_contains(image_ids, '{0}')",
    "voted_pairs": "first = '{0}' OR second = '{0}'",
    "feedback": "image_id = '{0}' OR over = '{0}' OR array_contains(image_ids, '{0}') "
    "OR array_contains(other_image_ids, '{0}')",
}

# The verb that makes each table, for the error about a missing table. All other tables are made by `index`.
MADE_BY = {
    "images": "kallos ingest",
    "rejects": "kallos ingest",
    "preferences": "kallos label",
    "rankings": "kallos label",
    "encoders": "kallos ingest",
    "aliases": "kallos ingest",
    "feedback": "kallos serve",
}

OTHER_VERSION = (
    "another version of Kallos or another program made it, so give another --store, or move this one away"
)
# Options of the first request to an object store: one that does not answer is given up after half a minute,
# not after several minutes. Later requests may be large, and have Lance's own limits.
PROBE_OPTIONS = {"connect_timeout": "5s", "timeout": "5s", "client_max_retries": "0"}


def now() -> datetime.datetime:
    """The current time in UTC, as the tables store it."""
    return datetime.datetime.now(datetime.UTC)


class EncoderRecord(BaseModel):
    """A registered encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field(description="fingerprint, 16 hex characters")
    parent: str = Field(
        default="", description='fingerprint of the encoder it was aligned from, "" for a root'
    )
    checkpoint: str = Field(description="open_clip folder or hub name; the table has it as `Store.remember`")
    dim: int = Field(ge=1, description="length of its vectors")
    metrics: dict[str, Any] = Field(default_factory=dict, description="metrics of its training")
    created_at: datetime.datetime = Field(default_factory=now, description="when it was registered")


retry_on_commit_conflict = retry(
    retry=retry_if_exception(is_commit_conflict),
    wait=wait_random_exponential(multiplier=0.05, max=5),
    stop=stop_after_attempt(20),
    reraise=True,
)


class Store:
    """The tables at one address. Picklable: the copy opens a connection of its own."""

    def __init__(self, uri: str, *, fresh: bool = False) -> None:
        """
        Args:
            uri: a local folder (a path or file://), made when the first table is written, or an s3://, gs://
                or az:// address.
            fresh: whether every read of an open table sees what others have written and deleted since.
                Otherwise the table stays at the version at which it was opened.

        Raises:
            UserError: an address of another kind.
        """
        self.uri = store_address(uri)
        self.fresh = fresh
        self._database: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "fresh": self.fresh}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _database=None)

    def __str__(self) -> str:
        return f"The store {self.uri}"

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    @property
    def database(self) -> Any:
        """The LanceDB connection of this process."""
        if self._database is None:
            if self.is_remote:
                with self._explained():
                    lancedb.connect(self.uri, storage_options=PROBE_OPTIONS).list_tables()
            interval = datetime.timedelta(0) if self.fresh else None
            self._database = lancedb.connect(self.uri, read_consistency_interval=interval)
        return self._database

    @property
    def is_remote(self) -> bool:
        """Whether the tables are in an object store."""
        return "://" in self.uri

    def _is_new(self) -> bool:
        """Whether the local folder does not exist yet: LanceDB would make it even for reading.

        Raises UserError if it is a file.
        """
        if self.is_remote:
            return False
        try:
            mode = os.stat(self.uri).st_mode
        except FileNotFoundError:
            return True
        except OSError as error:
            raise UserError(f"{self} cannot be used: {error.strerror}: give another --store.") from error
        if not stat.S_ISDIR(mode):
            raise UserError(f"{self} is a file: give a folder, or an address such as s3://bucket/store.")
        return False

    @contextmanager
    def _explained(self, name: str = "", where: str | None = None) -> Iterator[None]:
        """Raise a UserError for a fault of the table's files or storage, or of the user's filter."""
        try:
            yield
        except UserError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            what = f"Table {name!r} of {self.uri}" if name else str(self)
            if fault := storage_fault(error):
                raise UserError(f"{what} cannot be used: {fault}.") from error
            if isinstance(error, OSError) and error.strerror:
                raise UserError(f"{what} cannot be used: {error.strerror}: give another --store.") from error
            reason = lance_reason(error)
            if where:
                raise UserError(
                    f"The filter {shown(where)} cannot be used on table {name!r}: {reason}."
                ) from error
            if reason and not is_commit_conflict(error):
                raise UserError(
                    f"{what} cannot be used: {reason}: if its files are damaged, restore them from a copy, "
                    "or move the store away and start anew."
                ) from error
            raise

    def names(self) -> list[str]:
        """Names of the tables that exist."""
        if self._is_new():
            return []
        with self._explained():
            response = self.database.list_tables()
            names = list(response.tables)
            while response.page_token:
                response = self.database.list_tables(page_token=response.page_token)
                names += response.tables
            return names

    def exists(self, name: str) -> bool:
        """Whether the table exists."""
        return self.find(name) is not None

    def open(self, name: str) -> Any:
        """The LanceDB table at its newest version.

        Raises:
            UserError: there is no such table. The message names the verb that makes it.
        """
        table = self.find(name)
        if table is None:
            verb = MADE_BY.get(name, "kallos index")
            raise UserError(f"{self} has no table {name!r}: run `{verb}` first, or give another --store.")
        return table

    def find(self, name: str) -> Any | None:
        """The LanceDB table at its newest version, None if it does not exist."""
        if self._is_new():
            return None
        with self._explained(name):
            try:
                table = self.database.open_table(name)
            except ValueError as error:
                if is_missing_table(error):
                    return None
                raise
            if difference := schema_difference(name, table.schema):
                raise UserError(f"Table {name!r} of {self.uri} {difference}: {OTHER_VERSION}.")
            return table

    def count(self, name: str, where: str | None = None) -> int:
        """Number of rows that match `where` (SQL, default all). Raises UserError for an invalid filter."""
        table = self.open(name)
        with self._explained(name, where):
            return table.count_rows(one_condition(where) or None)

    def read(self, name: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The rows that match `where` (SQL, default all), with the named columns (default all).

        Raises:
            UserError: there is no such table, the filter is invalid, or the table's files cannot be read.
        """
        query = self.open(name).search()
        with self._explained(name, where):
            if where:
                query = query.where(one_condition(where))
            if columns is not None:
                query = query.select(list(columns))
            rows = query.to_arrow()
        return rows.cast(unkeyed(rows.schema))

    def rows_of(self, name: str, columns: Sequence[str], image_ids: Iterable[str]) -> Iterator[dict]:
        """The table's rows of those images, a few hundred per read."""
        ids = sorted(image_ids)
        for start in range(0, len(ids), IDS_PER_READ):
            chosen = in_list("image_id", ids[start : start + IDS_PER_READ])
            yield from self.read(name, columns, chosen).to_pylist()

    def merge(self, name: str, rows: pa.Table, on: Sequence[str]) -> int:
        """Insert the rows whose key `on` is not in the table yet; returns the number inserted.

        Creates the table if needed, with its schema in `SCHEMAS` or else that of the rows. Drops columns of
        `rows` that the schema lacks. Idempotent, and safe with concurrent writers of the same keys: `on`
        becomes the table's primary key, without which LanceDB does not notice that two writers insert the
        same new key.

        Raises:
            ValueError: a column is missing or of another type, or a key is null.
            UserError: the table's key is not `on`, or its files cannot be read or written.
        """
        schema = SCHEMAS.get(name, unkeyed(rows.schema))
        missing = [column for column in (*schema.names, *on) if column not in rows.column_names]
        if missing:
            raise ValueError(f"Rows for table {name!r} lack the columns {', '.join(missing)}.")
        schema = keyed(schema, on)
        # LanceDB's merge would insert all rows that share a new key.
        rows = first_rows(rows.select(schema.names).cast(schema), on)
        with self._explained(name):
            return self._insert_new(name, rows, list(on))

    @retry_on_commit_conflict
    def _insert_new(self, name: str, rows: pa.Table, on: list[str]) -> int:
        table = self.find(name)
        if table is None:
            table = self._create(name, rows.schema)
        if (key := key_of(table.schema)) != on:
            raise UserError(f"Table {name!r} of {self.uri} has the key {key}, not {on}: {OTHER_VERSION}.")
        # With an index on the key, Lance does not notice that two writers insert the same new key.
        merge = table.merge_insert(on).when_not_matched_insert_all().use_index(False)
        return merge.execute(rows).num_inserted_rows

    def _create(self, name: str, schema: pa.Schema) -> Any:
        """Create the table, under a lock: if two processes create one at once, the later may empty it.

        Object stores have no such lock, so let a single process make the first write to a new table there.
        """
        if not self.is_remote:
            os.makedirs(self.uri, exist_ok=True)
        with nullcontext() if self.is_remote else FileLock(os.path.join(self.uri, f".{name}.lock")):
            table = self.find(name)
            if table is None:
                table = self.database.create_table(name, schema=schema, exist_ok=True)
            return table

    def delete_image(self, image_id: str) -> int:
        """Delete an image, its vectors, and the rows that refer to it; returns the number of deleted rows.

        Readers stop finding it at once; those with an open table, only if their store is `fresh`. Its bytes
        stay on disk until `kallos index --optimize` has rewritten the files and old versions are a week old.

        Raises:
            KeyError: neither `images` nor a table of vectors has it, or it is not 64 hex digits.
        """
        if not IMAGE_ID.fullmatch(image_id):
            raise KeyError(image_id)
        where = f"image_id = '{image_id}'"
        # Ingest writes vectors before their image, so a killed ingest leaves vectors without an image.
        holders = [*(name for name in self.names() if name.startswith(EMBEDDINGS)), "images"]
        if not any(self._holds(name, where) for name in holders):
            raise KeyError(image_id)
        wheres = {name: condition.format(image_id) for name, condition in REFERENCES.items()}
        # `images` comes last, so that an interrupted deletion can be repeated.
        wheres |= dict.fromkeys(holders, where)
        total = 0
        for name, condition in wheres.items():
            with self._explained(name):
                total += self._delete(name, condition)
        return total

    def _holds(self, name: str, where: str) -> bool:
        return self.exists(name) and self.count(name, where) > 0

    @retry_on_commit_conflict
    def _delete(self, name: str, where: str) -> int:
        table = self.find(name)
        return table.delete(where).num_deleted_rows if table is not None else 0

    def remember(self, folder: str) -> str:
        """The address under which a table names a folder: relative if it moves together with the store."""
        return remembered(folder, self.uri)

    def locate(self, address: str) -> str:
        """The folder of an address made by `remember`, as the store lies now."""
        return located(address, self.uri)

    def register_encoder(self, record: EncoderRecord) -> None:
        """Register an encoder, unless its fingerprint is registered already.

        A registered encoder whose folder is gone gets the new checkpoint.
        """
        checkpoint = self.remember(record.checkpoint)
        row = {
            **record.model_dump(),
            "checkpoint": checkpoint,
            "metrics": json.dumps(record.metrics, sort_keys=True),
        }
        if self.merge("encoders", pa.Table.from_pylist([row], SCHEMAS["encoders"]), on=["encoder"]):
            return
        old = self.encoder(record.encoder).checkpoint
        if os.path.isabs(old) and not os.path.isdir(old):
            where = f"encoder = {literal(record.encoder)}"
            self.open("encoders").update(where=where, values={"checkpoint": checkpoint})

    def encoder(self, fingerprint_or_alias: str) -> EncoderRecord:
        """The registered encoder with that fingerprint or alias.

        Raises:
            UserError: there is none. The message names those that exist.
        """
        aliases = self.aliases()
        fingerprint = aliases.get(fingerprint_or_alias, fingerprint_or_alias)
        rows = self.read("encoders").to_pylist() if self.exists("encoders") else []
        for row in rows:
            if row["encoder"] == fingerprint:
                checkpoint = self.locate(row["checkpoint"])
                return EncoderRecord(
                    **row | {"checkpoint": checkpoint, "metrics": json.loads(row["metrics"])}
                )
        known = sorted(aliases) + sorted(row["encoder"] for row in rows)
        raise UserError(
            f"{self} has no encoder {fingerprint_or_alias!r}; it has {', '.join(known) or 'none'}. "
            "`kallos ingest` registers one as `baseline`."
        )

    def set_alias(self, alias: str, fingerprint: str) -> None:
        """Point `alias` to the encoder. Earlier values stay in the table, with lower versions.

        Concurrent writers get different versions; the last to finish has the highest and wins.
        """
        while True:
            current = self._alias_rows().get(alias, {"encoder": "", "version": 0})
            if current["encoder"] == fingerprint:
                return
            row = {"alias": alias, "version": current["version"] + 1, "encoder": fingerprint, "set_at": now()}
            if self.merge(
                "aliases", pa.Table.from_pylist([row], SCHEMAS["aliases"]), on=["alias", "version"]
            ):
                return

    def aliases(self) -> dict[str, str]:
        """alias -> fingerprint of the encoder to which it points."""
        return {alias: row["encoder"] for alias, row in self._alias_rows().items()}

    def _alias_rows(self) -> dict[str, dict[str, Any]]:
        """alias -> its row with the highest version."""
        if not self.exists("aliases"):
            return {}
        rows = sorted(self.read("aliases").to_pylist(), key=lambda row: row["version"])
        return {row["alias"]: row for row in rows}

    def alias(self, alias: str) -> str:
        """The fingerprint of the encoder to which `alias` points.

        Raises:
            UserError: no encoder has that alias.
        """
        aliases = self.aliases()
        if alias not in aliases:
            raise UserError(
                f"{self} has no alias {alias!r}; its aliases are {', '.join(sorted(aliases)) or 'none'}."
            )
        return aliases[alias]


class Snapshot(Store):
    """A store for reading, in which each table stays as it was when it was first opened.

    Later changes by others are not seen, not even by copies of this store in other processes.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._versions: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_versions": self._versions}

    def find(self, name: str) -> Any | None:
        """The table as it was when it was first opened, None if it did not exist."""
        table = super().find(name)
        if table is not None:
            table.checkout(self._versions.setdefault(name, table.version))
        return table


def first_rows(rows: pa.Table, on: Sequence[str]) -> pa.Table:
    """The first row of each distinct value of the columns `on`, in the order of the rows."""
    numbered = rows.select(list(on)).append_column("_row", pa.array(range(rows.num_rows), pa.int64()))
    first = numbered.group_by(list(on)).aggregate([("_row", "min")])["_row_min"]
    if len(first) == rows.num_rows:
        return rows
    return rows.take(first.combine_chunks().sort())
