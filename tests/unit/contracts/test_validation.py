"""Bad input gets one sentence that names the field and what would be right."""

import math

import pytest

from trainer.contracts.errors import AppError, ErrorBody, ErrorClass, ErrorCode, RunError
from trainer.contracts.inference import GenerateRequest, ScoreRequest
from trainer.contracts.runs import TrainRequest
from trainer.contracts.validation import did_you_mean, parse, parse_json

WRONG_FIELDS: list[tuple[dict[str, object], str]] = [
    ({"num_epoch": 3}, "unknown field `num_epoch`; did you mean `num_epochs`?."),
    ({"model": {"hiden_size": 3}}, "unknown field `model.hiden_size`; did you mean `hidden_size`?."),
    ({"zzzz": 3}, "unknown field `zzzz`."),
    ({"num_epochs": 0}, "`num_epochs` must be greater than or equal to 1, you gave 0."),
    ({"num_epochs": 1001}, "`num_epochs` must be less than or equal to 1000, you gave 1001."),
    ({"num_epochs": True}, "`num_epochs` must be a valid integer, you gave True."),
    ({"num_epochs": 2.5}, "`num_epochs` must be a valid integer, you gave 2.5."),
    ({"num_epochs": "5"}, "`num_epochs` must be a valid integer, you gave '5'."),
    ({"max_seq_len": 7}, "`max_seq_len` must be greater than or equal to 8, you gave 7."),
    ({"learning_rate": math.nan}, "`learning_rate` must be a finite number, you gave nan."),
    ({"learning_rate": math.inf}, "`learning_rate` must be a finite number, you gave inf."),
    ({"learning_rate": 0}, "`learning_rate` must be greater than 0, you gave 0."),
    ({"learning_rate": False}, "`learning_rate` must be a valid number, you gave False."),
    ({"gradient_clipping": -1}, "`gradient_clipping` must be greater than 0, you gave -1."),
    ({"holdout_fraction": 0.5}, "`holdout_fraction` must be less than 0.5, you gave 0.5."),
    ({"test_fraction": -0.1}, "`test_fraction` must be greater than or equal to 0, you gave -0.1."),
    ({"batch_size": "big"}, "`batch_size` must be a valid integer or 'auto', you gave 'big'."),
    ({"device": "gpu"}, "`device` must be 'auto', 'cpu', 'cuda' or 'cuda:N', you gave 'gpu'."),
    ({"label": "a\nb"}, "`label` must hold printable characters only, you gave 'a\\nb'."),
    ({"seed": -1}, "`seed` must be greater than or equal to 0, you gave -1."),
    ({"optimizer": {"betas": [0.9, 1.0]}}, "`optimizer.betas.1` must be less than 1, you gave 1.0."),
    ({"optimizer": {"name": "lion"}}, "`optimizer.name` must be 'adamw', 'adam' or 'sgd', you gave 'lion'."),
    ({"tokenizer": {"method": "bpe"}}, "`tokenizer.method` must be 'char', you gave 'bpe'."),
    ({"warmup_steps": 1, "warmup_ratio": 0.1}, "give `warmup_steps` or `warmup_ratio`, not both."),
    ({"early_stopping": {"patience": 0}}, "`early_stopping.patience` must be greater than or equal to 1, you gave 0."),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG_FIELDS)
def test_train_request__wrong_field_is_named_with_what_would_be_right(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(AppError) as caught:
        parse(TrainRequest, {"model_family": "char_lstm", "corpus": "x", **wrong})

    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_INPUT, sentence)


def test_all_wrong_fields_are_told_at_once() -> None:
    with pytest.raises(AppError) as caught:
        parse(TrainRequest, {"model_family": "char_lstm", "num_epochs": 0, "seed": -1})

    assert sorted(problem.path for problem in caught.value.details) == ["corpus", "num_epochs", "seed"]
    assert "`corpus` is required" in caught.value.message


def test_long_values_are_not_repeated() -> None:
    with pytest.raises(AppError) as caught:
        parse(ScoreRequest, {"text": "s" * 3_000_000})

    assert "sss" not in caught.value.message


def test_json_that_is_none_is_refused() -> None:
    with pytest.raises(AppError) as caught:
        parse_json(GenerateRequest, "{no")

    assert caught.value.message.startswith("invalid JSON")


def test_did_you_mean__finds_a_part_of_a_name_and_is_silent_otherwise() -> None:
    assert did_you_mean("epochs", ["num_epochs", "seed"]) == "; did you mean `num_epochs`?"
    assert did_you_mean("qq", ["num_epochs"]) == ""


def test_every_error_code_has_a_class_and_a_status() -> None:
    for code in ErrorCode:
        assert isinstance(code.error_class, ErrorClass)
        assert 400 <= code.http_status < 600


def test_error_records__carry_code_class_and_sentence() -> None:
    error = AppError(ErrorCode.CORPUS_EMPTY, "It is empty.")

    assert (
        RunError.of(error).model_dump_json() == '{"code":"CORPUS_EMPTY","class":"USER_INPUT","message":"It is empty."}'
    )
    assert ErrorBody.of(error, "ab12cd34").request_id == "ab12cd34"
