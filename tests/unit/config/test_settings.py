"""Settings: one model, every source, and a clear refusal that names the key."""

import re
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.support import ROOT
from trainer.config.settings import (
    PLAIN_NAMES,
    HttpSettings,
    QueueSettings,
    Settings,
    child_environment,
    environment_names,
    is_event_of,
    load_settings,
)
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import event_types

SECRET = "a-secret-of-more-than-16-bytes"  # noqa: S105
KEY = "0123456789abcdef"
WITH_SECRET = {"WEBHOOKS__SECRET": SECRET}
PRIVATE = WITH_SECRET | {"WEBHOOKS__ALLOW_PRIVATE": "true"}


def load(folder: Path, dotenv: str = "", toml: str = "", **environ: str) -> Settings:
    """Read settings from these sources; files are kept for later calls with the same folder."""
    for name, text in ((".env", dotenv), ("mt.toml", toml)):
        if text:
            (folder / name).write_text(text, encoding="utf-8")
    return load_settings(environ, folder)


EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


def test_env_example__documents_every_setting_with_its_default(tmp_path: Path) -> None:
    own = re.sub(r"# --- Containers -.*?(?=# --- )", "", EXAMPLE, flags=re.DOTALL)  # which the program does not read
    example = re.sub(r"(?m)^#(?=[A-Z])", "", own)
    names = dotenv_values(stream=StringIO(example))
    assert "HF_TOKEN" in names
    assert {PLAIN_NAMES.get(name, name) for name in names} == set(environment_names())
    assert load(tmp_path, example) == Settings()
    assert load(tmp_path / "nothing here", PATH="/bin", SOME__OTHER="x", HF_HOME="y") == Settings()


def test_env_example__copied_hides_no_setting_of_another_source(tmp_path: Path) -> None:
    toml = '[app]\ndata_root = "/there"\n[queue]\ntraining_slots = 2\n[redis]\nurl = "redis://there"\n'
    alone = load(tmp_path, toml=toml)
    assert (load(tmp_path, EXAMPLE), alone == Settings()) == (alone, False)
    assert dotenv_values(tmp_path / ".env") == {"DISCORD__TOKEN": "", "DISCORD__OWNER_ID": ""}  # to be filled in


def test_sources__environment_wins_over_dotenv_over_toml(tmp_path: Path) -> None:
    toml = '[queue]\nname = "t"\ntraining_slots = 2\nlease_seconds = 3\n'
    dotenv = "QUEUE__TRAINING_SLOTS=4\nQUEUE__LEASE_SECONDS=5\n"
    queue = load(tmp_path, dotenv, toml, QUEUE__LEASE_SECONDS="6").queue
    assert (queue.name, queue.training_slots, queue.lease_seconds) == ("t", 4, 6.0)
    (tmp_path / "other.toml").write_text('[app]\nenv = "prod"\n', encoding="utf-8")
    assert load(tmp_path, APP__CONFIG_FILE=str(tmp_path / "other.toml")).app.env == "prod"


