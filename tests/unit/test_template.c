/* SPDX-License-Identifier: MIT */
/*
 * The real template and its real workers, with this test as supervisor and dispatcher.
 */
#include <drover/handler.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "harness.h"

#include "base/banned.h"

static char object[PATH_MAX];

static void start(struct harness *harness, const char *variable)
{
	struct harness_setup setup = {.type = "job", .object = object, .environment = {variable}};

	harness_start(harness, &setup);
	harness_expect_ready(harness);
}

static void ready(struct harness_worker *worker)
{
	struct frame frame;

	harness_frame(worker, &frame);
	assert_int_equal(frame.kind, FRAME_READY);
}

static void handle(struct harness_worker *worker, const char *body, struct frame_verdict *verdict)
{
	struct drover_event event = harness_event("e1", body);

	harness_send(worker, 1, &event, 5000);
	harness_verdict(worker, 1, verdict);
}

static void test_trials_say_why(void **state)
{
	static const struct {
		const char *load, *why; /* NULL: it is good */
	} rows[] = {
		{"LOAD=", NULL},
		{"LOAD=joined", NULL},
		{"LOAD=fail", "handler_scripted.so: load failed: the table prices has no column b"},
		{"LOAD=mute", "load failed with -2 (No such file or directory), and said nothing"},
		{"LOAD=exit", "its load called exit(7)"},
		{"LOAD=thread", "left 1 thread running"},
		{"LOAD=socket", "left a socket open"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct harness_setup setup = {.type = "job",
					      .object = object,
					      .environment = {rows[i].load},
					      .trial = true};
		struct harness harness;
		struct message_view view;
		int status;

		harness_start(&harness, &setup);
		harness_expect(&harness.supervisor, rows[i].why ? "failed" : "ready", &view);
		if (rows[i].why && !strstr(message_text(&view, "why", ""), rows[i].why))
			fail_msg("%s: %s", rows[i].load, message_text(&view, "why", ""));
		if (!rows[i].why)
			assert_true(message_int(&view, "load_ms", -1) >= 0);
		status = harness_reap(&harness);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status) != 0, rows[i].why != NULL);
		harness_end(&harness);
	}
}

static void test_an_object_that_is_none_is_refused(void **state)
{
	struct harness_setup setup = {.type = "job", .object = "/bin/sh", .trial = true};
	struct harness harness;
	struct message_view view;

	(void)state;
	harness_start(&harness, &setup);
	harness_expect(&harness.supervisor, "failed", &view);
	assert_non_null(strstr(message_text(&view, "why", ""), "/bin/sh"));
	harness_end(&harness);
}

static void test_verdicts(void **state)
{
	struct frame_verdict verdict;
	struct harness_worker worker;
	struct harness harness;

	(void)state;
	start(&harness, NULL);
	harness_fork(&harness, 4, &worker);
	ready(&worker);
	handle(&worker, "", &verdict);
	assert_int_equal(verdict.verdict, DROVER_DONE);
	assert_int_equal(verdict.delay_ms, -1);
	handle(&worker, "retry", &verdict);
	assert_int_equal(verdict.verdict, DROVER_RETRY);
	assert_int_equal(verdict.delay_ms, 1500);
	assert_string_equal(verdict.reason, "not now, e1");
	handle(&worker, "reject", &verdict);
	assert_int_equal(verdict.verdict, DROVER_REJECT);
	assert_string_equal(verdict.reason, "started: yes");
	handle(&worker, "nonsense", &verdict);
	assert_int_equal(verdict.verdict, DROVER_RETRY);
	assert_non_null(strstr(verdict.reason, "7"));
	handle(&worker, "table", &verdict);
	assert_string_equal(verdict.reason, "template\n");
	handle(&worker, "say", &verdict);
	harness_logged(&worker, "printed by e1");
	harness_logged(&worker, "<5>logged by e1\n");
	harness_send_stop(&worker);
	harness_logged(&worker, "stopped, started: yes\n");
	assert_int_equal(harness_expect_exited(&harness, 4), 0);
	harness_forget(&worker);
	assert_int_equal(harness_end(&harness), 0);
}

