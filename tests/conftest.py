"""How the tests are run: with patience, as the machine may be busy and how long an example takes says nothing.

`make test` draws the same examples each time, and so covers the same lines; pytest by itself draws new ones.
"""

import hypothesis

_patience: list[hypothesis.HealthCheck] = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=_patience)
hypothesis.settings.register_profile("repeatable", hypothesis.settings.get_profile("patient"), derandomize=True)
hypothesis.settings.load_profile("patient")
