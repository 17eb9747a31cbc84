/* SPDX-License-Identifier: MIT */
/*
 * The Consul plugin without a Consul: what its settings and the environment mean and which are
 * refused; what answers say; and blocking queries (query.c) whose agent is this file: their index,
 * their pace, what is told and what is not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../plugins/registries/consul/answers.h"
#include "../../plugins/registries/consul/consul.h"

#include "unit.h"

#include "base/banned.h"

#define SETTINGS_MAX 8

/* A host with the settings of a test: "name=value". */

static const char *const *given;

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
	long long value = text ? strtoll(text, &unit, 10) : 0;

	return !text                ? 0
	       : !strcmp(unit, "s") ? value * 1000
	       : !strcmp(unit, "h") ? value * 3600000
				    : value;
}

static const struct drover_host host = {.size = sizeof host, .setting = setting, .number = number};

static const char *const variables[] = {
	"CONSUL_HTTP_ADDR",      "CONSUL_HTTP_TOKEN",      "CONSUL_HTTP_TOKEN_FILE",
	"CONSUL_HTTP_AUTH",      "CONSUL_HTTP_SSL",        "CONSUL_HTTP_SSL_VERIFY",
	"CONSUL_CACERT",         "CONSUL_CAPATH",          "CONSUL_CLIENT_CERT",
	"CONSUL_CLIENT_KEY",     "CONSUL_TLS_SERVER_NAME", "CONSUL_NAMESPACE",
	"CREDENTIALS_DIRECTORY",
};

/* Rows in small letters are settings, in capitals variables; the latter hold until the next call. */
static int read_settings(const char *const *rows, struct settings *settings, struct fault *fault)
{
	static const char *set[SETTINGS_MAX + 1];
	char name[64];
	size_t n = 0;

	for (size_t i = 0; i < ROWS(variables); i++)
		unsetenv(variables[i]);
	for (size_t i = 0; rows[i]; i++) {
		const char *value = strchr(rows[i], '=') + 1;

		if (*rows[i] < 'A' || *rows[i] > 'Z') {
			set[n++] = rows[i];
			continue;
		}
		snprintf(name, sizeof name, "%.*s", (int)(value - 1 - rows[i]), rows[i]);
		setenv(name, value, 1);
	}
	set[n] = NULL;
	given = set;
	*fault = (struct fault){""};
	return settings_read(&host, settings, fault);
}

static void test_addresses(void **state)
{
	static const struct {
		const char *rows[4];
		const char *url, *socket, *shown;
	} rows[] = {
		{{NULL}, "http://127.0.0.1:8500", NULL, "127.0.0.1:8500"},
		{{"address=consul:1"}, "http://consul:1", NULL, "consul:1"},
		{{"address=consul"}, "http://consul:8500", NULL, "consul:8500"},
		{{"address=[::1]"}, "http://[::1]:8500", NULL, "[::1]:8500"},
		{{"address=[::1]:9"}, "http://[::1]:9", NULL, "[::1]:9"},
		{{"address=http://a:1/"}, "http://a:1", NULL, "a:1"},
		{{"address=http://a:1/consul/"}, "http://a:1/consul", NULL, "a:1/consul"},
		{{"address=https://a:8501"}, "https://a:8501", NULL, "a:8501"},
		{{"address=a:8501", "tls=true"}, "https://a:8501", NULL, "a:8501"},
		{{"address=unix:///run/c.sock"}, "http://localhost", "/run/c.sock", "/run/c.sock"},
		{{"address=unix:///run/c", "tls=true"}, "https://localhost", "/run/c", "/run/c"},
		{{"CONSUL_HTTP_ADDR=b:2"}, "http://b:2", NULL, "b:2"},
		{{"CONSUL_HTTP_ADDR="}, "http://127.0.0.1:8500", NULL, "127.0.0.1:8500"},
		{{"CONSUL_HTTP_ADDR=b:2", "address=a:1"}, "http://a:1", NULL, "a:1"},
		{{"CONSUL_HTTP_ADDR=b:2", "CONSUL_HTTP_SSL=true"}, "https://b:2", NULL, "b:2"},
		{{"CONSUL_HTTP_ADDR=b:2", "CONSUL_HTTP_SSL=1", "tls=false"},
		 "http://b:2",
		 NULL,
		 "b:2"},
		{{"CONSUL_HTTP_ADDR=unix:///s"}, "http://localhost", "/s", "/s"},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		const char *name = rows[i].rows[0] ? rows[i].rows[0] : "nothing set";
		struct settings settings;
		struct fault fault;

		want_int(name, read_settings(rows[i].rows, &settings, &fault), 0);
		want_text(name, settings.url, rows[i].url);
		want_text(name, settings.socket_path ? settings.socket_path : "(none)",
			  rows[i].socket ? rows[i].socket : "(none)");
		want_text(name, settings.shown, rows[i].shown);
		assert_true(settings.verify);
		settings_free(&settings);
	}
}

