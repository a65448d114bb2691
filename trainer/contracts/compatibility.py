"""Which architectures, objectives and options go together: what does not is refused before anything is queued."""

from trainer.contracts.errors import AppError, ErrorCode, FieldProblem
from trainer.contracts.models import (
    Architecture,
    BertConfig,
    ModelBlock,
    ModelConfig,
    ModelFamily,
    Objective,
    RnnConfig,
)
from trainer.contracts.runs import TrainRequest
from trainer.contracts.validation import refusal

RECURRENT: tuple[Architecture, ...] = ("lstm", "gru", "rnn")


def architecture(family: ModelFamily) -> Architecture:
    return "lstm" if family == "char_lstm" else family


def objective(request: TrainRequest) -> Objective:
    """What the model is to predict; bert has one choice only."""
    unsaid = "objective" not in request.model_fields_set
    return "masked_lm" if unsaid and request.model_family == "bert" else request.objective


def check(request: TrainRequest) -> None:
    """Raise MODEL_INCOMPATIBLE where the parts of a request cannot be trained together."""
    problems = _problems(request)
    if problems:
        raise refusal(ErrorCode.MODEL_INCOMPATIBLE, *problems)


def reads_one_side(config: ModelConfig) -> bool:
    return not isinstance(config, BertConfig) and not (isinstance(config, RnnConfig) and config.bidirectional)


def check_generates(aim: Objective) -> None:
    """Raise MODEL_INCOMPATIBLE for a model that cannot continue a text."""
    if aim == "masked_lm":
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            "This run was trained with masked_lm: it fills gaps in a text and continues none. It can score one.",
        )


def _problems(request: TrainRequest) -> list[FieldProblem]:
    family, aim = request.model_family, objective(request)
    is_recurrent = architecture(family) in RECURRENT
    is_bidirectional = bool((request.model or ModelBlock()).bidirectional)
    problems: list[FieldProblem] = []
    if family == "bert" and aim == "causal_lm":
        said = "must be 'masked_lm' for bert: it reads both sides, so with causal_lm it would see what it is to predict"
        problems.append(_problem("objective", said, "'masked_lm'"))
    if family in ("gpt2", "llama", "qwen") and aim == "masked_lm":
        said = f"must be 'causal_lm' for {family}: it cannot see what comes after a masked token"
        problems.append(_problem("objective", said, "'causal_lm'"))
    if is_bidirectional and family == "char_lstm":
        said = "must be false for char_lstm, which has one direction: take lstm"
        problems.append(_problem("model.bidirectional", said, "false"))
    elif is_bidirectional and aim == "causal_lm":
        said = "must be false: with causal_lm the model would see what it is to predict; masked_lm takes two directions"
        problems.append(_problem("model.bidirectional", said, "false"))
    if is_recurrent and request.compute.gradient_checkpointing:
        said = "is for transformers: with a recurrent model it must be false"
        problems.append(_problem("compute.gradient_checkpointing", said, "false"))
    if aim == "masked_lm" and request.sample_every_steps is not None:
        said = "must be left out: a model that was trained to fill gaps generates no text"
        problems.append(_problem("sample_every_steps", said, "null"))
    return problems


def _problem(path: str, said: str, allowed: str) -> FieldProblem:
    return FieldProblem(path=path, message=f"`{path}` {said}", allowed=allowed)
