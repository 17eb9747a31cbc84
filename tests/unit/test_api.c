/* SPDX-License-Identifier: MIT */
/*
 * The api role as the real program: this test is its supervisor, its errand and its clients. Every
 * wait is for a condition and has a deadline.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "policy/histogram.h"
#include "system/channel.h"
#include "system/message.h"
#include "system/protocol.h"

#include "base/banned.h"

#define DEADLINE_MS 10000

struct fixture {
	pid_t api;
	struct channel channel;
	struct sockaddr_un address;
	struct message_view view; /* of the last message received */
	int fds[CHANNEL_FDS_MAX];
	size_t n_fds;
};

/* The next message of a channel that is not one of the api's pongs. */
static bool receive(struct fixture *f, struct channel *channel, int64_t wait_ms)
{
	int64_t deadline_ms = clock_now_ms() + wait_ms;

	for (;;) {
		struct pollfd poller = {channel->fd, POLLIN, 0};
		int r = channel_receive(channel, &f->view, f->fds, &f->n_fds);

		if (r != 0)
			return r > 0;
		if (poll(&poller, 1, (int)(deadline_ms - clock_now_ms())) <= 0)
			return false;
	}
}

static void expect(struct fixture *f, struct channel *channel, const char *verb)
{
	if (!receive(f, channel, DEADLINE_MS))
		fail_msg("no \"%s\" within %d ms", verb, DEADLINE_MS);
	assert_string_equal(f->view.verb, verb);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct message message = {0};
	char directory[] = "/tmp/drover-api-XXXXXX";
	const char *program = getenv("DROVER_API");
	int pair[2], listener;

	*state = f;
	assert_non_null(mkdtemp(directory));
	f->address.sun_family = AF_UNIX;
	snprintf(f->address.sun_path, sizeof f->address.sun_path, "%s/control.sock", directory);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&f->address, sizeof f->address), 0);
	assert_int_equal(listen(listener, 128), 0);
	assert_int_equal(channel_pair(pair), 0);
	f->api = fork();
	if (!f->api) {
		fcntl(pair[1], F_SETFD, 0);
		if (dup2(pair[1], PROTOCOL_CHANNEL_FD) < 0)
			_exit(127);
		execl(program ? program : "supervisor/api", "drover: api test", (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	channel_open(&f->channel, pair[0]);
	message_start(&message, "setup");
	message_add_text(&message, "node", "here");
	message_add_text(&message, "version", "1.2.3");
	assert_int_equal(channel_send(&f->channel, &message, &listener, 1), 0);
	message_free(&message);
	expect(f, &f->channel, "ready");
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	channel_close(&f->channel);
	assert_int_equal(waitpid(f->api, &status, 0), f->api);
	assert_int_equal(status, 0); /* also: no sanitizer complained */
	unlink(f->address.sun_path);
	*strrchr(f->address.sun_path, '/') = '\0';
	rmdir(f->address.sun_path);
	free(f);
	return 0;
}

/* Clients. */

static int dial(const struct fixture *f)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (const struct sockaddr *)&f->address, sizeof f->address), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int request(const struct fixture *f, const char *line)
{
	int fd = dial(f);
	char text[512];

	snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: drover\r\nConnection: close\r\n\r\n",
		 line);
	say(fd, text);
	return fd;
}

/* All that comes until the other end closes; the text belongs to the caller's buffer. */
static const char *hear(int fd, struct buf *text)
{
	int64_t deadline_ms = clock_now_ms() + DEADLINE_MS;

	buf_clear(text);
	for (;;) {
		struct pollfd poller = {fd, POLLIN, 0};
		char data[4096];
		ssize_t size;

		if (poll(&poller, 1, (int)(deadline_ms - clock_now_ms())) <= 0)
			fail_msg("the answer has no end: %s", buf_text(text));
		size = recv(fd, data, sizeof data, 0);
		if (size <= 0)
			break;
		buf_append(text, data, (size_t)size);
	}
	close(fd);
	return buf_text(text);
}

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("\"%s\" is not in: %s", part, text);
}

/* The supervisor's side. */

static void row_start(struct message *row, int64_t ask, const char *kind)
{
	message_start(row, "row");
	message_add_int(row, "ask", ask);
	message_add_text(row, "row", kind);
}

static void row_send(struct fixture *f, struct message *row)
{
	assert_int_equal(channel_send(&f->channel, row, NULL, 0), 0);
	message_free(row);
}

