"""`python -m bot` runs the bot."""

import gc
import sys


def run() -> int:
    gc.disable()  # it would take a seventh of the time of the imports
    from bot.main import main

    gc.freeze()  # modules stay: later collections need not visit them
    gc.enable()
    return main()


sys.exit(run())
