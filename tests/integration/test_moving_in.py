"""From supervisord and consumers that connect by themselves to Drover, one queue after the other, as docs/moving-in.md
says, while producers in PHP and Python never pause: nothing is declared anew, each step can be taken back, and in the
end every confirmed event was handled, once."""

import json
import os
import shutil
import subprocess

import pytest

from drover import TOP, wait
from rabbitmq import TOOLS

EXAMPLE = TOP / "etc" / "examples" / "php"
SUPERVISOR = TOOLS / "supervisor"


class Supervisord:
    """What runs the consumers before Drover does."""

    def __init__(self, directory, programs):
        self.config = directory / "supervisord.conf"
        text = f"""
[supervisord]
nodaemon = true
logfile = {directory}/supervisord.log
pidfile = {directory}/supervisord.pid
childlogdir = {directory}
[unix_http_server]
file = {directory}/supervisor.sock
[supervisorctl]
serverurl = unix://{directory}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
        for name, words in programs.items():
            command = " ".join(f'"{word}"' for word in words).replace("%", "%%")
            text += f"[program:{name}]\nprocess_name = %(program_name)s_%(process_num)d\nnumprocs = 2\nautorestart = true\n" \
                    f"stopwaitsecs = 20\ncommand = {command}\n"
        self.config.write_text(text)
        self.environment = dict(os.environ, PYTHONPATH=str(SUPERVISOR / "usr/lib/python3/dist-packages"))
        self.log = open(directory / "supervisord.out", "wb")
        self.process = subprocess.Popen(["/usr/bin/python3", SUPERVISOR / "usr/bin/supervisord", "-c", self.config],
                                        env=self.environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def ctl(self, *arguments):
        return subprocess.run(["/usr/bin/python3", SUPERVISOR / "usr/bin/supervisorctl", "-c", self.config, *arguments],
                              env=self.environment, capture_output=True, text=True, timeout=60).stdout

    def wait_state(self, name, state):
        wait(lambda: self.ctl("status", f"{name}:*").count(state) == 2, lambda: f"{name} is {state}: {self.ctl('status')}", every=0.2)

    def start(self, name):
        self.ctl("start", f"{name}:*")
        self.wait_state(name, "RUNNING")

    def stop(self, name):
        self.ctl("stop", f"{name}:*")
        self.wait_state(name, "STOPPED")

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


class Company:
    """A virtual host with two queues of each payment, their consumers under supervisord, and producers."""

    def __init__(self, drover, vhost):
        self.drover, self.vhost = drover, vhost
        self.app = drover.directory / "shop"
        shutil.copytree(EXAMPLE, self.app)
        self.ledgers = {queue: drover.directory / f"{queue}.ledger" for queue in ("payments", "audit")}
        self.declare()
        self.before = self.facts()
        self.account()
        self.supervisord = Supervisord(drover.directory, {queue: self.consumer(queue) for queue in self.ledgers})
        for queue in self.ledgers:
            self.supervisord.wait_state(queue, "RUNNING")
        to = [f"--port={vhost.server.port}", f"--vhost={vhost.name}", "--exchange=shop", "--count=1000000", "--rate=150"]
        self.ids = [drover.directory / "php.ids", drover.directory / "python.ids"]
        self.producers = [
            subprocess.Popen([*command, *to], stdout=open(ids, "wb"), stderr=subprocess.PIPE, text=True)
            for command, ids in zip((["php", EXAMPLE / "Producer.php", "--ids=yes", "--types=order.paid"],
                                     ["/usr/bin/python3", TOP / "tests/producer.py"]), self.ids)]

    def declare(self):
        channel = self.vhost.channel
        channel.exchange_declare("shop", "topic", durable=True)
        channel.exchange_declare("graves", "topic", durable=True)
        for queue, kind in (("payments", "classic"), ("audit", "quorum")):
            channel.queue_declare(queue, durable=True, arguments={
                "x-queue-type": kind, "x-dead-letter-exchange": "graves", "x-dead-letter-routing-key": queue})
            channel.queue_bind(queue, "shop", "order.paid")
            channel.queue_declare(f"{queue}.failed", durable=True, arguments={"x-queue-type": kind})
            channel.queue_bind(f"{queue}.failed", "graves", queue)
        channel.queue_declare("payments.retry", durable=True, arguments={
            "x-message-ttl": 300, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "payments"})

    def facts(self):
        """All that was declared by others, as it is now."""
        queues = {name: (q["type"], q["durable"], q["arguments"], sorted(self.vhost.bindings(name)))
                  for name, q in self.vhost.queues().items()}
        return queues, {name: (e["type"], e["durable"], e["arguments"]) for name, e in self.vhost.exchanges().items()}

    def account(self):
        """Drover's own user at the broker, who may nothing yet."""
        self.user = f"drover-{self.drover.test_id}"
        self.vhost.server.user(self.user, "a secret")
        self.password = self.drover.directory / "password"
        self.password.write_text("a secret\n")
        self.password.chmod(0o600)

    def allow(self, configure="", write="", read=""):
        self.vhost.server.allow(self.user, self.vhost.name, configure, write, read)

    def consumer(self, queue):
        return [self.app / "Consumer.php", f"--queue={queue}", f"--ledger={self.ledgers[queue]}", f"--port={self.vhost.server.port}",
                f"--vhost={self.vhost.name}", "--prefetch=10"]

    def configure(self, *types):
        broker = self.vhost.configuration(user=f'"{self.user}"', password_file=f'"{self.password}"', exchange='"shop"')
        self.drover.configure(f"brokers = ( {broker} ); types = ( {', '.join(types)} );")

    def script(self, queue):
        """Step 1: its entry in drover.conf."""
        words = ", ".join(json.dumps(str(word)) for word in self.consumer(queue))
        return f'{{ type = "{queue}"; mode = "consumer"; handler = [ {words} ]; min = 1; max = 4; }}'

    def handler(self, queue, rows, type_=None):
        """Steps 2 and 3: that of the handler."""
        return f"""{{ type = "{type_ or queue}"; mode = "stream"; max = 4; handler = "{self.app}/handlers/order.paid.php";
            environment = {{ LEDGER = "{self.ledgers[queue]}"; }}; {rows} }}"""

    # while all goes on

    def confirmed(self):
        return [line.split()[-1] for ids in self.ids for line in ids.read_text().split("\n")[:-1]]

    def booked(self, queue):
        path = self.ledgers[queue]
        ids = [json.loads(line)["id"] for line in path.read_text().split("\n")[:-1]] if path.exists() else []
        assert len(set(ids)) == len(ids), "booked twice"
        return set(ids)

    def wait_at_work(self, *queues):
        """Until what is confirmed from now on is booked, too."""
        n = len(self.confirmed())
        wait(lambda: len(self.confirmed()) > n + 30, "the producers go on")
        latest = set(self.confirmed())
        for queue in queues or self.ledgers:
            wait(lambda: latest <= self.booked(queue), lambda: f"{queue} has {sorted(latest - self.booked(queue))[:20]} …\n"
                 f"{self.drover.log()[-4000:]}")
        assert all(p.poll() is None for p in self.producers)

    def wait_unreadable(self, queue, n):
        """What cannot be read became a dead letter, of whoever is in charge; `n` in all until now."""
        self.vhost.publish("", queue, b"unreadable", message_id=f"bad-{n}", content_type="application/json")
        wait(lambda: self.vhost.ready(f"{queue}.failed") == n, f"{queue}.failed has {n}")

    def finish(self):
        """No more events: the ids of those that there were."""
        for p in self.producers:
            p.terminate()
        for p in self.producers:
            assert p.wait(60) == 0, p.stderr.read()
        return set(self.confirmed())

    def close(self):
        for p in self.producers:
            if p.poll() is None:
                p.kill()
                p.wait()
            p.stderr.close()
        self.supervisord.close()
        self.vhost.server.api("DELETE", f"users/{self.user}")


