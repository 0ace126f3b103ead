"""Search settings: how they are chosen and recorded, and the benchmark that does both on drawn vectors."""

import json

import numpy as np
import pytest

from actors.retriever import Effort
from jobs.index import ann, tuning
from jobs.index.tuning import Measurement, choose
from lab.bench.index import job as bench
from lab.bench.index.__main__ import main

SETTINGS = {"ef": 50, "refine_factor": 2, "nprobes": 1, "p50_ms": 1.5}


def measured(recall: float, p50_ms: float) -> Measurement:
    return Measurement(Effort(), recall, p50_ms)


def test_the_fastest_setting_that_reaches_the_target_is_chosen():
    swept = [measured(0.90, 1.0), measured(0.97, 3.0), measured(0.95, 2.0), measured(1.0, 9.0)]
    assert choose(swept, 0.95) == swept[2]
    assert choose(swept, 0.0) == swept[0]


def test_without_a_setting_that_reaches_the_target_the_best_recall_wins_then_the_fastest():
    swept = [measured(0.7, 1.0), measured(0.8, 5.0), measured(0.8, 4.0)]
    assert choose(swept, 0.95) == swept[2]


def test_recall_is_the_share_of_true_neighbours_found():
    true = [[{"image_id": name} for name in "abcd"], [{"image_id": "a"}]]
    found = [[{"image_id": name} for name in "abxy"], [{"image_id": "a"}]]
    assert tuning.recall(found, true) == pytest.approx(0.75)


def test_grid_probes_a_quarter_half_and_all_of_the_partitions(monkeypatch):
    assert {effort.nprobes for effort in tuning.grid(999_999)} == {1}
    monkeypatch.setattr(ann, "ROWS_PER_PARTITION", 100)
    assert {effort.nprobes for effort in tuning.grid(1000)} == {3, 5, 10}


def test_every_new_measurement_is_recorded(store):
    for recall in (0.9, 0.8):
        row = {"encoder": "a", "kind": ann.ANN, "num_rows": 5, "recall_at_10": recall, "num_queries": 2}
        tuning.record(store, row | SETTINGS)
    rows = store.read("indexes").sort_by("measured_at").to_pylist()
    assert [row["recall_at_10"] for row in rows] == pytest.approx([0.9, 0.8])
    assert [{name: row[name] for name in SETTINGS} for row in rows] == [SETTINGS] * 2


def test_a_repeated_measurement_is_not_recorded_again(store):
    exact = {"kind": ann.EXACT, "num_rows": 5, "recall_at_10": 1.0, "num_queries": 0}
    approximate = {"kind": ann.ANN, "num_rows": 9, "recall_at_10": 0.93, "num_queries": 2} | SETTINGS
    for figures in (exact, exact, approximate, approximate):
        for encoder in ("a", "b"):
            tuning.record(store, {"encoder": encoder} | figures)
    assert store.count("indexes") == 4
    tuning.record(store, {"encoder": "a"} | exact)
    assert store.count("indexes") == 5, "it differs from the newest row"


def test_the_benchmark_measures_an_index_of_drawn_vectors(capfd, monkeypatch):
    monkeypatch.setattr(tuning, "EFS", (50, 200))
    main(["--num-rows", "2000", "--dim", "16", "--num-queries", "10", "--num-runs", "2"])
    report = json.loads(capfd.readouterr().out.splitlines()[-1])
    ratio, figures = report["ratios"]["recall_at_10"], report["figures"]
    assert report["bench"] == "index" and len(ratio["runs"]) == 2
    assert 0.8 <= ratio["min"] <= ratio["value"] <= ratio["max"] <= 1
    assert (figures["num_rows"], figures["dim"], figures["nprobes"]) == (2000, 16, 1)
    assert min(figures[name] for name in ("build_s", "p50_ms", "exact_p50_ms", "peak_rss_bytes")) > 0


def test_drawn_vectors_are_clustered_normalised_and_seeded():
    vectors = bench.Mixture(5, 64, seed=3).draw(500)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, bench.Mixture(5, 64, seed=3).draw(500))
    nearest = np.sort(vectors @ vectors.T, axis=1)[:, -6:-1]
    assert nearest.mean() > 0.6 > np.abs(vectors @ vectors.T).mean()
