"""Files that are not what they say: each is refused with its own class of error, which names the file and the limit."""

from __future__ import annotations

import json
import os
import struct
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock.errors import LoadFailed, PathEscape, UnsafeFormat
from penstock.safetensors import load_safetensors, open_safetensors
from tests.python.support.arrays import sample
from tests.python.support.weights import entry, of_arrays, packed, sharded

if TYPE_CHECKING:
    from pathlib import Path

GOOD = of_arrays({"a": ("F32", sample("float32", (8,))), "b": ("U8", sample("uint8", (5,)))})
HUGE = 1 << 63
TWICE = '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
TWICE_INSIDE = '{"a":{"dtype":"U8","shape":[2],"shape":[2],"data_offsets":[0,2]}}'
TWICE_META = '{"__metadata__":{"k":"1","k":"2"},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'

BAD: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\x01" * 7,
    "a length alone": struct.pack("<Q", 2),
    "a header of nothing": struct.pack("<Q", 0),
    "a header longer than the file": packed("{}", said=100),
    "huge_header": packed("{}", said=HUGE),
    "a header above the limit": packed("{}", said=(100 << 20) + 1),
    "a header that is no text": packed(b'{"\xff":1}'),
    "a header that is no JSON": packed('{"a":'),
    "a header that is a list": packed("[]"),
    "space before the header": packed(" {}"),
    "words behind the header": packed("{} x"),
    "dup_key": packed(TWICE, b"ab"),
    "dup_key in an entry": packed(TWICE_INSIDE, b"ab"),
    "dup_key in the metadata": packed(TWICE_META, b"ab"),
    "hole at the front": packed({"a": entry(1, 3)}, b"abc"),
    "hole between": packed({"a": entry(0, 1), "b": entry(2, 3)}, b"abc"),
    "bytes behind": packed({"a": entry(0, 2)}, b"abc"),
    "truncated": GOOD[:-1],
    "truncated in the header": GOOD[:20],
    "overlapping": packed({"a": entry(0, 2), "b": entry(1, 3)}, b"abc"),
    "the same bytes twice": packed({"a": entry(0, 2), "b": entry(0, 2)}, b"ab"),
    "backwards": packed({"a": entry(2, 0, [2])}, b"ab"),
    "an unknown type": packed({"a": entry(0, 2, dtype="F7")}, b"ab"),
    "a type in small letters": packed({"a": entry(0, 2, dtype="u8")}, b"ab"),
    "a shape of another length": packed({"a": entry(0, 2, [3])}, b"ab"),
    "a shape that overflows": packed({"a": entry(0, 2, [1 << 33, 1 << 33])}, b"ab"),
    "a shape that overflows to what is there": packed({"a": entry(0, 0, [1 << 32, 1 << 32])}, b""),
    "bits that are no bytes": packed({"a": entry(0, 1, [3], "F4")}, b"a"),
    "a negative axis": packed({"a": entry(0, 2, [-2])}, b"ab"),
    "half an axis": packed({"a": entry(0, 2, [2.5])}, b"ab"),  # type: ignore[list-item]
    "offsets beyond numbers": packed('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,18446744073709551618]}}', b"ab"),
    "negative offsets": packed({"a": {"dtype": "U8", "shape": [2], "data_offsets": [-2, 0]}}, b"ab"),
    "three offsets": packed({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 1, 2]}}, b"ab"),
    "no shape": packed({"a": {"dtype": "U8", "data_offsets": [0, 2]}}, b"ab"),
    "more than an entry has": packed({"a": {**entry(0, 2), "stride": [1]}}, b"ab"),
    "an entry that is a number": packed({"a": 1}),
    "metadata that is no text": packed({"__metadata__": {"a": 1}}),
    "metadata that is a list": packed({"__metadata__": []}),
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02e.",
    "a zip, as PyTorch writes": b"PK\x03\x04" + b"\x00" * 100,
    "a NumPy file": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}" + b" " * 100,
}


