"""What an event is survives the whole way: publish, handler, dead letter, export, and back."""

import json

from drover import wait

EVENT = {
    "specversion": "1.0",
    "id": "order-7",
    "source": "/shop/berlin",
    "type": "order.paid",
    "time": "2026-11-25T10:11:12.345678Z",
    "subject": "customers/42",
    "datacontenttype": "application/json; charset=utf-8",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "partitionkey": "7",
    "comexampleflag": "true",
    "data": {"amount": 12345678901234567890, "price": 1.10, "note": "größer"},
}


def told(path):
    """The event as the handler found it: fd 3, its environment and its body."""
    wait(path.exists, lambda: f"{path.name} was written")
    attributes, variables, body = path.read_text().split("\n--\n")
    return json.loads(attributes), dict(line.split("=", 1) for line in variables.splitlines()), body


TELLING = """#!/bin/sh
{
	cat <&3
	echo --
	env | grep -E '^(DROVER_(ID|TYPE|SOURCE|TIME|SUBJECT|ATTEMPT)|TRACEPARENT)='
	echo --
	cat
} >"$OUT.new"
mv "$OUT.new" "$OUT"
"""


def test_an_event_comes_back_as_it_was_published(drover):
    out = drover.directory / "out"
    drover.configure(f'types = ( {{ type = "order.paid"; max_attempts = 1; environment = [ "OUT={out}" ]; }} );')
    drover.handler("order.paid", TELLING + "exit 65\n")
    drover.start()
    text = json.dumps(EVENT, ensure_ascii=False)
    drover.ctl("publish", "order.paid", "--ndjson", "--file", "-", data=text + "\n")
    drover.wait_type("order.paid", lambda t: t["dead"] == 1, "was rejected")
    attributes, variables, body = told(out)
    assert {k: v for k, v in attributes.items() if k not in ("data", "attempt")} == {k: v for k, v in EVENT.items() if k != "data"}
    assert variables == {"DROVER_ID": EVENT["id"], "DROVER_TYPE": EVENT["type"], "DROVER_SOURCE": EVENT["source"],
                         "DROVER_TIME": EVENT["time"], "DROVER_SUBJECT": EVENT["subject"], "DROVER_ATTEMPT": "1",
                         "TRACEPARENT": EVENT["traceparent"]}
    assert json.loads(body) == EVENT["data"] and "12345678901234567890" in body and "1.1" in body
    exported = drover.ctl("dead", "export", "order.paid").stdout
    shown = json.loads(exported)
    assert shown.pop("drover")["attempts"] == 1
    assert shown == EVENT
    assert drover.json("dead", "purge", "order.paid", "--all")["purged"] == 1
    drover.wait_type("order.paid", lambda t: t["dead"] == 0, "has none")
    drover.ctl("publish", "order.paid", "--ndjson", "--file", "-", data=exported)
    drover.wait_type("order.paid", lambda t: t["dead"] == 1, "was rejected again")
    again = json.loads(drover.ctl("dead", "export", "order.paid").stdout)
    again.pop("drover")
    assert again == EVENT


def test_bodies_of_every_kind_come_back(drover):
    drover.configure('types = ( { type = "job"; } );')
    drover.handler("job.sh", "#!/bin/sh\nexit 65\n")
    drover.start()
    bodies = {
        "none": (b"", None),
        "text": (b"plain text", None),
        "json": (b'{"a": [1, 2.50]}', None),
        "number": (b"12345678901234567890", "application/json"),
        "string": (b'"quoted"', "application/json"),
        "broken": (b'{"a": ', "application/json"),
        "binary": (bytes(range(256)), "application/octet-stream"),
        "unnamed binary": (bytes(range(256)), None),
        "typed text": ("größer\n".encode(), "text/plain"),
    }
    source = drover.directory / "body"
    for name, (body, media_type) in bodies.items():
        source.write_bytes(body)
        drover.ctl("publish", "job", "--file", source, "--id", name, *(["--content-type", media_type] if media_type else []))
    drover.wait_type("job", lambda t: t["dead"] == len(bodies), "has them all")
    exported = {json.loads(line)["id"]: line for line in drover.ctl("dead", "export", "job").stdout.splitlines()}
    assert set(exported) == set(bodies)
    drover.ctl("dead", "purge", "job", "--all")
    drover.wait_type("job", lambda t: t["dead"] == 0, "has none")
    drover.ctl("publish", "job", "--ndjson", "--file", "-", data="".join(line + "\n" for line in exported.values()))
    drover.wait_type("job", lambda t: t["dead"] == len(bodies), "has them again")
    for row in drover.dead("job"):
        body = bodies[row["id"]][0]
        assert row["size"] == len(body), row
    for line in drover.ctl("dead", "export", "job").stdout.splitlines():
        event, before = json.loads(line), json.loads(exported[json.loads(line)["id"]])
        event.pop("drover"), before.pop("drover")
        assert event == before


def test_what_is_emitted_goes_on_with_the_trace(drover):
    out = drover.directory / "out"
    drover.configure(f'types = ( {{ type = "cause"; }}, {{ type = "effect"; environment = [ "OUT={out}" ]; }} );')
    drover.handler("cause", '#!/bin/sh\necho \'{"type": "effect", "subject": "s", "extra": "x", "data": [1]}\' >&4\n')
    drover.handler("effect", TELLING)
    drover.start()
    drover.ctl("publish", "cause", "--ndjson", "--file", "-", data=json.dumps({**EVENT, "type": "cause"}))
    attributes, variables, body = told(out)
    assert attributes["traceparent"] == variables["TRACEPARENT"] == EVENT["traceparent"]
    assert attributes["source"] == "cause" and attributes["id"].endswith("-0")
    assert attributes["extra"] == "x" and variables["DROVER_SUBJECT"] == "s" and json.loads(body) == [1]


def test_a_made_up_id_never_enters_the_inbox(drover):
    drover.configure('types = ( { type = "job"; inbox = "sqlite"; } );')
    drover.handler("job.sh", "#!/bin/sh\n")
    drover.start()
    for _ in range(3):
        drover.ctl("publish", "job", "--data", "same")
    row = drover.wait_type("job", lambda t: t["totals"]["done"] == 3, "did all of them")
    assert row["totals"]["skipped"] == 0