static void test_emitted_events_are_complete(void **state)
{
	struct drover_event cause = harness_event("e1", "emit"), event;
	struct drover_attribute attributes[FRAME_ATTRIBUTES_MAX];
	char first[64];
	struct frame_verdict verdict;
	struct harness_worker worker;
	struct harness harness;
	struct frame frame;

	(void)state;
	start(&harness, NULL);
	harness_fork(&harness, 0, &worker);
	ready(&worker);
	cause.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
	for (int i = 0; i < 3; i++) {
		/* the same cause twice, then another source's event with the same id */
		cause.source = i < 2 ? "/one" : "/two";
		harness_send(&worker, 1, &cause, 5000);
		harness_frame(&worker, &frame);
		assert_int_equal(frame.kind, FRAME_EMIT);
		assert_int_equal(frame_get_event(&frame, &event, attributes, NULL), 0);
		if (!i)
			snprintf(first, sizeof first, "%s", event.id);
		assert_int_equal(strcmp(event.id, first) == 0, i < 2);
		assert_string_equal(event.source, "job");
		assert_string_equal(event.type, "made");
		assert_string_equal(event.subject, "e1");
		assert_string_equal(event.traceparent, cause.traceparent);
		assert_int_equal(event.n_extensions, 1);
		assert_string_equal(event.extensions[0].value, "eu");
		assert_memory_equal(event.body, "one", 3);
		harness_frame(&worker, &frame);
		assert_int_equal(frame_get_event(&frame, &event, attributes, NULL), 0);
		assert_string_equal(event.id, "own");
		assert_string_equal(event.source, "/own");
		harness_frame(&worker, &frame);
		assert_int_equal(frame.kind, FRAME_EMIT);
		harness_verdict(&worker, 1, &verdict);
		assert_string_equal(verdict.reason, "");
		assert_int_equal(verdict.verdict, DROVER_DONE);
	}
	harness_forget(&worker);
	harness_end(&harness);
}

static void test_extending(void **state)
{
	struct drover_event event = harness_event("e1", "extend");
	struct frame_verdict verdict;
	struct harness_worker worker;
	struct harness harness;
	struct frame frame;
	uint32_t ms;

	(void)state;
	start(&harness, NULL);
	harness_fork(&harness, 0, &worker);
	ready(&worker);
	harness_send(&worker, 1, &event, 5000);
	harness_frame(&worker, &frame);
	assert_int_equal(frame.kind, FRAME_EXTEND);
	assert_int_equal(frame_get_extend(&frame, &ms), 0);
	assert_int_equal(ms, 5000);
	harness_verdict(&worker, 1, &verdict);
	assert_int_equal(verdict.verdict, DROVER_DONE);
	harness_forget(&worker);
	harness_end(&harness);
}

