"""Jobs in Redis are JSON, whatever is in them: nothing that is unpickled, nothing that fails to be written."""

import pytest

from trainer.store.connection import dumps, loads


def test_job__with_an_exception_is_written_as_its_type_and_read_again() -> None:
    arguments = [{"run_id": "a"}]
    assert loads(dumps({"r": ValueError("a secret"), "a": arguments})) == {"r": "ValueError", "a": arguments}


@pytest.mark.parametrize("data", [b"[1]", b"null", b"\x80\x04K\x01.", b"{"])
def test_bytes_that_are_no_json_object__are_no_job(data: bytes) -> None:
    with pytest.raises(ValueError):
        loads(data)
