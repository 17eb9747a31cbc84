<?php

declare(strict_types=1);

namespace Shop;

use PhpAmqpLib\Connection\AbstractConnection;
use PhpAmqpLib\Connection\AMQPConnectionConfig;
use PhpAmqpLib\Connection\AMQPConnectionFactory;

/** Where RabbitMQ is, as Producer.php and Consumer.php are told on their command lines. */
final class Broker
{
    public const OPTIONS = [
        'host' => '127.0.0.1', 'port' => '5672', 'vhost' => '/', 'user' => 'guest', 'password-file' => '', 'name' => '',
    ];
    public const USAGE = <<<'TEXT'
          --host=HOST            of RabbitMQ; default 127.0.0.1
          --port=PORT            default 5672
          --vhost=VHOST          default /
          --user=USER            default guest
          --password-file=FILE   whose first line is the password; default: the password is guest
          --name=NAME            of the connection, as the management shows it
        TEXT;

    /** @param array<string, string> $options */
    public static function connect(array $options): AbstractConnection
    {
        $config = new AMQPConnectionConfig();
        $config->setHost($options['host']);
        $config->setPort((int) $options['port']);
        $config->setVhost($options['vhost']);
        $config->setUser($options['user']);
        $config->setPassword(self::password($options['password-file']));
        $config->setConnectionName($options['name'] ?: basename($_SERVER['SCRIPT_NAME']));
        // A broker that is gone without a word is noticed within 20 seconds.
        $config->setHeartbeat(10);
        $config->setReadTimeout(20);
        $config->setWriteTimeout(20);
        $config->setKeepalive(true);
        return AMQPConnectionFactory::create($config);
    }

    /**
     * The options of a command line; says what is wrong with it and exits.
     *
     * @param array<string, string> $known names and defaults
     * @return array<string, string>
     */
    public static function options(array $known, string $usage): array
    {
        $name = $_SERVER['SCRIPT_NAME'];
        $known += self::OPTIONS;
        $options = $known;
        foreach (array_slice($_SERVER['argv'], 1) as $word) {
            if ($word === '--help') {
                echo $usage, self::USAGE, "\n";
                exit(0);
            }
            if (!preg_match('/\A--([a-z-]+)=(.*)\z/s', $word, $found) || !isset($known[$found[1]])) {
                fwrite(STDERR, "$name: there is no option \"$word\"\n\n$usage" . self::USAGE . "\n");
                exit(64);
            }
            if (is_numeric($known[$found[1]]) && !ctype_digit($found[2])) {
                fwrite(STDERR, "$name: --{$found[1]} is \"{$found[2]}\"; a whole number is needed\n");
                exit(64);
            }
            $options[$found[1]] = $found[2];
        }
        return $options;
    }

    private static function password(string $file): string
    {
        if ($file === '') {
            return 'guest';
        }
        $password = @file_get_contents($file);
        if ($password === false) {
            fwrite(STDERR, "{$_SERVER['SCRIPT_NAME']}: the password file $file cannot be read\n");
            exit(66);
        }
        return strtok($password, "\r\n") ?: '';
    }
}
