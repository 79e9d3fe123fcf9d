"""Weights from a file: every type, wherever it lies; equal to what the format's own package reads."""

from __future__ import annotations

import copy
import gc
import hashlib
import pickle
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.errors import ChecksumMismatch, ConfigError, LoadFailed
from penstock.safetensors import TensorInfo, TensorMemory, load_safetensors, open_safetensors
from tests.python.support.arrays import same, sample
from tests.python.support.weights import entry, of_arrays, packed, sharded

ml_dtypes = pytest.importorskip("ml_dtypes")
reference = pytest.importorskip("safetensors.numpy")

ROOT = Path(__file__).resolve().parents[2]
MODES = ("auto", "mmap", "read")
PLAIN = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
EXTENDED = {
    "BF16": ("bfloat16", "uint16"),
    "F8_E4M3": ("float8_e4m3fn", "uint8"),
    "F8_E5M2": ("float8_e5m2", "uint8"),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", "uint8"),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", "uint8"),
    "F8_E8M0": ("float8_e8m0fnu", "uint8"),
}


def every_type() -> dict[str, tuple[str, np.ndarray]]:
    arrays = {stored: (stored, sample(name, (3, 5), 7)) for stored, name in PLAIN.items()}
    for at, (stored, (name, bits)) in enumerate(EXTENDED.items()):
        arrays[stored] = (stored, sample(bits, (2, 4), at).view(getattr(ml_dtypes, name)))
    return arrays


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("shift", [0, 1, 4])
def test_every_type_comes_as_it_was_written(tmp_path: Path, mode: Any, shift: int) -> None:
    arrays = every_type()
    path = tmp_path / "all.safetensors"
    path.write_bytes(of_arrays(arrays, shift=shift))
    loaded = load_safetensors(path, mode=mode)
    assert list(loaded) == list(arrays)
    for name, (_, array) in arrays.items():
        assert same(loaded[name], array), name
        assert loaded[name].flags.aligned
        assert loaded[name].flags.c_contiguous
        assert not loaded[name].flags.writeable
    with open_safetensors(path, mode=mode) as file:
        assert all(same(file[name], array) for name, (_, array) in arrays.items())
        assert file.info("F64") == TensorInfo("F64", "F64", (3, 5), 120, "all.safetensors")


