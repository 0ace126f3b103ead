"""SQL conditions, evaluated by LanceDB."""

import pyarrow as pa
import pytest

from cluster.sql import in_list, literal

NAMES = ["plain", "it's", "'; DROP TABLE images; --", 'double "quotes"', "back\\slash", "100 %", ""]


@pytest.fixture
def named(store):
    store.merge("named", pa.table({"name": NAMES}), on=["name"])
    return store


@pytest.mark.parametrize("name", NAMES)
def test_literal_matches_exactly_its_text(named, name):
    assert named.read("named", where=f"name = {literal(name)}")["name"].to_pylist() == [name]


def test_in_list_matches_exactly_its_values(named):
    assert set(named.read("named", where=in_list("name", NAMES[1:4]))["name"].to_pylist()) == set(NAMES[1:4])
    assert named.count("named", in_list("name", ["absent"])) == 0


def test_empty_in_list_matches_nothing(named):
    assert named.count("named", in_list("name", [])) == 0
