"""Bad input gets one sentence that names the field and what would be right."""

import math
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from tests.support.refusals import refused
from trainer.config.train_request import train_request
from trainer.config.validation import did_you_mean, format_value, parse, parse_json, safe_name, set_path, takes_any_text
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import TrainRequest

BIG = {"method": "bpe", "vocab_size": 10**9}
METHODS = "one of 'bpe', 'byte', 'char', 'sentencepiece', 'word', 'wordpiece'"
WRONG_FIELDS: list[tuple[str, object, str, str]] = [
    ("model.hiden_size", 3, "unknown field `model.hiden_size`; did you mean `hidden_size`?", "one of architecture"),
    ("model.zz-z[1]", 3, "unknown field `model.zz-z[1]`", "one of architecture, embedding_size, hidden_size"),
    ("zzzz", 3, "unknown field `zzzz`", "one of model_family, "),
    ("num_epochs", 0, "must be greater than or equal to 1, you gave 0", "an integer ≥ 1 and ≤ 1000"),
    ("num_epochs", True, "must be a valid integer, you gave true", ""),
    ("num_epochs", "5", "must be a valid integer, you gave '5'", ""),
    ("learning_rate", math.nan, "must be a finite number, you gave nan", "a number > 0 and ≤ 1"),
    ("learning_rate", math.inf, "must be a finite number, you gave inf", ""),
    ("learning_rate", False, "must be a valid number, you gave false", ""),
    ("gradient_clipping", -1, "must be greater than 0, you gave -1", "a number > 0 or null"),
    ("test_fraction", -0.1, "must be greater than or equal to 0, you gave -0.1", "a number ≥ 0 and < 0.5"),
    ("batch_size", "big", "must be a valid integer or 'auto', you gave 'big'", "an integer ≥ 1 and ≤ 4"),
    ("device", "gpu", "must be 'auto', 'cpu', 'cuda' or 'cuda:N', you gave 'gpu'", "'auto', 'cpu', 'cuda' o"),
    ("label", "a\nb", "must hold printable characters only, you gave 'a\\nb'", "printable characters only"),
    ("label", "", "must have at least 1 character, you gave ''", "text of 1 to 64 characters or null"),
    ("label", 7, "must be text, you gave 7 (in quotes it would be text)", ""),
    ("corpus", [], "must be text, you gave []", "text of 1 to 512 characters"),
    ("seed", -1, "must be greater than or equal to 0, you gave -1", "an integer ≥ 0 and < 4294967296"),
    ("seed", 10**30, f"must be less than 4294967296, you gave {10**30}", ""),
    ("warmup_steps", 10**12, "must be less than or equal to 1000000000, you gave 1000000000000", ""),
    ("tokenizer", BIG, "`tokenizer.vocab_size` must be less than or equal to 1000000, you gave 1000000000", ""),
    ("model.hidden_size", 2_000_000, "must be less than or equal to 1000000, you gave 2000000", ""),
    ("model.num_layers", 1025, "must be less than or equal to 1024, you gave 1025", ""),
    ("tags", ["a"] * 33, "must have at most 32 items, not 33", "a list of at most 32 items, each text of 1 to 64 "),
    ("tags", ["a" * 65], "`tags.0` must have at most 64 characters", "text of 1 to 64 characters"),
    ("model", 3, "must be a block of fields, you gave 3", "a block with architecture, embedding_size, hidden_s"),
    ("optimizer.betas", [0.9], "`optimizer.betas.1` is required", "a number ≥ 0 and < 1"),
    ("optimizer.betas", 1, "must be a list, you gave 1", "a list of 2 items, each a number ≥ 0"),
    (
        *("optimizer.name", "lion", "must be 'adamw', 'adam', 'sgd' or 'muon', you gave 'lion'"),
        "one of 'adamw', 'adam', 'sgd', 'muon'",
    ),
    ("early_stopping.enabled", 1, "must be true or false, you gave 1", "true or false"),
    (
        *("tokenizer_id", "A"),
        "must begin with a small letter (a to z) or a digit and go on with these or _ -, at most 64 in all,"
        " you gave 'A'",
        "text that",
    ),
    ("tokenizer.method", 3, f"must be {METHODS}, you gave 3", METHODS),
    ("", {"warmup_steps": 1, "warmup_ratio": 0.1}, "give `warmup_steps` or `warmup_ratio`, not both", ""),
]


@pytest.mark.parametrize(("path", "given", "said", "allowed"), WRONG_FIELDS)
def test_wrong_field__is_named_with_the_allowed_values(path: str, given: object, said: str, allowed: str) -> None:
    fields: dict[str, object] = {"model_family": "char_lstm", "corpus": "x"}
    if path:
        set_path(fields, path, given)
    elif isinstance(given, dict):
        fields |= given
    with pytest.raises(AppError) as caught:
        train_request(fields)
    [problem] = caught.value.details
    whole = said if not path or said.startswith(("`", "unknown")) else f"`{path}` {said}"
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert problem.message == whole
    assert caught.value.message == (whole if whole.endswith("?") else f"{whole}.")
    assert (problem.allowed or "").startswith(allowed)


