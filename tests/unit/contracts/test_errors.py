"""Codes of errors and the forms in which errors are stored and shown."""

from trainer.contracts.errors import AppError, ErrorBody, ErrorCode, RunError


def test_error_records__carry_code_class_and_sentence() -> None:
    error = AppError(ErrorCode.CORPUS_EMPTY, "It is empty.")
    stored = RunError.of(error).model_dump_json()
    assert stored == '{"code":"CORPUS_EMPTY","class":"USER_INPUT","message":"It is empty."}'
    assert ErrorBody.of(error, "ab12cd34").request_id == "ab12cd34"
