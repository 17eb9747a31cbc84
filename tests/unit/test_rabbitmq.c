/* SPDX-License-Identifier: MIT */
/*
 * The RabbitMQ plugin without a RabbitMQ: what its settings mean and which are refused; requests and
 * their answers (rpc.c) on a channel whose other end is a script; and logins at a peer of the
 * test's own that answers as it is told to, or does not.
 */
#include "../../plugins/brokers/rabbitmq/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "unit.h"

#include "base/banned.h"

#define SETTINGS_MAX 16

/* What rabbitmq.c does for the others. */

static char logged[512];

void rabbit_log(struct rabbit *rabbit, int level, const char *format, ...)
{
	va_list ap;

	(void)rabbit;
	(void)level;
	va_start(ap, format);
	vsnprintf(logged, sizeof logged, format, ap);
	va_end(ap);
}

void rabbit_watch(struct link *link)
{
	(void)link;
}

void rabbit_unwatch(struct link *link)
{
	(void)link;
}

void rabbit_soon(struct rabbit *rabbit)
{
	rabbit->soon = true;
}

void rabbit_changed(struct rabbit *rabbit)
{
	(void)rabbit;
}

/* A host with the settings of a test: "name=value", a list's items with spaces between them. */

static const char *const *given;
static const char *items[SETTINGS_MAX];
static char list_text[1024];

static const char *setting(const struct drover_host *host, const char *name)
{
	size_t size = strlen(name);

	(void)host;
	for (size_t i = 0; given[i]; i++)
		if (!strncmp(given[i], name, size) && given[i][size] == '=')
			return given[i] + size + 1;
	for (const struct drover_option *row = settings_options; row->name; row++)
		if (!strcmp(row->name, name))
			return row->fallback;
	return NULL;
}

static int64_t number(const struct drover_host *host, const char *name)
{
	const char *text = setting(host, name);
	char *unit;
	long long value;

	if (!text)
		return 0;
	if (!strcmp(text, "true"))
		return 1;
	value = strtoll(text, &unit, 10);
	return !strcmp(unit, "s") ? value * 1000 : !strcmp(unit, "K") ? value * 1024 : value;
}

static const char *const *list(const struct drover_host *host, const char *name)
{
	const char *text = setting(host, name);
	char *at = list_text, *item;
	size_t n = 0;

	snprintf(list_text, sizeof list_text, "%s", text ? text : "");
	while (n < SETTINGS_MAX - 1 && (item = strsep(&at, " ")))
		if (*item)
			items[n++] = item;
	items[n] = NULL;
	return items;
}

static const struct drover_host host = {
	.size = sizeof host,
	.setting = setting,
	.number = number,
	.list = list,
};

static int read_settings(const char *const *rows, struct settings *settings, struct fault *fault)
{
	given = rows;
	*fault = (struct fault){""};
	return settings_read(&host, settings, fault);
}

static void test_hosts(void **state)
{
	static const struct {
		const char *name, *tls, *port, *hosts;
		const char *host;
		int at;
		bool secure;
		const char *user, *password, *vhost;
	} rows[] = {
		{"default", "false", NULL, "", "localhost", 5672, false, NULL, NULL, NULL},
		{"tls", "true", NULL, "", "localhost", 5671, true, NULL, NULL, NULL},
		{"port", "false", "7000", "a", "a", 7000, false, NULL, NULL, NULL},
		{"own port", "false", "7000", "a:1", "a", 1, false, NULL, NULL, NULL},
		{"IPv6", "false", NULL, "::1", "::1", 5672, false, NULL, NULL, NULL},
		{"IPv6 port", "false", NULL, "[::1]:9", "::1", 9, false, NULL, NULL, NULL},
		{"URL", "false", NULL, "amqp://a", "a", 5672, false, NULL, NULL, NULL},
		{"secure", "false", NULL, "amqps://a", "a", 5671, true, NULL, NULL, NULL},
		{"all", "false", NULL, "amqp://u:p@a:9/v", "a", 9, false, "u", "p", "v"},
		{"no vhost", "false", NULL, "amqp://u@a/", "a", 5672, false, "u", NULL, NULL},
		{"escapes", "false", NULL, "amqp://u%40x:p%3a%2f@a/%2f", "a", 5672, false, "u@x",
		 "p:/", "/"},
		{"UTF-8", "false", NULL, "amqp://a/%C3%A9", "a", 5672, false, NULL, NULL, "é"},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		char tls[16], port[16], hosts[128];
		const char *settings_rows[] = {tls, hosts, rows[i].port ? port : NULL, NULL};
		struct settings settings;
		struct fault fault;
		const struct endpoint *endpoint;

		snprintf(tls, sizeof tls, "tls=%s", rows[i].tls);
		snprintf(port, sizeof port, "port=%s", rows[i].port ? rows[i].port : "");
		snprintf(hosts, sizeof hosts, "hosts=%s", rows[i].hosts);
		want_int_at(rows[i].name, "result", read_settings(settings_rows, &settings, &fault),
			    0, __FILE__, __LINE__);
		endpoint = &settings.hosts[0];
		assert_string_equal(endpoint->host, rows[i].host);
		assert_int_equal(endpoint->port, rows[i].at);
		assert_int_equal(endpoint->tls, rows[i].secure);
#define WANT(field)                                                                      \
	want_text_at(rows[i].name, #field, endpoint->field ? endpoint->field : "(none)", \
		     rows[i].field ? rows[i].field : "(none)", __FILE__, __LINE__)
		WANT(user);
		WANT(password);
		WANT(vhost);
#undef WANT
		settings_free(&settings);
	}
}

