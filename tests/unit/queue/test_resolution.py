"""Resolving a request from gathered facts: a pure function, checked without a disk."""

from collections.abc import Iterator, Mapping
from typing import get_args

import pytest
from hypothesis import strategies as st

from tests.support import some_text
from tests.support.families import effective_of
from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from tests.support.tiny_models import char_tokenizer
from trainer.config.presets import Bf16Trial
from trainer.config.train_request import CORPORA
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.data.folders import FolderLayout
from trainer.data.text import TextSample
from trainer.queue.resolution import Device, Facts, Parent, Resolution, resolve

Values = Mapping[str, object]


def corpus(content: str, name: str = "text") -> CorpusRef:
    return CorpusRef(name=name, sha256=content * 64, bytes=1)


FACTS = Facts(
    device=Device(may_have_cuda=False),
    parent=None,
    tokenizer=None,
    unknown_share=0.0,
    layout=FolderLayout({}),
    references={"corpus": corpus("a")},
    sample=TextSample(some_text(), len(some_text()), len(some_text())),
    n_files=1,
    shown_name="text",
)

HELD_OUT = {"validation_corpus": corpus("b", "held"), "test_corpus": corpus("c", "tested")}


def of_text(text: str, times: int = 1) -> Facts:
    """Facts of a corpus that is as long as a text, or many times as long."""
    size = len(text.encode())
    return FACTS._replace(sample=TextSample(text, size, size * times), n_files=3)


def resolved(facts: Facts = FACTS, /, **fields: object) -> Resolution:
    return resolve(parse(TrainRequest, {"model_family": "gpt2", "corpus": "text", **fields}), facts)


@pytest.mark.parametrize(
    ("contents", "first", "second"),
    [
        ("aba", "corpus", "test_corpus"),
        ("aab", "corpus", "validation_corpus"),
        ("abb", "validation_corpus", "test_corpus"),
    ],
)
def test_one_text_in_two_roles__is_refused_unless_it_is_allowed(contents: str, first: str, second: str) -> None:
    references = {field: corpus(content, field) for field, content in zip(CORPORA, contents, strict=True)}
    facts = FACTS._replace(references=references)
    with refused(ErrorCode.SAME_CORPUS, f"`{second}` has the same text as `{first}`", second):
        resolved(facts)
    assert resolved(facts, allow_same_corpus=True).effective.corpora_by_field() == references


def in_bf16(*, trains: bool) -> Device:
    trial = Bf16Trial(architecture="lstm", trains=trains, gru_trains=True)
    return Device(may_have_cuda=False, bf16_trial=trial)


REFUSALS: list[tuple[Facts, Values, ErrorCode, str]] = [
    (FACTS, {"device": "cuda:1"}, ErrorCode.CUDA_NOT_AVAILABLE, "device"),
    (FACTS, {"precision": "fp16"}, ErrorCode.INVALID_INPUT, "precision"),
    (FACTS, {"provenance": {"source_corpus": "a\n\n## b"}}, ErrorCode.INVALID_INPUT, "provenance.source_corpus"),
    (FACTS, {"provenance": {"source_corpus": "x" * 2001}}, ErrorCode.INVALID_INPUT, "provenance.source_corpus"),
    (FACTS, {"precision": "fp16", "device": "cpu"}, ErrorCode.INVALID_INPUT, "precision"),
    (FACTS._replace(device=Device(may_have_cuda=True)), {"precision": "fp16", "device": "cpu"},
     ErrorCode.INVALID_INPUT, "precision"),
    (FACTS._replace(device=in_bf16(trains=False)), {"precision": "bf16"}, ErrorCode.INVALID_INPUT, "precision"),
    (FACTS._replace(n_files=2), {"split_by": "file"}, ErrorCode.CORPUS_EMPTY, "split_by"),
    (FACTS._replace(unknown_share=0.51), {}, ErrorCode.MODEL_INCOMPATIBLE, ""),
    (FACTS, {"model_family": "bert", "objective": "causal_lm"}, ErrorCode.MODEL_INCOMPATIBLE, "objective"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "fields", "code", "field"), REFUSALS)
def test_request__that_does_not_fit_the_facts_is_refused(
    facts: Facts, fields: Values, code: ErrorCode, field: str
) -> None:
    with refused(code, "", *([field] if field else [])):
        resolved(facts, **fields)


