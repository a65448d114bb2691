"""Users of the bot: their settings, and what they watch."""