def test_the_formats_own_package_reads_the_same(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "all.safetensors"
    # It knows no name for the float8 types that NumPy would understand.
    path.write_bytes(of_arrays({name: each for name, each in every_type().items() if not name.startswith("F8_")}))
    theirs = reference.load_file(path)
    ours = load_safetensors(path, mode=mode)
    assert theirs.keys() == ours.keys()
    assert all(same(ours[name], array) for name, array in theirs.items())


def test_what_the_formats_own_package_writes_is_read(tmp_path: Path, mode: Any) -> None:
    arrays = {name: array for name, (_, array) in every_type().items()}
    arrays |= {"scalar": np.array(3, np.float32), "none": np.zeros((0, 4), np.int64)}
    path = tmp_path / "theirs.safetensors"
    reference.save_file(arrays, path, metadata={"format": "np"})
    ours = load_safetensors(path, mode=mode)
    assert ours.keys() == arrays.keys()
    assert all(same(ours[name], array) for name, array in arrays.items())
    with open_safetensors(path) as file:
        assert file.metadata == {"format": "np"}


def test_without_ml_dtypes_the_bits_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    from penstock import safetensors as module

    arrays = every_type()
    path = tmp_path / "all.safetensors"
    path.write_bytes(of_arrays(arrays))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    monkeypatch.setattr(module, "_numpy_type", module._numpy_type.__wrapped__)
    loaded = load_safetensors(path, mode=mode)
    for name, (_, bits) in EXTENDED.items():
        assert same(loaded[name], arrays[name][1].view(bits)), name
    with open_safetensors(path, mode=mode) as file:
        assert same(file.slice("BF16")[1:, 2], arrays["BF16"][1].view("uint16")[1:, 2])


@pytest.mark.parametrize(
    ("dtype", "shape", "comes_as"),
    [
        ("F4", [2, 6], (2, 3)),
        ("F4", [6, 1], (3,)),
        ("F6_E2M3", [3, 8], (3, 6)),
        ("F6_E3M2", [4, 3], (9,)),
        ("F4", [0], (0,)),
    ],
)
def test_types_that_share_bytes_come_packed(
    tmp_path: Path, mode: Any, dtype: str, shape: list[int], comes_as: tuple[int, ...]
) -> None:
    nbytes = int(np.prod(comes_as))
    data = bytes(range(1, nbytes + 1))
    path = tmp_path / "packed.safetensors"
    path.write_bytes(packed({"w": entry(0, nbytes, shape, dtype)}, data))
    (loaded,) = load_safetensors(path, mode=mode).values()
    assert same(loaded, np.frombuffer(data, np.uint8).reshape(comes_as))
    with open_safetensors(path, mode=mode) as file:
        assert file.info("w").shape == tuple(shape)
        assert file.slice("w").shape == comes_as
        assert same(file.slice("w")[:1], loaded[:1])


def test_arrays_share_one_memory_for_a_file(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "two.safetensors"
    path.write_bytes(of_arrays({"a": ("F32", sample("float32", (64,))), "b": ("F64", sample("float64", (8,)))}))
    a, b = load_safetensors(path, mode=mode).values()
    assert isinstance(a.base, TensorMemory)
    assert a.base is b.base
    assert a.base.kind == ("read" if mode == "auto" else {"mmap": "mapped"}.get(mode, mode))
    assert a.base.nbytes >= a.nbytes + b.nbytes
    assert str(a.base.nbytes) in repr(a.base)
    watched = weakref.ref(a.base)
    view = a[3:5]
    del a, b
    gc.collect()
    assert watched() is not None
    del view
    gc.collect()
    assert watched() is None


def test_arrays_cannot_be_written_to(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(of_arrays({"a": ("F32", np.ones(4, np.float32))}))
    (array,) = load_safetensors(path, mode=mode).values()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        array.flags.writeable = True
    own = array.copy()
    own[0] = 5
    assert array[0] == 1


def test_arrays_are_copied_by_pickle_and_deepcopy(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(of_arrays({"a": ("BF16", sample("uint16", (3, 4)).view(ml_dtypes.bfloat16))}))
    (array,) = load_safetensors(path, mode=mode).values()
    for made in (pickle.loads(pickle.dumps(array)), copy.deepcopy(array)):  # noqa: S301  our own bytes
        assert same(made, array)
        assert made.base is not array.base


def test_only_the_tensors_that_were_named_are_read(tmp_path: Path, mode: Any) -> None:
    arrays = every_type()
    path = tmp_path / "all.safetensors"
    path.write_bytes(of_arrays(arrays))
    loaded = load_safetensors(path, mode=mode, names=["F32", "BF16", "F32"])
    assert set(loaded) == {"F32", "BF16"}
    assert all(same(loaded[name], arrays[name][1]) for name in loaded)
    assert load_safetensors(path, mode=mode, names=[]) == {}
    if mode == "read":
        assert loaded["F32"].base.nbytes < path.stat().st_size
    with pytest.raises(ConfigError, match="'F33'"):
        load_safetensors(path, mode=mode, names=["F33"])


def test_a_model_in_several_files(tmp_path: Path, mode: Any) -> None:
    files = {f"model-{at:05}-of-00002.safetensors": {f"w{at}": ("F32", sample("float32", (4, 3), at))} for at in (1, 2)}
    index = sharded(tmp_path, files)
    for path in (index, tmp_path):
        loaded = load_safetensors(path, mode=mode)
        assert set(loaded) == {"w1", "w2"}
        assert all(same(loaded[name], array) for each in files.values() for name, (_, array) in each.items())
        assert loaded["w1"].base is not loaded["w2"].base
    assert set(load_safetensors(index, mode=mode, names=["w2"])) == {"w2"}
    digests = {file: hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() for file in files}
    assert set(load_safetensors(index, mode=mode, sha256=digests)) == {"w1", "w2"}
    with open_safetensors(index, mode=mode) as file:
        assert file.info("w2").file == "model-00002-of-00002.safetensors"
        assert same(file["w2"], loaded["w2"])
        assert set(file) == {"w1", "w2"}


def test_a_folder_is_the_model_in_it(tmp_path: Path, mode: Any) -> None:
    (tmp_path / "model.safetensors").write_bytes(of_arrays({"a": ("F32", np.ones(4, np.float32))}))
    assert list(load_safetensors(tmp_path, mode=mode)) == ["a"]
    assert list(load_safetensors(str(tmp_path), mode=mode)) == ["a"]


def test_the_digest_is_that_of_the_whole_file(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(of_arrays({"a": ("U8", sample("uint8", (3 << 20,)))}))
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    wrong = hashlib.sha256(b"another").hexdigest()
    assert load_safetensors(path, mode=mode, sha256=right.upper())["a"].size == 3 << 20
    assert load_safetensors(path, mode=mode, sha256=f"sha256:{right}", names=["a"]).keys() == {"a"}
    assert load_safetensors(path, mode=mode, sha256=right, names=[]) == {}
    with open_safetensors(path, mode=mode, sha256=right) as file:
        assert len(file) == 1
    for load in (load_safetensors, open_safetensors):
        with pytest.raises(ChecksumMismatch) as told:
            load(path, mode=mode, sha256=wrong)
        assert right in str(told.value)
        assert wrong in str(told.value)
        assert str(path) in str(told.value)


def test_progress_is_told_some_twenty_times(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "big.safetensors"
    path.write_bytes(of_arrays({"a": ("U8", np.zeros(64 << 20, np.uint8))}))
    told: list[tuple[int, int]] = []
    load_safetensors(path, mode=mode, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1
    assert len(told) < 60


def test_what_progress_raises_ends_the_load(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    path.write_bytes(of_arrays({"a": ("U8", np.zeros(64 << 20, np.uint8))}))

    def refuse(_done: int, _total: int) -> None:
        raise ZeroDivisionError

    for mode in MODES:
        with pytest.raises(ZeroDivisionError):
            load_safetensors(path, mode=mode, progress=refuse)  # type: ignore[arg-type]


def test_a_file_is_a_mapping_that_reads_when_it_is_asked(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "two.safetensors"
    arrays = {"b": ("F32", sample("float32", (6,))), "a": ("F64", sample("float64", (2, 2)))}
    path.write_bytes(of_arrays(arrays, metadata={"format": "pt"}))
    file = open_safetensors(path, mode=mode)
    assert list(file) == ["b", "a"]
    assert (len(file), "a" in file, "c" in file, file.metadata, file.closed) == (
        2,
        True,
        False,
        {"format": "pt"},
        False,
    )
    assert "2 tensors" in repr(file)
    with pytest.raises(KeyError, match="no tensor 'c'"):
        file["c"]
    with pytest.raises(KeyError, match="no tensor 'c'"):
        file.slice("c")
    assert file.get("c") is None
    whole = file["a"]
    sliced = file.slice("a")
    assert (sliced.shape, sliced.dtype, len(sliced)) == ((2, 2), np.float64, 2)
    file.close()
    file.close()
    assert file.closed
    assert "closed" in repr(file)
    assert same(whole, arrays["a"][1])
    with pytest.raises(penstock.errors.Closed, match="was closed"):
        file["a"]
    with pytest.raises(penstock.errors.Closed, match="was closed"):
        sliced[0]
    with pytest.raises(TypeError, match="open the file again"):
        pickle.dumps(file)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"mode": "copy"}, "mode must be 'auto', 'mmap' or 'read'"),
        ({"mode": None}, "mode must be"),
        ({"names": "a"}, "names must be several names"),
        ({"names": [1]}, "names must be several names"),
        ({"names": 3}, "names must be several names"),
        ({"threads": 0}, "threads must be a whole number from 1"),
        ({"threads": True}, "threads must be a whole number from 1"),
        ({"threads": 1000}, "threads must be a whole number from 1"),
        ({"sha256": "abc"}, "64 hexadecimal digits"),
        ({"sha256": b"abc"}, "64 hexadecimal digits"),
        ({"sha256": {"one.safetensors": "abc"}}, "sha256 of 'one.safetensors' must be 64 hexadecimal digits"),
        ({"sha256": {1: "0" * 64}}, "64 hexadecimal digits"),
        ({"sha256": {"another.safetensors": "0" * 64}}, "no digest of 'one.safetensors'"),
        ({"progress": 1}, "progress must be a function"),
    ],
)
def test_arguments_that_cannot_be(tmp_path: Path, keywords: Any, said: str) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(of_arrays({"a": ("U8", np.zeros(4, np.uint8))}))
    with pytest.raises(ConfigError, match=said):
        load_safetensors(path, **keywords)


@pytest.mark.parametrize("path", [None, 3, b"model.safetensors", ["a"]])
def test_paths_that_are_none(path: Any) -> None:
    for load in (load_safetensors, open_safetensors):
        with pytest.raises(ConfigError, match="path must be a string"):
            load(path)


def test_several_files_want_a_digest_each(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"a.safetensors": {"a": ("U8", np.zeros(4, np.uint8))}})
    with pytest.raises(ConfigError, match="sha256"):
        load_safetensors(index, sha256="0" * 64)


def test_threads_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    array = sample("uint8", (9 << 20,))
    path.write_bytes(of_arrays({"a": ("U8", array)}))
    for threads in (None, 1, 2, 7):
        assert same(load_safetensors(path, mode="read", threads=threads)["a"], array)


def test_a_file_that_is_not_there(tmp_path: Path, mode: Any) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path, tmp_path / "no" / "folder"):
        for load in (load_safetensors, open_safetensors):
            with pytest.raises(LoadFailed) as told:
                load(path, mode=mode)
            assert str(path) in str(told.value)


def test_files_of_tensors_are_had_from_penstock_itself() -> None:
    assert penstock.load_safetensors is load_safetensors
    assert penstock.open_safetensors is open_safetensors


def test_byte_lms_weights_are_what_the_formats_own_package_reads(mode: Any) -> None:
    path = ROOT / "examples" / "byte_lm" / "weights.safetensors"
    ours, theirs = load_safetensors(path, mode=mode), reference.load_file(path)
    assert ours.keys() == theirs.keys()
    assert all(same(ours[name], array) for name, array in theirs.items())


def test_minilms_weights_are_what_the_formats_own_package_reads(mode: Any) -> None:
    pytest.importorskip("tokenizers")
    from examples import minilm

    path = minilm.locate() / minilm.WEIGHTS
    ours = load_safetensors(path, mode=mode, sha256=minilm.WEIGHTS_SHA256)
    theirs = reference.load_file(path)
    assert ours.keys() == theirs.keys()
    assert all(same(ours[name], array) for name, array in theirs.items())
