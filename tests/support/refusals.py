"""Expected errors: their code, words of their sentence and the fields that they name."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trainer.contracts.errors import AppError, ErrorCode


@contextmanager
def refused(code: ErrorCode, said: str = "", *fields: str) -> Iterator[None]:
    """Fail unless an AppError with this code is raised, which says this; `fields` are the paths of all its problems."""
    with pytest.raises(AppError) as caught:
        yield
    assert caught.value.code is code, caught.value.message
    assert said in caught.value.message
    assert not fields or tuple(problem.path for problem in caught.value.details) == fields