@pytest.mark.parametrize(
    ("facts", "fields"),
    [
        (FACTS._replace(device=Device(may_have_cuda=True)), {"precision": "fp16", "device": "cuda:1"}),
        (FACTS._replace(device=in_bf16(trains=True)), {"precision": "bf16"}),
        (FACTS._replace(n_files=3), {"split_by": "file"}),
        (FACTS._replace(n_files=2), {"split_by": "file", "test_fraction": 0}),
        (FACTS._replace(unknown_share=0.5), {}),
    ],
)
def test_request__that_just_fits_the_facts_is_resolved(facts: Facts, fields: dict[str, object]) -> None:
    values = values_of(resolved(facts, **fields).effective)
    assert {field: values[field] for field in fields} == fields


@pytest.mark.parametrize(("lines", "method"), [(250_000, "bpe"), (249_999, "char")])
def test_tokenizer__is_chosen_by_the_text(lines: int, method: str) -> None:
    facts = of_text("abcdefg\n" * 1000)
    facts = facts._replace(sample=facts.sample._replace(corpus_bytes=8 * lines))
    found = resolved(facts)
    assert found.effective.tokenizer.method == method
    assert {one.field: one.value for one in found.chosen}["tokenizer.method"] == method
    given = resolved(facts, tokenizer={"method": "bpe", "vocab_size": 77})
    assert given.effective.tokenizer.vocab_size == 77
    assert not any(one.field.startswith("tokenizer") for one in given.chosen)


def test_warm_start__takes_held_out_corpora_of_its_parent_unless_others_are_given() -> None:
    own = changed(effective_of("char_lstm", split_seed=7), **HELD_OUT)
    parent = Parent("first", own, is_same_corpus=True, held_out={"test_corpus": "told.txt"})
    facts = FACTS._replace(
        parent=parent,
        tokenizer=char_tokenizer(["abc"]).manifest,
        references={**FACTS.references, "test_corpus": HELD_OUT["test_corpus"]},
    )
    fields: dict[str, object] = {"model_family": "char_lstm", "init_from_run_id": "fir"}
    found = resolved(facts, **fields)
    assert (found.effective.init_from_run_id, found.effective.split_seed, found.effective.model) == (
        "first",
        7,
        own.model,
    )
    chosen = {one.field: (one.value, one.reason) for one in found.chosen}
    assert chosen["test_corpus"] == ("told.txt", "as in its parent 'first'")
    assert found.notes[0].startswith("As in its parent, unless you give others: ")
    assert all(told in found.notes[0] for told in ("`split_seed` 7", "`test_corpus` told.txt"))
    other = resolved(facts, **fields, split_seed=3, test_corpus="other")
    assert other.effective.split_seed == 3
    assert not {"split_seed", "test_corpus"} & {one.field for one in other.chosen}


OF_PARENT: dict[str, object] = {"init_from_run_id": "first", "model_family": "char_lstm"}
_PARENT = Parent("first", changed(effective_of("char_lstm"), corpus=corpus("a"), test="locked"), True, {})
LOCKS: list[tuple[Facts, dict[str, object], str]] = [
    (FACTS._replace(locks_all=True), {}, "`APP__TEST_SPLIT` locks the test splits of all runs here"),
    (FACTS._replace(locked_texts=frozenset({"corpus"})), {}, "the test split of its text is locked for every run"),
    (
        FACTS._replace(
            locked_texts=frozenset({"test_corpus"}), references={**FACTS.references, "test_corpus": corpus("c")}
        ),
        {"test_corpus": "tested"},
        "the test split of its text is locked for every run",
    ),
    (
        FACTS._replace(parent=_PARENT, tokenizer=char_tokenizer(["abc"]).manifest, inherited=frozenset({"corpus"})),
        OF_PARENT | {"test_fraction": 0.3},
        "that of its parent, which has the same text, is locked",
    ),
]


@pytest.mark.parametrize(
    ("n_files", "fields", "is_told"),
    [
        (3, {}, True),
        (3, {"validation_corpus": "held"}, True),
        (1, {}, False),
        (3, {"split_by": "file"}, False),
        (3, {"validation_corpus": "held", "test_corpus": "tested"}, False),
    ],
)
def test_lines_drawn_from_several_files__are_of_these_files_only(
    n_files: int, fields: dict[str, object], is_told: bool
) -> None:
    own = {field: text for field, text in HELD_OUT.items() if field in fields}
    facts = FACTS._replace(references={**FACTS.references, **own}, n_files=n_files)
    found = " ".join(resolved(facts, **fields).notes)
    assert ("drawn from the 3 files that are trained on" in found) == is_told


@pytest.mark.parametrize(("facts", "fields", "reason"), LOCKS)
def test_test_split__takes_the_strictest_of_all_locks(facts: Facts, fields: dict[str, object], reason: str) -> None:
    found = resolved(facts, **fields)
    assert (found.effective.test, found.notes[-1]) == ("locked", f"The test split stays locked, because {reason}.")
    given = resolved(facts, **fields, test="locked")
    assert given.effective == found.effective and "locked" not in " ".join(given.notes)
    with refused(ErrorCode.TEST_LOCKED, f"`test` is 'open', but {reason}", "test"):
        resolved(facts, **fields, test="open")


