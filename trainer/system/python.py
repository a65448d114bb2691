"""Commands of this Python for child processes, and imports that leave out the working folder.

It imports only what the interpreter has loaded before, since any other module could be one of the working folder.
"""

import os
import sys


def python_command(*options: str) -> list[str]:
    """Return the command of a child process of this Python, which imports nothing from its working folder."""
    return [sys.executable, "-P", *options]


def leave_out_working_folder() -> None:
    """Run no code of the working folder from now on, in this process and in all that it starts.

    Folders that PYTHONPATH names stay. An empty entry, as `PYTHONPATH=$PYTHONPATH:FOLDER` leaves in an empty variable,
    names none, though Python and the system read it as the working folder.
    """
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    programs = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(entry)]
    os.environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(named), "PATH": os.pathsep.join(programs)}
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was deleted: there is no code in it
        return
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    kept = [root, *map(os.path.abspath, named)]
    sys.path[:] = [folder for folder in sys.path if folder in kept or folder not in ("", here)]
