"""`python -m bot` runs the bot, `python -m bot --no-discord` the HTTP API alone."""

import gc
import sys

from trainer.system.python import leave_out_working_folder


def run() -> int:
    leave_out_working_folder()  # `-m` has put it first
    words = sys.argv[1:]
    if words not in ([], ["--no-discord"]):
        sys.stderr.write("Usage: python -m bot [--no-discord]\n")
        return 2
    gc.disable()  # it would take a seventh of the time of the imports
    from trainer.contracts.errors import AppError
    from trainer.contracts.installation import require_extras

    try:
        require_extras("server", *([] if words else ["discord"]))
    except AppError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    from bot.main import main

    gc.freeze()  # modules stay: later collections need not visit them
    gc.enable()
    return main(with_discord=not words)


sys.exit(run())
