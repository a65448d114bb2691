"""What the properties of reading, splitting and encoding are drawn from."""

import hypothesis
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

# The machine may be busy: how long an example takes says nothing.
_patience: list[hypothesis.HealthCheck] = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=_patience)
hypothesis.settings.load_profile("patient")

_assigned = strategies.characters(exclude_categories=("Cs", "Cn"), exclude_characters="\x00\n")
texts: SearchStrategy[str] = strategies.text(_assigned, max_size=40)
"""Of characters that every library's Unicode tables know."""
line_lists: SearchStrategy[list[str]] = strategies.lists(texts, max_size=12)
