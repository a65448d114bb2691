"""Settings of all processes, read from mt.toml, .env and the environment; later sources win."""

import binascii
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from io import StringIO
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from trainer.config.validation import decoded, did_you_mean, field_problems, set_path, unreadable
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, refusal
from trainer.contracts.installation import default_folder
from trainer.contracts.units import Unit

_NOT_FOR_CHILDREN = (
    *("DISCORD_", "REDIS_", "HTTP__", "SECURITY__", "WEBHOOKS__", "CLIENT__", "OBJECT_STORE__"),
    *("MT_URL", "MT_KEY", "MODEL_TRAINER_API_", "API_BASE_URL"),
)
_EMPTY_FOR_CHILDREN = (
    *("SECURITY__API_KEY", "SECURITY__API_KEYS", "WEBHOOKS__URL", "WEBHOOKS__SECRET"),
    *("CLIENT__URL", "CLIENT__KEY"),
    *("OBJECT_STORE__URL", "OBJECT_STORE__ACCESS_KEY_ID", "OBJECT_STORE__SECRET_ACCESS_KEY"),
)
"""Settings that a child must not read from `.env` either."""
_OTHER_GROUPS = {"redis", "discord", "hf", "http", "security", "webhooks", "client", "object_store"}
"""Groups that the environment of a child has in another form, or not at all."""
PLAIN_NAMES = {
    "REDIS_URL": "REDIS__URL",
    "DISCORD_TOKEN": "DISCORD__TOKEN",
    "DISCORD_OWNER_ID": "DISCORD__OWNER_ID",
    "APP_ENV": "APP__ENV",
    "LOG_LEVEL": "LOGGING__LEVEL",
    "HF_TOKEN": "HF__TOKEN",
    "HUGGINGFACE_HUB_TOKEN": "HF__TOKEN",
    "API_BASE_URL": "CLIENT__URL",
    "MODEL_TRAINER_API_URL": "CLIENT__URL",
    "MT_URL": "CLIENT__URL",
    "MODEL_TRAINER_API_KEY": "CLIENT__KEY",
    "MT_KEY": "CLIENT__KEY",
}
"""Short names of settings in the environment; of several names of a setting, the last one here wins."""
_RANKS = {name: rank for rank, name in enumerate(PLAIN_NAMES)}


def _split(value: object) -> object:
    return _parts(value) if isinstance(value, str) else value


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _or_none(value: object) -> object:
    return None if value == "" else value


def _check_id(value: object) -> object:
    """Refuse names in place of ids, and say where Discord shows an id."""
    if isinstance(value, str) and not value.strip().isdecimal():
        raise ValueError(
            "must have numbers such as 123456789012345678 (in Discord switch on Settings, Advanced, Developer Mode;"
            " then right-click the name and copy the id)"
        )
    return value


_Snowflake = Annotated[int, Field(gt=0, lt=2**64), BeforeValidator(_check_id)]
"""An id of Discord."""
Ids = Annotated[tuple[_Snowflake, ...], BeforeValidator(_split)]
Id = Annotated[_Snowflake | None, BeforeValidator(_or_none)]
Secret = Annotated[SecretStr | None, BeforeValidator(_or_none)]
Url = Annotated[AnyUrl | None, BeforeValidator(_or_none)]
_MIN_SECRET_BYTES = 16
_BASE64_SECRET = "whsec_"  # noqa: S105
_RUN_ENDS = ("trainer.job.completed", "trainer.job.failed", "trainer.job.cancelled")


