<?php

declare(strict_types=1);

namespace Shop;

/**
 * The shop's ledger: a file with a line of JSON for each payment, written under a lock and to the disk.
 *
 * A payment's line holds the source and id of the event that told of it, so the effect and the knowledge of it are one
 * write: an event that comes twice, as after a crash it can, is booked once. In a database the same is one transaction:
 *
 *     $database->beginTransaction();
 *     $insert = $database->prepare('INSERT INTO handled (source, id) VALUES (?, ?) ON CONFLICT DO NOTHING');
 *     $insert->execute([$event->source, $event->id]);
 *     if ($insert->rowCount() === 1) {
 *         // the effect, in the same database
 *     }
 *     $database->commit();
 */
final class Ledger
{
    /** @var resource */
    private $file;
    /** @var array<string, true> what is in the file, up to $end */
    private array $booked = [];
    private int $end = 0;

    public function __construct(private readonly string $path)
    {
        $file = @fopen($path, 'c+');
        if (!$file) {
            throw new \RuntimeException("the ledger $path cannot be opened: " . (error_get_last()['message'] ?? ''));
        }
        $this->file = $file;
    }

    /**
     * Books a payment; false when it was booked before.
     *
     * @throws \RuntimeException when it is not booked and cannot be
     */
    public function book(string $source, string $id, int $order, int $cents): bool
    {
        if (!flock($this->file, LOCK_EX)) {
            throw new \RuntimeException("the ledger {$this->path} cannot be locked");
        }
        try {
            $this->read();
            $key = "$source\n$id";
            if (isset($this->booked[$key])) {
                return false;
            }
            $this->append(json_encode([
                'source' => $source, 'id' => $id, 'order' => $order, 'cents' => $cents,
                'booked' => gmdate('Y-m-d\TH:i:s\Z'), 'pid' => getmypid(),
            ], JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES) . "\n");
            $this->booked[$key] = true;
            return true;
        } finally {
            flock($this->file, LOCK_UN);
        }
    }

    /** What others have booked since. A line without an end is of one who died while he wrote it: it is none. */
    private function read(): void
    {
        fseek($this->file, $this->end);
        while (($line = fgets($this->file)) !== false && str_ends_with($line, "\n")) {
            $payment = json_decode($line, true, 8, JSON_THROW_ON_ERROR);
            $this->booked["{$payment['source']}\n{$payment['id']}"] = true;
            $this->end += strlen($line);
        }
        if ($line !== false) {
            ftruncate($this->file, $this->end);
        }
    }

    private function append(string $line): void
    {
        fseek($this->file, $this->end);
        if (@fwrite($this->file, $line) !== strlen($line) || !fflush($this->file) || !fdatasync($this->file)) {
            ftruncate($this->file, $this->end);
            throw new \RuntimeException("the ledger {$this->path} cannot be written: "
                . (error_get_last()['message'] ?? 'it is not said why'));
        }
        $this->end += strlen($line);
    }
}
