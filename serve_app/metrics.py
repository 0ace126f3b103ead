"""Prometheus metrics of the endpoint. Ray exports each series under its name with the prefix `ray_`.

Without Ray, as in unit tests, the values are discarded.
"""

import threading

from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
SIZES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]


class Metrics:
    """The series of one serving process. Labels take few values: never ids, queries or paths."""

    def __init__(self) -> None:
        self._seconds = Histogram(
            "kallos_step_seconds", "Duration of a step of a search", SECONDS, ("step", "system")
        )
        self._sizes = Histogram("kallos_batch_size", "Items computed together", SIZES, ("kind",))
        self._in_flight = Gauge("kallos_in_flight", "Requests being answered")
        self._requests = Counter("kallos_requests_total", "Requests answered", ("route", "status"))
        self._searches = Counter("kallos_searches_total", "Searches answered", ("system",))
        self._feedback = Counter("kallos_feedback_total", "Feedback accepted or refused", ("kind", "outcome"))
        self._experiment = Counter("kallos_experiment_total", "Searches of an experiment", ("arm",))
        self._lock = threading.Lock()
        self._num_in_flight = 0

    def observe(self, step: str, system: str, seconds: float) -> None:
        """Record the duration of a step of a search; `step` is a key of `SearchResponse.timings_ms`."""
        self._seconds.observe(seconds, {"step": step, "system": system})

    def batch(self, kind: str, size: int) -> None:
        """Record the size of a batch; `kind` is `encode`, `image` or `search`."""
        self._sizes.observe(size, {"kind": kind})

    def in_flight(self, delta: int) -> None:
        """Record that a request arrived (1) or was answered (-1)."""
        with self._lock:
            self._num_in_flight += delta
            self._in_flight.set(self._num_in_flight)

    def request(self, route: str, status: int) -> None:
        """Count an answered request; `route` is a template, not a path."""
        self._requests.inc(tags={"route": route, "status": str(status)})

    def search(self, system: str) -> None:
        """Count a search that this system answered."""
        self._searches.inc(tags={"system": system})

    def feedback(self, kind: str, outcome: str) -> None:
        """Count a feedback event; `outcome` is `new`, `known` or the code of its refusal."""
        self._feedback.inc(tags={"kind": kind, "outcome": outcome})

    def experiment(self, arm: str) -> None:
        """Count a search that the experiment assigned to this arm, `live` or `candidate`."""
        self._experiment.inc(tags={"arm": arm})
