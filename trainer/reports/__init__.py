"""Charts, score tables and pages."""

import logging

from trainer.contracts.installation import keep_font_cache

keep_font_cache()  # matplotlib reads its place when it is imported
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of fonts and folders, which a user cannot act on
