"""Special tokens under names that were asked for: as those of the style in everything but their names."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from tests.support.properties import for_all
from tests.support.tiny_models import POEM, library_tokenizer, make_run, tokenizer_of
from trainer.artifacts.tokenizer_files import unknown_share
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import SpecialTokens
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.batches import masking

METHODS = ["bpe", "wordpiece", "sentencepiece"]
NAMES = {
    "bos_token": "<|begin|>",
    "sep_token": "[end]",
    "unk_token": "<0.u>",
    "pad_token": "</p>",
    "mask_token": "<g_g>",
}
LINES = [*POEM, f"spelled {' '.join(NAMES.values())} <|begin|>the", "<g_g><g_g> ##begin"] * 2
RENAMED = {
    "gpt2_mask": {"<|begin|>": 0, "[end]": 1, "<0.u>": 2, "</p>": 3, "<g_g>": 4},
    "bert": {"</p>": 0, "<0.u>": 1, "<|begin|>": 2, "[end]": 3, "<g_g>": 4},
}


def made(method: str, **fields: object) -> Tokenizer:
    return tokenizer_of(method, LINES, ["the end"], vocab_size=160, **fields)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("style", RENAMED)
def test_names__are_those_given_and_nothing_else_changes(method: str, style: str, tmp_path: Path) -> None:
    plain, renamed = made(method, special_style=style), made(method, special_style=style, special_tokens=NAMES)
    renamed.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for tokenizer in (renamed, loaded):
        assert tokenizer.manifest.special_tokens == RENAMED[style]
        assert tokenizer.special_ids == plain.special_ids
        assert tokenizer.tokens(range(5, tokenizer.vocab_size)) == plain.tokens(range(5, plain.vocab_size))
        for text in (*LINES, "unseen Ж"):
            assert tokenizer.encode(text) == plain.encode(text)
    assert unknown_share(tmp_path, ["the Ж"]) == 1 / 5


@pytest.mark.parametrize("method", METHODS)
def test_names__not_given_are_those_of_the_style_and_a_named_mask_is_there(method: str) -> None:
    bert = {"[PAD]": 0, "[UNK]": 1, "<s>": 2, "[SEP]": 3, "[MASK]": 4}
    assert made(method, special_style="bert", special_tokens={"cls_token": "<s>"}).manifest.special_tokens == bert
    masked = made(method, special_style="gpt2", special_tokens={"mask_token": "<gap>"})
    assert list(masked.manifest.special_tokens) == ["<s>", "</s>", "<unk>", "<pad>", "<gap>"]
    assert masked.special_ids.mask == 4


@pytest.mark.parametrize("method", METHODS)
def test_names__may_be_exchanged(method: str) -> None:
    ids = made(method, special_style="gpt2", special_tokens={"bos_token": "</s>", "eos_token": "<s>"}).special_ids
    assert (ids.bos, ids.eos) == (0, 1)


TOKENIZERS = [made(method, special_tokens=NAMES) for method in METHODS]
spelled = st.lists(st.sampled_from([*NAMES.values(), "begin", "the", " ", "##", "g_g", "<", ">"]), max_size=8).map(
    "".join
)


@for_all(spelled)
def test_names_in_a_text__are_text(text: str) -> None:
    for tokenizer in TOKENIZERS:
        ids = tokenizer.encode(text)
        assert not set(tokenizer.special_ids.all) - {tokenizer.special_ids.unk} & set(ids)
        assert tokenizer.special_ids.unk not in ids
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("method", ["bpe", "wordpiece"])
def test_library_file__has_the_names_in_their_places(method: str) -> None:
    ours = made(method, special_tokens=NAMES)
    library = library_tokenizer(ours)
    assert {name: library.token_to_id(name) for name in NAMES.values()} == ours.manifest.special_tokens
    assert library.encode("the sun").ids == [ours.special_ids.bos, *ours.encode("the sun"), ours.special_ids.eos]
    assert library.encode("Ж", add_special_tokens=False).ids == [ours.special_ids.unk]


def test_sentencepiece_file__has_the_names_in_the_packages_own_places(tmp_path: Path) -> None:
    ours = made("sentencepiece", special_tokens=NAMES)
    ours.save(tmp_path)
    processor = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ids = (processor.bos_id(), processor.eos_id(), processor.unk_id(), processor.pad_id())
    assert ids == (ours.special_ids.bos, ours.special_ids.eos, ours.special_ids.unk, ours.special_ids.pad)
    assert {name: processor.piece_to_id(name) for name in NAMES.values()} == ours.manifest.special_tokens
    assert processor.is_control(processor.piece_to_id("<g_g>"))


@pytest.mark.parametrize("method", METHODS)
def test_masked_run__masks_with_the_token_of_the_given_name(method: str, tmp_path: Path) -> None:
    fields: dict[str, object] = {"method": method, "vocab_size": 80, "special_tokens": {"mask_token": "<gap>"}}
    run = make_run(
        tmp_path,
        model_family="lstm",
        model={"embedding_size": 8, "hidden_size": 8, "num_layers": 1, "bidirectional": True},
        objective="masked_lm",
        tokenizer=fields,
        num_epochs=1,
    )
    mask = run.tokenizer.manifest.special_tokens["<gap>"]
    masked = masking(run.effective, vocabulary_of(run.tokenizer), run.effective.seed)

    inputs: list[int] = run.corpus.rows("train", 16, masked).batch(np.arange(4)).inputs.flatten().tolist()

    assert run.tokenizer.special_ids.mask == mask == 4
    assert mask in inputs
    assert run.train(run.fresh_model()).test is not None


def test_config_of_another_method_than_the_manifests__is_refused(tmp_path: Path) -> None:
    made("bpe").save(tmp_path)
    path = tmp_path / "manifest.json"
    whole = path.read_text(encoding="utf-8")
    start, end = whole.index('"config": {'), whole.index('"stats"')
    path.write_text(f'{whole[:start]}"config": {{"method": "word"}},\n{whole[end:]}', encoding="utf-8")
    with pytest.raises(AppError, match="does not have the method of its manifest") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code is ErrorCode.TOKENIZER_LOAD_FAILED


def test_roles__of_the_aliases_of_bert_are_begin_and_end() -> None:
    names = parse(SpecialTokens, {"cls_token": "[C]", "sep_token": "[S]"})
    assert names.by_role == {"bos": "[C]", "eos": "[S]"}
