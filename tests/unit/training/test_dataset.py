"""The ids of a corpus, made once and mapped from files, and their rows with targets, masks and readers."""

import errno
import os
import shutil
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.families import CHAR_IDS, VOCABULARY, effective_of, vocabulary
from tests.support.properties import for_all_pairs
from tests.support.reference import rows_by_hand
from tests.support.refusals import refused
from tests.support.strategies import any_line_lists, rules
from tests.support.tiny_models import (
    POEM,
    SMALL,
    char_tokenizer,
    integers,
    make_run,
    reference,
    tensor_of,
    write,
)
from trainer.config.presets import resolve
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import EffectiveRequest, SplitSizes, TrainRequest
from trainer.data.corpus import SPLITS, Split, SplitRule, line_digests, split_labels
from trainer.system.files import claim_folder
from trainer.tokenizers.base import Ids
from trainer.training.batches import NO_TARGET, BatchReader, Masking, Rows, epoch_order, id_chunks, masking
from trainer.training.dataset import CorpusPaths, prepare


def resolved(paths: CorpusPaths, **values: object) -> EffectiveRequest:
    request = parse(TrainRequest, {**SMALL, "corpus": paths.corpus.name, **values})
    return resolve(
        request,
        corpus=reference(paths.corpus),
        validation_corpus=None if paths.validation is None else reference(paths.validation),
        test_corpus=None if paths.test is None else reference(paths.test),
    )


class Poem(NamedTuple):
    """A text, and where it is encoded."""

    paths: CorpusPaths
    cache: Path

    def prepare(self, **values: object) -> dict[Split, list[int]]:
        _, corpus = prepare(resolved(self.paths, **values), self.paths, self.cache)
        return {split: integers(ids) for split, ids in corpus.ids.items()}

    def folder(self) -> Path:
        [folder] = [path for path in self.cache.iterdir() if path.is_dir()]
        return folder


@pytest.fixture(name="poem")
def poem_fixture(tmp_path: Path) -> Poem:
    return Poem(CorpusPaths(write(tmp_path, POEM)), tmp_path / "cache")


def test_split_seed__draws_the_splits_and_the_seed_does_not(poem: Poem) -> None:
    def test_split(**seeds: int) -> tuple[int, ...]:
        return tuple(poem.prepare(test_fraction=0.3, **seeds)["test"])

    assert test_split(seed=1) == test_split(seed=2)
    assert len({test_split(split_seed=seed) for seed in range(5)}) > 1


def test_encoded_corpus__is_in_use_until_its_ids_are_not(tmp_path: Path) -> None:
    run = make_run(tmp_path, POEM)
    assert {type(ids).__name__ for ids in run.corpus.ids.values()} == {"memmap"}
    [folder] = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    os.utime(folder, (0, 0))
    _, corpus = prepare(run.effective, CorpusPaths(tmp_path / "corpus.txt"), tmp_path / "cache", run.tokenizer)
    assert time.time() - folder.stat().st_mtime < 3600
    assert claim_folder(folder) is None
    del run, corpus
    claim = claim_folder(folder)
    assert claim is not None
    os.close(claim)


def test_encoded_corpus__that_a_cleanup_removes_just_now_is_made_again(poem: Poem, tmp_path: Path) -> None:
    expected, folder = poem.prepare(), poem.folder()
    claim = claim_folder(folder)
    assert claim is not None
    with ThreadPoolExecutor(1) as pool:
        preparing = pool.submit(poem.prepare)
        folder.rename(tmp_path / "trash")
        os.close(claim)
        assert preparing.result() == expected
    assert folder.exists()