static void say_about(struct fixture *f, const char *verb, int64_t ask, int status, const char *why)
{
	struct message message = {0};

	message_start(&message, verb);
	message_add_int(&message, "ask", ask);
	message_add_int(&message, "status", status);
	message_add_text(&message, "why", why);
	row_send(f, &message);
}

static int64_t expect_ask(struct fixture *f, const char *command)
{
	expect(f, &f->channel, "ask");
	assert_string_equal(message_text(&f->view, "command", ""), command);
	assert_int_equal(message_int(&f->view, "uid", -1), getuid());
	assert_int_equal(message_int(&f->view, "pid", -1), getpid());
	return message_int(&f->view, "ask", 0);
}

/* Gives the api an errand; our end of its channel. */
static void give_errand(struct fixture *f, int64_t ask, struct channel *errand)
{
	struct message message = {0};
	int pair[2];

	assert_int_equal(channel_pair(pair), 0);
	channel_open(errand, pair[0]);
	message_start(&message, "errand");
	message_add_int(&message, "ask", ask);
	assert_int_equal(channel_send(&f->channel, &message, &pair[1], 1), 0);
	message_free(&message);
}

static void errand_data(struct channel *errand, const char *data)
{
	struct message message = {0};

	message_start(&message, "data");
	message_add_blob(&message, "data", data, strlen(data));
	assert_int_equal(channel_send(errand, &message, NULL, 0), 0);
	message_free(&message);
}

static void errand_says_end(struct channel *errand, int status, const char *why)
{
	struct message message = {0};

	message_start(&message, "end");
	message_add_int(&message, "status", status);
	message_add_text(&message, "why", why);
	assert_int_equal(channel_send(errand, &message, NULL, 0), 0);
	message_free(&message);
}

static void errand_end(struct channel *errand, int status, const char *why)
{
	errand_says_end(errand, status, why);
	assert_false(channel_pending(errand));
	channel_close(errand);
}

/* Tests. */

static void rows_become_an_object(void **state)
{
	struct fixture *f = *state;
	struct message row = {0};
	struct buf text = {0};
	int fd = request(f, "GET /v1/status?type=order.paid");
	int64_t ask = expect_ask(f, "status");

	assert_string_equal(message_text(&f->view, "arg.type", ""), "order.paid");
	row_start(&row, ask, "node");
	message_add_text(&row, "node", "here");
	row_send(f, &row);
	row_start(&row, ask, "type");
	message_add_text(&row, "type", "order.paid");
	message_add_unknown(&row, "ready");
	message_add_int(&row, "workers.busy", 2);
	message_add_text(&row, "last_error", "not \xff UTF-8 \"quoted\"");
	row_send(f, &row);
	say_about(f, "more", ask, 0, NULL);
	expect(f, &f->channel, "next");
	assert_int_equal(message_int(&f->view, "ask", 0), ask);
	row_start(&row, ask, "type");
	message_add_text(&row, "type", "z");
	row_send(f, &row);
	say_about(f, "end", ask, 0, NULL);
	hear(fd, &text);
	assert_has(buf_text(&text), "HTTP/1.1 200 OK");
	assert_has(buf_text(&text), "application/json");
	assert_has(buf_text(&text),
		   "{\"type\":\"order.paid\",\"ready\":null,\"workers\":{\"busy\":2},"
		   "\"last_error\":\"not \xef\xbf\xbd UTF-8 \\\"quoted\\\"\"}");
	assert_has(buf_text(&text), ",{\"type\":\"z\"}");
	assert_has(buf_text(&text), "],\"brokers\":[]}");
	buf_free(&text);
}

static void wrong_requests_are_refused(void **state)
{
	static const struct {
		const char *line, *code, *text;
	} cases[] = {
		{"GET /nowhere", "404", "/nowhere"},
		{"GET /v1/scale?type=a", "405", "another method"},
		{"POST /v1/scale?type=a&min=x", "400", "min = x"},
		{"POST /v1/scale?type=a&mni=3", "400", "\\\"mni\\\""},
		{"POST /v1/pause?type=a&for=5", "400", "not a duration"},
		{"GET /v1/dead?type=a&action=purge", "400", "list show export"},
		{"GET /v1/dead?type=a", "400", "needs an action"},
	};
	struct fixture *f = *state;
	struct buf text = {0};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		hear(request(f, cases[i].line), &text);
		assert_has(buf_text(&text), cases[i].code);
		assert_has(buf_text(&text), "{\"error\":\"");
		assert_has(buf_text(&text), cases[i].text);
	}
	buf_free(&text);
}

