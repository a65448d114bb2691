"""How the tests are run: with patience, as the machine may be busy and how long an example takes says nothing."""

import hypothesis

_patience: list[hypothesis.HealthCheck] = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=_patience)
hypothesis.settings.load_profile("patient")