@for_all_pairs(any_line_lists, rules)
def test_prepared_corpus__is_that_of_plain_loops(lines: list[str], rule: SplitRule) -> None:
    content = "\n".join([*lines, *POEM])
    documents = [normalize("NFC", line.removesuffix("\r")) for line in content.split("\n")]
    documents = [line for line in documents if line.strip()]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.txt"
        path.write_bytes(content.encode())
        paths = CorpusPaths(path)
        effective = resolved(
            paths,
            holdout_fraction=rule.holdout_fraction,
            test_fraction=rule.test_fraction,
            split_seed=rule.seed,
            split_by=rule.by,
            tokenizer={"method": "char", "min_frequency": 2},
        )
        tokenizer, corpus = prepare(effective, paths, Path(folder) / "cache")
        labels = list(split_labels([line_digests("\n".join(documents).encode(), rule.seed)], rule).tobytes())
        if rule.by == "position":
            labels = [SPLITS.index(split) for split, sizes in corpus.sizes.items() for _ in range(sizes.lines)]
        counts = Counter(chain.from_iterable(line for line, label in zip(documents, labels, strict=True) if label == 0))
        vocabulary = {c: i for i, c in enumerate(sorted(c for c, n in counts.items() if n > 1), 4)}
        assert tokenizer.names[4:] == list(vocabulary)
        for split, ids in corpus.ids.items():
            of_split = [line for line, label in zip(documents, labels, strict=True) if SPLITS[label] == split]
            expected = [i for line in of_split for i in (2, *(vocabulary.get(c, 1) for c in line), 3)]
            assert integers(ids) == expected
            assert corpus.words[split] == sum(len(line.split()) for line in of_split)
            assert changed(corpus.sizes[split], leak=None) == SplitSizes(
                lines=len(of_split),
                chars=sum(map(len, of_split)),
                tokens=len(expected) - len(of_split),
                unknown_tokens=expected.count(1),
                unknown_chars=expected.count(1),
                bytes=sum(len(line.encode()) for line in of_split),
            )


def test_cache__is_used_again_for_the_same_and_not_for_another(poem: Poem) -> None:
    paths, cache = poem.paths, poem.cache
    tokenizer, _ = prepare(resolved(paths), paths, cache)
    folder = poem.folder()
    made = folder.stat().st_ino
    poem.prepare(num_epochs=9)
    prepare(resolved(paths), paths, cache, tokenizer)
    assert [(f.name, f.stat().st_ino) for f in cache.iterdir()] == [(folder.name, made)]
    poem.prepare(split_seed=1)
    poem.prepare(test_fraction=0.3)
    poem.prepare(tokenizer={"method": "char", "min_frequency": 3})
    prepare(resolved(paths, split_by="position"), paths, cache, tokenizer)
    assert len(list(cache.iterdir())) == 5


def test_cache__is_filled_by_many_at_once(poem: Poem, tmp_path: Path) -> None:
    write(tmp_path, POEM * 50)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: poem.prepare(), range(6)))
    assert all(ids == found[0] for ids in found)
    assert len(list(poem.cache.iterdir())) == 1


@pytest.mark.parametrize("deleted", ["content.json", "train.bin", "*"])
def test_cache__of_which_something_was_deleted_is_made_again(poem: Poem, deleted: str) -> None:
    expected, folder = poem.prepare(), poem.folder()
    for file in folder.glob(deleted):
        file.unlink()
    if deleted == "*":
        folder.rmdir()
    assert poem.prepare() == expected
    assert list(poem.cache.iterdir()) == [folder]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOTEMPTY])
