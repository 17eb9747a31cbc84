import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import service as services  # noqa: E402


@pytest.fixture(scope="session")
def debs():
    yield from services.debs()


@pytest.fixture
def machine():
    """A container without Drover."""
    with services.machine() as made:
        yield made


@pytest.fixture(scope="module")
def host(debs):
    """A container with Drover, for all tests of a file."""
    with services.machine() as made:
        services.install(made, debs)
        yield made


@pytest.fixture(scope="module")
def installed(host):
    return services.Service(host)


@pytest.fixture
def service(installed):
    """Drover as after the installation, but stopped."""
    installed.reset()
    yield installed
    installed.close()
