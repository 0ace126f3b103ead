"""WebDataset tars."""

import io
import tarfile

import pyarrow as pa
from pictures import encoded, gradient

from jobs.ingest.sources.image_text import TextColumns
from jobs.ingest.sources.tars import TarSamples, tar_rows


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def read_all(reader_type, path):
    """The rows that a reader yields for one file, without Ray's scheduling."""
    reader = object.__new__(reader_type)
    with open(path, "rb") as file:
        return [row for table in reader.read(pa.PythonFile(file), str(path)) for row in table.to_pylist()]


def test_tar_members_are_grouped_into_samples_by_key(tmp_path):
    photo = encoded(gradient())
    write_tar(
        tmp_path / "s.tar",
        [
            ("a/1.jpg", photo),
            ("a/1.txt", b"a boat"),
            ("a/2.json", b'{"caption": "tea", "split": "train"}'),
            ("a/2.JPEG", photo),
            ("3.txt", b"caption without image"),
            ("4.jpg", photo),
            ("4.json", b"not json"),
        ],
    )
    rows = read_all(TarSamples, tmp_path / "s.tar")
    found = list(tar_rows(pa.Table.from_pylist(rows), prefix="", columns=TextColumns()))
    tar = tmp_path / "s.tar"
    assert [row.uri for row in found] == [f"{tar}#a/1.jpg", f"{tar}#a/2.JPEG", f"{tar}#/3", f"{tar}#4.jpg"]
    assert [row.text.caption for row in found] == ["a boat", "tea", "caption without image", ""]
    assert found[1].text.tags == ("split:train",)
    assert [bool(row.error) for row in found] == [False, False, True, False]


def test_a_truncated_tar_keeps_its_complete_samples(tmp_path):
    photo = encoded(gradient(400, 300))
    write_tar(tmp_path / "s.tar", [(f"{index}.jpg", photo) for index in range(5)])
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[: 3 * len(whole) // 5])
    rows = read_all(TarSamples, tmp_path / "s.tar")
    assert sum(row["bytes"] == photo for row in rows) >= 2
    assert [row["error"] for row in rows if row["error"]] != []
    assert "truncated" in " ".join(row["error"] for row in rows)