_PLACE_IN_LIST = re.compile(r"\.\d+$", re.ASCII)
_YEARS_SECONDS = 10 * 365 * 86400
_KEY_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_KEY = re.compile(r"[!-~]{16,512}")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _long_enough(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and not _KEY.fullmatch(secret.get_secret_value()):
        raise ValueError("must have at least 16 characters, without spaces")
    return secret


def _is_one_word(token: SecretStr | None) -> SecretStr | None:
    if token is not None and len(token.get_secret_value().split()) != 1:
        raise ValueError("must be the token alone, without spaces; each setting has a line of its own")
    return token


class Group(BaseModel):
    """A group of settings; converts text to numbers and refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class CleanupSettings(Group):
    enabled: bool = False
    """True: the worker runs `mt gc` every hour."""
    dry_run: bool = False
    """True: every cleanup only lists what it would remove."""
    verify_upload: bool = True
    """True: before local weights are removed, the object store must confirm every file of the run by its hash."""
    grace_period_seconds: Annotated[int, Field(ge=0, le=_YEARS_SECONDS)] = 7 * 86400
    """Seconds after the end of a run before anything of it is removed."""


class CorpusCacheCleanupSettings(Group):
    enabled: bool = False
    """True: cleanups remove encoded corpora, which are encoded again when a run needs them."""
    max_bytes: Annotated[int, Field(ge=0, le=2**60)] = 20 * 1024**3
    """Largest size of all encoded corpora together."""
    min_free_bytes: Annotated[int, Field(ge=0, le=2**60)] = 1024**3
    """Free space of the disk below which encoded corpora are removed."""
    policy: Literal["lru", "oldest"] = "lru"
    """Order of the removal of encoded corpora. lru: the least recently used one first; oldest: the oldest one first."""


class TokenizerCleanupSettings(Group):
    enabled: bool = False
    """True: cleanups remove tokenizers that no run and no experiment uses."""
    min_unused_days: Annotated[int, Field(ge=1, le=36_500)] = 30
    """Days without any use of a tokenizer before it is removed."""


class AppSettings(Group):
    env: Literal["dev", "prod"] = "dev"
    """dev logs text, prod logs JSON."""
    data_root: Path = default_folder("data")
    """Corpora (`corpus/`, read-only), caches and the embedded server's files."""
    artifacts_root: Path = default_folder("artifacts")
    """Runs, tokenizers and stored attachments."""
    unit: Unit = "bits"
    """Unit of losses and surprisals that people read; files, HTTP and conditions are in nats."""
    test_split: Literal["open", "locked"] = "open"
    """locked: no run shows a loss on its test split before an unlock reads it once; open: each run decides."""
    cleanup: CleanupSettings = CleanupSettings()
    corpus_cache_cleanup: CorpusCacheCleanupSettings = CorpusCacheCleanupSettings()
    tokenizer_cleanup: TokenizerCleanupSettings = TokenizerCleanupSettings()

    @property
    def corpus_cache(self) -> Path:
        """The folder of encoded corpora."""
        return self.data_root / "corpus_cache"

    def place(self) -> str:
        """Return a sentence with the place of a user's data."""
        runs, texts = self.artifacts_root.resolve(), self.data_root.resolve() / "corpus"
        return f"Runs and added corpora are in {runs}; text files in {texts} are corpora, too."

    def new_place(self) -> str | None:
        """Return the same sentence before the first job makes the user's data folder; None in a checkout."""
        root = self.artifacts_root
        is_new = root.is_absolute() and root == default_folder("artifacts") and not root.exists()
        return self.place() if is_new else None

    def folders(self) -> dict[str, Path]:
        """The folders by the environment name of their setting."""
        return {"APP__DATA_ROOT": self.data_root, "APP__ARTIFACTS_ROOT": self.artifacts_root}


class LoggingSettings(Group):
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None, BeforeValidator(_or_none)] = None
    """Log level; empty: INFO for bot and worker, CRITICAL for other commands, whose output is their report."""


class RedisSettings(Group):
    url: Secret = None
    """URL of a Redis or Valkey server; empty: start an embedded server for the data root."""

    @property
    def is_local(self) -> bool:
        """True if the server runs on this machine; then its workers do too."""
        try:
            address = None if self.url is None else urlsplit(self.url.get_secret_value())
        except ValueError:
            return False
        return address is None or address.scheme == "unix" or _is_loopback(address.hostname or "localhost")


