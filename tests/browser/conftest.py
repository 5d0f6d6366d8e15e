from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from looking_at import Page, look
from running import ENDED, Servers, days, released, servers  # noqa: F401  fixtures

SECONDS = 1200  # the first test waits for release 1 and the servers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def story(servers: Servers) -> Servers:  # noqa: F811
    """Release 1 by the command line, then a rollback by a worker that has nothing to go back to."""
    servers.until(servers.start("rollback", reason="to see what happens"), *ENDED)
    return servers


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the screenshots go; a person looks at them."""
    folder = tmp_path_factory.mktemp("pictures")
    yield folder
    print(f"\nscreenshots: {folder}")


@pytest.fixture
def page(pictures: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Page]:
    name = f"{request.node.path.stem}-{request.node.name}".replace("test_", "")
    return lambda address: look(address, pictures / f"{name}.png", tmp_path / "profile")
