"""Queries, captions, votes, truth and labels as an evaluation reads them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.caption_pairs import part_of
from cluster.errors import UserError
from cluster.schemas import HUMAN
from cluster.tables import SCHEMAS, EncoderRecord, Store, now
from jobs.evaluate import trained_on
from jobs.evaluate.config import EvaluateConfig
from jobs.evaluate.inputs import load_queries, load_votes, sample_captions
from jobs.evaluate.truth import load_labels, load_truth
from lab.studio.latents import sample_latents, true_aesthetics
from lab.studio.truth import accurate_ids, label_table, truth_table

IDS = ["a" * 64, "b" * 64]


def votes_on(queries, tmp_path):
    row = {"group_a": IDS[:1], "group_b": IDS[1:], "votes_accuracy_a": 3, "votes_accuracy_b": 1}
    row |= {"votes_aesthetic_a": 2, "votes_aesthetic_b": 4}
    path = str(tmp_path / "hpir.parquet")
    pq.write_table(pa.Table.from_pylist([{"query": query, **row} for query in queries]), path)
    return EvaluateConfig(hpir=(path,))


@pytest.fixture
def store(tmp_path):
    """Two images, and the query "a dog" labelled."""
    store = Store(str(tmp_path / "store"))
    images = [
        {name: _empty(SCHEMAS["images"].field(name).type) for name in SCHEMAS["images"].names}
        | {"image_id": image_id, "uri": f"{image_id}.jpg", "added_at": now()}
        for image_id in IDS
    ]
    store.merge("images", pa.Table.from_pylist(images, SCHEMAS["images"]), on=["image_id"])
    schema = SCHEMAS["rankings"]
    ranking = {field.name: _empty(field.type) for field in schema} | {"query": "a dog", "run_id": "r"}
    store.merge("rankings", pa.Table.from_pylist([ranking], schema), on=["run_id", "query"])
    return store


def _empty(kind):
    if pa.types.is_timestamp(kind):
        return now()
    if pa.types.is_list(kind):
        return []
    if pa.types.is_binary(kind):
        return b""
    if pa.types.is_boolean(kind):
        return False
    return "" if pa.types.is_string(kind) else 0


def test_votes_on_labelled_queries_are_skipped_and_counted(store, tmp_path):
    config = votes_on(["a dog", "a cat"], tmp_path)
    (table,), _ = load_votes(config, store, set(IDS), trained_on.queries(store))
    assert [row.query for row in table.rows] == ["a cat"]
    assert (table.num_left_out, table.num_learned) == (0, 1)


def test_vote_table_with_only_labelled_queries_is_refused(store, tmp_path):
    with pytest.raises(UserError, match="on a query that was labelled"):
        load_votes(votes_on(["a dog"], tmp_path), store, set(IDS), trained_on.queries(store))


def test_queries_used_in_training_are_excluded(store, tmp_path):
    schema = SCHEMAS["preferences"]
    chosen = {field.name: _empty(field.type) for field in schema} | {"query": "a cat", "source": HUMAN}
    key = ["run_id", "query", "winner", "loser"]
    store.merge("preferences", pa.Table.from_pylist([chosen], schema), on=key)
    known = trained_on.queries(store)
    assert known == {"a dog", "a cat"}
    path = tmp_path / "queries.txt"
    path.write_text("a  dog\na cat\na boat\n")
    assert load_queries(EvaluateConfig(queries=str(path)), store, known) == (["a boat"], 2)
    path.write_text("a dog\n")
    with pytest.raises(UserError, match=r"all 1 queries in .* were labelled or people chose"):
        load_queries(EvaluateConfig(queries=str(path)), store, known)


@pytest.fixture
def aligned(store, tmp_path):
    """An encoder that was trained on the caption of the first image, with that of the third for its guard."""
    corpus = tmp_path / "training" / "corpus"
    corpus.mkdir(parents=True)
    pq.write_table(pa.table({"image_id": [*IDS, "c" * 64]}), corpus / "images.parquet")
    for row, name in ((0, "captions"), (2, "guard")):
        rows = pa.table({"image": pa.array([row], pa.int32()), "caption": ["red"]})
        pq.write_table(rows, corpus / f"{name}.parquet")
    training = {"align": {"training": str(corpus.parent)}}
    return EncoderRecord(encoder="child", parent="root", checkpoint="c", dim=2, metrics=training)


def test_captions_of_images_used_in_training_are_excluded(store, aligned):
    known = trained_on.captioned_images(store, [aligned])
    assert known == {IDS[0], "c" * 64}
    found = sample_captions({IDS[0]: "red", IDS[1]: "blue"}, "caption", 0, 0, known)
    assert (found.texts, found.num_learned, found.owners) == (("blue",), 1, {IDS[0]: -1, IDS[1]: 0})
    assert found.num_test == 0


def test_captions_of_test_images_come_first_and_others_fill_up_the_sample():
    tests, trains = (["0000000" + digit for digit in digits] for digits in ("56789", "abcdef"))
    assert [part_of(image_id) for image_id in (*tests, *trains)] == ["test"] * 5 + ["train"] * 6
    captions = {image_id: f"scene {image_id}" for image_id in (*tests, *trains)}
    captions["0000000f"] = captions["00000005"]  # shared by a test image and one that trained
    for num, num_test in ((3, 3), (4, 4), (7, 4), (0, 4)):
        found = sample_captions(captions, "caption", num, 0, frozenset(trains[4:]))
        assert len(found.texts) == (num or 8) and found.num_test == num_test
        ordered = [text in {captions[i] for i in tests} for text in found.texts]
        assert ordered == sorted(ordered, reverse=True)
    unknown = sample_captions(captions, "caption", 7, 0, None)
    assert set(unknown.texts) == {captions[i] for i in tests[1:]}
    assert (unknown.num_learned, unknown.num_test) == (6, 4)


def test_training_data_of_ancestors_count_and_unknown_ones_are_reported(store, aligned):
    grandchild = EncoderRecord(encoder="grandchild", parent="child", checkpoint="g", dim=2)
    store.register_encoder(aligned)
    assert trained_on.captioned_images(store, [grandchild]) is None  # its own training is not known
    training = {"metrics": {"align": {"training": aligned.metrics["align"]["training"]}}}
    assert trained_on.captioned_images(store, [grandchild.model_copy(update=training)]) == {IDS[0], "c" * 64}
    root = EncoderRecord(encoder="root", checkpoint="r", dim=2)
    assert trained_on.captioned_images(store, [root]) == frozenset()


@pytest.mark.parametrize("name", ["years.csv", "years.txt"])
def test_queries_that_look_like_numbers_stay_text(store, tmp_path, name):
    (tmp_path / name).write_text(("query\n" if name.endswith("csv") else "") + "1984\n 2024 \n1984\n")
    queries, _ = load_queries(EvaluateConfig(queries=str(tmp_path / name)), store)
    assert queries == ["1984", "2024"]


TRUTH = "query,image_id,accurate,aesthetics\na dog,i1,true,0.5\na dog,i2,false,1\na cat,i1,false,0.25\n"


def write(path, text):
    path.write_text(text)
    return str(path)


def test_truth_table_answers_for_its_pairs_and_knows_no_others(tmp_path):
    truth = load_truth(write(tmp_path / "truth.csv", TRUTH), ["a dog"])
    assert truth.accurate("a dog", ["i2", "i1", "i3"]).tolist() == [False, True, False]
    assert truth.aesthetics("a dog", ["i2", "i1"]).tolist() == [1.0, 0.5]
    assert np.isnan(truth.aesthetics("a dog", ["i3"])).all()
    assert truth.aesthetics("a cat", ["i1"]).tolist() == [0.25]


def test_truth_and_labels_of_a_studio_are_read_back(tmp_path):
    rng = np.random.default_rng(0)
    scenes = {f"i{index}": sample_latents(rng, subject="sailboat") for index in range(8)}
    scenes |= {f"i{index}": sample_latents(rng) for index in range(8, 40)}
    pq.write_table(truth_table(["a sailboat", "red car"], scenes), tmp_path / "truth.parquet")
    pq.write_table(label_table(scenes), tmp_path / "labels.parquet")
    truth = load_truth(str(tmp_path / "truth.parquet"), ["a sailboat"])
    ids = list(scenes)
    accurate = truth.accurate("a sailboat", ids)
    assert [image_id for image_id, shown in zip(ids, accurate, strict=True) if shown] == accurate_ids(
        "a sailboat", scenes
    )
    assert accurate[:8].all()
    beauty = [true_aesthetics(latents) for latents in scenes.values()]
    assert truth.aesthetics("a sailboat", ids).tolist() == beauty  # not rounded
    labels = load_labels(str(tmp_path / "labels.parquet"))
    assert labels == {image_id: latents.subject for image_id, latents in scenes.items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TRUTH.replace("aesthetics", "beauty"), r"lacks the column\(s\) aesthetics"),
        (TRUTH.replace("0.25", "2.5"), "has aesthetics 2.5: scale them"),
        (TRUTH.replace("0.25", ""), "a row without aesthetics"),
        (TRUTH.replace("a dog", "a fox"), "lacks 1 of the 2 queries, such as 'a dog'"),
        (
            TRUTH.replace("true", "yes").replace("false", "no"),
            "line 2: accurate = 'yes' is neither true nor false",
        ),
    ],
)
def test_malformed_truth_table_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_truth(write(tmp_path / "truth.csv", text), ["a cat", "a dog"])


def test_labels_are_read_as_text(tmp_path):
    path = write(tmp_path / "labels.csv", "image_id,label\ni1,boat\ni2,2024\n")
    assert load_labels(path) == {"i1": "boat", "i2": "2024"}
