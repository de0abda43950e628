"""Hypothesis profiles: `ci` repeats the same examples each time; HYPOTHESIS_PROFILE=dev draws more and new ones."""

import os

from hypothesis import HealthCheck, settings

# No deadline, and slowness is no fault: the first example of a signature waits for Numba to compile it.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}

settings.register_profile("ci", max_examples=60, derandomize=True, database=None, **COMMON)
settings.register_profile("dev", max_examples=500, print_blob=True, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
