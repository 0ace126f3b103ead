"""The columns of every table, and how a table's key is marked in its schema."""

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
    # One event of a person (`serve_app/feedback/events.py`). Images are named by image_ids, image_id, over
    # and other_image_ids, in `preferences` by winner and loser.
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
HUMAN = "human"  # the source of preferences that people gave
FEEDBACK_RUN = "feedback"  # their run_id is this, a dash, and the start of the event's id

# Human preference of image retrieval: a query, two groups of images, votes. A table of it may lack the ties.
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

# Field metadata by which Lance knows a table's primary key, and each column's place in it (from 1).
KEY = b"lance-schema:unenforced-primary-key"
KEY_POSITION = KEY + b":position"


EMBEDDINGS = "embeddings_"
"""What the names of all tables of vectors begin with."""


def embeddings_table(fingerprint: str) -> str:
    """The name of the table that holds the vectors of the encoder with that fingerprint."""
    return f"{EMBEDDINGS}{fingerprint}"


def embeddings_schema(dim: int) -> pa.Schema:
    """Columns of an embeddings table: an L2-normalised float32 vector [dim] and what searches filter on.

    aesthetic: `actors.scorers.PromptPairs` of the same encoder over the vector, in [0, 1].
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
    """The schema with `on` marked as its primary key, which must not be null."""
    for position, name in enumerate(on, start=1):
        marks = {KEY: b"true", KEY_POSITION: str(position).encode()}
        field = schema.field(name).with_nullable(False).with_metadata(marks)
        schema = schema.set(schema.get_field_index(name), field)
    return schema


def unkeyed(schema: pa.Schema) -> pa.Schema:
    """The schema without marks, every column nullable: what readers join, concatenate and compare."""
    return pa.schema([field.with_nullable(True).remove_metadata() for field in schema])


def key_of(schema: pa.Schema) -> list[str]:
    """The columns of the schema's primary key, in order."""
    marked = [field for field in schema if field.metadata and KEY_POSITION in field.metadata]
    return [field.name for field in sorted(marked, key=lambda field: int(field.metadata[KEY_POSITION]))]


NEAR_TIE = 0.05
"""A preference whose `p_winner` is within this of one half says next to nothing."""


def near_ties(p_winner: np.ndarray) -> np.ndarray:
    """Which preferences, float [P] in [0, 1], are near ties (`NEAR_TIE`): bool [P]."""
    return np.abs(p_winner - 0.5) < NEAR_TIE