@pytest.mark.parametrize("mode", ["auto", "mmap", "read"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_and_named(tmp_path: Path, name: str, mode: Any) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(BAD[name])
    for load in (load_safetensors, open_safetensors):
        with pytest.raises(UnsafeFormat) as told:
            load(path, mode=mode)
        text = str(told.value)
        assert "bad.safetensors" in text
        assert len(text) < 1000
        assert text == text.rstrip(".")
    with pytest.raises(UnsafeFormat):
        load_safetensors(path, mode=mode, names=[])


def test_the_tensor_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    for name in ("hole between", "overlapping", "an unknown type", "more than an entry has"):
        path.write_bytes(BAD[name])
        with pytest.raises(UnsafeFormat, match=r"tensor '[ab]'"):
            load_safetensors(path)


def test_a_shape_that_numpy_cannot_have(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    for shape in ([1] * 100, [0, 1 << 62], [0, 1 << 63]):
        size = 1 if shape[0] else 0
        path.write_bytes(packed({"a": entry(0, size, shape)}, b"a" * size))
        with pytest.raises(UnsafeFormat, match=r"bad\.safetensors"):
            load_safetensors(path)


def test_unaligned_is_no_fault(tmp_path: Path) -> None:
    array = sample("float64", (3,))
    path = tmp_path / "odd.safetensors"
    path.write_bytes(packed({"x": entry(0, 1), "a": entry(1, 25, [3], "F64")}, b"x" + array.tobytes()))
    for mode in ("mmap", "read"):
        loaded = load_safetensors(path, mode=mode)["a"]  # type: ignore[arg-type]
        assert loaded.tolist() == array.tolist() or loaded.tobytes() == array.tobytes()
        assert loaded.flags.aligned
        assert not loaded.flags.writeable


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero"):
        with pytest.raises((LoadFailed, UnsafeFormat)):
            load_safetensors(path)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.safetensors"
    path.write_bytes(GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("whoever runs this may read everything")
    with pytest.raises(LoadFailed, match=r"secret\.safetensors"):
        load_safetensors(path)


def test_a_file_that_shrinks_while_it_is_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shrinks.safetensors"
    array = sample("uint8", (1 << 20,))
    path.write_bytes(of_arrays({"a": ("U8", array)}))
    with open_safetensors(path, mode="read") as file:
        os.truncate(path, 1 << 19)
        with pytest.raises((LoadFailed, UnsafeFormat), match=r"shrinks\.safetensors"):
            file["a"]
        with pytest.raises((LoadFailed, UnsafeFormat), match=r"shrinks\.safetensors"):
            file.slice("a")[-10:]


def test_a_file_that_is_written_anew_while_it_is_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "changes.safetensors"
    path.write_bytes(of_arrays({"a": ("U8", np.zeros(1 << 20, np.uint8))}))
    with open_safetensors(path, mode="read") as file:
        os.utime(path, ns=(1, 1))
        with pytest.raises((LoadFailed, UnsafeFormat), match=r"changes\.safetensors"):
            file["a"]


def test_a_file_that_shrinks_again_and_again_never_gives_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "shrinks.safetensors"
    content = of_arrays({"a": ("U8", np.full(8 << 20, 7, np.uint8))})
    path.write_bytes(content)
    stop = threading.Event()

    def shrink() -> None:
        with path.open("r+b") as file:
            while not stop.is_set():
                file.truncate(len(content) // 2)
                file.seek(0)
                file.write(content)
                file.flush()

    thread = threading.Thread(target=shrink)
    thread.start()
    try:
        for _ in range(50):
            try:
                loaded = load_safetensors(path, mode="read")["a"]
            except (LoadFailed, UnsafeFormat):
                continue
            # Holes of a file that was cut and grew again are zeros: bytes that were never there.
            assert loaded.size == 8 << 20
    finally:
        stop.set()
        thread.join()


def index_of(folder: Path, content: object) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "name",
    ["../out.safetensors", "/etc/out.safetensors", "a/b.safetensors", "..", ".", "a\\b.safetensors", "a\0.safetensors"],
)
def test_index_json_path_escape(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.safetensors").write_bytes(GOOD)
    folder = tmp_path / "model"
    folder.mkdir()
    for load in (load_safetensors, open_safetensors):
        with pytest.raises((PathEscape, UnsafeFormat)) as told:
            load(index_of(folder, {"weight_map": {"a": name, "b": name}}))
        assert "index.json" in str(told.value)


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.safetensors").write_bytes(GOOD)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "in.safetensors").symlink_to(tmp_path / "out.safetensors")
    with pytest.raises(PathEscape, match=r"in\.safetensors"):
        load_safetensors(index_of(folder, {"weight_map": {"a": "in.safetensors", "b": "in.safetensors"}}))
    assert set(load_safetensors(folder / "in.safetensors")) == {"a", "b"}, "a link that a user names is followed"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        {"weight_map": []},
        {"weight_map": {"a": 1}},
        {"weight_map": {"a": "one.bin", "b": "one.bin"}},
        '{"weight_map":{"a":"one.safetensors","a":"one.safetensors","b":"one.safetensors"}}',
        '{"weight_map":{},"weight_map":{"a":"one.safetensors","b":"one.safetensors"}}',
        {"weight_map": {"a": "one.safetensors"}},
        {"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "one.safetensors"}},
        b"\xff\xfe".decode("latin-1"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "one.safetensors").write_bytes(GOOD)
    with pytest.raises(UnsafeFormat):
        load_safetensors(index_of(tmp_path, content))


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"gone\.safetensors"):
        load_safetensors(index_of(tmp_path, {"weight_map": {"a": "gone.safetensors"}}))


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    one = {"a": ("U8", np.zeros(2, np.uint8))}
    sharded(tmp_path, {"one.safetensors": one, "two.safetensors": {**one, "b": one["a"]}})
    with pytest.raises(UnsafeFormat, match="'a'"):
        load_safetensors(index_of(tmp_path, {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))


def test_random_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    chance = np.random.default_rng(9)
    path = tmp_path / "damaged.safetensors"
    for _ in range(500):
        damaged = bytearray(GOOD)
        for at in chance.integers(0, len(GOOD), chance.integers(1, 4)):
            damaged[at] = chance.integers(0, 256)
        path.write_bytes(damaged[: chance.integers(0, 2 * len(GOOD))])
        try:
            loaded = load_safetensors(path, mode="read")
        except UnsafeFormat:
            continue
        else:
            assert sum(array.nbytes for array in loaded.values()) == 37
