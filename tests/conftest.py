"""Settings of all tests: one thread a process, as tests run beside each other, and the profiles of hypothesis.

The profiles `quick` and `repeatable` draw the same examples in each run, `patient` draws new ones.
"""

import os
import signal

import hypothesis

from tests.support.lab import lab_fixture

__all__ = ["lab_fixture"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it, and children inherit that

_SUPPRESSED: list[hypothesis.HealthCheck] = [hypothesis.HealthCheck.too_slow]
# a busy machine says nothing about an example, so there is no deadline
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=_SUPPRESSED)
_PATIENT = hypothesis.settings.get_profile("patient")
hypothesis.settings.register_profile("repeatable", _PATIENT, derandomize=True)
hypothesis.settings.register_profile("quick", _PATIENT, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("patient")
