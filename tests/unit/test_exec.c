/* SPDX-License-Identifier: MIT */
/*
 * The exec handler as its programs see it: a real template and worker, real programs, and this test
 * as supervisor and dispatcher. Nothing here reaps for them: what is gone, they ended themselves.
 */
#include <drover/handler.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "harness.h"

#include "base/banned.h"

#define LARGE (16u << 20)

struct fixture {
	struct harness harness;
	struct harness_worker worker;
	uint32_t sequence;
};

static void open_command(struct fixture *fixture, const char *mode, const char *const *command)
{
	struct harness_setup setup = {.type = "job", .set = {"command", command[0]}};
	size_t n = 2;
	struct frame frame;

	for (size_t i = 1; command[i]; i++) {
		setup.set[n++] = "command";
		setup.set[n++] = command[i];
	}
	setup.set[n++] = "mode";
	setup.set[n++] = mode;
	setup.set[n++] = "grace";
	setup.set[n++] = "1s";
	*fixture = (struct fixture){0};
	harness_start(&fixture->harness, &setup);
	harness_expect_ready(&fixture->harness);
	harness_fork(&fixture->harness, 0, &fixture->worker);
	harness_frame(&fixture->worker, &frame);
	assert_int_equal(frame.kind, FRAME_READY);
}

static void open_script(struct fixture *fixture, const char *mode, const char *script)
{
	open_command(fixture, mode, (const char *const[]){"sh", "-c", script, NULL});
}

static void close_fixture(struct fixture *fixture)
{
	harness_forget(&fixture->worker);
	assert_int_equal(harness_end(&fixture->harness), 0);
	assert_int_equal(harness_count(&fixture->harness), 0);
}

static void hand_over(struct fixture *fixture, const struct drover_event *event)
{
	harness_send(&fixture->worker, ++fixture->sequence, event, 5000);
}

static void handle(struct fixture *fixture, const char *body, struct frame_verdict *verdict)
{
	struct drover_event event = harness_event("e1", body);

	hand_over(fixture, &event);
	harness_verdict(&fixture->worker, fixture->sequence, verdict);
}

static void test_exit_statuses(void **state)
{
	static const struct {
		const char *script;
		enum drover_verdict verdict;
		const char *reason; /* NULL: not looked at */
	} rows[] = {
		{"exit 0", DROVER_DONE, NULL},
		{"echo chatter; echo >&2 noise; exit 0", DROVER_DONE, NULL},
		{"exit 75", DROVER_RETRY, "exited with status 75"},
		{"echo 'the bank is closed' >&2; exit 75", DROVER_RETRY, "the bank is closed"},
		{"echo 'no such user' >&2; exit 65", DROVER_REJECT, "no such user"},
		{"exit 3", DROVER_RETRY, "exited with status 3"},
		{"echo one >&2; echo two >&2; exit 1", DROVER_RETRY,
		 "exited with status 1: one two"},
		{"echo last words >&2; kill -SEGV $$", DROVER_RETRY,
		 "was killed by signal 11 (SIGSEGV): last words"},
		{"kill -KILL $$", DROVER_RETRY,
		 "was killed by signal 9 (SIGKILL), perhaps by the kernel for want of memory"},
		/* of much, the end; from the beginning of a line */
		{"i=0; while [ $i -lt 100 ]; do echo 'a line of some length' >&2; i=$((i+1)); done; "
		 "echo end >&2; exit 1",
		 DROVER_RETRY,
		 "exited with status 1: a line of some length a line of some length a line of some length "
		 "a line of some length a line of some length a line of some length a line of some length "
		 "a line of some length end"},
	};
	struct frame_verdict verdict;
	struct fixture fixture;

	(void)state;
	open_script(&fixture, "event", "eval \"$(cat)\"");
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		handle(&fixture, rows[i].script, &verdict);
		assert_int_equal(verdict.verdict, rows[i].verdict);
		if (rows[i].reason)
			assert_string_equal(verdict.reason, rows[i].reason);
	}
	harness_logged(&fixture.worker, "chatter\n");
	harness_logged(&fixture.worker, "noise\n");
	close_fixture(&fixture);
}

