"""Settings: one model, every source, and a clear refusal that names the key."""

from pathlib import Path

import pytest
from dotenv import dotenv_values

from trainer.config.settings import (
    PLAIN_NAMES,
    HttpSettings,
    Settings,
    child_environment,
    environment_names,
    is_event_of,
    load_settings,
)
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import event_types

ROOT = Path(__file__).parents[3]


def refusal(environ: dict[str, str], folder: Path) -> str:
    with pytest.raises(AppError) as caught:
        load_settings(environ, folder)
    assert caught.value.code is ErrorCode.CONFIG_INVALID
    return caught.value.message


def test_env_example__documents_every_setting_and_no_other() -> None:
    names = dotenv_values(ROOT / ".env.example")
    assert "HF_TOKEN" in names
    assert {PLAIN_NAMES.get(name, name) for name in names} == set(environment_names())


def test_env_example__holds_the_defaults(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text(encoding="utf-8"), encoding="utf-8")
    assert load_settings({}, tmp_path) == Settings() == load_settings({}, tmp_path / "nothing-here")


def test_sources__environment_wins_over_dotenv_over_toml(tmp_path: Path) -> None:
    (tmp_path / "mt.toml").write_text('[queue]\nname = "t"\ntraining_slots = 2\nlease_seconds = 3\n', encoding="utf-8")
    (tmp_path / ".env").write_text("QUEUE__TRAINING_SLOTS=4\nQUEUE__LEASE_SECONDS=5\n", encoding="utf-8")
    queue = load_settings({"QUEUE__LEASE_SECONDS": "6"}, tmp_path).queue
    assert (queue.name, queue.training_slots, queue.lease_seconds) == ("t", 4, 6.0)


def test_sources__config_file_setting_names_the_toml(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[app]\nenv = "prod"\n', encoding="utf-8")
    assert load_settings({"APP__CONFIG_FILE": str(tmp_path / "other.toml")}, tmp_path).app.env == "prod"


def test_plain_names__stand_for_the_nested_ones(tmp_path: Path) -> None:
    settings = load_settings(
        {"DISCORD_TOKEN": "t0ken", "DISCORD_OWNER_ID": "7", "REDIS_URL": "redis://r", "LOG_LEVEL": "DEBUG"}, tmp_path
    )
    assert settings.discord.owner_id == 7
    assert settings.logging.level == "DEBUG"
    assert settings.discord.token is not None and settings.discord.token.get_secret_value() == "t0ken"
    assert "t0ken" not in repr(settings) and "redis://r" not in repr(settings)


def test_ids__are_separated_by_commas(tmp_path: Path) -> None:
    assert load_settings({"DISCORD__ADMIN_IDS": "1, 2,,3"}, tmp_path).discord.admin_ids == (1, 2, 3)


def test_refusal__names_the_key_the_value_and_what_would_be_right(tmp_path: Path) -> None:
    assert "`LOGGING__LEVEL` must be 'DEBUG', 'INFO'" in refusal({"LOGGING__LEVEL": "LOUD"}, tmp_path)
    assert "did you mean `QUEUE__NAME`?" in refusal({"QUEU__NAME": "x"}, tmp_path)
    assert refusal({"QUEUE__TRAINING_SLOT": "1"}, tmp_path).endswith("; did you mean `QUEUE__TRAINING_SLOTS`?")
    assert "Unknown setting `DISCORD__ZZZ`" in refusal({"DISCORD__ZZZ": "1"}, tmp_path)
    assert refusal({"APP__RUNS_ROOT": "/data/runs"}, tmp_path) == (
        "Unknown setting `APP__RUNS_ROOT`: runs are in `models/` below `APP__ARTIFACTS_ROOT`; set that."
    )
    assert "`APP__LOGS_ROOT`: the log of a run is in its folder" in refusal({"APP__LOGS_ROOT": "logs"}, tmp_path)


def test_refusal__a_broken_or_missing_toml_is_named_without_its_folder(tmp_path: Path) -> None:
    assert refusal({"APP__CONFIG_FILE": str(tmp_path / "no.toml")}, tmp_path) == (
        "The settings file 'no.toml' cannot be read."
    )
    (tmp_path / "mt.toml").write_text("[app\n", encoding="utf-8")
    assert "'mt.toml' is not a TOML file" in refusal({}, tmp_path)


def test_foreign_variables__are_left_alone(tmp_path: Path) -> None:
    assert load_settings({"PATH": "/bin", "SOME__OTHER": "x", "HF_HOME": "y"}, tmp_path) == Settings()


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_HUB_TOKEN"])
def test_hugging_face_token__of_dotenv_reaches_the_children_and_is_never_shown(tmp_path: Path, name: str) -> None:
    (tmp_path / ".env").write_text(f"{name}=t0ken\n", encoding="utf-8")
    settings = load_settings({}, tmp_path)
    assert child_environment(settings)["HF_TOKEN"] == "t0ken"  # noqa: S105
    assert "t0ken" not in repr(settings) + settings.model_dump_json()


def test_child_environment__has_nothing_of_discord_and_no_empty_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("DISCORD__TOKEN", "t0ken")
    children = child_environment(load_settings())
    assert [name for name in children if name.startswith(("DISCORD", "HF_TOKEN", "HF__"))] == []


def test_log_level_that_is_empty__is_empty_for_children_too() -> None:
    given = child_environment(load_settings({"LOGGING__LEVEL": ""}))
    assert load_settings(given).logging.level is None


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("", True),
        ("unix:///run/redis.sock", True),
        ("redis://localhost", True),
        ("redis://:pass%40word@127.0.0.1:6379/0", True),
        ("rediss://[::1]:6379?db=1", True),
        ("redis://localhost.example.org:6379/0", False),
        ("redis://user:localhost@redis:6379/0", False),
        ("redis://10.0.0.7/0", False),
    ],
)
def test_redis__is_local_by_its_host(url: str, is_local: bool, tmp_path: Path) -> None:
    assert load_settings({"REDIS__URL": url}, tmp_path).redis.is_local is is_local


