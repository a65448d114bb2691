"""First import of the server process that forks the children: it outlives signals to the group, but not the worker."""

import ctypes
import gc
import signal
from collections.abc import Callable
from contextlib import suppress

_PR_SET_PDEATHSIG = 1

gc.disable()  # else it takes a fifth of the time of the next imports; each child enables it again

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
    signal.signal(number, signal.SIG_IGN)
with suppress(AttributeError):  # not Linux: there it ends after its imports, when the worker and all children have
    control_process: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    control_process(_PR_SET_PDEATHSIG, signal.SIGKILL)
