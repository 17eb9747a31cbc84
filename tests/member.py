"""A node's end of a registry: tests/conformance/node with the Consul plugin, told and heard by lines."""

import os
import subprocess
import threading
import time

from drover import BUILD, PATIENCE, wait

PASSING, WARNING, CRITICAL = 1, 2, 3
UP, SUSPENDED, LOST, REFUSED = 1, 2, 3, 4
ALIVE, LEAVING, SELF = 1, 2, 4
ID = "0123456789abcdef0123456789abcdef"
OTHER_ID = "fedcba9876543210fedcba9876543210"


class Node:
    """A node's end of the registry: tests/conformance/node, told and heard by lines."""

    def __init__(self, agent, node="web1", node_id=ID, cluster="drover", environment=None, **settings):
        settings = {"address": agent.http_address, **settings}
        self.cluster, self.node, self.node_id = cluster, node, node_id
        self.id = f"{cluster}-{node}"
        self.heard = []
        self.process = subprocess.Popen(
            [BUILD / "tests/conformance/node", BUILD / "plugins/registries/consul.so", cluster, node, node_id,
             *(f"{key}={value}" for key, value in settings.items() if value is not None)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {})})
        self.log = []
        for stream, lines in ((self.process.stdout, self.heard), (self.process.stderr, self.log)):
            threading.Thread(target=self.read, args=(stream, lines), daemon=True).start()

    @staticmethod
    def read(stream, lines):
        for line in stream:
            lines.append((time.monotonic(), *line.rstrip("\n").split("\t")))

    def say(self, *words):
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def report(self, tags=(), **checks):
        """checks: name=(health, text), for the check "type:name"."""
        words = []
        for name, (health, text) in checks.items():
            words += [f"type:{name}", health, text]
        self.say("report", ",".join(tags), *words)

    def last(self, what):
        """The words after `what` of the last such line; None."""
        for line in reversed(list(self.heard)):
            if line[1] == what:
                return list(line[2:])
        return None

    def when(self, *words, since=0):
        """When the first line that begins so was heard, after as many lines; waits for it. What is measured by that takes
        no longer when the test itself does."""
        def heard():
            return [line[0] for line in self.heard[since:] if line[1:1 + len(words)] == words][:1]
        return wait(heard, lambda: f"it says {words}: {self.heard[since:]} {self.log}", 2 * PATIENCE)[0]

    def state(self):
        said = self.last("state")
        return int(said[0]) if said else 0

    def leads(self):
        return bool(self.last("leader")) and self.last("leader")[0] == "1"

    def leader(self):
        """The name of the node that it believes to lead; None: it was told nothing yet."""
        said = self.last("leader")
        return said[1] if said else None

    def values(self, watch):
        """key → value, as last told; None: nothing was told."""
        for line in reversed(list(self.heard)):
            if line[1:3] == ("values", watch):
                return {key: value for key, _, value in (row.split(",", 2) for row in line[3:])}
        return None

    def put(self, key, value, version=None, fenced=False):
        """The errno of the write, 0 or negative, and its version."""
        before = len(self.heard)
        self.say("fenced" if fenced else "put", key, value, *([] if version is None else [version]))
        wait(lambda: any(line[1] == "put" for line in self.heard[before:]), "the write is answered")
        said = self.last("put")
        return int(said[0]), said[1]

    def wait_state(self, state, *words, timeout=PATIENCE):
        """Until that is its state, and the sentence with it has one of these words; the sentence."""
        def holds():
            said = self.last("state")
            return said and int(said[0]) == state and (not words or any(word in said[1] for word in words)) and said
        return wait(holds, lambda: f"the state is {state}, {words}: {self.heard} {self.log}", timeout)[1]

    def members(self):
        """name → flags"""
        return {row.split(",")[0]: int(row.split(",")[2]) for row in self.last("members") or []}

    def stop(self):
        self.say("deregister")
        wait(lambda: self.last("deregistered") is not None, "it is deregistered")
        self.kill()

    def close(self):
        self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)
