"""How long systemd waits for the end: as long as busy workers have time left, and not for a droverd that hangs."""

import time

from drover import wait
from service import LEDGER

# Longer than systemd gives at first, and than droverd asks for at once.
GIVEN_S, ASKED_S, JOB_S = 5, 30, 40


def serve_slowly(service):
    service.storage()
    service.dropin("patience", f"[Service]\nTimeoutStopSec={GIVEN_S}s\n")
    service.configure('types = ( { type = "job"; max = 1; timeout = "2h"; stop_timeout = "2h"; } );')
    service.handler("job.so", LEDGER)
    service.start()
    wait(lambda: service.type("job"), "it is served")
    service.publish_ledger("job", 1, JOB_S * 1000)
    service.wait_type("job", lambda t: t["workers"]["busy"] == 1, "is busy")


def test_a_busy_worker_is_waited_for(service):
    serve_slowly(service)
    service.systemctl("stop", "--no-block", "drover")
    wait(lambda: service.show("StatusText") == "stopping; 1 type, 1 worker, 1 busy", "status says what it waits for", every=0.2)
    wait(lambda: service.state() == ("inactive", "dead"), lambda: f"it has stopped: {service.state()}\n{service.log()[-4000:]}",
         4 * JOB_S, every=0.5)
    assert service.show("Result") == "success"
    (job,) = service.handlings()
    assert job.ended and job.ended - job.began >= JOB_S * 900_000


def test_one_that_hangs_is_not(service):
    serve_slowly(service)
    service.systemctl("stop", "--no-block", "drover")
    wait(lambda: service.show("StatusText").startswith("stopping; "), "it drains", every=0.2)
    began = time.monotonic()
    service.systemctl("kill", "--kill-whom=main", "--signal=STOP", "drover")
    wait(lambda: service.state()[0] in ("inactive", "failed"), lambda: f"it was ended: {service.state()}\n{service.log()[-4000:]}",
         6 * ASKED_S, every=0.5)
    assert time.monotonic() - began < 4 * ASKED_S
    assert service.show("Result") == "timeout"
