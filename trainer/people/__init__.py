"""Permissions, limits and the language of answers."""