def test_unknown_names__have_a_code_of_their_own_beside_all_other_mistakes() -> None:
    with pytest.raises(AppError) as caught:
        train_request({"model_family": "gpt3", "tokenizer": {"method": "morse"}, "num_epochs": 0})
    epochs = "`num_epochs` must be greater than or equal to 1, you gave 0"
    families = "one of 'char_lstm', 'gpt2', 'bert', 'lstm', 'gru', 'rnn', 'llama', 'qwen', 'ngram'"
    methods = "one of 'char', 'byte', 'word', 'bpe', 'wordpiece', 'sentencepiece'"
    assert caught.value.code is ErrorCode.UNSUPPORTED_BACKEND
    assert [(problem.path, problem.message, problem.value, problem.allowed) for problem in caught.value.details] == [
        ("model_family", f"`model_family` 'gpt3' is not available; it must be {families}", "'gpt3'", families),
        ("tokenizer.method", f"`tokenizer.method` 'morse' is not available; it must be {methods}", "'morse'", methods),
        ("num_epochs", epochs, "0", "an integer ≥ 1 and ≤ 1000 or null"),
        ("corpus", "`corpus` is required", None, "text of 1 to 512 characters"),
    ]
    with pytest.raises(AppError, match=r"\A.+\Z") as alone:  # in one line
        train_request({"model_family": "gpt\n2", "corpus": "x"})
    assert len(alone.value.details) == 1


def test_names_and_values__are_shown_in_one_line_that_is_not_long() -> None:
    assert safe_name("a\nb\u202e" + "c" * 100) == "a?b?" + "c" * 60
    assert [format_value(value) for value in ("a\n", True, None, "x" * 99)] == [r"'a\n'", "true", "null", None]
    with pytest.raises(AppError) as caught:
        parse(TrainRequest, {"model_family": "char_lstm", "corpus": "s" * 3_000_000})
    assert "sss" not in caught.value.message
    assert caught.value.details[0].value is None
    with refused(ErrorCode.INVALID_INPUT, "invalid JSON"):
        parse_json(TrainRequest, "{no")


class Cat(Frozen):
    kind: Literal["cat", "lion"]
    lives: Annotated[int, Field(ge=1)]


class Dog(Frozen):
    kind: Literal["dog"]


class Owner(BaseModel, extra="forbid", strict=True):
    """Types that our requests do not use yet, or only the settings."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    names: dict[str, int] = Field(default_factory=dict)
    key: SecretStr | None = None
    words: Annotated[tuple[str, ...], Field(min_length=1)] = ("a",)
    anything: object = None


TEXTS = "a list of at least 1 items, each text"
KINDS = "one of 'cat', 'dog', 'lion'"
NO_INTEGER = "`names.[x]-1` must be a valid integer, you gave 'n'"
DEAD, UNKNOWN = {"kind": "lion", "lives": 0}, "unknown field `kee`; did you mean `key`?"
WRONG_OWNERS: list[tuple[dict[str, object], str, str, str | None, str]] = [
    ({"pet": DEAD}, "pet.lives", "`pet.lives` must be greater than or equal to 1, you gave 0", "0", "an integer ≥ 1"),
    ({"pet": {"kind": "cow"}}, "pet.kind", f"`pet.kind` must be {KINDS}, you gave 'cow'", "'cow'", KINDS),
    ({"pet": {"lives": 3}}, "pet.kind", "`pet.kind` is required", None, KINDS),
    ({"names": {"[x]-1": "n"}}, "names.[x]-1", NO_INTEGER, "'n'", "an integer"),
    ({"words": []}, "words", "`words` must have at least 1 item, not 0, you gave []", "[]", TEXTS),
    ({"key": 12345}, "key", "`key` must be text", None, "text or null"),
    ({"kee": "s3cret"}, "kee", UNKNOWN, None, "one of pet, names, key, words, anything"),
]


@pytest.mark.parametrize(("wrong", "path", "message", "value", "allowed"), WRONG_OWNERS)
def test_problems__name_the_field_and_never_a_secret(
    wrong: dict[str, object], path: str, message: str, value: str | None, allowed: str
) -> None:
    with pytest.raises(AppError) as caught:
        parse(Owner, wrong)
    [found] = caught.value.details
    assert (found.path, found.message, found.value, found.allowed) == (path, message, value, allowed)


FREE = ["corpus", "label", "model_size", "provenance.source_corpus", "device", "tokenizer_id"]
LISTED = "seed batch_size objective split_by tags model.architecture model nothing model.nothing".split()


def test_fields_that_take_any_text__are_those_without_a_list_of_values() -> None:
    assert [path for path in FREE + LISTED if takes_any_text(TrainRequest, path)] == FREE


def test_did_you_mean__finds_a_part_of_a_name_and_is_silent_otherwise() -> None:
    assert did_you_mean("epochs", ["num_epochs", "seed"]) == "; did you mean `num_epochs`?"
    assert did_you_mean("hidden_size", ["model.hidden_size"]) == "; did you mean `model.hidden_size`?"
    assert {did_you_mean(name, ["num_epochs", "max_seq_len", "early_stopping"]) for name in ("qq", "x", "top")} == {""}