static void test_environment(void **state)
{
	static const struct {
		const char *rows[4];
		size_t field;
		const char *value;
	} rows[] = {
#define FIELD(name) offsetof(struct settings, name)
		{{"CONSUL_CACERT=/ca"}, FIELD(ca_file), "/ca"},
		{{"CONSUL_CACERT=/ca", "ca_file=/mine", "tls=true"}, FIELD(ca_file), "/mine"},
		{{"CONSUL_CACERT="}, FIELD(ca_file), NULL},
		{{"CONSUL_CAPATH=/cas"}, FIELD(ca_path), "/cas"},
		{{"CONSUL_CLIENT_CERT=/c", "CONSUL_CLIENT_KEY=/k"}, FIELD(cert_file), "/c"},
		{{"CONSUL_CLIENT_CERT=/c", "CONSUL_CLIENT_KEY=/k"}, FIELD(key_file), "/k"},
		{{"CONSUL_TLS_SERVER_NAME=n"}, FIELD(server_name), "n"},
		{{"CONSUL_NAMESPACE=team"}, FIELD(namespace), "team"},
		{{"CONSUL_NAMESPACE=team", "namespace=other"}, FIELD(namespace), "other"},
		{{"CONSUL_HTTP_AUTH=u:p"}, FIELD(auth), "u:p"},
		{{"CONSUL_HTTP_TOKEN=t"}, FIELD(token), "t"},
		{{"CONSUL_HTTP_TOKEN_FILE=/f"}, FIELD(token_file), "/f"},
		{{"CONSUL_HTTP_TOKEN=t", "CONSUL_HTTP_TOKEN_FILE=/f"}, FIELD(token_file), NULL},
		{{"CONSUL_HTTP_TOKEN=t", "token_file=/mine"}, FIELD(token_file), "/mine"},
		{{"CONSUL_HTTP_TOKEN=t", "token_file=/mine"}, FIELD(token), NULL},
		{{"CREDENTIALS_DIRECTORY=/run/c", "credential=consul"},
		 FIELD(token_file),
		 "/run/c/consul"},
#undef FIELD
	};
	struct settings settings;
	struct fault fault;

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		char *const *field;

		want_int(rows[i].rows[0], read_settings(rows[i].rows, &settings, &fault), 0);
		field = (char *const *)(const void *)((const char *)&settings + rows[i].field);
		want_text(rows[i].rows[0], *field ? *field : "(none)",
			  rows[i].value ? rows[i].value : "(none)");
		settings_free(&settings);
	}
	assert_int_equal(read_settings((const char *const[]){"CONSUL_HTTP_SSL_VERIFY=false", NULL},
				       &settings, &fault),
			 0);
	assert_false(settings.verify);
	settings_free(&settings);
	assert_int_equal(read_settings((const char *const[]){"CONSUL_HTTP_SSL_VERIFY=0",
							     "verify=true", NULL},
				       &settings, &fault),
			 0);
	assert_true(settings.verify);
	settings_free(&settings);
}

