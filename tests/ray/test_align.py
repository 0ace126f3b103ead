"""Alignment with Ray Train, Ray Data and LanceDB on a tiny store in which brighter images are preferred."""

import functools
import json
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
import yaml
from PIL import Image

from actors.caption_pairs import part_of
from actors.encoder import Encoder
from actors.images import image_id
from cluster.errors import UserError
from cluster.profile import PROFILES
from cluster.tables import SCHEMAS, EncoderRecord, Store, embeddings_schema, embeddings_table, now
from jobs.align import job
from jobs.align.config import AlignConfig
from jobs.align.corpus import read_captions, read_vectors
from jobs.align.guard import ALPHAS, RECALLS, hold_out, recalls
from jobs.align.job import run
from jobs.align.train import train

pytestmark = pytest.mark.usefixtures("few_phrases")
NUM_IMAGES = 160  # a quarter of the captions outside the part "test" is little more than the smallest guard
QUERIES = ["a red sailboat", "two dogs", "a mountain lake", "a beach in the morning", "sunset"]
SETTINGS = dict(
    mode="both", num_workers=2, epochs=2, queries_per_batch=1, caption_batch_size=3, batches_per_step=1,
    learning_rate=1e-4, pretrain_weight=0.2, warmup=0.0,
)  # fmt: skip


def make_store(folder: Path, encoder_folder: str, *, perfect: bool = False) -> Store:
    """A store of grey images from dark to bright, their vectors, and preferences among six images per query,
    none of which is held out.

    perfect: store the vector of each image's caption as the vector of the image.
    """
    store, encoder, rng = Store(str(folder / "store")), Encoder.load(encoder_folder), np.random.default_rng(0)
    previews = [grey_jpeg(level, rng) for level in np.linspace(20, 235, NUM_IMAGES)]
    ids = [image_id(data) for data in previews]
    images = [image_row(index, ids[index], data) for index, data in enumerate(previews)]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    pixels = np.stack([encoder.pixels(Image.open(BytesIO(data))) for data in previews])
    captions = [image["caption"] for image in images]
    vectors = encoder.encode_texts(captions) if perfect else encoder.encode_images(pixels)
    add_vectors(store, encoder, images, vectors)
    store.register_encoder(
        EncoderRecord(encoder=encoder.fingerprint, checkpoint=encoder_folder, dim=encoder.dim)
    )
    store.set_alias("baseline", encoder.fingerprint)
    add_preferences(store, encoder.fingerprint, ids, rng)
    return store


def grey_jpeg(level: float, rng: np.random.Generator) -> bytes:
    noise = rng.normal(level, 12, (100, 120, 3)).clip(0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def image_row(index: int, identity: str, data: bytes) -> dict:
    texts = dict(uri=f"/none/{index}.jpg", caption=f"photo {index % 150}", detailed_caption="", source="test")
    sizes = dict(width_px=120, height_px=100, preview=data)
    return dict(image_id=identity, tags=[], added_at=now(), **texts, **sizes)


def add_vectors(store: Store, encoder: Encoder, images: list[dict], vectors: np.ndarray) -> None:
    pairs = zip(images, vectors, strict=True)
    rows = [{**image, "vector": vector, "aesthetic": 0.5} for image, vector in pairs]
    schema = embeddings_schema(encoder.dim)
    rows = [{name: row[name] for name in schema.names} for row in rows]
    store.merge(embeddings_table(encoder.fingerprint), pa.Table.from_pylist(rows, schema), on=["image_id"])


def add_preferences(store: Store, fingerprint: str, ids: list[str], rng: np.random.Generator) -> None:
    rows = []
    training = [index for index, identity in enumerate(ids) if part_of(identity) == "train"]
    for query in QUERIES:
        chosen = sorted(rng.choice(training, 6, replace=False))
        rows += [preference(query, ids[b], ids[a]) for a in chosen for b in chosen if b > a + 28]
    store.merge(
        "preferences",
        pa.Table.from_pylist(rows, SCHEMAS["preferences"]),
        on=["run_id", "query", "winner", "loser"],
    )
    texts = dict.fromkeys(("rephrased", "style", "judge", "source"), "")
    lists = dict(image_ids=ids[:6], semantic_scores=[], aesthetic_scores=[])
    ranking = dict(run_id="run", query=QUERIES[0], encoder=fingerprint, created_at=now(), **texts, **lists)
    store.merge("rankings", pa.Table.from_pylist([ranking], SCHEMAS["rankings"]), on=["run_id", "query"])


def preference(query: str, winner: str, loser: str) -> dict:
    return dict(query=query, rephrased=query, style="original", winner=winner, loser=loser, p_winner=0.95,
                winner_cell=[0, 0], loser_cell=[0, 1], source="lmm_score", consistent=True, judge="test",
                run_id="run")  # fmt: skip


def config(store: Store, out: Path, *, max_recall_drop: float = 1.0, **changes) -> AlignConfig:
    """A small alignment with these settings changed; by default the guard accepts the weights as trained."""
    values = yaml.safe_load((PROFILES / "mini.yaml").read_text())
    values["align"] = {**values["align"], **SETTINGS, **changes}
    values["guard"]["max_recall_drop"] = max_recall_drop
    out.mkdir(parents=True, exist_ok=True)
    (out / "profile.yaml").write_text(yaml.safe_dump(values))
    return AlignConfig(profile=str(out / "profile.yaml"), store=store.uri, out=str(out), run_id="run")


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_encoder_folder) -> Store:
    return make_store(tmp_path_factory.mktemp("align"), tiny_encoder_folder)


