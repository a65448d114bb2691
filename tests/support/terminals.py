"""Commands in a pseudo-terminal, and the signs there that a terminal would obey."""

import os
import re
import subprocess
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

needs_terminals = pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
_OWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r(?=\n)|\r(?=\x1b\[)")
"""Styles, ends of lines, and the bar that is redrawn."""


def shown_in_a_terminal(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command in a terminal; return its exit code and all that it shows."""
    main, terminal = os.openpty()
    read = b""
    with subprocess.Popen(
        command, cwd=folder, stdout=terminal, stderr=terminal, env={**environment, "TERM": "xterm"}
    ) as process:
        os.close(terminal)
        with suppress(OSError):  # the end of a pseudo-terminal
            while part := os.read(main, 1 << 16):
                read += part
    os.close(main)
    return process.wait(), read.decode()


def control_signs(shown: str) -> list[str]:
    """Return the control characters and marks of direction in a text, without those of the terminal itself."""
    others = (one for one in _OWN.sub("", shown) if one not in "\n\r\t")
    return [one for one in others if unicodedata.category(one) in ("Cc", "Cf", "Zl")]
