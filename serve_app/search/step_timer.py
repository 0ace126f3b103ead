"""Times the steps of one search."""

from dataclasses import dataclass, field
from time import perf_counter

from serve_app.metrics import Metrics


@dataclass
class StepTimer:
    """Milliseconds of each step of one search; each duration also goes to the metrics."""

    metrics: Metrics
    system: str
    steps: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=perf_counter)

    def record(self, step: str, since: float) -> float:
        """Record a step from `since` (`perf_counter`, seconds) until now; returns the time now."""
        now = perf_counter()
        self.steps[step] = self.steps.get(step, 0.0) + 1000 * (now - since)
        self.metrics.observe(step, self.system, now - since)
        return now

    def finish(self) -> dict[str, float]:
        """Milliseconds of every step, with `total` since the timer was made."""
        self.record("total", self.started)
        return self.steps