static void test_attributes_and_descriptors(void **state)
{
	struct drover_attribute extension = {"region", "e\"u"};
	struct drover_event event = harness_event("id 1", "the body");
	struct frame_verdict verdict;
	struct fixture fixture;

	(void)state;
	open_script(
		&fixture, "event",
		"echo \"$DROVER_ID|$DROVER_TYPE|$DROVER_SOURCE|$DROVER_TIME|$DROVER_SUBJECT|"
		"$DROVER_ATTEMPT|$TRACEPARENT|$(cat)\"; cat <&3; echo descriptors; ls /proc/$$/fd; "
		"echo group $(($(ps -o pgid= -p $$) == $$)) ${DROVER_SUBJECT+set}");
	event.time = "2026-11-25T00:00:00Z";
	event.subject = "s";
	event.traceparent = "00-a-b-01";
	event.attempt = 3;
	event.extensions = &extension;
	event.n_extensions = 1;
	hand_over(&fixture, &event);
	harness_verdict(&fixture.worker, 1, &verdict);
	assert_int_equal(verdict.verdict, DROVER_DONE);
	harness_logged(&fixture.worker,
		       "id 1|job|/test|2026-11-25T00:00:00Z|s|3|00-a-b-01|the body\n");
	harness_logged(
		&fixture.worker,
		"{\"specversion\":\"1.0\",\"id\":\"id 1\",\"source\":\"/test\",\"type\":\"job\","
		"\"time\":\"2026-11-25T00:00:00Z\",\"subject\":\"s\",\"traceparent\":\"00-a-b-01\","
		"\"region\":\"e\\\"u\",\"attempt\":3}\n");
	harness_logged(&fixture.worker, "descriptors\n0\n1\n2\n3\n4\ngroup 1 set\n");
	/* An attribute that this event has not is not left over from the last. */
	event.subject = NULL;
	hand_over(&fixture, &event);
	harness_verdict(&fixture.worker, 2, &verdict);
	harness_logged(&fixture.worker, "descriptors\n0\n1\n2\n3\n4\ngroup 1\n");
	close_fixture(&fixture);
}

static void expect_emitted(struct fixture *fixture, struct drover_event *ret_event,
			   struct drover_attribute *attributes)
{
	struct frame frame;

	harness_frame(&fixture->worker, &frame);
	assert_int_equal(frame.kind, FRAME_EMIT);
	assert_int_equal(frame_get_event(&frame, ret_event, attributes, NULL), 0);
}

static void test_a_program_emits_and_extends(void **state)
{
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	struct drover_event event;
	struct frame_verdict verdict;
	struct fixture fixture;
	struct frame frame;
	uint32_t ms;

	(void)state;
	open_script(
		&fixture, "event",
		"echo '{\"type\": \"made\", \"data\": {\"n\": 12345678901234567890}, \"size\": 3}' >&4\n"
		"echo '{\"extend\": \"2s\"}' >&4\n"
		"echo '{\"emit\": {\"type\": \"text\", \"data\": \"hello\", \"id\": \"own\", "
		"\"datacontenttype\": \"text/plain\"}}' >&4\n"
		"echo '{\"type\": \"binary\", \"data_base64\": \"AAEC/w==\"}' >&4");
	event = harness_event("e1", "");
	hand_over(&fixture, &event);
	expect_emitted(&fixture, &event, attributes);
	assert_string_equal(event.type, "made");
	assert_string_equal(event.source, "job");
	assert_string_equal(event.datacontenttype, "application/json");
	assert_int_equal(event.body_size, strlen("{\"n\": 12345678901234567890}"));
	assert_memory_equal(event.body, "{\"n\": 12345678901234567890}", event.body_size);
	assert_string_equal(event.extensions[0].name, "size");
	assert_string_equal(event.extensions[0].value, "3");
	harness_frame(&fixture.worker, &frame);
	assert_int_equal(frame.kind, FRAME_EXTEND);
	assert_int_equal(frame_get_extend(&frame, &ms), 0);
	assert_int_equal(ms, 2000);
	expect_emitted(&fixture, &event, attributes);
	assert_string_equal(event.id, "own");
	assert_int_equal(event.body_size, 5);
	assert_memory_equal(event.body, "hello", 5);
	expect_emitted(&fixture, &event, attributes);
	assert_int_equal(event.body_size, 4);
	assert_memory_equal(event.body, "\0\1\2\377", 4);
	harness_verdict(&fixture.worker, 1, &verdict);
	assert_int_equal(verdict.verdict, DROVER_DONE);
	close_fixture(&fixture);
}

