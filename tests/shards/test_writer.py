import io
import tarfile
import zipfile

import numpy as np
import pytest
from webdataset.writer import TarWriter

from pose_rft.record import Record
from pose_rft.shards.writer import header, write_shard
from tests.support.fake_release import fake_record


@pytest.mark.parametrize(("name", "size"), [("a.json", 0), ("k" * 96 + ".jpg", 511), ("x_000001.npz", 8**10)])
def test_a_header_is_the_one_that_tarfile_makes(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname = size, 0o444, "root", "root"
    assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("count", [0, 1, 7, 30])
def test_a_shard_has_the_bytes_that_webdataset_writes(tmp_path, count: int) -> None:
    records = [fake_record("fake", "train", "u00", number) for number in range(count)]
    write_shard(tmp_path, tmp_path, 0, (("u00", record) for record in records))
    expected = io.BytesIO()
    with TarWriter(expected, user="root", group="root", mode=0o444, mtime=0, encoder=False) as tar:
        for record in records:
            tar.write({"__key__": record.key, **record.to_members()})
    assert (tmp_path / "00000.tar").read_bytes() == expected.getvalue()


def test_an_npz_has_the_bytes_that_zipfile_writes() -> None:
    record: Record = fake_record("fake", "train", "u00", 1)
    content = record.to_members()["npz"]
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    expected = io.BytesIO()
    with np.load(io.BytesIO(content)) as arrays, zipfile.ZipFile(expected, "w", zipfile.ZIP_STORED) as archive:
        assert len(arrays.files) >= 8
        for name in arrays.files:
            stored = io.BytesIO()
            np.lib.format.write_array(stored, arrays[name])
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), stored.getvalue())
    assert content == expected.getvalue()
