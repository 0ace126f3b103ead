"""Reads the training corpus from the store: preferences, caption pairs, and the reference's scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from actors.caption_pairs import part_of
from actors.encoder import Encoder
from actors.missing_vectors import first_readable
from cluster import terminal
from cluster.errors import UserError
from cluster.profile import Align
from cluster.schemas import FEEDBACK_RUN, HUMAN
from cluster.sql import literal
from cluster.tables import Store, embeddings_table
from jobs.align.batches import Corpus, flat, group_pairs, strings
from jobs.align.guard import CaptionPairs

TABLES = ("queries", "captions", "guard", "images")  # of a saved corpus
EncodeTexts = Callable[[list[str]], np.ndarray]


def read_pairs(store: Store, run_id: str | None, parent: str) -> pa.Table:
    """Preference rows: `query`, `winner`, `loser`, `p_winner`, `consistent`, `source`.

    `run_id` names a run, or several separated by commas; `feedback` stands for people's choices. Without a
    name all runs are read. Pairs with a deleted image, and pairs that lack a value, are skipped. Raises
    UserError when a run has no pairs, when no pair can be used, or when an encoder other than `parent`
    retrieved the images.
    """
    names = [name for name in (run_id or "").split(",") if name]
    where = " OR ".join(_of_run(name) for name in names) or None
    columns = ["query", "winner", "loser", "p_winner", "consistent", "source", "run_id"]
    pairs = store.read("preferences", columns, where)
    found = _runs(pairs)
    missing = [name for name in names if name not in found]
    if missing or not found:
        known = sorted(_runs(store.read("preferences", ["source", "run_id"])))
        which = f"of run {', '.join(missing)!r}" if missing else "yet"
        raise UserError(
            f"{store} has no preferences {which}; its runs are {', '.join(known) or 'none'}: name one with "
            "--run-id, or run `kallos label`."
        )
    _check_encoder(store, where, parent)
    return _with_images(store, _complete(pairs.drop_columns("run_id")))


def _complete(pairs: pa.Table) -> pa.Table:
    """The pairs without a null and with a probability as `p_winner`: one NaN would spoil the whole loss."""
    probability = pairs["p_winner"]  # comparisons with NaN are false
    good = pc.and_(pc.greater_equal(probability, pa.scalar(0.0)), pc.less_equal(probability, pa.scalar(1.0)))
    for column in pairs.columns:
        good = pc.and_(good, column.is_valid())
    kept = pairs.filter(good)  # drops null as false
    if not kept.num_rows:
        raise UserError(
            f"None of the {pairs.num_rows} preferences has all values and a p_winner from 0 to 1: run "
            "`kallos label` again."
        )
    if num_broken := pairs.num_rows - kept.num_rows:
        terminal.say(
            f"align: {num_broken} of {pairs.num_rows} preferences are skipped: a value is missing, or "
            "p_winner is not from 0 to 1"
        )
    return kept


def _with_images(store: Store, pairs: pa.Table) -> pa.Table:
    """The pairs whose images exist: deleting an image misses pairs that are written at the same time."""
    present = store.read("images", ["image_id"])["image_id"].combine_chunks()
    winner, loser = (pc.is_in(pairs[side], present) for side in ("winner", "loser"))
    kept = pairs.filter(pc.and_(winner, loser))
    if not kept.num_rows:
        raise UserError(
            f"The images of all {pairs.num_rows} preferences are missing from table images of {store.uri}: "
            "run `kallos ingest` on them, or `kallos label` again."
        )
    if num_gone := pairs.num_rows - kept.num_rows:
        terminal.say(f"align: {num_gone} of {pairs.num_rows} preferences are skipped: their images are gone")
    return kept


def trainable(pairs: pa.Table) -> pa.Table:
    """The pairs neither of whose images is held out. Raises UserError when there are none."""
    ids = pc.unique(pa.chunked_array([*pairs["winner"].chunks, *pairs["loser"].chunks]))
    training = ids.filter(
        pa.array([part_of(str(image_id)) == "train" for image_id in ids.to_pylist()], pa.bool_())
    )
    winner, loser = (pc.is_in(pairs[side], training) for side in ("winner", "loser"))
    kept = pairs.filter(pc.and_(winner, loser))
    if not kept.num_rows:
        raise UserError(
            f"All {pairs.num_rows} preferences have an image that is held out (10 % of all images are, by "
            "their image_id): label more queries."
        )
    return kept


def _of_run(name: str) -> str:
    """SQL condition for the rows of a run. Every choice of a person has its own run_id."""
    return f"source = '{HUMAN}'" if name == FEEDBACK_RUN else f"run_id = {literal(name)}"


def _runs(pairs: pa.Table) -> set[str]:
    """The runs of the rows, by the names that `read_pairs` takes."""
    human = pc.equal(pairs["source"], pa.scalar(HUMAN))
    runs = set(strings(pairs["run_id"].filter(pc.invert(human))))
    return runs | {FEEDBACK_RUN} if pc.any(human).as_py() else runs


def _check_encoder(store: Store, where: str | None, parent: str) -> None:
    """Raise UserError when another encoder retrieved the images; people's choices have no ranking."""
    if not store.exists("rankings"):
        return
    rankings = store.read("rankings", ["run_id", "encoder"], where)
    for run_id, encoder in zip(*rankings.to_pydict().values(), strict=True):
        if encoder != parent:
            raise UserError(
                f"The preferences of run {run_id} were made with encoder {encoder}, but the parent is "
                f"{parent}: use --parent {encoder}, or label again with --encoder {parent}."
            )


