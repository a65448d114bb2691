"""Words that depend on a number."""


def counted(number: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: "1 epoch", "2,000 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
