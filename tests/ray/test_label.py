"""The whole label job on a tiny store: Ray Data, vLLM with a random judge, LanceDB, a random encoder."""

import io

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from actors.encoder import Encoder
from cluster.errors import UserError
from cluster.profile import PROFILES
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now
from jobs.label.config import LabelConfig
from jobs.label.job import run
from lab.pretrain.judge import model as judge_model

QUERIES = ["a red boat", "two cats", "castle at night", "blue car", "snow", "a dog on the beach"]
NUM_IMAGES = 40
# Two rows of three, every second of the best twelve: 3 * 6 - 6 pairs a query.
SHAPE = {"top_k": 12, "rows": 2, "columns": 3, "stride": 2}
PAIRS_PER_QUERY = 12


@pytest.fixture(scope="module")
def world(ray_cluster, tiny_encoder_folder, tmp_path_factory) -> LabelConfig:
    """A store of coloured noise, embedded by the tiny encoder, and a profile with a random judge."""
    folder = tmp_path_factory.mktemp("label")
    store = Store(str(folder / "store"))
    fill(store, tiny_encoder_folder)
    queries = folder / "queries.txt"
    queries.write_text("\n".join(QUERIES), encoding="utf-8")
    return LabelConfig(
        profile=write_profile(folder, store),
        queries=str(queries),
        style="repeat",
        semantic="judge",
        queries_per_call=2,
        **SHAPE,
    )


def fill(store: Store, encoder_folder: str) -> None:
    encoder, rng = Encoder.load(encoder_folder), np.random.default_rng(0)
    rows, pixels = [], []
    for number in range(NUM_IMAGES):
        noise = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((120, 120), Image.Resampling.NEAREST)
        file = io.BytesIO()
        image.save(file, "JPEG")
        pixels.append(encoder.pixels(image))
        about = {
            "image_id": f"{number:064x}",
            "uri": "",
            "caption": QUERIES[number % 3],
            "tags": ["split:train"],
        }
        sizes = {
            "width_px": 120,
            "height_px": 120,
            "detailed_caption": "",
            "source": "noise",
            "added_at": now(),
        }
        rows.append({**about, **sizes, "preview": file.getvalue()})
    store.merge("images", pa.Table.from_pylist(rows, SCHEMAS["images"]), on=["image_id"])
    vectors = encoder.encode_images(np.stack(pixels))
    schema = embeddings_schema(encoder.dim)
    pairs = zip(rows, vectors, strict=True)
    seen = [{**row, "vector": vector, "aesthetic": 0.5} for row, vector in pairs]
    table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in seen], schema)
    store.merge(embeddings_table(encoder.fingerprint), table, on=["image_id"])
    record = EncoderRecord(encoder=encoder.fingerprint, checkpoint=encoder_folder, dim=encoder.dim)
    store.register_encoder(record)
    store.set_alias("baseline", encoder.fingerprint)


def write_profile(folder, store: Store) -> str:
    tokenizer = judge_model.train_tokenizer([*QUERIES, "1 2 3 4 5 A B"], 400)
    config = judge_model.make_config(tokenizer, vision_width=64, vision_depth=1, text_width=64, text_depth=1)
    model = judge_model.make_model(config, 0)
    judge_model.save(model, judge_model.make_processor(tokenizer), folder / "judge")
    profile = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    profile["judge"]["model"] = str(folder / "judge")
    profile["store"] = store.uri
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return str(path)


def store_of(config: LabelConfig) -> Store:
    return Store(yaml.safe_load(open(config.profile, encoding="utf-8"))["store"])


def preferences_of(config: LabelConfig, run_id: str) -> list[dict]:
    return store_of(config).read("preferences", where=f"run_id = '{run_id}'").to_pylist()


@pytest.fixture(scope="module")
def first(world) -> dict:
    """The report of a run over the first three queries."""
    return run(world.model_copy(update={"num_queries": 3}))


@pytest.fixture(scope="module")
def resumed(world, first) -> dict:
    """The same over all six queries, as if killed between the preferences and the ranking of the second."""
    store = store_of(world)
    store.open("rankings").delete(f"run_id = '{first['run_id']}' AND query = '{QUERIES[1]}'")
    return run(world)


def test_first_run_counts_its_queries_and_preferences(first):
    assert first["num_queries"] == first["num_queries_labelled"] == 3
    assert first["num_preferences"] == first["num_new_preferences"] == 3 * PAIRS_PER_QUERY
    assert first["num_errors"] == first["num_failed_answers"] == 0
    # Twelve pairs are too few to calibrate on.
    assert (first["calibration"]["source"], first["calibration"]["num_pairs"]) == ("none", 12)


def test_resumed_run_ends_as_if_never_killed(world, first, resumed):
    assert resumed["run_id"] == first["run_id"]
    assert resumed["num_queries_before"] == 2 and resumed["num_queries_labelled"] == 4
    stored = preferences_of(world, first["run_id"])
    assert len(stored) == len(QUERIES) * PAIRS_PER_QUERY
    assert len({(row["query"], row["winner"], row["loser"]) for row in stored}) == len(stored)
    rankings = store_of(world).read("rankings", where=f"run_id = '{first['run_id']}'").to_pylist()
    assert sorted(row["query"] for row in rankings) == sorted(QUERIES)


def test_repeated_command_adds_nothing(world, resumed):
    again = run(world)
    assert again["num_queries_before"] == len(QUERIES) and again["num_new_preferences"] == 0
    assert again["num_preferences"] == resumed["num_preferences"] == len(QUERIES) * PAIRS_PER_QUERY
    assert len(preferences_of(world, resumed["run_id"])) == len(QUERIES) * PAIRS_PER_QUERY


