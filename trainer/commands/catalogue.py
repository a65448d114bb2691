"""The help of `mt`: all commands by section; without further imports, so that it is quick."""

from trainer.contracts.operations import COMMANDS, SECTIONS

_HEAD = """\
usage: mt COMMAND [options]

Train small language models and use them. `mt COMMAND --help` lists the options of a command.
`mt --version` prints the version.
"""


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