@pytest.fixture(scope="module")
def aligned(ray_cluster, store, tmp_path_factory) -> dict:
    """The report of an uninterrupted run with two workers."""
    out = tmp_path_factory.mktemp("aligned")
    return {**run(config(store, out)), "out": out}


def weights(report: dict) -> dict[str, torch.Tensor]:
    return Encoder.load(report["checkpoint"]).model.state_dict()


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def test_alignment_registers_an_encoder_with_the_trained_preferences(aligned, store, tiny_encoder_folder):
    record = store.encoder("candidate")
    assert record.encoder == aligned["encoder"] == Encoder.load(aligned["checkpoint"]).fingerprint
    assert record.parent == aligned["parent"] == store.alias("baseline") != record.encoder
    assert record.checkpoint == str(aligned["out"] / "encoders" / record.encoder)
    first, last = aligned["epochs"]
    assert last["loss_preference"] < first["loss_preference"] and last["rewards/accuracies"] > 0.8
    assert last["rewards/margins"] == pytest.approx(
        last["rewards/chosen"] - last["rewards/rejected"], abs=1e-4
    )
    assert aligned["wise_ft_alpha"] == 1.0 and aligned["num_held_out"] == 0
    assert last["loss"] == pytest.approx(last["loss_preference"] + 0.2 * last["loss_pt"], abs=1e-4)
    parent = Encoder.load(tiny_encoder_folder)
    assert largest_difference(weights(aligned), parent.model.state_dict()) > 1e-4
    assert Encoder.load(aligned["checkpoint"]).temperature == parent.temperature


def test_the_same_command_again_finds_the_run_finished(aligned, store):
    again = run(config(store, aligned["out"]))
    assert again["epochs"] == aligned["epochs"] and again["checkpoint"] == aligned["checkpoint"]
    assert store.count("encoders") == 2
    assert [path.name for path in (aligned["out"] / "encoders").iterdir()] == [aligned["encoder"]]


def without_seconds(epoch: dict) -> dict:
    """The metrics of an epoch that do not depend on time or on single captions."""
    return {name: value for name, value in epoch.items() if name != "seconds" and name not in RECALLS}


def test_one_worker_that_decodes_at_every_use_equals_two_with_shared_pixels(aligned, store, tmp_path):
    alone = run(config(store, tmp_path, num_workers=1, batches_per_step=2, pixel_cache_bytes=0))
    assert largest_difference(weights(alone), weights(aligned)) < 1e-5
    assert alone["recall@10"] == pytest.approx(aligned["recall@10"], abs=1.01 / 32)
    for one, two in zip(alone["epochs"], aligned["epochs"], strict=True):
        assert without_seconds(one) == pytest.approx(without_seconds(two), abs=1e-4)


def run_killed(killed_config: AlignConfig, monkeypatch) -> None:
    """Run with two workers that die in their second epoch, after the checkpoint of the first."""

    def train_until_second_epoch(worker_config):
        from jobs.align import train as module

        own_batches = module._own_batches

        def wait_for_checkpoint(folder):
            """Reports are committed with a delay, and a worker that dies earlier repeats its epoch."""
            while module.num_epochs_done(Path(folder)) < 1:
                time.sleep(0.1)

        def batches_of_first_epoch(*args):
            for batch in own_batches(*args):
                if batch["index"] >= worker_config["run"].batches_per_epoch * 2:
                    wait_for_checkpoint(worker_config["run"].folder)
                    raise RuntimeError("killed")
                yield batch

        module._own_batches = batches_of_first_epoch
        module.train_worker(worker_config)

    killed = functools.partial(train, loop=train_until_second_epoch, max_failures=0)
    with monkeypatch.context() as patch, pytest.raises(ray.train.TrainingFailedError, match="killed"):
        patch.setattr(job, "train", killed)
        run(killed_config)


