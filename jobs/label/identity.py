"""Hashes of the models and files that determine a run's labels, and so its name."""

import hashlib
import json
from pathlib import Path
from typing import Any

from actors.engine import model_identity
from cluster.profile import LanguageModel


def rephraser_identity(model: LanguageModel) -> list[Any]:
    """The rephraser and its sampling settings: a change of either changes the rephrased queries."""
    return [model_identity(model), model.temperature, model.max_tokens]


def judge_identity(judge: LanguageModel | None, scorer: str | None) -> str:
    """The value of the column `judge`: the scorer, the judge or both; pass None for one that is not used."""
    names = [f"scorer:{scorer}"] if scorer else []
    return "+".join([*names, model_identity(judge)] if judge else names)


def file_hash(path: str | None) -> str:
    """16 hex characters of the file's content, "" without a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path else ""


def short_hash(value: Any) -> str:
    """16 hex characters of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
