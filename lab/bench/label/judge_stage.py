"""The rerank stage for `kallos bench label`: comparisons of two images, in both orders.

A row of the stage's input is a query with 25 images of a store made for the benchmark. For each row of five
images the stage compares every two by beauty, in both orders: 100 requests for a query. The stage also reads
and decodes the previews; bare vLLM gets decoded images.
"""

import io
import tempfile

import numpy as np
import pyarrow as pa
from PIL import Image

from actors.engine import Request
from actors.images import decode
from actors.judge import LETTERS, comparison_messages, shrink
from cluster.profile import LanguageModel
from cluster.tables import SCHEMAS, Store, now
from jobs.label.pairs import Grid
from jobs.label.rerank import RankingRule, Rerank, row_pairs
from lab.bench.label.measured_stage import MeasuredStage
from lab.pretrain.rephraser.training_chats import draw_query
from lab.studio.draw import render
from lab.studio.latents import sample_latents

GRID = Grid(rows=5, columns=5, stride=1)
REQUESTS_PER_ROW = 2 * len(row_pairs(GRID.num_images, GRID.columns))
NUM_IMAGES = 400
ROWS_PER_CALL = 4


def judge_stage(model: LanguageModel) -> MeasuredStage:
    """The rerank stage with source `lmm_pair`, over a new store of studio scenes."""
    folder = tempfile.mkdtemp(prefix="kallos-bench-")
    store = Store(folder)
    previews = draw_previews(store)
    rule = RankingRule(source="lmm_pair", semantic="encoder", grid=GRID)

    def make_rows(seed: int, num_requests: int) -> pa.Table:
        return draw_rows(np.random.default_rng([seed, 11]), -(-num_requests // REQUESTS_PER_ROW))

    def requests_of(rows: pa.Table) -> list[Request]:
        images = {i: shrink(decode(data), model.image_px) for i, data in previews.items()}
        return [request for row in rows.to_pylist() for request in comparisons(row, images)]

    arguments = {"store": store, "rule": rule, "judge": model}
    return MeasuredStage(model, Rerank, arguments, make_rows, requests_of, ROWS_PER_CALL, "pyarrow", folder)


def comparisons(row: dict, images: dict[str, Image.Image]) -> list[Request]:
    """The requests that the stage sends to its engine for one row."""
    requests = []
    for a, b in row_pairs(GRID.num_images, GRID.columns):
        shown = (images[row["image_ids"][a]], images[row["image_ids"][b]])
        messages = comparison_messages("aesthetics", row["query"])
        requests += [Request(messages, pair, choices=LETTERS) for pair in (shown, shown[::-1])]
    return requests


def draw_rows(rng: np.random.Generator, num_rows: int) -> pa.Table:
    """Queries with retrieved images, as the retrieval stage would return them."""
    scores = np.linspace(0.9, 0.5, GRID.num_images).tolist()
    rows = []
    for _ in range(num_rows):
        query = draw_query(rng).text
        found = [f"{i:064x}" for i in rng.choice(NUM_IMAGES, GRID.num_images, replace=False)]
        columns = {"query": query, "rephrased": query, "style": "original", "rephrase_error": ""}
        rows.append({**columns, "image_ids": found, "retrieval_scores": scores})
    return pa.Table.from_pylist(rows)


def draw_previews(store: Store) -> dict[str, bytes]:
    """Fill the table `images` with studio scenes; returns image_id -> JPEG preview."""
    rng = np.random.default_rng(0)
    previews = {}
    for index in range(NUM_IMAGES):
        file = io.BytesIO()
        Image.fromarray(render(sample_latents(rng))).save(file, "JPEG", quality=90)
        previews[f"{index:064x}"] = file.getvalue()
    blank = dict.fromkeys(SCHEMAS["images"].names, "")
    rest = {"tags": [], "width_px": 160, "height_px": 160, "added_at": now()}
    rows = [blank | rest | {"image_id": i, "preview": data} for i, data in previews.items()]
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    return previews
