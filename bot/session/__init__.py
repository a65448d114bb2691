"""The Discord client and the commands that it still has to answer."""
