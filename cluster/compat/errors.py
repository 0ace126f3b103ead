"""Library errors that only their text tells apart."""

import re
from collections.abc import Iterator

from pydantic import ValidationError

from cluster.errors import JobFailure, brief

CONFLICT_WORDS = ("conflict", "concurrent", "contention", "please retry", "retryable")


def is_commit_conflict(error: BaseException) -> bool:
    """Lance: whether a write failed only because another writer committed first.

    LanceDB raises a plain RuntimeError and pylance an OSError; only the text names the cause.
    """
    text = str(error).lower()
    if not isinstance(error, OSError | RuntimeError) or storage_fault(error):
        return False
    return any(word in text for word in CONFLICT_WORDS)


def is_missing_table(error: ValueError) -> bool:
    """LanceDB: `open_table` raises a plain ValueError for a missing table and for every other fault.

    `list_tables` is no substitute: it lists a table before its first version is complete.
    """
    return "was not found" in str(error)


def is_missing_file(error: RuntimeError) -> bool:
    """Lance: whether a file of an open version is gone because that version was cleaned up.

    Searching such a version raises a plain RuntimeError.
    """
    return "Not found" in str(error)


def is_start_timeout(error: Exception) -> bool:
    """Ray: whether a node took more than 30 s to start, as it may on a busy machine.

    `ray.init` raises a plain Exception, and no setting changes the 30 s.
    """
    return "timed out" in str(error)


def is_agent_missing(error: RuntimeError) -> bool:
    """Ray Jobs: whether a cluster that has just started cannot take jobs yet.

    `submit_job` raises a plain RuntimeError for every refusal.
    """
    return "No available agent" in str(error)


# Pattern -> fault. Lance, Arrow, torch and Ray wrap errors of the operating system in errors of their own.
DISK_FAULTS = {
    "No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing": (
        "its disk is full: free space and run the command again, which continues from what was stored"
    ),
    "Read-only file system|ReadOnlyFilesystem": (
        "it can only be read: make its file system writable, or name another place"
    ),
    "Permission denied|PermissionDenied|Operation not permitted": (
        "access to it is denied: change its permissions, or run the command as its owner"
    ),
    "File too large": "a file in it would exceed the limit for the size of files: raise `ulimit -f`",
    "Too many open files": "this process may open too few files: raise `ulimit -n`",
    "Input/output error|Stale file handle|Transport endpoint is not connected": (
        "its disk or mount fails: check that it is connected and healthy"
    ),
}
STORE_FAULTS = {
    r"upgrade Lance|upgrade to a newer version|newer(, incompatible)? version of Lance|lance\.encodings\d": (
        "it was written by a newer version of Lance: upgrade Kallos"
    ),
    "AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|CredentialsError|status: 40[13]|TokenRequest|"
    "no storage account": (
        "the object store refuses the credentials: set those of its provider, such as AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY"
    ),
    "NoSuchBucket|Failed to resolve region": (
        "there is no such bucket, or it cannot be reached: check its name, the network, AWS_REGION and the "
        "credentials"
    ),
    "RetryError|ConnectError|Generic (S3|GCS|MicrosoftAzure) error": (
        "the object store cannot be reached: check the address, the network and the credentials"
    ),
    r"file size is too small|Invalid range \d|does not appear to be a Lance file|Not found: |magic number|"
    "[Pp]rotobuf message|Not a directory": (
        "its files are damaged or missing: restore them from a copy, or move the store away and start anew"
    ),
}


def storage_fault(error: BaseException) -> str | None:
    """What is wrong with the place where data is kept, and the way out; None for any other error.

    Reads the error and its causes, because Ray and Arrow raise errors of their own around them.
    """
    text = "\n".join(map(str, causes(error)))
    faults = DISK_FAULTS | (STORE_FAULTS if re.search("lance|object store", text) else {})
    return next((fault for pattern, fault in faults.items() if re.search(pattern, text)), None)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, then each error that it wraps, as those of Ray and other libraries do."""
    while error is not None:
        yield error
        below = getattr(error, "cause", None)  # an error in a worker of Ray
        below = below if isinstance(below, BaseException) else error.__cause__
        error = None if below is error else below


def first_cause(error: BaseException) -> str:
    """What went wrong first, on one line without a full stop.

    Ray, vLLM and others raise errors of their own around it ("Engine core initialization failed. See root
    cause above"), and pydantic writes its messages over several lines with an address at the end. The type of
    a ValueError or OSError adds nothing to its text.
    """
    *_, error = causes(error)
    if isinstance(error, JobFailure):
        return str(error)
    if isinstance(error, ValidationError):
        faults = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
        text = "; ".join(": ".join(filter(None, fault)) for fault in faults)
        return brief(text.replace("Value error, ", ""))
    text = str(error)
    speaks = isinstance(error, ValueError | OSError) and not isinstance(error, UnicodeError)
    return brief(text if text and speaks else f"{type(error).__name__}: {text}").removesuffix(":")


def lance_reason(error: BaseException) -> str:
    """What an error of LanceDB says, in one line without places in its source code; "" for other errors."""
    text = re.sub(r",? ?/\S+\.rs:\d+(:\d+)?", "", " ".join(str(error).split()))
    reason = re.sub(r"^((lance error|External error|Invalid (user )?input)[:,] )+", "", text)
    return brief(reason) if reason != text else ""


def sentence_of(error: BaseException, kind: type[Exception]) -> str | None:
    """Ray: the sentence of an error of our class `kind` inside an error of Ray, None if there is none.

    Ray keeps what the constructor of an actor raises only as a part of its own text, with the traceback.
    """
    sentences = re.findall(rf"{re.escape(f'{kind.__module__}.{kind.__name__}')}: (.+)", str(error))
    if not sentences and isinstance(error, kind):
        sentences = str(error).strip().splitlines()[-1:]
    return sentences[0] if sentences else None