def test_cache__appears_complete_once_or_not_at_all(poem: Poem, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fails(self: Path, target: Path) -> None:
        if number == errno.ENOTEMPTY:  # another process was first
            shutil.copytree(self, target)
        raise OSError(number, "failed", str(target))

    monkeypatch.setattr(Path, "rename", fails)
    if number == errno.ENOTEMPTY:
        assert len(poem.prepare()["train"]) > 0
        assert not poem.folder().name.startswith(".tmp")
    else:
        with pytest.raises(OSError, match="failed"):
            poem.prepare()
        assert list(poem.cache.iterdir()) == []


def test_given_texts__are_validation_and_test(tmp_path: Path) -> None:
    paths = CorpusPaths(write(tmp_path, POEM), write(tmp_path, ["the sea"], "v.txt"), write(tmp_path, ["xyz"], "t.txt"))
    tokenizer, corpus = prepare(resolved(paths), paths, tmp_path / "cache")
    assert corpus.sizes["train"].lines == len(POEM)
    assert integers(corpus.ids["validation"]) == [2, *tokenizer.encode("the sea"), 3]
    assert corpus.sizes["test"].chars == 3
    assert tokenizer.manifest.stats.holdout_lines == 1


def test_changed_corpus__is_refused(poem: Poem, tmp_path: Path) -> None:
    effective = resolved(poem.paths)
    write(tmp_path, POEM[:-1])
    with refused(ErrorCode.DATA_NOT_FOUND, "'corpus.txt' has changed"):
        prepare(effective, poem.paths, poem.cache)


def test_long_text__is_encoded_in_blocks_without_a_seam(tmp_path: Path) -> None:
    lines = [f"{i} " + "é" * 300_000 for i in range(30)]
    run = make_run(tmp_path, lines, test_fraction=0.2, holdout_fraction=0.1)
    assert sum(sizes.chars for sizes in run.corpus.sizes.values()) == sum(len(line) for line in lines)
    assert sum(run.corpus.words.values()) == 60
    written = {split: integers(ids) for split, ids in run.corpus.ids.items()}
    expected = run.tokenizer.encode_documents("\n".join(lines)).tobytes()
    assert sorted(chain.from_iterable(written.values())) == sorted(expected)


TOKENIZER = char_tokenizer(["abcd"])


def rows_of(lines: list[str], length: int) -> Rows:
    return Rows(TOKENIZER.encode_documents("\n".join(lines)), length, TOKENIZER.special_ids)


@for_all_pairs(
    st.lists(st.text("abcd!", min_size=1, max_size=30), min_size=1, max_size=12), st.sampled_from([1, 2, 3, 7, 30, 100])
)
def test_rows__are_those_cut_by_hand(lines: list[str], length: int) -> None:
    by_hand, rows = rows_by_hand([TOKENIZER.encode(line) for line in lines], length), rows_of(lines, length)
    batch = rows.batch(np.arange(len(rows)))
    inputs: list[list[int]] = batch.inputs.tolist()
    targets: list[list[int]] = batch.targets.tolist()
    for read, predicted, pairs in zip(inputs, targets, by_hand, strict=True):
        padding = [NO_TARGET] * (length - len(pairs))
        assert read[: len(pairs)] == [token for token, _ in pairs]
        assert predicted == [NO_TARGET if t is None else t for _, t in pairs] + padding
    assert batch.tokens == sum(len(line) + 1 for line in lines)


def test_order__is_a_permutation_by_pcg64_of_seed_and_epoch() -> None:
    for rows in (1, 2, 1000):
        expected = np.random.Generator(np.random.PCG64([7, 3])).permutation(rows)
        assert np.array_equal(epoch_order(rows, 7, 3), expected)
    assert len({epoch_order(50, seed, epoch).tobytes() for seed, epoch in ((1, 0), (1, 1), (2, 0))}) == 3


LENGTH = 64
ROWS = np.arange(500)


def stream() -> Ids:
    """Lines of text and special tokens, as a tokenizer gives them."""
    generator = np.random.Generator(np.random.PCG64(1))
    ids: NDArray[np.uint8] = generator.integers(5, 13, size=len(ROWS) * LENGTH + 1).astype(np.uint8)
    ids[generator.random(len(ids)) < 0.1] = 3
    ids[generator.random(len(ids)) < 0.05] = 1
    return ids


def masked_rows(probability: float = 0.15, *, seed: int = 1) -> Rows:
    return Rows(stream(), LENGTH, CHAR_IDS, Masking(VOCABULARY, 4, probability, seed))


PLAIN = Rows(stream(), LENGTH, CHAR_IDS)
READS = [(0, 0), (0, 6), (0, 30), (1, 0), (4, 12)]
"""Epochs and positions: the next step, one that was not prepared, and the steps of other epochs."""


@pytest.mark.parametrize(
    "rows", [rows_of(["abc" * n for n in range(1, 60)], 7), masked_rows()], ids=["plain", "masked"]
)
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reader__gives_the_rows_of_a_step_with_any_number_of_threads(rows: Rows, workers: int) -> None:
    """Rows are masked by the number of the epoch; threads that prepare batches end with the reader."""
    before = set(threading.enumerate())
    with closing(BatchReader(rows, batch_size=4, batches_per_step=2, seed=3, workers=workers)) as batches:
        for epoch, position in READS:
            order = epoch_order(len(rows), 3, epoch)[position : position + 8]
            for batch, start in zip(batches.read(epoch, position), range(0, 8, 4), strict=True):
                expected = rows.batch(order[start : start + 4], epoch + 1)
                assert torch.equal(batch.inputs, expected.inputs) and torch.equal(batch.targets, expected.targets)
                assert batch.tokens == expected.tokens
        [last] = batches.read(0, len(rows) - 3)
        assert len(last.inputs) == 3, "an epoch ends with the rows that are left"
        assert min(workers, 1) <= len(set(threading.enumerate()) - before) <= workers
    assert set(threading.enumerate()) <= before


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how much of a mapped file is in memory")
def test_mapped_ids__that_were_read_do_not_stay_in_this_process(tmp_path: Path) -> None:
    megabytes = 256
    path = tmp_path / "ids.bin"
    with path.open("wb") as file:
        file.truncate(megabytes * 2**20)
    ids: Ids = np.memmap(path, np.uint8, "r")
    before, most = mapped_megabytes(), 0
    for piece in id_chunks(ids):
        assert not np.any(piece[::4096])
        most = max(most, mapped_megabytes())
    assert most - before < megabytes / 4
    # a row of every 64 KiB: the system maps as much for a byte
    Rows(ids, 8, TOKENIZER.special_ids).batch(np.arange(megabytes * 16) * 2**13)
    assert max(most, mapped_megabytes()) - before < megabytes / 4


def mapped_megabytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("RssFile:")[1].split()[0]) // 1024


