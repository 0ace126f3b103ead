"""The demo, small, from the command line: real engines, real training, real tables."""

import json
import math
import subprocess
import sys

import pytest

SIZES = ["--num-images", "1000", "--num-queries", "12", "--num-eval-queries", "12"]


def demo(folder, *options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lab.demo", "--no-serve", "--out", str(folder), *SIZES, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@pytest.mark.timeout(1800)
def test_demo_writes_report_and_page_and_a_second_run_adds_nothing(tmp_path):
    first = demo(tmp_path / "demo")
    assert first.returncode == 0, first.stderr[-4000:]
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert json.loads(first.stdout.splitlines()[-1]) == report
    assert report["num_images"] == 1000 and report["num_queries"] == 12
    assert report["num_preferences"] > 12
    assert report["encoders"]["baseline"] != report["encoders"]["aligned"]
    measured = ("baseline", "suffix", "axis", "rephrase", "teacher", "aligned")
    assert tuple(report["systems"]) == measured and report["best_null"] in ("suffix", "axis")
    assert "aligned_minus_best_null" in report["differences"] and "aligned_vs_suffix" in report["win_rate"]
    for system in measured:
        for name in (
            "recall@1",
            "recall@10",
            "precision@5",
            "aesthetic@5",
            "hpir_accuracy",
            "hpir_aesthetic",
        ):
            assert 0 <= report["systems"][system][name]["value"] <= 1
    win = report["win_rate"]["aligned_vs_baseline"]
    assert all(win[who]["ci95"][0] <= win[who]["value"] <= win[who]["ci95"][1] for who in ("people", "judge"))
    assert report["judges"]["warning"]  # one judge labels and scores
    assert math.isclose(
        report["seconds"]["total"], sum(v for k, v in report["seconds"].items() if k != "total"), abs_tol=1
    )
    page = (tmp_path / "demo" / "evaluate" / "report.html").read_text()
    assert "data:image" in page and "http://" not in page.replace("http://www.w3.org", "")

    other = demo(tmp_path / "demo", "--seed", "1")
    assert other.returncode == 2 and "different seed" in other.stderr

    again = demo(tmp_path / "demo")
    assert again.returncode == 0, again.stderr[-4000:]
    repeated = json.loads(again.stdout.splitlines()[-1])
    for same in ("encoders", "systems", "differences", "num_preferences", "win_rate"):
        assert repeated[same] == report[same]
    assert repeated["seconds"]["align"] < report["seconds"]["align"]
