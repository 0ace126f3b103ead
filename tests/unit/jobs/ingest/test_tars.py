"""WebDataset tars: which words belong to which picture, and what damaged and hostile tars give."""

import gzip
import io
import os
import tarfile
import time

import pytest
from hostile_files import not_pictures, outcomes, photo, pictures_without_reader, read_source, write_tar

from jobs.ingest.sources.source import blocks, file_row

TAR = "s.tar"


def members_of(source):
    """Member of the tar -> outcome."""
    return {uri.removeprefix(f"{TAR}#"): outcome for uri, outcome in outcomes(source).items()}


def header(name: str, **fields) -> tarfile.TarInfo:
    """A member's header with unusual fields."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_text_and_json_members_are_the_words_of_their_image(tmp_path):
    write_tar(
        tmp_path / TAR,
        [
            ("a/1.jpg", photo(1)),
            ("a/1.txt", b"a boat"),
            ("a/2.json", b'{"caption": "tea", "split": "train"}'),
            ("a/2.JPEG", photo(2)),
            ("3.txt", b"caption without image"),
            ("4.jpg", photo(4)),
            ("5.jpg", photo(5)),
            ("5.json", b'{"caption": null, "captions": null}'),
            ("5.txt", "\ufeffthé".encode("utf-16")),
            ("6.json", b'{"caption": "from JSON"}'),
            ("6.jpg", photo(6)),
            ("6.txt", b"from text"),
        ],
    )
    assert members_of(tmp_path) == {
        "a/1.jpg": "a boat",
        "a/2.JPEG": "tea",
        "4.jpg": "",
        "5.jpg": "thé",
        "6.jpg": "from JSON",
        "3.txt": "words without an image",
    }
    _, rows = read_source(tmp_path)
    assert rows[1].text.tags == ("split:train",)


def test_the_text_file_is_the_caption_column_that_the_config_names(tmp_path):
    write_tar(tmp_path / TAR, [("1.jpg", photo(1)), ("1.txt", b"a boat"), ("1.json", b'{"caption": "x"}')])
    assert outcomes(tmp_path, caption_column="title") == {f"{TAR}#1.jpg": "a boat"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"caption": "\\ud83d"}', "is not Unicode text"),
        (b'{"tags": ["\\udc00"]}', "is not Unicode text"),
        (b"[" * 100_000 + b"]" * 100_000, "recursion"),
        (b'{"a":' * 100_000, "recursion"),
        (b'{"caption": ' + b"9" * 5000 + b"}", "integer string conversion"),
        (b"not json", "Expecting value"),
        (b'{"caption": "a"', "delimiter"),
        (b'["a boat"]', "not a JSON object"),
        (b'"a boat"', "not a JSON object"),
        (b'{"caption": "caf\xe9"}', "not text in UTF-8"),
        (b'{"caption": "' + b"a" * (1 << 24) + b'"}', "more than the allowed"),
    ],
)
def test_an_image_with_broken_json_is_rejected_with_the_reason_and_its_neighbours_are_not(
    tmp_path, data, reason
):
    members = [("1.jpg", photo(1)), ("2.jpg", photo(2)), ("2.json", data), ("3.jpg", photo(3))]
    write_tar(tmp_path / TAR, members)
    found = members_of(tmp_path)
    assert "'2.json'" in found["2.jpg"] or "caption or a tag" in found["2.jpg"]
    assert reason in found.pop("2.jpg") and found == {"1.jpg": "", "3.jpg": ""}


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        (b'{"caption": 7}', "7"),
        (b'{"caption": NaN}', ""),
        (b'{"caption": 1e999}', "inf"),
        (b'{"caption": "a", "caption": "b"}', "b"),
        (b'{"caption": ["a", "b"]}', "a"),
        (b'{"caption": {"deep": {"er": "a"}}, "title": "\\ud83d"}', "a"),
        (b'\xef\xbb\xbf{"caption": "a"}', "a"),
        (b"null", ""),
        (b"", ""),
    ],
)
def test_odd_json_is_read_as_far_as_it_has_words(tmp_path, data, caption):
    write_tar(tmp_path / TAR, [("1.jpg", photo(1)), ("1.json", data)])
    assert members_of(tmp_path) == {"1.jpg": caption}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("a.b.jpg a.b.txt a.c.jpg a.c.txt a.d.jpg", {"a.b.jpg": "a.b", "a.c.jpg": "a.c", "a.d.jpg": ""}),
        ("a.b.jpg a.b.txt a.c.txt", {"a.b.jpg": "a.b", "a.c.txt": "words without an image"}),
        ("a.b.jpg a.c.txt", {"a.b.jpg": "", "a.c.txt": "words without an image"}),
        ("1.jpg 1.png 1.txt", {"1.jpg": "1", "1.png": "1"}),
        ("1.jpg 1.seg.png 1.txt", {"1.jpg": "1", "1.seg.png": ""}),
        ("1.left.jpg 1.right.jpg 1.txt", {"1.left.jpg": "1", "1.right.jpg": "1"}),
        ("1.i.jpg 1.t.txt 2.i.jpg 2.t.txt", {"1.i.jpg": "1.t", "2.i.jpg": "2.t"}),
        ("1.jpg.txt 1.jpg", {"1.jpg": "1.jpg"}),
        ("1.jpg.jpg 1.jpg.txt 1.jpg 1.txt", {"1.jpg.jpg": "1.jpg", "1.jpg": "1"}),
        ("./1.jpg 1.txt a//2.jpg a/2.txt", {"./1.jpg": "1", "a//2.jpg": "a/2"}),
        ("e\u0301.jpg \u00e9.txt", {"e\u0301.jpg": "\u00e9"}),
        ("1.jpg 2.jpg 1.txt 2.txt", {"1.jpg": "1", "2.jpg": "2"}),
        ("2.txt 1.txt 1.jpg 2.jpg", {"1.jpg": "1", "2.jpg": "2"}),
        ("x/1.jpg y/1.txt", {"x/1.jpg": "", "y/1.txt": "words without an image"}),
        ("x.y/1.jpg x.y/1.txt x.z/1.jpg", {"x.y/1.jpg": "x.y/1", "x.z/1.jpg": ""}),
        ("1.dng 1.txt", {"1.dng": "images of the format .dng are not read: convert it to JPEG or PNG"}),
    ],
)
def test_every_picture_has_its_own_words_and_nothing_vanishes(tmp_path, files, expected):
    names = files.split()
    data = [
        name.rpartition(".")[0].encode() if name.endswith("txt") else photo(i) for i, name in enumerate(names)
    ]
    write_tar(tmp_path / TAR, zip(names, data, strict=True))
    assert members_of(tmp_path) == expected


def test_words_of_a_name_that_a_tar_has_twice_are_not_guessed(tmp_path):
    twice = [(f"{name}.jpg", photo(seed + 10 * turn)) for turn in (0, 1) for seed, name in enumerate("abc")]
    words = [
        ("a.txt", b"first"),
        ("a.txt", b"second"),
        ("b.txt", b"same"),
        ("b.txt", b"same"),
        ("c.txt", b"one"),
    ]
    write_tar(tmp_path / TAR, [*twice, *words, ("d.txt", b"old"), ("d.jpg", photo(5)), ("d.txt", b"new")])
    _, rows = read_source(tmp_path)
    found = [(row.uri[-5:], row.text.caption, row.error.rpartition(": ")[2]) for row in rows]
    reason = "the tar has several files of its name"
    expected = [("a.jpg", "", reason), ("b.jpg", "same", ""), ("c.jpg", "one", "")]
    assert found == [*expected, *expected, ("d.jpg", "new", "")]


def test_pictures_of_two_tars_may_have_the_same_names(tmp_path):
    for tar in ("a.tar", "b.tar"):
        write_tar(tmp_path / tar, [("1.jpg", photo(1)), ("1.txt", tar.encode())])
    assert outcomes(tmp_path) == {"a.tar#1.jpg": "a.tar", "b.tar#1.jpg": "b.tar"}


def test_names_that_are_not_utf8_and_strange_names_are_rows_of_their_own(tmp_path):
    names = [
        "\udcff.jpg",
        "new\nline.jpg",
        "a%20b.jpg",
        "a#b.jpg",
        " a.jpg",
        "/root.jpg",
        "../up.jpg",
        "é" * 200 + ".jpg",
    ]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / TAR, "w", format=form) as tar:
            for index, name in enumerate(names):
                tar.addfile(header(name, size=len(photo(index))), io.BytesIO(photo(index)))
            tar.addfile(header("\udcff.txt", size=1), io.BytesIO(b"a"))
        assert members_of(tmp_path) == {
            "\\xff.jpg": "the file's name is not UTF-8",
            **dict.fromkeys(names[1:], ""),
        }


def test_hidden_members_and_members_that_are_not_pictures_are_counted(tmp_path):
    strange = pictures_without_reader()
    hidden = {"._1.jpg": b"\0\5\x16\7", "__MACOSX/._1.txt": b"\0\5\x16\7", ".git/a.jpg": photo(8)}
    plain = {"./1.jpg": photo(1), "1.cls": b"3", "1.npy": b"\x93NUMPY", **not_pictures()}
    write_tar(
        tmp_path / TAR,
        [*plain.items(), *hidden.items(), *((name, data) for name, (data, _) in strange.items())],
    )
    found = members_of(tmp_path)
    assert found.pop("./1.jpg") == ""
    assert {name for name in found if found[name] == "ignored"} == {*hidden, *plain} - {"./1.jpg"}
    assert {name for name in found if found[name] != "ignored"} == set(strange)
    assert f"{TAR}#.git/a.jpg" in outcomes(tmp_path, include_hidden=True)


def test_links_and_devices_in_a_tar_are_rejected_by_name(tmp_path):
    kinds = {
        "hard.jpg": tarfile.LNKTYPE,
        "soft.jpg": tarfile.SYMTYPE,
        "fifo.jpg": tarfile.FIFOTYPE,
        "device.jpg": tarfile.CHRTYPE,
    }
    links = [(header(name, type=kind, linkname="1.jpg"), b"") for name, kind in kinds.items()]
    folder = (header("folder.jpg", type=tarfile.DIRTYPE), b"")
    write_tar(tmp_path / TAR, [("1.jpg", photo(1)), *links, folder, ("2.jpg", photo(2))])
    found = members_of(tmp_path)
    assert found.pop("1.jpg") == found.pop("2.jpg") == ""
    assert set(found) == set(kinds) and all("a link or a device" in reason for reason in found.values())


def whole_tar(tmp_path, count=5) -> bytes:
    write_tar(tmp_path / TAR, [(f"{index}.jpg", photo(index)) for index in range(count)])
    return (tmp_path / TAR).read_bytes()


def damaged(data: bytes, tmp_path) -> tuple[list[str], str]:
    """(images, reason) of a tar with these bytes."""
    (tmp_path / TAR).write_bytes(data)
    found = outcomes(tmp_path)
    reason = found.pop(TAR, "")
    found.pop(f"{TAR}#declared.jpg", None)
    assert set(found.values()) <= {""}
    return [name.removeprefix(f"{TAR}#") for name in found], reason


def test_a_truncated_tar_keeps_its_complete_members_and_names_the_tar(tmp_path):
    data = whole_tar(tmp_path)
    second = data.index(b"2.jpg\0")
    for end in (second, second + 100, second + 600):  # between two members, in a header, in the content
        images, reason = damaged(data[:end], tmp_path)
        assert images == ["0.jpg", "1.jpg"] and "truncated or damaged" in reason
    assert "no end mark" in damaged(data[:second], tmp_path)[1]
    assert damaged(b"", tmp_path)[0] == [] and damaged(b"no tar" * 1000, tmp_path)[1]


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    data = bytearray(whole_tar(tmp_path))
    data[data.index(b"2.jpg\0") + 148] ^= 1
    images, reason = damaged(bytes(data), tmp_path)
    assert images == ["0.jpg", "1.jpg"] and "bad checksum" in reason


def test_concatenated_tars_and_padding_after_the_end_are_read(tmp_path):
    data = whole_tar(tmp_path, 2)
    other = whole_tar(tmp_path, 4)
    assert damaged(data + bytes(20_000) + b"padding", tmp_path) == (["0.jpg", "1.jpg"], "")
    (tmp_path / TAR).write_bytes(data + other)
    assert len(read_source(tmp_path)[1]) == 6


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "s.tar.bz2", "s.tbz2", "s.tar.xz", "s.txz"])
def test_a_compressed_tar_is_read_and_a_truncated_one_named(tmp_path, name):
    noise = [(f"{index}.jpg", os.urandom(30_000)) for index in range(5)]
    write_tar(tmp_path / name, noise, "w:gz" if "g" in name else "w:bz2" if "b" in name else "w:xz")
    assert len(outcomes(tmp_path)) == 5
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    found = outcomes(tmp_path)
    assert len(found) < 5 and "truncated or damaged" in found[name]


def test_a_gzip_of_several_parts_is_read_whole(tmp_path):
    data = whole_tar(tmp_path)
    parts = gzip.compress(data[:3000]) + gzip.compress(data[3000:])
    assert damaged(parts, tmp_path) == ([f"{index}.jpg" for index in range(5)], "")


def raw(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """A header whose size is declared, in base 256 if negative or large."""
    header = tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)
    block = bytearray(header[:512])
    block[0:100] = name.ljust(100, b"\0")
    block[124:136] = (
        (size & ((1 << 96) - 1)).to_bytes(12, "big")
        if size < 0
        else b"%011o\0" % size
        if size < 8**11
        else b"\x80" + size.to_bytes(11, "big")
    )
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (raw(b"declared.jpg", 1 << 60), "unexpected end of data"),
        (raw(b"declared.jpg", -512), "declares -512 bytes"),
        (raw(b"././@PaxHeader", 1 << 40, b"x"), "declares 1,099,511,627,776 bytes"),
        (raw(b"././@PaxHeader", 1 << 40, b"g"), "declares 1,099,511,627,776 bytes"),
        (raw(b"././@LongLink", 1 << 40, b"L"), "declares 1,099,511,627,776 bytes"),
        (raw(b"././@PaxHeader", 512, b"x") + b"0 path=x\n".ljust(512, b"\0"), "invalid header"),
        (raw(b"././@PaxHeader", 512, b"x") + (b"9" * 500 + b" path=x\n"), ""),
        (raw(b"././@LongLink", 0, b"L") * 2000, "recursion"),
        (raw(b"././@LongLink", 512, b"L") + bytes(512), "end of file header"),
    ],
)
def test_hostile_headers_end_the_tar_with_a_reason(tmp_path, head, reason):
    data = whole_tar(tmp_path, 2)
    end = data.index(bytes(1024), data.index(b"1.jpg\0") + 600) // 512 * 512
    members = data[: end + 512]
    started = time.monotonic()
    tail = bytes(1024) if "end of file" in reason else data
    images, found = damaged(members + head + tail, tmp_path)
    assert images[:2] == ["0.jpg", "1.jpg"]
    assert "truncated or damaged" in found and reason in found
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "pax",
    [
        {"size": "-5"},
        {"size": "many"},
        {"size": "9" * 30},
        {"mtime": "nan"},
        {"GNU.sparse.map": "0,1,x"},
        {"GNU.sparse.size": "9" * 15, "GNU.sparse.numblocks": "0"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 15},
        {"hdrcharset": "KLINGON"},
        {"path": "p.jpg"},
        {"comment": "x" * 100_000},
    ],
)
def test_odd_extended_headers_cost_at_most_the_rest_of_their_tar(tmp_path, pax):
    info = header("odd.jpg", pax_headers=pax)
    write_tar(tmp_path / TAR, [("1.jpg", photo(1)), (info, photo(2)), ("3.jpg", photo(3))])
    found = members_of(tmp_path)
    assert found.pop("1.jpg") == ""
    assert TAR in found or "3.jpg" in found
    assert TAR in found or {"odd.jpg", "p.jpg"} & set(found)


def test_a_gzip_bomb_is_rejected_by_its_declared_size(tmp_path, monkeypatch):
    for module in ("tars", "listing"):
        monkeypatch.setattr(f"jobs.ingest.sources.{module}.MAX_FILE_BYTES", 1 << 20)
    zeros = gzip.compress(raw(b"bomb.jpg", 1 << 26) + bytes(1 << 26) + whole_tar(tmp_path, 1))
    (tmp_path / TAR).write_bytes(zeros)
    assert len(zeros) < 1 << 17
    assert members_of(tmp_path) == {
        "bomb.jpg": "the file has more than the allowed 536,870,912 bytes",
        "0.jpg": "",
    }


def test_the_words_of_a_tar_are_read_up_to_a_limit_and_rows_come_in_small_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.ingest.sources.tars.MAX_TAR_WORD_BYTES", 12)
    members = [
        (f"{index}.{suffix}", data)
        for index in range(3)
        for suffix, data in (("txt", b"words"), ("jpg", photo(index)))
    ]
    write_tar(tmp_path / TAR, members)
    assert members_of(tmp_path) == {
        "0.jpg": "words",
        "1.jpg": "words",
        "2.jpg": "its words in '2.txt' cannot be read: its tar has too many words",
    }
    monkeypatch.setattr("jobs.ingest.sources.source.BLOCK_BYTES", 2 * len(photo()) - 100)
    sizes = [len(table) for table in blocks(file_row("p", "u", photo()) for _ in range(5))]
    assert sizes == [2, 2, 1]
