/* SPDX-License-Identifier: MIT */
/*
 * The real dispatcher between a supervisor, templates and workers played by the rig: what becomes
 * of events, whom it ends and whom it keeps. Run from the build directory.
 */
#include "dispatcher_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

#include "base/banned.h"

static struct rig rig;

static int stop(void **state)
{
	(void)state;
	rig_stop(&rig);
	return 0;
}

#define FIELDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const struct memory_packet *wait_settled(const char *id)
{
	rig_wait(&rig, rig_settled(&rig, id, 0));
	return rig_settled(&rig, id, 0);
}

/* Each outcome of a handler and the settlement that follows. */
static void test_outcomes(void **state)
{
	static const struct {
		const char *name, *body;
		uint32_t attempts;
		enum drover_settlement_kind kind;
		uint32_t settled_attempts;
		int64_t least_ms, most_ms;
		const char *reason;
	} rows[] = {
		{"done", "done", 0, DROVER_SETTLE_DONE, 0, 0, 0, ""},
		{"retry", "retry", 0, DROVER_SETTLE_RETRY, 1, 900, 1100, "not now"},
		{"retry-2", "retry", 1, DROVER_SETTLE_RETRY, 2, 2700, 3300, "not now"},
		{"retry-asked", "retry_soon", 0, DROVER_SETTLE_RETRY, 1, 1234, 1234, "not now"},
		{"retry-last", "retry", 4, DROVER_SETTLE_DEAD, 5, 0, 0,
		 "not now (gave up after 5 attempts)"},
		{"reject", "reject", 0, DROVER_SETTLE_DEAD, 1, 0, 0, "never (rejected)"},
		{"crash-later", "crash", 2, DROVER_SETTLE_RETRY, 3, 8100, 9900,
		 "its worker was killed by signal 11"},
		{"exit-later", "exit", 2, DROVER_SETTLE_RETRY, 3, 8100, 9900,
		 "its worker exited with status 0"},
		{"crash-last", "crash", 4, DROVER_SETTLE_DEAD, 5, 0, 0, "gave up after 5"},
		{"garbage", "garbage", 2, DROVER_SETTLE_RETRY, 3, 8100, 9900,
		 "its worker sent garbage"},
		{"wrong", "wrong", 2, DROVER_SETTLE_RETRY, 3, 8100, 9900,
		 "its worker sent garbage"},
		{"huge", "huge", 2, DROVER_SETTLE_RETRY, 3, 8100, 9900, "its worker sent garbage"},
		{"half", "half", 2, DROVER_SETTLE_RETRY, 3, 8100, 9900,
		 "its worker exited with status 0"},
		{"untyped", "untyped", 2, DROVER_SETTLE_RETRY, 3, 8100, 9900,
		 "its worker sent garbage"},
		{"vanish", "vanish", 2, DROVER_SETTLE_RETRY, 3, 8100, 9900,
		 "its worker was killed by signal 9"},
	};
	const size_t n = sizeof rows / sizeof *rows;

	(void)state;
	rig_start(&rig, NULL, 2);
	for (size_t i = 0; i < n; i++)
		rig_deliver(&rig, rows[i].name, rows[i].body, rows[i].attempts);
	for (size_t i = 0; i < n; i++) {
		const struct memory_packet *settled = wait_settled(rows[i].name);

		print_message("%s: kind %d, attempts %u, delay %d, \"%s\"\n", rows[i].name,
			      (int)settled->number, settled->attempts, (int)settled->delay_ms,
			      settled->reason);
		assert_int_equal(settled->number, rows[i].kind);
		assert_int_equal(settled->attempts, rows[i].settled_attempts);
		assert_in_range(settled->delay_ms, rows[i].least_ms, rows[i].most_ms);
		assert_non_null(strstr(settled->reason, rows[i].reason));
		assert_int_equal(rig_seen(&rig, rows[i].name), 1);
	}
	rig_wait(&rig, rig_report(&rig, "handled") == (int64_t)n);
	assert_int_equal(rig_report(&rig, "done"), 1);
	assert_int_equal(rig_report(&rig, "failed"), 4);
	assert_int_equal(rig_report(&rig, "rejected"), 1);
	assert_int_equal(rig_report(&rig, "crashed"), 9);
	assert_int_equal(rig_report(&rig, "dead"), 3);
	assert_int_equal(rig_report(&rig, "retried"), 11);
	assert_int_equal(rig_report(&rig, "in_flight"), 0);
}

/* A first crash is tried again at once and alone; its neighbours are not counted. */
static void test_crash_in_batch(void **state)
{
	char id[16];

	(void)state;
	rig_start(&rig, NULL, 1);
	for (int i = 0; i < 200; i++) {
		snprintf(id, sizeof id, "b%d", i);
		rig_deliver(&rig, id, i == 120 ? "crash" : "done", 0);
	}
	rig_wait(&rig, rig_count(&rig, MEMORY_SETTLED) == 200);
	for (int i = 0; i < 200; i++) {
		const struct memory_packet *settled;

		snprintf(id, sizeof id, "b%d", i);
		settled = rig_settled(&rig, id, 0);
		assert_non_null(settled);
		assert_int_equal(settled->number,
				 i == 120 ? DROVER_SETTLE_RETRY : DROVER_SETTLE_DONE);
		assert_int_equal(settled->attempts, i == 120 ? 2 : 0);
		assert_in_range(rig_seen(&rig, id), i == 120 ? 2 : 1, 2);
	}
	rig_wait(&rig, rig_report(&rig, "handled") == 200);
	assert_int_equal(rig_report(&rig, "crashed"), 2);
	rig_wait(&rig, rig_report(&rig, "ready") == 1);
}

