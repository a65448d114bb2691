"""The slash commands, one module a topic."""
