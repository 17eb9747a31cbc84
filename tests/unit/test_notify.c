/* SPDX-License-Identifier: MIT */
/*
 * What systemd is told: the line for every state that is worth a word, when it is sent and when it
 * is not, how long the end goes on being extended, and that the watchdog is fed by nothing but a
 * turn that did its duties. The messages are read from a socket, on a real event loop.
 */
#include "roles/droverd/notify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "roles/droverd/cluster.h"
#include "system/timer.h"
#include "unit.h"

#include "base/banned.h"

static struct supervisor supervisor;
static struct cluster cluster;
static struct config config;
static struct type many[4], *types[] = {&many[0], &many[1], &many[2], &many[3]};
static struct broker brokers[2];
static struct config_plugin plugins[2];
static const char *states[4];
static bool overdue;
static int listener = -1;
static char path[64];

const char *type_state(const struct type *of, char *reason, size_t size)
{
	snprintf(reason, size, "for a reason");
	return states[of - many];
}

const char *broker_state_name(enum drover_broker_state state)
{
	return state == DROVER_BROKER_REFUSED ? "refused" : "down";
}

bool orders_drain(const struct supervisor *s)
{
	(void)s;
	return false;
}

bool decide_is_overdue(const struct supervisor *s, int64_t before_ms)
{
	(void)s;
	assert_true(before_ms < clock_now_ms());
	return overdue;
}

static void set_the_scene(void)
{
	static char nothing[1], plugin[] = "consul", node[] = "web1", one[] = "main", two[] = "far";

	config = (struct config){.node = node, .registry = {.plugin = plugin}};
	cluster = (struct cluster){.standing = STANDING_ALONE};
	plugins[0] = (struct config_plugin){.name = one};
	plugins[1] = (struct config_plugin){.name = two};
	brokers[0] = (struct broker){.config = &plugins[0],
				     .reported = true,
				     .state = DROVER_BROKER_UP,
				     .next = &brokers[1]};
	brokers[1] = (struct broker){.config = &plugins[1]};
	for (size_t i = 0; i < ROWS(many); i++) {
		many[i] = (struct type){.refused = nothing};
		states[i] = "running";
	}
	many[0].report.ready = 8;
	many[0].report.busy = 3;
	many[1].report.starting = 4;
	many[1].report.busy = 1;
	supervisor = (struct supervisor){.config = &config,
					 .cluster = &cluster,
					 .types = types,
					 .n_types = 3,
					 .brokers = brokers,
					 .ready = true};
	overdue = false;
}

