<?php
/*
 * A reference of the figures with RabbitMQ: an ordinary consumer on php-amqplib whose callback does nothing but acknowledge.
 *
 *     php bare_rabbitmq.php PORT VHOST QUEUE EVENTS
 *
 * Takes as many events with a prefetch of 300 and prints "N N": events per second from the first to the last, and µs of CPU
 * per event.
 */
declare(strict_types=1);

require_once 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Message\AMQPMessage;

[, $port, $vhost, $queue, $events] = $argv;

function cpu_us(): float
{
	$used = getrusage();
	return 1e6 * ($used['ru_utime.tv_sec'] + $used['ru_stime.tv_sec']) + $used['ru_utime.tv_usec'] + $used['ru_stime.tv_usec'];
}

$connection = new AMQPStreamConnection('127.0.0.1', (int)$port, 'guest', 'guest', $vhost);
$channel = $connection->channel();
$channel->basic_qos(0, 300, false);

$left = (int)$events;
$began = $cpu = null;
$channel->basic_consume($queue, '', false, false, false, false,
	function (AMQPMessage $message) use (&$left, &$began, &$cpu): void {
		$began ??= hrtime(true);
		$cpu ??= cpu_us();
		$message->ack();
		$left--;
	});
while ($left > 0) {
	$channel->wait();
}
printf("%.0f %.3f\n", $events / ((hrtime(true) - $began) / 1e9), (cpu_us() - $cpu) / $events);
$channel->close();
$connection->close();
