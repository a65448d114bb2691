"""`python -m tests.faults KIT [NAME=NUMBER]…`; exits 1 where a promise is broken, and keeps the campaign's folder then.

The numbers may come from the environment, too, as `make chaos MINUTES=3` gives them. Equal numbers make equal plans.
"""

import sys

from tests.faults import chaos, fuzz, mutations, scale, slurm
from tests.faults.driver import run_kit

KITS = {"chaos": chaos.KIT, "fuzz": fuzz.KIT, "mutations": mutations.KIT, "scale": scale.KIT, "slurm": slurm.KIT}

if __name__ == "__main__":
    kit, *numbers = sys.argv[1:] or [""]
    if kit not in KITS:
        sys.exit(f"Give one of {', '.join(KITS)}, and its numbers, as in `SEED=1`.")
    sys.exit(run_kit(kit, KITS[kit], numbers))
