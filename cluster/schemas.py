"""The columns of every table, and how a schema marks its primary key."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

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
    # The gaps are the winner's score minus the loser's, null for people's choices. `p_winner` is null until
    # `kallos label` has calibrated the run. overall: share of the judge's two orders in which it calls the
    # winner the better answer outright, null for pairs that it was not asked about.
    "preferences": pa.schema(
        {
            "query": pa.string(),
            "rephrased": pa.string(),
            "style": pa.string(),
            "winner": pa.string(),
            "loser": pa.string(),
            "p_winner": pa.float32(),
            "aesthetic_gap": pa.float32(),
            "semantic_gap": pa.float32(),
            "overall": pa.float32(),
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
    # Pairs that people voted on, with the gaps (first minus second) of a run's scores.
    "voted_pairs": pa.schema(
        {
            "run_id": pa.string(),
            "query": pa.string(),
            "first": pa.string(),
            "second": pa.string(),
            "aesthetic_gap": pa.float32(),
            "semantic_gap": pa.float32(),
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
    "indexes": pa.schema(
        {
            "encoder": pa.string(),
            "kind": pa.string(),
            "num_rows": pa.int64(),
            "recall_at_10": pa.float32(),
            "num_queries": pa.int32(),
            "ef": pa.int32(),
            "refine_factor": pa.int32(),
            "nprobes": pa.int32(),
            "p50_ms": pa.float32(),
            "measured_at": TIMESTAMP,
        }
    ),
    "aliases": pa.schema(
        {"alias": pa.string(), "version": pa.int64(), "encoder": pa.string(), "set_at": TIMESTAMP}
    ),
    # One event per row: see `serve_app/feedback/events.py`. The columns image_ids, image_id, over and
    # other_image_ids refer to images.
    "feedback": pa.schema(
        {
            "event_id": pa.string(),
            "at": TIMESTAMP,
            "client": pa.string(),
            "kind": pa.string(),
            "answer": pa.string(),
            "query": pa.string(),
            "system": pa.string(),
            "encoder": pa.string(),
            "image_ids": pa.list_(pa.string()),
            "image_id": pa.string(),
            "over": pa.string(),
            "other_system": pa.string(),
            "other_encoder": pa.string(),
            "other_image_ids": pa.list_(pa.string()),
            "accuracy": pa.string(),
            "aesthetics": pa.string(),
            "diversity": pa.string(),
        }
    ),
}

PREFERENCE_KEY = ("run_id", "query", "winner", "loser")
HUMAN = "human"  # `source` of preferences that people gave
FEEDBACK_RUN = "feedback"  # their run_id is this word, a dash, and the start of the event's id

# HPIR (human preference of image retrieval): a query, two groups of images, votes. The ties are optional.
HPIR_COLUMNS = (
    "query",
    "group_a",
    "group_b",
    "votes_accuracy_a",
    "votes_accuracy_b",
    "votes_aesthetic_a",
    "votes_aesthetic_b",
)
HPIR_TIES = ("votes_accuracy_tie", "votes_aesthetic_tie")

# Field metadata from which Lance reads a table's primary key, and each column's position in it (from 1).
KEY = b"lance-schema:unenforced-primary-key"
KEY_POSITION = KEY + b":position"


EMBEDDINGS = "embeddings_"
"""Prefix of the names of all embeddings tables."""


def embeddings_table(fingerprint: str) -> str:
    """The name of the table with the vectors of the encoder with that fingerprint."""
    return f"{EMBEDDINGS}{fingerprint}"


def embeddings_schema(dim: int) -> pa.Schema:
    """Columns of an embeddings table: an L2-normalised float32 vector [dim], and the columns for filters.

    aesthetic: score of the vector by `actors.scorers.PromptPairs` with the same encoder, in [0, 1].
    """
    images = SCHEMAS["images"]
    names = ("caption", "width_px", "height_px", "tags", "source", "added_at")
    return pa.schema(
        [
            pa.field("image_id", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), dim)),
            *(images.field(name) for name in names),
            pa.field("aesthetic", pa.float32()),
        ]
    )


def keyed(schema: pa.Schema, on: Sequence[str]) -> pa.Schema:
    """The schema with the columns `on` marked as its primary key and not nullable."""
    for position, name in enumerate(on, start=1):
        marks: dict[bytes | str, bytes | str] = {KEY: b"true", KEY_POSITION: str(position).encode()}
        field = schema.field(name).with_nullable(False).with_metadata(marks)
        schema = schema.set(schema.get_field_index(name), field)
    return schema


def unkeyed(schema: pa.Schema) -> pa.Schema:
    """The schema without key metadata and with every column nullable, to join, concatenate and compare."""
    return pa.schema([field.with_nullable(True).remove_metadata() for field in schema])


def key_of(schema: pa.Schema) -> list[str]:
    """The columns of the schema's primary key, in order."""
    positions = {field.name: (field.metadata or {}).get(KEY_POSITION) for field in schema}
    marked = [(int(position), name) for name, position in positions.items() if position]
    return [name for _, name in sorted(marked)]


def schema_difference(name: str, found: pa.Schema) -> str:
    """How the schema of a table differs from the one expected of this name, for an error; "" if it does not.

    Of a table of vectors, only the columns that every search needs are compared.
    """
    expected = SCHEMAS.get(name, pa.schema([]))
    if name.startswith(EMBEDDINGS):
        expected = pa.schema([("image_id", pa.string())])
        if "vector" not in found.names or not pa.types.is_fixed_size_list(found.field("vector").type):
            return "has no column `vector` of fixed length"
    for field in expected:
        if field.name not in found.names:
            return f"lacks the column `{field.name}`"
        if (kind := found.field(field.name).type) != field.type:
            return f"has the column `{field.name}` of type {kind}, not {field.type}"
    return ""


NEAR_TIE = 0.05
"""A preference is a near tie if its `p_winner` differs from one half by less than this."""


def near_ties(p_winner: np.ndarray) -> np.ndarray:
    """bool [P]: whether each preference, float [P] in [0, 1], is a near tie."""
    return np.abs(p_winner - 0.5) < NEAR_TIE