def test_test_split__is_open_where_no_lock_is_on_its_text() -> None:
    assert [resolved(FACTS, **fields).effective.test for fields in ({}, {"test": "open"}, {"test": "locked"})] == [
        "open",
        "open",
        "locked",
    ]
    of_training = FACTS._replace(
        locked_texts=frozenset({"corpus"}), references={**FACTS.references, "test_corpus": corpus("c")}
    )
    assert resolved(of_training, test_corpus="tested").effective.test == "open", "the lock is on another test text"
    elsewhere = FACTS._replace(parent=_PARENT, tokenizer=char_tokenizer(["abc"]).manifest)
    assert resolved(elsewhere, **OF_PARENT).effective.test == "open"
    without = resolved(FACTS._replace(locks_all=True), test_fraction=0)
    assert (without.effective.test, without.effective.test_id) == ("open", None)


_ON_LOCKED = FACTS._replace(locked_texts=frozenset({"corpus"}))
_OF_LOCKED = FACTS._replace(parent=_PARENT, tokenizer=char_tokenizer(["abc"]).manifest, inherited=frozenset({"corpus"}))
_VALIDATED = {**FACTS.references, "validation_corpus": corpus("c")}
VALIDATED: list[tuple[Facts, dict[str, object], str | None]] = [
    (
        _ON_LOCKED._replace(locked_texts=frozenset({"validation_corpus"}), references=_VALIDATED),
        {"validation_corpus": "tested"},
        "validation_corpus",
    ),
    (
        _OF_LOCKED._replace(inherited=frozenset({"validation_corpus"}), references=_VALIDATED),
        OF_PARENT | {"validation_corpus": "tested"},
        "validation_corpus",
    ),
    (_ON_LOCKED._replace(references=_VALIDATED), {"validation_corpus": "other"}, None),
    (_ON_LOCKED, {"holdout_fraction": 0.4}, None),  # of the lines that the lock does not test
    (_ON_LOCKED, {"holdout_fraction": 0.4, "test_fraction": 0}, "holdout_fraction"),
    (_ON_LOCKED, {"holdout_fraction": 0.2, "test_fraction": 0}, None),
    (_OF_LOCKED, OF_PARENT | {"holdout_fraction": 0.4}, None),
    (_OF_LOCKED, OF_PARENT | {"holdout_fraction": 0.4, "split_seed": 8}, "holdout_fraction"),
    (_OF_LOCKED, OF_PARENT | {"holdout_fraction": 0.2, "split_seed": 8}, None),
]


@pytest.mark.parametrize(("facts", "fields", "field"), VALIDATED)
def test_validation__is_on_no_lines_of_a_locked_split(
    facts: Facts, fields: dict[str, object], field: str | None
) -> None:
    if field is None:
        assert resolved(facts, **fields).effective.test in ("open", "locked")
        return
    with refused(ErrorCode.TEST_LOCKED, f"`{field}` takes lines of a locked test split for validation", field):
        resolved(facts, **fields)


FAMILIES: tuple[str, ...] = get_args(ModelFamily)
RATES = st.floats(1e-5, 0.1, allow_subnormal=False)
OPTIONAL: dict[str, st.SearchStrategy[object]] = {
    "model_size": st.sampled_from(["tiny", "small", "base"]),
    "model": st.sampled_from([{"dropout": 0.25}, {"hidden_size": 24}, {"num_layers": 1, "hidden_size": 64}]),
    "tokenizer": st.sampled_from([{"method": "char"}, {"method": "bpe"}, {"method": "word", "min_frequency": 2}]),
    "objective": st.sampled_from(["causal_lm", "masked_lm"]),
    "documents": st.sampled_from(["line", "stream"]),
    "split_by": st.sampled_from(["line", "position", "file"]),
    "holdout_fraction": st.sampled_from([0.05, 0.2]),
    "test_fraction": st.sampled_from([0, 0.3]),
    "max_seq_len": st.integers(8, 200),
    "batch_size": st.integers(1, 99) | st.just("auto"),
    "num_epochs": st.integers(1, 99),
    "max_steps": st.integers(1, 1000),
    "learning_rate": RATES,
    "min_learning_rate": RATES,
    "lr_schedule": st.sampled_from(["constant", "cosine", "wsd"]),
    "warmup_steps": st.integers(0, 9),
    "optimizer": st.sampled_from([{"name": "sgd"}, {"name": "adamw", "betas": [0.5, 0.9]}, {"weight_decay": 0.3}]),
    "early_stopping": st.sampled_from([{"enabled": False}, {"enabled": True, "patience": 7}]),
    "gradient_clipping": st.sampled_from([None, 0.5]),
    "precision": st.sampled_from(["fp32", "bf16"]),
    "seed": st.integers(0, 9),
}
REQUESTS = st.fixed_dictionaries({"model_family": st.sampled_from(FAMILIES)}, optional=OPTIONAL)
CONTENTS: st.SearchStrategy[str] = st.sampled_from([some_text(), "мама мыла раму\n" * 9, "ab\n"])
TEXTS = st.builds(of_text, CONTENTS, st.integers(1, 10**6))