SECRET = "a-secret-of-more-than-16-bytes"  # noqa: S105


def test_webhooks__are_off_without_an_address(tmp_path: Path) -> None:
    webhooks = load_settings({"WEBHOOKS__SECRET": SECRET}, tmp_path).webhooks
    assert webhooks.urls == []
    assert Settings().webhooks.signing_key == b""


def test_webhooks__take_several_addresses_and_never_show_them(tmp_path: Path) -> None:
    url = "https://one.example/t0ken, https://two.example"
    settings = load_settings({"WEBHOOKS__URL": url, "WEBHOOKS__SECRET": SECRET}, tmp_path)
    assert settings.webhooks.urls == ["https://one.example/t0ken", "https://two.example/"]
    assert settings.webhooks.signing_key == SECRET.encode()
    shown = repr(settings) + settings.model_dump_json()
    assert "t0ken" not in shown and SECRET not in shown


def test_webhooks__key_after_whsec_is_base64(tmp_path: Path) -> None:
    given = {"WEBHOOKS__SECRET": "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="}
    assert load_settings(given, tmp_path).webhooks.signing_key == b"0123456789abcdef"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"WEBHOOKS__URL": "https://one.example/t0ken"}, "`WEBHOOKS__SECRET` is required with `WEBHOOKS__URL`."),
        ({"WEBHOOKS__SECRET": "t0ken"}, "`WEBHOOKS__SECRET` must have at least 16 bytes."),
        ({"WEBHOOKS__SECRET": "whsec_MDEyMzQ1Njc4OWFiY2Rl"}, "`WEBHOOKS__SECRET` must have at least 16 bytes."),
        ({"WEBHOOKS__SECRET": "whsec_t0ken, no base64"}, "`WEBHOOKS__SECRET` must be base64 after `whsec_`."),
        (
            {"WEBHOOKS__URL": "http://one.example/t0ken", "WEBHOOKS__SECRET": SECRET},
            "`WEBHOOKS__URL` must be https addresses, unless `WEBHOOKS__ALLOW_PRIVATE` is true.",
        ),
        (
            {"WEBHOOKS__URL": "https://one.example,t0ken", "WEBHOOKS__SECRET": SECRET},
            "`WEBHOOKS__URL` must be https addresses.",
        ),
        (
            {"WEBHOOKS__URL": "ftp://one/t0ken", "WEBHOOKS__SECRET": SECRET, "WEBHOOKS__ALLOW_PRIVATE": "true"},
            "`WEBHOOKS__URL` must be http and https addresses.",
        ),
        (
            {"WEBHOOKS__EVENTS": "trainer.jo"},
            "`WEBHOOKS__EVENTS` must be types of events, such as trainer.job.failed, or their beginnings, you gave"
            " 'trainer.jo'.",
        ),
        (
            {"WEBHOOKS__EVENTS": ""},
            "`WEBHOOKS__EVENTS` must be types of events, such as trainer.job.failed, or their beginnings, you gave ''.",
        ),
    ],
)
def test_webhooks__refusals_name_the_setting_and_show_no_secret(
    given: dict[str, str], expected: str, tmp_path: Path
) -> None:
    assert refusal(given, tmp_path) == expected


