import pytest


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def direct():
    """The writer's thread, where there is only one thread."""
    return lambda work: work()