/* What discovery finds takes the place of the setting, with the rest of the settings; or nothing does. */
static void test_other_hosts(void **state)
{
	static const char *const rows[] = {"hosts=old", "port=7000", "tls=true", NULL};
	static const char *const good[] = {"a:1", "[::1]:2", "b"};
	static const char *const bad[] = {"c", "c:x"};
	struct settings settings;
	struct fault fault;

	(void)state;
	assert_int_equal(read_settings(rows, &settings, &fault), 0);
	assert_int_equal(settings_hosts(&host, &settings, good, 3, &fault), 0);
	assert_int_equal(settings.n_hosts, 3);
	assert_string_equal(settings.hosts[1].host, "::1");
	assert_int_equal(settings.hosts[1].port, 2);
	assert_int_equal(settings.hosts[2].port, 7000);
	assert_true(settings.hosts[0].tls);
	assert_int_equal(settings_hosts(&host, &settings, bad, 2, &fault), -EINVAL);
	assert_non_null(strstr(fault.sentence, "from 1 to 65535"));
	assert_int_equal(settings_hosts(&host, &settings, bad, 0, &fault), -EINVAL);
	assert_int_equal(settings.n_hosts, 3);
	assert_string_equal(settings.hosts[0].host, "a");
	settings_free(&settings);
}

static void test_refused_settings(void **state)
{
	static const struct {
		const char *rows[4];
		const char *said;
	} rows[] = {
		{{"hosts=a:0"}, "from 1 to 65535"},
		{{"hosts=a:65536"}, "from 1 to 65535"},
		{{"hosts=a:x"}, "from 1 to 65535"},
		{{"hosts=:5"}, "names no host"},
		{{"hosts=http://a"}, "amqps://user@host"},
		{{"hosts=amqp://u:swordfish%zz@a"}, "amqps://user@host"},
		{{"hosts=amqp://"}, "amqps://user@host"},
		{{"queue_type=lazy"}, "\"classic\" or \"quorum\""},
		{{"depths=http"}, "\"amqp\" or \"management\""},
		{{"depths=management"}, "management"},
		{{"password_file=/x", "credential=y"}, "one of them"},
		{{"credential=y"}, "LoadCredential"},
		{{"ca_file=/x"}, "tls = true"},
		{{"tls=true", "cert_file=/x"}, "go together"},
		{{"exchange="}, "default exchange"},
	};

	(void)state;
	unsetenv("CREDENTIALS_DIRECTORY");
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct settings settings;
		struct fault fault;

		want_int_at(rows[i].rows[0], "result",
			    read_settings(rows[i].rows, &settings, &fault), -EINVAL, __FILE__,
			    __LINE__);
		if (!strstr(fault.sentence, rows[i].said))
			fail_msg("%s: \"%s\" says nothing of \"%s\"", rows[i].rows[0],
				 fault.sentence, rows[i].said);
		assert_null(strstr(fault.sentence, "swordfish"));
	}
}

static void write_file(const char *path, const char *text, size_t size)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

