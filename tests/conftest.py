"""Settings of all tests."""

from hypothesis import settings

# examples have no time limit: tests do not judge speed, and machines differ
settings.register_profile("towtank", deadline=None)
settings.load_profile("towtank")