class ObjectStoreSettings(Group):
    url: Annotated[str, Field(pattern=r"^(s3://[a-z0-9][a-z0-9.-]{2,62}(/[A-Za-z0-9._/-]*)?)?$")] = ""
    """Bucket, and a prefix within it, for the runs of workers on several machines: s3://BUCKET/PREFIX; empty: the
    workers mount the artifacts folder."""
    endpoint: Url = None
    """URL of the store; empty: Amazon S3."""
    region: Annotated[str, Field(min_length=1)] = "us-east-1"
    access_key_id: Secret = None
    """Key of the store; empty: that of the AWS_ variables, or of the machine's role."""
    secret_access_key: Secret = None


class QueueSettings(Group):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")] = "training"
    training_slots: Annotated[int, Field(ge=1, le=64)] = 1
    """Runs that a worker trains at the same time."""
    devices: Literal["any", "cpu", "gpu"] = "any"
    """Runs that a worker trains: all; cpu: on the CPU only, even with a GPU; gpu: those that need or may use a GPU."""
    embedded_workers: Annotated[int, Field(ge=0, le=1)] = 1
    """1: the bot and `mt` start a worker; 0: `mt worker` runs elsewhere."""
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 15
    """Seconds without a heartbeat of its worker after which another worker resumes a run."""
    stall_seconds: Annotated[float, Field(ge=1, le=86400)] = 120
    """Seconds without progress after which a training is stopped and resumed; at least the time of 20 steps."""
    interactive_timeout_seconds: Annotated[float, Field(gt=0)] = 600
    """Timeout of a generation; of a score or an evaluation, the longest time without progress."""
    training_timeout_seconds: Annotated[float, Field(ge=0, le=_YEARS_SECONDS)] = 0
    """Longest time of a training in a worker, after which it fails and can be resumed; 0: no limit."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Failed attempts in a row, without a new checkpoint, after which a training or a step of an experiment fails."""
    retry_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 1
    """Seconds until the next attempt; doubled while a disk fails."""
    max_retry_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 60
    """Most seconds until the next attempt while a disk fails, for a day."""
    result_ttl_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 86400
    failure_ttl_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 7 * 86400
    """Seconds for which failed inference requests are kept."""
    chat_ttl_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 3600
    """Seconds without a message after which a chat expires."""
    inference_threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Most CPU threads for inference; 0: as many as the worker's machine has for a training."""
    model_cache_bytes: Annotated[int, Field(ge=0, le=2**50)] = 1024**3
    """Largest total size of the models that stay loaded; the last used model always stays."""


class LimitSettings(Group):
    corpus_bytes: Annotated[int, Field(ge=1, le=2**50)] = 10 * 1024**3
    """Largest corpus."""
    attachment_bytes: Annotated[int, Field(ge=1, le=2**30)] = 25 * 1024**2
    """Largest corpus attached in Discord."""
    upload_bytes: Annotated[int, Field(ge=1, le=2**50)] = 2 * 1024**3
    """Largest corpus uploaded over HTTP."""
    uploads_per_user: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Unfinished uploads per user; admins are exempt."""
    upload_ttl_seconds: Annotated[int, Field(ge=60, le=_YEARS_SECONDS)] = 7 * 86400
    """Seconds without a byte after which an unfinished upload is removed."""
    generate_max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 512
    """Largest `max_new_tokens` of `/mt generate`."""
    runs_per_user: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Queued or running runs per user; admins are exempt."""
    max_active_runs: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Queued or running runs in total; admins are exempt."""
    runs_per_day: Annotated[Annotated[int, Field(ge=1, le=1_000_000)] | None, BeforeValidator(_or_none)] = None
    """Runs that a user may start within 24 hours; admins are exempt. None: any number."""
    minutes_per_day: Annotated[Annotated[float, Field(gt=0, le=1_000_000)] | None, BeforeValidator(_or_none)] = None
    """Minutes of training of a user within 24 hours, after which no further run starts; admins are exempt."""
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    """Inference requests per user and minute; admins are exempt."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Inference requests of all users, admins included, that the bot waits for at the same time."""


