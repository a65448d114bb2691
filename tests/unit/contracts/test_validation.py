"""Bad input gets one sentence that names the field and what would be right."""

import math
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from trainer.config.train_request import train_request
from trainer.config.validation import (
    did_you_mean,
    parse,
    parse_json,
    shown_name,
    shown_value,
    takes_any_text,
)
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorBody, ErrorClass, ErrorCode, FieldProblem, RunError
from trainer.contracts.inference import GenerateRequest
from trainer.contracts.runs import TrainRequest

WRONG_FIELDS: list[tuple[dict[str, object], str, str]] = [
    ({"model": {"hiden_size": 3}}, "unknown field `model.hiden_size`; did you mean `hidden_size`?", "one of architect"),
    ({"model": {"zz-z[1]": 3}}, "unknown field `model.zz-z[1]`.", "one of architecture, embedding_size, hidden_size"),
    ({"num_epoch": 3}, "unknown field `num_epoch`; did you mean `num_epochs`?", "one of model_family, model_size, spl"),
    ({"hidden_size": 3}, "unknown field `hidden_size`; did you mean `model.hidden_size`?", "one of model_family, "),
    ({"zzzz": 3}, "unknown field `zzzz`.", "one of model_family, "),
    ({"num_epochs": 0}, "`num_epochs` must be greater than or equal to 1, you gave 0.", "an integer ≥ 1 and ≤ 1000"),
    ({"num_epochs": 1001}, "`num_epochs` must be less than or equal to 1000, you gave 1001.", "an integer ≥ 1 and ≤ "),
    ({"num_epochs": True}, "`num_epochs` must be a valid integer, you gave true.", "an integer ≥ 1 and ≤ 1000"),
    ({"num_epochs": None}, "`num_epochs` must be a valid integer, you gave null.", "an integer ≥ 1 and ≤ 1000"),
    ({"num_epochs": 2.5}, "`num_epochs` must be a valid integer, you gave 2.5.", "an integer ≥ 1 and ≤ 1000"),
    ({"num_epochs": "5"}, "`num_epochs` must be a valid integer, you gave '5'.", "an integer ≥ 1 and ≤ 1000"),
    ({"max_seq_len": 7}, "`max_seq_len` must be greater than or equal to 8, you gave 7.", "an integer ≥ 8 and ≤ 4096"),
    ({"learning_rate": math.nan}, "`learning_rate` must be a finite number, you gave nan.", "a number > 0 and ≤ 1"),
    ({"learning_rate": math.inf}, "`learning_rate` must be a finite number, you gave inf.", "a number > 0 and ≤ 1"),
    ({"learning_rate": 0}, "`learning_rate` must be greater than 0, you gave 0.", "a number > 0 and ≤ 1"),
    ({"learning_rate": False}, "`learning_rate` must be a valid number, you gave false.", "a number > 0 and ≤ 1"),
    ({"gradient_clipping": -1}, "`gradient_clipping` must be greater than 0, you gave -1.", "a number > 0 or null"),
    ({"holdout_fraction": 0.5}, "`holdout_fraction` must be less than 0.5, you gave 0.5.", "a number > 0 and < 0.5"),
    ({"test_fraction": -0.1}, "`test_fraction` must be greater than or equal to 0, you gave -0.1.", "a number ≥ 0 "),
    (
        {"batch_size": "big"},
        "`batch_size` must be a valid integer or 'auto', you gave 'big'.",
        "an integer ≥ 1 and ≤ 4",
    ),
    ({"split_by": "word"}, "`split_by` must be 'line', 'file' or 'position', you gave 'word'.", "one of 'line', 'fil"),
    (
        {"device": "gpu"},
        "`device` must be 'auto', 'cpu', 'cuda' or 'cuda:N', you gave 'gpu'.",
        "'auto', 'cpu', 'cuda' o",
    ),
    ({"label": "a\nb"}, "`label` must hold printable characters only, you gave 'a\\nb'.", "must hold printable chara"),
    ({"label": ""}, "`label` must have at least 1 character, you gave ''.", "text of 1 to 64 characters or null"),
    (
        {"label": 7},
        "`label` must be text, you gave 7 (in quotes it would be text).",
        "text of 1 to 64 characters or nu",
    ),
    ({"corpus": []}, "`corpus` must be text, you gave [].", "text of 1 to 512 characters"),
    ({"seed": -1}, "`seed` must be greater than or equal to 0, you gave -1.", "an integer ≥ 0 and < 4294967296"),
    ({"seed": 10**30}, f"`seed` must be less than 4294967296, you gave {10**30}.", "an integer ≥ 0 and < 4294967296"),
    ({"tags": "a"}, "`tags` must be a list, you gave 'a'.", "a list of at most 32 items, each text of at most 64 ch"),
    ({"tags": ["a"] * 33}, "`tags` must have at most 32 items, not 33.", "a list of at most 32 items, each text of"),
    ({"tags": ["a" * 65]}, "`tags.0` must have at most 64 characters.", "text of at most 64 characters"),
    (
        {"model": 3},
        "`model` must be a block of fields, you gave 3.",
        "a block with architecture, embedding_size, hidden_s",
    ),
    (
        {"optimizer": {"betas": [0.9, 1.0]}},
        "`optimizer.betas.1` must be less than 1, you gave 1.0.",
        "a number ≥ 0 and",
    ),
    ({"optimizer": {"betas": [0.9]}}, "`optimizer.betas.1` is required.", "a number ≥ 0 and < 1"),
    (
        {"optimizer": {"betas": 1}},
        "`optimizer.betas` must be a list, you gave 1.",
        "a list of 2 items, each a number ≥ 0",
    ),
    (
        {"optimizer": {"name": "lion"}},
        "`optimizer.name` must be 'adamw', 'adam' or 'sgd', you gave 'lion'.",
        "one of '",
    ),
    (
        {"early_stopping": {"enabled": "yes"}},
        "`early_stopping.enabled` must be true or false, you gave 'yes'",
        "true o",
    ),
    (
        {"early_stopping": {"enabled": 1}},
        "`early_stopping.enabled` must be true or false, you gave 1.",
        "true or false",
    ),
    (
        {"tokenizer_id": "A"},
        "`tokenizer_id` must match pattern '^[a-z0-9][a-z0-9_-]{0,63}$', you gave 'A'.",
        "text that",
    ),
    (
        {"tokenizer": {"method": 3}},
        "`tokenizer.method` must be one of 'bpe', 'byte', 'char', 'sentencepiece', 'word', 'wordpiece', you gave 3.",
        "one of 'bpe', 'byte', 'char'",
    ),
    ({"provenance": {}}, "`provenance.source_corpus` is required.", "text"),
    ({"warmup_steps": 1, "warmup_ratio": 0.1}, "give `warmup_steps` or `warmup_ratio`, not both.", ""),
]


