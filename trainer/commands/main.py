"""The `mt` command: train and use models from a terminal, by the same queue as the bot."""

import atexit
import gc
import sys
from collections.abc import Sequence

from trainer.contracts.operations import COMMANDS, SECTIONS
from trainer.system.python import leave_out_working_folder

_HEAD = """\
usage: mt COMMAND [options]

Train small language models and use them. `mt COMMAND --help` lists the options of a command.
`mt --version` prints the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""
    if argv is None:  # this process is the command's own
        leave_out_working_folder()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(overview())
        return 0
    if words == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"mt {version('model-trainer')}\n")
        return 0
    gc.disable()  # it would take a tenth of the time of the imports; run_command enables it
    atexit.register(gc.freeze)  # the interpreter collects at its end, though the system frees all memory at once
    try:
        from trainer.commands.arguments import run_command  # imports pydantic and rich, which the help does without

        return run_command(words)
    except KeyboardInterrupt:  # during the imports
        sys.stderr.write("Interrupted.\n")
        return 130


def overview() -> str:
    """Return the help of `mt`: all commands by section, with an example of each section's first one."""
    width = max(map(len, COMMANDS))
    lines = [_HEAD]
    for section, names in SECTIONS.items():
        commands = [COMMANDS[name] for name in names]
        lines.append(section)
        lines += [f"  {one.command:<{width}}  {one.about}" for one in commands]
        lines.append(f"  {'':<{width}}  Example: {commands[0].example}\n")
    return "\n".join(lines)
