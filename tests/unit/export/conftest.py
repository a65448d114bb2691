"""A copy of a finished run for the tests of exports."""

from tests.support.run_shell import finished_copy_fixture

__all__ = ["finished_copy_fixture"]
