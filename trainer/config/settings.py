"""All settings of all processes: mt.toml, then .env, then the environment, names nested with `__` (DEC D31, D32)."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import AnyUrl, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem
from trainer.contracts.validation import did_you_mean, field_problems, refusal

PLAIN_NAMES = {
    "REDIS_URL": "REDIS__URL",
    "DISCORD_TOKEN": "DISCORD__TOKEN",
    "DISCORD_OWNER_ID": "DISCORD__OWNER_ID",
    "APP_ENV": "APP__ENV",
    "LOG_LEVEL": "LOGGING__LEVEL",
    "HF_TOKEN": "HF__TOKEN",
    "HUGGINGFACE_HUB_TOKEN": "HF__TOKEN",
}
"""Names that are accepted beside the nested ones, and what each stands for."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _or_none(value: object) -> object:
    return None if value == "" else value


_Snowflake = Annotated[int, Field(gt=0, lt=2**64)]
"""An id as Discord gives it."""
Ids = Annotated[tuple[_Snowflake, ...], BeforeValidator(_split)]
Id = Annotated[_Snowflake | None, BeforeValidator(_or_none)]
Secret = Annotated[SecretStr | None, BeforeValidator(_or_none)]
Url = Annotated[AnyUrl | None, BeforeValidator(_or_none)]
_LOCAL_URL = re.compile(r"unix:|rediss?://([^@/]*@)?(localhost|127(\.\d{1,3}){3}|\[::1\])([:/?]|$)")


class Group(BaseModel):
    """Settings of one concern; text from the environment becomes numbers here, unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def names(cls) -> list[str]:
        return list(cls.model_fields)


class AppSettings(Group):
    env: Literal["dev", "prod"] = "dev"
    """dev logs text, prod logs JSON."""
    data_root: Path = Path("data")
    """Corpora (`corpus/`, read-only), caches and the embedded server's files."""
    artifacts_root: Path = Path("artifacts")
    """Runs and stored attachments: the truth."""

    def folders(self) -> dict[str, Path]:
        """The folders, by the names that the environment has for their settings."""
        return {"APP__DATA_ROOT": self.data_root, "APP__ARTIFACTS_ROOT": self.artifacts_root}


class LoggingSettings(Group):
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None, BeforeValidator(_or_none)] = None
    """Empty: INFO, and for the commands that end by themselves CRITICAL: they tell what people have to know."""


class RedisSettings(Group):
    url: Secret = None
    """A Redis or Valkey to use; empty: an embedded one is started for the data root."""

    @property
    def is_local(self) -> bool:
        """True where the server is on this machine, and so its workers are too."""
        return self.url is None or _LOCAL_URL.match(self.url.get_secret_value()) is not None


class QueueSettings(Group):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")] = "training"
    training_slots: Annotated[int, Field(ge=1, le=64)] = 1
    """Runs that one worker trains at a time."""
    embedded_workers: Annotated[int, Field(ge=0, le=1)] = 1
    """1: bot and `mt` start a worker beside them; 0: `mt worker` runs elsewhere."""
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 15
    """After this time without a sign of its worker, a run is taken up by another one."""
    stall_seconds: Annotated[float, Field(ge=1, le=86400)] = 120
    """After this time without progress, or that of 20 steps, a training is ended and goes on from its checkpoint."""
    interactive_timeout_seconds: Annotated[float, Field(gt=0)] = 600
    """After this time a generation is given up, and what goes through a text after this time without any work done."""
    result_ttl_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 86400
    chat_ttl_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 3600
    """After this time without a message, a chat is forgotten."""
    inference_threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads that answer requests to models; 0: as many as train a run whose `threads` is 0."""
    warm_model_bytes: Annotated[int, Field(ge=0, le=2**50)] = 1024**3
    """The models that stay loaded between requests; the one that was asked last stays whatever its size."""
    warm_model_seconds: Annotated[float, Field(gt=0)] = 900
    """After this time without a request, none stays loaded."""


class LimitSettings(Group):
    corpus_bytes: Annotated[int, Field(ge=1, le=2**50)] = 10 * 1024**3
    """The largest corpus that `mt` reads."""
    attachment_bytes: Annotated[int, Field(ge=1, le=2**30)] = 25 * 1024**2
    """The largest corpus that chat accepts as an attachment."""
    generate_max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 512
    """The most tokens that one `/mt generate` may ask for."""
    runs_per_user: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Runs of one user that may be queued or running; admins are exempt."""
    runs_in_all: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Queued or running runs above which users start no more; admins are exempt."""
    asks_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    """How often one user may generate and score in a minute; admins are exempt."""
    asks_at_once: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Generations and scores of all people, admins too, that the bot waits for at the same time."""


