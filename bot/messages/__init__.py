"""Discord embeds made of records: pure functions that keep to Discord's limits."""
