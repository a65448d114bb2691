"""The names that the fields of a train request have in chat: those of the options of `/mt train`."""

import re
from collections.abc import Callable

from trainer.config.train_request import TRAIN_OPTIONS
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, FieldProblem, refusal

_OPTIONS = {option.field: name for name, option in TRAIN_OPTIONS.items()} | {
    "tokenizer_id": "tokenizer",
    "tokenizer.method": "tokenizer",
}
_CODE = re.compile(r"`([a-z_.]+)`")


def option_name(field: str) -> str:
    """Return the option that sets a field of a train request or a study, or the field where there is none."""
    own = field.removeprefix("train.")
    return _OPTIONS.get(own, own if own in TRAIN_OPTIONS else field)


def with_option_names(message: str) -> str:
    """Return a message with the names of options in place of those of fields."""

    def named(field: re.Match[str]) -> str:
        name: str = field[1]
        return f"`{option_name(name)}`"

    return _CODE.sub(named, message)


def in_option_names(error: AppError, is_in_file: Callable[[str], bool] | None = None) -> AppError:
    """Return the error with option names in place of field names, except for problems in an experiment file."""
    if not error.details:
        return error

    def named(problem: FieldProblem) -> FieldProblem:
        if is_in_file is not None and is_in_file(problem.path):
            return problem
        shown = problem.named(option_name(problem.path))
        return changed(shown, message=with_option_names(shown.message))

    return refusal(error.code, *map(named, error.details))
