/* SPDX-License-Identifier: MIT */
/*
 * The registry as droverd sees it: a write gets one answer whatever becomes of the registrar, watches
 * outlive it, and lists reach their owners whole. The event loop is real, everybody else a stand-in.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/banned.h"

static struct supervisor supervisor;
static struct cluster cluster;
static struct child registrar;
static int channel_error; /* of the next messages to it */
static char said[8192];   /* what the registrar and the stand-ins were told, "WHO WHAT;" each */
static int64_t last_ask;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	size_t used = strlen(said);
	va_list ap;

	va_start(ap, format);
	vsnprintf(said + used, sizeof said - used, format, ap);
	va_end(ap);
}

static void assert_said(const char *text)
{
	assert_string_equal(said, text);
	said[0] = '\0';
}

int child_send(struct child *child, const struct message *message)
{
	struct message_view view;
	struct message_field data;

	assert_ptr_equal(child, &registrar);
	if (channel_error)
		return channel_error;
	assert_int_equal(message_read(buf_front(&message->buf), buf_size(&message->buf), &view), 0);
	last_ask = message_int(&view, "ask", last_ask);
	say("%s %s", view.verb, message_text(&view, "key", ""));
	if (message_is(&view, "put"))
		say("=%s v=%s%s",
		    message_find(&view, "data", &data) ? (const char *)data.blob : "-",
		    message_text(&view, "version", "-"),
		    message_flag(&view, "fenced") ? " fenced" : "");
	say(";");
	return 0;
}

void decide_soon(struct supervisor *s)
{
	(void)s;
}

static void say_values(const char *who, const struct registry_value *values, size_t n)
{
	say("%s", who);
	for (size_t i = 0; i < n; i++)
		say(" %s=%s@%s", values[i].key, (const char *)values[i].data, values[i].version);
	say(";");
}

void planning_values(struct supervisor *s, const struct registry_value *values, size_t n)
{
	(void)s;
	say_values("plan", values, n);
}

void orders_values(struct supervisor *s, const struct registry_value *values, size_t n)
{
	(void)s;
	say_values("orders", values, n);
}

void peers_values(struct supervisor *s, const char *watch, const struct registry_value *values,
		  size_t n)
{
	(void)s;
	say_values(watch, values, n);
}

void peers_member(struct supervisor *s, const struct message_view *row)
{
	(void)s;
	say("member %s;", message_text(row, "node_id", ""));
}

void peers_members(struct supervisor *s)
{
	(void)s;
	say("members;");
}

void cluster_state(struct supervisor *s, enum drover_registry_state state, const char *sentence)
{
	(void)s;
	say("state %d %s;", state, sentence);
}

void cluster_leader(struct supervisor *s, bool leading, const char *node, const char *node_id)
{
	(void)s;
	say("leader %d %s %s;", leading, node, node_id);
}

void checks_maintenance(struct supervisor *s, bool on, const char *reason)
{
	(void)s;
	say("maintenance %d %s;", on, reason);
}

void checks_deregistered(struct supervisor *s)
{
	(void)s;
	say("deregistered;");
}

void discover_endpoint(struct supervisor *s, const struct message_view *row)
{
	(void)s;
	say("endpoint %s;", message_text(row, "host", ""));
}

void discover_endpoints(struct supervisor *s, const char *service)
{
	(void)s;
	say("endpoints %s;", service);
}

static void begin(bool runs)
{
	supervisor = (struct supervisor){.cluster = &cluster};
	cluster = (struct cluster){0};
	said[0] = '\0';
	channel_error = 0;
	assert_true(sd_event_new(&supervisor.event) >= 0);
	assert_int_equal(registry_open(&supervisor), 0);
	if (runs)
		supervisor.registrar = &registrar;
}

static void end(void)
{
	registry_close(&supervisor);
	sd_event_unref(supervisor.event);
}

static void turn(void)
{
	while (sd_event_run(supervisor.event, 100000) > 0)
		;
}

