"""Requests of programs: their clients, and the inputs of an operation read from JSON."""

import hmac
import json
import re
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

from pydantic import BaseModel
from pydantic_core import from_json

from trainer.config.train_request import train_request
from trainer.config.validation import parse, safe_name
from trainer.contracts.base import Frozen, HttpOrigin, narrowed
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.runs import TrainRequest
from trainer.lab.calls import AnyCall, BodyT
from trainer.lab.permissions import Caller
from trainer.queue.run_index import owner_number
from trainer.system.files import BrokenFile, to_app_error

IDEMPOTENCY_KEY = "^[!-~]{1,255}$"
MAX_BODY_BYTES = 16 << 20
_MAX_EXACT = 2**53


class ApiClient(NamedTuple):
    """The client of a request."""

    name: str | None
    """None for a server without keys, whose clients are admins, and for the operator of this machine."""
    is_admin: bool
    key_hash: bytes = b""

    @property
    def caller(self) -> Caller:
        """This client for permissions and limits."""
        return Caller(0 if self.name is None else owner_number(self.name), self.is_admin, key_name=self.name)

    def idempotency(self, path: str, key: str) -> str:
        """Return the hash that stands for an Idempotency-Key of this client; others cannot compute it.

        Raises INVALID_INPUT for a key with other signs than ASCII ones, or too many.
        """
        if not re.fullmatch(IDEMPOTENCY_KEY, key):
            message = "The Idempotency-Key must have 1 to 255 ASCII characters without spaces."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        return hmac.digest(self.key_hash, f"{path}\n{key}".encode(), "sha256").hex()

    def origin(self, key: str | None, body: BaseModel) -> HttpOrigin:
        """Return the origin of a run that a request starts; `key` stands for its Idempotency-Key."""
        fields = None if key is None else body.model_dump_json(exclude_unset=True).encode()
        digest = None if fields is None else sha256(fields).hexdigest()
        return HttpOrigin(api_key=self.name, idempotency=key, body=digest)


def path_of(following: AnyCall, record: Frozen) -> BaseModel:
    """Return the path of the operation that reads the status of what a record is about."""
    fields: dict[str, object] = record.model_dump(include=set(following.path.model_fields))
    return following.path.model_validate(fields)


def body_of_json(model: type[BodyT], data: bytes) -> BodyT:
    """Validate a JSON body; raises INVALID_JSON, and INVALID_INPUT if a field is given twice or is wrong."""
    try:
        value: object = from_json(data, allow_inf_nan=False)
        _: object = json.loads(data, parse_int=float, object_pairs_hook=_unique)
    except ValueError:
        raise AppError(ErrorCode.INVALID_JSON, "The body is not valid JSON.") from None
    return body_of(model, value)


def body_of(model: type[BodyT], value: object) -> BodyT:
    """Validate a body; raises INVALID_INPUT."""
    numbers = whole_numbers(value)
    if issubclass(model, TrainRequest) and isinstance(numbers, dict):
        fields: dict[str, object] = numbers
        return narrowed(model, train_request(fields))
    return parse(model, numbers)


def _unique(pairs: list[tuple[str, object]]) -> None:
    """Raise INVALID_INPUT if an object, at any depth, has two fields of the same name."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise field_error(ErrorCode.INVALID_INPUT, safe_name(name), "is given twice in one block: give it once.")
        seen.add(name)


def whole_numbers(value: object) -> object:
    """Turn 65.0 into 65, which is an integer for JSON Schema."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _MAX_EXACT else value
    if isinstance(value, list):
        items: list[object] = value
        return [whole_numbers(item) for item in items]
    if isinstance(value, dict):
        fields: dict[str, object] = value
        return {name: whole_numbers(item) for name, item in fields.items()}
    return value


def as_app_error(error: Exception) -> AppError:
    """Return a typed error for an unreadable record, and for a failing or full disk; INTERNAL_ERROR for the rest."""
    if isinstance(error, OSError | BrokenFile):
        with suppress(OSError):
            return to_app_error(error, {})
    return AppError(ErrorCode.INTERNAL_ERROR, "The server failed to answer this request.")
