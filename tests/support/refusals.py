"""Expected errors: their code, words of their sentence and the fields that they name."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trainer.contracts.errors import AppError, ErrorCode


@contextmanager
def refused(code: ErrorCode, said: str = "", *fields: str) -> Iterator[pytest.ExceptionInfo[AppError]]:
    """Expect an AppError with this code and these words; `fields`, if any, are the paths of all its problems."""
    with pytest.raises(AppError) as caught:
        yield caught
    assert caught.value.code is code, caught.value.message
    assert said in caught.value.message
    assert not fields or sorted(problem.path for problem in caught.value.details) == sorted(fields)