class DiscordSettings(Group):
    token: Annotated[Secret, AfterValidator(_is_one_word)] = None
    owner_id: Id = None
    admin_ids: Ids = ()
    allowed_user_ids: Ids = ()
    allowed_guild_ids: Ids = ()
    notify_owner: bool = True
    """True: the owner gets direct messages about runs that no Discord user has started: those of `mt train` beside the
    bot and of API keys."""
    private_runs: bool = False
    """True: users see and use only their own runs."""
    api_base_url: Url = None
    """URL of a proxy or test server for Discord's REST API; empty: Discord itself."""
    gateway_url: Url = None
    cdn_base_url: Url = None
    """URL of a server for attachments; empty: Discord's."""
    edit_interval_seconds: Annotated[float, Field(ge=1, le=600)] = 5
    """Seconds between two edits of a message."""


class HttpSettings(Group):
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address that the HTTP API listens on; 0.0.0.0: all of this machine's addresses, which needs API keys."""
    port: Annotated[Annotated[int, Field(ge=0, le=65535)] | None, BeforeValidator(_or_none)] = 8000
    """0: any free port, which the log shows; empty: no HTTP API."""
    public_url: Url = None
    """Address under which people reach the HTTP API, for links in Discord to large files; empty: no such links."""
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 2000
    """Open connections of all clients together; half of them may be streams and waiting requests."""

    @property
    def is_loopback(self) -> bool:
        """True if only programs of this machine can connect."""
        return _is_loopback(self.host)


class ApiKey(NamedTuple):
    """A client of the HTTP API. A name that is a number is a Discord user id, whose runs and messages it shares."""

    name: str
    role: Literal["user", "admin"]
    secret: SecretStr


def _parse_api_keys(secret: SecretStr | None) -> tuple[ApiKey, ...]:
    """Parse NAME:ROLE:KEY entries; raises ValueError, without showing a key, for a malformed one."""
    entries = () if secret is None else secret.get_secret_value().split(",")
    return tuple(_parse_api_key(entry.strip()) for entry in entries if entry.strip())


def _parse_api_key(entry: str) -> ApiKey:
    name, _, rest = entry.partition(":")
    role, _, key = rest.partition(":")
    if not _KEY_NAME.fullmatch(name) or role not in ("user", "admin") or not _KEY.fullmatch(key):
        raise ValueError("must be NAME:ROLE:KEY, with the role user or admin and a KEY of at least 16 characters")
    return ApiKey(name, "admin" if role == "admin" else "user", SecretStr(key))


def _unique_names(secret: SecretStr | None) -> SecretStr | None:
    names = [key.name for key in _parse_api_keys(secret)]
    if len(set(names)) < len(names):
        raise ValueError("must have different names")
    return secret


class SecuritySettings(Group):
    api_keys: Annotated[Secret, AfterValidator(_unique_names)] = None
    """Clients of the HTTP API: NAME:ROLE:KEY, separated by commas; the role is user or admin."""
    api_key: Annotated[Secret, AfterValidator(_long_enough)] = None
    """The key of one client with the name and the role admin."""
    surprisals: Literal["owner", "all"] = "owner"
    """Clients that get surprisals of words and tokens, and probabilities beyond the ten likeliest next tokens, over
    HTTP. owner: of their own runs, and admins; all: of all runs that they see."""

    open_weights: bool = True
    """True: those who may use a run may start trainings from it, export it and download its files, if its texts have
    names. False: only its owner and admins. In both cases only they get a run on a text that was attached or sent."""

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """All clients."""
        own = () if self.api_key is None else (ApiKey("admin", "admin", self.api_key),)
        return own + _parse_api_keys(self.api_keys)


class ClientSettings(Group):
    url: Annotated[HttpUrl | None, BeforeValidator(_or_none)] = None
    """URL of a server's HTTP API, which `mt` and `trainer.Client` use instead of this machine's folders."""
    key: Annotated[Secret, AfterValidator(_long_enough)] = None
    """API key of that server."""


