"""`python -m tests.faults KIT [NAME=NUMBER]…`; exits 1 where a promise is broken, and keeps the campaign's folder then.

The numbers may come from the environment, too, as `make chaos MINUTES=3` gives them. Equal numbers make equal plans.
"""

import sys
from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    from tests.faults import chaos, fuzz, mutations, scale, slurm  # takes seconds, and may be interrupted
    from tests.faults.driver import run_kit

    kits = {"chaos": chaos.KIT, "fuzz": fuzz.KIT, "mutations": mutations.KIT, "scale": scale.KIT, "slurm": slurm.KIT}
    kit, *numbers = words or [""]
    if kit not in kits:
        sys.exit(f"Give one of {', '.join(kits)}, and its numbers, as in `SEED=1`.")
    return run_kit(kit, kits[kit], numbers)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.stdout.write("Interrupted; nothing is left running.\n")
        sys.exit(130)
