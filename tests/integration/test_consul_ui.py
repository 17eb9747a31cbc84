"""What an operator sees in Consul's UI: a real agent's, looked at with a real browser. Screenshots are kept as artifacts."""

import pytest
from browser import Browser
from drover import wait
from handlers import LEDGER, ledger_type

REFUSED = "int not_a_handler;\n"
TYPES = ("order.paid", "mail.queued", "report.daily", "invoice.sent")


@pytest.fixture
def browser():
    made = Browser(1280, 1480)
    yield made
    made.close()


@pytest.fixture
def shop(drover, agents):
    """A node with a type that is busy, one that rests, one that is paused and one whose handler is refused."""
    agent = agents("web1", ui=True).start()
    busy, _ = ledger_type("order.paid", drover.directory, max=2, objective='"2s"', timeout='"10m"', sleep_ms=300000)
    idle, _ = ledger_type("mail.queued", drover.directory)
    drover.configure(f"""
        registry = {{ plugin = "consul"; address = "{agent.http_address}"; }};
        types = ( {busy}, {idle}, {{ type = "report.daily"; }} );""", node='"web1"', weight=4)
    for name in ("order.paid", "mail.queued"):
        drover.handler(f"{name}.so", LEDGER)
    drover.handler("invoice.sent.so", REFUSED)
    drover.handler("report.daily", "#!/bin/sh\ncat >/dev/null\n")
    drover.start()
    drover.agent = agent
    drover.wait_type("invoice.sent", lambda t: t["refused"], "is refused")
    drover.ctl("pause", "report.daily", "--note", "the disk is full")
    yield drover
    if drover.process.poll() is None:
        # What is at work is not waited for.
        drover.process.terminate()
        drover.wait_log("stopping; busy workers")
        drover.process.terminate()


def check_page(agent):
    return f"{agent.url}/ui/dc1/services/drover/instances/web1/drover-web1/health-checks"


def output(agent, type_):
    return next((c["Output"] for c in agent.checks().values() if c["CheckID"].endswith(f"type:{type_}")), "")


def test_a_node_in_the_ui(shop, browser):
    agent = shop.agent
    shop.publish_many("order.paid", 40)
    shop.wait_type("order.paid", lambda t: t["workers"]["busy"] == 2, "is busy")
    wait(lambda: "the objective is 2" in output(agent, "order.paid"), lambda: f"it is behind: {output(agent, 'order.paid')}", 120)
    browser.open(f"{agent.url}/ui/dc1/services")
    text = browser.wait_text("drover", "leader", "order.paid")
    assert "consul" in text and "1 instance" in text
    browser.screenshot("services", height=640)
    browser.open(f"{agent.url}/ui/dc1/services/drover/instances")
    # A type that is refused is nothing that it serves.
    text = browser.wait_text("drover-web1", "leader", "order.paid", "mail.queued", "report.daily")
    assert "invoice.sent" not in text
    browser.screenshot("instances", height=640)
    # It is said what is the matter…
    for type_, word in (("order.paid", "the objective is 2.0 s"), ("mail.queued", "idle"), ("report.daily", "paused"),
                        ("invoice.sent", "refused")):
        wait(lambda: word in output(agent, type_), lambda: f"{type_} is {word}: {output(agent, type_)}", 90)
    # … and all that each check says is shown, word for word as Consul has it then.
    browser.open(check_page(agent))
    browser.wait_text("alive", "broker main", *(f"type {name}" for name in TYPES))

    def missing():
        text = browser.text()
        return [check["Output"] for check in agent.checks().values() if check["Output"] not in text]

    wait(lambda: not missing(), lambda: f"{missing()} is shown:\n{browser.text()}", 90, every=0.1)
    text = browser.text()
    assert "the disk is full" not in text
    browser.screenshot("checks", height=1024)  # docs/images/consul-ui.png is one of these
    browser.click("Tags & Meta")
    browser.wait_text(*(text for pair in agent.services()["drover-web1"]["Meta"].items() for text in pair))
    browser.screenshot("metadata", height=640)


def test_the_ui_follows(shop, browser):
    """A colour that changes is seen without the page being loaded again; so is the node's end."""
    agent = shop.agent
    browser.open(check_page(agent))
    browser.wait_text("type report.daily", "paused")
    shop.ctl("resume", "report.daily")
    wait(lambda: "paused" not in browser.text(), lambda: f"it is not paused any more:\n{browser.text()}", 90)
    agent.maintenance("drover-web1", True, "a new disk")
    browser.wait_text("a new disk")
    browser.screenshot("maintenance")
    agent.maintenance("drover-web1", False)
    browser.open(f"{agent.url}/ui/dc1/services")
    browser.wait_text("drover")
    shop.process.terminate()
    wait(lambda: "drover" not in browser.text(), lambda: f"it is gone:\n{browser.text()}", 90)
