from pathlib import Path

import pytest
from running import days, released, servers  # noqa: F401  fixtures

SECONDS = 1200  # the first test waits for release 1 and the servers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.stack)
            item.add_marker(pytest.mark.timeout(SECONDS))