class DiscordSettings(Group):
    token: Secret = None
    owner_id: Id = None
    admin_ids: Ids = ()
    allowed_user_ids: Ids = ()
    allowed_guild_ids: Ids = ()
    private_runs: bool = False
    """True: users see and use their own runs only."""
    api_base_url: Url = None
    """Discord's REST address, through a proxy or on this machine; empty: Discord itself."""
    gateway_url: Url = None
    cdn_base_url: Url = None
    """Where attachments are fetched from instead of Discord's own file server."""
    edit_interval_seconds: Annotated[float, Field(ge=1, le=600)] = 5
    """The least time between two edits of one card."""


class HfSettings(Group):
    token: Secret = None
    """The token for Hugging Face, handed on to child processes as HF_TOKEN."""


class Settings(Group):
    """Everything that is configured."""

    app: AppSettings = AppSettings()
    logging: LoggingSettings = LoggingSettings()
    redis: RedisSettings = RedisSettings()
    queue: QueueSettings = QueueSettings()
    limits: LimitSettings = LimitSettings()
    discord: DiscordSettings = DiscordSettings()
    hf: HfSettings = HfSettings()


def load_settings(environ: Mapping[str, str] = os.environ, folder: Path = Path()) -> Settings:
    """Read the settings of this process; raises CONFIG_INVALID naming the key that is wrong."""
    config_file = environ.get("APP__CONFIG_FILE")
    toml_path = Path(config_file) if config_file else folder / "mt.toml"
    values: dict[str, dict[str, object]] = _read_toml(toml_path) if config_file or toml_path.exists() else {}
    dotenv = {name: value or "" for name, value in dotenv_values(folder / ".env").items()}
    for source in (dotenv, environ):
        for name, value in source.items():
            key = _key(name)
            if key is not None:
                group, field = key
                values.setdefault(group, {})[field] = value
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = (_as_in_environment(problem) for problem in field_problems(error, Settings))
        raise refusal(ErrorCode.CONFIG_INVALID, *problems) from None


def child_environment(settings: Settings, *, redis_url: str | None = None) -> dict[str, str]:
    """Our environment with these settings in it, for a child process: folders absolute, nothing of Discord's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DISCORD_", "REDIS_"))}
    dumped: dict[str, dict[str, object]] = settings.model_dump(exclude={"redis", "discord", "hf"})
    for group, fields in dumped.items():
        for name, value in fields.items():
            kept[f"{group}__{name}".upper()] = _as_text(value)
    if settings.hf.token is not None:
        kept["HF_TOKEN"] = settings.hf.token.get_secret_value()
    return kept if redis_url is None else kept | {"REDIS__URL": redis_url}


def _as_text(value: object) -> str:
    return "" if value is None else str(value.resolve() if isinstance(value, Path) else value)


def environment_names() -> list[str]:
    """Every setting as the environment names it: GROUP__FIELD."""
    return [f"{group}__{name}".upper() for group, fields in _groups().items() for name in fields]


def _as_in_environment(problem: FieldProblem) -> FieldProblem:
    """A wrong setting under the name that people give it."""
    name = problem.path.upper().replace(".", "__")
    return changed(problem, path=name, message=problem.message.replace(f"`{problem.path}`", f"`{name}`"))


def _read_toml(path: Path) -> dict[str, dict[str, object]]:
    try:
        loaded: dict[str, dict[str, object]] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise AppError(ErrorCode.CONFIG_INVALID, f"The settings file '{path.name}' cannot be read.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{path.name}' is not a TOML file: {error}.") from None
    return loaded


def _key(name: str) -> tuple[str, str] | None:
    """GROUP__FIELD as (group, field); None for a variable that is not ours; refuses a near miss of one of ours."""
    name = PLAIN_NAMES.get(name.upper(), name.upper())
    if name == "APP__CONFIG_FILE" or "__" not in name:
        return None
    group, field = name.lower().split("__", 1)
    groups = _groups()
    if group in groups and field in groups[group]:
        return group, field
    near = did_you_mean(name, environment_names())
    if group in groups or near:
        raise refusal(ErrorCode.CONFIG_INVALID, FieldProblem(path=name, message=f"Unknown setting `{name}`{near}"))
    return None


def _groups() -> dict[str, list[str]]:
    defaults = Settings()
    groups: dict[str, list[str]] = {}
    for name in Settings.model_fields:
        group: Group = getattr(defaults, name)
        groups[name] = group.names()
    return groups