def test_preferences_agree_with_the_rankings(world, resumed):
    """Winners have no lower rating inside a row, and no lower accuracy in another row."""
    rankings = store_of(world).read("rankings", where=f"run_id = '{resumed['run_id']}'").to_pylist()
    beauty = {r["query"]: dict(zip(r["image_ids"], r["aesthetic_scores"], strict=True)) for r in rankings}
    accuracy = {r["query"]: dict(zip(r["image_ids"], r["semantic_scores"], strict=True)) for r in rankings}
    for row in preferences_of(world, resumed["run_id"]):
        winner, loser = row["winner"], row["loser"]
        (i, j), (k, m) = row["winner_cell"], row["loser_cell"]
        assert i <= k and j <= m and (i, j) != (k, m)
        assert 0.5 <= row["p_winner"] <= 1.0 and row["consistent"]
        assert all(1.0 <= beauty[row["query"]][image] <= 5.0 for image in (winner, loser))
        if i == k:
            assert beauty[row["query"]][winner] >= beauty[row["query"]][loser]
        else:
            assert accuracy[row["query"]][winner] >= accuracy[row["query"]][loser]
        assert row["judge"].startswith("judge@") and row["rephrased"].startswith(row["query"])


def test_judge_compares_pairs_of_images(world):
    report = run(world.model_copy(update={"source": "lmm_pair", "semantic": "encoder", "num_queries": 2}))
    stored = preferences_of(world, report["run_id"])
    assert len(stored) == 2 * PAIRS_PER_QUERY == report["num_preferences"]
    assert report["num_inconsistent"] == sum(not row["consistent"] for row in stored)
    assert {row["source"] for row in stored} == {"lmm_pair"}


def test_run_is_calibrated_again_when_votes_come(world, resumed, tmp_path):
    lines = [f"{query},{number:064x},{number + 7:064x},1,2" for query in QUERIES[:2] for number in range(20)]
    table = tmp_path / "votes.csv"
    table.write_text("query,file_a,file_b,n_prefer_a,n_prefer_b\n" + "\n".join(lines), encoding="utf-8")
    report = run(world.model_copy(update={"votes": str(table)}))
    assert report["run_id"] == resumed["run_id"] and report["num_new_preferences"] == 0
    found = report["calibration"]
    assert (found["source"], found["num_pairs"]) == ("votes", 40) and 0 <= found["ece"] <= 1
    assert sum(bin["num_pairs"] for bin in found["bins"]) == 40
    assert store_of(world).count("voted_pairs") == 40


def test_explain_draws_one_query_and_leaves_the_store_as_it_is(world, first, tmp_path):
    tables = {name: store_of(world).open(name).version for name in store_of(world).names()}
    page = tmp_path / "page.html"
    report = run(world.model_copy(update={"queries": None, "explain": "a red  boat", "out": str(page)}))
    assert report["query"] == "a red boat" and report["num_pairs"] == PAIRS_PER_QUERY
    assert (report["num_retrieved"], report["num_images"]) == (SHAPE["top_k"], 6)
    html = page.read_text(encoding="utf-8")
    assert html.count("background-image:url(data:image/jpeg") == SHAPE["top_k"]
    assert html.count("p_winner is not calibrated") == 1 and "://" not in html
    assert {name: store_of(world).open(name).version for name in store_of(world).names()} == tables


def test_scorer_fitted_on_ratings_replaces_the_judge(world, tmp_path):
    ratings = tmp_path / "ratings.csv"
    lines = [f"{number:064x},{number % 7}" for number in range(NUM_IMAGES)]
    ratings.write_text("image_id,rating\n" + "\n".join(lines), encoding="utf-8")
    options = {"source": "scorer", "semantic": None, "scorer": "head", "ratings": str(ratings)}
    report = run(world.model_copy(update={**options, "num_queries": 2}))
    assert report["num_preferences"] == 2 * PAIRS_PER_QUERY
    assert {row["judge"] for row in preferences_of(world, report["run_id"])} == {"scorer:head"}


def test_scorer_and_judge_rank_the_images_of_drawn_queries(world):
    """The scorer rates aesthetics, the judge accuracy, and each preference names both."""
    drawn = {"queries": "", "source": "scorer", "where": "source = 'noise'", "num_queries": 2}
    report = run(world.model_copy(update=drawn))
    stored = preferences_of(world, report["run_id"])
    queries = {row["query"] for row in stored}
    assert len(queries) == 2 and queries <= set(QUERIES[:3])
    assert all(row["judge"].startswith("scorer:prompts+judge@") for row in stored)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": "nobody"}, "no encoder 'nobody'"),
        ({"where": "source = 'elsewhere'"}, "embedded 0 images"),
        ({"top_k": 4}, "top_k 4 is too small"),
        ({"source": "scorer", "scorer": "head"}, "fitted on ratings"),
        ({"queries": "absent.txt"}, "does not exist"),
        ({"votes": "absent.csv"}, "does not exist"),
        ({"explain": "a boat"}, "--queries has no use"),
        ({"explain": " ", "queries": None}, "no query"),
        ({"explain": "a boat", "queries": None, "out": "page.txt"}, "ends in .html"),
    ],
)
def test_mistakes_are_refused_before_any_work(world, change, words):
    with pytest.raises(UserError, match=words):
        run(world.model_copy(update=change))
