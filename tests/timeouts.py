"""How long a test waits for what is to happen."""

#: seconds; far more than a busy machine needs, because only a test that fails waits for so long
WAIT_SECONDS = 60.0
