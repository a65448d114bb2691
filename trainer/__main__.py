"""`python -m trainer` is the `mt` command."""

import sys

from trainer.cli import main

sys.exit(main())
