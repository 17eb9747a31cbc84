import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import consul as registries  # noqa: E402
import drover as module  # noqa: E402
import rabbitmq as servers  # noqa: E402
from proxy import Proxy  # noqa: E402


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
            if isinstance(value, servers.Vhost):
                report.sections.append(("rabbitmq-server's log", value.server.log()[-4000:]))
            if isinstance(value, registries.Agent):
                report.sections.append(("consul's log", value.log()[-4000:]))


@pytest.fixture
def drover():
    """A droverd that is configured but not started yet."""
    node = module.make()
    yield node
    node.close()


@pytest.fixture
def another():
    """A second one."""
    node = module.make()
    yield node
    node.close()


@pytest.fixture(scope="session")
def rabbitmq():
    """A rabbitmq-server for all tests: the one that `rabbitmq.py run` has started, else one of this run's own."""
    shared = os.environ.get(servers.SHARED)
    server = servers.Server(shared)
    if not shared:
        server.start(ready=False)
    try:
        yield server.wait_up()
    finally:
        server.close()


@pytest.fixture
def vhost(rabbitmq):
    """An empty virtual host of it."""
    made = rabbitmq.vhost()
    yield made
    made.close()


@pytest.fixture(scope="session")
def lone_server():
    server = servers.Server()
    try:
        yield server.start(ready=False).wait_up()
    finally:
        server.close()


@pytest.fixture
def lone(lone_server):
    """An empty virtual host of a server that no other test uses at the time: it may be stopped, killed, starved."""
    if lone_server.pid is None:
        lone_server.start(ready=False)
    made = lone_server.wait_up().vhost()
    yield made
    if lone_server.pid is None:
        lone_server.start(ready=False)
    lone_server.wait_up()
    made.close()


@pytest.fixture(scope="session")
def consul():
    """A Consul agent, a server, for all tests of a run: each names a cluster of its own."""
    agent = registries.Agent("consul", ui=True)
    try:
        yield agent.start()
    finally:
        agent.close()


@pytest.fixture
def agents():
    """Makes agents of a test's own (tests/consul.py); it starts them."""
    made = []

    def make(*arguments, **options):
        made.append(registries.Agent(*arguments, **options))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
def proxy():
    """Makes proxies in front of a port."""
    made = []

    def make(port):
        made.append(Proxy(port))
        return made[-1]

    yield make
    for p in made:
        p.close()
