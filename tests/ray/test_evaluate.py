"""An evaluation of a tiny world: Ray Data, vLLM with a random judge, LanceDB, two random encoders."""

import dataclasses
import hashlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from tiny_encoder import write_tiny_encoder

from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import PROFILES
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now
from jobs.evaluate import hpir
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.figures import metrics
from jobs.evaluate.job import run
from lab.redraw.config import RedrawConfig
from lab.redraw.job import run as redraw
from lab.studio.captions import detailed_caption, plain_caption
from lab.studio.draw import render
from lab.studio.latents import is_accurate, sample_latents, true_aesthetics
from lab.studio.truth import label_table, truth_table

NUM_IMAGES, NUM_OUTSIDE = 48, 8
QUERIES = ["a sailboat", "teapot", "red guitar", "a lighthouse at sunset"]


@dataclasses.dataclass(frozen=True)
class World:
    """A studio folder, its store with two encoders, and their vectors."""

    folder: str
    profile: str
    store: Store
    ids: list[str]
    scenes: dict
    vectors: dict  # alias -> float32 [N, D]
    encoders: dict  # alias -> Encoder


@pytest.fixture(scope="module")
def world(ray_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    rows, scenes, arrays = draw_world(folder / "studio")
    store = Store(str(folder / "store"))
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    encoders, vectors = {}, {}
    for seed, alias in enumerate(("baseline", "candidate")):
        path = write_tiny_encoder(folder / f"encoder-{seed}", seed=seed)
        encoders[alias] = Encoder.load(path)
        vectors[alias] = embed(store, encoders[alias], path, rows, arrays)
        store.set_alias(alias, encoders[alias].fingerprint)
    profile = write_profile(folder, str(folder / "store"))
    return World(
        str(folder / "studio"), profile, store, [r["image_id"] for r in rows], scenes, vectors, encoders
    )


def draw_world(folder):
    """Images with their truth, held-out queries, HPIR rows and a pair table with files beside it."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, scenes, arrays = [], {}, []
    for number in range(NUM_IMAGES):
        scene, buffer = sample_latents(rng), BytesIO()
        array = render(scene, 96)
        Image.fromarray(array).save(buffer, "JPEG")
        data = buffer.getvalue()
        (folder / "images" / f"{number}.jpg").write_bytes(data)
        image_id = hashlib.sha256(data).hexdigest()
        scenes[image_id] = scene
        arrays.append(array)
        rows.append(image_row(image_id, number, scene, data, rng))
    write_inputs(folder, [row["image_id"] for row in rows], scenes)
    return rows, scenes, arrays


def image_row(image_id, number, scene, data, rng):
    inside = number < NUM_IMAGES - NUM_OUTSIDE
    return {
        "image_id": image_id,
        "uri": f"elsewhere/{number}.jpg",
        "caption": plain_caption(scene, rng),
        "detailed_caption": detailed_caption(scene),
        "width_px": 96,
        "height_px": 96,
        "preview": data,
        "tags": ["split:gallery" if inside else "split:heldout"],
        "source": "test",
        "added_at": now(),
    }


def write_inputs(folder, ids, scenes):
    pq.write_table(truth_table(QUERIES, scenes), folder / "truth.parquet")
    pq.write_table(label_table(scenes), folder / "labels.parquet")
    pq.write_table(pa.table({"query": QUERIES}), folder / "queries_heldout.parquet")
    votes = {"votes_accuracy_a": 4, "votes_accuracy_b": 3, "votes_aesthetic_a": 1, "votes_aesthetic_b": 6}
    rows = [
        {"query": query, "group_a": ids[i : i + 3], "group_b": ids[i + 3 : i + 6], **votes}
        for i, query in enumerate(QUERIES)
    ]
    lost = {"query": "lost", "group_a": ["unknown"], "group_b": ids[:1], **votes}
    pq.write_table(pa.Table.from_pylist([*rows, lost]), folder / "hpir.parquet")
    pairs = [f"teapot,images/{i}.jpg,images/{i + 1}.jpg,{i},3,1" for i in range(6)]
    (folder / "pairs.csv").write_text("\n".join(["query,file_a,file_b,n_prefer_a,n_prefer_b,n_tie", *pairs]))


def embed(store, encoder, path, rows, arrays):
    pixels = np.stack([encoder.pixels(Image.fromarray(array)) for array in arrays])
    vectors = encoder.encode_images(pixels)
    schema = embeddings_schema(encoder.dim)
    pairs = zip(rows, vectors, strict=True)
    table = [{**row, "vector": vector, "aesthetic": 0.5} for row, vector in pairs]
    table = [{name: row[name] for name in schema.names} for row in table]
    store.merge(embeddings_table(encoder.fingerprint), pa.Table.from_pylist(table, schema), on=["image_id"])
    store.register_encoder(EncoderRecord(encoder=encoder.fingerprint, checkpoint=path, dim=encoder.dim))
    return vectors


def write_profile(folder, store):
    """The mini profile with a random judge, and `repeat`, which rephrases without a language model."""
    from lab.pretrain.judge import model as judge_model

    tokenizer = judge_model.train_tokenizer([*QUERIES, "1 2 3 4 5 A B"], 400)
    config = judge_model.make_config(tokenizer, vision_width=64, vision_depth=1, text_width=64, text_depth=1)
    judge_model.save(
        judge_model.make_model(config, 0), judge_model.make_processor(tokenizer), folder / "judge"
    )
    profile = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    profile["judge"] |= {"model": str(folder / "judge")}
    profile["judge"]["stage"]["batch_size"] = 64
    profile["label"] |= {"style": "repeat", "semantic": "judge"}
    profile["store"] = store
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(profile))
    return str(path)


def config_of(world, out, **changes):
    chosen = {
        "profile": world.profile,
        "where": "array_contains(tags, 'split:gallery')",
        "num_resamples": 200,
        "num_teacher_captions": 3,
        "teacher_top_k": 8,
        "queries": f"{world.folder}/queries_heldout.parquet",
        "out": str(out),
    }
    return EvaluateConfig(**(chosen | changes))


@pytest.fixture(scope="module")
def evaluated(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    tables = {"hpir": (f"{world.folder}/hpir.parquet",), "pairs": (f"{world.folder}/pairs.csv",)}
    protocols = ("ranker", "scorer", "cp_scorer", "sheet")
    truth = {"truth": f"{world.folder}/truth.parquet", "labels": f"{world.folder}/labels.parquet"}
    return run(config_of(world, out, protocols=protocols, **truth, **tables)), out


def top_rows(world, alias, k):
    """The k best images of each query, from the full similarity matrix."""
    inside = NUM_IMAGES - NUM_OUTSIDE
    scores = world.encoders[alias].encode_texts(QUERIES) @ world.vectors[alias][:inside].T
    return [[world.ids[i] for i in np.argsort(-row, kind="stable")[:k]] for row in scores]


@pytest.mark.parametrize("system, alias", [("baseline", "baseline"), ("aligned", "candidate")])
def test_precision_and_aesthetics_equal_a_full_matrix_oracle(world, evaluated, system, alias):
    found = evaluated[0]["systems"][system]
    rows = top_rows(world, alias, 5)
    marks = [
        [(is_accurate(q, world.scenes[i]), true_aesthetics(world.scenes[i])) for i in ids]
        for q, ids in zip(QUERIES, rows, strict=True)
    ]
    assert found["precision@5"]["value"] == pytest.approx(
        np.mean([[a for a, _ in row] for row in marks]), abs=1e-6
    )
    assert found["aesthetic@5"]["value"] == pytest.approx(
        np.mean([[a * b for a, b in r] for r in marks]), abs=1e-6
    )


@pytest.mark.parametrize("system, alias", [("baseline", "baseline"), ("aligned", "candidate")])
def test_caption_recall_equals_a_full_matrix_oracle(world, evaluated, system, alias):
    inside = world.ids[: NUM_IMAGES - NUM_OUTSIDE]
    captions = {i: detailed_caption(world.scenes[i]) for i in inside}
    texts = sorted(set(captions.values()))
    scores = world.encoders[alias].encode_texts(texts) @ world.vectors[alias][: len(inside)].T
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 5, 10):
        hits = [any(captions[inside[i]] == t for i in row[:k]) for t, row in zip(texts, order, strict=True)]
        found = evaluated[0]["systems"][system]
        assert found[f"recall@{k}"]["value"] == pytest.approx(np.mean(hits), abs=1e-6)
        nearest = np.argsort(-scores.T, axis=1, kind="stable")[:, :k]
        own = [captions[i] in [texts[n] for n in row] for i, row in zip(inside, nearest, strict=True)]
        assert found[f"image_recall@{k}"]["value"] == pytest.approx(np.mean(own), abs=1e-6)


@pytest.mark.parametrize("system, alias", [("baseline", "baseline"), ("aligned", "candidate")])
def test_zero_shot_and_diversity_equal_a_full_matrix_oracle(world, evaluated, system, alias):
    inside = world.ids[: NUM_IMAGES - NUM_OUTSIDE]
    subjects = sorted({scene.subject for scene in world.scenes.values()})
    texts = world.encoders[alias].encode_texts([f"a {subject}" for subject in subjects])
    nearest = (world.vectors[alias][: len(inside)] @ texts.T).argmax(axis=1)
    right = [subjects[n] == world.scenes[i].subject for n, i in zip(nearest, inside, strict=True)]
    found = evaluated[0]["systems"][system]
    assert found["zero_shot"]["value"] == pytest.approx(np.mean(right), abs=1e-6)
    index = {image_id: n for n, image_id in enumerate(world.ids)}
    seen = [[world.vectors["baseline"][index[i]] for i in ids] for ids in top_rows(world, alias, 10)]
    diversity = np.mean([metrics.vendi_score(np.array(vectors)) for vectors in seen])
    assert found["vendi@10"]["value"] == pytest.approx(diversity, abs=1e-5)


def test_agreement_with_votes_follows_the_similarities(world, evaluated):
    path = f"{world.folder}/hpir.parquet"
    rows = hpir.read_hpir(path)[: len(QUERIES)]
    texts = world.encoders["candidate"].encode_texts(QUERIES)
    index = {image_id: n for n, image_id in enumerate(world.ids)}
    chose_a = [
        np.mean([text @ world.vectors["candidate"][index[i]] for i in row.group_a])
        > np.mean([text @ world.vectors["candidate"][index[i]] for i in row.group_b])
        for row, text in zip(rows, texts, strict=True)
    ]
    found = evaluated[0]["hpir"][path]
    assert found["aligned"]["accuracy"]["value"] == pytest.approx(np.mean(chose_a), abs=1e-6)
    assert found["aligned"]["aesthetic"]["value"] == pytest.approx(1 - np.mean(chose_a), abs=1e-6)
    assert (found["num_rows"], found["num_left_out"]) == (4, 1)
    pairs = evaluated[0]["pairs"][f"{world.folder}/pairs.csv"]
    assert (pairs["num_rows"], pairs["num_left_out"]) == (6, 0)
    assert "accuracy" not in pairs["teacher"]


def test_judge_answers_each_question_once(world, evaluated):
    report, _ = evaluated
    judges = report["judges"]
    assert judges["num_unanswered"] == 0 and judges["scoring"] == judges["teacher"]
    assert judges["labelled"] == [] and judges["warning"] is None
    # Accuracy and beauty of 4 queries x 8 candidates and 3 captions x 8, plus 36 voted images and 20 results
    # of each system. Then 20 pairs of results, and the voted pairs: 4 rows of 3 by 2 criteria, and 6 of 1.
    # Of sheets, 3 for each query, and one for each voted row and criterion.
    num_rated = 56 + 36 + 20 * len(report["systems"])
    assert 2 * 56 <= judges["num_questions"] <= 2 * num_rated + 20 + 2 * 20 + 2 * (24 + 6) + 3 * 4 + 14
    rate = report["win_rate"]["aligned_vs_baseline"]
    assert rate["wins"] + rate["ties"] + rate["losses"] == len(QUERIES)
    assert rate["ci95"][0] <= rate["value"] <= rate["ci95"][1]
    assert 0 <= rate["order_consistency"] <= 1


def test_report_is_one_page_beside_its_json(evaluated):
    report, out = evaluated
    page = (out / "report.html").read_text()
    assert page.count("<article>") >= len(QUERIES)
    assert page.count("data:image/jpeg;base64,") >= 3 * 5 * len(QUERIES)
    written = json.loads((out / "report.json").read_text())
    assert written["systems"] == report["systems"]
    assert set(written["systems"]) == {"baseline", "rephrase", "teacher", "aligned"}
    assert all(figure["ci95"] for figure in written["systems"]["aligned"].values())
    assert (out / "resolved_config.yaml").is_file()


def test_judge_table_has_every_protocol_with_and_without_order_consistency(evaluated):
    rows = evaluated[0]["judge_table"]
    protocols = ["ranker", "scorer", "cp_scorer", "sheet"]
    protocols += ["sheet, accuracy", "sheet, aesthetics", "sheet, diversity"]
    assert [row["protocol"] for row in rows] == [name for name in protocols for _ in (True, False)]
    assert all(0 <= row["decided"]["value"] <= 1 for row in rows)
    # People voted on accuracy and aesthetics, not on diversity.
    assert all(0 <= figure["value"] <= 1 for row in rows for figure in row["people"].values())
    assert [len(row["people"]) for row in rows[::2]] == [2, 2, 2, 2, 1, 1, 0]
    # Images rated alone have no order of presentation.
    alone = [row for row in rows if row["protocol"] == "scorer"]
    assert alone[0]["win_rate"] == alone[1]["win_rate"]


def test_redraw_gives_the_same_page(world, evaluated):
    _, out = evaluated
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    redraw(RedrawConfig(folder=str(out)))
    assert (out / "report.html").read_bytes() == page


def test_encoder_against_itself_has_no_difference_and_needs_no_judge(world, tmp_path):
    same = run(config_of(world, tmp_path, aligned="baseline", teacher=False, win_rate=False))
    assert set(same["systems"]) == {"baseline", "aligned"}
    changes = same["differences"]["aligned_minus_baseline"].values()
    assert [change["ci95"] for change in changes] == [[0, 0]] * 7
    assert same["systems"]["aligned"]["aesthetic@5"]["value"] is None
    assert "<article>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"aligned": "absent"}, "no encoder 'absent'"),
        ({"where": "caption = 'absent'"}, "has no images"),
        ({"truth": "absent.parquet"}, "'absent.parquet' does not exist"),
    ],
)
def test_mistakes_are_refused_before_any_work(world, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(config_of(world, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_missing_judge_is_named(world, tmp_path):
    profile = yaml.safe_load(Path(world.profile).read_text())
    profile["judge"]["model"] = "models/mini/absent"
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(profile))
    with pytest.raises(UserError, match="models/mini/absent"):
        run(config_of(world, tmp_path / "out", profile=str(tmp_path / "profile.yaml"), teacher=False))
