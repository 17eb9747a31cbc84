"""An unchanged consumer on RabbitMQ: a script with pika that knows nothing of Drover, sized by its queue, and nothing lost."""

import json
from pathlib import Path

from drover import alive, wait

# As such scripts are: it connects by itself, takes a few ahead, and at SIGTERM finishes what it has in hand.
SCRIPT = """#!/usr/bin/python3
import os, signal, time
import pika

told = False


def tell(signo, frame):
    global told
    told = True


signal.signal(signal.SIGTERM, tell)
out = os.open(os.environ["OUT"], os.O_WRONLY | os.O_APPEND)
os.write(out, f"began {os.getpid()}\\n".encode())
connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.basic_qos(prefetch_count=5)
for method, properties, body in channel.consume(os.environ["QUEUE"], inactivity_timeout=0.1):
    if method:
        time.sleep(float(os.environ["SECONDS"]))
        os.write(out, b"done " + body + b"\\n")
        channel.basic_ack(method.delivery_tag)
    if told:
        break
channel.cancel()
connection.close()
os.write(out, f"ended {os.getpid()}\\n".encode())
"""
ARGUMENTS = {"x-max-length": 100000, "x-dead-letter-exchange": "elsewhere", "x-queue-mode": "lazy"}


class Consumers:
    def __init__(self, drover, vhost, seconds, rows="", declare=True):
        self.drover, self.vhost = drover, vhost
        self.out = drover.directory / "out"
        self.out.touch()
        self.sent = 0
        if declare:
            vhost.channel.queue_declare("orders", durable=True, arguments=ARGUMENTS)
        url = f"amqp://guest:guest@127.0.0.1:{vhost.server.port}/{vhost.path}"
        drover.configure(
            f'brokers = ( {vhost.configuration()} );\ntypes = ( {{ type = "order.paid"; queue = "orders"; mode = "consumer"; '
            f'environment = [ "OUT={self.out}", "AMQP_URL={url}", "QUEUE=orders", "SECONDS={seconds}" ]; {rows} }} );')
        drover.handler("order.paid.py", SCRIPT)

    def start(self):
        self.drover.start()
        self.drover.wait_broker("up")
        return self

    def publish(self, n):
        for _ in range(n):
            self.vhost.publish("", "orders", str(self.sent).encode())
            self.sent += 1

    def notes(self, what):
        return [text for word, text in (line.split() for line in self.out.read_text().splitlines()) if word == what]

    def wait_running(self, condition, what):
        return self.drover.wait_type("order.paid", lambda t: condition(t["workers"]["consuming"]), what)

    def wait_done(self):
        wait(lambda: len(set(self.notes("done"))) == self.sent, lambda: f"all {self.sent} are done: {len(set(self.notes('done')))}"
             f"\n{self.drover.log()[-6000:]}", 120)


def started(pid):
    """Whoever was started later has more of it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]), int(pid)


def test_a_backlog_is_drained_and_those_who_did_it_are_reaped(drover, vhost):
    consumers = Consumers(drover, vhost, 0.05, 'max = 6; objective = "1s";').start()
    wait(lambda: drover.type("order.paid"), "it is known")
    assert drover.type("order.paid")["workers"]["running"] == 0
    drover.ctl("pause", "order.paid") # however long publishing takes, all of it is still to do
    consumers.publish(1500)
    drover.ctl("resume", "order.paid")
    consumers.wait_running(lambda n: n == 6, "grows")
    began = wait(lambda: len(pids := consumers.notes("began")) == 6 and pids, "all have begun")
    began.sort(key=started)
    consumers.wait_done()

    def reaped():
        decisions = drover.json("why", "order.paid")["decisions"]
        return [d for d in decisions if "nothing waited throughout the window" in d["text"]]
    first = wait(reaped, "one is told to end when nothing has waited for a while")[-1]
    assert (first["from"], first["to"]) == (6, 5), first
    assert "0 waiting, a worker takes off" in first["text"], first
    # A worker takes 20 a second off, less what starting takes; nobody told Drover so.
    assert 5 < 1000 / first["handling_ms"] < 60, first
    wait(lambda: consumers.notes("ended"), "it ended in order")
    # One of the newest, which were started together.
    assert consumers.notes("ended")[0] in began[-2:]
    assert drover.type("order.paid")["totals"]["crashed"] == 0
    assert vhost.queue("orders")["arguments"] == ARGUMENTS
    assert list(vhost.queues()) == ["orders"], "Drover has made nothing"
    assert list(vhost.exchanges()) == []


def test_nothing_is_lost_while_they_come_and_go(drover, vhost):
    consumers = Consumers(drover, vhost, 0.01, "min = 1; max = 4;").start()
    consumers.publish(600)
    for n in 4, 1, 3:
        drover.ctl("scale", "order.paid", "--min", n, "--max", n)
        consumers.wait_running(lambda running: running == n, f"{n} run")
    drover.ctl("pause", "order.paid")
    consumers.wait_running(lambda n: n == 0, "all ended")
    consumers.publish(200)
    # They are no longer counted from when they are told to end.
    wait(lambda: len(consumers.notes("ended")) == len(consumers.notes("began")), "all ended in order")
    drover.ctl("resume", "order.paid")
    drover.ctl("restart", "order.paid")
    consumers.wait_done()
    # They ended in order, so that nothing came twice.
    assert len(consumers.notes("done")) == consumers.sent
    wait(lambda: vhost.ready("orders") == 0, "the queue is empty")
    assert drover.stop() == 0
    assert len(consumers.notes("ended")) == len(consumers.notes("began"))


def test_a_queue_that_is_not_there(drover, vhost):
    """Unknown is not zero, and no reason to start or to end one; the program that makes it has a min."""
    consumers = Consumers(drover, vhost, 0, "max = 3;", declare=False).start()
    wait(lambda: drover.type("order.paid"), "it is known")
    assert drover.type("order.paid")["ready"] is None
    vhost.channel.queue_declare("orders", durable=True)
    consumers.publish(3)
    consumers.wait_done()
    assert vhost.queue("orders")["arguments"] == {}


def test_a_broker_that_goes_away_ends_nobody(drover, vhost, proxy):
    """Drover's own connection is lost; the programs have theirs."""
    consumers = Consumers(drover, vhost, 0.01, "min = 2; max = 2;")
    between = proxy(vhost.server.port)
    text = drover.config_file.read_text()
    hosts = json.dumps(f"127.0.0.1:{vhost.server.port}")
    assert hosts in text
    drover.config_file.write_text(text.replace(hosts, json.dumps(f"127.0.0.1:{between.port}"), 1))
    consumers.start()
    consumers.publish(5)
    consumers.wait_done()
    # As many as there may be: none is about to begin, or to end because nothing waits.
    wait(lambda: len(consumers.notes("began")) == 2, "both have begun")
    between.refuse()
    between.reset()
    drover.wait_broker("down")
    consumers.publish(50)
    consumers.wait_done()
    drover.wait_type("order.paid", lambda t: t["state"] == "cut off" and t["workers"]["consuming"] == 2, "is cut off")
    pids = consumers.notes("began")
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
