"""Library errors that only their text tells apart."""

CONFLICT_WORDS = ("conflict", "concurrent", "contention", "please retry", "retryable")


def is_commit_conflict(error: BaseException) -> bool:
    """Lance: whether a write failed only because another writer committed first.

    LanceDB raises a plain RuntimeError and pylance an OSError; only the text names the cause.
    """
    text = str(error).lower()
    return isinstance(error, OSError | RuntimeError) and any(word in text for word in CONFLICT_WORDS)


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
