"""The compiled decode step, `step.c`, loaded by ctypes: operations and tasks in the layout of its structs.

C checks nothing: those who make operations and tasks check all sizes, and keep the memory at the addresses.
"""

import ctypes
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

LIBRARY = Path(__file__).parent / "step.so"
LEVELS = ("plain", "AVX2", "AVX-512")
BLOCK, OUTPUTS, PANEL = 16, 32, 64
"""Gates and heads are padded to a multiple of BLOCK numbers, products to a multiple of OUTPUTS.

One call of a product computes at most PANEL numbers.
"""
LOGITS = -1
"""The output of the last product."""
_OPERATION, _TASK = struct.Struct("@4i10q3P2f"), struct.Struct("@13P11q2i")
_ADDRESSES, _ARRIVED_BYTES, _WRITTEN_OFFSET = 12, 8, struct.calcsize("@13P10q")


class Kind(IntEnum):
    """The computation of an operation."""

    EMBED = 0
    PRODUCT = 1
    LSTM = 2
    GRU = 3
    TANH = 4
    LAYER_NORM = 5
    RMS_NORM = 6
    GATE = 7
    ATTEND = 8


class Function(IntEnum):
    """An activation function."""

    NONE = 0
    GELU = 1
    GELU_TANH = 2
    RELU = 3
    SILU = 4
    TANH = 5


class Operation(NamedTuple):
    """An operation on the numbers of a sequence, which it finds by offsets in a row of memory.

    Weights are given by their addresses, 0 for none.
    """

    kind: Kind
    output: int
    outputs: int = 0
    input: int = 0
    other: int = 0
    size: int = 0
    heads: int = 0
    groups: int = 0
    head_size: int = 0
    width: int = 0
    layer: int = 0
    weights: int = 0
    more: int = 0
    bias: int = 0
    activation: Function = Function.NONE
    is_bf16: bool = False
    adds: bool = False
    epsilon: float = 0.0
    scale: float = 0.0

    def packed(self) -> bytes:
        return _OPERATION.pack(
            self.kind,
            self.activation,
            self.is_bf16,
            self.adds,
            *(self.input, self.other, self.output, self.size, self.outputs),
            *(self.heads, self.groups, self.head_size, self.width, self.layer),
            *(self.weights, self.more, self.bias),
            self.epsilon,
            self.scale,
        )


class Task(NamedTuple):
    """Tokens to read and to choose: addresses, then sizes, in the order of the struct in `step.c`."""

    operations: int
    memory: int
    keys: int
    values: int
    logits: int
    lengths: int
    rows: int
    ids: int
    draws: int
    temperatures: int
    barred: int
    scratch: int
    n_operations: int
    row_floats: int
    n: int
    sequences: int
    room: int
    vocabulary: int
    logits_floats: int
    steps: int
    end_id: int
    scratch_doubles: int
    threads: int
    reads: int


class Build(NamedTuple):
    """The step as compiled for a level of the CPU; each thread calls `run` with a task and its own number."""

    name: str
    run: Callable[[int, int], None]

    def do(self, task: Task) -> int:
        """Read and choose tokens; return the number of steps that chose some. The GIL is free meanwhile."""
        addresses, sizes = task[:_ADDRESSES], task[_ADDRESSES:-2]
        arrived = ctypes.create_string_buffer(_ARRIVED_BYTES)
        fields = *addresses, ctypes.addressof(arrived), *sizes, 0, task.threads, task.reads
        packed = ctypes.create_string_buffer(_TASK.pack(*fields), _TASK.size)
        address = ctypes.addressof(packed)
        others = [_pool(task.threads - 1).submit(self.run, address, thread) for thread in range(1, task.threads)]
        self.run(address, 0)
        for other in others:
            other.result()
        written: int = ctypes.c_int64.from_buffer(packed, _WRITTEN_OFFSET).value
        return written


_LOADED: list[tuple[Build, ...]] = []
"""The builds, once they are loaded."""
_POOLS: dict[int, ThreadPoolExecutor] = {}


def builds() -> tuple[Build, ...]:
    """Return the builds that this CPU runs, the best one last; none where nothing was compiled."""
    if not _LOADED:
        _LOADED.append(load(LIBRARY))
    return _LOADED[0]


def load(path: Path) -> tuple[Build, ...]:
    """Return the builds of a library that this CPU runs; none if there is no such file, or none for this machine."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return ()
    level: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_int)(("step_level", library))
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
    names = LEVELS[: level() + 1]
    return tuple(Build(name, prototype((f"step_run_{number}", library))) for number, name in enumerate(names))


def _pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool of so many threads; a step needs all of them at once."""
    if threads not in _POOLS:
        _POOLS[threads] = ThreadPoolExecutor(threads)
    return _POOLS[threads]
