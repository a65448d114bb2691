"""An S3-compatible store of objects: reads, conditional writes, lists."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from trainer.config.settings import ObjectStoreSettings
from trainer.contracts.errors import AppError, ErrorCode

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_CLIENT: "ClientConfig" = {
    "allow_http": True,
    "connect_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=60),
}
_RETRY: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
_CHUNK_BYTES = 8 << 20
_NO_ANSWER = (
    "The object store of `OBJECT_STORE__URL` does not answer: try again in a minute, or correct"
    " `OBJECT_STORE__ENDPOINT`."
)
_REFUSAL = "The object store of `OBJECT_STORE__URL` refuses a request ({answer}): {remedy}."
_NO_BUCKET = "There is no bucket '{bucket}' (`OBJECT_STORE__URL`): create it, or correct its name."
_NO_SUCH_BUCKET = "NoSuchBucket"
_REDIRECT = "redirect without LOCATION"
_RIGHTS = "let its key read, write, list and delete objects in the bucket"
_REGION = "set `OBJECT_STORE__REGION` and `OBJECT_STORE__ENDPOINT` to those of the bucket"
_LATER = "try again in a minute"
_REMEDIES = {
    r"RequestTimeTooSkewed|RequestExpired": "set the clock of this machine, which differs from that of the store",
    r"SignatureDoesNotMatch": "correct `OBJECT_STORE__SECRET_ACCESS_KEY`",
    r"InvalidAccessKeyId|Token": "correct `OBJECT_STORE__ACCESS_KEY_ID`, or renew the key",
    r"Quota|StorageFull|HTTP 507": "free some space there, or raise the quota",
    r"AuthorizationHeaderMalformed|Redirect|Location|Region": _REGION,
    r"AccessDenied|Account|NotSignedUp": _RIGHTS,
    r"SlowDown|RequestTimeout|OperationAborted|HTTP 429|HTTP 5": _LATER,
    r"^HTTP 40[13]": f"check its key and the clock of this machine, and {_RIGHTS}",
    r"^HTTP 404": "correct `OBJECT_STORE__ENDPOINT`, where no S3 answers",
}
"""The remedy for an answer, by a pattern of its code or its HTTP status."""
_OTHER_REMEDY = "correct the settings of `OBJECT_STORE__`, or ask whoever runs the store"
_STATUS = re.compile(r"status code: (\d{3}(?: [A-Za-z-]+)*)")
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9.]{1,80})\s*</Code>")
_MESSAGE = re.compile(r"<Message>\s*([^<]{1,200}?)[.\s]*</Message>")
_SECRET = re.compile(r"arn:|[A-Za-z0-9/+=_-]{16,}", re.IGNORECASE)
"""Parts of a message that may be the name of a user or a key."""
_ANOTHER_ETAG = '"00000000000000000000000000000000"'
_NO_CONDITIONS = (
    "The object store of `OBJECT_STORE__URL` ignores the headers If-None-Match and If-Match, so two workers could train"
    " one run: use a store with conditional writes, such as Amazon S3 or MinIO."
)


class Stored(NamedTuple):
    """An object and the tag of its version."""

    data: bytes
    etag: str


class ObjectStore:
    """The bucket and prefix of OBJECT_STORE__URL.

    All methods wait for the store; they raise SERVICE_UNAVAILABLE, with its reason, if it does not answer or refuses.
    """

    def __init__(self, settings: ObjectStoreSettings) -> None:
        address = urlsplit(settings.url)
        self._bucket = address.netloc
        config: S3Config = {"region": settings.region, "virtual_hosted_style_request": settings.endpoint is None}
        if settings.endpoint is not None:
            config["endpoint"] = str(settings.endpoint).rstrip("/")
        if settings.access_key_id is not None:
            config["access_key_id"] = settings.access_key_id.get_secret_value()
        if settings.secret_access_key is not None:
            config["secret_access_key"] = settings.secret_access_key.get_secret_value()
        self._store = S3Store(
            address.netloc,
            prefix=address.path.strip("/") or None,
            config=config,
            client_options=_CLIENT,
            retry_config=_RETRY,
        )

    def get(self, key: str) -> Stored | None:
        """Return an object, or None if there is none."""
        with suppress(FileNotFoundError), self._errors(key, may_lack=True):
            found = obstore.get(self._store, key)
            return Stored(bytes(found.bytes()), found.meta["e_tag"] or "")
        return None

    def exists(self, key: str) -> bool:
        with suppress(FileNotFoundError), self._errors(key, may_lack=True):
            obstore.head(self._store, key)
            return True
        return False

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        """Write an object, whatever was there; a large file is sent in parts."""
        with self._errors(key):
            obstore.put(self._store, key, data)

    def put_new(self, key: str, data: bytes) -> str | None:
        """Write an object unless there is one; return its tag, or None if there is one."""
        with self._errors(key), suppress(AlreadyExistsError):
            return obstore.put(self._store, key, data, mode="create")["e_tag"]
        return None

    def replace(self, key: str, data: bytes, etag: str) -> str | None:
        """Replace an object whose version has a tag; return the new tag, or None if there is another version."""
        with suppress(FileNotFoundError), self._errors(key, may_lack=True), suppress(PreconditionError):
            return obstore.put(self._store, key, data, mode={"e_tag": etag})["e_tag"]
        return None

    def check_conditions(self) -> None:
        """Raise CONFIG_INVALID for a store without conditional writes, which keep two machines apart."""
        key = f"probes/{uuid4().hex}"
        self.put(key, b"1")
        try:
            is_conditional = self.put_new(key, b"2") is None and self.replace(key, b"3", _ANOTHER_ETAG) is None
        except AppError as error:
            if "NotImplemented" not in str(error.__cause__):
                raise
            is_conditional = False
        finally:
            self.delete([key])
        if not is_conditional:
            raise AppError(ErrorCode.CONFIG_INVALID, _NO_CONDITIONS)

    def download(self, key: str, target: BinaryIO, most_bytes: int) -> None:
        """Write the first bytes of an object into a file; raises FileNotFoundError if there is none."""
        with self._errors(key, may_lack=True):
            left = most_bytes
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=_CHUNK_BYTES):
                target.write(memoryview(chunk)[:left])
                left -= min(left, len(chunk))
                if left == 0:
                    break

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are missing are deleted already."""
        for key in keys:
            with suppress(FileNotFoundError), self._errors(key, may_lack=True):
                obstore.delete(self._store, key)

    def tags(self, prefix: str) -> dict[str, str]:
        """Return the tags of all objects below a prefix that ends with a slash, by key."""
        with self._errors(prefix):
            listed = obstore.list(self._store, prefix)
            return {entry["path"]: entry["e_tag"] or "" for entries in listed for entry in entries}

    @contextmanager
    def _errors(self, key: str, *, may_lack: bool = False) -> Iterator[None]:
        """Raise SERVICE_UNAVAILABLE with the reason for errors of the store.

        A FileNotFoundError is none for an object that the store `may_lack`, if it has the bucket.
        """
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            answer = _Answer.of(error)
            if may_lack and isinstance(error, FileNotFoundError) and answer.code != _NO_SUCH_BUCKET:
                raise
            log.warning("object_store_failed", key=key, error=type(error).__name__, reason=str(answer) or None)
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, answer.sentence(self._bucket)) from error


