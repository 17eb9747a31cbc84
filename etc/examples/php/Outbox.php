<?php

declare(strict_types=1);

namespace Shop;

/** A directory of mails to be sent, a file each. */
final class Outbox
{
    public function __construct(private readonly string $directory)
    {
        if (!is_dir($directory)) {
            throw new \RuntimeException("the outbox $directory is no directory");
        }
    }

    /**
     * Writes a mail, whole or not at all; the same name again gives the same file. Returns the file's name.
     *
     * @param string $name any text
     */
    public function put(string $name, string $to, string $subject, string $text): string
    {
        $name = rawurlencode($name) . '.eml';
        $temporary = "{$this->directory}/." . getmypid() . '.tmp';
        $mail = "From: The shop <shop@example.org>\nTo: $to\nSubject: $subject\n\n$text";
        $file = @fopen($temporary, 'w');
        if (
            !$file || @fwrite($file, $mail) !== strlen($mail) || !fflush($file) || !fsync($file) || !fclose($file)
            || !@rename($temporary, "{$this->directory}/$name")
        ) {
            throw new \RuntimeException("$name cannot be written in {$this->directory}: "
                . (error_get_last()['message'] ?? 'it is not said why'));
        }
        return $name;
    }
}
