"""Charts, score tables and pages."""

from trainer.contracts.installation import keep_font_cache

keep_font_cache()  # matplotlib reads its place when it is imported
