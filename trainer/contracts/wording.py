"""Words that depend on a number, or on how the program was installed."""

from pathlib import Path

_SETUP = "python scripts/setup.py"
_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "setup.py"


def counted(number: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: "1 epoch", "2,000 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def command_for_extra(extra: str) -> str:
    """Return the command that installs an extra: with the checkout's script, which keeps its install editable."""
    return f"`{_SETUP} --extra {extra}`" if _SCRIPT.is_file() else f"`pip install 'model-trainer[{extra}]'`"