def test_masking__chooses_and_replaces_at_the_rates_of_the_paper() -> None:
    batch, original = masked_rows().batch(ROWS), PLAIN.batch(ROWS).inputs
    inputs, targets = batch.inputs, batch.targets
    chosen, ordinary = targets != NO_TARGET, original > 4
    assert torch.equal(targets[chosen], original[chosen])
    assert torch.equal(inputs[~chosen], original[~chosen])
    assert not bool((chosen & ~ordinary).any())
    assert batch.tokens == int(chosen.sum())
    assert float(chosen.sum() / ordinary.sum()) == pytest.approx(0.15, abs=0.01)
    is_mask, is_kept = inputs[chosen] == 4, inputs[chosen] == original[chosen]
    assert float(is_mask.float().mean()) == pytest.approx(0.8, abs=0.02)
    # of 10 % random tokens an eighth is the original one
    assert float(is_kept.float().mean()) == pytest.approx(0.1 + 0.1 / 8, abs=0.02)
    assert set(integers(inputs[chosen])) == set(range(4, 13))


@pytest.mark.parametrize("probability", [0.0, 0.01])
def test_masking__has_one_position_at_least_in_every_row_that_has_text(probability: float) -> None:
    targets = masked_rows(probability).batch(ROWS).targets
    assert int((targets != NO_TARGET).sum(dim=1).min()) == 1


def test_masking__with_certainty_masks_all_but_special_tokens() -> None:
    assert torch.equal(masked_rows(1.0).batch(ROWS).targets != NO_TARGET, PLAIN.batch(ROWS).inputs > 4)
    ids: NDArray[np.uint8] = np.full(12, 3, dtype=np.uint8)
    special = Rows(ids, 8, CHAR_IDS, Masking(VOCABULARY, 4, 0.5, 1)).batch(ROWS[:2])
    assert special.tokens == 0
    assert bool((special.targets == NO_TARGET).all())


def test_masking__follows_from_seed_row_and_draw_and_not_from_the_batch() -> None:
    rows = masked_rows()
    whole = rows.batch(ROWS[:8], 3)
    parts = [rows.batch(ROWS[i : i + 1], 3) for i in range(8)]
    assert torch.equal(whole.inputs, torch.cat([part.inputs for part in parts]))
    assert torch.equal(whole.targets, torch.cat([part.targets for part in parts]))
    assert not torch.equal(whole.targets, rows.batch(ROWS[:8], 4).targets)
    assert not torch.equal(whole.targets, masked_rows(seed=2).batch(ROWS[:8], 3).targets)


def test_lengths__are_given_for_batches_with_padding_only() -> None:
    rows = Rows(stream()[: LENGTH + 9], LENGTH, CHAR_IDS)
    assert rows.batch(ROWS[:1]).lengths is None
    lengths = rows.batch(ROWS[:2]).lengths
    assert lengths is not None
    assert torch.equal(lengths, tensor_of([[LENGTH, 9]])[0])


def test_objective__decides_whether_rows_are_masked() -> None:
    assert masking(effective_of("gpt2"), VOCABULARY, 42) is None
    assert isinstance(masking(effective_of("bert"), VOCABULARY, 42), Masking)
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "mask token"):
        masking(effective_of("bert"), vocabulary(13), 42)
