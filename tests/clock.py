"""A clock that a test turns."""


class Clock:
    """Unix seconds that pass when the test says so."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    async def shared(self) -> float:
        """As the clock that all processes of a database have in common."""
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds
