"""The README names every verb, every profile and every make target, and only files that exist."""

import re

import pytest

from cluster.profile import ROOT, profile_names
from jobs.cli import VERBS
from lab.bench.__main__ import PARTS as BENCHMARKS
from lab.pretrain.__main__ import PARTS as MODELS

README = ROOT / "README.md"


@pytest.fixture(scope="module")
def readme() -> str:
    if not README.is_file():
        pytest.skip("README.md is not written yet")
    return README.read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_named(readme, verb):
    assert re.search(rf"\bkallos {verb}\b", readme) or f"`{verb}`" in readme


@pytest.mark.parametrize(
    ("verb", "part"), [("bench", name) for name in BENCHMARKS] + [("pretrain", name) for name in MODELS]
)
def test_every_part_of_a_verb_is_named(readme, verb, part):
    assert re.search(rf"\b{verb}\b[^\n]*\b{part}\b", readme)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_named(readme, name):
    assert re.search(rf"\b{name}\b", readme)


def test_every_make_target_that_is_named_exists(readme):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", readme))
    assert {"setup", "demo", "test"} <= named <= targets


def test_every_linked_file_exists(readme):
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", readme) if "://" not in link]
    missing = [link for link in links if not (ROOT / link).exists()]
    assert missing == []
