#!/usr/bin/python3
"""A producer as others write them, in Python with pika: payments with AMQP's own properties and no CloudEvents headers.

Publishes until its number is reached or SIGTERM comes, persistent, mandatory and confirmed, and prints the id of each
confirmed event. What is not confirmed when a connection is lost is published again, with the same id.
"""

import argparse
import json
import signal
import sys
import time

import pika

PATIENCE = 60


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--vhost", default="/")
    parser.add_argument("--exchange", default="drover")
    parser.add_argument("--type", default="order.paid")
    parser.add_argument("--prefix", default="py", help="of the ids, which go on with a number")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0, help="events a second; 0: as fast as it goes")
    return parser.parse_args()


def connect(options):
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", options.port, options.vhost, heartbeat=10,
                                                                   blocked_connection_timeout=PATIENCE))
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def publish(channel, options, number):
    properties = pika.BasicProperties(message_id=f"{options.prefix}-{number}", type=options.type, timestamp=int(time.time()),
                                      content_type="application/json", app_id="/till", delivery_mode=2)
    body = json.dumps({"order": number, "amount": 1 + number % 10000, "method": "cash"})
    channel.basic_publish(options.exchange, options.type, body, properties, mandatory=True)


def main():
    options = arguments()
    channel = None
    started = progress = time.monotonic()
    number = 0
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    while number < options.count and not ending:
        try:
            channel = channel or connect(options)
            publish(channel, options, number)
        except pika.exceptions.UnroutableError:
            sys.exit(f"no queue is bound to {options.exchange} for {options.type}")
        except (pika.exceptions.AMQPError, OSError) as e:
            if time.monotonic() - progress > PATIENCE:
                sys.exit(f"not confirmed within {PATIENCE} s: {e!r}")
            channel = None
            time.sleep(0.1)
            continue
        print(f"{options.prefix}-{number}", flush=True)
        number += 1
        progress = time.monotonic()
        if options.rate:
            time.sleep(max(0, started + number / options.rate - progress))
    if channel:
        channel.connection.close()


if __name__ == "__main__":
    main()
