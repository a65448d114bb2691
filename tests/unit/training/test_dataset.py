"""The ids of a corpus: right, mapped from files, made once, and made by several processes at once."""

import errno
import os
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unicodedata import normalize

import pytest

from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from tests.support.strategies import any_line_lists, rules
from tests.support.tiny_models import POEM, SMALL, integers, make_run, reference, write
from trainer.config.presets import resolve
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import EffectiveRequest, SplitSizes, TrainRequest
from trainer.data.corpus import SPLITS, Split, SplitRule, line_digests, split_labels
from trainer.data.run_corpora import CorpusPaths
from trainer.system.files import claim_folder
from trainer.training.dataset import prepare


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


def test_encoded_corpus__that_a_cleanup_removes_is_encoded_again(poem: Poem, tmp_path: Path) -> None:
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
def test_prepared_corpus__equals_plain_loops(lines: list[str], rule: SplitRule) -> None:
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
        labels = list(split_labels([line_digests("\n".join(documents).encode(), rule.seed)], rule).labels.tobytes())
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
def test_cache__with_a_deleted_file_is_written_again(poem: Poem, deleted: str) -> None:
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