/* A message of the registrar. */
static void hear(struct message *message)
{
	struct message_view view;

	assert_int_equal(message_read(buf_front(&message->buf), buf_size(&message->buf), &view), 0);
	registry_heard(&supervisor, &view);
	message_free(message);
}

static void hear_value(const char *watch, const char *key, const char *data, const char *version)
{
	struct message message = {0};

	message_start(&message, "value");
	message_add_text(&message, "watch", watch);
	message_add_text(&message, "key", key);
	message_add_blob(&message, "data", data, strlen(data));
	message_add_text(&message, "version", version);
	hear(&message);
}

static void hear_text(const char *verb, const char *key, const char *text)
{
	struct message message = {0};

	message_start(&message, verb);
	if (key)
		message_add_text(&message, key, text);
	hear(&message);
}

static void hear_answer(int64_t ask, int status, const char *version, const char *sentence)
{
	struct message message = {0};

	message_start(&message, "put");
	message_add_int(&message, "ask", ask);
	message_add_int(&message, "status", status);
	message_add_text(&message, "version", version);
	message_add_text(&message, "sentence", sentence);
	hear(&message);
}

static void on_written(void *context, int error, const char *version, const char *why)
{
	say("%s %d %s %s;", (const char *)context, error, version, why);
}

static int put(const char *key, const char *data, const char *version, bool fenced,
	       const char *name)
{
	return registry_put(&supervisor, key, data, data ? strlen(data) + 1 : 0, version, fenced,
			    on_written, (void *)(uintptr_t)name);
}

static void test_a_write_is_answered_once(void **unused)
{
	int64_t first, second;

	(void)unused;
	begin(true);
	assert_int_equal(put("plan", "p", "7", true, "one"), 0);
	first = last_ask;
	assert_int_equal(put("loads/x", NULL, NULL, false, "two"), 0);
	second = last_ask;
	assert_said("put plan=p v=7 fenced;put loads/x=- v=-;");
	hear_answer(second, 0, "9", "");
	hear_answer(first, -ESTALE, "", "another was first");
	hear_answer(first, 0, "10", "");
	assert_said("two 0 9 ;one -116  another was first;");
	registry_lost(&supervisor);
	turn();
	assert_said("");
	end();
}

static void test_writes_of_a_registrar_that_dies(void **unused)
{
	(void)unused;
	begin(true);
	put("a", "1", NULL, false, "one");
	put("b", "2", NULL, false, "two");
	said[0] = '\0';
	supervisor.registrar = NULL;
	registry_lost(&supervisor);
	assert_said(""); /* nobody is called back from within the news */
	turn();
	assert_said("two -112  the registrar does not run;one -112  the registrar does not run;");
	end();
}

static void test_writes_without_a_registrar(void **unused)
{
	(void)unused;
	begin(false);
	assert_int_equal(put("a", "1", NULL, false, "one"), 0);
	assert_said("");
	/* One that is there by then is not asked again, and what it is asked stays. */
	supervisor.registrar = &registrar;
	put("b", "2", NULL, false, "two");
	turn();
	assert_said("put b=2 v=-;one -112  the registrar does not run;");
	channel_error = -EPIPE;
	put("c", "3", NULL, false, "three");
	turn();
	assert_said("three -112  the registrar does not run;");
	end();
	assert_said("two -112  droverd ends;");
}

static void rewrite(void *context, int error, const char *version, const char *why)
{
	(void)context;
	(void)version;
	(void)why;
	say("again %d;", error);
	if (strlen(said) < 40)
		registry_put(&supervisor, "a", "1", 1, NULL, false, rewrite, NULL);
}

static void test_who_writes_again_at_once_comes_back_in_a_later_turn(void **unused)
{
	(void)unused;
	begin(false);
	registry_put(&supervisor, "a", "1", 1, NULL, false, rewrite, NULL);
	assert_true(sd_event_run(supervisor.event, UINT64_MAX) > 0);
	assert_said("again -112;");
	end();
	assert_said("again -112;"); /* and not at all while droverd ends */
}

