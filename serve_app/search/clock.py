"""Where the time of one search goes."""

from dataclasses import dataclass, field
from time import perf_counter

from serve_app.http.metrics import Metrics


@dataclass
class Clock:
    """Milliseconds per step of one search, told to the metrics as they pass."""

    metrics: Metrics
    system: str
    steps: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=perf_counter)

    def step(self, name: str, since: float) -> float:
        """Note a step that began at `since`; returns the moment now."""
        now = perf_counter()
        self.steps[name] = self.steps.get(name, 0.0) + 1000 * (now - since)
        self.metrics.observe(name, self.system, now - since)
        return now

    def total(self) -> dict[str, float]:
        """Milliseconds of every step, with `total` since the clock was made."""
        self.step("total", self.started)
        return self.steps
