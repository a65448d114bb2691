"""Messages of webhooks: the Standard Webhooks specification's signature, a stable id, the event as the body."""

import base64
from pathlib import Path

from pydantic import TypeAdapter

from tests.support.stories import Story, run_record
from trainer.contracts.events import Event
from trainer.http.webhooks.client import message_body, message_id, signed_headers

_object: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


def last_event(folder: Path, run_id: str = "char_lstm-1") -> Event:
    return Story(folder, run_record(run_id)).start().fail().run.reader().read_new()[-1]


def test_signature__equals_the_published_example() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_message_id__is_the_same_for_the_same_event_only(tmp_path: Path) -> None:
    event, other = last_event(tmp_path / "a"), last_event(tmp_path / "a", "char_lstm-2")
    assert message_id(event) == message_id(last_event(tmp_path / "b"))
    assert message_id(event) != message_id(other)
    assert message_id(event).startswith("msg_") and "." not in message_id(event)


def test_body__is_the_event_with_its_run(tmp_path: Path) -> None:
    body = _object.validate_json(message_body(last_event(tmp_path)))
    assert {name: body[name] for name in ("run_id", "type", "seq", "code", "class", "message", "ts")} == {
        "run_id": "char_lstm-1",
        "type": "trainer.job.failed.v1",
        "seq": 4,
        "code": "OUT_OF_MEMORY",
        "class": "FATAL",
        "message": "The model did not fit.",
        "ts": "2026-11-20T12:00:00Z",
    }
