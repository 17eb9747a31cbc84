import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


import rig as rigs  # noqa: E402

# Before anything else of this process: what it starts is to be in its network.
rigs.enter()


def make(acl):
    made = rigs.Rig(acl=acl)
    try:
        yield made.open()
    finally:
        made.close()


@pytest.fixture(scope="session")
def hosts():
    yield from make(False)


@pytest.fixture(scope="session")
def guarded_hosts():
    """The same with ACLs: whoever has no token may nothing."""
    yield from make(True)


def on(hosts):
    try:
        yield hosts.make_cluster()
    finally:
        hosts.end_cluster()


@pytest.fixture
def rig(hosts):
    """Three hosts with Consul and RabbitMQ, and a cluster of a name of its own for the test to configure and start."""
    yield from on(hosts)


@pytest.fixture
def guarded(guarded_hosts):
    yield from on(guarded_hosts)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for value in item.funcargs.values():
            if isinstance(value, rigs.Rig):
                report.sections.append(("the nodes' logs", value.logs()))
