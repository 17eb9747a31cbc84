"""What is made on RabbitMQ, what is left as it is, and what is said about it."""

import concurrent.futures

import pytest

from drover import wait
from test_rabbitmq import SCRIPTED, configure, declared, scripted

RUNGS = {f"drover.retry.{250 << i}" for i in range(3)}
SHORT = 'retry = { first = "250ms"; cap = "1s"; };'


def start(drover, vhost, rows="", **settings):
    """No handler: nobody consumes."""
    configure(drover, vhost, f'{{ type = "job"; {SHORT} {rows} }}', **settings)
    drover.start()
    drover.wait_broker("up")


def management(vhost):
    return {"management": f'"http://127.0.0.1:{vhost.server.management_port}"'}


def said(drover, *arguments):
    return drover.ctl("declare", *arguments).stdout


def test_the_ladder_ends_where_delays_do(drover, vhost):
    start(drover, vhost)
    wait(lambda: RUNGS <= set(vhost.queues()), "the ladder is there")
    said(drover)
    assert {name for name in vhost.queues() if name.startswith("drover.")} == RUNGS
    rung = vhost.queue("drover.retry.250")
    assert rung["type"] == "quorum" and rung["arguments"]["x-dead-letter-strategy"] == "at-least-once"


def test_an_exclusive_queue_has_a_single_active_consumer(drover, vhost):
    start(drover, vhost, "exclusive = true;")
    declared(vhost, "job")
    assert vhost.queue("job")["arguments"]["x-single-active-consumer"] is True
    wait(lambda: vhost.queue("job.dead"), "the dead letters' queue is there")
    assert "x-single-active-consumer" not in vhost.queue("job.dead")["arguments"]


def test_a_rung_of_another_make_is_refused(drover, vhost):
    vhost.channel.exchange_declare("drover.retry.500", "fanout", durable=True)
    vhost.channel.queue_declare("drover.retry.500", durable=True, arguments={"x-dead-letter-exchange": "elsewhere"})
    start(drover, vhost)
    refused = drover.ctl("declare", check=False)
    assert refused.returncode and "drover.retry.500" in refused.stderr and "retry_queue" in refused.stderr, refused
    vhost.delete_queue("drover.retry.500")
    said(drover)
    assert vhost.queue("drover.retry.500")["type"] == "quorum"


def test_a_classic_rung_serves_with_a_warning(drover, vhost):
    vhost.channel.exchange_declare("drover.retry.250", "fanout", durable=True)
    vhost.channel.queue_declare("drover.retry.250", durable=True, arguments={"x-dead-letter-exchange": ""})
    scripted(drover, vhost, "max_attempts = 3;")
    declared(vhost, "job")
    drover.wait_log("drover.retry.250 is a classic queue")
    vhost.event("job", b"third", id="third")
    drover.wait_type("job", lambda t: t["totals"]["done"] == 1, "comes back")


def test_who_may_make_nothing_uses_what_is_there(drover, vhost):
    start(drover, vhost)
    wait(lambda: RUNGS <= set(vhost.queues()), "everything was made by somebody who may")
    declared(vhost, "job")
    drover.stop()
    vhost.server.allow("guest", vhost.name, configure="^$")
    start(drover, vhost)
    assert "cannot be compared" in said(drover)


def test_the_missing_permission_is_said(drover, vhost):
    vhost.server.allow("guest", vhost.name, configure="^drover")
    start(drover, vhost)
    refused = drover.ctl("declare", check=False)
    assert refused.returncode and "configure" in refused.stderr and "job" in refused.stderr, refused
    vhost.server.allow("guest", vhost.name, write="^$")
    refused = drover.ctl("declare", check=False)
    assert refused.returncode and "write" in refused.stderr, refused
    vhost.server.allow("guest", vhost.name)
    said(drover)


def test_many_declare_at_once(drover, vhost):
    start(drover, vhost, queue_type='"quorum"')
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: said(drover), range(4))) == [said(drover)] * 4
    declared(vhost, "job")


def test_limits_of_others_are_warned_of(drover, vhost):
    vhost.channel.queue_declare("job", durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3})
    start(drover, vhost, 'max_attempts = 9; timeout = "40m";', queue_type='"quorum"', **management(vhost))
    shown = said(drover)
    assert "delivery limit of 3" in shown and "max_attempts = 9" in shown, shown
    assert "2400 s" in shown and "1800 s" in shown, shown


def test_bindings_are_compared_where_they_can_be(drover, vhost):
    start(drover, vhost, **management(vhost))
    declared(vhost, "job")
    wait(lambda: RUNGS <= set(vhost.queues()), "all is made")
    assert "would" not in said(drover, "--dry-run")
    vhost.channel.queue_bind("job", "drover", "more")
    vhost.channel.queue_unbind("job", "drover", "job")
    shown = said(drover, "--dry-run")
    assert "would bind queue job to job" in shown and "also takes more" in shown, shown
    assert vhost.bindings("job") == {("drover", "more")}


def depth(drover):
    return drover.type("job")["ready"]


@pytest.mark.parametrize("kind, settings, known", [("classic", {}, True), ("quorum", {}, False), ("quorum", "api", True)])
def test_zero_is_told_from_unknown(drover, vhost, kind, settings, known):
    extra = {**management(vhost), "depths": '"management"'} if settings else settings
    start(drover, vhost, queue_type=f'"{kind}"', **extra)
    declared(vhost, "job")
    if known:
        wait(lambda: depth(drover) == 0, lambda: f"it is known to be empty: {drover.type('job')}")
    else:
        drover.wait_log("cannot be told")
        assert depth(drover) != 0
    vhost.event("job", id="a")
    wait(lambda: depth(drover) == 1, "what came is known")


def test_an_empty_queue_of_others_is_empty(drover, vhost):
    vhost.channel.queue_declare("job", durable=True)
    start(drover, vhost, 'declare = "none"; dead_letter = "broker";')
    wait(lambda: depth(drover) == 0, "it is known to be empty")
    vhost.delete_queue("job")
    wait(lambda: depth(drover) != 0, "it is not known")
    drover.wait_log("no queue 'job'")
    assert vhost.queue("job") is None


def test_without_statistics_amqp_is_asked(drover, vhost):
    start(drover, vhost, depths='"management"', management='"http://127.0.0.1:9"', queue_type='"quorum"')
    declared(vhost, "job")
    drover.wait_log("the management API is of no use")
    vhost.event("job", id="a")
    wait(lambda: depth(drover) == 1, "what came is known")
