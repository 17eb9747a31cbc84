<?php

/**
 * Handlers for Drover in PHP: one process that lives for many events (mode = "stream").
 *
 *     require __DIR__ . '/../drover.php';
 *
 *     $database = new PDO(...);                       // once, before the first event
 *
 *     Drover\run(function (Drover\Event $event) use ($database): void {
 *         $order = $event->data();
 *         if (!isset($order['order'])) {
 *             throw new Drover\Reject('it has no order');     // a dead letter at once
 *         }
 *         if (!carrier_answers()) {
 *             throw new Drover\Retry('the carrier does not answer', 30);  // again in 30 seconds
 *         }
 *         $event->emit('receipt.due', ['order' => $order['order']]);
 *     });                                             // returned: the event is done
 *
 * Any other exception or error is a failed attempt, with its message as the reason. What is printed
 * is logged; a line that begins with <3> (error) to <7> (debug) has that priority. The handler ends
 * when Drover says so or at SIGTERM, in both cases not before the event in hand has its verdict.
 *
 * This file speaks the protocol of drover-handler(7): events come in on descriptor 3, verdicts and
 * emitted events go out on descriptor 4. It needs PHP 8.1; pcntl, where it is there, for SIGTERM.
 */

declare(strict_types=1);

namespace Drover;

/** Thrown by a handler: not now, but later. */
final class Retry extends \RuntimeException
{
    /** @param float|null $delay in seconds; null: as the type's `retry` says */
    public function __construct(string $reason, public readonly ?float $delay = null, ?\Throwable $previous = null)
    {
        parent::__construct($reason, 0, $previous);
    }
}

/** Thrown by a handler: never, for trying again would not help. The event becomes a dead letter. */
final class Reject extends \RuntimeException
{
    public function __construct(string $reason, ?\Throwable $previous = null)
    {
        parent::__construct($reason, 0, $previous);
    }
}

/** An event in a handler's hand. */
final class Event
{
    public readonly string $id;
    public readonly string $source;
    public readonly string $type;
    public readonly ?string $time;
    public readonly ?string $subject;
    public readonly ?string $datacontenttype;
    public readonly ?string $traceparent;
    /** 1 for the first try. */
    public readonly int $attempt;

    /** @var list<string> lines for descriptor 4, written together with the verdict */
    private array $emitted = [];

    /**
     * @internal
     * @param array<string, string|int> $attributes
     * @param string $raw the member `data` or `data_base64` as it came, '' when there is none
     */
    public function __construct(
        private readonly Channel $channel,
        private readonly array $attributes,
        private readonly string $raw,
        private readonly bool $binary
    ) {
        $this->id = $attributes['id'] ?? '';
        $this->source = $attributes['source'] ?? '';
        $this->type = $attributes['type'] ?? '';
        $this->time = $attributes['time'] ?? null;
        $this->subject = $attributes['subject'] ?? null;
        $this->datacontenttype = $attributes['datacontenttype'] ?? null;
        $this->traceparent = $attributes['traceparent'] ?? null;
        $this->attempt = $attributes['attempt'] ?? 1;
    }

    /** An attribute by name, also one that CloudEvents does not define; null when it has none. */
    public function attribute(string $name): ?string
    {
        return isset($this->attributes[$name]) ? (string) $this->attributes[$name] : null;
    }

    /**
     * The body, byte for byte; but newlines between the parts of a JSON body are spaces, and a body that is one JSON
     * string and does not say so is that string.
     */
    public function body(): string
    {
        if ($this->binary) {
            return base64_decode(substr($this->raw, 1, -1));
        }
        $text = $this->datacontenttype === null ? str_starts_with($this->raw, '"') : !is_json($this->datacontenttype);
        return $text && $this->raw !== '' ? $this->decode() : $this->raw;
    }

    /**
     * The body as a value: decoded if it is JSON, objects as arrays; else its text or bytes. Null when there is none.
     *
     * @throws Reject when it should be JSON and is not: it will never be
     */
    public function data(): mixed
    {
        if (!$this->binary) {
            return $this->raw === '' ? null : $this->decode();
        }
        if (is_json($this->datacontenttype) && $this->datacontenttype !== null) {
            throw new Reject("its body is not {$this->datacontenttype}, as it says");
        }
        return $this->body();
    }

    /**
     * Publishes an event when this one is done, and only then.
     *
     * Its id derives from this event's, so that this one emits the same event when it comes again.
     *
     * @param mixed $data what becomes JSON; null: no body. With a `datacontenttype` that is not JSON: a string, taken
     *     byte for byte
     * @param array<string, string|int|float> $attributes `subject`, `datacontenttype`, `time`, `id`, … and your own
     */
    public function emit(string $type, mixed $data = null, array $attributes = []): void
    {
        $event = ['type' => $type] + $attributes;
        $content_type = $attributes['datacontenttype'] ?? null;
        if (is_json($content_type)) {
            $event += $data === null ? [] : ['data' => $data];
        } elseif (!is_string($data)) {
            throw new \InvalidArgumentException("$type: data of the type $content_type must be a string");
        } elseif (preg_match('/\A[^\0]*\z/u', $data) === 1) {
            $event += ['data' => $data];
        } else {
            $event += ['data_base64' => base64_encode($data)];
        }
        $this->emitted[] = encode(['emit' => $event]);
    }

    /** Moves the end of the time that the event has to this many seconds from now, at most the type's `timeout`. */
    public function extend(float $seconds): void
    {
        $this->channel->write(encode(['extend' => duration($seconds)]));
    }

    /**
     * @internal
     * @return list<string>
     */
    public function emitted(): array
    {
        return $this->emitted;
    }

