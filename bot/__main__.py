"""`python -m bot` runs the bot."""

import sys

from bot.main import main

sys.exit(main())
