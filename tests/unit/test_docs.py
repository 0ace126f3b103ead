"""The README names every profile and existing files, and the generated references are current."""

import re

import pytest

from cluster.profile import ROOT, profile_names
from jobs.cli import verb_groups
from lab import profile_reference, verb_reference

README = ROOT / "README.md"


@pytest.fixture(scope="module")
def readme() -> str:
    return README.read_text(encoding="utf-8")


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


@pytest.mark.parametrize("module", [profile_reference, verb_reference], ids=["profile", "verb"])
def test_generated_reference_is_current(module):
    page = "profile.md" if module is profile_reference else "verbs.md"
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == module.reference(), f"run: python -m {module.__name__} > docs/{page}"


def test_verb_reference_has_every_verb():
    text = verb_reference.reference()
    assert all(f"### kallos {verb}" in text for verbs in verb_groups().values() for verb in verbs)
