"""The README names every verb, every profile and existing files, and docs/profile.md is current."""

import re

import pytest

from cluster.profile import ROOT, profile_names
from lab.profile_reference import reference
from jobs.cli import VERBS
from lab.bench.__main__ import PARTS as BENCHMARKS
from lab.pretrain.__main__ import PARTS as MODELS

README = ROOT / "README.md"


@pytest.fixture(scope="module")
def readme() -> str:
    return README.read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", VERBS)
def test_readme_names_every_verb(readme, verb):
    assert re.search(rf"\bkallos {verb}\b", readme) or f"`{verb}`" in readme


@pytest.mark.parametrize(
    ("verb", "part"), [("bench", name) for name in BENCHMARKS] + [("pretrain", name) for name in MODELS]
)
def test_readme_names_every_part_of_a_verb(readme, verb, part):
    assert re.search(rf"\b{verb}\b[^\n]*\b{part}\b", readme)


@pytest.mark.parametrize("name", profile_names())
def test_readme_names_every_profile(readme, name):
    assert re.search(rf"\b{name}\b", readme)


def test_every_make_target_in_the_readme_exists(readme):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", readme))
    assert {"setup", "demo", "test"} <= named <= targets


def test_every_file_linked_in_the_readme_exists(readme):
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", readme) if "://" not in link]
    missing = [link for link in links if not (ROOT / link).exists()]
    assert missing == []


def test_profile_reference_is_current():
    written = (ROOT / "docs" / "profile.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m lab.profile_reference > docs/profile.md"
