<?php

/**
 * Sends a mail that waits in the directory OUTBOX. Here that is a move to the directory SENT; what is
 * there was sent before.
 *
 *     {"file": "reg-1.eml", "to": "ada@example.org"}
 */

declare(strict_types=1);

require_once __DIR__ . '/../drover.php';

Drover\run(static function (Drover\Event $event): void {
    $file = $event->data()['file'] ?? null;
    if (!is_string($file) || basename($file) !== $file) {
        throw new Drover\Reject('it names no file');
    }
    [$from, $to] = [getenv('OUTBOX') . "/$file", getenv('SENT') . "/$file"];
    if (!@rename($from, $to) && !is_file($to)) {
        throw new Drover\Retry("$from cannot be moved to $to: " . error_get_last()['message']);
    }
});