def epochs_written(out: Path) -> list[int]:
    """The epochs that the runs in this folder have written."""
    (path,) = (out / "align").glob("*/epochs.jsonl")
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()]


def test_a_resumed_run_equals_an_uninterrupted_one(aligned, store, tmp_path, monkeypatch):
    run_killed(config(store, tmp_path), monkeypatch)
    resumed = run(config(store, tmp_path))
    assert epochs_written(tmp_path) == [1, 2]
    assert largest_difference(weights(resumed), weights(aligned)) < 1e-5


@pytest.fixture(scope="module")
def perfect_store(tmp_path_factory, tiny_encoder_folder) -> Store:
    """A store in which every caption finds its own image: recall is 1 before training."""
    return make_store(tmp_path_factory.mktemp("perfect"), tiny_encoder_folder, perfect=True)


TOO_FAR = dict(mode="text", learning_rate=1e-3, max_recall_drop=0.2)  # costs far more recall at alpha 1
GUARDED = ("wise_ft_alpha", "alpha_curve", "num_guard_captions", "recall_drop", *RECALLS)


@pytest.fixture(scope="module")
def guarded(ray_cluster, perfect_store, tmp_path_factory) -> dict:
    """The report of two workers that train too far."""
    return run(config(perfect_store, tmp_path_factory.mktemp("guarded"), **TOO_FAR))


def test_alpha_is_the_largest_step_within_the_limit_after_the_last_epoch(guarded, perfect_store):
    assert [epoch["epoch"] for epoch in guarded["epochs"]] == [1, 2]
    curve, chosen = guarded["alpha_curve"], ALPHAS.index(guarded["wise_ft_alpha"])
    assert [point["alpha"] for point in curve] == list(ALPHAS)
    assert curve[0] == {"alpha": 0.0, "recall@1": 1.0, "recall@10": 1.0}
    assert {name: curve[-1][name] for name in RECALLS} == {
        name: guarded["epochs"][-1][name] for name in RECALLS
    }
    assert 0 < chosen < 20
    assert min(curve[chosen].values(), default=0) >= 0 and curve[chosen]["recall@1"] >= 0.8 - 1e-9
    assert curve[chosen + 1]["recall@1"] < 0.8
    assert guarded["recall_drop"] == pytest.approx(1 - curve[chosen]["recall@1"])
    for name in RECALLS:
        assert guarded[name] == {"before": 1.0, "after": pytest.approx(curve[chosen][name])}
    record = perfect_store.encoder(guarded["encoder"])
    for name in ("epochs", "num_near_ties", *GUARDED):
        assert record.metrics["align"][name] == guarded[name]


def test_the_saved_encoder_has_the_recall_that_chose_alpha(guarded, perfect_store):
    held_out = hold_out(read_captions(perfect_store, ""), 256, seed=0).held_out
    assert held_out.num_rows == guarded["num_guard_captions"] >= 32
    parent = Encoder.load(perfect_store.encoder(guarded["parent"]).checkpoint)
    images, _ = read_vectors(perfect_store, parent, held_out["image_id"].combine_chunks())
    texts = Encoder.load(guarded["checkpoint"]).encode_texts(held_out["caption"].to_pylist())
    assert recalls(texts, images) == pytest.approx({name: guarded[name]["after"] for name in RECALLS})


def test_one_worker_chooses_the_same_alpha_as_two(guarded, perfect_store, tmp_path):
    alone = run(config(perfect_store, tmp_path, num_workers=1, batches_per_step=2, **TOO_FAR))
    for name in GUARDED:
        assert alone[name] == guarded[name]
    assert largest_difference(weights(alone), weights(guarded)) < 1e-5


def test_a_resumed_run_chooses_the_same_alpha(guarded, perfect_store, tmp_path, monkeypatch):
    run_killed(config(perfect_store, tmp_path, **TOO_FAR), monkeypatch)
    resumed = run(config(perfect_store, tmp_path, **TOO_FAR))
    again = run(config(perfect_store, tmp_path, **TOO_FAR))
    assert epochs_written(tmp_path) == [1, 2]
    for name in GUARDED:
        assert resumed[name] == guarded[name]
    assert largest_difference(weights(resumed), weights(guarded)) < 1e-5
    assert again["encoder"] == resumed["encoder"] and again["epochs"] == resumed["epochs"]


