"""A card through NVIDIA's driver alone, with no library on top: to count what a process sees, and to fill its memory.

`python -m benchmarks.gpu_driver --leave 256` takes memory of card 0 until 256 MB are free, says so, and holds it until
its standard input ends.
"""

from __future__ import annotations

import argparse
import ctypes
import sys

MB = 1024 * 1024
#: Bytes of one piece, tried in this order: many small ones would take long.
_PIECES = (1024 * MB, 128 * MB, 16 * MB)


class DriverMissing(Exception):
    """There is no driver, or it shows no card; the text says which."""


class Card:
    """The first card that this process sees."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL("libcuda.so.1")
        except OSError as exc:
            raise DriverMissing(f"no CUDA driver is installed ({exc})") from None
        self._call("cuInit", 0)
        number = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(number))
        #: Cards that this process sees.
        self.count = number.value
        if not self.count:
            raise DriverMissing("the CUDA driver shows no card to this process")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        name = ctypes.create_string_buffer(128)
        self._call("cuDeviceGetName", name, len(name), device)
        self.name = name.value.decode(errors="replace")
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def free(self) -> int:
        """Return the bytes that are free."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def fill(self, leave: int) -> int:
        """Take memory until `leave` bytes are free; return the bytes taken, which are held until the process ends."""
        taken = 0
        for size in _PIECES:
            while self.free() - size >= leave:
                pointer = ctypes.c_uint64()
                if self._lib.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)) != 0:
                    break
                self._call("cuMemsetD8_v2", pointer, ctypes.c_ubyte(1), ctypes.c_size_t(size))
                taken += size
        self._call("cuCtxSynchronize")
        return taken

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._lib, name)(*arguments)
        if code != 0:
            raise DriverMissing(f"the CUDA driver refused {name} with code {code}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leave", type=int, default=256, help="MB to leave free")
    try:
        card = Card()
        taken = card.fill(parser.parse_args().leave * MB)
    except DriverMissing as exc:
        print(exc, file=sys.stderr)
        return 2
    print(f"holding {taken // MB} MB, {card.free() // MB} MB are free", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