@pytest.mark.parametrize(("wrong", "sentence", "allowed"), WRONG_FIELDS)
def test_train_request__wrong_field_is_named_with_what_would_be_right(
    wrong: dict[str, object], sentence: str, allowed: str
) -> None:
    with pytest.raises(AppError) as caught:
        train_request({"model_family": "char_lstm", "corpus": "x", **wrong})
    [problem] = caught.value.details
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.message.startswith(sentence)
    assert (problem.allowed or "").startswith(allowed)


def test_all_wrong_fields_are_told_at_once() -> None:
    with pytest.raises(AppError) as caught:
        train_request({"model_family": "char_lstm", "num_epochs": 0, "seed": -1})
    assert sorted(problem.path for problem in caught.value.details) == ["corpus", "num_epochs", "seed"]
    assert "`corpus` is required" in caught.value.message


def test_train_request__what_does_not_exist_is_told_by_its_own_code_with_all_else_that_is_wrong() -> None:
    tokenizer: dict[str, object] = {"method": "morse"}
    with pytest.raises(AppError) as caught:
        train_request({"model_family": "gpt3", "tokenizer": tokenizer, "corpus": "x", "num_epochs": 0})

    assert caught.value.code is ErrorCode.UNSUPPORTED_BACKEND
    families = "one of 'char_lstm', 'gpt2', 'bert', 'lstm', 'gru', 'rnn', 'llama', 'qwen'"
    methods = "one of 'char', 'byte', 'word', 'bpe', 'wordpiece', 'sentencepiece'"
    assert caught.value.details == (
        FieldProblem(
            path="model_family",
            message=f"`model_family` 'gpt3' is not available; it must be {families}",
            value="'gpt3'",
            allowed=families,
        ),
        FieldProblem(
            path="tokenizer.method",
            message=f"`tokenizer.method` 'morse' is not available; it must be {methods}",
            value="'morse'",
            allowed=methods,
        ),
        FieldProblem(
            path="num_epochs",
            message="`num_epochs` must be greater than or equal to 1, you gave 0",
            value="0",
            allowed="an integer ≥ 1 and ≤ 1000",
        ),
    )