static void test_passwords(void **state)
{
	static const struct {
		const char *name, *text;
		size_t size;
		const char *password; /* NULL: refused */
	} rows[] = {
		{"plain", "secret", 6, "secret"},
		{"a line", "secret\n", 7, "secret"},
		{"of Windows", "secret\r\n", 8, "secret"},
		{"spaces stay", " a b \n", 6, " a b "},
		{"one newline", "secret\n\n", 8, "secret\n"},
		{"nothing", "", 0, NULL},
		{"an empty line", "\n", 1, NULL},
		{"zero bytes", "a\0b", 3, NULL},
	};
	char path[] = "/tmp/test_rabbitmq.XXXXXX", row[64];
	int fd = mkstemp(path);
	const char *settings_rows[] = {row, NULL};
	struct settings settings;
	struct fault fault;
	char *password;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	snprintf(row, sizeof row, "password_file=%s", path);
	assert_int_equal(read_settings(settings_rows, &settings, &fault), 0);
	/* Read anew each time: a password that was changed counts. */
	for (size_t i = 0; i < ROWS(rows); i++) {
		write_file(path, rows[i].text, rows[i].size);
		password = NULL;
		want_int_at(rows[i].name, "result",
			    settings_password(&settings, &settings.hosts[0], &password, &fault),
			    rows[i].password ? 0 : -EINVAL, __FILE__, __LINE__);
		if (rows[i].password)
			want_text_at(rows[i].name, "password", password, rows[i].password, __FILE__,
				     __LINE__);
		free(password);
	}
	unlink(path);
	assert_int_equal(settings_password(&settings, &settings.hosts[0], &password, &fault),
			 -ENOENT);
	assert_non_null(strstr(fault.sentence, path));
	settings_free(&settings);
}

static void test_password_of_a_user(void **state)
{
	static const char *const guest[] = {NULL}, *const other[] = {"user=app", NULL};
	struct settings settings;
	struct fault fault;
	char *password;

	(void)state;
	assert_int_equal(read_settings(guest, &settings, &fault), 0);
	assert_int_equal(settings_password(&settings, &settings.hosts[0], &password, &fault), 0);
	assert_string_equal(password, "guest");
	free(password);
	settings_free(&settings);
	assert_int_equal(read_settings(other, &settings, &fault), 0);
	assert_int_equal(settings_password(&settings, &settings.hosts[0], &password, &fault),
			 -EINVAL);
	assert_non_null(strstr(fault.sentence, "password_file"));
	settings_free(&settings);
}

/* A broker that is a script. */

struct peer {
	int listen_fd, fd;
	unsigned char input[1 << 16];
	size_t size, taken; /* of what came */
};

static struct peer peer;
static struct rabbit rabbit;
static struct link *const broker = &rabbit.main;
static int n_up, n_down;
static enum link_loss loss;
static char sentence[256];

static void on_up(struct link *up)
{
	(void)up;
	n_up++;
}

static void on_down(struct link *down, enum link_loss why, const char *text)
{
	(void)down;
	n_down++;
	loss = why;
	snprintf(sentence, sizeof sentence, "%s", text);
}

