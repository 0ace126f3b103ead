"""The metrics: names and labels, no effect without Ray, and a dashboard that shows all of them."""

import json
import re

import pytest
from fake_service import IMAGE_IDS, FakeService, local_client

from cluster.profile import ROOT, Serve
from serve_app import metrics
from serve_app.http.api import make_api
from serve_app.metrics import SECONDS, Metrics

DASHBOARD = json.loads((ROOT / "cluster" / "dashboards" / "grafana.json").read_text())
LABELS = {
    "kallos_step_seconds": ("step", "system"),
    "kallos_batch_size": ("kind",),
    "kallos_in_flight": (),
    "kallos_requests_total": ("route", "status"),
    "kallos_searches_total": ("system",),
    "kallos_feedback_total": ("kind", "outcome"),
    "kallos_experiment_total": ("arm",),
}


class Series:
    """Replaces Ray's series; records its values with their labels."""

    series: dict

    def __init__(self, name, description, *rest):
        self.labels = rest[-1] if rest else ()
        self.values = []
        self.series[name] = self

    def inc(self, value=1.0, tags=None):
        self._record(value, tags)

    def set(self, value, tags=None):
        self._record(value, tags)

    def observe(self, value, tags=None):
        self._record(value, tags)

    def _record(self, value, tags):
        assert set(tags or ()) == set(self.labels)
        self.values.append((value, *(tags or {}).values()))


@pytest.fixture
def series(monkeypatch) -> dict:
    """Name -> series, of every `Metrics` made during the test."""
    kind = type("Recorded", (Series,), {"series": {}})
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, name, kind)
    return kind.series


def record_everything(metrics: Metrics) -> None:
    metrics.observe("encode", "live", 0.004)
    metrics.batch("encode", 3)
    metrics.in_flight(1)
    metrics.in_flight(1)
    metrics.in_flight(-1)
    metrics.request("/v1/search", 200)
    metrics.search("live")
    metrics.feedback("click", "new")
    metrics.experiment("candidate")


def test_every_series_has_its_name_labels_and_values(series):
    record_everything(Metrics())
    assert {name: one.labels for name, one in series.items()} == LABELS
    assert {name: one.values for name, one in series.items()} == {
        "kallos_step_seconds": [(0.004, "encode", "live")],
        "kallos_batch_size": [(3, "encode")],
        "kallos_in_flight": [(1,), (2,), (1,)],
        "kallos_requests_total": [(1.0, "/v1/search", "200")],
        "kallos_searches_total": [(1.0, "live")],
        "kallos_feedback_total": [(1.0, "click", "new")],
        "kallos_experiment_total": [(1.0, "candidate")],
    }
    assert (SECONDS[0], SECONDS[-1]) == (0.001, 10.0) and sorted(SECONDS) == SECONDS


def test_metrics_have_no_effect_without_ray():
    for each in (Metrics(), Metrics()):
        record_everything(each)


def test_requests_are_counted_by_route_template(series):
    client = local_client(make_api(FakeService(), Serve()))
    for path in (f"/v1/images/{IMAGE_IDS[0]}/preview", f"/v1/images/{IMAGE_IDS[1]}/preview",
                 "/v1/images/none/preview", "/healthz", "/nothing/at/all", "/page/main.css"):  # fmt: skip
        client.get(path)
    client.post("/v1/search", json={"query": "break"})
    preview = "/v1/images/{image_id}/preview"
    assert [labels for _, *labels in series["kallos_requests_total"].values] == [
        [preview, "200"], [preview, "200"], [preview, "404"], ["/healthz", "200"], ["other", "404"],
        ["/page/{name}", "200"], ["/v1/search", "500"],
    ]  # fmt: skip
    assert series["kallos_in_flight"].values[-1] == (0,)


def series_on_dashboard() -> set[str]:
    """The series in the expressions of the dashboard, without Ray's prefix and the suffixes of histograms."""
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    names = set(re.findall(r"\bray_(kallos_\w+)", " ".join(expressions)))
    return {re.sub("_(bucket|sum|count)$", "", name) for name in names}


def test_dashboard_shows_exactly_the_existing_series():
    assert series_on_dashboard() == set(LABELS)


def test_dashboard_groups_by_existing_labels():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            labels = {
                label
                for name in re.findall(r"ray_(kallos_\w+)", target["expr"])
                for label in LABELS[re.sub("_(bucket|sum|count)$", "", name)]
            }
            grouped = {
                one.strip() for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for one in by.split(",")
            }
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert legend <= grouped <= labels | {"le"}


def test_dashboard_queries_the_chosen_data_source():
    assert DASHBOARD["schemaVersion"] >= 39
    assert {one["name"] for one in DASHBOARD["templating"]["list"]} == {"datasource", "system"}
    for panel in DASHBOARD["panels"]:
        assert all(one["datasource"]["uid"] == "${datasource}" for one in [panel, *panel["targets"]])
    positions = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(positions)) == len(set(ids)) == len(DASHBOARD["panels"])