static void statuses_become_codes(void **state)
{
	static const struct {
		int status;
		const char *code;
	} cases[] = {{0, "200"},       {-EPERM, "403"},     {-ENOENT, "404"}, {-EINVAL, "400"},
		     {-EAGAIN, "503"}, {-EHOSTDOWN, "503"}, {-EIO, "500"}};
	struct fixture *f = *state;
	struct buf text = {0};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int fd = request(f, "POST /v1/resume?type=a");
		char line[32];

		say_about(f, "end", expect_ask(f, "resume"), cases[i].status,
			  cases[i].status ? "the reason" : NULL);
		snprintf(line, sizeof line, "HTTP/1.1 %s ", cases[i].code);
		hear(fd, &text);
		assert_has(buf_text(&text), line);
		assert_has(buf_text(&text),
			   cases[i].status ? "{\"error\":\"the reason\"}\n" : "{}\n");
	}
	buf_free(&text);
}

static void arguments_are_typed(void **state)
{
	struct fixture *f = *state;
	struct buf text = {0};
	int fd = request(f, "POST /v1/scale?type=a%2Eb&min=2&for=90m&note=sale%20day&reset=0");
	int64_t ask = expect_ask(f, "scale");

	assert_string_equal(message_text(&f->view, "arg.type", ""), "a.b");
	assert_int_equal(message_int(&f->view, "arg.min", -1), 2);
	assert_int_equal(message_int(&f->view, "arg.max", -1), -1);
	assert_int_equal(message_int(&f->view, "arg.for_ms", -1), 5400000);
	assert_string_equal(message_text(&f->view, "arg.note", ""), "sale day");
	assert_false(message_flag(&f->view, "arg.reset"));
	say_about(f, "end", ask, 0, NULL);
	hear(fd, &text);
	buf_free(&text);
}

static void a_body_reaches_the_errand(void **state)
{
	struct fixture *f = *state;
	struct channel errand;
	struct message_field data;
	struct buf text = {0};
	int fd = dial(f);
	int64_t ask;

	say(fd, "POST /v1/publish?type=a&delay=5s HTTP/1.1\r\nHost: x\r\nce-id: seven\r\n"
		"Content-Length: 5\r\nConnection: close\r\n\r\n");
	ask = expect_ask(f, "publish");
	assert_string_equal(message_text(&f->view, "arg.id", ""), "seven");
	assert_int_equal(message_int(&f->view, "arg.delay_ms", -1), 5000);
	say(fd, "hello");
	give_errand(f, ask, &errand);
	say_about(f, "end", ask, 0, NULL); /* the supervisor's part is done; the errand's is not */
	expect(f, &errand, "data");
	assert_true(message_find(&f->view, "data", &data));
	assert_int_equal(data.size, 5);
	assert_memory_equal(data.blob, "hello", 5);
	expect(f, &errand, "eof");
	errand_data(&errand, "{\"published\":1}\n");
	errand_end(&errand, 0, NULL);
	hear(fd, &text);
	assert_has(buf_text(&text), "HTTP/1.1 200 OK");
	assert_has(buf_text(&text), "{\"published\":1}\n");
	buf_free(&text);
}

/* A producer whose stream is refused half-way hears it without ending the stream. */
static void a_stream_is_refused_early(void **state)
{
	struct fixture *f = *state;
	struct channel errand;
	struct buf text = {0};
	int fd = dial(f);

	say(fd, "POST /v1/publish?type=a&format=ndjson HTTP/1.1\r\nHost: x\r\n"
		"Transfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n");
	give_errand(f, expect_ask(f, "publish"), &errand);
	expect(f, &errand, "data");
	errand_data(&errand, "{\"published\":0}");
	errand_end(&errand, -EBADMSG, "line 1: no id");
	hear(fd, &text);
	assert_has(buf_text(&text), "HTTP/1.1 422 ");
	assert_has(buf_text(&text), "{\"published\":0,\"error\":\"line 1: no id\"}\n");
	buf_free(&text);
}

/* A body of `total` bytes in chunks of 1000: several of them come in every piece that is read. */
static void make_chunks(struct buf *stream, size_t total)
{
	char chunk[1000];

	memset(chunk, 'x', sizeof chunk);
	for (size_t made = 0; made < total; made += sizeof chunk) {
		buf_append_text(stream, "3e8\r\n");
		buf_append(stream, chunk, sizeof chunk);
		buf_append_text(stream, "\r\n");
	}
	buf_append_text(stream, "0\r\n\r\n");
	assert_false(stream->failed);
}

