"""Child processes of the bot."""