def test_webhooks__may_be_http_in_a_private_network(tmp_path: Path) -> None:
    given = {"WEBHOOKS__URL": "http://receiver:80/", "WEBHOOKS__SECRET": SECRET, "WEBHOOKS__ALLOW_PRIVATE": "true"}
    assert load_settings(given, tmp_path).webhooks.urls == ["http://receiver/"]


@pytest.mark.parametrize("names", ["trainer", "trainer.job", "trainer.metrics.progress.v1, trainer.eval"])
def test_webhooks__events_are_types_or_beginnings_up_to_a_dot(names: str, tmp_path: Path) -> None:
    events = load_settings({"WEBHOOKS__EVENTS": names}, tmp_path).webhooks.events
    assert events == tuple(names.split(", "))


def test_webhooks__default_events_are_the_ends_of_runs() -> None:
    names = Settings().webhooks.events
    assert [kind for kind in event_types() if any(is_event_of(kind, name) for name in names)] == [
        "trainer.job.completed.v1",
        "trainer.job.failed.v1",
        "trainer.job.cancelled.v1",
    ]


def test_webhooks__stay_with_the_bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process must not refuse half of the settings: it may read the other half in `.env`."""
    (tmp_path / ".env").write_text("WEBHOOKS__URL=https://one.example\n", encoding="utf-8")
    monkeypatch.setenv("WEBHOOKS__SECRET", SECRET)
    children = child_environment(load_settings(folder=tmp_path))
    assert SECRET not in children.values()
    assert load_settings(children, tmp_path).webhooks == Settings().webhooks


@pytest.mark.parametrize("name", ["CLIENT__URL", "MT_URL", "MODEL_TRAINER_API_URL", "API_BASE_URL"])
def test_server__has_several_names_and_is_not_that_of_children(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "MT_KEY" if name == "MT_URL" else "MODEL_TRAINER_API_KEY"
    for given, value in ((name, "http://lab:8000"), (key, "a-key-of-16-characters")):
        monkeypatch.setenv(given, value)
    settings = load_settings(folder=tmp_path)
    (tmp_path / ".env").write_text("MT_URL=http://lab\nMT_KEY=a-key-of-16-characters\n", encoding="utf-8")
    assert str(settings.client.url) == "http://lab:8000/"
    assert settings.client.key is not None and settings.client.key.get_secret_value() == "a-key-of-16-characters"
    assert "a-key" not in repr(settings) + settings.model_dump_json()
    children = child_environment(settings)
    assert load_settings(children, tmp_path).client == Settings().client
    assert "a-key-of-16-characters" not in children.values()


def test_server__of_several_names_is_that_of_ours(tmp_path: Path) -> None:
    names = {"MT_URL": "http://ours", "API_BASE_URL": "http://another", "MODEL_TRAINER_API_URL": "http://long"}
    for order in (names, dict(reversed(names.items()))):
        assert str(load_settings(order, tmp_path).client.url) == "http://ours/"
    (tmp_path / ".env").write_text("MT_URL=http://file\nCLIENT__URL=\n", encoding="utf-8")
    assert str(load_settings({}, tmp_path).client.url) == "http://file/"
    assert str(load_settings({"API_BASE_URL": "http://given"}, tmp_path).client.url) == "http://given/"


def test_server__with_a_wrong_address_or_key_is_refused(tmp_path: Path) -> None:
    assert "`CLIENT__URL`" in refusal({"MT_URL": "lab:8000"}, tmp_path)
    shown = refusal({"MT_KEY": "sh0rt"}, tmp_path)
    assert shown == "`CLIENT__KEY` must have at least 16 characters, without spaces."


KEY = "0123456789abcdef"
MALFORMED_KEYS = [
    f"ana:boss:{KEY}",
    f"ana:user:{KEY[1:]}",
    f"ana:{KEY}",
    f":user:{KEY}",
    f"a b:user:{KEY}",
    f"ana:user:{KEY} 1",
    f"ana:user:ä{KEY}",
    f"ana:user:{'x' * 513}",
    KEY,
    "ana",
    f"bob:user:{KEY},ana:boss:{KEY}",
]


@pytest.mark.parametrize("keys", MALFORMED_KEYS)
def test_api_keys__that_are_malformed_are_refused_and_never_shown(keys: str, tmp_path: Path) -> None:
    message = refusal({"SECURITY__API_KEYS": keys}, tmp_path)
    assert message.startswith("`SECURITY__API_KEYS` must be NAME:ROLE:KEY, with the role user or admin")
    assert "you gave" not in message and KEY[1:] not in message


def test_api_keys__have_names_of_their_own(tmp_path: Path) -> None:
    message = refusal({"SECURITY__API_KEYS": f"ana:user:{KEY},ana:admin:{KEY}x"}, tmp_path)
    assert message == "`SECURITY__API_KEYS` must have different names."


def test_api_keys__in_another_form_than_text_are_not_shown_either(tmp_path: Path) -> None:
    (tmp_path / "mt.toml").write_text(f'[security]\napi_keys = ["ana:user:{KEY}"]\n', encoding="utf-8")
    assert refusal({}, tmp_path) == "`SECURITY__API_KEYS` must be text."


@pytest.mark.parametrize("key", [KEY[1:], f"{KEY} ", f"ä{KEY}", "x" * 513])
def test_api_key__that_is_short_or_no_header_is_refused(key: str, tmp_path: Path) -> None:
    message = refusal({"SECURITY__API_KEY": key}, tmp_path)
    assert message == "`SECURITY__API_KEY` must have at least 16 characters, without spaces."


def test_api_keys__are_read_with_names_and_roles(tmp_path: Path) -> None:
    environ = {"SECURITY__API_KEYS": f" ana:user:{KEY}1, 700:admin:{KEY}:2,, ", "SECURITY__API_KEY": KEY}
    settings = load_settings(environ, tmp_path)
    assert [(key.name, key.role, key.secret.get_secret_value()) for key in settings.security.keys] == [
        ("admin", "admin", KEY),
        ("ana", "user", f"{KEY}1"),
        ("700", "admin", f"{KEY}:2"),
    ]
    assert KEY not in repr(settings) + str(settings.security.keys)
    assert load_settings({"SECURITY__API_KEYS": "", "SECURITY__API_KEY": ""}, tmp_path).security.keys == ()


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example.org", False),
    ],
)
def test_host__is_known_to_be_of_this_machine_only(host: str, is_loopback: bool) -> None:
    assert HttpSettings(host=host).is_loopback is is_loopback


def test_children__learn_nothing_of_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECURITY__API_KEYS", "SECURITY__API_KEY", "HTTP__PORT"):
        monkeypatch.setenv(name, KEY)
    settings = load_settings({"SECURITY__API_KEYS": f"ana:user:{KEY}"}, tmp_path)
    environment = child_environment(settings)
    kept = {name: value for name, value in environment.items() if name.startswith(("SECURITY", "HTTP__"))}
    assert set(kept.values()) == {""}, "in place of those of `.env`"
    assert KEY not in str(environment)