/* What was meant to be emitted and cannot be must not be lost by calling the event done. */
static void test_a_wrong_line_is_no_success(void **state)
{
	static const struct {
		const char *line, *why;
	} rows[] = {
		{"nonsense", "it is not JSON: nonsense"},
		{"[1]", "it is not a JSON object: [1]"},
		{"{\"data\": 1}", "without a \"type\""},
		{"{\"type\": 7}", "its \"type\" is not a string"},
		{"{\"type\": \"a\", \"data\": 1, \"data_base64\": \"AA==\"}", "both"},
		{"{\"type\": \"a\", \"data_base64\": \"A\"}", "not base64"},
		{"{\"type\": \"a\", \"x\": [1]}", "attribute \"x\""},
		{"{\"extend\": 5}", "not a duration"},
		{"{\"verdict\": \"done\"}", "exit status"},
	};
	struct frame_verdict verdict;
	struct fixture fixture;

	(void)state;
	open_script(&fixture, "event", "cat >&4; echo >&4");
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		handle(&fixture, rows[i].line, &verdict);
		assert_int_equal(verdict.verdict, DROVER_RETRY);
		if (!strstr(verdict.reason, rows[i].why))
			fail_msg("%s: %s", rows[i].line, verdict.reason);
	}
	close_fixture(&fixture);
	open_script(&fixture, "event", "printf '{\"type\": \"a\"}' >&4");
	handle(&fixture, "", &verdict);
	assert_non_null(strstr(verdict.reason, "no newline"));
	close_fixture(&fixture);
}

static char *large_body(char fill)
{
	char *body = malloc(LARGE + 1);

	assert_non_null(body);
	memset(body, fill, LARGE);
	body[LARGE] = '\0';
	return body;
}

/* 16 MiB in, 12 MiB out, and more stderr than a pipe holds, in the order that would deadlock. */
static void test_large_bodies(void **state)
{
	static const char *const once[] = {
		"perl", "-e",
		"print STDERR 'x' x 300000, \"\\n\";"
		"open F, '>&=', 4; print F '{\"type\":\"made\",\"datacontenttype\":\"text/plain\",\"data\":\"', 'y' x (12 << 20), \"\\\"}\\n\"; close F;"
		"local $/; $b = <STDIN>; print STDERR length $b, \"\\n\"; exit 65",
		NULL};
	static const char *const stays[] = {
		"perl", "-e",
		"open E, '<&=', 3; open V, '>&=', 4; $| = 1; select V; $| = 1;"
		"while (read E, $c, 100000) { last }"
		"print V '{\"type\":\"made\",\"datacontenttype\":\"text/plain\",\"data\":\"', 'y' x (12 << 20), \"\\\"}\\n\";"
		"$l = <E>; $n = 100000 + length $l;"
		"print V \"{\\\"verdict\\\":\\\"reject\\\",\\\"reason\\\":\\\"$n\\\"}\\n\"; <E>",
		NULL};
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	struct drover_event event;
	struct frame_verdict verdict;
	struct fixture fixture;
	char *body = large_body('z');

	(void)state;
	for (int i = 0; i < 2; i++) {
		open_command(&fixture, i ? "stream" : "event", i ? stays : once);
		event = harness_event("e1", body);
		event.datacontenttype = "text/plain";
		hand_over(&fixture, &event);
		expect_emitted(&fixture, &event, attributes);
		assert_int_equal(event.body_size, 12 << 20);
		harness_verdict(&fixture.worker, 1, &verdict);
		assert_int_equal(verdict.verdict, DROVER_REJECT);
		/* the body, and in the stream the attributes around it */
		if (i)
			assert_in_range(strtoll(verdict.reason, NULL, 10), LARGE + 100,
					LARGE + 300);
		else
			assert_non_null(strstr(verdict.reason, "16777216"));
		close_fixture(&fixture);
	}
	free(body);
}

