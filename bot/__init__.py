"""The Discord bot: commands, cards and messages; never torch."""
