"""The Hugging Face hub without a connection."""

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

TIMEOUT_S = 10.0


def is_reachable(repository: str) -> bool:
    """Whether the hub answers about the repository. If not, this process no longer asks the hub for any file.

    Otherwise the hub's library would try for up to a minute per file, even for cached files. It reads the
    variable HF_HUB_OFFLINE once, when it is imported, and has no function for it.
    """
    try:
        HfApi().model_info(repository, timeout=TIMEOUT_S)
    except HfHubHTTPError:
        return True  # also for a repository that does not exist
    except Exception:
        constants.HF_HUB_OFFLINE = True
        return False
    return True


def is_cached(repository: str, file: str) -> bool:
    """Whether the file of the repository is in this machine's cache."""
    return isinstance(try_to_load_from_cache(repository, file), str)