/* Sends what the socket takes now; 0: nothing. */
static size_t push(int fd, struct buf *stream)
{
	ssize_t size = 0;

	if (buf_size(stream))
		size = send(fd, buf_front(stream), buf_size(stream), MSG_DONTWAIT | MSG_NOSIGNAL);
	assert_true(size >= 0 || errno == EAGAIN);
	buf_consume(stream, size > 0 ? (size_t)size : 0);
	return size > 0 ? (size_t)size : 0;
}

/*
 * The errand does not read: the client can only send what fits between. Then it reads: all arrives.
 * Meanwhile other clients wait, and are not forgotten.
 */
static void a_slow_errand_holds_the_body_back(void **state)
{
	const size_t total = 16000000;
	struct fixture *f = *state;
	struct channel errand;
	struct buf text = {0}, stream = {0};
	size_t received = 0;
	int before = request(f, "GET /v1/ps"), fd = dial(f), after;
	int64_t first = expect_ask(f, "ps"), second;

	make_chunks(&stream, total);
	say(fd, "POST /v1/publish?type=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
		"Transfer-Encoding: chunked\r\n\r\n");
	give_errand(f, expect_ask(f, "publish"), &errand);
	after = request(f, "GET /v1/ps");
	second = expect_ask(f, "ps");
	for (;;) {
		struct pollfd poller = {fd, POLLOUT, 0};

		if (poll(&poller, 1, 300) <= 0)
			break; /* nothing moved for a while: it is held back */
		push(fd, &stream);
		assert_true(buf_size(&stream) > total - (2u << 20));
	}
	while (received < total) {
		struct message_field data;

		push(fd, &stream);
		if (!receive(f, &errand, buf_size(&stream) ? 1 : DEADLINE_MS))
			continue;
		assert_true(message_find(&f->view, "data", &data));
		received += data.size;
	}
	assert_int_equal(received, total);
	expect(f, &errand, "eof");
	errand_data(&errand, "{\"published\":1}\n");
	errand_end(&errand, 0, NULL);
	assert_has(hear(fd, &text), "{\"published\":1}\n");
	say_about(f, "end", second, 0, NULL);
	assert_has(hear(after, &text), "200 OK");
	say_about(f, "end", first, 0, NULL);
	assert_has(hear(before, &text), "200 OK");
	buf_free(&stream);
	buf_free(&text);
}

/* The client does not read: the errand can only send what fits between, and others are served. */
static void a_slow_client_holds_the_errand_back(void **state)
{
	static char line[30000];
	struct fixture *f = *state;
	struct channel errand;
	struct buf text = {0};
	int fd = request(f, "GET /v1/dead?type=a&action=export"), other, sent = 0;
	int64_t ask;

	memset(line, 'x', sizeof line - 2);
	line[sizeof line - 2] = '\n';
	give_errand(f, expect_ask(f, "dead"), &errand);
	for (;;) {
		struct pollfd poller = {errand.fd, POLLOUT, 0};

		if (channel_pending(&errand)) {
			if (poll(&poller, 1, 300) <= 0)
				break;
			assert_int_equal(channel_flush(&errand), 0);
			continue;
		}
		errand_data(&errand, line);
		assert_true(++sent < 100);
	}
	other = request(f, "POST /v1/resume?type=a");
	ask = expect_ask(f, "resume");
	say_about(f, "end", ask, 0, NULL);
	assert_has(hear(other, &text), "HTTP/1.1 200 OK");
	/* Whatever the client reads makes room again, to the last byte. */
	errand_says_end(&errand, -EIO, "the broker went away");
	while (channel_pending(&errand)) {
		char data[65536];

		assert_true(recv(fd, data, sizeof data, 0) > 0);
		assert_int_equal(channel_flush(&errand), 0);
	}
	channel_close(&errand);
	assert_has(hear(fd, &text), "{\"error\":\"the broker went away\"}\n");
	buf_free(&text);
}

static void a_client_that_goes_is_noticed(void **state)
{
	struct fixture *f = *state;
	struct channel errand;
	int fd = request(f, "GET /v1/ps");
	int64_t ask = expect_ask(f, "ps");

	close(fd);
	expect(f, &f->channel, "cancel");
	assert_int_equal(message_int(&f->view, "ask", 0), ask);
	fd = request(f, "POST /v1/dead?type=a&action=replay");
	give_errand(f, expect_ask(f, "dead"), &errand);
	expect(f, &errand, "eof");
	close(fd);
	assert_false(receive(f, &errand, DEADLINE_MS)); /* its end, not the deadline: */
	assert_int_equal(channel_receive(&errand, &f->view, f->fds, &f->n_fds), -EPIPE);
	channel_close(&errand);
}