class HfSettings(Group):
    token: Secret = None
    """Token of Hugging Face; child processes get it as HF_TOKEN."""


class WebhookSettings(Group):
    allow_private: bool = False
    """True: `url` may lead into private networks, and may be http."""
    url: Secret = None
    """Addresses that receive events of runs, separated by commas; empty: no webhooks."""
    secret: Secret = None
    """Key of the signatures; after `whsec_` in base64."""
    events: Annotated[tuple[str, ...], BeforeValidator(_split)] = _RUN_ENDS
    """Types of events, or their beginnings up to a dot."""

    @property
    def urls(self) -> list[str]:
        return [] if self.url is None else _urls(self.url)

    @property
    def signing_key(self) -> bytes:
        """The key of the signatures; empty without `secret`."""
        return b"" if self.secret is None else _signing_key(self.secret)

    @field_validator("url")
    @classmethod
    def _check_url(cls, given: SecretStr | None, info: ValidationInfo[None]) -> SecretStr | None:
        known: dict[str, object] = info.data
        is_private = known.get("allow_private") is True
        expected = "http and https addresses" if is_private else "https addresses"
        try:
            has_http = given is not None and any(url.startswith("http:") for url in _urls(given))
        except ValidationError:  # which shows the address
            raise ValueError(f"must be {expected}") from None
        if has_http and not is_private:
            raise ValueError(f"must be {expected}, unless `WEBHOOKS__ALLOW_PRIVATE` is true")
        return given

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, given: SecretStr | None, info: ValidationInfo[None]) -> SecretStr | None:
        known: dict[str, object] = info.data
        if given is None and known.get("url") is not None:
            raise ValueError("is required with `WEBHOOKS__URL`")
        try:
            is_short = given is not None and len(_signing_key(given)) < _MIN_SECRET_BYTES
        except binascii.Error:
            raise ValueError(f"must be base64 after `{_BASE64_SECRET}`") from None
        if is_short:
            raise ValueError(f"must have at least {_MIN_SECRET_BYTES} bytes")
        return given

    @field_validator("events")
    @classmethod
    def _check_events(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if given != _RUN_ENDS:
            from trainer.contracts.events import event_types  # most commands need no events

            known = event_types()
            if not given or not all(any(is_event_of(kind, name) for kind in known) for name in given):
                raise ValueError("must be types of events, such as trainer.job.failed, or their beginnings")
        return given


def is_event_of(event_type: str, name: str) -> bool:
    """Return True if `name` is an event type or its beginning up to a dot."""
    return f"{event_type}.".startswith(f"{name}.")


def _urls(given: SecretStr) -> list[str]:
    """Return addresses in their normal form; raises ValidationError."""
    return [str(HttpUrl(url)) for url in _parts(given.get_secret_value())]


def _signing_key(secret: SecretStr) -> bytes:
    text = secret.get_secret_value()
    is_base64 = text.startswith(_BASE64_SECRET)
    return binascii.a2b_base64(text.removeprefix(_BASE64_SECRET), strict_mode=True) if is_base64 else text.encode()


class Settings(Group):
    app: AppSettings = AppSettings()
    logging: LoggingSettings = LoggingSettings()
    redis: RedisSettings = RedisSettings()
    object_store: ObjectStoreSettings = ObjectStoreSettings()
    queue: QueueSettings = QueueSettings()
    limits: LimitSettings = LimitSettings()
    http: HttpSettings = HttpSettings()
    security: SecuritySettings = SecuritySettings()
    client: ClientSettings = ClientSettings()
    discord: DiscordSettings = DiscordSettings()
    hf: HfSettings = HfSettings()
    webhooks: WebhookSettings = WebhookSettings()


def load_settings(environ: Mapping[str, str] = os.environ, folder: Path = Path()) -> Settings:
    """Read the settings of this process; raises CONFIG_INVALID naming each wrong setting."""
    config_file = environ.get("APP__CONFIG_FILE")
    toml_path = Path(config_file) if config_file else folder / "mt.toml"
    values = _read_toml(toml_path) if config_file or toml_path.exists() else {}
    dotenv = read_dotenv(folder)
    known = environment_names()
    for given, value in chain(sorted(dotenv.items(), key=_rank), sorted(environ.items(), key=_rank)):
        name = PLAIN_NAMES.get(given.upper(), given.upper())
        group, separator, _ = name.lower().partition("__")
        if name in known:
            set_path(values, name.lower().replace("__", "."), value)
        elif separator and name != "APP__CONFIG_FILE":
            near = did_you_mean(name, known)
            if near or group in Settings.model_fields:  # else a variable of another program
                raise refusal(ErrorCode.CONFIG_INVALID, FieldProblem.of(name, near, "Unknown setting "))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = [
            one.named(_PLACE_IN_LIST.sub("", one.path).upper().replace(".", "__"))
            for one in field_problems(error, Settings)
        ]
        raise refusal(ErrorCode.CONFIG_INVALID, *problems) from None


def read_dotenv(folder: Path = Path()) -> dict[str, str]:
    """Return the variables of a folder's `.env`, unless it is a virtual environment; raises CONFIG_INVALID."""
    path = folder / ".env"
    if not os.path.exists(path) or os.path.exists(path / "pyvenv.cfg"):
        return {}
    text = _read_text(path)
    for line in parse_stream(StringIO(text)):
        if line.error:
            message = f"Line {line.original.line} of '{path.name}' is no setting. Write it as NAME=VALUE."
            raise AppError(ErrorCode.CONFIG_INVALID, message)
    return {name: value or "" for name, value in dotenv_values(stream=StringIO(text)).items()}


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AppError(ErrorCode.CONFIG_INVALID, unreadable(path.name, error)) from None
    return decoded(data, f"'{path.name}'", ErrorCode.CONFIG_INVALID).removeprefix("\ufeff")


def _rank(variable: tuple[str, str]) -> int:
    return _RANKS.get(variable[0].upper(), -1)


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a child process: ours with these settings and absolute folders.

    It has nothing of Discord, of Redis and the object store, of the HTTP API and of webhooks, and no server in place
    of this machine's folders.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_CHILDREN)}
    environment |= dict.fromkeys(_EMPTY_FOR_CHILDREN, "")
    for name, value in _by_name(settings):
        if name.lower().partition("__")[0] not in _OTHER_GROUPS:
            environment[name] = "" if value is None else str(value.resolve() if isinstance(value, Path) else value)
    if settings.hf.token is not None:
        environment["HF_TOKEN"] = settings.hf.token.get_secret_value()
    return environment


def worker_environment(settings: Settings, redis_url: str) -> dict[str, str]:
    """Return the environment of an embedded worker: that of a child, with the addresses of Redis and object store."""
    return child_environment(settings) | object_store_environment(settings) | {"REDIS__URL": redis_url}


def object_store_environment(settings: Settings) -> dict[str, str]:
    stored: dict[str, SecretStr | str | AnyUrl | None] = settings.object_store.model_dump()
    environment: dict[str, str] = {}
    for name, value in stored.items():
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        environment[f"OBJECT_STORE__{name}".upper()] = "" if text is None else str(text)
    return environment


def environment_names() -> list[str]:
    """Return the environment name of every setting: GROUP__FIELD, or GROUP__GROUP__FIELD."""
    return [name for name, _ in _by_name(Settings())]


def _by_name(group: Group, before: str = "") -> Iterator[tuple[str, object]]:
    """Yield the environment name and the value of each setting of a group."""
    fields: dict[str, object] = vars(group)
    for name, value in fields.items():
        if isinstance(value, Group):
            yield from _by_name(value, f"{before}{name}__")
        else:
            yield f"{before}{name}".upper(), value


def _read_toml(path: Path) -> dict[str, object]:
    try:
        loaded: dict[str, object] = tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{path.name}' is not a TOML file: {error}.") from None
    return loaded
