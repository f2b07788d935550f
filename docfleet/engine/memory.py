"""Out of memory: how libraries say it, and how an engine is told to take less.

A worker that runs out of memory in the middle of a shard reads it again with a smaller `ParseRequest.memory_share`: of
the pages that an engine holds at once (its window, its batch) that share. A smaller share costs speed, never content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Class names: torch's own error for every kind of device, and Python's.
_KINDS = frozenset({"OutOfMemoryError", "MemoryError", "_ArrayMemoryError"})
#: What torch, torch_npu, ONNX Runtime, cuBLAS, vLLM and llama.cpp write where they have no error of its own for it.
_WORDS = re.compile(
    r"(?:CUDA|NPU|MPS|XPU|HIP|GPU)[\w: ]*out of memory|out of memory on device|failure 2: out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation"
    r"|Failed to allocate memory for requested buffer|BFCArena|std::bad_alloc|bad allocation"
    r"|No available memory for the cache blocks|less than desired GPU memory utilization"
    r"|cudaMalloc failed|failed to allocate (?:CUDA|compute) ",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error, or what it was raised from, says that memory ran out, of the device or the machine."""
    return any(_KINDS & _names(one) or _WORDS.search(str(one)) for one in _chain(error))


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