@pytest.fixture
def company(drover, vhost):
    made = Company(drover, vhost)
    yield made
    made.close()


@pytest.mark.slow
def test_moving_in(drover, vhost, company):
    by_names = 'declare = "none"; retry_queue = "payments.retry"; dead_letter = "payments.failed"; max_attempts = 4;'
    by_broker = 'declare = "none"; dead_letter = "broker";'
    company.wait_at_work()
    company.wait_unreadable("payments", 1)

    # Step 1, the same script, for the first queue; both run for a moment.
    company.allow(read="^payments$")
    company.configure(company.script("payments"))
    drover.start()
    drover.wait_type("payments", lambda t: t["workers"]["running"] >= 1, "runs the script")
    company.supervisord.stop("payments")
    company.wait_at_work()
    company.wait_unreadable("payments", 2)
    assert company.facts() == company.before

    # Back, and forth again.
    company.supervisord.start("payments")
    drover.ctl("pause", "payments")
    drover.wait_type("payments", lambda t: t["workers"]["running"] == 0, "has no script")
    company.wait_at_work()
    drover.ctl("resume", "payments")
    company.supervisord.stop("payments")
    company.wait_at_work()

    # Step 2, a handler.
    company.allow(write=r"^amq\.default$", read=r"^payments(\.failed)?$")
    company.configure(company.handler("payments", by_names))
    drover.ctl("reload")
    drover.wait_type("payments", lambda t: (t["totals"]["done"] or 0) > 0, "is handled by the handler")
    company.wait_at_work()
    company.wait_unreadable("payments", 3)
    invoice = json.dumps({"order": 1, "amount": 2, "method": "invoice"}).encode()
    vhost.publish("", "payments", invoice, message_id="invoice", content_type="application/json")
    wait(lambda: "invoice" in company.booked("payments"), "it is tried until it is booked")
    assert company.facts() == company.before

    # Back to step 1, and forth again; the other queue meanwhile goes both steps.
    company.allow(write=r"^amq\.default$", read=r"^(payments(\.failed)?|audit)$")
    company.configure(company.script("payments"), company.script("audit"))
    drover.ctl("reload")
    drover.wait_type("audit", lambda t: t["workers"]["running"] >= 1, "runs the script")
    company.supervisord.stop("audit")
    company.wait_at_work()
    company.wait_unreadable("audit", 1)
    company.configure(company.handler("payments", by_names), company.handler("audit", by_broker))
    drover.ctl("reload")
    company.wait_at_work()
    company.wait_unreadable("audit", 2)
    company.supervisord.close()
    company.wait_at_work()
    assert company.facts() == company.before

    # Step 3, Drover's own queue beside the first; then the first has no more to do.
    own = r"^(amq\.default$|drover\.|shop$|payments(\.failed)?$|audit$|order\.paid($|\.dead$))"
    company.allow(own, own, own)
    company.configure(company.handler("payments", by_names), company.handler("audit", by_broker),
                      company.handler("payments", "", "order.paid"))
    drover.ctl("reload")
    wait(lambda: vhost.queue("order.paid") and ("shop", "order.paid") in vhost.bindings("order.paid"), "it is declared and bound")
    drover.wait_type("order.paid", lambda t: t["totals"]["done"] > 0, "is at work")
    vhost.channel.queue_unbind("payments", "shop", "order.paid")
    wait(lambda: not vhost.ready("payments") and not vhost.ready("payments.retry"), "the old queues are empty")
    drover.wait_settled("payments")
    company.configure(company.handler("audit", by_broker), company.handler("payments", "", "order.paid"))
    drover.ctl("reload")
    vhost.delete_queue("payments")
    company.wait_at_work()

    expected = company.finish()
    for queue in company.ledgers:
        wait(lambda: expected <= company.booked(queue), lambda: f"{queue}: all are booked: {expected - company.booked(queue)}")
        assert company.booked(queue) - expected <= {"invoice"}
    assert len(expected) > 1000
    queues, _ = company.facts()
    for name in ("payments.retry", "payments.failed", "audit", "audit.failed"):
        assert queues[name] == company.before[0][name]
    drover.wait_settled("audit", "order.paid")
    assert vhost.ready("order.paid.dead") == 0
