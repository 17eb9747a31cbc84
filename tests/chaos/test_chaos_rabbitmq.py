"""200,000 events from a PHP and a Python producer through RabbitMQ while everything fails at random: nothing is lost.

Besides what is killed and stopped on the embedded broker, the broker is killed and stopped, and a proxy between it and
Drover resets connections, delays, cuts into single bytes and swallows. Producers speak to the broker itself and print the
ids that it confirmed. The same is checked as there: lost 0, unexpected 0, no handling that no fault explains; with the
inbox none after an event's record; no double effect where the handler stores the event's id together with its effect.

The type without an inbox has a quorum queue. A classic one forgets acknowledgements when the broker is killed (measured:
15,000 of 15,000, given over ten seconds), so that any number of its events may come again; the other two have those.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

from drover import TOP, wait
from test_chaos import BATCH, EVENTS, POLICY, SEED, TIMED_LEDGER, WORKERS, Disturbance, Monkey, check_duplicates, read, read_effects, read_inbox, wall_ms

PYTHON_EVENTS = EVENTS // 20  # pika confirms one at a time
HEALED_MS = 35000  # three heartbeats: by then a connection that is swallowed is found to be, and what it held given out


class Producer(threading.Thread):
    """A program that publishes until its number is reached and prints what is confirmed."""

    def __init__(self, command):
        super().__init__(daemon=True)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.confirmed = []

    def run(self):
        for line in self.process.stdout:
            self.confirmed.append(line.split()[-1])
        self.process.wait()

    def ended(self):
        self.join(10)
        assert self.process.returncode == 0, f"seed {SEED}: {self.process.args[1]}: {self.process.stderr.read()[-2000:]}"


class BrokerMonkey(Monkey):
    """Also hurts the broker and the way to it; every type suffers."""

    BROKER = {"kill": 2, "stop_app": 2, "reset": 10, "delay": 4, "slice": 4, "black_hole": 2}

    def __init__(self, drover, types, server, proxy):
        super().__init__(drover, types)
        self.server, self.proxy = server, proxy

    def hurt(self):
        (what,) = self.random.choices(list(self.BROKER), self.BROKER.values())
        began = wall_ms()
        pause = self.random.uniform(0.2, 2)  # how long the fault lasts: the fault itself
        if what == "kill":
            self.server.kill()
            self.server.start(ready=False).wait_up()
        elif what == "stop_app":
            self.server.ctl("stop_app")
            self.server.ctl("start_app")
            self.server.wait_up()
        elif what == "reset":
            self.proxy.reset()
        else:
            {"delay": lambda: self.proxy.delay(300), "slice": self.proxy.slice, "black_hole": self.proxy.black_hole}[what]()
            time.sleep(pause)
            self.proxy.heal()
        for disturbances in self.disturbances.values():
            disturbances.append(Disturbance(began, wall_ms() + HEALED_MS, BATCH * WORKERS))
        self.done["broker " + what] += 1
        self.diary.append((began, "broker " + what, list(self.disturbances)))


def test_nothing_is_lost_with_rabbitmq(drover, lone, proxy):
    between = proxy(lone.server.port)
    hosts = f'[ "127.0.0.1:{between.port}" ]'
    # By AMQP alone nobody knows of an idle quorum queue that it is empty.
    safe = lone.configuration("safe", hosts=hosts, queue_type='"quorum"', depths='"management"',
                              management=f'"http://127.0.0.1:{lone.server.management_port}"')
    fast, once, sample = "user.registered", "order.paid", "order.booked"
    ledgers = {t: drover.directory / f"{t}.ledger" for t in (fast, once)}
    for path in ledgers.values():
        path.touch()
    effects = drover.directory / "effects.db"
    policy = POLICY.replace("2s", "10s")
    drover.configure(f"""
