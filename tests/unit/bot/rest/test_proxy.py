"""The proxy of the environment for calls to Discord."""

import pytest

from bot.rest.proxy import proxy_for
from trainer.config.settings import DiscordSettings
from trainer.contracts.errors import AppError, ErrorCode

PROXY = "http://user:password@proxy.example:3128"
LOCAL = "http://127.0.0.1:9/api/v10"
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *(name.lower() for name in NAMES)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "api", "proxy"),
    [
        ({"NO_PROXY": ""}, "", None),
        ({"HTTPS_PROXY": PROXY}, "", PROXY),
        ({"https_proxy": PROXY}, "", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "example.org,discord.com"}, "", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, "", None),
        ({"HTTPS_PROXY": ""}, "", None),
        ({"HTTP_PROXY": PROXY}, "", None),
        ({"HTTPS_PROXY": PROXY}, LOCAL, None),
        ({"HTTP_PROXY": PROXY}, LOCAL, PROXY),
        ({"HTTP_PROXY": PROXY, "NO_PROXY": "127.0.0.1"}, LOCAL, None),
        ({"HTTPS_PROXY": PROXY}, "https://discord.example/api/v10", PROXY),
    ],
)
def test_proxy__comes_from_the_environment_for_discords_address(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], api: str, proxy: str | None
) -> None:
    given: dict[str, object] = {"api_base_url": api}
    settings = DiscordSettings.model_validate(given)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(settings) == proxy


@pytest.mark.parametrize(
    "address",
    ["socks5://proxy.example:1080", "https://proxy.example", "proxy.example:3128", "//", "http://proxy.example:port"],
)
def test_proxy__of_another_kind_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address.replace("//p", "//user:password@p"))
    with pytest.raises(AppError, match=r"HTTPS_PROXY must be the address of an HTTP proxy") as refused:
        proxy_for(DiscordSettings())
    assert refused.value.code is ErrorCode.CONFIG_INVALID and "password" not in refused.value.message
