"""The rerank stage as a side of `kallos bench label`: two pictures a question, in both orders.

Input of the stage: a query with 25 images of a store made for the purpose. What it asks: which of every two
images in a row of five is more beautiful, both orders, 100 questions a query. Reading the previews and
decoding them is part of the stage, and no part of the other side's time.
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
from lab.bench.label.side import Side
from lab.pretrain.rephraser.training_chats import draw_query
from lab.studio.draw import render
from lab.studio.latents import sample_latents

GRID = Grid(rows=5, columns=5, stride=1)
REQUESTS_PER_ROW = 2 * len(row_pairs(GRID.num_images, GRID.columns))
NUM_IMAGES = 400
ROWS_PER_CALL = 4


def judge_side(model: LanguageModel) -> Side:
    """The rerank stage with source `lmm_pair`, over a store of studio scenes that it draws."""
    folder = tempfile.mkdtemp(prefix="kallos-bench-")
    store = Store(folder)
    previews = draw_previews(store)
    rule = RankingRule(source="lmm_pair", semantic="encoder", grid=GRID)

    def rows(seed: int, num_requests: int) -> pa.Table:
        return draw_rows(np.random.default_rng([seed, 11]), -(-num_requests // REQUESTS_PER_ROW))

    def requests(table: pa.Table) -> list[Request]:
        images = {i: shrink(decode(data), model.image_px) for i, data in previews.items()}
        return [request for row in table.to_pylist() for request in questions(row, images)]

    arguments = {"store": store, "rule": rule, "judge": model}
    return Side(model, Rerank, arguments, rows, requests, ROWS_PER_CALL, "pyarrow", folder)


def questions(row: dict, images: dict[str, Image.Image]) -> list[Request]:
    """What the stage asks its engine for one row."""
    asked = []
    for a, b in row_pairs(GRID.num_images, GRID.columns):
        shown = (images[row["image_ids"][a]], images[row["image_ids"][b]])
        messages = comparison_messages("aesthetics", row["query"])
        asked += [Request(messages, pair, choices=LETTERS) for pair in (shown, shown[::-1])]
    return asked


def draw_rows(rng: np.random.Generator, num_rows: int) -> pa.Table:
    """Queries with images that a retrieval could have found."""
    scores = np.linspace(0.9, 0.5, GRID.num_images).tolist()
    rows = []
    for _ in range(num_rows):
        query = draw_query(rng).text
        found = [f"{i:064x}" for i in rng.choice(NUM_IMAGES, GRID.num_images, replace=False)]
        about = {"query": query, "rephrased": query, "style": "original", "rephrase_error": ""}
        rows.append({**about, "image_ids": found, "retrieval_scores": scores})
    return pa.Table.from_pylist(rows)


def draw_previews(store: Store) -> dict[str, bytes]:
    """Fill the store's `images` with studio scenes; image_id -> JPEG."""
    rng = np.random.default_rng(0)
    previews = {}
    for number in range(NUM_IMAGES):
        file = io.BytesIO()
        Image.fromarray(render(sample_latents(rng))).save(file, "JPEG", quality=90)
        previews[f"{number:064x}"] = file.getvalue()
    blank = dict.fromkeys(SCHEMAS["images"].names, "")
    rest = {"tags": [], "width_px": 160, "height_px": 160, "added_at": now()}
    rows = [blank | rest | {"image_id": i, "preview": data} for i, data in previews.items()]
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    return previews