#define LEAVE "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; "

static void test_a_program_leaves_nothing_behind(void **state)
{
	struct frame_verdict verdict;
	struct fixture fixture;

	(void)state;
	open_script(&fixture, "event", LEAVE "exit 0");
	for (int i = 0; i < 3; i++) {
		handle(&fixture, "", &verdict);
		assert_int_equal(verdict.verdict, DROVER_DONE);
		assert_int_equal(harness_count(&fixture.harness), 2);
	}
	close_fixture(&fixture);
}

static void test_the_timeout_ladder(void **state)
{
	struct frame_verdict verdict;
	struct drover_event event = harness_event("e1", "");
	struct fixture fixture;
	int status;

	(void)state;
	/* A verdict within the grace counts, and the worker lives on. */
	open_script(&fixture, "event",
		    "trap 'echo >&2 cut short; exit 65' TERM; echo began; sleep 1000 & wait");
	for (int i = 0; i < 2; i++) {
		hand_over(&fixture, &event);
		harness_logged(&fixture.worker, "began\n");
		buf_clear(&fixture.worker.said);
		harness_signal(&fixture.harness, 0, SIGTERM);
		harness_verdict(&fixture.worker, fixture.sequence, &verdict);
		assert_int_equal(verdict.verdict, DROVER_REJECT);
		assert_string_equal(verdict.reason, "cut short");
		assert_int_equal(harness_count(&fixture.harness), 2);
	}
	close_fixture(&fixture);

	open_script(&fixture, "event",
		    "trap '' TERM; " LEAVE "echo began; while :; do sleep 1; done");
	hand_over(&fixture, &event);
	harness_logged(&fixture.worker, "began\n");
	harness_signal(&fixture.harness, 0, SIGTERM);
	harness_signal(&fixture.harness, 0, SIGKILL);
	status = harness_expect_exited(&fixture.harness, 0);
	assert_int_equal(status, SIGKILL);
	harness_wait_count(&fixture.harness, 1);
	close_fixture(&fixture);
}

/* Idle, a worker ends at SIGTERM as any other. */
static void test_an_idle_worker_ends_at_sigterm(void **state)
{
	struct fixture fixture;

	(void)state;
	for (int i = 0; i < 2; i++) {
		open_script(&fixture, i ? "stream" : "event", LEAVE "cat <&3");
		if (i)
			harness_wait_count(&fixture.harness, 9);
		harness_signal(&fixture.harness, 0, SIGTERM);
		assert_int_equal(harness_expect_exited(&fixture.harness, 0), SIGTERM);
		harness_wait_count(&fixture.harness, 1);
		close_fixture(&fixture);
	}
}

/* Each of the two dies by kill -9, with programs running, idle and busy, and nobody to clean up. */
static void test_no_orphans(void **state)
{
	struct drover_event event = harness_event("e1", "");

	(void)state;
	for (int i = 0; i < 8; i++) {
		bool stream = i & 1, busy = i & 2, template_dies = i & 4;
		struct fixture fixture;

		open_script(&fixture, stream ? "stream" : "event", LEAVE "echo began; sleep 1000");
		if (busy)
			hand_over(&fixture, &event);
		if (stream || busy) {
			harness_logged(&fixture.worker, "began\n");
			harness_wait_count(&fixture.harness, 9);
		}
		kill(template_dies ? fixture.harness.pid : fixture.worker.pid, SIGKILL);
		if (template_dies)
			assert_int_equal(harness_reap(&fixture.harness), SIGKILL);
		harness_wait_count(&fixture.harness, template_dies ? 0 : 1);
		close_fixture(&fixture);
	}
}