static void test_what_cannot_be_a_value(void **unused)
{
	static char large[DROVER_REGISTRY_VALUE_MAX + 1];

	(void)unused;
	begin(true);
	assert_int_equal(registry_put(&supervisor, "a", large, sizeof large, NULL, false,
				      on_written, NULL),
			 -E2BIG);
	assert_int_equal(registry_put(&supervisor, "a", NULL, 0, NULL, false, NULL, NULL), 0);
	hear_answer(last_ask, 0, "1", "");
	assert_said("put a=- v=-;");
	end();
}

static void test_watches_outlive_the_registrar(void **unused)
{
	(void)unused;
	begin(false);
	assert_int_equal(registry_watch(&supervisor, "plan", true), 0);
	supervisor.registrar = &registrar;
	registry_again(&supervisor);
	assert_said("watch plan;");
	registry_watch(&supervisor, "loads/", true);
	registry_watch(&supervisor, "loads/", true);
	registry_watch(&supervisor, "orders", true);
	registry_watch(&supervisor, "loads/", false);
	registry_watch(&supervisor, "loads/", false);
	assert_said("watch loads/;watch orders;unwatch loads/;");
	registry_again(&supervisor);
	assert_said("watch plan;watch orders;");
	end();
}

static void test_lists_come_whole(void **unused)
{
	(void)unused;
	begin(true);
	hear_value("offers/", "offers/a", "A", "1");
	hear_value("offers/", "offers/b", "B", "2");
	assert_said("");
	hear_text("values", "watch", "offers/");
	assert_said("offers/ a=A@1 b=B@2;");
	hear_value("plan", "plan", "P", "3");
	hear_text("values", "watch", "plan");
	hear_text("values", "watch", "orders");
	assert_said("plan =P@3;orders;");
	/* Half a list of one that died is not the beginning of the next. */
	hear_value("loads/", "loads/a", "A", "1");
	registry_lost(&supervisor);
	hear_value("loads/", "loads/b", "B", "2");
	hear_text("values", "watch", "loads/");
	assert_said("loads/ b=B@2;");
	end();
}

static void test_the_rest_of_what_it_says(void **unused)
{
	struct message leader = {0};

	(void)unused;
	begin(true);
	hear_text("registry", "state", "UP");
	hear_text("registry", "state", "SUSPENDED");
	hear_text("registry", "state", "LOST");
	hear_text("registry", "state", "REFUSED");
	hear_text("registry", "state", "ASLEEP");
	assert_said("state 1 ;state 2 ;state 3 ;state 4 ;");
	message_start(&leader, "leader");
	message_add_flag(&leader, "leading", true);
	message_add_text(&leader, "node", "web1");
	message_add_text(&leader, "node_id", "ff");
	hear(&leader);
	hear_text("member", "node_id", "ff");
	hear_text("members", NULL, NULL);
	hear_text("endpoint", "host", "h");
	hear_text("endpoints", "service", "s");
	hear_text("maintenance", "reason", "disk");
	hear_text("deregistered", NULL, NULL);
	hear_text("something", "new", "x");
	assert_said("leader 1 web1 ff;member ff;members;endpoint h;endpoints s;"
		    "maintenance 0 disk;deregistered;");
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_write_is_answered_once),
		cmocka_unit_test(test_writes_of_a_registrar_that_dies),
		cmocka_unit_test(test_writes_without_a_registrar),
		cmocka_unit_test(test_who_writes_again_at_once_comes_back_in_a_later_turn),
		cmocka_unit_test(test_what_cannot_be_a_value),
		cmocka_unit_test(test_watches_outlive_the_registrar),
		cmocka_unit_test(test_lists_come_whole),
		cmocka_unit_test(test_the_rest_of_what_it_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