def test_train_request__an_unknown_family_alone_is_one_problem() -> None:
    with pytest.raises(AppError) as caught:
        train_request({"model_family": "gpt\n2", "corpus": "x"})
    assert len(caught.value.details) == 1
    assert "\n" not in caught.value.message


def test_long_values_are_not_repeated() -> None:
    with pytest.raises(AppError) as caught:
        parse(TrainRequest, {"model_family": "char_lstm", "corpus": "s" * 3_000_000})
    assert "sss" not in caught.value.message
    assert caught.value.details[0].value is None


def test_names_and_values__are_shown_in_one_line_that_is_not_long() -> None:
    assert shown_name("a\nb\u202e" + "c" * 100) == "a?b?" + "c" * 60
    assert (shown_value("a\n"), shown_value(True), shown_value(None), shown_value("x" * 99)) == (
        r"'a\n'",
        "true",
        "null",
        None,
    )


class Cat(Frozen):
    kind: Literal["cat", "lion"]
    lives: Annotated[int, Field(ge=1)]


class Dog(Frozen):
    kind: Literal["dog"]


class Owner(BaseModel):
    """Types that our requests do not use yet, or only the settings."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    names: dict[str, int] = Field(default_factory=dict)
    key: SecretStr | None = None
    words: Annotated[tuple[str, ...], Field(min_length=1)] = ("a",)
    anything: object = None


WRONG_OWNERS: list[tuple[dict[str, object], FieldProblem]] = [
    (
        {"pet": {"kind": "lion", "lives": 0}},
        FieldProblem(
            path="pet.lives",
            message="`pet.lives` must be greater than or equal to 1, you gave 0",
            value="0",
            allowed="an integer ≥ 1",
        ),
    ),
    (
        {"pet": {"kind": "cow"}},
        FieldProblem(
            path="pet.kind",
            message="`pet.kind` must be one of 'cat', 'dog', 'lion', you gave 'cow'",
            value="'cow'",
            allowed="one of 'cat', 'dog', 'lion'",
        ),
    ),
    (
        {"pet": {"lives": 3}},
        FieldProblem(path="pet.kind", message="`pet.kind` is required", allowed="one of 'cat', 'dog', 'lion'"),
    ),
    (
        {"names": {"[x]-1": "n"}},
        FieldProblem(
            path="names.[x]-1",
            message="`names.[x]-1` must be a valid integer, you gave 'n'",
            value="'n'",
            allowed="an integer",
        ),
    ),
    (
        {"words": []},
        FieldProblem(
            path="words",
            message="`words` must have at least 1 item, not 0, you gave []",
            value="[]",
            allowed="a list of at least 1 items, each text",
        ),
    ),
    ({"key": 12345}, FieldProblem(path="key", message="`key` must be text", allowed="text or null")),
    (
        {"kee": "s3cret"},
        FieldProblem(
            path="kee",
            message="unknown field `kee`; did you mean `key`?",
            allowed="one of pet, names, key, words, anything",
        ),
    ),
]


@pytest.mark.parametrize(("wrong", "problem"), WRONG_OWNERS)
def test_problems__name_the_field_and_never_a_secret(wrong: dict[str, object], problem: FieldProblem) -> None:
    class Strict(Owner, extra="forbid", strict=True):
        pass

    with pytest.raises(AppError) as caught:
        parse(Strict, wrong)
    assert caught.value.details == (problem,)


def test_fields_that_take_any_text__are_those_whose_values_nobody_listed() -> None:
    free = [path for path in PATHS if takes_any_text(TrainRequest, path)]
    assert free == ["corpus", "label", "model_size", "provenance.source_corpus", "device", "tokenizer_id"]


PATHS = [
    *("corpus", "label", "model_size", "provenance.source_corpus", "device", "tokenizer_id"),
    *("seed", "batch_size", "objective", "split_by", "tags", "model.architecture", "model", "nothing", "model.nothing"),
]


def test_json_that_is_none_is_refused() -> None:
    with pytest.raises(AppError) as caught:
        parse_json(GenerateRequest, "{no")
    assert caught.value.message.startswith("invalid JSON")


def test_did_you_mean__finds_a_part_of_a_name_and_is_silent_otherwise() -> None:
    assert did_you_mean("epochs", ["num_epochs", "seed"]) == "; did you mean `num_epochs`?"
    assert did_you_mean("hidden_size", ["model.hidden_size"]) == "; did you mean `model.hidden_size`?"
    for name in ("qq", "x", "top"):
        assert did_you_mean(name, ["num_epochs", "max_seq_len", "early_stopping"]) == ""


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
