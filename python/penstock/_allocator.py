"""What becomes of memory that a model frees."""

from __future__ import annotations

import ctypes
import os

# By their numbers in glibc's malloc.h. An arena of a thread is 64 MiB at most.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 64 << 20

keeps_freed_memory: bool = False
"""True once `keep_freed_memory` was called: worker processes do as their parent does."""


def keep_freed_memory() -> None:
    """Has glibc keep what a model frees, for its next batch.

    A worker thread's arena gives the memory of large temporaries back after each batch otherwise, and the next takes
    the faults of every page again: a sixth of the time of MiniLM. What `MALLOC_` variables say has precedence.
    """
    global keeps_freed_memory  # noqa: PLW0603  there is one allocator for the process
    keeps_freed_memory = True
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 2)
