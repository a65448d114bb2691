"""Why Redis does not serve a command: a sentence for each refusal, and one log line a minute while it lasts."""

import re
import ssl
import time

import structlog
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError

from trainer.contracts.errors import causes

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

NO_ANSWER = (
    "No Redis answers at `REDIS__URL`. Start it, correct the address (rediss:// for TLS), or leave the setting empty."
)
_NO_REDIS = "Another program than Redis answers at `REDIS__URL`. Correct the address, or leave the setting empty."
_REFUSED_USER = "Redis refuses the user name or the password of `REDIS__URL`. Correct them there."
_REFUSED_CERTIFICATE = (
    "The certificate of the server at `REDIS__URL` is refused ({reason}). Use the host name of the certificate, or add"
    " ?ssl_ca_certs=FILE with the authority that signed it."
)
_NO_TLS = (
    "TLS with the server at `REDIS__URL` fails ({reason}). Use redis:// for a server without TLS, or add"
    " ?ssl_certfile=FILE if it asks for a certificate."
)
_NO_RIGHT = (
    "Redis does not let the user of `REDIS__URL` run {command}. Give that user the rights that docs/redis.md lists."
)
CLUSTER = "Redis Cluster is not supported. Set `REDIS__URL` to a single Redis or Valkey (cluster-enabled no)."
_SENTENCES = {
    r"LOADING|Redis is loading": "Redis is still loading its data. Wait until it has finished.",
    r"NOAUTH|Authentication required": (
        "Redis asks for a password. Put it into `REDIS__URL`: redis://:PASSWORD@HOST:6379/0."
    ),
    r"AUTH .*without any password|no password is set": (
        "Redis has no password, but `REDIS__URL` gives one. Leave it out there, or give Redis one."
    ),
    r"DB index|invalid DB": "Redis has no database of the number in `REDIS__URL`. Use a lower one, such as 0.",
    r"MOVED|ASK \d|CROSSSLOT|CLUSTERDOWN|TRYAGAIN|cluster mode|hash to the same slot": CLUSTER,
    r"MASTERDOWN": (
        "The Redis of `REDIS__URL` is a replica that has lost its primary. Set the address of the primary."
    ),
    r"READONLY|read only replica": (
        "The Redis of `REDIS__URL` is a replica that takes no writes. Set the address of the primary."
    ),
    r"MISCONF": "Redis takes no writes, because it cannot save to its disk (MISCONF). Free space there; see its log.",
    r"OOM|used memory > 'maxmemory'": "Redis takes no writes: its memory is full. Raise its `maxmemory`.",
    r"NOREPLICAS": "Redis takes no writes: too few replicas are connected (`min-replicas-to-write`).",
    r"max number of clients": "Redis accepts no further connection. Raise its `maxclients`.",
    r"unknown command": "The server of `REDIS__URL` lacks a command. Redis 6.2 or Valkey is needed, with Lua scripts.",
}
"""The sentence for each form of an error of Redis."""
_COMMAND = re.compile(r"run the '([a-zA-Z|]+)' command|access a (key|channel)", re.IGNORECASE)
_NO_PERMISSION = re.compile(r"NOPERM|ACL failure|no permissions?\b", re.IGNORECASE)
_CODE = re.compile(r"[A-Z]{3,}\b")
_SECONDS = 60.0
_last_logged: dict[str | None, float] = {}


def refusal(error: BaseException) -> str | None:
    """Return why Redis refused a command or a connection, and the remedy; None if it did not answer."""
    for one in causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return _REFUSED_CERTIFICATE.format(reason=one.verify_message.rstrip("."))
        if isinstance(one, ssl.SSLError):
            return _NO_TLS.format(reason=str(one.reason).lower().replace("_", " "))
    if isinstance(error, InvalidResponse):
        return _NO_REDIS
    text = str(error).rpartition(" caused error: ")[2]  # a pipeline puts the command before it, with its arguments
    if not isinstance(error, RedisError) or text.startswith("Error "):  # of redis-py, with the name of the host
        return None
    if _NO_PERMISSION.search(text):
        found = _COMMAND.search(text)
        command = f"`{found[1]}`" if found and found[1] else "a command on one of the program's keys"
        return _NO_RIGHT.format(command=command)
    for form, sentence in _SENTENCES.items():
        if re.search(form, text):
            return sentence
    if isinstance(error, AuthenticationError):
        return _REFUSED_USER
    code = _CODE.match(text)
    return f"Redis refuses a command ({code[0]}). See the log of Redis." if code else None


def log_outage(error: Exception) -> None:
    """Log why Redis does not serve this process: at most one line a minute for each reason."""
    reason, now = refusal(error), time.monotonic()
    if now - _last_logged.get(reason, -_SECONDS) >= _SECONDS:
        _last_logged[reason] = now
        log.warning("redis_unavailable", error=type(error).__name__, reason=reason)
