"""Fits the nulls of an alignment to its own preferences and captions: see `actors.nulls`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.encoder import Encoder
from actors.nulls.axis import fit_axis
from actors.nulls.evidence import Evidence
from actors.nulls.suffix import candidates, fit_suffix
from cluster import session, terminal
from cluster.profile import Align, Profile
from cluster.tables import EncoderRecord, Store, embeddings_table
from jobs.align.batches import Corpus, flat, strings
from jobs.align.prepare import query_encoder

# At most these are used, so that a large corpus fits into memory and the search takes seconds.
NUM_QUERIES, NUM_CAPTIONS = 1000, 256


def fitted_nulls(
    profile: Profile, settings: Align, store: Store, corpus: Corpus, parent: Encoder, record: EncoderRecord,
    folder: Path,
) -> dict | None:  # fmt: skip
    """{"suffix": what to append to a query, "axis": [D floats], "strength": how far a query moves along it}.

    They depend on the parent, the preferences and the captions alone, so alignments with the same ones share
    a file in `folder`. None if no labelled image has a stored vector any more.
    """
    pairs, captions = pairs_of(corpus, settings.seed), captions_of(corpus, settings.seed)
    path = folder / f"{_name(parent, settings, pairs, captions)}.json"
    if not path.exists():
        evidence = evidence_of(store, pairs, captions, parent, settings.pretrain_weight)
        if evidence is None:
            terminal.say("align: no suffix and no axis: the labelled images have no stored vectors any more")
            return None
        phrases = candidates(_rephrasings(store, set(evidence.queries)))
        if settings.use_gpu:
            session.connect(profile)  # texts are then encoded in a task
        encode = query_encoder(parent, record, settings)
        axis = fit_axis(evidence, encode(evidence.texts))
        suffix = fit_suffix(evidence, encode, phrases, settings.seed)
        found = {"suffix": suffix, "axis": axis.direction.tolist(), "strength": axis.strength}
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")  # renamed when complete
        draft.write_text(json.dumps(found), encoding="utf-8")
        draft.rename(path)
    return json.loads(path.read_text(encoding="utf-8"))


def pairs_of(corpus: Corpus, seed: int) -> pa.Table:
    """Rows of `query`, `winner`, `loser` (image_ids), `p_winner` and `weight`, grouped by query.

    If the corpus has more than `NUM_QUERIES` queries, a seeded sample of them.
    """
    order = np.random.default_rng(seed).permutation(corpus.queries.num_rows)[:NUM_QUERIES]
    queries = corpus.queries.take(np.sort(order))
    columns: dict[str, Any] = {"query": queries["query"].take(pc.list_parent_indices(queries["winner"]))}
    columns |= {side: corpus.image_ids.take(pc.list_flatten(queries[side])) for side in ("winner", "loser")}
    columns |= {name: pa.array(flat(queries[name])) for name in ("p_winner", "weight")}
    return pa.table(columns)


def captions_of(corpus: Corpus, seed: int) -> pa.Table:
    """Rows of `image_id` and `caption`: a seeded sample of the training captions, no image or text twice."""
    order = np.random.default_rng(seed).permutation(corpus.captions.num_rows)
    drawn = corpus.captions.take(order[: 4 * NUM_CAPTIONS])
    image_ids, texts = corpus.image_ids.take(drawn["image"]).to_pylist(), strings(drawn["caption"])
    by_text = dict(zip(texts, image_ids, strict=True))
    chosen = {image_id: text for text, image_id in by_text.items()}
    rows = list(chosen.items())[:NUM_CAPTIONS]
    return pa.table({"image_id": [i for i, _ in rows], "caption": [text for _, text in rows]})


def evidence_of(
    store: Store, pairs: pa.Table, captions: pa.Table, parent: Encoder, caption_weight: float
) -> Evidence | None:
    """The evidence with the parent's stored vectors, without images that have none; None without pairs."""
    ids = {*strings(pairs["winner"]), *strings(pairs["loser"]), *strings(captions["image_id"])}
    rows = store.rows_of(embeddings_table(parent.fingerprint), ["image_id", "vector"], ids)
    vectors = {row["image_id"]: np.asarray(row["vector"], np.float32) for row in rows}
    stored = pa.array(vectors, pa.string())
    pairs = pairs.filter(pc.and_(*(pc.is_in(pairs[side], stored) for side in ("winner", "loser"))))
    if not pairs.num_rows:
        return None
    known = [row for row in captions.to_pylist() if row["image_id"] in vectors]
    encoded = pairs["query"].combine_chunks().dictionary_encode()
    winner, loser = (
        np.stack([vectors[image_id] for image_id in pairs[side].to_pylist()]) for side in ("winner", "loser")
    )
    return Evidence(
        queries=[str(query) for query in encoded.dictionary.to_pylist()],
        starts=np.concatenate([[0], np.cumsum(np.bincount(encoded.indices.to_numpy()))]),
        differences=winner - loser,
        p_winner=pairs["p_winner"].to_numpy(),
        weight=pairs["weight"].to_numpy(),
        captions=[row["caption"] for row in known],
        caption_images=np.array([vectors[row["image_id"]] for row in known]).reshape(-1, parent.dim),
        temperature=parent.temperature,
        caption_weight=caption_weight,
    )


def _rephrasings(store: Store, queries: set[str]) -> list[tuple[str, str]]:
    """(query, rephrased query) of those queries, from all runs of `kallos label`."""
    if not store.exists("rankings"):
        return []
    rows = store.read("rankings", ["query", "rephrased"]).to_pylist()
    return sorted((r["query"], r["rephrased"]) for r in rows if r["query"] in queries and r["rephrased"])


def _name(parent: Encoder, settings: Align, *tables: pa.Table) -> str:
    """Hash of everything that the nulls are fitted to; 16 hex characters."""
    digest = hashlib.sha256(f"{parent.fingerprint} {settings.pretrain_weight} {settings.seed}".encode())
    for table in tables:
        for column in table.columns:
            digest.update("\0".join(map(str, column.to_pylist())).encode())
    return digest.hexdigest()[:16]
