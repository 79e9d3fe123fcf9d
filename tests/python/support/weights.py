"""Files in the safetensors format, written byte by byte: right ones, and wrong ones."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def packed(header: dict[str, Any] | str | bytes, data: bytes = b"", *, said: int | None = None) -> bytes:
    """A file of this header and this data. `said` is the header's length, as the file has it."""
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if said is None else said) + header + data


def of_arrays(
    arrays: dict[str, tuple[str, np.ndarray]], *, shift: int = 0, metadata: dict[str, str] | None = None
) -> bytes:
    """A file of these arrays, by the names that the format has for their types.

    The data begins at a multiple of 8, and `shift` bytes behind it.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, (dtype, array) in arrays.items():
        raw = array.tobytes()
        header[name] = entry(len(data), len(data) + len(raw), list(array.shape), dtype)
        data += raw
    text = json.dumps(header).encode()
    return packed(text + b" " * ((shift - 8 - len(text)) % 8), data)


def sharded(folder: Path, files: dict[str, dict[str, tuple[str, np.ndarray]]], *, name: str = "model") -> Path:
    """A model in several files, and the index beside them."""
    for file, arrays in files.items():
        (folder / file).write_bytes(of_arrays(arrays))
    index = folder / f"{name}.safetensors.index.json"
    total = sum(array.nbytes for arrays in files.values() for _, array in arrays.values())
    where = {tensor: file for file, arrays in files.items() for tensor in arrays}
    index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}))
    return index
