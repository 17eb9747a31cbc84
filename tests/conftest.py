import os
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import drover as module  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out of the runs under sanitizers")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for value in item.funcargs.values():
            if isinstance(value, module.Drover):
                report.sections.append(("droverd's log", value.log()[-12000:]))


def make_node():
    # Not below pytest's own directories: handlers must not lie where others can write, and sockets have short names.
    base = Path(os.environ.get("DROVER_TEST_DIR", "/run" if os.geteuid() == 0 else tempfile.gettempdir()))
    directory = tempfile.mkdtemp(prefix="drover-test.", dir=base)
    os.chmod(directory, 0o755)
    return module.Drover(directory, uuid.uuid4().hex)


@pytest.fixture
def drover():
    """A droverd that is configured but not started yet."""
    node = make_node()
    yield node
    node.close()


@pytest.fixture
def another():
    """A second one."""
    node = make_node()
    yield node
    node.close()
