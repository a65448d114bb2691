"""The HTTP proxy of the environment between the bot and Discord."""

from urllib.request import getproxies, proxy_bypass

import yarl

from trainer.config.settings import DiscordSettings
from trainer.contracts.errors import AppError, ErrorCode

_DISCORD = "https://discord.com"


def proxy_for(settings: DiscordSettings) -> str | None:
    """Return the proxy for calls to Discord and its gateway, from HTTPS_PROXY and NO_PROXY.

    HTTP_PROXY is for an API address of the settings that begins with `http:`. Raises CONFIG_INVALID for a proxy of
    another kind.
    """
    api = yarl.URL(str(settings.api_base_url or _DISCORD))
    address = getproxies().get(api.scheme)
    is_direct: bool = proxy_bypass(api.host or "")
    if not address or is_direct:
        return None
    try:
        proxy = yarl.URL(address)
        is_http = proxy.scheme == "http" and proxy.host is not None
    except ValueError:
        is_http = False
    if not is_http:
        raise AppError(
            ErrorCode.CONFIG_INVALID,
            f"{api.scheme.upper()}_PROXY must be the address of an HTTP proxy, for example http://proxy.example:3128."
            " To reach Discord without the proxy, set NO_PROXY=discord.com,discord.gg,discordapp.com.",
        )
    return address
