"""First calls of the functions that torch takes from MKL, Intel's library.

MKL chooses its code for a function at the first call in a process. If threads share that call, one of them can get code
for low accuracy, once: a score was off by 3e-05 nats. Source: https://github.com/pytorch/pytorch/issues/188792
"""

import torch

_FUNCTIONS = (torch.cos, torch.erf, torch.exp, torch.log, torch.sin, torch.sqrt, torch.tanh)


def choose_code() -> None:
    """Call each function with a single number, in both precisions; threads do not share such a call."""
    for dtype in (torch.float32, torch.float64):
        number = torch.ones(1, dtype=dtype, device="cpu")  # on the CPU, even where new tensors are on another device
        for function in _FUNCTIONS:
            function(number)
