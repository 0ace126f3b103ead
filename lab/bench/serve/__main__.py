"""`python -m lab.bench.serve`: the entry point of `kallos bench serve`."""

from importlib.util import find_spec

from cluster import command
from cluster.errors import UserError
from lab.bench.serve.config import BenchServeConfig

EXTRA = ("flask", "aiohttp", "psutil")  # packages of the extra `bench`


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the job, print its report."""
    command.main(BenchServeConfig, argv, run=run)


def run(config: BenchServeConfig) -> dict:
    """Import and run the job. Raises UserError when a package of the extra is missing."""
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise UserError(f"kallos bench serve needs {' and '.join(missing)}: pip install 'kallos[bench]'")
    from lab.bench.serve import job

    return job.run(config)


if __name__ == "__main__":
    main()
