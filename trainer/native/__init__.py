"""The decode step in C: its source, its compilation, its loading."""
