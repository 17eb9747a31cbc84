<?php

/** php-amqplib by composer, else Debian's package. Handlers under Drover need neither. */

declare(strict_types=1);

foreach ([__DIR__ . '/vendor/autoload.php', stream_resolve_include_path('PhpAmqpLib/autoload.php')] as $file) {
    if ($file && is_file($file)) {
        require_once $file;
        return;
    }
}
fwrite(STDERR, "php-amqplib is missing: run `composer install` in " . __DIR__ . ", or `apt install php-amqplib`\n");
exit(69);
