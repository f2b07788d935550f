"""What a worker sets for MinerU's own sake before it is imported for the first time; it reads its settings then.

Devices and threads come from the plan (`docfleet.devices`), model source and folders from the decision about models
(`docfleet.models`); here is only what is left.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Pages that MinerU holds as pictures at once. A page at 200 dpi is 12 MB twice over: 64 of them, MinerU's own
#: default, take 1.5 GB, which is nothing to a machine with an accelerator and too much for each of N CPU workers.
_WINDOW_PAGES_DEFAULT = "64"
#: On a CPU a page takes seconds, and batches gain nothing: short windows are what a document is cut by, so that all
#: workers read it and a short one waits less.
_WINDOW_PAGES_CPU = "4"
#: A CPU worker that waits for VLM servers asks them for a whole window at once.
_WINDOW_PAGES_ASKING = "16"


def tuning(
    device: str, inherited: Mapping[str, str], log_level: str = "warning", *, asks: bool = False
) -> dict[str, str]:
    """Return what to add to a worker's environment; a variable that is set already wins and is left out. Pure.

    Args:
        device: "cpu", "cuda:0", "npu:1", "mps".
        inherited: the environment that the worker has without this.
        log_level: debug | info | warning | error, for MinerU's messages.
        asks: whether VLM servers elsewhere read for this worker.
    """
    kind = device.partition(":")[0]
    on_cpu = _WINDOW_PAGES_ASKING if asks else _WINDOW_PAGES_CPU
    wanted = {
        "MINERU_PROCESSING_WINDOW_SIZE": on_cpu if kind == "cpu" else _WINDOW_PAGES_DEFAULT,
        "MINERU_LOG_LEVEL": log_level,
        "MINERU_INTER_OP_NUM_THREADS": "1",
        # Long-lived workers give freed memory back to the system after each document.
        "MINERU_MALLOC_TRIM": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if kind == "cpu":
        # MinerU's table models would otherwise take card 0 wherever ONNX Runtime finds one.
        wanted["MINERU_TABLE_DEVICE"] = "cpu"
    return {name: value for name, value in wanted.items() if name not in inherited}