def read_captions(store: Store, where: str | None = None) -> pa.Table:
    """Caption pairs (`image_id`, `caption`) of the images that `where` (SQL) keeps, sorted.

    An image's caption and its detailed caption make one pair each.
    """
    images = store.read("images", ["image_id", "caption", "detailed_caption"], where)
    names = ("caption", "detailed_caption")
    pairs = pa.concat_tables(
        images.select(["image_id", name]).rename_columns(["image_id", "caption"]) for name in names
    )
    pairs = pairs.filter(pc.greater(pc.utf8_length(pairs["caption"]), pa.scalar(0)))
    return pairs.sort_by([("image_id", "ascending"), ("caption", "ascending")])


def find_rows(table: Any, image_ids: pa.Array) -> np.ndarray:
    """Row offsets of the images in a Lance dataset, int64 [N], in the order of `image_ids`; -1 if missing."""
    present = table.to_table(columns=["image_id"])["image_id"]
    rows = pc.index_in(image_ids, present.combine_chunks())
    return np.nan_to_num(rows.to_numpy(zero_copy_only=False), nan=-1).astype(np.int64)


def read_vectors(store: Store, encoder: Encoder, image_ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The encoder's stored vectors of the images, float32 [N, dim], and which exist, bool [N].

    A vector is missing if its image was deleted, or could not be read when the others were embedded.
    Raises UserError when `kallos index` has not embedded an image that can be read.
    """
    name = embeddings_table(encoder.fingerprint)
    table = store.open(name).to_lance()
    rows = find_rows(table, image_ids)
    found = rows >= 0
    missing = [str(image_id) for image_id in image_ids.filter(pa.array(~found)).to_pylist()]
    if readable := first_readable(store, missing):
        raise UserError(
            f"{len(missing)} of {len(rows)} training images are missing from table {name} of {store.uri}, "
            f"such as {readable}: run `kallos index` on them."
        )
    vectors = np.zeros((len(rows), encoder.dim), np.float32)
    if found.any():
        stored = table.take(rows[found].tolist(), columns=["vector"])["vector"]
        vectors[found] = flat(stored).reshape(-1, encoder.dim)
    return vectors, found


def read_corpus(
    store: Store, pairs: pa.Table, captions: CaptionPairs, parent: Encoder, encode: EncodeTexts,
    settings: Align,
) -> Corpus:  # fmt: skip
    """Build the corpus of these weighted preferences and caption pairs, with the reference's scores.

    `encode` is the parent's text tower. A score is the cosine similarity of the query's vector and the
    image's stored vector, divided by tau. Pairs without a stored vector are left out. Raises UserError when
    that leaves none, and as `read_vectors` does.
    """
    queries = group_pairs(
        pairs,
        max_pairs_per_query=settings.max_pairs_per_query,
        evidence_cap=settings.evidence_cap,
        seed=settings.seed,
    )
    ids_of_pairs = _distinct_ids(pc.list_flatten(queries["winner"]), pc.list_flatten(queries["loser"]))
    image_ids = _distinct_ids(ids_of_pairs, captions.training["image_id"], captions.held_out["image_id"])
    vectors, found = read_vectors(store, parent, ids_of_pairs)
    query_vectors = encode(strings(queries["query"]))
    num_pairs = pc.list_value_length(queries["winner"]).to_numpy()
    of_query = pc.list_parent_indices(queries["winner"]).to_numpy()
    columns: dict[str, Any] = {name: queries[name] for name in ("query", "p_winner", "weight")}
    for side in ("winner", "loser"):
        ids = pc.list_flatten(queries[side])
        side_vectors = vectors[pc.index_in(ids, ids_of_pairs).to_numpy()]
        scores = np.einsum("pd,pd->p", query_vectors[of_query], side_vectors) / parent.temperature
        columns[side] = _lists(pc.index_in(ids, image_ids).to_numpy(), num_pairs)
        columns[f"{side}_reference"] = _lists(scores.astype(np.float32), num_pairs)
    training, held_out = (
        pa.table([pc.index_in(rows["image_id"], image_ids), rows["caption"]], ["image", "caption"])
        for rows in (captions.training, captions.held_out)
    )
    lost = pc.is_in(image_ids, value_set=ids_of_pairs.filter(pa.array(~found)))
    return without_images(Corpus(pa.table(columns), training, held_out, image_ids), lost.to_numpy(False))


def without_images(corpus: Corpus, lost: np.ndarray) -> Corpus:
    """The corpus without the pairs and captions of the images `lost`, bool [N] over `image_ids`.

    `image_ids` stays as it is. Says how many are skipped. Raises UserError when no pair is left, or when no
    caption is left of those to train on.
    """
    if not lost.any():
        return corpus
    queries = corpus.queries
    good = ~(lost[flat(queries["winner"])] | lost[flat(queries["loser"])])
    of_query = np.repeat(np.arange(queries.num_rows), pc.list_value_length(queries["winner"]).to_numpy())
    num_pairs = np.bincount(of_query[good], minlength=queries.num_rows)
    columns: dict[str, Any] = {"query": queries["query"]}
    for name in queries.column_names[1:]:
        columns[name] = _lists(flat(queries[name])[good], num_pairs)
    kept = pa.table(columns).filter(pa.array(num_pairs > 0))
    captions, guard = (
        rows.filter(pa.array(~lost[rows["image"].to_numpy()])) for rows in (corpus.captions, corpus.guard)
    )
    num_captions = corpus.captions.num_rows + corpus.guard.num_rows - captions.num_rows - guard.num_rows
    first = corpus.image_ids[int(lost.argmax())].as_py()
    skipped = (
        f"{int((~good).sum())} of {len(good)} preferences and {num_captions} captions are skipped: "
        f"{int(lost.sum())} images were deleted or cannot be read, such as {first}"
    )
    if not good.any() or (corpus.captions.num_rows and not captions.num_rows):
        raise UserError(f"Nothing is left to train on: {skipped}. Restore their files, or label others.")
    if num_captions or not good.all():
        terminal.say(f"align: {skipped}; `kallos delete --image-ids` removes unreadable ones")
    return Corpus(kept, captions, guard, corpus.image_ids)


def save_corpus(corpus: Corpus, folder: Path) -> Corpus:
    """Write the corpus into the folder, unless one is there already, and return it."""
    if folder.exists():
        return corpus
    images = pa.table({"image_id": corpus.image_ids})
    tables = (corpus.queries, corpus.captions, corpus.guard, images)
    draft = folder.with_name(folder.name + ".draft")  # renamed when complete
    draft.mkdir(parents=True, exist_ok=True)
    for name, table in zip(TABLES, tables, strict=True):
        parquet.write_table(table, draft / f"{name}.parquet")
    draft.rename(folder)
    return corpus


def saved_corpus(folder: Path) -> Corpus | None:
    """The corpus that `save_corpus` wrote into the folder, None if it does not exist."""
    if not folder.exists():
        return None
    queries, captions, guard, images = (parquet.read_table(folder / f"{name}.parquet") for name in TABLES)
    return Corpus(queries, captions, guard, images["image_id"].combine_chunks())


def _distinct_ids(*columns: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The distinct image ids of all columns, sorted."""
    distinct = np.unique(np.concatenate([column.to_numpy(zero_copy_only=False) for column in columns]))
    return pa.array(distinct, pa.string())


def _lists(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    offsets: Any = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values))