static void test_timeouts(void **state)
{
	static const struct {
		const char *body;
		enum drover_settlement_kind kind;
		const char *reason;
		int64_t least_ms, most_ms; /* until it is settled */
	} rows[] = {
		/* Ended by SIGTERM; by SIGKILL, 2 s later. */
		{"hang", DROVER_SETTLE_RETRY, "timed out after 1.0 s", 990, 2900},
		{"stubborn", DROVER_SETTLE_RETRY, "timed out after 1.0 s", 2900, 9000},
		{"grace", DROVER_SETTLE_DONE, "", 1040, 2900},
	};

	(void)state;
	rig_start(&rig, FIELDS("timeout_ms=1000"), 1);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const struct memory_packet *settled;
		int64_t began_ms;

		rig_wait(&rig, rig_report(&rig, "ready") == 1);
		began_ms = clock_now_ms();
		rig_deliver(&rig, rows[i].body, rows[i].body, 0);
		settled = wait_settled(rows[i].body);
		print_message("%s after %d ms: %s\n", rows[i].body,
			      (int)(clock_now_ms() - began_ms), settled->reason);
		assert_int_equal(settled->number, rows[i].kind);
		assert_string_equal(settled->reason, rows[i].reason);
		assert_in_range(clock_now_ms() - began_ms, rows[i].least_ms, rows[i].most_ms);
	}
	rig_wait(&rig, rig_report(&rig, "timed_out") == 2);
}

static void test_extended(void **state)
{
	int64_t began_ms = clock_now_ms();

	(void)state;
	rig_start(&rig, FIELDS("timeout_ms=3000"), 1);
	rig_deliver(&rig, "extended", "extend", 0);
	assert_int_equal(wait_settled("extended")->number, DROVER_SETTLE_DONE);
	assert_true(clock_now_ms() - began_ms >= 3990);
	rig_wait(&rig, rig_report(&rig, "done") == 1);
	assert_int_equal(rig_report(&rig, "timed_out"), 0);
}

/* Done within the grace: that counts, and what was behind it in the batch is not held to blame. */
static void test_grace_in_batch(void **state)
{
	static const char *const ids[] = {"late", "b1", "b2", "b3", "b4"};

	(void)state;
	rig_start(&rig, FIELDS("timeout_ms=2000"), 1);
	rig_deliver(&rig, "fast", "done", 0);
	wait_settled("fast");
	/* While it is busy the others come together, and then go out together. */
	rig_deliver(&rig, "busy", "slow", 0);
	rig_wait(&rig, rig_seen(&rig, "busy") == 1);
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		rig_deliver(&rig, ids[i], i ? "done" : "grace", 0);
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
		assert_int_equal(wait_settled(ids[i])->number, DROVER_SETTLE_DONE);
		assert_int_equal(wait_settled(ids[i])->attempts, 0);
	}
	rig_wait(&rig, rig_report(&rig, "done") == 7);
	assert_int_equal(rig_report(&rig, "timed_out") + rig_report(&rig, "crashed"), 0);
	/* The worker that had to be told is replaced. */
	rig_wait(&rig, rig.n_workers == 2 && rig_alive(&rig, 0) == 1);
}

/* Stopped before it read: its event was not tried. Stopped in the middle of it: that counts. */
static void test_stopped_worker(void **state)
{
	const struct memory_packet *settled;
	pid_t pid;

	(void)state;
	rig_start(&rig, FIELDS("timeout_ms=1000"), 1);
	rig_wait(&rig, rig_report(&rig, "ready") == 1);
	pid = rig_worker(&rig, 0)->pid;
	kill(pid, SIGSTOP);
	rig_deliver(&rig, "unread", "done", 0);
	settled = wait_settled("unread");
	assert_int_equal(settled->number, DROVER_SETTLE_DONE);
	assert_int_equal(settled->attempts, 0);
	assert_int_equal(rig_seen(&rig, "unread"), 1);
	assert_int_equal(kill(pid, 0), -1);
	rig_deliver(&rig, "read", "hang", 0);
	rig_wait(&rig, rig_seen(&rig, "read") == 1);
	kill(rig_worker(&rig, 0)->pid, SIGSTOP);
	settled = wait_settled("read");
	assert_int_equal(settled->number, DROVER_SETTLE_RETRY);
	assert_int_equal(settled->attempts, 1);
}

static void test_emitted(void **state)
{
	const struct memory_packet *settled;
	int published[2] = {0}, n = 0;

	(void)state;
	rig_start(&rig, NULL, 1);
	rig_deliver(&rig, "cause", "emit", 0);
	settled = wait_settled("cause");
	assert_int_equal(settled->number, DROVER_SETTLE_DONE);
	for (int i = 0; i < rig.n_notes; i++)
		if (rig.notes[i].kind == MEMORY_PUBLISHED)
			published[n++] = i;
	assert_int_equal(n, 2);
	assert_true(&rig.notes[published[1]] < settled);
	assert_string_equal(rig.notes[published[0]].id, "cause.1");
	assert_string_equal(rig.notes[published[0]].body, "mail.queued");
	assert_string_equal(rig.notes[published[0]].reason, "order.paid");
	assert_string_equal(rig.notes[published[0]].type, "00-trace");
	assert_string_equal(rig.notes[published[1]].id, "own-id");

	rig_deliver(&rig, "not-done", "emit_retry", 0);
	assert_int_equal(wait_settled("not-done")->number, DROVER_SETTLE_RETRY);
	rig_deliver(&rig, "nobody", "emit_nobody", 0);
	settled = wait_settled("nobody");
	assert_int_equal(settled->number, DROVER_SETTLE_RETRY);
	assert_non_null(strstr(settled->reason, "nobody was not taken: no type receives it"));
	rig_deliver(&rig, "flood", "emit_flood", 0);
	settled = wait_settled("flood");
	assert_int_equal(settled->number, DROVER_SETTLE_DEAD);
	assert_non_null(strstr(settled->reason, "more than 10000 events"));
	assert_int_equal(rig_count(&rig, MEMORY_PUBLISHED), 2);
	rig_wait(&rig, rig_report(&rig, "emitted") == 2);
}

