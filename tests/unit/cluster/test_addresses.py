"""Addresses: a store and the encoders beside it can be moved, copied or reached through a link."""

import shutil

import pytest

from cluster.errors import UserError
from cluster.profile import ROOT
from cluster.store.addresses import located, remembered, store_address
from cluster.tables import EncoderRecord, Store

FINGERPRINT = "0123456789abcdef"


@pytest.fixture
def work(tmp_path):
    """`work` with a store and, beside it, the folder of an encoder that the store has registered."""
    folder = tmp_path / "work"
    (folder / "encoders" / FINGERPRINT).mkdir(parents=True)
    register(folder, folder / "encoders" / FINGERPRINT)
    return folder


def register(folder, checkpoint):
    record = EncoderRecord(encoder=FINGERPRINT, checkpoint=str(checkpoint), dim=2)
    Store(str(folder / "store")).register_encoder(record)


def checkpoint(store) -> str:
    return Store(str(store)).encoder(FINGERPRINT).checkpoint


def test_encoder_beside_the_store_is_found_after_a_move_and_in_a_copy(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint("work/store") == str(work / "encoders" / FINGERPRINT)
    copy = shutil.copytree(work, tmp_path / "copy")
    assert checkpoint(copy / "store") == str(copy / "encoders" / FINGERPRINT)
    work.rename(tmp_path / "moved")
    assert checkpoint("moved/store/") == str(tmp_path / "moved" / "encoders" / FINGERPRINT)
    assert checkpoint((tmp_path / "moved" / "store").as_uri()) == checkpoint("moved/store")


@pytest.mark.parametrize("linked", ["work", "work/store"])
def test_encoder_is_found_through_a_link_and_from_the_place_to_which_it_leads(work, tmp_path, linked):
    real = tmp_path / "disk" / "real"
    real.parent.mkdir()
    (tmp_path / linked).rename(real)
    (tmp_path / linked).symlink_to(real)
    expected = work / "encoders" / FINGERPRINT
    assert checkpoint(work / "store") == str(expected)
    (work / "encoders" / "other").mkdir()
    assert remembered(str(work / "encoders" / "other"), str(work / "store")) == "./../encoders/other"
    if linked == "work":
        assert checkpoint(real / "store") == str(expected.resolve())
        assert remembered(str(work / "encoders"), str(real / "store")) == "./../encoders"


def test_only_a_folder_below_the_parent_of_the_store_is_remembered_relative_to_it(tmp_path, monkeypatch):
    store, elsewhere = str(tmp_path / "data" / "store"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "data" / "store" / "inside").mkdir(parents=True)
    assert remembered(str(elsewhere), store) == str(elsewhere)
    assert remembered(f"{store}/inside", store) == "./inside"
    assert located("./inside", store) == f"{store}/inside"
    assert remembered(str(elsewhere), "s3://bucket/store") == str(elsewhere)
    assert remembered("/tmp", "/store") == "/tmp", "everything is below the root"
    monkeypatch.chdir(tmp_path)
    assert remembered("elsewhere", store) == str(elsewhere)


@pytest.mark.parametrize("name", ["hf-hub:owner/name", "ViT-B-32/openai", "no/such/folder"])
def test_name_that_is_not_a_local_folder_is_remembered_as_it_is(tmp_path, name):
    assert located(remembered(name, str(tmp_path / "store")), str(tmp_path / "store")) == name


def test_shipped_model_is_remembered_relative_to_the_repository(tmp_path):
    shipped = str(ROOT / "models" / "mini" / "encoder")
    for store in (str(tmp_path / "store"), str(ROOT / "store"), "s3://bucket/store"):
        assert remembered(shipped, store) == "models/mini/encoder"


def test_registering_an_encoder_again_mends_its_address_only_if_the_folder_is_gone(tmp_path):
    old, new = tmp_path / "old" / "clip", tmp_path / "new" / "clip"
    for folder in (old, new):
        folder.mkdir(parents=True)
    register(tmp_path / "work", old)
    register(tmp_path / "work", new)
    assert checkpoint(tmp_path / "work" / "store") == str(old)
    old.rmdir()
    register(tmp_path / "work", new)
    assert checkpoint(tmp_path / "work" / "store") == str(new)
    assert Store(str(tmp_path / "work" / "store")).count("encoders") == 1


def test_store_address_is_an_absolute_path_or_a_known_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert store_address("~/store/") == "/home/someone/store"
    assert store_address("a b/../c#d?e%20f") == str(tmp_path / "c#d?e%20f")
    assert store_address("file:///data/a%20b") == store_address("file://localhost/data/a b") == "/data/a b"
    assert store_address("s3://bucket/store/") == "s3://bucket/store"


@pytest.mark.parametrize(
    "uri", ["", "  ", "a\0b", "memory://", "db://name", "http://h/x", "s3:/b/x", "s3://", "file://host/x"]
)
def test_store_of_another_kind_is_refused(uri):
    with pytest.raises(UserError, match=r"store .*s3://bucket/store"):
        Store(uri)
