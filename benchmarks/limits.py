"""Limits of this machine, measured as a contestant: products of large matrices, and reads from memory.

python -m benchmarks.limits gemm-fp32 | gemm-bf16 | memory
"""

import sys

import torch

from benchmarks.turns import repeated, serve
from trainer.system.hardware import default_threads

_SIZE = 2048
_MEMORY_FLOATS = 1 << 26


def main(kind: str) -> None:
    torch.set_num_threads(default_threads())
    if kind == "memory":
        numbers = torch.ones(_MEMORY_FLOATS)

        def read() -> int:
            numbers.sum()
            return 4 * _MEMORY_FLOATS

        serve(lambda: repeated(read))
    dtype = torch.bfloat16 if kind == "gemm-bf16" else torch.float32
    left, right = torch.randn(_SIZE, _SIZE, dtype=dtype), torch.randn(_SIZE, _SIZE, dtype=dtype)

    def multiply() -> int:
        torch.mm(left, right)
        return 2 * _SIZE**3

    serve(lambda: repeated(multiply))


if __name__ == "__main__":
    main(sys.argv[1])
