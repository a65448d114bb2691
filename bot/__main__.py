"""`python -m bot` runs the bot, `python -m bot --no-discord` the HTTP API alone."""

import gc
import sys


def run() -> int:
    gc.disable()  # it would take a seventh of the time of the imports
    from bot.main import main

    gc.freeze()  # modules stay: later collections need not visit them
    gc.enable()
    return main(with_discord="--no-discord" not in sys.argv[1:])


sys.exit(run())
