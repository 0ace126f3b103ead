"""The `kallos` command: runs a verb here, or on a cluster with `--submit http://head:8265`.

Only the verb's own module is imported, so that `kallos --help` is fast.
"""

import argparse
import difflib
import importlib
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cluster.errors import UserError, exit_on_user_error
from cluster.process.signals import handled

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Verbs = Mapping[str, tuple[str, str]]  # verb -> (its package, what it does)

VERBS: Verbs = {
    "ingest": ("jobs.ingest", "read images, check them, embed them"),
    "label": ("jobs.label", "turn queries into preferences: rephrase, retrieve, re-rank"),
    "align": ("jobs.align", "align an encoder with the preferences"),
    "index": ("jobs.index", "embed the images with an encoder and build its index"),
    "evaluate": ("jobs.evaluate", "compare encoders: metrics and a report page"),
    "promote": ("jobs.promote", "make a checked encoder live, or go back to the previous one"),
    "serve": ("serve_app", "serve the search over HTTP, with a page"),
    "search": ("serve_app.client", "search a running server"),
    "feedback": ("jobs.feedback", "summarise what people chose, and export their votes"),
    "delete": ("jobs.delete", "remove images from every table and index"),
}
# Other packages add their verbs under this entry point, as a mapping like VERBS.
PLUGINS = "kallos.verbs"
SUBMIT_TIMEOUT_S = 60.0
USAGE = "usage: kallos <verb> [--submit http://head:8265] [options]; `kallos <verb> --help` lists them"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the verb that `argv` (default: the process's) names. Exits with the status of a submitted job."""
    words = list(sys.argv[1:] if argv is None else argv)
    with handled(), exit_on_user_error():
        if not words or words[0] in ("-h", "--help"):
            print(help_text())
            return
        words, head = take_submit(words)
        package, options = resolve(words)
        if head:
            sys.exit(submit(head, package, options))
        sys.argv = [f"kallos {words[0]}", *options]
        importlib.import_module(f"{package}.__main__").main()


def verb_groups() -> dict[str, Verbs]:
    """Title -> verbs, Kallos's own first. Raises UserError when a plugin cannot be imported."""
    from importlib.metadata import entry_points  # slow to import, and not needed for the product's verbs

    plugins = sorted(entry_points(group=PLUGINS), key=lambda point: point.name)
    return {"verbs": VERBS, **{f"{point.name} verbs": _load(point) for point in plugins}}


def _load(plugin: "EntryPoint") -> Verbs:
    try:
        return plugin.load()
    except Exception as error:  # loading runs another package's code
        raise UserError(
            f"The verbs of plugin {plugin.name!r} cannot be imported from {plugin.value} "
            f"({type(error).__name__}: {error}): install its package again, or remove it."
        ) from None


def help_text() -> str:
    """The verbs, one per line."""
    lines = [USAGE]
    for title, verbs in verb_groups().items():
        lines += ["", f"{title}:", *(f"  {verb:<13}{text}" for verb, (_, text) in verbs.items())]
    return "\n".join(lines)


def take_submit(words: Sequence[str]) -> tuple[list[str], str]:
    """The words without `--submit URL`, and the URL, "" if there is none. Raises UserError for a bad one."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--submit", nargs="?", const="")
    known, rest = parser.parse_known_args(words)
    if known.submit is not None and not known.submit.startswith(("http://", "https://")):
        raise UserError(
            f"--submit {known.submit!r} is not the address of a Ray dashboard, such as http://head:8265."
        )
    return rest, known.submit or ""


def resolve(words: Sequence[str]) -> tuple[str, list[str]]:
    """The package that the first word names, and the words after it. Raises UserError for an unknown verb."""
    verb, *options = words or [""]
    known = VERBS
    if verb not in known:  # plugins are imported only when they are needed
        known = {name: entry for verbs in verb_groups().values() for name, entry in verbs.items()}
    if verb not in known:
        close = difflib.get_close_matches(verb, known, n=1)
        way_out = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(known)}."
        raise UserError(f"There is no verb {verb!r}: {way_out}")
    return known[verb][0], options


def submit(head: str, package: str, options: Sequence[str]) -> int:
    """Run the verb on a cluster as a Ray job and follow it; returns its exit status.

    Its log goes to stderr, and the JSON object on its last line to stdout, as if the verb had run here.
    """
    from ray.job_submission import JobStatus, JobSubmissionClient

    try:
        client = JobSubmissionClient(head)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"No Ray cluster answers at {head}: {error}.") from None
    job = send(client, shlex.join(["python", "-m", package, *options]))
    report = follow(client, job)
    status = client.get_job_status(job)
    if status == JobStatus.SUCCEEDED:
        print(report, flush=True)
        return 0
    print(f"error: job {job} ended as {status}", file=sys.stderr)
    return client.get_job_info(job).driver_exit_code or 1


def send(client, entrypoint: str) -> str:
    """Submit the command with the repository's code; returns the job's id.

    A cluster that has just started does not accept jobs yet, so submission is retried for a minute.
    """
    from cluster.compat.errors import is_agent_missing
    from cluster.profile import ROOT
    from cluster.session import EXCLUDES

    give_up_s = time.monotonic() + SUBMIT_TIMEOUT_S
    code = {"working_dir": str(ROOT), "excludes": EXCLUDES}
    while True:
        try:
            return client.submit_job(entrypoint=entrypoint, runtime_env=code)
        except RuntimeError as error:
            if not is_agent_missing(error) or time.monotonic() > give_up_s:
                raise UserError(f"The cluster at {client.get_address()} refuses the job: {error}") from None
            time.sleep(2)


def follow(client, job: str) -> str:
    """Print the job's log to stderr as it grows; returns its last line that is a JSON object, or ""."""
    import asyncio

    async def tail() -> str:
        text = ""
        async for part in client.tail_job_logs(job):
            print(part, end="", file=sys.stderr, flush=True)
            text = (text + part)[-1_000_000:]
        return text

    return next((line for line in reversed(asyncio.run(tail()).splitlines()) if _is_object(line)), "")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