static void an_errand_that_dies_is_told(void **state)
{
	struct fixture *f = *state;
	struct channel errand;
	struct buf text = {0};
	int fd = request(f, "POST /v1/dead?type=a&action=purge");

	give_errand(f, expect_ask(f, "dead"), &errand);
	channel_close(&errand);
	assert_has(hear(fd, &text), "HTTP/1.1 502 ");
	assert_has(buf_text(&text), "ended without an answer");
	buf_free(&text);
}

static void half_requests_block_nobody(void **state)
{
	struct fixture *f = *state;
	struct buf text = {0};
	int idle[200], fd;

	for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) {
		idle[i] = dial(f);
		say(idle[i],
		    i % 2 ? "GET /v1/sta" : "POST /v1/publish?type=a HTTP/1.1\r\nHost: x\r\n");
	}
	fd = request(f, "GET /v1/version");
	say_about(f, "end", expect_ask(f, "version"), 0, NULL);
	assert_has(hear(fd, &text), "200 OK");
	for (size_t i = 0; i < sizeof idle / sizeof *idle; i++)
		close(idle[i]);
	buf_free(&text);
}

static void heads_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct buf text = {0};
	int fd = dial(f);
	ssize_t size;

	say(fd, "GET /v1/version HTTP/1.1\r\nX: ");
	do {
		size = send(fd, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 50,
			    MSG_NOSIGNAL);
	} while (size > 0);
	hear(fd, &text);
	fd = request(f, "GET /v1/version");
	say_about(f, "end", expect_ask(f, "version"), 0, NULL);
	assert_has(hear(fd, &text), "200 OK");
	buf_free(&text);
}

static void metrics_are_grouped(void **state)
{
	static const char *const types[] = {"a", "b"};
	struct fixture *f = *state;
	struct histogram histogram = {0};
	uint8_t data[HISTOGRAM_ENCODED_MAX];
	struct message row = {0};
	struct buf text = {0};
	int fd = request(f, "GET /metrics");
	int64_t ask = expect_ask(f, "metrics");

	histogram_add(&histogram, 3000);
	row_start(&row, ask, "node");
	message_add_text(&row, "node", "say \"hi\"");
	message_add_text(&row, "version", "1");
	message_add_unknown(&row, "reload_refused");
	row_send(f, &row);
	for (size_t i = 0; i < 2; i++) {
		row_start(&row, ask, "type");
		message_add_text(&row, "type", types[i]);
		message_add_int(&row, "ready", 5);
		message_add_unknown(&row, "dead");
		message_add_int(&row, "oldest_ms", 1500);
		message_add_blob(&row, "handle_histogram", data,
				 histogram_encode(&histogram, data, sizeof data));
		row_send(f, &row);
	}
	say_about(f, "end", ask, 0, NULL);
	hear(fd, &text);
	assert_has(buf_text(&text), "text/plain; version=0.0.4");
	assert_has(buf_text(&text), "drover_build_info{node=\"say \\\"hi\\\"\",version=\"1\"} 1\n");
	assert_has(buf_text(&text), "drover_reload_refused 0\n");
	assert_has(buf_text(&text), "# TYPE drover_events gauge\n"
				    "drover_events{type=\"a\",state=\"ready\"} 5\n"
				    "drover_events{type=\"b\",state=\"ready\"} 5\n#");
	assert_has(buf_text(&text), "drover_oldest_event_age_seconds{type=\"a\"} 1.5\n");
	assert_has(buf_text(&text), "drover_handling_seconds_bucket{type=\"a\",le=\"0.001\"} 0\n");
	assert_has(buf_text(&text), "drover_handling_seconds_bucket{type=\"a\",le=\"0.005\"} 1\n");
	assert_has(buf_text(&text), "drover_handling_seconds_sum{type=\"a\"} 0.003\n");
	assert_null(strstr(buf_text(&text), "state=\"dead\""));
	buf_free(&text);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rows_become_an_object),
		TEST(wrong_requests_are_refused),
		TEST(statuses_become_codes),
		TEST(arguments_are_typed),
		TEST(a_body_reaches_the_errand),
		TEST(a_stream_is_refused_early),
		TEST(a_slow_errand_holds_the_body_back),
		TEST(a_slow_client_holds_the_errand_back),
		TEST(a_client_that_goes_is_noticed),
		TEST(an_errand_that_dies_is_told),
		TEST(half_requests_block_nobody),
		TEST(heads_are_bounded),
		TEST(metrics_are_grouped),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
