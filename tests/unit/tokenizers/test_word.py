"""The word tokenizer: its order, its spaces, its file."""

from unicodedata import normalize

import pytest
import tokenizers
from tokenizers import pre_tokenizers

from tests.support.properties import for_all_pairs
from tests.support.strategies import texts
from tests.support.tiny_models import integers, library_tokenizer, tokenizer_of
from trainer.contracts.base import changed
from trainer.tokenizers.library import content_of, word_level
from trainer.tokenizers.word import WordTokenizer, with_spaces


def test_ids__are_the_unknown_word_the_end_and_words_as_they_came() -> None:
    tokenizer = tokenizer_of("word", ["b a b", "c\ta  d"])
    assert tokenizer.manifest.special_tokens == {"<UNK>": 0, "<eos>": 1}
    assert tokenizer.encode("a b c d e") == [3, 2, 4, 5, 0]
    assert tokenizer.tokens([0, 1, 2]) == ["<UNK>", "<eos>", "b"]
    assert tokenizer.manifest.versions == {"tokenizers": tokenizers.__version__}


@pytest.mark.parametrize("name", ["<unk>", "<UNK>", "[UNK]"])
def test_name_of_an_unknown_token__in_a_text_counts_as_unknown(name: str) -> None:
    tokenizer = tokenizer_of("word", [f"the {name} sat", f"{name} {name}"])
    documents = tokenizer.encode_documents(f"the {name} sat")
    assert integers(documents) == [2, 0, 3, 1]
    assert tokenizer.unknown_characters(f"the {name} sat", documents) == len(name)
    assert library_tokenizer(tokenizer).encode(f"the {name} sat", add_special_tokens=False).ids == [2, 0, 3]


def test_vocabulary__keeps_the_most_frequent_in_the_order_of_the_text() -> None:
    lines = ["c a a", "b b c", "d a"]
    assert tokenizer_of("word", lines, min_frequency=2).encode("c a b d") == [2, 3, 4, 0]
    capped = tokenizer_of("word", lines, vocab_size=4)
    assert capped.encode("a c b d") == [3, 2, 0, 0]
    assert tokenizer_of("word", lines, vocab_size=1).vocab_size == 2


PRINTED = [
    ("the cat , the dog .", "the cat, the dog."),
    ("well ; yes : no ! why ?", "well; yes: no! why?"),
    ("a ( b ) c", "a (b) c"),
    ("x [ 1 ] y { 2 } z", "x [1] y {2} z"),
    ("John 's hat", "John's hat"),
    ("the boys ' hats", "the boys' hats"),
    ('he said " yes " twice', 'he said "yes" twice'),
    ('" a " , " b "', '"a", "b"'),
    ('( " in " )', '("in")'),
    ("plain words stay, as they are.", "plain words stay, as they are."),
    ("", ""),
]


@pytest.mark.parametrize(("words", "printed"), PRINTED)
def test_spaces__are_as_in_print(words: str, printed: str) -> None:
    assert "".join(with_spaces(words.split())) == printed
    tokenizer = tokenizer_of("word", [words or "x"])
    assert tokenizer.decode(tokenizer.encode(words)) == printed


@for_all_pairs(texts, texts)
def test_known_words__are_decoded_with_their_spans(known: str, text: str) -> None:
    known, text = normalize("NFC", known), normalize("NFC", text)
    tokenizer = tokenizer_of("word", [f"{known} x"])
    words, has = text.split(), set(f"{known} x".split())
    ids = tokenizer.encode(text)
    assert tokenizer.tokens(ids) == [
        w if w in has and w not in ("<UNK>", "<unk>", "[UNK]", "<eos>") else "<UNK>" for w in words
    ]
    assert [text[a:b] for a, b in tokenizer.spans(text)] == words


def test_white_space__is_the_same_in_the_library_file() -> None:
    tokenizer = tokenizer_of("word", ["a"])
    library = library_tokenizer(tokenizer)
    for code_point in range(0x3100):
        text = f"a{chr(code_point)}a"
        assert library.encode(text, add_special_tokens=False).ids == tokenizer.encode(text)


KHMER = "ខ្ញុំ\u200bទៅ\u200b \u200bផ្សារ"


def test_zero_width_spaces__separate_words_and_joiners_do_not() -> None:
    tokenizer = tokenizer_of("word", [KHMER, "می\u200cروم"])
    assert tokenizer.texts[2:] == ["ខ្ញុំ", "ទៅ", "ផ្សារ", "می\u200cروم"]
    assert [KHMER[a:b] for a, b in tokenizer.spans(KHMER)] == ["ខ្ញុំ", "ទៅ", "ផ្សារ"]
    assert tokenizer.unknown_characters("ab\u200bc", tokenizer.encode_documents("ab\u200bc")) == 3


def test_tokenizer_of_an_earlier_version__has_zero_width_spaces_inside_words() -> None:
    today = tokenizer_of("word", [KHMER])
    library = word_level(["<UNK>", "<eos>", "a\u200bb"], "<UNK>")
    library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\x1c-\x1f]+"), "removed")
    content = content_of(library, ["<UNK>", "<eos>"])
    earlier = WordTokenizer(content, changed(today.manifest, vocab_size=3))
    assert earlier.encode("a\u200bb a b") == [2, 0, 0]
    assert earlier.spans("a\u200bb a") == [(0, 3), (4, 5)]
    assert earlier.unknown_characters("a\u200bc d", earlier.encode_documents("a\u200bc d")) == 4