/* A batch: what was handled before a crash is known, whatever came after it. */
static void test_verdicts_before_a_crash_are_out(void **state)
{
	struct drover_event good = harness_event("good", ""), bad = harness_event("bad", "abort");
	struct buf out = {0};
	struct frame_verdict verdict;
	struct harness_worker worker;
	struct harness harness;
	int status;

	(void)state;
	start(&harness, NULL);
	harness_fork(&harness, 0, &worker);
	ready(&worker);
	for (uint32_t i = 0; i < 20; i++)
		frame_put_event(&out, FRAME_EVENT, i, i == 19 ? &bad : &good, 5000);
	assert_int_equal(send(worker.socket, buf_front(&out), buf_size(&out), 0), buf_size(&out));
	buf_free(&out);
	for (uint32_t i = 0; i < 19; i++)
		harness_verdict(&worker, i, &verdict);
	status = harness_expect_exited(&harness, 0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	harness_forget(&worker);
	harness_end(&harness);
}

static void test_a_worker_drains(void **state)
{
	struct drover_event event = harness_event("e1", "drain");
	struct frame_verdict verdict;
	struct harness_worker worker;
	struct harness harness;

	(void)state;
	start(&harness, NULL);
	harness_fork(&harness, 0, &worker);
	ready(&worker);
	harness_send(&worker, 1, &event, 5000);
	harness_send_stop(&worker);
	harness_verdict(&worker, 1, &verdict);
	assert_int_equal(verdict.verdict, DROVER_DONE);
	assert_int_equal(harness_expect_exited(&harness, 0), 0);
	harness_forget(&worker);
	harness_end(&harness);
}

static void test_a_failed_start_is_told(void **state)
{
	struct harness_worker worker;
	struct harness harness;
	int status;

	(void)state;
	start(&harness, "START=fail");
	harness_fork(&harness, 0, &worker);
	harness_logged(&worker, "<3>the database is away really\n");
	status = harness_expect_exited(&harness, 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	harness_forget(&worker);
	harness_end(&harness);
}

/* Garbage from the dispatcher's end does not get past the worker. */
static void test_a_frame_that_is_none_ends_the_worker(void **state)
{
	static const char garbage[] = "GET / HTTP/1.1\r\n\r\n";
	struct harness_worker worker;
	struct harness harness;

	(void)state;
	start(&harness, NULL);
	harness_fork(&harness, 0, &worker);
	ready(&worker);
	assert_int_equal(send(worker.socket, garbage, sizeof garbage, 0), sizeof garbage);
	harness_logged(&worker, "no frame");
	assert_true(WEXITSTATUS(harness_expect_exited(&harness, 0)) == 1);
	harness_forget(&worker);
	harness_end(&harness);
}

static void test_signals_reach_a_worker(void **state)
{
	struct drover_event event = harness_event("e1", "hang");
	struct harness_worker worker;
	struct harness harness;
	int status;

	(void)state;
	start(&harness, "LOAD=signals"); /* what the load did to signals is undone */
	harness_fork(&harness, 7, &worker);
	ready(&worker);
	harness_send(&worker, 1, &event, 5000);
	harness_signal(&harness, 7, SIGTERM);
	status = harness_expect_exited(&harness, 7);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGTERM);
	harness_forget(&worker);
	harness_end(&harness);
}

static void ping(struct harness *harness, int64_t n)
{
	struct message message = {0};

	message_start(&message, "ping");
	message_add_int(&message, "n", n);
	assert_int_equal(channel_send(&harness->supervisor, &message, NULL, 0), 0);
	message_free(&message);
}

static void test_pings_are_answered_while_forks_are_queued(void **state)
{
	enum { FORKS = 200 };
	struct message_view view;
	struct harness harness;
	int ends[FORKS];
	int64_t began_ms;

	(void)state;
	start(&harness, NULL);
	for (int i = 0; i < FORKS; i++) {
		struct message message = {0};
		int pair[2], answers = open("/dev/null", O_WRONLY | O_CLOEXEC),
			     log = dup(STDERR_FILENO);

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		ends[i] = pair[0];
		message_start(&message, "fork");
		message_add_int(&message, "slot", i);
		assert_int_equal(channel_send(&harness.link, &message,
					      (int[3]){pair[1], answers, log}, 3),
				 0);
		message_free(&message);
	}
	began_ms = clock_now_ms();
	ping(&harness, 42);
	while (channel_pending(&harness.link))
		channel_flush(&harness.link);
	harness_expect(&harness.supervisor, "pong", &view);
	assert_int_equal(message_int(&view, "n", 0), 42);
	assert_true(clock_now_ms() - began_ms < 5000);
	for (int i = 0; i < FORKS; i++)
		harness_expect(&harness.link, "forked", &view);
	for (int i = 0; i < FORKS; i++)
		close(ends[i]);
	for (int i = 0; i < FORKS; i++)
		harness_expect(&harness.link, "exited", &view);
	harness_end(&harness);
	harness_wait_count(&harness, 0);
}

static void test_a_slot_in_use_is_refused(void **state)
{
	struct harness_worker worker;
	struct message message = {0};
	struct message_view view;
	struct harness harness;

	(void)state;
	start(&harness, NULL);
	harness_fork(&harness, 3, &worker);
	message_start(&message, "fork");
	message_add_int(&message, "slot", 3);
	assert_int_equal(channel_send(&harness.link, &message, (int[3]){dup(2), dup(2), dup(2)}, 3),
			 0);
	harness_expect(&harness.link, "unforked", &view);
	assert_string_equal(message_text(&view, "why", ""), "the slot still has a worker");
	message_start(&message, "fork");
	message_add_int(&message, "slot", 4);
	assert_int_equal(channel_send(&harness.link, &message, NULL, 0), 0);
	harness_expect(&harness.link, "unforked", &view);
	assert_int_equal(message_int(&view, "slot", -1), 4);
	message_free(&message);
	harness_forget(&worker);
	harness_end(&harness);
}

/* A worker with two programs of its handler: one in its process group, one detached. */
static void start_with_programs(struct harness *harness, struct harness_worker *worker)
{
	struct frame_verdict verdict;

	start(harness, NULL);
	harness_fork(harness, 0, worker);
	ready(worker);
	handle(worker, "spawn", &verdict);
	handle(worker, "detach", &verdict);
	harness_wait_count(harness, 4);
}

static void test_a_dead_workers_programs_are_killed_its_siblings_not(void **state)
{
	struct harness_worker worker, sibling;
	struct frame_verdict verdict;
	struct harness harness;

	(void)state;
	start_with_programs(&harness, &worker);
	harness_fork(&harness, 1, &sibling);
	ready(&sibling);
	handle(&sibling, "spawn", &verdict);
	harness_wait_count(&harness, 6);
	kill(worker.pid, SIGKILL);
	assert_int_equal(harness_expect_exited(&harness, 0), SIGKILL);
	harness_wait_count(&harness, 3);
	handle(&sibling, "", &verdict);
	assert_int_equal(verdict.verdict, DROVER_DONE);
	harness_forget(&worker);
	harness_forget(&sibling);
	harness_end(&harness);
	harness_wait_count(&harness, 0);
}

static void end_by_link(struct harness *harness)
{
	channel_close(&harness->link);
}

static void end_by_supervisor(struct harness *harness)
{
	channel_close(&harness->supervisor);
}

static void end_by_term(struct harness *harness)
{
	kill(harness->pid, SIGTERM);
}

static void end_by_hup(struct harness *harness)
{
	kill(harness->pid, SIGHUP);
}

static void test_nothing_outlives_the_template(void **state)
{
	void (*const ways[])(struct harness * harness) = {end_by_link, end_by_supervisor,
							  end_by_term, end_by_hup};

	(void)state;
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		char unloaded[] = "/tmp/test_template.XXXXXX", variable[64];
		struct harness_worker worker;
		struct frame_verdict verdict;
		struct harness harness;
		int fd = mkstemp(unloaded);

		assert_true(fd >= 0);
		close(fd);
		unlink(unloaded);
		snprintf(variable, sizeof variable, "UNLOADED=%s", unloaded);
		start(&harness, variable);
		harness_fork(&harness, 0, &worker);
		ready(&worker);
		handle(&worker, "spawn", &verdict);
		handle(&worker, "detach", &verdict);
		harness_wait_count(&harness, 4);
		ways[i](&harness);
		assert_int_equal(harness_reap(&harness), 0);
		assert_int_equal(harness_count(&harness), 0);
		assert_int_equal(unlink(unloaded), 0); /* `unload` ran */
		harness_forget(&worker);
		harness_end(&harness);
	}
}

