"""A sample's arrays: the bytes are a true .npz, come back as they were, and damage is always noticed."""

import io
import struct

import numpy as np
import pytest

from pose_rft.io.packed_arrays import pack, unpack


def arrays(seed: int = 0, joints: int = 17) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "smpl.betas": rng.normal(size=10).astype(np.float32),
        "smpl.valid": rng.random(24) < 0.5,
        "joints3d.points": rng.normal(size=(joints, 4)).astype(np.float32),
        "camera.K": rng.normal(size=(3, 3)),
        "one": np.array(3, np.int64),
        "none": np.zeros((0, 3), np.float32),
    }


def test_numpy_reads_what_is_packed() -> None:
    with np.load(io.BytesIO(pack(arrays())), allow_pickle=False) as archive:
        assert list(archive) == list(arrays())
        for name, array in arrays().items():
            np.testing.assert_array_equal(archive[name], array)


@pytest.mark.parametrize("joints", [17, 24, 17])
def test_arrays_come_back_with_type_and_shape_aligned_and_as_the_readers_own(joints: int) -> None:
    """Also when archives of several layouts, some of one length, come in turn."""
    for seed in range(3):
        whole = arrays(seed, joints)
        for given in (whole, {name: whole[name] for name in ("one", "camera.K")}, {"eno": whole["one"]}, {}):
            found = unpack(pack(given))
            assert found.keys() == given.keys()
            for name, array in given.items():
                assert found[name].dtype == array.dtype and found[name].flags.aligned
                np.testing.assert_array_equal(found[name], array)
                found[name][...] = 0  # nobody else sees this
    np.testing.assert_array_equal(unpack(pack(arrays()))["one"], 3)


def test_archives_of_one_length_and_other_names_are_not_confused() -> None:
    first, second = pack({"a": np.arange(3.0)}), pack({"b": np.arange(3.0) + 1})
    assert len(first) == len(second)
    for _ in range(2):
        assert list(unpack(first)) == ["a"] and list(unpack(second)) == ["b"]
    turned = pack({"a": np.arange(6.0).reshape(2, 3)}), pack({"a": np.arange(6.0).reshape(3, 2)})
    assert [unpack(content)["a"].shape for content in turned] == [(2, 3), (3, 2)]


@pytest.mark.parametrize("known", [False, True])
def test_every_changed_number_is_noticed(known: bool) -> None:
    content = pack(arrays(7, 40 + known))
    if known:
        unpack(content)
    for name, array in arrays(7, 40 + known).items():
        if array.size:
            broken = bytearray(content)
            broken[content.index(array.tobytes())] ^= 1
            with pytest.raises(ValueError, match="checksum"):
                unpack(bytes(broken))
            assert name


@pytest.mark.parametrize("known", [False, True])
def test_any_damage_is_noticed_or_changes_nothing(known: bool) -> None:
    given = arrays(3, 50 + known)
    content = pack(given)
    if known:
        unpack(content)
    rng = np.random.default_rng(0)
    for _ in range(1500):
        broken = bytearray(content)
        if rng.random() < 0.2:
            del broken[int(rng.integers(len(broken))) :]
        else:
            broken[int(rng.integers(len(broken)))] ^= int(rng.integers(1, 256))
        try:
            found = unpack(bytes(broken))
        except (ValueError, struct.error):
            continue
        if found.keys() == given.keys():  # a name has no checksum
            for name in given:
                np.testing.assert_array_equal(found[name], given[name])


def test_an_archive_of_numpys_own_is_refused() -> None:
    file = io.BytesIO()
    np.savez(file, a=np.arange(3))
    with pytest.raises(ValueError, match="packed otherwise"):
        unpack(file.getvalue())
