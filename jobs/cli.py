"""The `kallos` command: a verb runs here, or on a cluster with `--submit http://head:8265`.

Only the verb's own module is imported, so that `kallos` and its help answer at once.
"""

import importlib
import importlib.util
import json
import shlex
import sys
import time
from collections.abc import Sequence

from cluster.errors import UserError

# verb -> (module, what it does)
VERBS = {
    "studio": ("jobs.studio", "write a seeded world of photograph-like images"),
    "pretrain": ("jobs.pretrain", "train the small models: encoder, rephraser, judge"),
    "ingest": ("jobs.ingest", "read images, check and embed them"),
    "label": ("jobs.label", "rephrase, retrieve and re-rank queries into preferences"),
    "align": ("jobs.align", "align an encoder with the preferences"),
    "index": ("jobs.index", "embed the gallery with an encoder and index it"),
    "delete": ("jobs.delete", "remove images from every table and every index"),
    "evaluate": ("jobs.evaluate", "compare encoders: metrics and a report page"),
    "promote": ("jobs.promote", "let `live` name an encoder that passed its checks, or the one before"),
    "serve": ("serve_app", "answer searches over HTTP, with a page"),
    "search": ("serve_app.search", "ask a running server"),
    "feedback": ("jobs.feedback", "tell what people chose, export their blind comparisons"),
    "demo": ("jobs.demo", "the whole loop on a small world"),
    "bench": (
        "jobs.bench",
        "measure: ingest, label and align against plain loops, index against exact search",
    ),
}
SUBMIT_TIMEOUT_S = 60.0
USAGE = "usage: kallos <verb> [--submit http://head:8265] [options]; `kallos <verb> --help` lists them"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the verb that `argv` (default: the process's) names; exits with its status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return
    try:
        words, head = take_submit(words)
        module, options = resolve(words)
        if head:
            sys.exit(submit(head, module, options))
        run(module, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def help_text() -> str:
    """The verbs, one a line."""
    lines = [f"  {verb:<10}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join([USAGE, "", "verbs:", *lines])


def take_submit(words: Sequence[str]) -> tuple[list[str], str]:
    """The words without `--submit URL` (or `--submit=URL`), and the URL, "" when it is not there.

    Raises:
        UserError: the address is missing or not http(s).
    """
    rest, head = [], ""
    pending = iter(words)
    for word in pending:
        if word != "--submit" and not word.startswith("--submit="):
            rest.append(word)
            continue
        head = next(pending, "") if word == "--submit" else word.removeprefix("--submit=")
        if not head.startswith(("http://", "https://")):
            raise UserError(
                f"--submit {head!r} is not the address of a Ray dashboard, such as http://head:8265."
            )
    return rest, head


def resolve(words: Sequence[str]) -> tuple[str, list[str]]:
    """The module that the first word names, and the words that follow.

    Raises:
        UserError: no such verb.
    """
    if not words or words[0] not in VERBS:
        given = repr(words[0]) if words else "nothing"
        raise UserError(f"There is no verb {given}: give one of {', '.join(VERBS)}.")
    return VERBS[words[0]][0], list(words[1:])


def run(module: str, options: Sequence[str]) -> None:
    """Call the module's `main()`, as `python -m module` would."""
    sys.argv = [f"kallos {module.rpartition('.')[2]}", *options]
    importlib.import_module(entry(module)).main()


def entry(module: str) -> str:
    """The module whose `main` is the entry point: a package has it in `__main__`."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise UserError(f"The module {module} is not installed: reinstall kallos with `make setup`.")
    return f"{module}.__main__" if spec.submodule_search_locations is not None else module


def submit(head: str, module: str, options: Sequence[str]) -> int:
    """Send the verb to a cluster as a Ray job and follow it; returns its exit status.

    Its log goes to stderr; the JSON object that it ends with is printed on stdout, as if it had run here.
    """
    from ray.job_submission import JobStatus, JobSubmissionClient

    try:
        client = JobSubmissionClient(head)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"No Ray cluster answers at {head}: {error}.") from None
    job = send(client, shlex.join(["python", "-m", module, *options]))
    report = follow(client, job)
    status = client.get_job_status(job)
    if status == JobStatus.SUCCEEDED:
        print(report, flush=True)
        return 0
    print(f"error: job {job} ended as {status}", file=sys.stderr)
    return client.get_job_info(job).driver_exit_code or 1


def send(client, entrypoint: str) -> str:
    """Submit the command with the repository's code; returns the job's id.

    A cluster that has just started takes no jobs yet, so it is asked again for a while.
    """
    from cluster.profile import ROOT
    from cluster.session import EXCLUDES

    give_up_s = time.monotonic() + SUBMIT_TIMEOUT_S
    while True:
        try:
            code = {"working_dir": str(ROOT), "excludes": EXCLUDES}
            return client.submit_job(entrypoint=entrypoint, runtime_env=code)
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > give_up_s:
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


if __name__ == "__main__":
    main()