def test_plain_names__stand_for_the_nested_ones(tmp_path: Path) -> None:
    plain = {"DISCORD_TOKEN": "t0ken", "DISCORD_OWNER_ID": "7", "REDIS_URL": "redis://r", "LOG_LEVEL": "DEBUG"}
    settings = load(tmp_path, **plain, DISCORD__ADMIN_IDS="1, 2,,3")
    assert (settings.discord.owner_id, settings.discord.admin_ids, settings.logging.level) == (7, (1, 2, 3), "DEBUG")
    assert settings.discord.token is not None and settings.discord.token.get_secret_value() == "t0ken"
    assert "t0ken" not in repr(settings) and "redis://r" not in repr(settings)


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"QUEU__NAME": "x"}, "Unknown setting `QUEU__NAME`; did you mean `QUEUE__NAME`?"),
    ({"DISCORD__ZZZ": "1"}, "Unknown setting `DISCORD__ZZZ`"),
    ({"MT_URL": "lab:8000"}, "`CLIENT__URL`"),
    ({"MT_KEY": "t0ken"}, "`CLIENT__KEY` must have at least 16 characters, without spaces."),
    ({"SECURITY__API_KEYS": f"ana:user:{KEY},ana:admin:{KEY}x"}, "`SECURITY__API_KEYS` must have different names."),
    ({"WEBHOOKS__URL": "https://one.example/t0ken"}, "`WEBHOOKS__SECRET` is required with `WEBHOOKS__URL`."),
    ({"WEBHOOKS__SECRET": "t0ken"}, "`WEBHOOKS__SECRET` must have at least 16 bytes."),
    ({"WEBHOOKS__SECRET": "whsec_MDEyMzQ1Njc4OWFiY2Rl"}, "`WEBHOOKS__SECRET` must have at least 16 bytes."),
    ({"WEBHOOKS__SECRET": "whsec_t0ken, no base64"}, "`WEBHOOKS__SECRET` must be base64 after `whsec_`."),
    (WITH_SECRET | {"WEBHOOKS__URL": "http://one/t0ken"}, "`WEBHOOKS__URL` must be https addresses, unless `WEBHOOK"),
    (WITH_SECRET | {"WEBHOOKS__URL": "https://one.example,t0ken"}, "`WEBHOOKS__URL` must be https addresses."),
    (PRIVATE | {"WEBHOOKS__URL": "ftp://one/t0ken"}, "`WEBHOOKS__URL` must be http and https addresses."),
    ({"WEBHOOKS__EVENTS": "trainer.jo"}, "`WEBHOOKS__EVENTS` must be types of events, such as trainer.job.failed, or"),
    ({"WEBHOOKS__EVENTS": ""}, "`WEBHOOKS__EVENTS` must be types of events, such as trainer.job.failed, or their"),
    *(
        ({"SECURITY__API_KEY": key}, "`SECURITY__API_KEY` must have at least 16 characters, without spaces.")
        for key in (KEY[1:], f"{KEY} ", f"ä{KEY}", "x" * 513)
    ),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_refusal__names_setting_and_remedy_but_no_secret(given: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(AppError) as caught:
        load(tmp_path, **given)
    assert caught.value.code is ErrorCode.CONFIG_INVALID
    assert caught.value.message.startswith(sentence)
    assert not any(secret in caught.value.message for secret in ("t0ken", SECRET, KEY[1:], "xxx"))


_LINE = "QUEUE__TRAINING_SLOTS=2  # две дорожки\n"
_UTF_16 = "'{}' is UTF-16 text. Save it as UTF-8."
_NOT_UTF_8 = "'{}' is not UTF-8: byte "
UNREADABLE = [
    (_LINE.encode("utf-16"), _UTF_16),
    (_LINE.encode("utf-16-le"), _UTF_16),
    (_LINE.encode("utf-16-be"), _UTF_16),
    (_LINE.encode("cp1251"), _NOT_UTF_8),
    ("X=\xe9\n".encode("latin-1"), _NOT_UTF_8),
    (b"X=a\0b\n", "'{}' is not a text file: byte 3 is NUL. Give a plain text in UTF-8."),
    (None, "'{}' is a folder: give a file."),
]


@pytest.mark.parametrize("name", [".env", "mt.toml"])
@pytest.mark.parametrize(("data", "sentence"), UNREADABLE)
def test_file_of_settings__that_is_no_text_in_utf_8_is_named_with_the_remedy(
    tmp_path: Path, name: str, data: bytes | None, sentence: str
) -> None:
    if data is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(AppError) as caught:
        load(tmp_path)
    assert caught.value.code is ErrorCode.CONFIG_INVALID
    assert caught.value.message.startswith(sentence.format(name))


@pytest.mark.parametrize("line", ["DISCORD__TOKEN: t0ken", "DISCORD TOKEN=t0ken"])
def test_dotenv__line_that_is_no_setting_is_named_without_its_text(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# mine\nAPP__ENV=prod\n{line}\n", encoding="utf-8")
    with pytest.raises(AppError) as caught:
        load(tmp_path)
    message = "Line 3 of '.env' is no setting. Write it as NAME=VALUE."
    assert (caught.value.code, caught.value.message) == (ErrorCode.CONFIG_INVALID, message)


def test_file_of_settings__may_begin_with_the_mark_of_utf_8(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(_LINE, encoding="utf-8-sig")
    (tmp_path / "mt.toml").write_text("[queue]\nlease_seconds = 3\n", encoding="utf-8-sig")
    assert load(tmp_path).queue == QueueSettings(training_slots=2, lease_seconds=3)


def test_virtual_environment_named_dotenv__is_not_read_as_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    (tmp_path / ".env" / "pyvenv.cfg").write_text("home = /usr/bin\n", encoding="ascii")
    assert load(tmp_path) == Settings()


MALFORMED = [f"ana:boss:{KEY}", f"ana:user:{KEY[1:]}", f"ana:{KEY}", f":user:{KEY}", f"a b:user:{KEY}", KEY, "ana"]
MALFORMED += [f"ana:user:{KEY} 1", f"ana:user:ä{KEY}", f"ana:user:{'x' * 513}", f"bob:user:{KEY},ana:boss:{KEY}"]


@pytest.mark.parametrize("keys", MALFORMED)
def test_api_keys__that_are_malformed_are_refused_and_never_shown(keys: str, tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"^`SECURITY__API_KEYS` must be NAME:ROLE:KEY, with the role user ") as caught:
        load(tmp_path, SECURITY__API_KEYS=keys)
    assert caught.value.code is ErrorCode.CONFIG_INVALID
    assert "you gave" not in caught.value.message and KEY[1:] not in caught.value.message


def test_key_in_toml__that_is_no_text_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(AppError) as caught:
        load(tmp_path, toml=f'[security]\napi_keys = ["ana:user:{KEY}"]\n')
    assert caught.value.message == "`SECURITY__API_KEYS` must be text."


def test_api_keys__are_read_with_names_and_roles(tmp_path: Path) -> None:
    given = {"SECURITY__API_KEYS": f" ana:user:{KEY}1, 700:admin:{KEY}:2,, ", "SECURITY__API_KEY": KEY}
    settings = load(tmp_path, **given)
    keys = [("admin", "admin", KEY), ("ana", "user", f"{KEY}1"), ("700", "admin", f"{KEY}:2")]
    assert [(key.name, key.role, key.secret.get_secret_value()) for key in settings.security.keys] == keys
    assert KEY not in repr(settings) + str(settings.security.keys)
    assert load(tmp_path, **dict.fromkeys(given, "")).security.keys == ()


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_HUB_TOKEN"])
def test_hugging_face_token__of_dotenv_reaches_the_children_unshown(tmp_path: Path, name: str) -> None:
    settings = load(tmp_path, f"{name}=t0ken\n")
    assert child_environment(settings)["HF_TOKEN"] == "t0ken"  # noqa: S105
    assert "t0ken" not in repr(settings) + settings.model_dump_json()


def test_children__learn_nothing_of_discord_api_and_webhooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They refuse no half of the settings whose other half they would read in `.env`."""
    (tmp_path / ".env").write_text("WEBHOOKS__URL=https://one.example\n", encoding="utf-8")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("WEBHOOKS__SECRET", SECRET)
    for name in ("DISCORD__TOKEN", "SECURITY__API_KEYS", "SECURITY__API_KEY", "HTTP__PORT"):
        monkeypatch.setenv(name, f"ana:user:{KEY}")
    children = child_environment(load(tmp_path, **WITH_SECRET, SECURITY__API_KEYS=f"ana:user:{KEY}"))
    assert not any(name.startswith(("DISCORD", "HF_TOKEN", "HF__")) for name in children)
    kept = {value for name, value in children.items() if name.startswith(("SECURITY", "HTTP__"))}
    assert kept == {""}, "in place of those of `.env`"
    assert KEY not in str(children) and SECRET not in str(children)
    assert load(tmp_path, **children).webhooks == Settings().webhooks
    empty = child_environment(load(tmp_path, LOGGING__LEVEL="", WEBHOOKS__URL=""))
    assert load(tmp_path, **empty).logging.level is None, "they keep what is empty"


def test_redis_and_host__are_known_to_be_of_this_machine_only(tmp_path: Path) -> None:
    local = ["", "unix:///run/redis.sock", "redis://localhost", "redis://:pass%40word@127.0.0.1:6379/0"]
    local += ["rediss://[::1]:6379?db=1", "valkey://localhost", "valkeys://me:word@LOCALHOST/0", "redis:///0"]
    remote = ["redis://localhost.example.org:6379/0", "redis://user:localhost@redis:6379/0", "redis://10.0.0.7/0"]
    remote += ["redis://[::1/0", "valkeys://valkey/0"]
    assert [url for url in local + remote if load(tmp_path, REDIS__URL=url).redis.is_local] == local
    ours = ["127.0.0.1", "127.1.2.3", "::1", "localhost"]
    others = ["0.0.0.0", "::", "192.0.2.1", "localhost.example.org"]  # noqa: S104
    assert [host for host in ours + others if HttpSettings(host=host).is_loopback] == ours


def test_webhooks__take_several_addresses_and_never_show_them(tmp_path: Path) -> None:
    settings = load(tmp_path, **WITH_SECRET, WEBHOOKS__URL="https://one.example/t0ken, https://two.example")
    assert settings.webhooks.urls == ["https://one.example/t0ken", "https://two.example/"]
    assert settings.webhooks.signing_key == SECRET.encode()
    shown = repr(settings) + settings.model_dump_json()
    assert "t0ken" not in shown and SECRET not in shown
    assert load(tmp_path, **WITH_SECRET).webhooks.urls == [], "off without an address"
    assert load(tmp_path, **PRIVATE, WEBHOOKS__URL="http://receiver:80/").webhooks.urls == ["http://receiver/"]
    assert Settings().webhooks.signing_key == b""
    in_base64 = load(tmp_path, WEBHOOKS__SECRET="whsec_MDEyMzQ1Njc4OWFiY2RlZg==")  # noqa: S106
    assert in_base64.webhooks.signing_key == b"0123456789abcdef"


def test_webhooks__events_are_types_or_beginnings_up_to_a_dot(tmp_path: Path) -> None:
    for names in ("trainer", "trainer.job", "trainer.metrics.progress.v1, trainer.eval"):
        assert load(tmp_path, WEBHOOKS__EVENTS=names).webhooks.events == tuple(names.split(", "))
    ends, default = ("completed", "failed", "cancelled"), Settings().webhooks.events
    found = [kind for kind in event_types() if any(is_event_of(kind, name) for name in default)]
    assert found == [f"trainer.job.{end}.v1" for end in ends]


@pytest.mark.parametrize("name", ["CLIENT__URL", "MT_URL", "MODEL_TRAINER_API_URL", "API_BASE_URL"])
def test_server__has_names_and_none_is_for_children(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "a-key-of-16-characters"
    monkeypatch.setenv(name, "http://lab:8000")
    monkeypatch.setenv("MT_KEY" if name == "MT_URL" else "MODEL_TRAINER_API_KEY", key)
    settings = load_settings(folder=tmp_path)
    assert str(settings.client.url) == "http://lab:8000/"
    assert settings.client.key is not None and settings.client.key.get_secret_value() == key
    assert key not in repr(settings) + settings.model_dump_json()
    children = child_environment(settings)
    assert load(tmp_path, f"MT_URL=http://lab\nMT_KEY={key}\n", **children).client == Settings().client
    assert key not in children.values()


def test_server__of_several_names_is_ours(tmp_path: Path) -> None:
    names = {"MT_URL": "http://ours", "API_BASE_URL": "http://another", "MODEL_TRAINER_API_URL": "http://long"}
    for order in (names, dict(reversed(names.items()))):
        assert str(load(tmp_path, **order).client.url) == "http://ours/"
    assert str(load(tmp_path, "MT_URL=http://file\nCLIENT__URL=\n").client.url) == "http://file/"
    assert str(load(tmp_path, API_BASE_URL="http://given").client.url) == "http://given/"
