<?php

/**
 * Books every payment in the ledger LEDGER, once.
 *
 *     {"order": 1001, "amount": 1990, "method": "card"}          (the amount is in cents)
 *
 * The file's name says which type of event it serves; drover.conf beside it, where the ledger is.
 */

declare(strict_types=1);

require_once __DIR__ . '/../drover.php';
require_once __DIR__ . '/../Ledger.php';

$ledger = new Shop\Ledger(getenv('LEDGER') ?: throw new RuntimeException('LEDGER is not set: name a file for it'));

Drover\run(static function (Drover\Event $event) use ($ledger): void {
    ['order' => $order, 'amount' => $cents, 'method' => $method] = (array) $event->data()
        + ['order' => null, 'amount' => null, 'method' => null];
    if (!is_int($order) || $order < 0) {
        throw new Drover\Reject('its order is not a number from 0 on');
    }
    if (!is_int($cents) || $cents < 0) {
        throw new Drover\Reject("order $order: the amount must be a whole number of cents from 0 on");
    }
    // On purpose: an invoice is confirmed by the bank at the third try.
    if ($method === 'invoice' && $event->attempt < 3) {
        throw new Drover\Retry("the bank has not confirmed order $order yet, at attempt {$event->attempt}");
    }
    if (!$ledger->book($event->source, $event->id, $order, $cents)) {
        echo "order $order was booked before\n";
    }
});
