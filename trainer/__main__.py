"""`python -m trainer` is the `mt` command."""

import sys

from trainer.commands.main import main

sys.exit(main())