class _Answer(NamedTuple):
    """An answer of the store that is no success: parts of it that may be shown, each empty where there is none."""

    status: str
    code: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> "_Answer":
        """Return what an error says of the answer, without pages of a proxy, and without names of users and keys."""
        text = str(error).partition("\n\nDebug source:")[0]
        if _REDIRECT in text:  # the library does not read the answer
            return cls("HTTP 301", "PermanentRedirect", "")
        status, code, message = (_found(form, text) for form in (_STATUS, _CODE, _MESSAGE))
        may_show = code and message.isprintable() and not _SECRET.search(message)
        return cls(status and f"HTTP {status}", code, message if may_show else "")

    def __str__(self) -> str:
        return ": ".join(part for part in (self.code or self.status, self.message) if part)

    def sentence(self, bucket: str) -> str:
        """Return the answer and what to do."""
        if self.code == _NO_SUCH_BUCKET:
            return _NO_BUCKET.format(bucket=bucket)
        if not str(self):
            return _NO_ANSWER
        text = f"{self.code} {self.status}".strip()
        remedy = next((remedy for form, remedy in _REMEDIES.items() if re.search(form, text)), _OTHER_REMEDY)
        return _REFUSAL.format(answer=self, remedy=remedy)


def _found(form: re.Pattern[str], text: str) -> str:
    found = form.search(text)
    return "" if found is None else found[1]
