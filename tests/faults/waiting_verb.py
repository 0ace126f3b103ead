"""A verb that starts Ray and waits there for a task: `python waiting_verb.py [options]`."""

import time

import ray

from cluster import command, terminal
from cluster.session import connect


class WaitingConfig(command.JobConfig):
    """Waits."""

    seconds: float = 300


@ray.remote
def wait(seconds: float) -> None:
    time.sleep(seconds)


def run(config: WaitingConfig) -> dict:
    connect(command.profile_of(config))
    waiting = wait.remote(config.seconds)
    terminal.say("running")
    ray.get(waiting)
    return {}


if __name__ == "__main__":
    command.main(WaitingConfig, run=run)