static void test_trials_refuse_what_cannot_run(void **state)
{
	static const struct {
		const char *set[6], *why;
	} rows[] = {
		{{"command", "/no/such"}, "/no/such: No such file"},
		{{"command", "no-such-program"}, "no program \"no-such-program\" in PATH"},
		{{"command", "/etc/passwd"}, "/etc/passwd: Permission denied"},
		{{"command", "/tmp"}, "/tmp is not a file"},
		{{"command", "true", "mode", "batch"}, "mode = \"batch\" is unknown"},
		{{"mode", "event"}, "command is missing"},
		{{"command", "true", "grace", "2"}, "not a duration"},
		{{"command", "true", "colour", "red"}, "colour: no such setting"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct harness_setup setup = {.type = "job", .trial = true};
		struct message_view view;
		struct harness harness;

		memcpy(setup.set, rows[i].set, sizeof rows[i].set);
		harness_start(&harness, &setup);
		harness_expect(&harness.supervisor, "failed", &view);
		if (!strstr(message_text(&view, "why", ""), rows[i].why))
			fail_msg("%s: %s", rows[i].why, message_text(&view, "why", ""));
		harness_end(&harness);
	}
}

static void test_trials_look_at_the_interpreter(void **state)
{
	static const struct {
		const char *text, *why; /* NULL: it is good */
	} rows[] = {
		{"#!/bin/sh\nexit 0\n", NULL},
		{"#! /bin/sh -e\nexit 0\n", NULL},
		{"echo hello\n", "neither a program nor a script"},
		{"#!/no/such/python\n", "interpreter \"/no/such/python\""},
		{"#!/bin/sh\r\nexit 0\r\n", "carriage return"},
	};
	char path[] = "/tmp/test_exec.XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(chmod(path, 0755), 0);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct harness_setup setup = {.type = "job",
					      .trial = true,
					      .set = {"command", path}};
		FILE *file = fopen(path, "we");
		struct message_view view;
		struct harness harness;

		fputs(rows[i].text, file);
		fclose(file);
		harness_start(&harness, &setup);
		harness_expect(&harness.supervisor, rows[i].why ? "failed" : "ready", &view);
		if (rows[i].why && !strstr(message_text(&view, "why", ""), rows[i].why))
			fail_msg("%s: %s", rows[i].why, message_text(&view, "why", ""));
		harness_end(&harness);
	}
	unlink(path);
}

/* Does what the event's data says, after it has shown the line. */
#define STAYS                                                                                          \
	"while read -r line <&3; do echo \"line $line\"; case $line in\n"                              \
	"*'\"data\":\"retry\"'*) echo '{\"verdict\":\"retry\",\"delay\":\"1.5s\","                     \
	"\"reason\":\"not now\"}' >&4 ;;\n"                                                            \
	"*'\"data\":\"reject\"'*) echo '{\"verdict\":\"reject\",\"id\":\"e1\"}' >&4 ;;\n"              \
	"*'\"data\":\"emit\"'*) echo '{\"extend\":\"1s\"}' >&4;"                                       \
	" echo '{\"emit\":{\"type\":\"made\"}}' >&4; echo '{\"verdict\":\"done\"}' >&4 ;;\n"           \
	"*'\"data\":\"twice\"'*) printf '{\"verdict\":\"done\"}\\n{\"verdict\":\"done\"}\\n' >&4 ;;\n" \
	"*'\"data\":\"other\"'*) echo '{\"verdict\":\"done\",\"id\":\"e2\"}' >&4 ;;\n"                 \
	"*'\"data\":\"maybe\"'*) echo '{\"verdict\":\"maybe\"}' >&4 ;;\n"                              \
	"*'\"data\":\"noise\"'*) echo hello >&4 ;;\n"                                                  \
	"*'\"data\":\"leave\"'*) echo '{\"verdict\":\"done\"}' >&4; exit 0 ;;\n"                       \
	"*'\"data\":\"exit\"'*) exit 9 ;;\n"                                                           \
	"*'\"data\":\"kill\"'*) kill -SEGV $$ ;;\n"                                                    \
	"*'\"data\":\"hang\"'*) sleep 1000 ;;\n"                                                       \
	"*) echo '{\"verdict\":\"done\"}' >&4 ;;\n"                                                    \
	"esac; done; echo the end of events"