static void test_refused_settings(void **state)
{
	static const struct {
		const char *rows[4];
		const char *said;
	} rows[] = {
		{{"address=ftp://a"}, "\"ftp\" is no way"},
		{{"address=http://"}, "names no host"},
		{{"address=:8500"}, "names no host"},
		{{"address=http://u:swordfish@a:1"}, "auth_file"},
		{{"address=http://a:1?x=swordfish"}, "more than an address"},
		{{"address=a b"}, "no address"},
		{{"address=unix://relative"}, "absolute path"},
		{{"CONSUL_HTTP_ADDR=ftp://a"}, "CONSUL_HTTP_ADDR"},
		{{"CONSUL_HTTP_SSL=perhaps"}, "neither true nor false"},
		{{"token_file=/x", "credential=y"}, "one of them"},
		{{"credential=y"}, "LoadCredential"},
		{{"CREDENTIALS_DIRECTORY=/c", "credential=../y"}, "not a path"},
		{{"address=https://a", "cert_file=/x"}, "go together"},
		{{"ca_file=/x"}, "tls = true"},
		{{"auth_file=/nonexistent/auth"}, "/nonexistent/auth"},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct settings settings;
		struct fault fault;

		want_int(rows[i].rows[0], read_settings(rows[i].rows, &settings, &fault) < 0, 1);
		if (!strstr(fault.sentence, rows[i].said) || strstr(fault.sentence, "swordfish")) {
			print_error("%s: \"%s\"\n", rows[i].rows[0], fault.sentence);
			fail();
		}
		assert_null(settings.url);
	}
}

static void test_token(void **state)
{
	char file[] = "/tmp/drover-test-token-XXXXXX", row[64], *token;
	const char *rows[] = {row, NULL};
	int fd = mkstemp(file);
	struct settings settings;
	struct fault fault;

	(void)state;
	assert_true(fd >= 0);
	snprintf(row, sizeof row, "token_file=%s", file);
	assert_int_equal(read_settings(rows, &settings, &fault), 0);
	assert_int_equal(settings_token(&settings, &token, &fault), -EINVAL); /* it is empty */
	assert_non_null(strstr(fault.sentence, file));
	assert_int_equal(write(fd, "swordfish\n", 10), 10);
	assert_int_equal(settings_token(&settings, &token, &fault), 0);
	assert_string_equal(token, "swordfish");
	secret_free(token);
	close(fd);
	unlink(file);
	assert_int_equal(settings_token(&settings, &token, &fault), -ENOENT);
	settings_free(&settings);
	assert_int_equal(read_settings((const char *const[]){NULL}, &settings, &fault), 0);
	assert_int_equal(settings_token(&settings, &token, &fault), 0);
	assert_null(token);
	settings_free(&settings);
}

/* Answers. */

