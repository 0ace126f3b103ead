"""Limits of feedback: events per client, events per API key or address, clients per API key or address."""

import math
import time

from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from serve_app.errors import ApiError


class Limits:
    """Counts events at one replica. A group is all clients of one key or address."""

    def __init__(self, per_minute: int, per_day: int, num_clients: int) -> None:
        """`per_minute`, `per_day`: events of one client. `num_clients`: clients of a group in a day; together
        they may send `num_clients` times the events of one.
        """
        storage = MemoryStorage()
        minute, self._day = MovingWindowRateLimiter(storage), FixedWindowRateLimiter(storage)
        self._num_clients = num_clients
        self._events = [
            (minute, RateLimitItemPerMinute, per_minute, "events a minute"),
            (self._day, RateLimitItemPerDay, per_day, "events a day"),
        ]

    def count(self, client: str, group: str) -> None:
        """Count an event. Raises ApiError 429 over a limit; a refused event is not counted."""
        counters = [
            (limiter, per(amount * times), name, what)
            for limiter, per, amount, what in self._events
            for times, name in ((self._num_clients, f"group {group}"), (1, f"client {client}"))
        ]
        once, name = RateLimitItemPerDay(1), f"{client} of {group}"
        if self._day.test(once, name):  # a name that is new today
            clients = RateLimitItemPerDay(self._num_clients)
            counters += [
                (self._day, clients, f"clients of {group}", "clients a day with one key or from one address"),
                (self._day, once, name, ""),
            ]
        for limiter, limit, name, what in counters:
            if not limiter.test(limit, name):
                wait_s = max(1, math.ceil(limiter.get_window_stats(limit, name).reset_time - time.time()))
                raise too_many("too_many", f"No more than {limit.amount} {what}.", wait_s)
        for limiter, limit, name, _ in counters:
            limiter.hit(limit, name)


def too_many(code: str, message: str, wait_s: int) -> ApiError:
    """The refusal of an event that may be sent again after `wait_s` seconds."""
    return ApiError(429, code, message, headers={"Retry-After": str(wait_s)})
