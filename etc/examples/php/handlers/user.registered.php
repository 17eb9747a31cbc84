<?php

/**
 * Writes a welcome mail for every new user into the directory OUTBOX, and tells that it is there.
 *
 *     {"user_id": 1, "name": "Ada Lovelace", "email": "ada@example.org"}
 *
 * The file is named after the event, and what it emits has an id that derives from it: an event that
 * comes twice leaves one mail, and tells the same thing again.
 */

declare(strict_types=1);

require_once __DIR__ . '/../drover.php';
require_once __DIR__ . '/../Outbox.php';

$outbox = new Shop\Outbox(getenv('OUTBOX') ?: throw new RuntimeException('OUTBOX is not set: name a directory for it'));

Drover\run(static function (Drover\Event $event) use ($outbox): void {
    ['name' => $name, 'email' => $address] = (array) $event->data() + ['name' => null, 'email' => null];
    // Trying again gives an event no address: it is for a person to look at.
    if (!is_string($name) || !is_string($address) || strpbrk($name . $address, "\r\n<>") !== false) {
        throw new Drover\Reject('no name and mail address in it');
    }
    $file = $outbox->put($event->id, "$name <$address>", 'Welcome', "Dear $name,\ngood to have you with us.\n");
    $event->emit('mail.queued', ['file' => $file, 'to' => $address], ['subject' => $event->subject ?? $address]);
});
