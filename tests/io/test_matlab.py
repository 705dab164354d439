from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from pose_rft.errors import PoseRftError
from pose_rft.io.matlab import Cells, cells, mat_version, number, open_hdf5, read_mat, structs, text
from pose_rft.sample.matlab_files import cell_column, struct_array, write_v5, write_v73


def test_both_kinds_come_back_in_matlabs_shape(tmp_path: Path) -> None:
    array = np.arange(24.0).reshape(2, 3, 1, 4)
    write_v5(tmp_path / "five.mat", {"annot": array})
    write_v73(tmp_path / "seven.mat", {"annot": array})
    assert mat_version(tmp_path / "five.mat") == "5"
    assert mat_version(tmp_path / "seven.mat") == "7.3"
    for name in ("five.mat", "seven.mat"):
        np.testing.assert_array_equal(read_mat(tmp_path / name)["annot"], array)


def test_the_v73_files_are_what_scipy_refuses_and_h5py_reads_transposed(tmp_path: Path) -> None:
    write_v73(tmp_path / "seven.mat", {"annot2": np.zeros((2, 17, 1, 5))})
    with pytest.raises(NotImplementedError):
        scipy.io.loadmat(tmp_path / "seven.mat")
    with h5py.File(tmp_path / "seven.mat") as file:
        assert file["annot2"].shape == (5, 1, 17, 2)


def test_hdf5_cells_are_read_one_by_one(tmp_path: Path) -> None:
    masks = [np.full((4, 6), i, np.uint8) for i in range(3)]
    write_v73(tmp_path / "masks.mat", {"Masks": [masks[0], masks[0], masks[1], masks[2]]})
    with open_hdf5(tmp_path / "masks.mat") as file:
        assert file["Masks"].shape == (4, 1)
        for row, expected in enumerate((0, 0, 1, 2)):
            mask = Cells(file, "Masks")[row]
            assert mask.shape == (4, 6) and mask.dtype == np.uint8 and (mask == expected).all()


def test_files_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_v5(tmp_path / f"{name}5.mat", {"x": np.arange(2000.0)}, compress=True)
        write_v73(tmp_path / f"{name}7.mat", {"x": np.arange(2000.0), "c": [np.ones((2, 2), np.uint8)]})
    for kind in ("5.mat", "7.mat"):
        assert (tmp_path / f"a{kind}").read_bytes() == (tmp_path / f"b{kind}").read_bytes()


def test_structs_cells_and_scalars_unwrap(tmp_path: Path) -> None:
    points = struct_array([{"x": 3.5, "id": 2, "is_visible": "1"}, {"x": 1.0, "id": 0, "is_visible": np.zeros((0, 0))}])
    content = {"R": struct_array([{"name": "a.jpg", "points": points}]), "c": cell_column(["x", np.array([[1, 2]])])}
    write_v5(tmp_path / "s.mat", content)
    back = read_mat(tmp_path / "s.mat")
    (row,) = structs(back["R"])
    assert text(row["name"]) == "a.jpg"
    inner = structs(row["points"])
    assert [number(p["x"]) for p in inner] == [3.5, 1.0]
    assert [number(p["is_visible"]) for p in inner] == [1.0, None]
    assert text(cells(back["c"])[0]) == "x" and len(cells(back["c"])) == 2
    assert structs(np.zeros((0, 0))) == [] and structs(None) == [] and number(None) is None


@pytest.mark.parametrize("kind", ["5", "7.3"])
def test_damaged_files_raise_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.mat"
    write = write_v5 if kind == "5" else write_v73
    write(path, {"x": np.arange(3000.0), "y": np.arange(10.0)})
    whole = path.read_bytes()
    for content in (b"", b"hello" * 100, whole[:140], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(PoseRftError, match=r"bad\.mat"):
            read_mat(path)


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    write_v73(tmp_path / "m.mat", {"x": np.zeros((2, 2))})
    with pytest.raises(PoseRftError, match="Masks"), open_hdf5(tmp_path / "m.mat") as file:
        Cells(file, "Masks")[0]
