"""The functions of torch that a test's code calls."""

from collections.abc import Callable
from typing import Protocol

from torch.overrides import TorchFunctionMode


class _Function(Protocol):
    __name__: str

    def __call__(self, *args: object, **kwargs: object) -> object: ...


class TorchCalls(TorchFunctionMode):
    """Tells each function of torch by its name and its arguments, just before it is called."""

    def __init__(self, before: Callable[[str, tuple[object, ...]], None]) -> None:
        super().__init__()
        self._before = before

    def __torch_function__(
        self, func: _Function, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        self._before(func.__name__, args)
        return func(*args, **(kwargs or {}))
