"""What the endpoint counts and times, for Prometheus: Ray exports each series as `ray_` and its name.

Where Ray does not run, in unit tests say, the values go nowhere.
"""

import threading

from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
SIZES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]


class Metrics:
    """The series of a process that answers requests. Labels have few values: no ids, no words, no paths."""

    def __init__(self) -> None:
        self._seconds = Histogram(
            "kallos_step_seconds", "Duration of a step of a search", SECONDS, ("step", "system")
        )
        self._sizes = Histogram("kallos_batch_size", "Items computed together", SIZES, ("kind",))
        self._in_flight = Gauge("kallos_in_flight", "Requests being answered")
        self._requests = Counter("kallos_requests_total", "Requests answered", ("route", "status"))
        self._searches = Counter("kallos_searches_total", "Searches answered", ("system",))
        self._feedback = Counter("kallos_feedback_total", "Feedback taken or refused", ("kind", "outcome"))
        self._experiment = Counter("kallos_experiment_total", "Searches of an experiment", ("arm",))
        self._lock = threading.Lock()
        self._num_in_flight = 0

    def observe(self, step: str, system: str, seconds: float) -> None:
        """A step of a search took so long; `step` is a key of `SearchResponse.timings_ms`."""
        self._seconds.observe(seconds, {"step": step, "system": system})

    def batch(self, kind: str, size: int) -> None:
        """So many items were computed together; `kind` is `encode` or `search`, say."""
        self._sizes.observe(size, {"kind": kind})

    def in_flight(self, delta: int) -> None:
        """A request came (1) or was answered (-1)."""
        with self._lock:
            self._num_in_flight += delta
            self._in_flight.set(self._num_in_flight)

    def request(self, route: str, status: int) -> None:
        """A request was answered; `route` is a template, not a path."""
        self._requests.inc(tags={"route": route, "status": str(status)})

    def search(self, system: str) -> None:
        """A search was answered by this system."""
        self._searches.inc(tags={"system": system})

    def feedback(self, kind: str, outcome: str) -> None:
        """An event of this kind came; `outcome` is `new`, `known` or the code of its refusal."""
        self._feedback.inc(tags={"kind": kind, "outcome": outcome})

    def experiment(self, arm: str) -> None:
        """A search was drawn into this arm of the running experiment, `live` or `candidate`."""
        self._experiment.inc(tags={"arm": arm})
