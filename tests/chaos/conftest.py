"""What chaos tests share: the queue on either broker, and the crowd that is to be greeted."""

import pytest

from tests.support.chaos import POSTGRES, RABBITMQ, Crowd


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs run without coverage, which slows their starts down by half: end-to-end tests run the same code."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(params=[POSTGRES, RABBITMQ])
def queue_url(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of a virtual host of its own, or None for the queue in PostgreSQL: each test runs on both."""
    if request.param == POSTGRES:
        return None
    url: str = request.getfixturevalue("rabbitmq_url")
    return url


@pytest.fixture
def crowd(database_url: str) -> Crowd:
    """Return the users of the test's own database: nobody yet."""
    return Crowd(database_url)
