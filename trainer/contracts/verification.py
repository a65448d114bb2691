"""Verification of a run: the result of each check, and its status over HTTP."""

from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.job_status import JobPage, JobStatus


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


class VerificationStatus(JobStatus):
    """The state of a verification on a server."""

    verification_id: Identifier
    run_id: Identifier
    verification: Verification | None = None
    """The results, once it is completed."""


class VerificationList(JobPage):
    verifications: tuple[VerificationStatus, ...]
