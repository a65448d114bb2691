"""Digests of lines by one process and by two: the same, in the order of the lines, or an error."""

import sys
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from trainer.data.line_digests import write_digests


def written(blocks: list[list[bytes]], seed: int) -> bytes:
    with TemporaryFile() as file:
        write_digests(map(b"\n".join, blocks), seed, file)
        return file.read()


def digests_one_by_one(blocks: list[list[bytes]], seed: int) -> bytes:
    key = seed.to_bytes(8, "little")
    return b"".join(blake2b(line, key=key, digest_size=8).digest() for block in blocks for line in block)


@for_all_pairs(
    st.lists(st.lists(st.binary().map(lambda line: line.replace(b"\n", b"")), min_size=1), max_size=9),
    st.integers(0, 2**32 - 1),
)
def test_digests__are_keyed_hashes_of_the_lines(blocks: list[list[bytes]], seed: int) -> None:
    assert written(blocks, seed) == digests_one_by_one(blocks, seed)


@pytest.mark.process
def test_digests__of_many_blocks_are_the_same_by_two_processes() -> None:
    lines = [[b"%d %d" % (block, line) * (line % 50) for line in range(block % 300 + 1)] for block in range(1500)]
    large = [[b"a" * size] for size in (0, 1 << 20, 3, 1 << 22)] * 20

    for blocks in (lines, large):
        assert written(blocks, 7) == digests_one_by_one(blocks, 7)


@pytest.mark.process
def test_digests__of_a_process_that_fails_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))

    with pytest.raises(ChildProcessError, match="exit code 3"):
        written([[b"a" * 1000]] * 500, 7)