def tried(fields: Values, facts: Facts) -> Resolution | None:
    """Return what a request resolves to; None if it is refused, with the fields that are wrong."""
    try:
        return resolved(facts, **fields)
    except AppError as error:
        assert error.details
        assert {problem.path.partition(".")[0] for problem in error.details} <= TrainRequest.model_fields.keys()
        return None


def leaves(values: Values, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield all values with their paths."""
    for name, value in values.items():
        if isinstance(value, dict):
            of_block: dict[str, object] = value
            yield from leaves(of_block, f"{path}{name}.")
        else:
            yield path + name, value


def values_of(effective: EffectiveRequest) -> dict[str, object]:
    values: dict[str, object] = effective.model_dump(mode="json")
    return dict(leaves(values))


@for_all_pairs(REQUESTS, TEXTS)
def test_given_value__stays_and_a_chosen_one_is_reported(fields: dict[str, object], facts: Facts) -> None:
    found = tried(fields, facts)
    if found is None:
        return
    values, chosen = values_of(found.effective), {one.field: one.value for one in found.chosen}
    given = {path: value for path, value in leaves(fields) if value != "auto" and (path, value) != ("warmup_steps", 0)}
    assert {path: values[path] for path in given} == given
    assert {path: values[path] for path in chosen} == chosen
    assert not chosen.keys() & given.keys()


FOLLOWS = {"model_size": "model.", "tokenizer.method": "tokenizer.", "optimizer.name": "optimizer."}
"""Chosen values that other values follow from, with the beginnings of those."""


@for_all_pairs(REQUESTS, st.tuples(TEXTS, TEXTS))
def test_value__that_depends_on_the_text_is_reported(fields: dict[str, object], facts: tuple[Facts, Facts]) -> None:
    is_partial = "model" in fields and "model_size" not in fields  # whose other sizes are those of an untold preset
    one, other = (tried(fields, of) for of in facts)
    if one is None or other is None or is_partial:
        return
    before, after = values_of(one.effective), values_of(other.effective)
    told = {choice.field for found in (one, other) for choice in found.chosen}
    told |= {"model.max_position_embeddings"} if "max_seq_len" in told else set()
    follows = tuple(beginning for field, beginning in FOLLOWS.items() if field in told)
    depends = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path for path in depends - told if not path.startswith(follows)} == set()


@for_all_pairs(REQUESTS, TEXTS)
def test_resolved_request__resolves_to_itself(fields: dict[str, object], facts: Facts) -> None:
    found = tried(fields, facts)
    if found is None or found.effective.model_family == "ngram":  # which refuses the values that it does not use
        return
    of_result = {"corpus", "tokenizer_id", "tokenizer_saw_held_out", "has_auto_batch", "has_earlier_hash"}
    values: dict[str, object] = found.effective.model_dump(mode="json", exclude=of_result, exclude_none=True)
    values["gradient_clipping"] = found.effective.gradient_clipping
    values |= {} if {"warmup_steps", "warmup_ratio"} & values.keys() else {"warmup_steps": 0}
    again = resolved(facts, **values)
    assert (again.effective, again.chosen) == (found.effective, ())


@for_all_pairs(REQUESTS, TEXTS)
def test_held_out_corpora__exchanged_change_nothing_else(fields: dict[str, object], facts: Facts) -> None:
    one, other = HELD_OUT.values()
    orders = [{"validation_corpus": one, "test_corpus": other}, {"test_corpus": one, "validation_corpus": other}]
    found = [
        tried(
            fields | {field: reference.name for field, reference in held_out.items()},
            facts._replace(references={**held_out, **facts.references}),
        )
        for held_out in orders
    ]
    if found[0] is None or found[1] is None:
        assert found == [None, None]
        return
    assert found[1].effective == changed(found[0].effective, **orders[1])
    assert (found[1].chosen, found[1].notes) == (found[0].chosen, found[0].notes)