    private function decode(): mixed
    {
        try {
            return json_decode($this->raw, true, 1024, JSON_THROW_ON_ERROR | JSON_BIGINT_AS_STRING);
        } catch (\JsonException $e) {
            throw new Reject("its body is JSON that PHP cannot read: {$e->getMessage()}", $e);
        }
    }
}

/**
 * The descriptors that Drover gives to a handler.
 *
 * @internal
 */
final class Channel
{
    /** Whether it was asked to end. */
    public bool $ending = false;

    /** @var resource */
    private $events;
    /** @var resource */
    private $verdicts;

    public function __construct()
    {
        $events = @fopen('php://fd/3', 'r');
        $verdicts = @fopen('php://fd/4', 'w');
        if (!$events || !$verdicts || (fstat($events)['mode'] & 0170000) !== 0010000) {
            fwrite(STDERR, "This is a handler for Drover: events come by a pipe on descriptor 3, which is none. Try\n"
                . "    droverctl try {$_SERVER['SCRIPT_NAME']} --mode stream --event FILE\n");
            exit(64);
        }
        stream_set_chunk_size($events, 65536);
        $this->events = $events;
        $this->verdicts = $verdicts;
    }

    /** The next event; null when there is none any more. */
    public function next(): ?Event
    {
        // Only here can a signal end the waiting: reads go on after one.
        do {
            if ($this->ending) {
                return null;
            }
            [$ready, $write, $except] = [[$this->events], null, null];
        } while (!@stream_select($ready, $write, $except, null));
        $line = '';
        while (!str_ends_with($line, "\n")) {
            $part = fgets($this->events);
            if ($part === false) {
                return null;
            }
            $line .= $part;
        }
        return $this->parse($line);
    }

    /** The verdict of an event, with all that it emitted. */
    public function answer(Event $event, string $verdict, string $reason = '', ?float $delay = null): void
    {
        $answer = ['verdict' => $verdict];
        // An id with bytes that are no text came changed, and would not be known again.
        if (!str_contains($event->id, "\u{FFFD}")) {
            $answer['id'] = $event->id;
        }
        if ($reason !== '') {
            $answer['reason'] = substr($reason, 0, 2000);
        }
        if ($delay !== null) {
            $answer['delay'] = duration($delay);
        }
        $line = json_encode($answer, JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_SLASHES) . "\n";
        $this->write($verdict === 'done' ? implode('', $event->emitted()) . $line : $line);
    }

    public function write(string $text): void
    {
        while ($text !== '') {
            $written = @fwrite($this->verdicts, $text);
            if (!$written) {
                fwrite(STDERR, "<3>Drover does not read descriptor 4 any more\n");
                exit(1);
            }
            $text = substr($text, $written);
        }
    }

    /** The body stays as it is until it is asked for: most of the line, and of no use to some handlers. */
    private function parse(string $line): Event
    {
        $line = rtrim($line, "\n");
        $raw = '';
        $binary = false;
        // It is the last member, and no text before it can hold a bare quote.
        if (preg_match('/,"(data|data_base64)":/', $line, $found, PREG_OFFSET_CAPTURE)) {
            $from = $found[0][1];
            $raw = substr($line, $from + strlen($found[0][0]), -1);
            $binary = $found[1][0] === 'data_base64';
            $line = substr($line, 0, $from) . '}';
        }
        return new Event($this, json_decode($line, true, 4, JSON_THROW_ON_ERROR), $raw, $binary);
    }
}

/**
 * Hands events to the handler, one at a time, until there are no more.
 *
 * @param callable(Event): void $handler
 */
function run(callable $handler): void
{
    $channel = new Channel();
    $event = null;
    if (function_exists('pcntl_async_signals')) {
        pcntl_async_signals(true);
        pcntl_signal(SIGTERM, static function () use ($channel): void {
            $channel->ending = true;
        });
    }
    // An error that PHP does not survive, or an exit() in the handler: the event still has its verdict.
    register_shutdown_function(static function () use ($channel, &$event): void {
        if ($event !== null) {
            $error = error_get_last();
            $fatal = ($error['type'] ?? 0) & (E_ERROR | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR);
            $channel->answer($event, 'retry', $fatal
                ? "{$error['message']} ({$error['file']}:{$error['line']})"
                : 'the handler called exit() before it was done with the event');
        }
    });
    while ($event = $channel->next()) {
        try {
            $handler($event);
            $channel->answer($event, 'done');
        } catch (Retry $e) {
            $channel->answer($event, 'retry', $e->getMessage(), $e->delay);
        } catch (Reject $e) {
            $channel->answer($event, 'reject', $e->getMessage());
        } catch (\Throwable $e) {
            fwrite(STDERR, preg_replace('/^/m', '<3>', (string) $e) . "\n");
            $channel->answer($event, 'retry', get_class($e) . ": {$e->getMessage()} ({$e->getFile()}:{$e->getLine()})");
        }
        $event = null;
    }
}

/** @internal Whether a body of this type is JSON; one that does not say is. */
function is_json(?string $content_type): bool
{
    return $content_type === null || preg_match('~^[^; ]*[/+]json(?:[; ]|$)~i', $content_type) === 1;
}

/** @internal */
function duration(float $seconds): string
{
    return max(0, (int) round($seconds * 1000)) . 'ms';
}

/**
 * @internal
 * @param array<string, mixed> $line
 * @throws \JsonException when there is no JSON for it, such as for a text that is not UTF-8
 */
function encode(array $line): string
{
    return json_encode($line, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE
        | JSON_PRESERVE_ZERO_FRACTION) . "\n";
}
