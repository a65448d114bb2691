"""Plain reads of as many bytes as a token needs: the limit of generation, by a small program in C.

python -m benchmarks.plain_reads LIBRARY BYTES THREADS
"""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from ctypes import c_int64
from pathlib import Path

from benchmarks.turns import serve

_SOURCE = Path(__file__).with_suffix(".c")
_MILLISECONDS = 500


def compiled(folder: Path) -> Path | None:
    """Compile the program for this machine's CPU into the folder; return None if there is no C compiler."""
    library = folder / "plain_reads.so"
    if shutil.which("cc") is None:
        return None
    options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["cc", *options, str(_SOURCE), "-o", str(library)], check=True)
    return library


def main(library: str, read_bytes: str, threads: str) -> None:
    """Answer with how many times per second the threads together read all bytes."""
    read: Callable[[c_int64, c_int64, int], int] = ctypes.CDLL(library).plain_reads
    serve(lambda: 1e6 * read(c_int64(int(read_bytes)), c_int64(_MILLISECONDS), int(threads)) / int(read_bytes))


if __name__ == "__main__":
    main(*sys.argv[1:])