static void test_a_program_that_stays(void **state)
{
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	struct drover_event event;
	struct frame_verdict verdict;
	struct fixture fixture;
	struct frame frame;

	(void)state;
	open_script(&fixture, "stream", STAYS);
	handle(&fixture, "anything", &verdict);
	assert_int_equal(verdict.verdict, DROVER_DONE);
	handle(&fixture, "retry", &verdict);
	assert_int_equal(verdict.verdict, DROVER_RETRY);
	assert_int_equal(verdict.delay_ms, 1500);
	assert_string_equal(verdict.reason, "not now");
	handle(&fixture, "reject", &verdict);
	assert_int_equal(verdict.verdict, DROVER_REJECT);
	event = harness_event("e1", "emit");
	hand_over(&fixture, &event);
	harness_frame(&fixture.worker, &frame);
	assert_int_equal(frame.kind, FRAME_EXTEND);
	expect_emitted(&fixture, &event, attributes);
	assert_string_equal(event.type, "made");
	harness_verdict(&fixture.worker, fixture.sequence, &verdict);
	assert_int_equal(verdict.verdict, DROVER_DONE);
	assert_int_equal(harness_count(&fixture.harness), 3);
	harness_send_stop(&fixture.worker);
	harness_logged(&fixture.worker, "the end of events\n");
	assert_int_equal(harness_expect_exited(&fixture.harness, 0), 0);
	close_fixture(&fixture);
}

static void test_bodies_in_lines(void **state)
{
	static const struct {
		const char *type, *body;
		size_t size;
		const char *shown;
	} rows[] = {
		{NULL, "{\"a\":\n1.000000000000000000001}", 0,
		 "\"data\":{\"a\": 1.000000000000000000001}}"},
		{"application/json", "\"text\"", 0, "\"data\":\"text\"}"},
		{"application/json; charset=utf-8", "{", 0, "\"data_base64\":\"ew==\"}"},
		{"text/plain", "{}", 0, "\"data\":\"{}\"}"},
		{NULL, "gr\xc3\xbc\xc3\x9f\" dich", 0, "\"data\":\"gr\xc3\xbc\xc3\x9f\\\" dich\"}"},
		{NULL, "\xff\xfe", 0, "\"data_base64\":\"//4=\"}"},
		{"text/plain", "a\0b", 3, "\"data_base64\":\"YQBi\"}"},
		{NULL, "", 0, "\"attempt\":1}"},
	};
	struct frame_verdict verdict;
	struct fixture fixture;

	(void)state;
	open_script(&fixture, "stream", STAYS);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct drover_event event = harness_event("e1", rows[i].body);

		event.datacontenttype = rows[i].type;
		if (rows[i].size)
			event.body_size = rows[i].size;
		hand_over(&fixture, &event);
		harness_verdict(&fixture.worker, fixture.sequence, &verdict);
		harness_logged(&fixture.worker, rows[i].shown);
		buf_clear(&fixture.worker.said);
	}
	close_fixture(&fixture);
}