static int set_up(void **state)
{
	static char row[64];
	static const char *const rows[] = {row, "heartbeat=2s", NULL};
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	struct fault fault;

	(void)state;
	peer = (struct peer){.listen_fd = socket(AF_INET, SOCK_STREAM, 0), .fd = -1};
	assert_int_equal(bind(peer.listen_fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(peer.listen_fd, 4), 0);
	getsockname(peer.listen_fd, (struct sockaddr *)&address, &size);
	snprintf(row, sizeof row, "hosts=127.0.0.1:%d", ntohs(address.sin_port));
	rabbit = (struct rabbit){.host = &host};
	assert_int_equal(read_settings(rows, &rabbit.settings, &fault), 0);
	link_init(broker, &rabbit, "testing");
	broker->up = on_up;
	broker->down = on_down;
	n_up = n_down = 0;
	*sentence = '\0';
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (peer.fd >= 0)
		close(peer.fd);
	peer.fd = -1;
	close(peer.listen_fd);
	link_close(broker);
	settings_free(&rabbit.settings);
	return 0;
}

static size_t frame(unsigned char *to, int type, int channel, const void *payload, size_t size)
{
	const unsigned char header[] = {(unsigned char)type,         (unsigned char)(channel >> 8),
					(unsigned char)channel,      (unsigned char)(size >> 24),
					(unsigned char)(size >> 16), (unsigned char)(size >> 8),
					(unsigned char)size};

	memcpy(to, header, sizeof header);
	if (size)
		memcpy(to + sizeof header, payload, size);
	to[sizeof header + size] = AMQP_FRAME_END;
	return size + FRAME_EXTRA;
}

static void say(const void *bytes, size_t size)
{
	assert_int_equal(send(peer.fd, bytes, size, MSG_NOSIGNAL), size);
}

static size_t method(unsigned char *to, int channel, amqp_method_number_t id, void *decoded)
{
	unsigned char payload[1024] = {(unsigned char)(id >> 24), (unsigned char)(id >> 16),
				       (unsigned char)(id >> 8), (unsigned char)id};
	int n = amqp_encode_method(id, decoded, (amqp_bytes_t){sizeof payload - 4, payload + 4});

	assert_true(n >= 0);
	return frame(to, AMQP_FRAME_METHOD, channel, payload, (size_t)n + 4);
}

static void say_method(int channel, amqp_method_number_t id, void *decoded)
{
	unsigned char bytes[2048];

	say(bytes, method(bytes, channel, id, decoded));
}

/* The next method that was sent to the peer; heartbeats are passed over. */
static amqp_method_number_t hear(void)
{
	for (;;) {
		struct pollfd poller = {.fd = peer.fd, .events = POLLIN};
		const unsigned char *at = peer.input + peer.taken;
		size_t size = peer.size - peer.taken, length = 0;
		ssize_t n;

		if (size >= 7)
			length = (size_t)at[3] << 24 | (size_t)at[4] << 16 | (size_t)at[5] << 8 |
				 at[6];
		if (size >= 7 && size >= length + FRAME_EXTRA) {
			peer.taken += length + FRAME_EXTRA;
			if (at[0] == AMQP_FRAME_METHOD)
				return (amqp_method_number_t)at[7] << 24 | (uint32_t)at[8] << 16 |
				       (uint32_t)at[9] << 8 | at[10];
			continue;
		}
		assert_int_equal(poll(&poller, 1, 5000), 1);
		n = recv(peer.fd, peer.input + peer.size, sizeof peer.input - peer.size, 0);
		assert_true(n > 0);
		peer.size += (size_t)n;
	}
}

static size_t start(unsigned char *to)
{
	amqp_table_entry_t version = {.key = amqp_cstring_bytes("version"),
				      .value = {.kind = AMQP_FIELD_KIND_UTF8,
						.value.bytes = amqp_cstring_bytes("4.1.2")}};
	amqp_connection_start_t greeting = {
		.version_minor = 9,
		.server_properties = {1, &version},
		.mechanisms = amqp_cstring_bytes("AMQPLAIN PLAIN"),
		.locales = amqp_cstring_bytes("en_US"),
	};

	return method(to, 0, AMQP_CONNECTION_START_METHOD, &greeting);
}

/*
 * The login waits for its peer, so that the peer is a child: it sends `bytes`, n of them, piece by
 * piece, each of the pieces when something came.
 */
struct piece {
	unsigned char bytes[2048];
	size_t size;
};

static pid_t play(const struct piece *pieces, size_t n)
{
	pid_t child = fork();

	assert_true(child >= 0);
	if (child)
		return child;
	peer.fd = accept(peer.listen_fd, NULL, NULL);
	for (size_t i = 0; i < n; i++) {
		if (recv(peer.fd, peer.input, sizeof peer.input, 0) <= 0)
			break;
		if (send(peer.fd, pieces[i].bytes, pieces[i].size, MSG_NOSIGNAL) < 0)
			break;
	}
	while (recv(peer.fd, peer.input, sizeof peer.input, 0) > 0)
		;
	_exit(0);
}

static void test_login_refusals(void **state)
{
	static struct piece pieces[3];
	amqp_connection_tune_t tune = {.channel_max = 2047, .frame_max = 131072, .heartbeat = 60};
	amqp_connection_close_t forbidden = {.reply_code = AMQP_ACCESS_REFUSED,
					     .reply_text = amqp_cstring_bytes("ACCESS_REFUSED")};
	amqp_connection_close_t no_vhost = {.reply_code = AMQP_NOT_ALLOWED,
					    .reply_text = amqp_cstring_bytes("vhost x not found")};
	amqp_connection_close_t down = {.reply_code = AMQP_NOT_ALLOWED,
					.reply_text = amqp_cstring_bytes("vhost '/' is down")};
	enum { PLAIN_BYTES, FORBIDDEN, TUNE, NO_VHOST, DOWN };
	const struct {
		const char *name, *bytes;
		size_t size;
		int kind;
		uint32_t frame_max;
		uint16_t channel_max;
		enum link_loss loss;
		const char *said;
	} rows[] = {
		{"AMQP 1.0", "AMQP\0\1\0\0", 8, PLAIN_BYTES, 0, 0, LINK_REFUSED, "AMQP 1.0.0"},
		{"TLS", "\x15\3\3\0\2\2\x46", 7, PLAIN_BYTES, 0, 0, LINK_REFUSED, "tls = true"},
		{"HTTP", "HTTP/1.1 400 Bad", 16, PLAIN_BYTES, 0, 0, LINK_REFUSED, "proper AMQP"},
		{"too short", "\1\0\0\0\0\0\0\xce", 8, PLAIN_BYTES, 0, 0, LINK_REFUSED,
		 "too short"},
		{"too long", "\1\0\0\x7f\xff\xff\xff", 7, PLAIN_BYTES, 0, 0, LINK_REFUSED,
		 "longer than agreed"},
		{"a password", NULL, 0, FORBIDDEN, 0, 0, LINK_REFUSED, "user \"guest\""},
		{"tiny frames", NULL, 0, TUNE, 8, 2047, LINK_REFUSED, "4096"},
		{"one channel", NULL, 0, TUNE, 131072, 1, LINK_REFUSED, "channel_max"},
		{"no vhost", NULL, 0, NO_VHOST, 131072, 2047, LINK_REFUSED, "vhost = \"/\""},
		{"vhost down", NULL, 0, DOWN, 131072, 2047, LINK_AWAY, "is down"},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		size_t n = 1;
		pid_t child;

		if (rows[i].bytes) {
			memcpy(pieces[0].bytes, rows[i].bytes, rows[i].size);
			pieces[0].size = rows[i].size;
		} else {
			pieces[0].size = start(pieces[0].bytes);
			tune.frame_max = rows[i].frame_max;
			tune.channel_max = rows[i].channel_max;
			pieces[1].size = rows[i].kind == FORBIDDEN
						 ? method(pieces[1].bytes, 0,
							  AMQP_CONNECTION_CLOSE_METHOD, &forbidden)
						 : method(pieces[1].bytes, 0,
							  AMQP_CONNECTION_TUNE_METHOD, &tune);
			pieces[2].size = method(pieces[2].bytes, 0, AMQP_CONNECTION_CLOSE_METHOD,
						rows[i].kind == DOWN ? &down : &no_vhost);
			n = rows[i].kind == NO_VHOST || rows[i].kind == DOWN ? 3 : 2;
		}
		n_down = 0;
		child = play(pieces, n);
		link_connect(broker);
		waitpid(child, NULL, 0);
		want_int_at(rows[i].name, "downs", n_down, 1, __FILE__, __LINE__);
		want_int_at(rows[i].name, "loss", loss, rows[i].loss, __FILE__, __LINE__);
		if (!strstr(sentence, rows[i].said))
			fail_msg("%s: \"%s\" says nothing of \"%s\"", rows[i].name, sentence,
				 rows[i].said);
	}
	assert_int_equal(n_up, 0);
}

static void test_a_login_is_bounded(void **state)
{
	static unsigned char beats[1 << 14];
	pid_t child;
	int64_t began;

	(void)state;
	for (size_t n = 0; n < sizeof beats;)
		n += frame(beats + n, AMQP_FRAME_HEARTBEAT, 0, NULL, 0);
	child = fork();
	if (!child) {
		unsigned char greeting[2048];

		peer.fd = accept(peer.listen_fd, NULL, NULL);
		say(greeting, start(greeting));
		while (send(peer.fd, beats, sizeof beats, MSG_NOSIGNAL) > 0)
			;
		_exit(0);
	}
	began = now_ms();
	link_connect(broker);
	assert_in_range(now_ms() - began, 0, rabbit.settings.connect_ms + 5000);
	assert_int_equal(n_down, 1);
	assert_int_equal(loss, LINK_AWAY);
	assert_null(broker->amqp);
	waitpid(child, NULL, 0);
}

/* A connection with one channel, both ends in our hands. */
static void connect_link(const struct channel_calls *calls)
{
	struct piece pieces[3];
	amqp_connection_tune_t tune = {.channel_max = 2047, .frame_max = 131072, .heartbeat = 60};
	amqp_connection_open_ok_t ok = {0};
	amqp_channel_open_ok_t opened = {0};
	int ends[2];
	pid_t child;

	pieces[0].size = start(pieces[0].bytes);
	pieces[1].size = method(pieces[1].bytes, 0, AMQP_CONNECTION_TUNE_METHOD, &tune);
	pieces[2].size = method(pieces[2].bytes, 0, AMQP_CONNECTION_OPEN_OK_METHOD, &ok);
	child = play(pieces, 3);
	link_connect(broker);
	assert_int_equal(n_up, 1);
	assert_string_equal(broker->version, "4.1.2");
	assert_int_equal(broker->server_major, 4);
	assert_int_equal(broker->frame_max, 65536);
	assert_int_equal(broker->beat_ms, 2000);
	/* The child has done its part; the rest is played here. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	assert_true(dup2(ends[0], broker->fd) >= 0);
	close(ends[0]);
	peer.fd = ends[1];
	fcntl(peer.fd, F_SETFL, 0);
	waitpid(child, NULL, 0);
	link_use(broker, CHANNEL_CONTROL, calls);
	assert_int_equal(hear(), AMQP_CHANNEL_OPEN_METHOD);
	say_method(1, AMQP_CHANNEL_OPEN_OK_METHOD, &opened);
	link_process(broker);
	assert_int_equal(broker->channels[1].state, CHANNEL_OPEN);
}

/* Requests. */

struct asked {
	struct rpc rpc;
	amqp_method_number_t id;
	int done, error;
	amqp_method_number_t answer;
};

static int send_asked(struct rpc *rpc, struct channel *channel)
{
	const struct asked *asked = rpc->cookie;
	amqp_queue_declare_t declare = {.queue = amqp_cstring_bytes("q"), .passive = 1};
	amqp_basic_get_t get = {.queue = amqp_cstring_bytes("q")};

	return link_send_method(channel, asked->id,
				asked->id == AMQP_BASIC_GET_METHOD ? (void *)&get
								   : (void *)&declare);
}

static void on_done(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct asked *asked = rpc->cookie;

	asked->done++;
	asked->error = reply->error;
	asked->answer = reply->method ? reply->method->id : 0;
}

static void ask(struct asked *asked, amqp_method_number_t id)
{
	*asked = (struct asked){.id = id};
	asked->rpc = (struct rpc){.send = send_asked, .done = on_done, .cookie = asked};
	rpc_start(&broker->channels[CHANNEL_CONTROL], &asked->rpc);
}

static const struct channel_calls no_calls;

static void test_answers(void **state)
{
	amqp_queue_declare_ok_t ok = {.queue = amqp_cstring_bytes("q"), .message_count = 7};
	amqp_basic_get_empty_t empty = {0};
	struct asked asked[3];

	(void)state;
	connect_link(&no_calls);
	ask(&asked[0], AMQP_QUEUE_DECLARE_METHOD);
	ask(&asked[1], AMQP_BASIC_GET_METHOD);
	ask(&asked[2], AMQP_QUEUE_DECLARE_METHOD);
	say_method(1, AMQP_QUEUE_DECLARE_OK_METHOD, &ok);
	say_method(1, AMQP_BASIC_GET_EMPTY_METHOD, &empty);
	link_process(broker);
	assert_int_equal(asked[0].answer, AMQP_QUEUE_DECLARE_OK_METHOD);
	assert_int_equal(asked[1].answer, AMQP_BASIC_GET_EMPTY_METHOD);
	assert_int_equal(asked[2].done, 0);
	/* Read as the answer to another question it would be read wrongly. */
	say_method(1, AMQP_BASIC_GET_EMPTY_METHOD, &empty);
	link_process(broker);
	assert_int_equal(n_down, 1);
	assert_int_equal(loss, LINK_REFUSED);
	assert_int_equal(asked[2].done, 1);
	assert_int_equal(asked[2].error, -ENOTCONN);
}

static void close_channel(amqp_method_number_t id, uint16_t code)
{
	amqp_channel_close_t close = {.reply_code = code,
				      .reply_text = amqp_cstring_bytes("no"),
				      .class_id = (uint16_t)(id >> 16),
				      .method_id = (uint16_t)id};
	amqp_channel_open_ok_t opened = {0};

	say_method(1, AMQP_CHANNEL_CLOSE_METHOD, &close);
	link_process(broker);
	assert_int_equal(hear(), AMQP_CHANNEL_CLOSE_OK_METHOD);
	assert_int_equal(hear(), AMQP_CHANNEL_OPEN_METHOD);
	say_method(1, AMQP_CHANNEL_OPEN_OK_METHOD, &opened);
	link_process(broker);
}

static void test_a_refused_request_takes_nobody_along(void **state)
{
	amqp_queue_declare_ok_t ok = {.queue = amqp_cstring_bytes("q")};
	struct asked asked[3];

	(void)state;
	connect_link(&no_calls);
	for (size_t i = 0; i < ROWS(asked); i++) {
		ask(&asked[i], AMQP_QUEUE_DECLARE_METHOD);
		assert_int_equal(hear(), AMQP_QUEUE_DECLARE_METHOD);
	}
	close_channel(AMQP_QUEUE_DECLARE_METHOD, AMQP_NOT_FOUND);
	assert_int_equal(asked[0].done, 1);
	assert_int_equal(asked[0].error, -ENOENT);
	for (size_t i = 1; i < ROWS(asked); i++) {
		assert_int_equal(asked[i].done, 0);
		assert_int_equal(hear(), AMQP_QUEUE_DECLARE_METHOD);
		say_method(1, AMQP_QUEUE_DECLARE_OK_METHOD, &ok);
	}
	link_process(broker);
	for (size_t i = 1; i < ROWS(asked); i++) {
		assert_int_equal(asked[i].done, 1);
		assert_int_equal(asked[i].error, 0);
	}
}

static void test_a_channel_closed_for_another_reason(void **state)
{
	struct asked asked;

	(void)state;
	connect_link(&no_calls);
	ask(&asked, AMQP_QUEUE_DECLARE_METHOD);
	assert_int_equal(hear(), AMQP_QUEUE_DECLARE_METHOD);
	for (int i = 0; i < 2; i++) {
		close_channel(AMQP_BASIC_ACK_METHOD, AMQP_PRECONDITION_FAILED);
		assert_int_equal(asked.done, 0);
		assert_int_equal(hear(), AMQP_QUEUE_DECLARE_METHOD);
	}
	/* But not for ever. */
	close_channel(AMQP_BASIC_ACK_METHOD, AMQP_PRECONDITION_FAILED);
	assert_int_equal(asked.done, 1);
	assert_int_equal(asked.error, -EEXIST);
}

static void test_requests_of_a_lost_connection(void **state)
{
	struct asked asked[2];

	(void)state;
	connect_link(&no_calls);
	ask(&asked[0], AMQP_QUEUE_DECLARE_METHOD);
	close(peer.fd);
	peer.fd = -1;
	link_process(broker);
	assert_int_equal(n_down, 1);
	assert_int_equal(loss, LINK_AWAY);
	assert_int_equal(asked[0].done, 1);
	assert_int_equal(asked[0].error, -ENOTCONN);
	ask(&asked[1], AMQP_QUEUE_DECLARE_METHOD);
	assert_int_equal(asked[1].error, -ENOTCONN);
}

/* Messages. */

static struct content got;
static uint64_t got_tag;
static char got_header[32];
static int n_got;

static void on_content(struct channel *channel, struct content *content)
{
	const amqp_basic_deliver_t *deliver = content->method.decoded;

	(void)channel;
	free(got.body);
	got = *content;
	content->body = NULL;
	got_tag = deliver->delivery_tag;
	link_copy_text(got_header, sizeof got_header, content->properties->message_id);
	n_got++;
}

static const struct channel_calls content_calls = {.content = on_content};

static void say_message(uint64_t tag, uint64_t size)
{
	amqp_basic_deliver_t deliver = {.consumer_tag = amqp_cstring_bytes("c"),
					.delivery_tag = tag};
	amqp_basic_properties_t properties = {._flags = AMQP_BASIC_MESSAGE_ID_FLAG,
					      .message_id = amqp_cstring_bytes("an id")};
	unsigned char payload[256] = {0, AMQP_BASIC_CLASS}, bytes[512];
	int n = amqp_encode_properties(AMQP_BASIC_CLASS, &properties,
				       (amqp_bytes_t){sizeof payload - 12, payload + 12});

	for (int i = 0; i < 8; i++)
		payload[4 + i] = (unsigned char)(size >> 8 * (7 - i));
	say_method(1, AMQP_BASIC_DELIVER_METHOD, &deliver);
	say(bytes, frame(bytes, AMQP_FRAME_HEADER, 1, payload, 12 + (size_t)n));
}

static void say_body(const void *data, size_t size)
{
	unsigned char *bytes = malloc(size + FRAME_EXTRA);

	assert_non_null(bytes);
	say(bytes, frame(bytes, AMQP_FRAME_BODY, 1, data, size));
	free(bytes);
}

static void test_messages(void **state)
{
	static unsigned char body[30000];

	(void)state;
	n_got = 0;
	connect_link(&content_calls);
	for (size_t i = 0; i < sizeof body; i++)
		body[i] = (unsigned char)(i * 7);
	say_message(1, 0);
	link_process(broker);
	assert_int_equal(n_got, 1);
	assert_int_equal(got.size, 0);
	/* In many frames, with the loop in between, and what it says still there at the end. */
	say_message(2, sizeof body);
	for (size_t at = 0; at < sizeof body; at += 10000) {
		assert_int_equal(n_got, 1);
		say_body(body + at, 10000);
		link_process(broker);
	}
	assert_int_equal(n_got, 2);
	assert_int_equal(got_tag, 2);
	assert_string_equal(got_header, "an id");
	assert_int_equal(got.size, sizeof body);
	assert_memory_equal(got.body, body, sizeof body);
	free(got.body);
	got.body = NULL;
}

static void test_bad_messages(void **state)
{
	static const struct {
		const char *name;
		uint64_t size;
		size_t body; /* that is sent */
		bool method; /* in the middle of it */
		const char *said;
	} rows[] = {
		{"longer than promised", 5, 6, false, "longer"},
		{"more than any", UINT64_MAX, 0, false, "512"},
		{"a method in the middle", 5, 2, true, "middle"},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		amqp_basic_ack_t ack = {0};

		n_up = n_down = n_got = 0;
		connect_link(&content_calls);
		say_message(1, rows[i].size);
		if (rows[i].body)
			say_body("0123456789", rows[i].body);
		if (rows[i].method)
			say_method(1, AMQP_BASIC_ACK_METHOD, &ack);
		link_process(broker);
		want_int_at(rows[i].name, "downs", n_down, 1, __FILE__, __LINE__);
		want_int_at(rows[i].name, "loss", loss, LINK_REFUSED, __FILE__, __LINE__);
		want_int_at(rows[i].name, "messages", n_got, 0, __FILE__, __LINE__);
		if (!strstr(sentence, rows[i].said))
			fail_msg("%s: \"%s\"", rows[i].name, sentence);
		close(peer.fd);
		peer.fd = -1;
		peer.size = peer.taken = 0;
	}
}

/* Promised, but not sent: memory is taken as it comes. */
static void test_a_promise_takes_no_memory(void **state)
{
	(void)state;
	connect_link(&content_calls);
	say_message(1, 500 << 20);
	say_body("0123456789", 10);
	link_process(broker);
	assert_int_equal(n_down, 0);
	assert_in_range(broker->channels[1].room, 10, 1 << 20);
}

static void test_room_and_heartbeats(void **state)
{
	static char body[60000];
	int n = 0, r;

	(void)state;
	connect_link(&no_calls);
	/* Nobody reads: it ends with -EAGAIN, and at once. */
	while ((r = link_send_body(&broker->channels[1], body, sizeof body)) == 0)
		n++;
	assert_int_equal(r, -EAGAIN);
	assert_in_range(n, 1, 1000);
	assert_true(link_wants(broker) & POLLOUT);
	while (recv(peer.fd, peer.input, sizeof peer.input, MSG_DONTWAIT) > 0)
		;
	peer.size = peer.taken = 0;
	link_process(broker);
	assert_false(link_wants(broker) & POLLOUT);
	/* In time also while nothing is read, and when all is silent it is lost. */
	link_pause(broker, true);
	broker->sent_ms = now_ms() - 1001;
	broker->heard_ms = now_ms() - 60000;
	assert_true(link_due_ms(broker) <= now_ms());
	link_process(broker);
	assert_int_equal(recv(peer.fd, peer.input, sizeof peer.input, MSG_DONTWAIT), 8);
	assert_int_equal(peer.input[0], AMQP_FRAME_HEARTBEAT);
	assert_int_equal(n_down, 0);
	link_pause(broker, false);
	broker->heard_ms = now_ms() - 5001;
	link_process(broker);
	assert_int_equal(n_down, 1);
	assert_int_equal(loss, LINK_AWAY);
}

static void test_hangup_while_paused(void **state)
{
	(void)state;
	connect_link(&no_calls);
	link_pause(broker, true);
	close(peer.fd);
	peer.fd = -1;
	link_process(broker);
	assert_int_equal(n_down, 1);
}

int main(void)
{
#define WITH_PEER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_other_hosts),
		cmocka_unit_test(test_refused_settings),
		cmocka_unit_test(test_passwords),
		cmocka_unit_test(test_password_of_a_user),
		WITH_PEER(test_login_refusals),
		WITH_PEER(test_a_login_is_bounded),
		WITH_PEER(test_answers),
		WITH_PEER(test_a_refused_request_takes_nobody_along),
		WITH_PEER(test_a_channel_closed_for_another_reason),
		WITH_PEER(test_requests_of_a_lost_connection),
		WITH_PEER(test_messages),
		WITH_PEER(test_bad_messages),
		WITH_PEER(test_a_promise_takes_no_memory),
		WITH_PEER(test_room_and_heartbeats),
		WITH_PEER(test_hangup_while_paused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
