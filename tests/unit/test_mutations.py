"""The mutations of `make mutations` fit the source: each safeguard stands where it is to be switched off."""

import pytest

from tests.chaos.mutations import MUTATIONS, Mutation, mutated
from tests.support import ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.safeguard for mutation in MUTATIONS])
def test_mutation__changes_the_source_and_names_tests_that_are_there(mutation: Mutation) -> None:
    source = (ROOT / mutation.path).read_text(encoding="utf-8")

    compile(mutated(source, mutation), mutation.path, "exec")
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8")
