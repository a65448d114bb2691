"""Run a local Discord until interrupted: `python -m local_discord --port 8080 --token secret`."""

import argparse
import asyncio
import sys
from contextlib import suppress

from local_discord.driver import LocalDiscord


class Options(argparse.Namespace):
    port: int
    token: str


async def serve(options: Options) -> None:
    async with LocalDiscord(token=options.token, port=options.port) as discord:
        sys.stdout.write(f"DISCORD__API_BASE_URL={discord.api_base_url}\n")
        sys.stdout.write(f"DISCORD__GATEWAY_URL={discord.gateway_url}\n")
        sys.stdout.write(f"DISCORD__CDN_BASE_URL={discord.cdn_base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="local_discord", description="A Discord on this machine.")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--token", default="local-token", help="the bot token that is accepted")
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args(namespace=Options())))


if __name__ == "__main__":
    main()
