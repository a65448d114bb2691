"""`python -m benchmarks [CASES …]`: runs `benchmarks.main`; Ctrl-C and SIGTERM leave no process and no folder."""

import os
import signal
import subprocess
import sys
from tempfile import TemporaryDirectory


def main() -> int:
    from benchmarks.turns import adopt_orphans, end_descendants
    from trainer.services.embedded import die_with_parent

    adopt_orphans()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command = [*die_with_parent(), sys.executable, "-m", "benchmarks.main", *sys.argv[1:]]
    with TemporaryDirectory(prefix="mt-bench-") as folder:
        try:  # Ctrl-C in a terminal reaches this process alone
            return subprocess.run(command, env=os.environ | {"TMPDIR": folder}, process_group=0, check=False).returncode
        finally:
            end_descendants()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("Interrupted; nothing is left running. The cases that had ended are saved.")
        sys.exit(130)