/* Its workers go with it; what they left comes to the supervisor, which kills strangers too. */
static void test_workers_do_not_outlive_a_killed_template(void **state)
{
	struct harness_worker worker;
	struct harness harness;

	(void)state;
	start(&harness, NULL);
	harness_fork(&harness, 0, &worker);
	ready(&worker);
	kill(harness.pid, SIGKILL);
	assert_int_equal(harness_reap(&harness), SIGKILL);
	harness_wait_count(&harness, 0);
	harness_forget(&worker);
	harness_end(&harness);
}

/* The time from the request to the answer, and to a worker that is ready. */
static void test_a_fork_is_fast(void **state)
{
	enum { ROUNDS = 40 };
	int64_t forked_ns = INT64_MAX, ready_ns = INT64_MAX;
	struct harness harness;

	(void)state;
	start(&harness, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		int64_t began_ns = clock_now_ns(), took_ns;
		struct harness_worker worker;

		harness_fork(&harness, i, &worker);
		took_ns = clock_now_ns() - began_ns;
		forked_ns = took_ns < forked_ns ? took_ns : forked_ns;
		ready(&worker);
		took_ns = clock_now_ns() - began_ns;
		ready_ns = took_ns < ready_ns ? took_ns : ready_ns;
		kill(worker.pid, SIGKILL);
		harness_expect_exited(&harness, i);
		harness_forget(&worker);
	}
	print_message("best of %d: forked in %d us, ready in %d us\n", ROUNDS,
		      (int)(forked_ns / 1000), (int)(ready_ns / 1000));
#if !defined(__SANITIZE_ADDRESS__)
	assert_true(ready_ns < 2000000);
#endif
	harness_end(&harness);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_trials_say_why),
		cmocka_unit_test(test_an_object_that_is_none_is_refused),
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_emitted_events_are_complete),
		cmocka_unit_test(test_extending),
		cmocka_unit_test(test_verdicts_before_a_crash_are_out),
		cmocka_unit_test(test_a_worker_drains),
		cmocka_unit_test(test_a_failed_start_is_told),
		cmocka_unit_test(test_a_frame_that_is_none_ends_the_worker),
		cmocka_unit_test(test_signals_reach_a_worker),
		cmocka_unit_test(test_pings_are_answered_while_forks_are_queued),
		cmocka_unit_test(test_a_slot_in_use_is_refused),
		cmocka_unit_test(test_a_dead_workers_programs_are_killed_its_siblings_not),
		cmocka_unit_test(test_nothing_outlives_the_template),
		cmocka_unit_test(test_workers_do_not_outlive_a_killed_template),
		cmocka_unit_test(test_a_fork_is_fast),
	};

	harness_path("tests/unit/handler_scripted.so", object);
	return cmocka_run_group_tests_name("template", tests, NULL, NULL);
}
