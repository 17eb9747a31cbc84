/* SPDX-License-Identifier: MIT */
/*
 * The commands that change something. Each checks its arguments, changes the supervisor's state,
 * and lets the decision round or the pairs do the rest; each answers with a sentence that says what
 * holds now. Asking for what already is so is no error. Who may do this was decided in commands.c.
 */
#include "roles/droverd/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "roles/droverd/cluster.h"

#include "base/banned.h"

#define WORKERS_MAX     10000 /* of one type, by hand: more is a typing error */
#define ERRANDS_MAX     32    /* at a time; each is a process with a connection to the broker */
#define ERRANDS_OF_LOOK 8     /* of those, what users who may only look can take */

/* Notes and names are shown in terminals and stored in lines. */
static void copy_line(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%.*s", (int)size - 1, from);
	for (char *c = to; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

void request_sign(struct signature *signature, const struct request *request,
		  const struct message_view *ask)
{
	const char *person = message_text(ask, "arg.author", "");
	char text[sizeof signature->author], uid[16] = "root";

	if (request->uid)
		snprintf(uid, sizeof uid, "uid %d", request->uid);
	if (*person && strcmp(person, uid))
		snprintf(text, sizeof text, "%.40s (%s)", person, uid);
	else
		snprintf(text, sizeof text, "%s", uid);
	copy_line(signature->author, sizeof signature->author, text);
	copy_line(signature->note, sizeof signature->note, message_text(ask, "arg.note", ""));
}

/* The next decision of the type names the person and the note. */
static void note(struct type *type, const char *verb, const struct signature *signature)
{
	char text[256];

	snprintf(text, sizeof text, "%s by %s%s%s", verb, signature->author,
		 *signature->note ? ": " : "", signature->note);
	copy_line(type->note, sizeof type->note, text);
}

int request_until(const struct message_view *ask, int64_t *ret_until_ms, struct why *why)
{
	int64_t for_ms = message_int(ask, "arg.for_ms", 0);

	if (for_ms < 0)
		return why_set(why, -EINVAL, "--for must be a duration like \"2h\"");
	*ret_until_ms = for_ms ? clock_wall_ms() + for_ms : 0;
	return 0;
}

const char *request_describe_until(int64_t until_ms, char *text, size_t size)
{
	char when[CLOCK_TEXT_MAX];

	if (until_ms)
		snprintf(text, size, "until %s", clock_format_wall(until_ms, when, sizeof when));
	else
		snprintf(text, size, "until it is lifted");
	return text;
}

int request_bound(const struct message_view *ask, const char *key, int *ret_bound, struct why *why)
{
	int64_t value = message_int(ask, key, -1);
	struct message_field field;

	if (message_find(ask, key, &field) && (value < 0 || value > WORKERS_MAX))
		return why_set(why, -EINVAL,
			       "%s = %lld: a number of workers from 0 to %d is allowed",
			       key + strlen("arg."), (long long)value, WORKERS_MAX);
	*ret_bound = (int)value;
	return 0;
}

static int reset_scale(struct request *request, struct type *type, const struct message_view *ask)
{
	bool scaled = type->override.scaled;

	if (scaled) {
		request_sign(&type->override.scaled_by, request, ask);
		note(type, "scale reset", &type->override.scaled_by);
	}
	type->override.scaled = false;
	type->override.until_ms = 0;
	state_save_overrides(request->supervisor);
	decide_soon(request->supervisor);
	request_done(request, "%s %s: its configuration holds (min %d, max %d)", type->name,
		     scaled ? "is no longer scaled by hand" : "was not scaled by hand",
		     type->config->min, type->config->max);
	return 0;
}

static int scale_here(struct request *request, const struct message_view *ask, struct why *why)
{
	struct type *type = request_type(request, ask, why);
	int min, max, low, high, r;
	char until[64];
	int64_t until_ms = 0;

	if (!type)
		return -ENOENT;
	r = request_bound(ask, "arg.min", &min, why);
	if (r >= 0)
		r = request_bound(ask, "arg.max", &max, why);
	if (r >= 0)
		r = request_until(ask, &until_ms, why);
	if (r < 0)
		return r;
	if (message_flag(ask, "arg.reset")) {
		if (min >= 0 || max >= 0 || until_ms)
			return why_set(why, -EINVAL, "reset goes without min, max and for");
		return reset_scale(request, type, ask);
	}
	if (min < 0 && max < 0)
		return why_set(why, -EINVAL, "say min, max or both, or reset");
	low = min >= 0 ? min : type->config->min;
	high = max >= 0 ? max : type->config->max;
	if (low > high)
		return why_set(why, -EINVAL,
			       "min %d%s is above max %d%s; set both, or one that fits the other",
			       low, min < 0 ? " (configured)" : "", high,
			       max < 0 ? " (configured)" : "");
	request_sign(&type->override.scaled_by, request, ask);
	type->override.scaled = true;
	type->override.min = min;
	type->override.max = max;
	type->override.until_ms = until_ms;
	note(type, "scaled", &type->override.scaled_by);
	state_save_overrides(request->supervisor);
	decide_soon(request->supervisor);
	request_done(request, "%s is scaled to min %d, max %d %s", type->name, low, high,
		     request_describe_until(until_ms, until, sizeof until));
	return 0;
}

int operate_scale(struct request *request, const struct message_view *ask, struct why *why)
{
	return message_flag(ask, "arg.cluster") ? ordering_ask(request, ORDER_SCALE, ask, why)
						: scale_here(request, ask, why);
}

static int pause_here(struct request *request, const struct message_view *ask, struct why *why)
{
	struct type *type = request_type(request, ask, why);
	int64_t until_ms = 0;
	char until[64];

	if (!type)
		return -ENOENT;
	if (request_until(ask, &until_ms, why) < 0)
		return -EINVAL;
	request_sign(&type->override.paused_by, request, ask);
	type->override.paused = true;
	type->override.paused_until_ms = until_ms;
	note(type, "paused", &type->override.paused_by);
	pair_say(type, "pause");
	state_save_overrides(request->supervisor);
	decide_soon(request->supervisor);
	request_done(request, "%s is paused %s: its events wait, %s", type->name,
		     request_describe_until(until_ms, until, sizeof until),
		     type_consumes(type) ? "its programs are told to end (SIGTERM)"
					 : "what is being handled is finished");
	return 0;
}

int operate_pause(struct request *request, const struct message_view *ask, struct why *why)
{
	return message_flag(ask, "arg.cluster") ? ordering_ask(request, ORDER_PAUSE, ask, why)
						: pause_here(request, ask, why);
}

static int resume_node(struct request *request)
{
	struct supervisor *supervisor = request->supervisor;
	bool was = supervisor->draining;

	supervisor->draining = false;
	decide_soon(supervisor);
	request_done(request, "%s%s",
		     was ? "the node is no longer drained" : "the node was not drained by hand",
		     supervisor->cluster->maintenance
			     ? "; it is taken out of service in the registry, and that ends there"
		     : orders_drain(supervisor)
			     ? "; all nodes are drained, droverctl resume --all --cluster ends that"
			     : "");
	return 0;
}

/* "resume" on one node ends what was set there. */
static const char *still_paused(const struct type *type)
{
	return orders_of(type)->paused
		       ? " on this node; it is paused in the whole cluster, droverctl resume "
			 "--cluster ends that"
		       : "";
}

static int resume_here(struct request *request, const struct message_view *ask, struct why *why)
{
	struct type *type;

	if (!*message_text(ask, "arg.type", ""))
		return resume_node(request);
	type = request_type(request, ask, why);
	if (!type)
		return -ENOENT;
	if (!type->override.paused) {
		request_done(request, "%s was not paused%s", type->name, still_paused(type));
		return 0;
	}
	request_sign(&type->override.paused_by, request, ask);
	type->override.paused = false;
	type->override.paused_until_ms = 0;
	note(type, "resumed", &type->override.paused_by);
	if (!orders_of(type)->paused)
		pair_say(type, "resume");
	state_save_overrides(request->supervisor);
	decide_soon(request->supervisor);
	request_done(request, "%s %s%s", type->name,
		     orders_of(type)->paused ? "is no longer paused" : "takes events again",
		     still_paused(type));
	return 0;
}

int operate_resume(struct request *request, const struct message_view *ask, struct why *why)
{
	bool all = !*message_text(ask, "arg.type", "");

	return message_flag(ask, "arg.cluster")
		       ? ordering_ask(request, all ? ORDER_UNDRAIN : ORDER_RESUME, ask, why)
		       : resume_here(request, ask, why);
}

int operate_drain(struct request *request, const struct message_view *ask, struct why *why)
{
	if (message_flag(ask, "arg.cluster"))
		return ordering_ask(request, ORDER_DRAIN, ask, why);
	if (message_int(ask, "arg.for_ms", 0) || *message_text(ask, "arg.note", ""))
		return why_set(
			why, -EINVAL,
			"a drain of one node has no note and no end of its own; with cluster it "
			"has");
	request->supervisor->draining = true;
	decide_soon(request->supervisor);
	request_done(request, "the node is draining: nothing more is taken, busy workers finish; "
			      "droverctl resume --all, or a restart of droverd, ends it");
	return 0;
}

int operate_restart(struct request *request, const struct message_view *ask, struct why *why)
{
	struct type *type = request_type(request, ask, why);
	bool running;

	if (!type)
		return -ENOENT;
	if (!type->handler)
		return why_set(why, -ENOEXEC, "%s has no handler to start; plugins says why",
			       type->name);
	running = type->pair == PAIR_RUNNING;
	/* Whoever restarts by hand has mended something: no more waiting for the backoff. */
	backoff_reset(&type->backoff);
	type->retry_ms = 0;
	handlers_restart(type);
	decide_soon(request->supervisor);
	request_done(request,
		     !running ? "%s has no workers now; its next ones start afresh"
		     : type_consumes(type)
			     ? "%s gets new workers; the programs of the old ones are told to end "
			       "(SIGTERM)"
			     : "%s gets new workers; the ones that are busy finish first",
		     type->name);
	return 0;
}

int operate_reload(struct request *request, const struct message_view *ask, struct why *why)
{
	int r = supervisor_reload(request->supervisor, why);

	(void)ask;
	if (r < 0)
		return why_prefix(why, r,
				  "the new configuration is refused, the running one stays");
	request_done(request, "the configuration was read again and is in force");
	return 0;
}

/* What needs a broker: an errand serves the rest of the request. */

static size_t count_errands(const struct supervisor *supervisor)
{
	size_t n = 0;

	for (const struct child *child = supervisor->children.first; child; child = child->next)
		n += child->program == PROGRAM_ERRAND;
	return n;
}

static int serve(struct request *request, const char *errand, const struct broker *broker,
		 const struct message_view *ask, struct why *why)
{
	bool looks = request->uid && request->uid != (int)geteuid();
	size_t most = looks ? ERRANDS_OF_LOOK : ERRANDS_MAX;
	struct message message = {0};
	int fd, r;

	if (count_errands(request->supervisor) >= most)
		return why_set(why, -EAGAIN,
			       "%zu errands are running already, that is as many as are allowed; "
			       "try again in a moment",
			       most);
	r = errand_serve(request->supervisor, errand, broker->config, ask, &fd, why);
	if (r < 0)
		return r;
	message_start(&message, "errand");
	message_add_int(&message, "ask", request->ask);
	r = child_send_fd(request->supervisor->api, &message, fd);
	message_free(&message);
	return r < 0 ? why_set(why, r, "hand the errand to the api: %s", strerror(-r)) : 0;
}

static bool binds(const struct type *type, const char *event)
{
	if (!type->config->bind)
		return !strcmp(type->name, event);
	for (size_t i = 0; type->config->bind[i]; i++)
		if (!strcmp(type->config->bind[i], event))
			return true;
	return false;
}

/* Where events of that type go: to the broker of the types that bind it. */
static int broker_of_event(const struct request *request, const char *event,
			   const struct broker **ret_broker, struct why *why)
{
	const struct supervisor *supervisor = request->supervisor;
	const struct type *found = NULL;

	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];

		if (!type->broker || type->gone || !binds(type, event))
			continue;
		if (found && found->broker != type->broker)
			return why_set(why, -EINVAL,
				       "%s is taken by %s on the broker %s and by %s on the broker "
				       "%s; name one of them with broker",
				       event, found->name, found->broker->config->name, type->name,
				       type->broker->config->name);
		found = type;
	}
	if (!found)
		return request_unknown(request, "no event type takes", event, why);
	*ret_broker = found->broker;
	return 0;
}