def test_a_run_that_loses_too_much_recall_at_the_smallest_step_registers_nothing(
    ray_cluster, perfect_store, tmp_path
):
    before = perfect_store.count("encoders"), perfect_store.aliases()
    absurd = config(perfect_store, tmp_path, **{**TOO_FAR, "learning_rate": 0.1, "epochs": 1})
    for _ in range(2):  # the second call reads the saved state
        with pytest.raises(UserError, match=r"of recall@\d+ on 3\d .* allows 0.2, .* align.learning_rate"):
            run(absurd)
    assert epochs_written(tmp_path) == [1]
    assert (perfect_store.count("encoders"), perfect_store.aliases()) == before
    assert not (tmp_path / "encoders").exists()


def test_near_ties_are_counted_and_dropped_by_their_weight(ray_cluster, tmp_path, tiny_encoder_folder):
    store = make_store(tmp_path, tiny_encoder_folder)
    of_run, rows = "run_id = 'run'", store.read("preferences")["query"].to_pylist()
    preferences = store.open("preferences")
    preferences.update(f"{of_run} and query = '{QUERIES[0]}'", {"consistent": False})
    preferences.update(f"{of_run} and query = '{QUERIES[1]}'", {"p_winner": 0.5})
    report = run(config(store, tmp_path, mode="text", num_workers=1, epochs=1, near_tie_weight=0))
    counts = {"num_preferences": len(rows), "num_inconsistent": rows.count(QUERIES[0]),
              "num_near_ties": rows.count(QUERIES[1])}  # fmt: skip
    assert counts == {name: report[name] for name in counts}
    assert (report["num_queries"], report["num_queries_left_out"]) == (len(QUERIES) - 1, 1)


def test_unreadable_images_and_those_deleted_meanwhile_are_left_out(
    ray_cluster, tmp_path, tiny_encoder_folder, monkeypatch, capfd
):
    store = make_store(tmp_path, tiny_encoder_folder)
    plain = config(store, tmp_path, num_workers=1, epochs=1, pixel_cache_bytes=0)
    pairs = store.read("preferences").to_pylist()
    unreadable, deleted = pairs[0]["winner"], pairs[-1]["loser"]
    store.open("images").update(where=f"image_id = '{unreadable}'", values={"preview": b"no image"})
    load_images = job.load_images

    def delete_meanwhile(*args):
        store.delete_image(deleted)
        return load_images(*args)

    monkeypatch.setattr(job, "load_images", delete_meanwhile)
    report = run(plain)
    left = [pair for pair in pairs if {unreadable, deleted}.isdisjoint((pair["winner"], pair["loser"]))]
    assert report["num_queries"] == len({pair["query"] for pair in left})
    said = capfd.readouterr().err
    assert f"align: {len(pairs) - len(left)} of {len(pairs)} preferences and " in said
    assert "captions are skipped: 2 images were deleted or cannot be read, such as " in said
    assert report["epochs"][0]["loss"] > 0


def test_mode_text_needs_no_pixels_and_keeps_the_image_tower(ray_cluster, tmp_path, tiny_encoder_folder):
    store = make_store(tmp_path, tiny_encoder_folder)
    store.database.open_table("images").update(values={"preview": b"no image"})
    report = run(config(store, tmp_path, mode="text", num_workers=1, epochs=1))
    before, after = Encoder.load(tiny_encoder_folder), Encoder.load(report["checkpoint"])
    assert after.image_fingerprint == before.image_fingerprint
    assert after.fingerprint != before.fingerprint
    assert report["epochs"][0]["loss_pt"] > 0


def test_mistakes_are_explained(ray_cluster, tmp_path, tiny_encoder_folder):
    store = make_store(tmp_path, tiny_encoder_folder)
    plain = config(store, tmp_path)
    with pytest.raises(UserError, match=r"no preferences of run 'other'; its runs are run: "):
        run(plain.model_copy(update={"run_id": "other"}))
    with pytest.raises(UserError, match=r"99 CPUs|99 x 1"):
        run(plain.model_copy(update={"num_workers": 99}))
    with pytest.raises(UserError, match="--where"):
        run(plain.model_copy(update={"where": "source = 'elsewhere'"}))
    parent = store.alias("baseline")
    store.open("rankings").update(values={"encoder": "f" * 16})
    with pytest.raises(UserError, match=f"made with encoder ffffffffffffffff, but the parent is {parent}"):
        run(plain)
    store.open("rankings").update(values={"encoder": parent})
    store.open(embeddings_table(parent)).delete("height_px = 100")
    with pytest.raises(UserError, match=f"missing from table embeddings_{parent}"):
        run(plain.model_copy(update={"seed": 5}))
    store.open("images").delete("true")
    with pytest.raises(UserError, match=r"images of all \d+ preferences are missing from table images"):
        run(plain)
