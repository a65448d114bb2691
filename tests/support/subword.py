"""Strategies and checks for subword tokenizers."""

from itertools import pairwise

from hypothesis import strategies as st

from trainer.tokenizers.base import Span

specials_and_text = st.lists(
    st.sampled_from(["<s>", "</s>", "<unk>", "<pad>", "<mask>", "[PAD]", "[UNK]", "[CLS]", "##", "#", " ", "king", "Ж"])
).map("".join)


def tiles(spans: list[Span], text: str) -> bool:
    """Return True if the spans cover the text from start to end without gaps."""
    places = [(0, 0), *spans, (len(text), len(text))]
    return all(before[1] == after[0] for before, after in pairwise(places))
