"""Which architectures, objectives and options go together: what does not is refused before anything is queued."""

from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem
from trainer.contracts.inference import ScoreRequest
from trainer.contracts.models import (
    CONFIGS,
    Architecture,
    ModelBlock,
    ModelConfig,
    ModelFamily,
    Objective,
    RnnConfig,
    TransformerConfig,
)
from trainer.contracts.runs import TrainRequest
from trainer.contracts.validation import refusal
from trainer.contracts.wording import counted

_SHORTEST_ROW = 8
"""The least `max_seq_len`."""


def architecture(family: ModelFamily) -> Architecture:
    return "lstm" if family == "char_lstm" else family


def objective_of(request: TrainRequest) -> Objective:
    """What the model is to predict; most architectures have one choice only."""
    unsaid = "objective" not in request.model_fields_set
    return CONFIGS[architecture(request.model_family)].objectives[0] if unsaid else request.objective


def check(request: TrainRequest) -> None:
    """Raise MODEL_INCOMPATIBLE where the parts of a request cannot be trained together."""
    problems = _problems(request)
    if problems:
        raise refusal(ErrorCode.MODEL_INCOMPATIBLE, *problems)


def is_unidirectional(config: ModelConfig) -> bool:
    return "causal_lm" in config.objectives and not (isinstance(config, RnnConfig) and config.bidirectional)


def check_generates(objective: Objective) -> None:
    """Raise MODEL_INCOMPATIBLE for a model that cannot continue a text."""
    if objective == "masked_lm":
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            "This run was trained with masked_lm: it fills gaps in a text and continues none. It can score one.",
        )


class Bf16Trial(Frozen):
    """The result of trying bf16 on a CPU."""

    architecture: Architecture
    trains: bool
    gru_trains: bool
    """Whether a GRU can be trained in bf16 there."""


def check_bf16(trial: Bf16Trial) -> None:
    """Raise INVALID_INPUT where the CPU cannot train the architecture in bf16 (DEC D46)."""
    if not trial.trains:
        instead = " GRU models work in bf16 (`model_family` 'gru')." if trial.gru_trains else ""
        raise AppError(
            ErrorCode.INVALID_INPUT,
            "`precision` must be 'fp32' or 'auto': this machine's CPU cannot train"
            f" {trial.architecture.upper()} models in bf16.{instead}",
        )


def check_precision(precision: str, *, on_cuda: bool) -> None:
    """Raise INVALID_INPUT for a precision that the device does not have."""
    if precision == "fp16" and not on_cuda:
        raise AppError(ErrorCode.INVALID_INPUT, "`precision` 'fp16' needs CUDA: on the CPU take 'fp32' or 'auto'.")


def check_text_length(tokens: int, max_seq_len: int, *, of: str, fits: int) -> None:
    """Raise CORPUS_TOO_SHORT where a text has fewer tokens than one row; `fits` is a length that it has enough for."""
    if tokens < max_seq_len:
        shorter = f"make `max_seq_len` {fits:,} or less, or " if fits >= _SHORTEST_ROW else ""
        raise AppError(
            ErrorCode.CORPUS_TOO_SHORT,
            f"`max_seq_len` is {max_seq_len:,}, but {of} has {counted(tokens, 'token')} only, less than one sequence:"
            f" {shorter}give a longer text.",
        )


def check_scores(request: ScoreRequest, objective: Objective) -> None:
    """Raise INVALID_INPUT for wishes that do not go together, MODEL_INCOMPATIBLE where the model cannot fulfil one."""
    if request.top_k is not None and request.detail_level != "per_char":
        raise AppError(
            ErrorCode.INVALID_INPUT, "`top_k` says what to name at each token: it needs `detail_level` 'per_char'."
        )
    if objective == "masked_lm" and request.context == "none":
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            "`context` 'none' is for models that read from left to right: this run was trained with masked_lm.",
        )
    if objective == "causal_lm" and request.pll_within_word:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            "`pll_within_word` is for models that fill gaps: this run was trained with causal_lm.",
        )


def _problems(request: TrainRequest) -> list[FieldProblem]:
    family, objective = request.model_family, objective_of(request)
    config = CONFIGS[architecture(family)]
    is_bidirectional = bool((request.model or ModelBlock()).bidirectional)
    problems: list[FieldProblem] = []
    if objective not in config.objectives and objective == "causal_lm":
        said = (
            f"must be 'masked_lm' for {family}: it reads both sides, so with causal_lm it would see what it is to"
            " predict"
        )
        problems.append(_problem("objective", said, "'masked_lm'"))
    if objective not in config.objectives and objective == "masked_lm":
        said = f"must be 'causal_lm' for {family}: it cannot see what comes after a masked token"
        problems.append(_problem("objective", said, "'causal_lm'"))
    if family == "char_lstm" and request.tokenizer is not None and request.tokenizer.method != "char":
        said = "must be 'char' for char_lstm: take lstm for another tokenizer"
        problems.append(_problem("tokenizer.method", said, "'char'"))
    if is_bidirectional and family == "char_lstm":
        said = "must be false for char_lstm, which has one direction: take lstm"
        problems.append(_problem("model.bidirectional", said, "false"))
    elif is_bidirectional and objective == "causal_lm":
        said = "must be false: with causal_lm the model would see what it is to predict; masked_lm takes two directions"
        problems.append(_problem("model.bidirectional", said, "false"))
    if not issubclass(config, TransformerConfig) and request.compute.gradient_checkpointing:
        said = "is for transformers: with a recurrent model it must be false"
        problems.append(_problem("compute.gradient_checkpointing", said, "false"))
    if objective == "masked_lm" and request.sample_every_steps is not None:
        said = "must be left out: a model that was trained to fill gaps generates no text"
        problems.append(_problem("sample_every_steps", said, "null"))
    return problems


def _problem(path: str, said: str, allowed: str) -> FieldProblem:
    return FieldProblem(path=path, message=f"`{path}` {said}", allowed=allowed)
