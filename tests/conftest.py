"""Settings of all tests."""

import signal

from hypothesis import settings

# examples have no time limit: tests do not judge speed, and machines differ
settings.register_profile("towtank", deadline=None)
settings.load_profile("towtank")

# a job that a shell put into the background ignores Ctrl-C, and so would all that tests start and interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