/* A broker that cannot publish or settle: nothing is lost, nothing settled early. */
static void test_broker_errors(void **state)
{
	(void)state;
	rig_start(&rig, NULL, 1);
	rig_broker(&rig, MEMORY_FAIL_PUBLISH, -ENOSPC);
	rig_deliver(&rig, "cause", "emit", 0);
	rig_wait(&rig, strstr(rig_report_text(&rig, "last_error"), "cannot be published"));
	assert_null(rig_settled(&rig, "cause", 0));
	assert_int_equal(rig_report(&rig, "in_flight"), 1);
	rig_broker(&rig, MEMORY_FAIL_PUBLISH, 0);
	assert_int_equal(wait_settled("cause")->number, DROVER_SETTLE_DONE);
	assert_int_equal(rig_seen(&rig, "cause"), 1);

	rig_broker(&rig, MEMORY_REFUSE_SETTLE, -EIO);
	rig_deliver(&rig, "later", "done", 0);
	rig_wait(&rig, strstr(rig_report_text(&rig, "last_error"), "does not settle event later"));
	rig_broker(&rig, MEMORY_REFUSE_SETTLE, 0);
	assert_int_equal(wait_settled("later")->number, DROVER_SETTLE_DONE);
	assert_int_equal(rig_seen(&rig, "later"), 1);
	rig_wait(&rig, rig_report(&rig, "done") == 2);

	rig_broker(&rig, MEMORY_FAIL_SETTLED, -EPIPE);
	rig_deliver(&rig, "gone", "done", 0);
	rig_wait(&rig, strstr(rig_report_text(&rig, "last_error"), "gone could not be settled"));
	rig_wait(&rig, rig_report(&rig, "in_flight") == 0);
	assert_int_equal(rig_report(&rig, "done"), 2);
}

static void test_inbox(void **state)
{
	const char *const *fields = FIELDS("inbox=sqlite");

	(void)state;
	rig_start(&rig, fields, 2);
	rig_deliver(&rig, "once", "done", 0);
	wait_settled("once");
	rig_deliver(&rig, "once", "done", 0);
	rig_wait(&rig, rig_count(&rig, MEMORY_SETTLED) == 2);
	assert_int_equal(rig_seen(&rig, "once"), 1);
	rig_wait(&rig, rig_report(&rig, "skipped") == 1);
	assert_int_equal(rig_report(&rig, "done"), 1);
	/* Two of the same id at a time: the second waits for the first. */
	rig_deliver(&rig, "twin", "slow", 0);
	rig_deliver(&rig, "twin", "slow", 0);
	rig_wait(&rig, rig_report(&rig, "skipped") == 2);
	assert_int_equal(rig_seen(&rig, "twin"), 1);
	/* What failed is not recorded. */
	rig_deliver(&rig, "again", "retry", 0);
	wait_settled("again");
	rig_deliver(&rig, "again", "done", 1);
	rig_wait(&rig, rig_seen(&rig, "again") == 2);

	/* Killed between the record and the settling. */
	rig_broker(&rig, MEMORY_REFUSE_SETTLE, -EIO);
	rig_deliver(&rig, "torn", "done", 0);
	rig_wait(&rig, strstr(rig_report_text(&rig, "last_error"), "does not settle event torn"));
	rig_kill(&rig);
	assert_null(rig_settled(&rig, "torn", 0));
	rig_start_again(&rig, fields, 2);
	rig_deliver(&rig, "torn", "done", 0);
	assert_int_equal(wait_settled("torn")->number, DROVER_SETTLE_DONE);
	assert_int_equal(rig_seen(&rig, "torn"), 1);
}

/* An inbox that cannot be used holds the events back, and says so, until it can. */
static void test_broken_inbox(void **state)
{
	char path[128], aside[160];
	int fd;

	(void)state;
	rig_start(&rig, FIELDS("inbox=sqlite"), 1);
	rig_wait(&rig, rig_report(&rig, "ready") == 1);
	rig_kill(&rig);
	snprintf(path, sizeof path, "%s/inbox/order.paid.db", rig.directory);
	snprintf(aside, sizeof aside, "%s-wal", path);
	unlink(aside);
	snprintf(aside, sizeof aside, "%s/aside", rig.directory);
	fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(write(fd, "not a database. ", 16), 16);
	close(fd);
	rig_start_again(&rig, FIELDS("inbox=sqlite"), 1);
	rig_deliver(&rig, "held", "done", 0);
	rig_wait(&rig, strstr(rig_report_text(&rig, "last_error"), "file is not a database"));
	assert_non_null(strstr(rig_report_text(&rig, "last_error"), path));
	assert_int_equal(rig_seen(&rig, "held"), 0);
	assert_int_equal(rename(path, aside), 0);
	assert_int_equal(wait_settled("held")->number, DROVER_SETTLE_DONE);
}

static void test_definition(void **state)
{
	(void)state;
	rig_start(&rig, FIELDS("required=user_id", "max_bytes=40"), 1);
	rig_deliver(&rig, "good", "{\"user_id\": 7}", 0);
	rig_deliver(&rig, "lacking", "{\"user\": 7}", 0);
	rig_deliver(&rig, "large", "{\"user_id\": 7, \"text\": \"much too much of it\"}", 0);
	assert_int_equal(wait_settled("good")->number, DROVER_SETTLE_DONE);
	assert_int_equal(wait_settled("lacking")->number, DROVER_SETTLE_DEAD);
	assert_string_equal(wait_settled("lacking")->reason,
			    "the required field \"user_id\" is missing");
	assert_int_equal(wait_settled("large")->number, DROVER_SETTLE_DEAD);
	assert_non_null(strstr(wait_settled("large")->reason, "max_bytes = 40"));
	assert_int_equal(rig_seen(&rig, "lacking") + rig_seen(&rig, "large"), 0);
}

