"""`REDIS__URL`, read by redis-py's own parser."""

import re
import ssl
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, ValidationError
from redis.asyncio.connection import parse_url

from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode

_FORM = (
    "`REDIS__URL` must look like redis://:PASSWORD@HOST:6379/0, rediss://… or unix:///PATH; special characters of the"
    " password and the path are written as %23 for # or %40 for @."
)
_PARAMETERS = ("db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_UNKNOWN = f"`REDIS__URL` has an unknown parameter, or one with a wrong value. It may have {', '.join(_PARAMETERS)}."
"""A text without the name: it could be part of a password that is not written as it must be."""
_DATABASE = re.compile(r"/?[0-9]*")


class Address(Frozen):
    """The parts of `REDIS__URL`; the parameters of TLS have redis-py's names."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    """Path of a Unix socket."""
    db: int = Field(default=0, ge=0)
    username: str | None = None
    password: SecretStr | None = None
    is_tls: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_cert_reqs: Literal["none", "optional", "required"] = "required"
    ssl_check_hostname: bool | None = None

    @property
    def checks_hostname(self) -> bool:
        """True unless the address switches the check of the certificate or of its host name off."""
        return self.ssl_cert_reqs != "none" if self.ssl_check_hostname is None else self.ssl_check_hostname


def parse_address(url: str) -> Address:
    """Parse the address of a server; raises CONFIG_INVALID, without showing the address."""
    given = re.sub(r"^valkey", "redis", url.strip(), flags=re.IGNORECASE)
    try:
        parts, parsed = urlsplit(given), parse_url(given)
        (parts.hostname or "").encode("idna")
    except ValueError:  # a UnicodeError is one too
        raise AppError(ErrorCode.CONFIG_INVALID, _FORM) from None
    is_socket = parts.scheme == "unix"
    if parts.fragment or (parts.path == "" if is_socket else not _DATABASE.fullmatch(parts.path)):
        raise AppError(ErrorCode.CONFIG_INVALID, _FORM)
    fields: dict[str, object] = {**parsed, "is_tls": parts.scheme == "rediss"}
    fields.pop("connection_class", None)
    try:
        if not parse_qs(parts.query).keys() <= {*_PARAMETERS, "username", "password"}:
            raise AppError(ErrorCode.CONFIG_INVALID, _UNKNOWN)
        address = Address.model_validate(fields)
    except ValidationError:
        raise AppError(ErrorCode.CONFIG_INVALID, _UNKNOWN) from None
    _check_tls(address)
    return address


def _check_tls(address: Address) -> None:
    """Check the parameters of TLS and the files that they name; raises CONFIG_INVALID."""
    if not address.is_tls:
        if any(name.startswith("ssl_") for name in address.model_fields_set):
            raise AppError(ErrorCode.CONFIG_INVALID, "The ssl_ parameters of `REDIS__URL` need rediss:// (TLS).")
        return
    if address.ssl_cert_reqs == "none" and address.ssl_check_hostname:
        raise AppError(
            ErrorCode.CONFIG_INVALID,
            "`REDIS__URL` has ssl_check_hostname and ssl_cert_reqs=none, which checks no certificate: leave one out.",
        )
    try:
        context = ssl.create_default_context(cafile=address.ssl_ca_certs)
        if address.ssl_certfile is not None:
            context.load_cert_chain(address.ssl_certfile, address.ssl_keyfile, password="")  # else it would ask for one
    except OSError:
        reason = "A file of ssl_ca_certs, ssl_certfile or ssl_keyfile in `REDIS__URL` cannot be read as PEM."
        raise AppError(ErrorCode.CONFIG_INVALID, reason) from None