static int begin(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	(void)state;
	set_the_scene();
	snprintf(path, sizeof path, "/tmp/test_notify.%d", (int)getpid());
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	unlink(path);
	listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
	setenv("NOTIFY_SOCKET", path, 1);
	assert_true(sd_event_new(&supervisor.event) >= 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	notify_close(&supervisor);
	supervisor.event = sd_event_unref(supervisor.event);
	close(listener);
	unlink(path);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	return 0;
}

/* What was sent; "" : nothing. */
static const char *sent(void)
{
	static char text[1024];
	ssize_t size = recv(listener, text, sizeof text - 1, MSG_DONTWAIT);

	text[size > 0 ? size : 0] = '\0';
	return text;
}

/* One turn, in which something must have happened. */
static void turn(void)
{
	assert_true(sd_event_run(supervisor.event, 10000000) > 0);
}

/* The line. */

static void lead(void)
{
	cluster.clustered = cluster.leading = true;
	cluster.standing = STANDING_LEADS;
	cluster.state = DROVER_REGISTRY_UP;
}

static void follow(void)
{
	cluster.clustered = true;
	cluster.standing = STANDING_FOLLOWS;
	cluster.state = DROVER_REGISTRY_SUSPENDED;
	snprintf(cluster.leader, sizeof cluster.leader, "web2\nSTATUS=all is well");
}

static void wait_for_a_leader(void)
{
	cluster.clustered = true;
	cluster.standing = STANDING_WAITING;
}

static void be_on_our_own(void)
{
	cluster.clustered = true;
	cluster.standing = STANDING_AUTONOMOUS;
	cluster.state = DROVER_REGISTRY_LOST;
	snprintf(cluster.leader, sizeof cluster.leader, "web2");
}

static void be_refused(void)
{
	wait_for_a_leader();
	cluster.state = DROVER_REGISTRY_REFUSED;
}

static void lose_one(void)
{
	brokers[1].reported = true;
	brokers[1].state = DROVER_BROKER_DOWN;
}

static void lose_both(void)
{
	brokers[0].state = DROVER_BROKER_REFUSED;
	brokers[1].missing = true;
}

static void find_none(void)
{
	brokers[1].missing = true;
}

static void serve_little(void)
{
	static char why[] = "it is writable by others";

	supervisor.n_types = 4;
	many[0].refused = why; /* the one before serves on: it is running */
	states[1] = "unservable";
	states[2] = "failing";
	states[3] = "paused";
}

static void probe(void)
{
	states[0] = states[2] = "probe";
}

static void have_nothing(void)
{
	supervisor.n_types = 0;
}

static void have_one(void)
{
	supervisor.n_types = 1;
	many[0].report = (struct report){.ready = 1};
}

/* What it has in hand is still at work; it is no type of ours any more. */
static void forget_one(void)
{
	many[1].gone = true;
	states[1] = "leaving";
}

static void stop(void)
{
	supervisor.stopping = true;
}

static void drain(void)
{
	cluster.maintenance = true;
}

static void refuse_a_reload(void)
{
	why_set(&supervisor.reload_refused, -EINVAL, "drover.conf:3: no");
}

static const struct {
	const char *name;
	void (*scene)(void);
	const char *line;
} lines[] = {
	{"one node", set_the_scene, "3 types, 12 workers, 4 busy"},
	{"leads", lead, "3 types, 12 workers, 4 busy; leader web1; consul up"},
	{"a name that says too much", follow,
	 "3 types, 12 workers, 4 busy; leader web2?STATUS=all is well; consul not reachable"},
	{"nobody leads yet", wait_for_a_leader,
	 "3 types, 12 workers, 4 busy; no leader; consul not reached yet"},
	{"nobody leads", be_on_our_own,
	 "3 types, 12 workers, 4 busy; no leader, sized by itself; consul lost"},
	{"the registry refuses", be_refused,
	 "3 types, 12 workers, 4 busy; no leader; consul refuses this node"},
	{"a broker is down", lose_one, "3 types, 12 workers, 4 busy; broker far down"},
	{"a broker is nowhere", find_none, "3 types, 12 workers, 4 busy; broker far not found"},
	{"both are lost", lose_both, "3 types, 12 workers, 4 busy; 2 of 2 brokers not up"},
	{"types", serve_little,
	 "4 types (1 refused, 1 without handler, 1 failing, 1 paused), 12 workers, 4 busy"},
	{"failing", probe, "3 types (2 failing), 12 workers, 4 busy"},
	{"nothing", have_nothing, "0 types, 0 workers, 0 busy"},
	{"one", have_one, "1 type, 1 worker, 0 busy"},
	{"one is leaving", forget_one, "2 types, 12 workers, 4 busy"},
	{"stopping", stop, "stopping; 3 types, 12 workers, 4 busy"},
	{"draining", drain, "draining; 3 types, 12 workers, 4 busy"},
	{"a refused reload", refuse_a_reload,
	 "3 types, 12 workers, 4 busy; the last reload was refused"},
};

static void test_lines(void **state)
{
	char text[SUMMARY_MAX];

	(void)state;
	for (size_t i = 0; i < ROWS(lines); i++) {
		set_the_scene();
		lines[i].scene();
		want_text(lines[i].name, summary_tell(&supervisor, text), lines[i].line);
	}
}

/* Whatever the names are, the line ends where it must. */
static void test_a_line_too_long(void **state)
{
	static char name[2 * SUMMARY_MAX];
	char text[SUMMARY_MAX];

	(void)state;
	set_the_scene();
	memset(name, 'x', sizeof name - 1);
	plugins[1].name = name;
	lose_one();
	lead();
	summary_tell(&supervisor, text);
	assert_int_equal(strlen(text), SUMMARY_MAX - 1);
}

/* When it is said. */

static void test_reload(void **state)
{
	long long at_us;

	(void)state;
	assert_int_equal(notify_open(&supervisor), 0);
	notify_ready(&supervisor);
	assert_string_equal(sent(), "READY=1\nSTATUS=3 types, 12 workers, 4 busy");
	notify_reloading();
	assert_int_equal(sscanf(sent(), "RELOADING=1\nMONOTONIC_USEC=%lld", &at_us), 1);
	assert_true(at_us / 1000 <= clock_now_ms() && at_us / 1000 > clock_now_ms() - 60000);
	/* Also when the line is the same. */
	notify_ready(&supervisor);
	assert_string_equal(sent(), "READY=1\nSTATUS=3 types, 12 workers, 4 busy");
}

static void test_changes_come_together(void **state)
{
	int64_t began_ms;

	(void)state;
	assert_int_equal(notify_open(&supervisor), 0);
	began_ms = clock_now_ms();
	notify_ready(&supervisor);
	sent();
	for (int i = 5; i < 8; i++) {
		many[0].report.busy = i;
		notify_changed(&supervisor);
	}
	turn();
	assert_true(clock_now_ms() >= began_ms + 1000);
	assert_string_equal(sent(), "STATUS=3 types, 12 workers, 8 busy");
	/* Of what is as it was nothing is said, and then nobody wakes for it any more. */
	notify_changed(&supervisor);
	turn();
	assert_string_equal(sent(), "");
	assert_int_equal(sd_event_run(supervisor.event, 0), 0);
	supervisor.notify.looked_ms -= 60000;
	many[0].report.busy = 1;
	notify_changed(&supervisor); /* at once, for the last one was long ago */
	assert_string_equal(sent(), "STATUS=3 types, 12 workers, 2 busy");
}

static void test_nothing_before_it_is_ready(void **state)
{
	(void)state;
	supervisor.ready = false;
	assert_int_equal(notify_open(&supervisor), 0);
	notify_changed(&supervisor);
	assert_string_equal(sent(), "");
}

static void test_nobody_listens(void **state)
{
	(void)state;
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(notify_open(&supervisor), 0);
	notify_ready(&supervisor);
	supervisor.notify.looked_ms = 0;
	notify_changed(&supervisor);
	notify_stopping(&supervisor, 60000);
	assert_int_equal(sd_event_run(supervisor.event, 0), 0); /* no timer is there */
}

/* A systemd that does not read: nobody waits for it, and it is told when it reads again. */
static void test_nobody_waits(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	setenv("WATCHDOG_USEC", "40000", 1);
	assert_int_equal(notify_open(&supervisor), 0);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	while (sendto(fd, "full", 4, MSG_DONTWAIT, (struct sockaddr *)&address, sizeof address) > 0)
		;
	assert_int_equal(errno, EAGAIN);
	notify_ready(&supervisor);
	notify_reloading();
	supervisor.children.pinged_ms = clock_now_ms();
	turn();
	supervisor.notify.watchdog = sd_event_source_disable_unref(supervisor.notify.watchdog);
	while (!strcmp(sent(), "full"))
		;
	turn(); /* it is tried again */
	assert_string_equal(sent(), "READY=1\nSTATUS=3 types, 12 workers, 4 busy");
	assert_int_equal(sd_event_run(supervisor.event, 0), 0);
	close(fd);
}

static void test_the_end_is_extended(void **state)
{
	long long us = 0;

	(void)state;
	assert_int_equal(notify_open(&supervisor), 0);
	supervisor.stopping = true;
	/* An end of hours: never more at a time than one that hangs may cost. */
	notify_stopping(&supervisor, 7200000);
	assert_string_equal(sent(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\n"
				    "STATUS=stopping; 3 types, 12 workers, 4 busy");
	for (int i = 0; i < 3; i++) {
		timer_start(supervisor.notify.extend, 0); /* sooner than it would come */
		turn();
		assert_string_equal(sent(), "EXTEND_TIMEOUT_USEC=30000000");
	}
	/* Near its end, what is left; and then no more. */
	supervisor.notify.until_ms = clock_now_ms() + 20000;
	timer_start(supervisor.notify.extend, 0);
	turn();
	assert_int_equal(sscanf(sent(), "EXTEND_TIMEOUT_USEC=%lld", &us), 1);
	assert_true(us > 0 && us <= 20000000);
	supervisor.notify.until_ms = clock_now_ms() - 1;
	timer_start(supervisor.notify.extend, 0);
	turn();
	assert_string_equal(sent(), "");
	assert_int_equal(sd_event_run(supervisor.event, 0), 0);
}

/* The watchdog. */

static void watch(void)
{
	setenv("WATCHDOG_USEC", "40000", 1);
	assert_int_equal(notify_open(&supervisor), 0);
	supervisor.children.pinged_ms = clock_now_ms();
	turn();
	assert_string_equal(sent(), "WATCHDOG=1");
}

static void test_watchdog(void **state)
{
	(void)state;
	watch();
	for (int i = 0; i < 3; i++) {
		supervisor.children.pinged_ms = clock_now_ms();
		turn();
		assert_string_equal(sent(), "WATCHDOG=1");
	}
	/* No child was pinged for a minute. */
	supervisor.children.pinged_ms = clock_now_ms() - 60000;
	turn();
	turn();
	assert_string_equal(sent(), "");
	/* Nothing is decided any more. */
	supervisor.children.pinged_ms = clock_now_ms();
	overdue = true;
	turn();
	turn();
	assert_string_equal(sent(), "");
	overdue = false;
	supervisor.children.pinged_ms = clock_now_ms();
	turn();
	assert_string_equal(sent(), "WATCHDOG=1");
}

static int on_work(sd_event_source *source, void *context)
{
	(void)source;
	(void)context;
	return 0;
}

/* A loop that turns, but only ever for the same one. */
static void test_starved(void **state)
{
	sd_event_source *work;
	int64_t until_ms;

	(void)state;
	watch();
	assert_true(sd_event_add_defer(supervisor.event, &work, on_work, NULL) >= 0);
	assert_true(sd_event_source_set_enabled(work, SD_EVENT_ON) >= 0);
	until_ms = clock_now_ms() + 100; /* of several looks */
	while (clock_now_ms() < until_ms)
		turn();
	assert_string_equal(sent(), "");
	sd_event_source_disable_unref(work);
	supervisor.children.pinged_ms = clock_now_ms();
	turn();
	assert_string_equal(sent(), "WATCHDOG=1");
}

static void test_no_watchdog(void **state)
{
	(void)state;
	assert_int_equal(notify_open(&supervisor), 0);
	assert_null(supervisor.notify.watchdog);
	notify_close(&supervisor);
	setenv("WATCHDOG_USEC", "40000", 1);
	setenv("WATCHDOG_PID", "1", 1); /* somebody else's */
	assert_int_equal(notify_open(&supervisor), 0);
	assert_null(supervisor.notify.watchdog);
	unsetenv("WATCHDOG_PID");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_a_line_too_long),
		cmocka_unit_test_setup_teardown(test_reload, begin, end),
		cmocka_unit_test_setup_teardown(test_changes_come_together, begin, end),
		cmocka_unit_test_setup_teardown(test_nothing_before_it_is_ready, begin, end),
		cmocka_unit_test_setup_teardown(test_nobody_listens, begin, end),
		cmocka_unit_test_setup_teardown(test_nobody_waits, begin, end),
		cmocka_unit_test_setup_teardown(test_the_end_is_extended, begin, end),
		cmocka_unit_test_setup_teardown(test_watchdog, begin, end),
		cmocka_unit_test_setup_teardown(test_starved, begin, end),
		cmocka_unit_test_setup_teardown(test_no_watchdog, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
