"""Verification of a run: the result of each check, and its status over HTTP."""

from trainer.contracts.base import Frozen, Identifier, JobState
from trainer.contracts.errors import RunError


class Check(Frozen):
    """The result of one check."""

    name: str
    ok: bool
    message: str
    is_skipped: bool = False
    """True if nothing was checked, because the training text of a restored run is not on this machine."""


class Verification(Frozen):
    """The results of all checks; `ok` if none of them has failed."""

    run_id: Identifier
    ok: bool
    checks: tuple[Check, ...]


class VerificationStatus(Frozen):
    """The state of a verification on a server."""

    run_id: Identifier
    status: JobState
    """queued: also while others are verified, as one run is verified at a time."""
    verification: Verification | None = None
    """The results, once it is completed."""
    error: RunError | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ("completed", "failed")