brokers = ( {lone.configuration(hosts=hosts)}, {safe} );
defaults = {{ max = {WORKERS}; }};
types = (
  {{ type = "{fast}"; broker = "safe"; environment = [ "LEDGER={ledgers[fast]}" ]; {POLICY} }},
  {{ type = "{once}"; environment = [ "LEDGER={ledgers[once]}" ]; inbox = "sqlite"; {POLICY} }},
  {{ type = "{sample}"; environment = [ "LEDGER={effects}" ]; {policy} }}
);
""")
    drover.handler(f"{fast}.so", TIMED_LEDGER)
    drover.handler(f"{once}.so", TIMED_LEDGER)
    target = drover.handlers / f".{sample}"
    shutil.copy(TOP / "etc" / "examples" / "order.paid", target)
    target.chmod(0o755)
    target.rename(drover.handlers / sample)
    drover.start()
    wait(lambda: all(lone.bindings(queue) for queue in (fast, once, sample)), "the queues are there and bound", 30)

    def php(type_, count, first):
        return Producer(["php", str(TOP / "etc/examples/php/Producer.php"), "--host=127.0.0.1", f"--port={lone.server.port}",
                         f"--vhost={lone.name}", f"--count={count}", f"--first={first}", f"--types={type_}", "--ids=yes",
                         "--patience=120"])

    def python(type_, count):
        return Producer([sys.executable, str(TOP / "tests/producer.py"), f"--port={lone.server.port}", f"--vhost={lone.name}",
                         f"--type={type_}", f"--count={count}", f"--prefix={type_}"])

    producers = {fast: [php(fast, EVENTS // 2, 1)],
                 once: [php(once, EVENTS // 2 - PYTHON_EVENTS, 1), python(once, PYTHON_EVENTS)],
                 sample: [python(sample, 1000)]}
    everybody = [p for of_type in producers.values() for p in of_type]
    monkey = BrokerMonkey(drover, [fast, once, sample], lone.server, between)
    for producer in everybody:
        producer.start()
    started = time.monotonic()
    while any(p.is_alive() for p in everybody) or time.monotonic() - started < 90:
        monkey.hurt() if monkey.random.random() < 0.08 else monkey.act()
        time.sleep(monkey.random.uniform(0.05, 0.4))  # the pace of the faults
        assert time.monotonic() - started < 400, f"publishing goes on: {[len(p.confirmed) for p in everybody]}, seed {SEED}\n{drover.log()[-8000:]}"
    between.heal()
    for pid in drover.descendants():
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
    for producer in everybody:
        producer.ended()
    drover.wait_ready()
    drover.wait_settled(fast, once, sample, timeout=180)
    print(f"seed {SEED}: {dict(monkey.done)}")

    for type_ in (fast, once):
        confirmed = {id_ for producer in producers[type_] for id_ in producer.confirmed}

        def lost():
            return sorted(confirmed - {id_ for id_, _ in read(ledgers[type_])})

        wait(lambda: not lost(), lambda: f"nothing is lost, seed {SEED}: {len(lost())} of {type_} are, e.g. {lost()[:5]}", 60)
        rows = read(ledgers[type_])
        handled = {id_ for id_, _ in rows}
        assert len(confirmed) == EVENTS // 2 and handled == confirmed, f"seed {SEED}: {sorted(handled - confirmed)[:5]} unexpected"
        print(f"{type_}: {len(confirmed)} confirmed, {check_duplicates(rows, monkey, type_)} handled again")
        assert drover.type(type_)["dead"] in (0, None)

    recorded = read_inbox(drover.state / "inbox" / f"{once}.db")
    late = [(id_, at, recorded[id_]) for id_, at in read(ledgers[once]) if id_ in recorded and at > recorded[id_]]
    assert not late, f"seed {SEED}: handled after their record: {late[:5]}"

    confirmed = set(producers[sample][0].confirmed)
    wait(lambda: set(read_effects(effects)) >= confirmed, lambda: f"seed {SEED}: {sorted(confirmed - set(read_effects(effects)))[:5]} lost", 60)
    booked = read_effects(effects)
    assert set(booked) == confirmed, f"seed {SEED}: unexpected"
    assert set(booked.values()) == {1}, f"seed {SEED}: double effects"