/* A breach fails its own event, is not taken for another's verdict, and ends the program. */
static void test_what_a_program_says_out_of_turn(void **state)
{
	static const struct {
		const char *body;
		enum drover_verdict verdict;
		const char *reason;
	} rows[] = {
		{"other", DROVER_RETRY, "verdict of another event, e2"},
		{"maybe", DROVER_RETRY, "its verdict is \"maybe\""},
		{"noise", DROVER_RETRY, "not JSON: hello"},
		{"twice", DROVER_DONE, ""},
		{"leave", DROVER_DONE, ""},
	};
	struct frame_verdict verdict;
	struct fixture fixture;

	(void)state;
	open_script(&fixture, "stream", STAYS);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		handle(&fixture, rows[i].body, &verdict);
		assert_int_equal(verdict.verdict, rows[i].verdict);
		assert_non_null(strstr(verdict.reason, rows[i].reason));
		handle(&fixture, "reject", &verdict);
		assert_int_equal(verdict.verdict, DROVER_REJECT);
		harness_logged(&fixture.worker, "started again");
		buf_clear(&fixture.worker.said);
		assert_int_equal(harness_count(&fixture.harness), 3);
	}
	close_fixture(&fixture);
}

/* A program that exits after each event, as some do after so many, fails no event by it. */
static void test_a_program_that_exits_between_events(void **state)
{
	struct frame_verdict verdict;
	struct fixture fixture;

	(void)state;
	open_script(&fixture, "stream", "read -r line <&3; echo '{\"verdict\":\"reject\"}' >&4");
	for (int i = 0; i < 50; i++) {
		handle(&fixture, "", &verdict);
		assert_int_equal(verdict.verdict, DROVER_REJECT);
	}
	close_fixture(&fixture);
	/* One that never takes an event is no such program. */
	open_script(&fixture, "stream", "exit 4");
	hand_over(&fixture, &(struct drover_event){.size = sizeof(struct drover_event),
						   .id = "e1",
						   .source = "/test"});
	assert_int_equal(WEXITSTATUS(harness_expect_exited(&fixture.harness, 0)), 4);
	harness_logged(&fixture.worker, "before it read the event, a line on descriptor 3");
	close_fixture(&fixture);
}

/* What happens to the program over an event happens to the worker. */
static void test_a_crash_of_the_program_is_the_workers(void **state)
{
	static const char *const bodies[] = {"exit", "kill", "hang"};

	(void)state;
	for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
		struct drover_event event = harness_event("e1", bodies[i]);
		struct fixture fixture;
		int status;

		open_script(&fixture, "stream", STAYS);
		hand_over(&fixture, &event);
		harness_logged(&fixture.worker, "line ");
		if (!strcmp(bodies[i], "hang"))
			harness_signal(&fixture.harness, 0, SIGTERM);
		status = harness_expect_exited(&fixture.harness, 0);
		if (i == 0)
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 9);
		else
			assert_int_equal(status & 0x7f, i == 1 ? SIGSEGV : SIGTERM);
		harness_logged(&fixture.worker, "before it gave the event's verdict");
		harness_wait_count(&fixture.harness, 1);
		close_fixture(&fixture);
	}
}

static void test_a_deaf_program_is_stopped(void **state)
{
	struct fixture fixture;
	int64_t began_ms;

	(void)state;
	open_script(&fixture, "stream",
		    "trap '' TERM; " LEAVE "echo began; while :; do sleep 1; done");
	harness_logged(&fixture.worker, "began\n");
	began_ms = clock_now_ms();
	harness_send_stop(&fixture.worker);
	assert_int_equal(harness_expect_exited(&fixture.harness, 0), 0);
	assert_in_range(clock_now_ms() - began_ms, 1900, 12000); /* the grace, twice */
	harness_wait_count(&fixture.harness, 1);
	close_fixture(&fixture);
}

/* A consumer's end is its worker's, and nothing of it is left. */
static void test_a_consumer_and_its_worker_end_alike(void **state)
{
	static const struct {
		const char *script;
		int status;
	} rows[] = {
		{"sleep 0.2; exit 0", 0},
		{"sleep 0.2; exit 3", 3 << 8},
		{"sleep 0.2; kill -SEGV $$", SIGSEGV},
		{"sleep 0.2; kill -KILL $$", SIGKILL},
	};
	struct fixture fixture;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char script[512];

		snprintf(script, sizeof script, LEAVE "ls /proc/$$/fd; echo began; %s",
			 rows[i].script);
		open_script(&fixture, "consumer", script);
		harness_logged(&fixture.worker, "began\n");
		/* Nothing to read events from, and nothing to answer on. */
		assert_null(strstr(buf_text(&fixture.worker.said), "3\n"));
		assert_int_equal(harness_expect_exited(&fixture.harness, 0) & ~0x80,
				 rows[i].status);
		harness_wait_count(&fixture.harness, 1);
		close_fixture(&fixture);
	}
}

