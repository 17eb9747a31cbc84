#!/usr/bin/env php
<?php

/**
 * An ordinary consumer: connects to RabbitMQ by itself, takes payments from a queue that is there, books each in the
 * ledger and acknowledges it. It runs until SIGTERM, finishes the message in hand, and leaves the rest to others.
 * What it cannot read is rejected, which is the dead-letter exchange's business, if its queue has one.
 */

declare(strict_types=1);

require_once __DIR__ . '/autoload.php';
require_once __DIR__ . '/Broker.php';
require_once __DIR__ . '/Ledger.php';

use PhpAmqpLib\Exception\AMQPExceptionInterface;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;
use Shop\Broker;

const USAGE = <<<'TEXT'
    Usage: Consumer.php --queue=NAME --ledger=FILE [--OPTION=VALUE ...]
      --queue=NAME           which must exist
      --ledger=FILE          where payments are booked
      --prefetch=N           how many messages it may hold; default 10
      --pace=MS              how long a payment takes; default 0
      --limit=N              ends after so many; default 0, never
    
    TEXT;

$options = Broker::options(['queue' => '', 'ledger' => '', 'prefetch' => '10', 'pace' => '0', 'limit' => '0'], USAGE);
if ($options['queue'] === '' || $options['ledger'] === '') {
    fwrite(STDERR, "Consumer.php: --queue and --ledger are needed\n\n" . USAGE . Broker::USAGE . "\n");
    exit(64);
}

try {
    $ledger = new Shop\Ledger($options['ledger']);
    $connection = Broker::connect($options);
    $channel = $connection->channel();
    $handled = 0;
    $book = static function (AMQPMessage $message) use ($ledger, $channel, $options, &$handled): void {
        $properties = $message->get_properties();
        $headers = ($properties['application_headers'] ?? new AMQPTable())->getNativeData();
        $payment = json_decode($message->getBody(), true);
        [$order, $cents] = [$payment['order'] ?? null, $payment['amount'] ?? null];
        $id = $properties['message_id'] ?? null;
        if (!is_int($order) || !is_int($cents) || $id === null) {
            echo "rejected: {$message->getBody()}\n";
            $message->reject(false);
            return;
        }
        usleep(1000 * (int) $options['pace']);
        $source = $headers['cloudEvents:source'] ?? $properties['app_id'] ?? '';
        $ledger->book($source, $id, $order, $cents);
        $message->ack();
        if (++$handled === (int) $options['limit']) {
            $channel->stopConsume();
        }
    };

    pcntl_async_signals(true);
    foreach ([SIGTERM, SIGINT] as $signal) {
        pcntl_signal($signal, static fn () => $channel->stopConsume());
    }
    $channel->basic_qos(0, (int) $options['prefetch'], false);
    $channel->basic_consume($options['queue'], '', false, false, false, false, $book);
    echo "consuming from {$options['queue']}\n";
    $channel->consume();
    $channel->close();
    $connection->close();
    echo "$handled handled\n";
} catch (AMQPExceptionInterface | RuntimeException $e) {
    fwrite(STDERR, "Consumer.php: {$e->getMessage()}\n");
    exit(75);
}
