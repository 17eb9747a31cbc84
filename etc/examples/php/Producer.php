#!/usr/bin/env php
<?php

/**
 * Publishes the events of a shop, users who register and orders that are paid, to RabbitMQ: persistent, as CloudEvents
 * in binary mode, mandatory, with publisher confirms. An event counts as published when the broker has confirmed it
 * and a queue took it. What is not confirmed when a connection is lost, what the broker refuses for now and what no
 * queue takes yet is published again with the same id: it may come twice, but is not lost. SIGTERM ends it when all is
 * confirmed.
 */

declare(strict_types=1);

require_once __DIR__ . '/autoload.php';
require_once __DIR__ . '/Broker.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AbstractConnection;
use PhpAmqpLib\Exception\AMQPExceptionInterface;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;
use Shop\Broker;

const OPTIONS = [
    'count' => '10', 'first' => '1', 'types' => 'user.registered,order.paid', 'exchange' => 'drover',
    'source' => '/shop', 'rate' => '0', 'window' => '200', 'patience' => '30', 'ids' => 'no',
];
const USAGE = <<<'TEXT'
    Usage: Producer.php [--OPTION=VALUE ...]
      --count=N              how many events; default 10
      --first=N              the number of the first, which its id holds; default 1
      --types=TYPE,TYPE      in turn: user.registered, order.paid; default both
      --exchange=NAME        a topic exchange; default drover
      --source=TEXT          their source; default /shop
      --rate=N               at most so many a second; default 0, as fast as it goes
      --window=N             how many may wait for their confirmation; default 200
      --patience=SECONDS     without any confirmation, until it gives up; default 30
      --ids=yes              print "TYPE ID" for each confirmed event
    
    TEXT;
const PEOPLE = ['Ada Lovelace', 'Alan Turing', 'Grace Hopper', 'Edsger Dijkstra', 'Barbara Liskov', 'Søren Bjørn'];

/** An event by its number: always the same one. */
function make_event(string $type, int $number, string $source): AMQPMessage
{
    $name = PEOPLE[$number % count(PEOPLE)];
    $address = "user$number@example.org";
    [$id, $data] = match ($type) {
        'user.registered' => ["reg-$number", ['user_id' => $number, 'name' => $name, 'email' => $address]],
        'order.paid' => ["pay-$number", ['order' => $number, 'amount' => 100 + $number % 9900, 'method' => 'card']],
    };
    return new AMQPMessage(json_encode($data, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE), [
        'message_id' => $id,
        'type' => $type,
        'timestamp' => time(),
        'content_type' => 'application/json',
        'delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT,
        'application_headers' => new AMQPTable([
            'cloudEvents:specversion' => '1.0',
            'cloudEvents:id' => $id,
            'cloudEvents:source' => $source,
            'cloudEvents:type' => $type,
            'cloudEvents:time' => gmdate('Y-m-d\TH:i:s\Z'),
        ]),
    ]);
}

/** Publishes until all is confirmed; knows for each event whether it is. */
final class Publisher
{
    /** @var array<string, AMQPMessage> by id: not confirmed yet */
    public array $waiting = [];
    public int $confirmed = 0;
    /** @var array<string, string> by id: why no queue took it, at the last attempt */
    private array $returned = [];
    private ?AbstractConnection $connection = null;
    private ?AMQPChannel $channel = null;

    /** @param array<string, string> $options */
    public function __construct(private readonly array $options)
    {
    }

    /** Publishes what waits and awaits its confirmations. */
    public function flush(): void
    {
        $patience = (int) $this->options['patience'];
        $progress = microtime(true);
        for ($pause = 0.1; $this->waiting; $pause = min(2, 2 * $pause)) {
            $before = count($this->waiting);
            try {
                $this->attempt();
                $trouble = $this->returned ? reset($this->returned) : 'the broker refuses them (nack)';
            } catch (AMQPExceptionInterface $e) {
                $trouble = $e->getMessage();
                $this->disconnect();
            }
            if (count($this->waiting) < $before) {
                [$progress, $pause] = [microtime(true), 0.1];
            }
            if (!$this->waiting) {
                return;
            }
            if (microtime(true) - $progress > $patience) {
                throw new RuntimeException("no confirmation for $patience seconds: $trouble");
            }
            fprintf(STDERR, "%d events are not confirmed, published again: %s\n", count($this->waiting), $trouble);
            usleep((int) ($pause * 1e6));
        }
    }

    public function close(): void
    {
        try {
            $this->connection?->close();
        } catch (AMQPExceptionInterface) {
            // All that matters is confirmed.
        }
    }

    private function attempt(): void
    {
        $channel = $this->channel ??= $this->connect();
        $this->returned = [];
        foreach ($this->waiting as $message) {
            $channel->basic_publish($message, $this->options['exchange'], $message->get('type'), true);
        }
        $channel->wait_for_pending_acks_returns((int) $this->options['patience']);
    }

    private function connect(): AMQPChannel
    {
        $this->connection = Broker::connect($this->options);
        $channel = $this->connection->channel();
        $channel->confirm_select();
        $channel->set_ack_handler(function (AMQPMessage $message): void {
            $id = $message->get('message_id');
            if (isset($this->returned[$id])) {
                return;
            }
            unset($this->waiting[$id]);
            $this->confirmed++;
            if ($this->options['ids'] === 'yes') {
                echo $message->get('type'), " $id\n";
            }
        });
        // It comes before the confirmation, which says no more than that the broker has done with it.
        $channel->set_return_listener(
            function (int $code, string $text, string $exchange, string $key, AMQPMessage $message): void {
                $this->returned[$message->get('message_id')]
                    = "$text: no queue is bound to the exchange \"$exchange\" for \"$key\"";
            }
        );
        return $channel;
    }

    private function disconnect(): void
    {
        try {
            $this->connection?->close();
        } catch (Throwable) {
            // It is lost anyway.
        }
        $this->connection = $this->channel = null;
    }
}

$options = Broker::options(OPTIONS, USAGE);
$types = explode(',', $options['types']);
foreach ($types as $type) {
    if (!in_array($type, ['user.registered', 'order.paid'], true)) {
        fwrite(STDERR, "Producer.php: --types names \"$type\"; user.registered and order.paid are known\n");
        exit(64);
    }
}
[$first, $count, $rate, $window] = [(int) $options['first'], (int) $options['count'], (int) $options['rate'],
    max(1, (int) $options['window'])];
if ($rate > 0) {
    $window = max(1, min($window, intdiv($rate, 20)));
}

$publisher = new Publisher($options);
$started = microtime(true);
$ending = false;
pcntl_async_signals(true);
pcntl_signal(SIGTERM, static function () use (&$ending): void {
    $ending = true;
});
try {
    for ($i = 0; $i < $count && !$ending; $i++) {
        $message = make_event($types[$i % count($types)], $first + $i, $options['source']);
        $publisher->waiting[$message->get('message_id')] = $message;
        if (count($publisher->waiting) < $window) {
            continue;
        }
        $publisher->flush();
        if ($rate > 0) {
            usleep((int) (1e6 * max(0, ($i + 1) / $rate - (microtime(true) - $started))));
        }
    }
    $publisher->flush();
    $status = 0;
} catch (RuntimeException $e) {
    fwrite(STDERR, "Producer.php: {$e->getMessage()}\n");
    $status = 75;
}
$publisher->close();
$seconds = microtime(true) - $started;
fprintf(STDERR, "%d of %d events are confirmed, after %.1f s\n", $publisher->confirmed, $i, $seconds);
exit($status);