/* Most events fail: one at a time, until some succeed. */
static void test_brake(void **state)
{
	char id[16];

	(void)state;
	rig_start(&rig, FIELDS("brake=auto"), 1);
	for (int i = 0; i < 400; i++) {
		snprintf(id, sizeof id, "f%d", i);
		rig_deliver(&rig, id, "retry", 0);
	}
	rig_wait(&rig, !strcmp(rig_report_text(&rig, "mode"), "probe"));
	assert_true(rig_report(&rig, "mode_until_ms") > 0);
	/* No more than had been handed out by then; the others went back. */
	rig_wait(&rig, rig_report(&rig, "held") <= 1 && rig_report(&rig, "in_flight") == 0);
	assert_in_range(rig_report(&rig, "failed"), 10, 80);
	assert_true(rig_logged(&rig, "events failed; from now on one at a time is tried"));
	for (int i = 0; i < 10; i++) {
		snprintf(id, sizeof id, "s%d", i);
		rig_deliver(&rig, id, "done", 0);
	}
	rig_policy(&rig, FIELDS("brake=off"));
	rig_wait(&rig, rig_settled(&rig, "s9", 0));
	rig_wait(&rig, !strcmp(rig_report_text(&rig, "mode"), "normal"));
}

/* Fewer workers: idle ones end, busy ones never. */
static void test_target(void **state)
{
	(void)state;
	rig_start(&rig, NULL, 6);
	rig_wait(&rig, rig_report(&rig, "ready") == 6);
	for (int i = 0; i < 3; i++)
		rig_deliver(&rig, (const char *[]){"x", "y", "z"}[i], "gated", 0);
	rig_wait(&rig, rig_seen(&rig, "x") + rig_seen(&rig, "y") + rig_seen(&rig, "z") == 3);
	rig_say_int(&rig, "target", "workers", 0);
	rig_wait(&rig, rig_alive(&rig, 0) == 3);
	rig.shared->open = true;
	rig_wait(&rig, rig_alive(&rig, 0) == 0);
	assert_int_equal(rig_count(&rig, MEMORY_SETTLED), 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(rig_settled(&rig, (const char *[]){"x", "y", "z"}[i], 0)->number,
				 DROVER_SETTLE_DONE);
	assert_false(rig_logged(&rig, "worker"));
	rig_say_int(&rig, "target", "workers", 2);
	rig_wait(&rig, rig_report(&rig, "ready") == 2);
}

static void test_recycling(void **state)
{
	char id[16];
	int least = 99;

	(void)state;
	rig_start(&rig, FIELDS("recycle_events=10"), 1);
	rig_wait(&rig, rig_report(&rig, "ready") == 1);
	for (int i = 0; i < 50; i++) {
		snprintf(id, sizeof id, "r%d", i);
		rig_deliver(&rig, id, "done", 0);
		wait_settled(id);
		/* After each ten another one serves, and the old one goes when that one is ready. */
		if (i % 10 == 9)
			rig_wait(&rig, rig.n_workers == i / 10 + 2 && rig_alive(&rig, 0) == 1);
		if (rig_report(&rig, "ready") < least)
			least = (int)rig_report(&rig, "ready");
	}
	assert_true(least >= 1);
}

static void test_generations(void **state)
{
	(void)state;
	rig_start(&rig, NULL, 3);
	rig_wait(&rig, rig_report(&rig, "ready") == 3);
	rig_deliver(&rig, "old", "slow", 0);
	rig_wait(&rig, rig_seen(&rig, "old") == 1);
	/* A replaced file: new workers first, the old ones go when idle. */
	rig_template(&rig, false);
	rig_wait(&rig, rig.retired == 1);
	assert_int_equal(wait_settled("old")->number, DROVER_SETTLE_DONE);
	assert_int_equal(rig_alive(&rig, 1), 0);
	rig_wait(&rig, rig_alive(&rig, 2) == 3);
	/* One on trial that fails: the one before it serves again. */
	rig.shared->failing_starts |= 1u << 3;
	rig_template(&rig, true);
	rig_wait(&rig, rig_report(&rig, "generation_failed_starts") >= 3);
	assert_int_equal(rig_report(&rig, "generation"), 3);
	rig_deliver(&rig, "meanwhile", "done", 0);
	assert_int_equal(wait_settled("meanwhile")->number, DROVER_SETTLE_DONE);
	rig_say_int(&rig, "revert", "generation", 3);
	rig_wait(&rig, rig.retired == 3);
	rig_wait(&rig, rig_report(&rig, "generation") == 2);
	/* One on trial that works: proven, the one before it goes. */
	rig_template(&rig, true);
	rig_wait(&rig, rig_alive(&rig, 4) == 3 && rig_alive(&rig, 2) == 0);
	assert_int_equal(rig.retired, 3);
	rig_deliver(&rig, "new", "done", 0);
	wait_settled("new");
	rig_wait(&rig, rig_report(&rig, "generation_outcomes") == 1);
	rig_say_int(&rig, "prove", "generation", 4);
	rig_wait(&rig, rig.retired == 2);
}

static void test_pause_and_drain(void **state)
{
	const struct memory_packet *settled;

	(void)state;
	rig_start(&rig, FIELDS("stop_timeout_ms=2000"), 1);
	rig_wait(&rig, rig_report(&rig, "ready") == 1);
	rig_say(&rig, "pause");
	rig_wait(&rig, !strcmp(rig_report_text(&rig, "mode"), "paused"));
	rig_deliver(&rig, "waits", "done", 0);
	rig_say(&rig, "resume");
	assert_int_equal(wait_settled("waits")->number, DROVER_SETTLE_DONE);
	rig_deliver(&rig, "busy", "gated", 0);
	rig_wait(&rig, rig_seen(&rig, "busy") == 1);
	rig_deliver(&rig, "behind", "done", 0);
	rig_wait(&rig, rig_report(&rig, "held") == 1);
	rig_say(&rig, "pause");
	settled = wait_settled("behind");
	assert_int_equal(settled->number, DROVER_SETTLE_GIVE_BACK);
	rig.shared->open = true;
	assert_int_equal(wait_settled("busy")->number, DROVER_SETTLE_DONE);
	rig_say(&rig, "resume");

	/* Busy ones finish within the time they are given, the others' events go back. */
	rig_say_int(&rig, "target", "workers", 3);
	rig_wait(&rig, rig_report(&rig, "ready") == 3);
	rig_deliver(&rig, "finishes", "slow", 0);
	rig_deliver(&rig, "late", "hang", 0);
	rig_deliver(&rig, "yields", "yield", 0);
	rig_wait(&rig, rig_seen(&rig, "finishes") == 1 && rig_seen(&rig, "late") == 1 &&
			       rig_seen(&rig, "yields") == 1);
	rig_say(&rig, "drain");
	rig_wait(&rig, rig.drained);
	rig_wait(&rig, !rig.dispatcher);
	assert_true(WIFEXITED(rig.status) && WEXITSTATUS(rig.status) == 0);
	assert_int_equal(wait_settled("finishes")->number, DROVER_SETTLE_DONE);
	assert_int_equal(wait_settled("late")->number, DROVER_SETTLE_GIVE_BACK);
	/* That it gave up when it was told to is no failure of its own. */
	assert_int_equal(wait_settled("yields")->number, DROVER_SETTLE_GIVE_BACK);
}

/* An idle worker that does not even read is not waited for as busy ones are. */
static void test_drain_with_a_stopped_worker(void **state)
{
	(void)state;
	rig_start(&rig, FIELDS("stop_timeout_ms=600000"), 1);
	rig_wait(&rig, rig_report(&rig, "ready") == 1);
	assert_int_equal(kill(rig_worker(&rig, 0)->pid, SIGSTOP), 0);
	rig_say(&rig, "drain");
	rig_wait(&rig, rig.drained);
}

/* Of consumers only the processes are kept: no broker, no event, no "idle" or "busy". */
static void test_consumers(void **state)
{
	pid_t oldest;

	(void)state;
	rig_start(&rig, FIELDS("mode=consumer", "inbox=sqlite"), 3);
	rig_wait(&rig, rig_report(&rig, "ready") == 3);
	assert_int_equal(rig_report(&rig, "busy"), 0);
	oldest = rig_worker(&rig, 0)->pid;
	rig_say_int(&rig, "ps", "ask", 1);
	rig_wait(&rig, rig.ended_rows);
	assert_int_equal(rig.n_rows, 3);
	assert_string_equal(message_text(&rig.row_view, "state", ""), "running");
	/* A crash is replaced, and what is too many goes, the newest first. */
	kill(rig_worker(&rig, 1)->pid, SIGSEGV);
	rig_wait(&rig, rig_report(&rig, "crashed") == 1 && rig_report(&rig, "ready") == 3);
	assert_int_equal(rig_report(&rig, "generation_failed_starts"), 1);
	rig_say_int(&rig, "target", "workers", 1);
	rig_wait(&rig, rig_alive(&rig, 0) == 1 && rig_report(&rig, "ready") == 1);
	assert_int_equal(rig_worker(&rig, 0)->pid, oldest);
	/* Another generation takes over without a gap. */
	rig_template(&rig, false);
	rig_wait(&rig, rig_alive(&rig, 2) == 1 && rig.retired == 1);
	rig_say(&rig, "drain");
	rig_wait(&rig, rig.drained);
	rig_wait(&rig, !rig.dispatcher);
	assert_int_equal(rig_count(&rig, MEMORY_DECLARED), 0);
}

/* One at any time: the next is started when the one before is gone, crashed or told to end. */
static void test_exclusive_consumer(void **state)
{
	(void)state;
	rig_start(&rig, FIELDS("mode=consumer", "exclusive=1", "recycle_age_ms=200"), 1);
	while (rig.n_workers < 6) {
		rig_turn(&rig, 10);
		assert_in_range(rig_alive(&rig, 0), 0, 1);
	}
	rig_policy(&rig, FIELDS("recycle_age_ms=0"));
	rig_template(&rig, false);
	rig_wait(&rig, rig_alive(&rig, 2) == 1);
	assert_int_equal(rig_alive(&rig, 0), 1);
}

static void test_people(void **state)
{
	const struct memory_packet *settled;
	pid_t pid;

	(void)state;
	rig_start(&rig, NULL, 1);
	rig_wait(&rig, rig_report(&rig, "ready") == 1);
	pid = rig_worker(&rig, 0)->pid;
	rig_deliver(&rig, "kicked", "hang", 4);
	rig_wait(&rig, rig_seen(&rig, "kicked") == 1);
	rig_say_int(&rig, "ps", "ask", 77);
	rig_wait(&rig, rig.ended_rows);
	assert_int_equal(rig.n_rows, 1);
	assert_int_equal(message_int(&rig.row_view, "ask", 0), 77);
	assert_int_equal(message_int(&rig.row_view, "pid", 0), pid);
	assert_string_equal(message_text(&rig.row_view, "state", ""), "busy");
	assert_string_equal(message_text(&rig.row_view, "id", ""), "kicked");
	assert_int_equal(message_int(&rig.row_view, "attempt", 0), 5);
	assert_true(message_int(&rig.row_view, "memory_bytes", 0) > 0);
	rig_say_int(&rig, "kick", "pid", pid);
	settled = wait_settled("kicked");
	assert_int_equal(settled->number, DROVER_SETTLE_DEAD);
	assert_non_null(strstr(settled->reason, "was kicked"));

	rig_deliver(&rig, "talks", "print", 0);
	wait_settled("talks");
	rig_wait(&rig, rig_logged(&rig, "] talks: hello from the handler"));
	rig_wait(&rig, rig_logged(&rig, "<3>dispatcher order.paid: order.paid["));
	rig_deliver(&rig, "floods", "flood", 0);
	wait_settled("floods");
	rig_wait(&rig, rig_report(&rig, "log_dropped") > 3000);
}

/* Old workers are replaced too when nothing happens, and a reload reaches them at once. */
static void test_age(void **state)
{
	pid_t pid;

	(void)state;
	rig_start(&rig, FIELDS("recycle_age_ms=300"), 2);
	rig_wait(&rig, rig_report(&rig, "ready") == 2);
	pid = rig_worker(&rig, 0)->pid;
	rig_wait(&rig, rig.n_workers >= 6);
	rig_wait(&rig, kill(pid, 0) == -1);
	rig_policy(&rig, FIELDS("recycle_age_ms=0"));
	/* It has heard that, and what it asked for before has come. */
	rig_say_int(&rig, "ps", "ask", 1);
	rig_wait(&rig, rig.ended_rows);
	rig_turn(&rig, 0);
	pid = rig.n_workers;
	for (int64_t until_ms = clock_now_ms() + 600; clock_now_ms() < until_ms;)
		rig_turn(&rig, 10);
	assert_int_equal(rig.n_workers, pid);
	rig_policy(&rig, FIELDS("recycle_bytes=1"));
	rig_wait(&rig, rig.n_workers >= pid + 2);
	assert_false(rig_logged(&rig, "<4>"));
}

/* More than a socket takes at a time, many in a batch, to workers that read slowly. */
static void test_large_bodies(void **state)
{
	(void)state;
	rig_start(&rig, NULL, 2);
	rig_deliver(&rig, "first", "done", 0);
	wait_settled("first");
	rig_broker(&rig, MEMORY_QUIET, 1);
	rig_broker(&rig, MEMORY_FATTEN, 300000);
	rig_broker(&rig, MEMORY_GENERATE, 2000);
	rig_wait(&rig, rig_report(&rig, "done") == 2001);
	assert_int_equal(rig.shared->n_seen, 2001);
	assert_int_equal(rig_report(&rig, "crashed") + rig_report(&rig, "timed_out"), 0);
}

/* A template that cannot fork now is asked again. */
static void test_unforked(void **state)
{
	(void)state;
	rig_start(&rig, NULL, 0);
	rig.refuse_forks = 3;
	rig_say_int(&rig, "target", "workers", 2);
	rig_wait(&rig, strstr(rig_report_text(&rig, "last_error"), "no worker could be forked: as "
								   "told; tried again"));
	rig_wait(&rig, rig_report(&rig, "ready") == 2);
	assert_int_equal(rig.refuse_forks, 0);
	assert_int_equal(rig_report(&rig, "generation_failed_starts"), 0);
}

/* The inbox key may be a field of the body: then ids do not matter. */
static void test_inbox_key(void **state)
{
	(void)state;
	rig_start(&rig, FIELDS("inbox=sqlite", "inbox_key=invoice"), 1);
	rig_deliver(&rig, "a", "{\"invoice\": 7}", 0);
	wait_settled("a");
	rig_deliver(&rig, "b", "{\"invoice\": 7}", 0);
	rig_deliver(&rig, "c", "{\"invoice\": 8}", 0);
	rig_deliver(&rig, "d", "no JSON", 0);
	wait_settled("b");
	wait_settled("c");
	wait_settled("d");
	assert_int_equal(rig_seen(&rig, "b"), 0);
	assert_int_equal(rig_seen(&rig, "c"), 1);
	assert_int_equal(rig_seen(&rig, "d"), 1);
}

/* What was given back is delivered again, as a broker does. Returns what became of it in the end. */
static const struct memory_packet *wait_kept(const char *id)
{
	const struct memory_packet *note = wait_settled(id);

	while (note->number == DROVER_SETTLE_GIVE_BACK) {
		int from = (int)(note - rig.notes) + 1;

		rig_deliver(&rig, id, "done", note->attempts);
		rig_wait(&rig, rig_settled(&rig, id, from));
		note = rig_settled(&rig, id, from);
	}
	return note;
}

/*
 * Kill -9 at random, of workers that work: nothing is lost, and nothing settled twice. Where three
 * in a row were killed before they had handled anything and none is left, as happens on a machine
 * that is slow to start them, what is held is given back.
 */
static void test_random_kills(void **state)
{
	enum { EVENTS = 6000 };
	static const struct memory_packet *notes[EVENTS];
	int settled = 0;
	char id[16];

	(void)state;
	rig_start(&rig, FIELDS("max_attempts=100"), 4);
	for (int i = 0; i < EVENTS; i++) {
		snprintf(id, sizeof id, "k%d", i);
		rig_deliver(&rig, id, "done", 0);
		if (i % 40 == 0) {
			const struct rig_worker *worker = rig_worker(&rig, i / 40 % 4);

			rig_turn(&rig, 1);
			if (worker)
				kill(worker->pid, i % 80 ? SIGKILL : SIGTERM);
		}
	}
	for (int i = 0; i < EVENTS; i++) {
		snprintf(id, sizeof id, "k%d", i);
		notes[i] = wait_kept(id);
		assert_in_range(notes[i]->number, DROVER_SETTLE_DONE, DROVER_SETTLE_RETRY);
		settled += notes[i]->number == DROVER_SETTLE_DONE;
	}
	/* Whatever else there would be of any of them has been told by then. */
	rig_wait(&rig, rig_report(&rig, "ready") == 4 && rig_report(&rig, "in_flight") == 0);
	for (int i = 0; i < EVENTS; i++) {
		snprintf(id, sizeof id, "k%d", i);
		assert_null(rig_settled(&rig, id, (int)(notes[i] - rig.notes) + 1));
	}
	print_message("%d of %d done at once, %d workers, %d times given back\n", settled, EVENTS,
		      rig.n_workers, rig_count(&rig, MEMORY_SETTLED) - EVENTS);
}

/* Killed while idle: replaced at once, again and again, as nothing is wrong with the handler. */
static void test_respawn(void **state)
{
	int64_t took_us[50], median = 0;

	(void)state;
	rig_start(&rig, NULL, 1);
	rig_wait(&rig, rig_report(&rig, "ready") == 1);
	for (int i = 0; i < 50; i++) {
		int before = rig.n_workers;
		int64_t began_ns;

		rig_wait(&rig, rig_alive(&rig, 0) == 1);
		for (int turn = 0; turn < 20; turn++)
			rig_turn(&rig, 1);
		began_ns = clock_now_ns();
		kill(rig_worker(&rig, 0)->pid, SIGKILL);
		rig_wait(&rig, rig.n_workers > before);
		took_us[i] = (clock_now_ns() - began_ns) / 1000;
	}
	for (int i = 0; i < 50; i++) {
		int below = 0;

		for (int k = 0; k < 50; k++)
			below += took_us[k] < took_us[i] || (k < i && took_us[k] == took_us[i]);
		if (below == 25)
			median = took_us[i];
	}
	print_message("a killed idle worker is replaced after %d us (median)\n", (int)median);
	assert_true(median < 50000); /* a pause would be 100 ms, and then longer and longer */
}

/* A handler that cannot start is tried for ever, ever more slowly. */
static void test_crash_loop(void **state)
{
	int64_t began_ms;

	(void)state;
	rig_start(&rig, NULL, 0);
	rig.shared->failing_starts |= 1u << 1;
	began_ms = clock_now_ms();
	rig_say_int(&rig, "target", "workers", 1);
	rig_wait(&rig, rig_report(&rig, "generation_failed_starts") >= 5);
	assert_true(clock_now_ms() - began_ms > 400);
	assert_true(rig.n_workers <= 6);
	rig.shared->failing_starts = 0;
	rig_deliver(&rig, "at-last", "done", 0);
	assert_int_equal(wait_settled("at-last")->number, DROVER_SETTLE_DONE);
}

static void test_broker_down(void **state)
{
	(void)state;
	rig_start(&rig, NULL, 1);
	rig_wait(&rig, rig_report(&rig, "ready") == 1);
	/* Once it is known to be fast, events are taken ahead. */
	rig_deliver(&rig, "fast", "done", 0);
	wait_settled("fast");
	rig_deliver(&rig, "busy", "gated", 0);
	rig_wait(&rig, rig_seen(&rig, "busy") == 1);
	rig_deliver(&rig, "behind", "done", 0);
	rig_wait(&rig, rig_report(&rig, "held") == 1);
	rig_broker(&rig, MEMORY_STATE, DROVER_BROKER_DOWN);
	rig_wait(&rig, rig_report(&rig, "broker_state") == DROVER_BROKER_DOWN);
	assert_int_equal(wait_settled("behind")->number, DROVER_SETTLE_GIVE_BACK);
	rig.shared->open = true;
	rig_deliver(&rig, "after", "done", 0);
	assert_int_equal(rig_alive(&rig, 0), 1);
	rig_broker(&rig, MEMORY_STATE, DROVER_BROKER_UP);
	rig_say_int(&rig, "broker", "state", DROVER_BROKER_UP);
	assert_int_equal(wait_settled("after")->number, DROVER_SETTLE_DONE);
}

/*
 * Only this connection was lost: the gauge has nothing new to say, and the plugin waits to be asked
 * again and again.
 */
static void test_connection_lost(void **state)
{
	(void)state;
	rig_start(&rig, NULL, 1);
	rig_say_int(&rig, "broker", "state", DROVER_BROKER_UP);
	rig_deliver(&rig, "before", "done", 0);
	wait_settled("before");
	rig_wait(&rig, rig_report(&rig, "consumers") == 1);
	rig_broker(&rig, MEMORY_AWAY, 1000);
	rig_wait(&rig, rig_report(&rig, "broker_state") == DROVER_BROKER_DOWN);
	assert_int_equal(rig_report(&rig, "consumers"), 0);
	rig_broker(&rig, MEMORY_AWAY, 3);
	rig_wait(&rig, rig_report(&rig, "broker_state") == DROVER_BROKER_UP);
	rig_deliver(&rig, "after", "done", 0);
	assert_int_equal(wait_settled("after")->number, DROVER_SETTLE_DONE);
	rig_wait(&rig, rig_report(&rig, "done") == 2); /* nothing is left to do for the plugin */
	/* While the gauge sees it down as well, nobody is asked; when that changes, at once. */
	rig_say_int(&rig, "broker", "state", DROVER_BROKER_DOWN);
	rig_broker(&rig, MEMORY_AWAY, 1);
	rig_wait(&rig, rig_report(&rig, "broker_state") == DROVER_BROKER_DOWN);
	for (int64_t until_ms = clock_now_ms() + 1200; clock_now_ms() < until_ms;)
		rig_turn(&rig, 10);
	assert_int_equal(rig_report(&rig, "broker_state"), DROVER_BROKER_DOWN);
	rig_say_int(&rig, "broker", "state", DROVER_BROKER_UP);
	rig_wait(&rig, rig_report(&rig, "broker_state") == DROVER_BROKER_UP);
}

/* Three events wait for one fast worker, the second of them hangs: how many did the worker get? */
static int64_t handed_out_with(int64_t deliveries)
{
	struct memory_packet packet = {.kind = MEMORY_DELIVER, .number = deliveries};

	rig_start(&rig, FIELDS("max_attempts=15"), 1);
	rig_broker(&rig, MEMORY_QUIET, 1);
	rig_broker(&rig, MEMORY_GENERATE, 2000);
	rig_wait(&rig, rig_report(&rig, "done") == 2000);
	rig_deliver(&rig, "busy", "gated", 0);
	rig_wait(&rig, rig_seen(&rig, "busy") == 1);
	rig_deliver(&rig, "before", "done", 0);
	snprintf(packet.id, sizeof packet.id, "often");
	snprintf(packet.type, sizeof packet.type, "order.paid");
	snprintf(packet.body, sizeof packet.body, "hang");
	assert_int_equal(send(rig.control, &packet, sizeof packet, 0), sizeof packet);
	rig_deliver(&rig, "behind", "done", 0);
	rig_wait(&rig, rig_report(&rig, "held") == 3);
	rig.shared->open = true;
	rig_wait(&rig, rig_seen(&rig, "often") == 1);
	rig_wait(&rig, rig_report(&rig, "in_flight") + rig_report(&rig, "held") == 2);
	assert_int_equal(rig_seen(&rig, "behind"), 0);
	return rig_report(&rig, "in_flight");
}

/* An event that the broker gave out far too often has no neighbours in its batch. */
static void test_suspect(void **state)
{
	(void)state;
	assert_int_equal(handed_out_with(29), 2);
	rig_stop(&rig);
	assert_int_equal(handed_out_with(30), 1);
}

/* A broker that confirms nothing cannot make us take without end. */
static void test_settlements_pile_up(void **state)
{
	(void)state;
	rig_start(&rig, NULL, 2);
	rig_deliver(&rig, "fast", "done", 0);
	wait_settled("fast");
	rig_broker(&rig, MEMORY_QUIET, 1);
	rig_broker(&rig, MEMORY_HOLD, 1);
	rig_broker(&rig, MEMORY_GENERATE, 30000);
	rig_wait(&rig, strstr(rig_report_text(&rig, "last_error"),
			      "events wait for the broker to take what became of them"));
	rig_wait(&rig, rig_report(&rig, "unsettled") >= 9000);
	rig_wait(&rig, rig_report(&rig, "unsettled_ms") >= 1000);
	assert_in_range(rig_report(&rig, "held") + rig_report(&rig, "in_flight"), 9000, 10000);
	rig_broker(&rig, MEMORY_HOLD, 0);
	rig_wait(&rig, rig_report(&rig, "done") == 30001);
	assert_int_equal(rig_report(&rig, "unsettled"), 0);
}

/* A broker that stores nothing for now, as under an alarm: what is done is settled all the same. */
static void test_retries_wait(void **state)
{
	char id[16];

	(void)state;
	rig_start(&rig, NULL, 1);
	rig_broker(&rig, MEMORY_BLOCK, 1);
	for (int i = 0; i < 100; i++) {
		snprintf(id, sizeof id, "w%d", i);
		rig_deliver(&rig, id, i % 2 ? "done" : "retry", 0);
	}
	rig_wait(&rig, rig_report(&rig, "done") == 50);
	rig_wait(&rig, rig_report(&rig, "unsettled") == 50);
	assert_int_equal(rig_count(&rig, MEMORY_SETTLED), 50);
	rig_broker(&rig, MEMORY_BLOCK, 0);
	rig_wait(&rig, rig_report(&rig, "retried") == 50);
	assert_int_equal(rig_count(&rig, MEMORY_SETTLED), 100);
}

/* Retries that find no place: the event is given out again, but not as fast as it can fail. */
static void test_retries_refused(void **state)
{
	int64_t until_ms;
	int given = 1;

	(void)state;
	rig_start(&rig, FIELDS("brake=off"), 1);
	rig_broker(&rig, MEMORY_FAIL_SETTLED, -ENOENT);
	rig_deliver(&rig, "one", "retry", 0);
	rig_wait(&rig, strstr(rig_report_text(&rig, "last_error"), "one could not be settled"));
	until_ms = clock_now_ms() + 1500;
	/* Longer where nothing goes on. */
	while (clock_now_ms() < until_ms + (rig_seen(&rig, "one") < 3 ? RIG_WAIT_MS : 0)) {
		if (rig_count(&rig, MEMORY_SETTLED) == given) {
			rig_deliver(&rig, "one", "retry", 0);
			given++;
		}
		rig_turn(&rig, 5);
	}
	assert_in_range(rig_seen(&rig, "one"), 3, 8);
	rig_broker(&rig, MEMORY_FAIL_SETTLED, 0);
	rig_deliver(&rig, "two", "done", 0);
	assert_int_equal(wait_settled("two")->number, DROVER_SETTLE_DONE);
}

/* The template's death is not the events' fault: none is judged. */
static void test_template_lost(void **state)
{
	(void)state;
	rig_start(&rig, NULL, 2);
	rig_wait(&rig, rig_report(&rig, "ready") == 2);
	rig_deliver(&rig, "innocent", "hang", 0);
	rig_wait(&rig, rig_seen(&rig, "innocent") == 1);
	rig.mute = true;
	channel_close(&rig.links[0]);
	for (int i = 0; i < rig.n_workers; i++)
		kill(rig.workers[i].pid, SIGKILL);
	rig_wait(&rig,
		 strstr(rig_report_text(&rig, "last_error"), "template of generation 1 is gone"));
	rig_wait(&rig, rig_alive(&rig, 0) == 0);
	assert_null(rig_settled(&rig, "innocent", 0));
	assert_int_equal(rig_report(&rig, "crashed"), 0);
}

/* Not a benchmark, but a bound on what an event costs: far above what it takes. */
static void test_throughput(void **state)
{
	enum { EVENTS = 200000 };
	int64_t began_ms, took_ms;
	int reports;

	(void)state;
	rig_start(&rig, NULL, 2);
	rig_wait(&rig, rig_report(&rig, "ready") == 2);
	rig_broker(&rig, MEMORY_QUIET, 1);
	began_ms = clock_now_ms();
	reports = rig.n_reports;
	rig_broker(&rig, MEMORY_GENERATE, EVENTS);
	rig_wait(&rig, rig.counted == EVENTS);
	took_ms = clock_now_ms() - began_ms;
	print_message("%d events in %d ms: %d a second\n", EVENTS, (int)took_ms,
		      (int)(EVENTS * INT64_C(1000) / (took_ms ? took_ms : 1)));
	assert_int_equal(rig.shared->n_seen, EVENTS);
	rig_wait(&rig, rig_report(&rig, "done") == EVENTS);
	assert_true(took_ms < 20000);
	/* However often all workers become busy. */
	assert_in_range(rig.n_reports - reports, 1, 10 + (clock_now_ms() - began_ms) / 40);
}

/* With an argument: only the tests whose names match that pattern. */
int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_teardown(test_##name, stop)
	const struct CMUnitTest tests[] = {
		TEST(outcomes),
		TEST(crash_in_batch),
		TEST(timeouts),
		TEST(extended),
		TEST(grace_in_batch),
		TEST(stopped_worker),
		TEST(emitted),
		TEST(broker_errors),
		TEST(inbox),
		TEST(broken_inbox),
		TEST(definition),
		TEST(brake),
		TEST(target),
		TEST(recycling),
		TEST(generations),
		TEST(pause_and_drain),
		TEST(drain_with_a_stopped_worker),
		TEST(consumers),
		TEST(exclusive_consumer),
		TEST(people),
		TEST(respawn),
		TEST(crash_loop),
		TEST(broker_down),
		TEST(connection_lost),
		TEST(suspect),
		TEST(settlements_pile_up),
		TEST(retries_wait),
		TEST(retries_refused),
		TEST(template_lost),
		TEST(throughput),
		TEST(age),
		TEST(large_bodies),
		TEST(unforked),
		TEST(inbox_key),
		TEST(random_kills),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