static int broker_named(const struct request *request, const char *name,
			const struct broker **ret_broker, struct why *why)
{
	const struct broker *broker = broker_find(request->supervisor, name);

	if (!broker)
		return why_set(why, -ENOENT, "there is no broker \"%.64s\"; status lists them",
			       name);
	*ret_broker = broker;
	return 0;
}

int operate_publish(struct request *request, const struct message_view *ask, struct why *why)
{
	const char *name = message_text(ask, "arg.broker", "");
	const char *event = message_text(ask, "arg.type", "");
	const struct broker *broker = NULL;
	int r = *name ? broker_named(request, name, &broker, why)
		      : broker_of_event(request, event, &broker, why);

	return r < 0 ? r : serve(request, "publish", broker, ask, why);
}

/* Of a type, or the only one. */
static int broker_of_type(const struct request *request, const struct message_view *ask,
			  const struct broker **ret_broker, struct why *why)
{
	const struct broker *first = request->supervisor->brokers;
	const struct type *type;

	if (!*message_text(ask, "arg.type", "")) {
		if (!first || first->next)
			return why_set(why, -EINVAL,
				       "there are several brokers; name one, or an event type");
		*ret_broker = first;
		return 0;
	}
	type = request_type(request, ask, why);
	if (!type)
		return -ENOENT;
	if (!type->broker)
		return why_set(why, -ENOENT, "%s has no broker", type->name);
	*ret_broker = type->broker;
	return 0;
}

int operate_declare(struct request *request, const struct message_view *ask, struct why *why)
{
	const char *name = message_text(ask, "arg.broker", "");
	const struct broker *broker = NULL;
	int r = *name ? broker_named(request, name, &broker, why)
		      : broker_of_type(request, ask, &broker, why);

	return r < 0 ? r : serve(request, "declare", broker, ask, why);
}

int operate_dead(struct request *request, const struct message_view *ask, struct why *why)
{
	const struct type *type = request_type(request, ask, why);

	if (!type)
		return -ENOENT;
	if (!type->broker)
		return why_set(why, -ENOENT, "%s has no broker", type->name);
	return serve(request, "dead", type->broker, ask, why);
}
