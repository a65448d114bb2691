"""The operation that verifies a run."""

import secrets

from aiohttp import web

from trainer.contracts.verification import VerificationStatus
from trainer.http.operations import ApiRequest, NoBody, Operation, ResponseSpec, RunPath, WaitQuery, operation
from trainer.http.waiting import reply_at_end


async def verify_run(call: ApiRequest[RunPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Check every file of a run against its recorded hash, and with `wait` answer at the end or after this time.

    A request with the same Idempotency-Key asks for the same verification, whose result is kept for ten minutes.
    """
    run = await call.api.run(call.client, call.path.run_id)
    verifications, verification_id = call.api.verifications, call.request_id or secrets.token_hex(16)
    if not verifications.is_started(verification_id):
        with call.api.limits.request(call.client.caller):
            verifications.start(verification_id, run.run_id)
    return await reply_at_end(call, lambda: verifications.status(verification_id, run.run_id))


OPERATIONS: tuple[Operation, ...] = (
    operation(
        "POST /runs/{run_id}/verify",
        verify_run,
        {200: ResponseSpec("The status: at the end, or after the time to wait", VerificationStatus)},
        tag="runs",
        query_example={"wait": "60"},
    ),
)
