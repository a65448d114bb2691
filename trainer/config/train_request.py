"""From the fields that a person gave, by whatever way, to a train request or to all that is wrong with them."""

from collections.abc import Mapping, Sequence
from typing import get_args

from trainer.config.nested_dict import value_at
from trainer.contracts.compatibility import check
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem
from trainer.contracts.models import ModelFamily, default_tokenizer_method
from trainer.contracts.runs import TrainRequest
from trainer.contracts.tokenizers import METHODS
from trainer.contracts.validation import combined, parse, refusal, shown_name, shown_value

_FAMILIES: tuple[ModelFamily, ...] = get_args(ModelFamily)


def train_request(fields: dict[str, object]) -> TrainRequest:
    """Check the fields of a train request.

    Raises UNSUPPORTED_BACKEND or INVALID_INPUT with every problem in it, or MODEL_INCOMPATIBLE.
    """
    fields = _with_method(fields)
    missing = [*not_available(fields, "model_family", _FAMILIES), *not_available(fields, "tokenizer.method", METHODS)]
    try:
        request = parse(TrainRequest, fields)
    except AppError as error:
        told = {problem.path for one in missing for problem in one.details}
        others = [problem for problem in error.details if problem.path not in told]
        raise combined([*missing, *([refusal(error.code, *others)] if others else [])], error.code) from error
    check(request)
    return request


def with_family(fields: Mapping[str, object], parent: ModelFamily | None = None) -> dict[str, object]:
    """Name the model family where the fields do not.

    It is that of `model.architecture`, else that of the run that a warm start begins from, else char_lstm.
    """
    family: object = value_at(fields, "model.architecture") or parent or "char_lstm"
    return {"model_family": family, **fields}


def _with_method(fields: dict[str, object]) -> dict[str, object]:
    """Add the family's default method to tokenizer options that name none."""
    options = fields.get("tokenizer")
    for family in _FAMILIES:
        if family == fields.get("model_family") and isinstance(options, Mapping) and "method" not in options:
            tokenizer: dict[str, object] = {"method": default_tokenizer_method(family), **options}
            return {**fields, "tokenizer": tokenizer}
    return fields


def not_available(fields: Mapping[str, object], path: str, available: Sequence[str]) -> list[AppError]:
    """What is wrong with the name of something, where there is nothing of that name (yet): at most one problem."""
    name = value_at(fields, path)
    if not isinstance(name, str) or name in available:
        return []
    allowed = ", ".join(f"'{one}'" for one in available)
    allowed = f"one of {allowed}" if len(available) > 1 else allowed
    problem = FieldProblem(
        path=path,
        message=f"`{path}` '{shown_name(name)}' is not available; it must be {allowed}",
        value=shown_value(name),
        allowed=allowed,
    )
    return [refusal(ErrorCode.UNSUPPORTED_BACKEND, problem)]