/* It is told by SIGTERM, whoever sends that, and has the time that the dispatcher gives it. */
static void test_a_consumer_is_told_to_end(void **state)
{
	static const char polite[] =
		"trap 'echo told; sleep 0.3; exit 7' TERM; echo began; while :; do sleep 0.05; done";
	struct fixture fixture;

	(void)state;
	for (int by_signal = 0; by_signal < 2; by_signal++) {
		open_script(&fixture, "consumer", polite);
		harness_logged(&fixture.worker, "began\n");
		if (by_signal)
			harness_signal(&fixture.harness, 0, SIGTERM);
		else
			harness_send_stop(&fixture.worker);
		assert_int_equal(WEXITSTATUS(harness_expect_exited(&fixture.harness, 0)), 7);
		harness_logged(&fixture.worker, "told\n");
		close_fixture(&fixture);
	}
	open_script(&fixture, "consumer",
		    "trap 'echo told' TERM; " LEAVE "echo began; while :; do sleep 0.05; done");
	harness_logged(&fixture.worker, "began\n");
	harness_send_stop(&fixture.worker);
	harness_logged(&fixture.worker, "told\n");
	harness_signal(&fixture.harness, 0, SIGHUP);
	assert_int_equal(harness_expect_exited(&fixture.harness, 0), SIGHUP);
	harness_wait_count(&fixture.harness, 1);
	close_fixture(&fixture);
}

/* How long one event takes, of which most is the program's own start. */
static void test_a_program_starts_fast(void **state)
{
	enum { ROUNDS = 50 };
	struct frame_verdict verdict;
	int64_t best_us = INT64_MAX;
	struct fixture fixture;

	(void)state;
	open_command(&fixture, "event", (const char *const[]){"true", NULL});
	for (int i = 0; i < ROUNDS; i++) {
		handle(&fixture, "", &verdict);
		assert_int_equal(verdict.verdict, DROVER_DONE);
		best_us = verdict.busy_us < best_us ? verdict.busy_us : best_us;
	}
	print_message("best of %d: %d us for /bin/true\n", ROUNDS, (int)best_us);
	close_fixture(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit_statuses),
		cmocka_unit_test(test_attributes_and_descriptors),
		cmocka_unit_test(test_a_program_emits_and_extends),
		cmocka_unit_test(test_a_wrong_line_is_no_success),
		cmocka_unit_test(test_large_bodies),
		cmocka_unit_test(test_a_program_leaves_nothing_behind),
		cmocka_unit_test(test_the_timeout_ladder),
		cmocka_unit_test(test_an_idle_worker_ends_at_sigterm),
		cmocka_unit_test(test_no_orphans),
		cmocka_unit_test(test_trials_refuse_what_cannot_run),
		cmocka_unit_test(test_trials_look_at_the_interpreter),
		cmocka_unit_test(test_a_program_that_stays),
		cmocka_unit_test(test_bodies_in_lines),
		cmocka_unit_test(test_what_a_program_says_out_of_turn),
		cmocka_unit_test(test_a_program_that_exits_between_events),
		cmocka_unit_test(test_a_crash_of_the_program_is_the_workers),
		cmocka_unit_test(test_a_deaf_program_is_stopped),
		cmocka_unit_test(test_a_consumer_and_its_worker_end_alike),
		cmocka_unit_test(test_a_consumer_is_told_to_end),
		cmocka_unit_test(test_a_program_starts_fast),
	};

	return cmocka_run_group_tests_name("exec", tests, NULL, NULL);
}
