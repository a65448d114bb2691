"""An S3-compatible store of objects: reads, conditional writes, lists."""

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
    "The object store of `OBJECT_STORE__URL` does not answer, or refuses the key: try again in a minute, or see the"
    " log."
)
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

    All methods wait for the store; they raise SERVICE_UNAVAILABLE if it does not answer or refuses the key.
    """

    def __init__(self, settings: ObjectStoreSettings) -> None:
        address = urlsplit(settings.url)
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
        with _store_errors(key), suppress(FileNotFoundError):
            found = obstore.get(self._store, key)
            return Stored(bytes(found.bytes()), found.meta["e_tag"] or "")
        return None

    def exists(self, key: str) -> bool:
        with _store_errors(key), suppress(FileNotFoundError):
            obstore.head(self._store, key)
            return True
        return False

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        """Write an object, whatever was there; a large file is sent in parts."""
        with _store_errors(key):
            obstore.put(self._store, key, data)

    def put_new(self, key: str, data: bytes) -> str | None:
        """Write an object unless there is one; return its tag, or None if there is one."""
        with _store_errors(key), suppress(AlreadyExistsError):
            return obstore.put(self._store, key, data, mode="create")["e_tag"]
        return None

    def replace(self, key: str, data: bytes, etag: str) -> str | None:
        """Replace an object whose version has a tag; return the new tag, or None if there is another version."""
        with _store_errors(key), suppress(PreconditionError, FileNotFoundError):
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
        with _store_errors(key):
            left = most_bytes
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=_CHUNK_BYTES):
                target.write(memoryview(chunk)[:left])
                left -= min(left, len(chunk))
                if left == 0:
                    break

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are missing are deleted already."""
        for key in keys:
            with _store_errors(key), suppress(FileNotFoundError):
                obstore.delete(self._store, key)

    def tags(self, prefix: str) -> dict[str, str]:
        """Return the tags of all objects below a prefix that ends with a slash, by key."""
        with _store_errors(prefix):
            listed = obstore.list(self._store, prefix)
            return {entry["path"]: entry["e_tag"] or "" for entries in listed for entry in entries}


@contextmanager
def _store_errors(key: str) -> Iterator[None]:
    """Raise SERVICE_UNAVAILABLE for errors of the store; a missing object is a FileNotFoundError, which is none."""
    try:
        yield
    except BaseError as error:
        log.warning("object_store_failed", key=key, error=type(error).__name__)
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _NO_ANSWER) from error
