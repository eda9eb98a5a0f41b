import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# helper modules of these tests live beside them
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a real PostgreSQL, started for these tests."""
    import server

    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    try:
        running = server.running()
        url = running.__enter__()
    except server.NoServerError as error:
        pytest.skip(str(error))
    yield url
    running.__exit__(None, None, None)
