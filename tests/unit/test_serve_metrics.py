"""The metrics: their names and labels, harmless without Ray, and the dashboard that shows all of them."""

import json
import re

import pytest
from made_service import IMAGE_IDS, MadeService, asking

from cluster.profile import ROOT, Serve
from serve_app.http import metrics
from serve_app.http.api import make_api
from serve_app.http.metrics import SECONDS, Metrics

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
    """Stands for Ray's series: keeps what it is told."""

    made: dict

    def __init__(self, name, description, *rest):
        self.labels = rest[-1] if rest else ()
        self.told = []
        self.made[name] = self

    def inc(self, value=1.0, tags=None):
        self._tell(value, tags)

    def set(self, value, tags=None):
        self._tell(value, tags)

    def observe(self, value, tags=None):
        self._tell(value, tags)

    def _tell(self, value, tags):
        assert set(tags or ()) == set(self.labels)
        self.told.append((value, *(tags or {}).values()))


@pytest.fixture
def series(monkeypatch) -> dict:
    """name -> series, of every `Metrics` made meanwhile."""
    kind = type("Kept", (Series,), {"made": {}})
    for name in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, name, kind)
    return kind.made


def tell_everything(told: Metrics) -> None:
    told.observe("encode", "live", 0.004)
    told.batch("encode", 3)
    told.in_flight(1)
    told.in_flight(1)
    told.in_flight(-1)
    told.request("/v1/search", 200)
    told.search("live")
    told.feedback("click", "new")
    told.experiment("candidate")


def test_every_series_has_its_name_its_labels_and_its_value(series):
    tell_everything(Metrics())
    assert {name: one.labels for name, one in series.items()} == LABELS
    assert {name: one.told for name, one in series.items()} == {
        "kallos_step_seconds": [(0.004, "encode", "live")],
        "kallos_batch_size": [(3, "encode")],
        "kallos_in_flight": [(1,), (2,), (1,)],
        "kallos_requests_total": [(1.0, "/v1/search", "200")],
        "kallos_searches_total": [(1.0, "live")],
        "kallos_feedback_total": [(1.0, "click", "new")],
        "kallos_experiment_total": [(1.0, "candidate")],
    }
    assert (SECONDS[0], SECONDS[-1]) == (0.001, 10.0) and sorted(SECONDS) == SECONDS


def test_without_ray_nothing_happens():
    for told in (Metrics(), Metrics()):
        tell_everything(told)


def test_requests_are_counted_by_the_template_of_their_route(series):
    client = asking(make_api(MadeService(), Serve()))
    for path in (f"/v1/images/{IMAGE_IDS[0]}/preview", f"/v1/images/{IMAGE_IDS[1]}/preview",
                 "/v1/images/none/preview", "/healthz", "/nothing/at/all", "/page/kallos.css"):  # fmt: skip
        client.get(path)
    client.post("/v1/search", json={"query": "break"})
    preview = "/v1/images/{image_id}/preview"
    assert [told[1:] for told in series["kallos_requests_total"].told] == [
        (preview, "200"), (preview, "200"), (preview, "404"), ("/healthz", "200"), ("other", "404"),
        ("/page/{name}", "200"), ("/v1/search", "500"),
    ]  # fmt: skip
    assert series["kallos_in_flight"].told[-1] == (0,)


def shown() -> set[str]:
    """The series that the dashboard's expressions name, without Ray's prefix and a histogram's endings."""
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    names = set(re.findall(r"\bray_(kallos_\w+)", " ".join(expressions)))
    return {re.sub("_(bucket|sum|count)$", "", name) for name in names}


def test_the_dashboard_shows_every_series_and_no_other():
    assert shown() == set(LABELS)


def test_the_dashboard_groups_by_labels_that_exist():
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


def test_the_dashboard_asks_the_source_that_is_chosen():
    assert DASHBOARD["schemaVersion"] >= 39
    assert {one["name"] for one in DASHBOARD["templating"]["list"]} == {"datasource", "system"}
    for panel in DASHBOARD["panels"]:
        assert all(one["datasource"]["uid"] == "${datasource}" for one in [panel, *panel["targets"]])
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(set(ids)) == len(DASHBOARD["panels"])