static void test_values(void **state)
{
	static const struct {
		const char *body;
		int r;
		size_t n;
		const char *first, *version;
	} rows[] = {
		{"[]", 0, 0, NULL, NULL},
		{"[{\"Key\":\"c/a\",\"Value\":\"YWJj\",\"ModifyIndex\":7}]", 0, 1, "abc", "7"},
		{"[{\"Key\":\"c/a\",\"Value\":null,\"ModifyIndex\":7}]", 0, 1, "", "7"},
		{"[{\"Key\":\"c/b\",\"Value\":\"Yg==\",\"ModifyIndex\":9},"
		 "{\"Key\":\"c/a\",\"Value\":\"YWI=\",\"ModifyIndex\":8}]",
		 0, 2, "ab", "8"},
		{"[{\"Key\":\"c/a\",\"Value\":\"YWJ\",\"ModifyIndex\":7}]", -EBADMSG, 0, NULL,
		 NULL},
		{"[{\"Key\":\"c/a\",\"Value\":\"Y===\",\"ModifyIndex\":7}]", -EBADMSG, 0, NULL,
		 NULL},
		{"[{\"Key\":\"c/a\",\"Value\":\"YQ==YQ==\",\"ModifyIndex\":7}]", -EBADMSG, 0, NULL,
		 NULL},
		{"[{\"Key\":\"c/a\",\"Value\":\"YQ=a\",\"ModifyIndex\":7}]", -EBADMSG, 0, NULL,
		 NULL},
		{"[{\"Key\":\"c/a\",\"Value\":\"Y!Jj\",\"ModifyIndex\":7}]", -EBADMSG, 0, NULL,
		 NULL},
		{"[{\"Key\":\"c/a\",\"Value\":\"YWJj\"}]", -EBADMSG, 0, NULL, NULL},
		{"[{\"Key\":\"c/a\",\"ModifyIndex\":-1}]", -EBADMSG, 0, NULL, NULL},
		{"[{\"Key\":\"c/a\",\"ModifyIndex\":1e300}]", -EBADMSG, 0, NULL, NULL},
		{"[{\"ModifyIndex\":7}]", -EBADMSG, 0, NULL, NULL},
		{"{\"Key\":\"c/a\"}", -EBADMSG, 0, NULL, NULL},
		{"", -EBADMSG, 0, NULL, NULL},
		{"[", -EBADMSG, 0, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct answer_value *values = NULL;
		size_t n = 0;

		want_int(rows[i].body,
			 answers_values(rows[i].body, strlen(rows[i].body), &values, &n),
			 rows[i].r);
		want_int(rows[i].body, n, rows[i].n);
		if (n) {
			want_int(rows[i].body, values->length, strlen(rows[i].first));
			assert_memory_equal(values->data, rows[i].first, values->length);
			want_text(rows[i].body, values->version, rows[i].version);
		}
		answers_values_free(values, n);
	}
}

static void test_base64(void **state)
{
	unsigned char data[100];
	char body[400];

	(void)state;
	for (size_t size = 0; size <= sizeof data; size++) {
		struct answer_value *values;
		char *text;
		size_t n;

		for (size_t i = 0; i < size; i++)
			data[i] = (unsigned char)(size * 37 + i * 101);
		text = answers_encode(data, size);
		assert_non_null(text);
		snprintf(body, sizeof body, "[{\"Key\":\"k\",\"ModifyIndex\":1,\"Value\":\"%s\"}]",
			 text);
		free(text);
		assert_int_equal(answers_values(body, strlen(body), &values, &n), 0);
		assert_int_equal(values->length, size);
		assert_memory_equal(values->data, data, size);
		answers_values_free(values, n);
	}
}

static void test_holder(void **state)
{
	static const struct {
		const char *data, *node, *node_id; /* NULL: it does not say */
	} rows[] = {
		{"{\"node\":\"web1\",\"node_id\":\"01\"}", "web1", "01"},
		{"{\"node\":\"web1\",\"node_id\":\"01\",\"more\":1}", "web1", "01"},
		{"{\"node\":\"web1\"}", NULL, NULL},
		{"{\"node\":\"\",\"node_id\":\"01\"}", NULL, NULL},
		{"{\"node\":1,\"node_id\":\"01\"}", NULL, NULL},
		{"web1", NULL, NULL},
		{"", NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct answer_holder holder = {"", ""};

		want_int(rows[i].data, answers_holder(rows[i].data, strlen(rows[i].data), &holder),
			 rows[i].node != NULL);
		want_text(rows[i].data, holder.node, rows[i].node ? rows[i].node : "");
		want_text(rows[i].data, holder.node_id, rows[i].node_id ? rows[i].node_id : "");
	}
}

static void test_sessions(void **state)
{
	static const struct {
		const char *body;
		int r;
		const char *id;
		int64_t ttl_ms;
	} rows[] = {
		{"{\"ID\":\"6c186f90-8fb9\"}", 0, "6c186f90-8fb9", -1},
		{"[{\"ID\":\"ab\",\"TTL\":\"15s\"}]", 0, "ab", 15000},
		{"[{\"ID\":\"ab\",\"TTL\":\"1h2m3.5s\"}]", 0, "ab", 3723500},
		{"[{\"ID\":\"ab\",\"TTL\":\"15000ms\"}]", 0, "ab", 15000},
		{"[{\"ID\":\"ab\",\"TTL\":\"\"}]", 0, "ab", -1},
		{"[{\"ID\":\"ab\",\"TTL\":\"soon\"}]", 0, "ab", -1},
		{"[{\"ID\":\"ab\",\"TTL\":\"15\"}]", 0, "ab", -1},
		{"[{\"ID\":\"ab\",\"TTL\":\"99999999999999999999h\"}]", 0, "ab", -1},
		{"[]", -EBADMSG, NULL, 0},
		{"{\"ID\":\"\"}", -EBADMSG, NULL, 0},
		{"{\"ID\":\"a/b\"}", -EBADMSG, NULL, 0},
		{"{\"ID\":\"a?b\"}", -EBADMSG, NULL, 0},
		{"{\"ID\":7}", -EBADMSG, NULL, 0},
		{"true", -EBADMSG, NULL, 0},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct answer_session session;

		want_int(rows[i].body,
			 answers_session(rows[i].body, strlen(rows[i].body), &session), rows[i].r);
		if (rows[i].r < 0)
			continue;
		want_text(rows[i].body, session.id, rows[i].id);
		want_int(rows[i].body, session.ttl_ms, rows[i].ttl_ms);
	}
}

#define FAILED_SESSION                                                                              \
	"{\"OpIndex\":0,\"What\":\"failed session check for key \\\"c/leader\\\", current session " \
	"\\\"a\\\" != \\\"b\\\"\"}"
#define FAILED_CAS "{\"OpIndex\":1,\"What\":\"failed to set key \\\"c/p\\\", index is stale\"}"

static void test_transactions(void **state)
{
	static const struct {
		const char *name, *body;
		int r;
		bool done;
		const char *version;
		int failed;
		bool denied, stale;
	} rows[] = {
		{"written",
		 "{\"Results\":[{\"KV\":{\"Key\":\"c/leader\",\"ModifyIndex\":35}},"
		 "{\"KV\":{\"Key\":\"c/p\",\"ModifyIndex\":36}}],\"Errors\":null}",
		 0, true, "36", -1, false, false},
		{"removed", "{\"Results\":[],\"Errors\":null}", 0, true, "", -1, false, false},
		{"not ours", "{\"Results\":null,\"Errors\":[" FAILED_SESSION "]}", 0, false, "", 0,
		 false, false},
		{"neither", "{\"Results\":null,\"Errors\":[" FAILED_CAS "," FAILED_SESSION "]}", 0,
		 false, "", 0, false, false},
		{"stale", "{\"Results\":null,\"Errors\":[" FAILED_CAS "]}", 0, false, "", 1, false,
		 true},
		{"gone",
		 "{\"Errors\":[{\"OpIndex\":0,\"What\":\"failed to check index, key \\\"c/p\\\" doesn't "
		 "exist\"}]}",
		 0, false, "", 0, false, true},
		{"there", "{\"Errors\":[{\"OpIndex\":0,\"What\":\"key \\\"c/p\\\" exists\"}]}", 0,
		 false, "", 0, false, true},
		{"other", "{\"Errors\":[{\"OpIndex\":0,\"What\":\"failed index check for key\"}]}",
		 0, false, "", 0, false, true},
		{"no key", "{\"Errors\":[{\"OpIndex\":0,\"What\":\"Must provide key\"}]}", 0, false,
		 "", 0, false, false},
		{"denied",
		 "{\"Errors\":[{\"OpIndex\":1,\"What\":\"Permission denied: token lacks 'key:write'\"}]}",
		 0, false, "", 1, true, false},
		{"no words", "{\"Errors\":[{}]}", 0, false, "", -1, false, false},
		{"no place", "{\"Errors\":[{\"What\":\"x\",\"OpIndex\":1e9}]}", 0, false, "", -1,
		 false, false},
		{"nothing", "{}", -EBADMSG, false, "", 0, false, false},
		{"a list", "[]", -EBADMSG, false, "", 0, false, false},
		{"no JSON", "rpc error", -EBADMSG, false, "", 0, false, false},
	};

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct answer_txn txn = {0};

		want_int(rows[i].name, answers_txn(rows[i].body, strlen(rows[i].body), &txn),
			 rows[i].r);
		if (rows[i].r < 0)
			continue;
		want_int(rows[i].name, txn.done, rows[i].done);
		want_text(rows[i].name, txn.version, rows[i].version);
		want_int(rows[i].name, txn.failed, rows[i].failed);
		want_int(rows[i].name, txn.denied, rows[i].denied);
		want_int(rows[i].name, txn.stale, rows[i].stale);
	}
}

/* Queries; the agent is this file. */

#define REQUESTS_MAX 64

static struct request {
	bool pending;
	char path[200];
	enum request_lane lane;
	void (*done)(void *context, const struct answer *answer);
	void *context;
} requests[REQUESTS_MAX];
static size_t n_requests;
static bool away;
static int changes, failures;
static char last_body[64];

struct request *request_start(struct consul *consul, const struct request_order *order)
{
	struct request *request = &requests[n_requests++];

	(void)consul;
	assert_true(n_requests <= REQUESTS_MAX);
	*request = (struct request){true, "", order->lane, order->done, order->context};
	snprintf(request->path, sizeof request->path, "%s", order->path);
	return request;
}

void request_cancel(struct request *request)
{
	if (request)
		request->pending = false;
}

bool state_away(const struct consul *consul)
{
	(void)consul;
	return away;
}

static void on_change(void *context, const struct answer *answer)
{
	(void)context;
	changes++;
	snprintf(last_body, sizeof last_body, "%s",
		 answer->failure == FAILURE_MISSING ? "(missing)" : answer->body);
}

static void on_failure(void *context, const struct answer *answer)
{
	(void)context;
	(void)answer;
	failures++;
}

static struct consul consul;

static void begin(void)
{
	consul = (struct consul){0};
	n_requests = 0;
	away = false;
	changes = failures = 0;
	*last_body = '\0';
	assert_int_equal(query_open(&consul), 0);
}

static struct query *query(const char *path, int burst, int64_t refill_ms)
{
	struct query_order order = {
		.path = path,
		.burst = burst,
		.refill_ms = refill_ms,
		.changed = on_change,
		.failed = on_failure,
	};
	struct query *made = query_start(&consul, &order);

	assert_non_null(made);
	return made;
}

/* The last one that was sent is answered. */
static void answer(enum request_failure failure, const char *body, uint64_t index)
{
	struct request *request = &requests[n_requests - 1];
	struct answer said = {
		.failure = failure,
		.body = body,
		.length = strlen(body),
		.index = index,
	};

	assert_true(request->pending);
	request->pending = false;
	request->done(request->context, &said);
}

/* Whatever the pace: an hour after the last one. */
static const char *next_path(void)
{
	static int64_t hours;
	size_t before = n_requests;

	query_process(&consul, now_ms() + ++hours * 3600000);
	return n_requests > before ? requests[n_requests - 1].path : "(none)";
}

static void test_index(void **state)
{
	static const struct {
		uint64_t heard;
		const char *path;
	} rows[] = {
		{7, "/v1/kv/c/a?index=7&wait=120s"},
		{9, "/v1/kv/c/a?index=9&wait=120s"},
		{9, "/v1/kv/c/a?index=9&wait=120s"},
		{3, "/v1/kv/c/a"}, /* it went back: from the start */
		{3, "/v1/kv/c/a?index=3&wait=120s"},
		{0, "/v1/kv/c/a"},
		{0, "/v1/kv/c/a?index=1&wait=120s"}, /* never 0, which would not block */
	};

	(void)state;
	begin();
	query("/v1/kv/c/a", 1, 1);
	assert_string_equal(next_path(), "/v1/kv/c/a");
	assert_int_equal(requests[0].lane, LANE_ORDINARY);
	for (size_t i = 0; i < ROWS(rows); i++) {
		answer(FAILURE_NONE, "same", rows[i].heard);
		want_text("index", next_path(), rows[i].path);
	}
	assert_int_equal(changes, 1);
	query_close(&consul);
	begin();
	query("/v1/kv/c/b/?recurse=true", 1, 1);
	next_path();
	answer(FAILURE_NONE, "", 5);
	assert_string_equal(next_path(), "/v1/kv/c/b/?recurse=true&index=5&wait=120s");
	query_close(&consul);
}

static void test_what_is_told(void **state)
{
	static const struct {
		enum request_failure failure;
		const char *body;
		int changes;
		const char *last;
	} rows[] = {
		{FAILURE_MISSING, "", 1, "(missing)"},
		{FAILURE_MISSING, "other words", 1, "(missing)"},
		{FAILURE_NONE, "", 2, ""}, /* there, with nothing in it, is not missing */
		{FAILURE_NONE, "a", 3, "a"},
		{FAILURE_NONE, "a", 3, "a"},
		{FAILURE_AWAY, "b", 3, "a"},
		{FAILURE_NONE, "a", 3, "a"},
		{FAILURE_NONE, "b", 4, "b"},
		{FAILURE_MISSING, "", 5, "(missing)"},
	};
	struct query *asked;

	(void)state;
	begin();
	asked = query("/v1/kv/c/a", 1, 1);
	for (size_t i = 0; i < ROWS(rows); i++) {
		assert_string_not_equal(next_path(), "(none)");
		answer(rows[i].failure, rows[i].body, i + 1);
		want_int(rows[i].body, changes, rows[i].changes);
		want_text(rows[i].body, last_body, rows[i].last);
	}
	query_refresh(asked);
	assert_string_equal(next_path(), "/v1/kv/c/a");
	answer(FAILURE_MISSING, "", 99);
	assert_int_equal(changes, 6);
	query_close(&consul);
}

static void test_who_wants_all(void **state)
{
	struct query_order order = {
		.path = "/v1/health/node/host1",
		.burst = 1,
		.refill_ms = 1,
		.always = true,
		.changed = on_change,
	};

	(void)state;
	begin();
	assert_non_null(query_start(&consul, &order));
	for (int i = 1; i <= 3; i++) {
		next_path();
		answer(FAILURE_NONE, "[]", (uint64_t)i);
		assert_int_equal(changes, i);
	}
	query_close(&consul);
}

static void test_pace(void **state)
{
	int64_t start, due;

	(void)state;
	begin();
	start = now_ms();
	query("/v1/kv/c/a", 2, 60000);
	for (int i = 0; i < 2; i++) {
		assert_true(query_due_ms(&consul) <= now_ms());
		query_process(&consul, now_ms());
		assert_int_equal(n_requests, i + 1);
		answer(FAILURE_NONE, "x", 1 + (uint64_t)i);
	}
	/* Two at once, and the next when the first of them is that long ago. */
	due = query_due_ms(&consul);
	want_between("pace", (double)(due - start), 60000, 61000);
	query_process(&consul, due - 1);
	assert_int_equal(n_requests, 2);
	query_process(&consul, due);
	assert_int_equal(n_requests, 3);
	query_close(&consul);
}

static void test_failures(void **state)
{
	(void)state;
	begin();
	query("/v1/kv/c/a", 1, 1);
	for (unsigned i = 1; i <= 20; i++) {
		int64_t wait;

		next_path();
		answer(FAILURE_DENIED, "", 0);
		wait = query_due_ms(&consul) - now_ms();
		want_between("backoff", (double)wait, i == 1 ? 0 : 1,
			     i < 10 ? 100 << (i - 1) : 30000);
		if (i > 9)
			want_between("backoff", (double)wait, 14000, 30000);
		/* Once in a while, not each time. */
		want_int("told", failures, i < 10 ? 1 : i < 20 ? 2 : 3);
	}
	/* That it is over is told, though nothing else is new. */
	next_path();
	answer(FAILURE_NONE, "", 5);
	assert_int_equal(changes, 1);
	next_path();
	answer(FAILURE_DENIED, "", 0);
	assert_string_equal(next_path(), "/v1/kv/c/a");
	answer(FAILURE_NONE, "", 5);
	assert_int_equal(changes, 2);
	next_path();
	answer(FAILURE_DENIED, "", 0);
	failures = 3;
	query_token(&consul);
	assert_true(query_due_ms(&consul) <= now_ms());
	away = true;
	assert_int_equal(query_due_ms(&consul), NEVER);
	assert_string_equal(next_path(), "(none)");
	away = false;
	query_back(&consul);
	assert_true(query_due_ms(&consul) <= now_ms() + 200);
	assert_string_equal(next_path(), "/v1/kv/c/a");
	answer(FAILURE_AWAY, "", 0);
	assert_int_equal(failures, 3); /* of that state.c tells */
	query_close(&consul);
}

static void test_crowd(void **state)
{
	size_t blocking = 0;
	char path[32];

	(void)state;
	begin();
	for (int i = 0; i < 11; i++) {
		snprintf(path, sizeof path, "/v1/kv/c/%d", i);
		query(path, 8, 60000);
		query_process(&consul, now_ms());
		answer(FAILURE_NONE, "x", 5);
		query_process(&consul, now_ms());
	}
	assert_int_equal(n_requests, 22);
	for (size_t i = 0; i < 22; i++)
		blocking += requests[i].lane == LANE_QUERY;
	/* The eleventh asks without waiting for an answer, and not all the time. */
	assert_int_equal(blocking, 10);
	assert_int_equal(requests[21].lane, LANE_ORDINARY);
	assert_null(strstr(requests[21].path, "index="));
	answer(FAILURE_NONE, "x", 5);
	want_between("poll", (double)(query_due_ms(&consul) - now_ms()), 4000, 5000);
	query_close(&consul);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_refused_settings),
		cmocka_unit_test(test_token),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_holder),
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_transactions),
		cmocka_unit_test(test_index),
		cmocka_unit_test(test_what_is_told),
		cmocka_unit_test(test_who_wants_all),
		cmocka_unit_test(test_pace),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_crowd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
