"""What holds for every test, whoever runs it on whatever machine."""

import signal

from hypothesis import HealthCheck, settings

from rapidd.engine.openmp import bound_spinning

# How long an example takes says how busy the machine is; and the same tests pass or fail on every run.
settings.register_profile("any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A team of threads that spins at its barriers keeps the processor from the very thread that it waits for, wherever
# others run too: with six processes on two cores the soak took four minutes instead of 20 s. Engines see to that
# themselves; this is for torch in the tests' own process.
bound_spinning()

# `nohup` and a shell's `&` start programs that ignore these; so would what the tests start, and the tests themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
