/* SPDX-License-Identifier: MIT */
/*
 * Our instance of the service, as the local agent has it. Decides what is asked of the agent next, one
 * thing at a time, so that nothing overtakes: whether our name is ours, the registration, the removal
 * of checks, the comparison of what the agent has with what it should. Registers in place, never by
 * removing first and never with replace-existing-checks, which would lift an operator's maintenance.
 *
 * A registration makes texts visible, and costs the servers a write: texts and new checks wait for a
 * minute since the last one, tags for a minute since the last one for tags; what the agent has lost,
 * and that we leave, does not wait.
 */
#include "registration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REMOVE_MS      1000
#define BROKEN_MAX     3 /* so many times in a row are no accident of an agent that breaks off */
#define TAGS_BYTES_MAX (512u << 10) /* of all our checks: Consul keeps the tags in each of them */

int register_open(struct consul *consul)
{
	struct registration *registration = calloc(1, sizeof *registration);

	if (!registration)
		return -ENOMEM;
	registration->verify_ms = NEVER;
	consul->registration = registration;
	registration->maintenance = maintenance_new(consul);
	return registration->maintenance ? 0 : -ENOMEM;
}

static void tags_free(char **tags, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(tags[i]);
	free(tags);
}

void register_close(struct consul *consul)
{
	struct registration *registration = consul->registration;

	if (!registration)
		return;
	request_cancel(registration->request);
	identity_cancel(registration->question);
	maintenance_free(registration->maintenance);
	tags_free(registration->tags, registration->n_tags);
	free(registration->removing);
	free(registration);
	consul->registration = NULL;
}

bool register_start(struct consul *consul, enum action action, const char *method, const char *path,
		    const char *body, int64_t timeout_ms,
		    void (*done)(void *context, const struct answer *answer))
{
	struct registration *registration = consul->registration;
	struct request_order order = {
		.method = method,
		.path = path,
		.body = body,
		.length = body ? strlen(body) : 0,
		.timeout_ms = timeout_ms,
		/* It is one at a time, and must not wait for others: others learn by it that we leave. */
		.lane = LANE_URGENT,
		.done = done,
		.context = consul,
	};

	registration->request = path ? request_start(consul, &order) : NULL;
	if (!registration->request) {
		registration->retry_ms = now_ms() + RETRY_MS;
		return false;
	}
	registration->action = action;
	return true;
}

void register_finished(struct registration *registration)
{
	registration->request = NULL;
	registration->action = NOTHING;
}

/* What a failure means for the next try, and for what is said of us. */
void register_failed(struct consul *consul, const struct answer *answer)
{
	struct registration *registration = consul->registration;
	bool refused = answer->failure == FAILURE_DENIED || answer->failure == FAILURE_REFUSED;

	registration->retry_ms =
		now_ms() + (refused ? REFUSED_MS : RETRY_MS) + random_ms(RETRY_MS / 5);
	if (refused)
		state_refuse(consul, REFUSAL_REGISTER, answer->sentence);
}

/* Registering. */

/*
 * The agent answers all else. Tried with 1.14: one that is to remove from the servers what it does not
 * know, and may not, ends the connection of whoever registers that.
 */
static void broken_off(struct consul *consul, const struct answer *answer)
{
	struct registration *registration = consul->registration;
	char sentence[SENTENCE_MAX];

	/* One that is slow is no such agent. */
	if (answer->failure != FAILURE_AWAY || state_away(consul) ||
	    now_ms() - registration->began_ms >= REQUEST_MS)
		registration->broken = 0;
	else if (registration->broken < BROKEN_MAX)
		registration->broken++;
	if (registration->broken < BROKEN_MAX)
		return;
	snprintf(
		sentence, sizeof sentence,
		"the Consul agent at %.200s answers, but never when this node is registered; its log "
		"says why (most likely that Consul's servers have reserved the name of its host for "
		"another node id: give the agent its node_id back, or remove the host from the "
		"catalog)",
		consul->settings.shown);
	registration->retry_ms = now_ms() + REFUSED_MS;
	/* It has nothing of us, whatever it was told before. */
	registration->placed = false;
	beat_forget(consul);
	state_refuse(consul, REFUSAL_REGISTER, sentence);
}

struct face register_face(const struct consul *consul)
{
	const struct registration *registration = consul->registration;

	return (struct face){
		.service = consul->cluster,
		.id = consul->service_id,
		.node_id = consul->node_id,
		.version = consul->version,
		.address = consul->address,
		.port = consul->port,
		.weight = consul->weight,
		.started_ms = consul->started_ms,
		.deregister_ms = consul->settings.deregister_ms,
		.tags = (const char *const *)registration->tags,
		.n_tags = registration->n_tags,
		.leaving = registration->leaving,
	};
}

static void on_registered(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct registration *registration = consul->registration;
	int64_t now = now_ms();

	register_finished(registration);
	beat_described(consul, answer->failure == FAILURE_NONE);
	if (answer->failure) {
		registration->urgent = registration->urgent || registration->created;
		registration->retagged = registration->retagged || registration->was_retagged;
		registration->whole = true;
		register_failed(consul, answer);
		broken_off(consul, answer);
		return;
	}
	registration->broken = 0;
	if (!registration->placed) {
		consul_log(consul, DROVER_LOG_INFO, "registered with Consul as %s",
			   consul->service_id);
		registration->verify_ms = admit_verify_at_ms(now);
		registration->late =
			now - registration->admitted_ms > consul->settings.alive_ttl_ms;
	}
	registration->placed = true;
	/* Texts become visible only by another one; at the beginning that need not wait. */
	registration->texts_ms = registration->created ? now : now + MINUTE_MS;
	if (registration->was_retagged)
		registration->tags_ms = now + MINUTE_MS;
	if (!maintenance_watched(registration->maintenance))
		registration->compare_ms = now;
	state_refuse(consul, REFUSAL_NAME, NULL);
	state_refuse(consul, REFUSAL_REGISTER, NULL);
	beat_run(consul, !registration->removed);
}

static void register_now(struct consul *consul)
{
	struct registration *registration = consul->registration;
	struct face face = register_face(consul);
	const struct check *const *checks;
	bool created = beat_new(consul);
	size_t n;
	char *body;

	checks = beat_describe(consul, registration->whole, &n);
	body = describe_face(&face, checks, n);
	if (!body || !register_start(consul, REGISTERING, "PUT", "/v1/agent/service/register", body,
				     REQUEST_MS, on_registered)) {
		beat_described(consul, false);
		registration->retry_ms = now_ms() + RETRY_MS;
		free(body);
		return;
	}
	free(body);
	registration->sent = true;
	registration->began_ms = now_ms();
	registration->created = created;
	registration->was_retagged = registration->retagged;
	registration->urgent = registration->whole = registration->retagged = false;
}

/* Removing. */

static void on_check_removed(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct registration *registration = consul->registration;

	register_finished(registration);
	/* Of an older agent, 500 says as well that there is none; the comparison will tell. */
	if (answer->failure == FAILURE_NONE || answer->failure == FAILURE_MISSING ||
	    answer->failure == FAILURE_SERVER)
		beat_removed(consul, registration->removing);
	else
		register_failed(consul, answer);
	free(registration->removing);
	registration->removing = NULL;
}

static void remove_check(struct consul *consul, const char *id)
{
	struct registration *registration = consul->registration;
	const char *encoded = http_encode(consul, id);

	free(registration->removing);
	registration->removing = strdup(id);
	if (!encoded || !registration->removing)
		registration->retry_ms = now_ms() + RETRY_MS;
	else
		register_start(consul, REMOVING_CHECK, "PUT",
			       http_path(consul, "/v1/agent/check/deregister/%s", encoded), NULL,
			       REQUEST_MS, on_check_removed);
}

static void on_removed(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct registration *registration = consul->registration;

	register_finished(registration);
	if (answer->failure && answer->failure != FAILURE_MISSING)
		consul_log(consul, DROVER_LOG_WARNING,
			   "the registration %s cannot be removed (%s); it becomes critical by "
			   "itself and is removed after a while",
			   consul->service_id, answer->sentence);
	registration->placed = registration->sent = false;
	if (registration->removed)
		consul_deregistered(consul);
}

void register_withdraw(struct consul *consul)
{
	struct registration *registration = consul->registration;
	const char *id = http_encode(consul, consul->service_id);

	if (!id || !register_start(consul, REMOVING, "PUT",
				   http_path(consul, "/v1/agent/service/deregister/%s", id), NULL,
				   REMOVE_MS, on_removed)) {
		registration->placed = registration->sent = false;
		consul_deregistered(consul);
	}
}

/* What is next. */

static int64_t register_at_ms(const struct consul *consul)
{
	const struct registration *registration = consul->registration;
	int64_t at = registration->urgent ? 0 : NEVER;

	if (registration->retagged && registration->tags_ms < at)
		at = registration->tags_ms;
	if (registration->texts_ms < at && (beat_new(consul) || beat_hidden(consul)))
		at = registration->texts_ms;
	return at;
}

static int64_t next_ms(const struct consul *consul)
{
	const struct registration *registration = consul->registration;
	int64_t at;

	if (!registration->admitted || beat_stale(consul) ||
	    maintenance_due(registration->maintenance))
		return 0;
	at = register_at_ms(consul);
	if (beat_telling(consul) && !registration->urgent)
		at = NEVER; /* until the agent knows the texts; then we are called */
	if (registration->compare_ms < at)
		at = registration->compare_ms;
	return registration->verify_ms < at ? registration->verify_ms : at;
}

int64_t register_due_ms(const struct consul *consul)
{
	const struct registration *registration = consul->registration;
	int64_t at;

	if (registration->request || registration->question)
		return NEVER;
	if (registration->removed)
		return registration->placed || registration->sent ? 0 : NEVER;
	if (!registration->reported)
		return NEVER;
	at = next_ms(consul);
	return at > registration->retry_ms ? at : registration->retry_ms;
}

static void next(struct consul *consul, int64_t now)
{
	struct registration *registration = consul->registration;
	const char *stale = beat_stale(consul);

	if (!registration->admitted) {
		admit_ask(consul);
		return;
	}
	/*
	 * The agent was away, or misses a check, and may have nothing of ours: before that is seen,
	 * a registration would pass for one that has brought texts along.
	 */
	if (registration->placed && !registration->compare_ms && !registration->urgent) {
		compare_begin(consul);
		return;
	}
	if (register_at_ms(consul) <= now && !registration->urgent && !beat_telling(consul) &&
	    beat_hidden(consul)) {
		beat_tell(consul);
		if (!beat_telling(consul))
			register_now(consul);
	} else if (register_at_ms(consul) <= now &&
		   (registration->urgent || !beat_telling(consul))) {
		register_now(consul);
	} else if (stale) {
		remove_check(consul, stale);
	} else if (maintenance_due(registration->maintenance)) {
		compare_glance(consul);
	} else if (registration->compare_ms <= now) {
		compare_begin(consul);
	} else if (registration->verify_ms <= now) {
		admit_ask(consul);
	}
}

void register_process(struct consul *consul, int64_t now)
{
	if (register_due_ms(consul) > now)
		return;
	if (consul->registration->removed)
		register_withdraw(consul);
	else
		next(consul, now);
}

/* Lets go of a question that is on its way, for something that cannot wait; never of a change. */
static void interrupt(struct registration *registration)
{
	identity_cancel(registration->question);
	registration->question = NULL;
	if (registration->action < COMPARING)
		return;
	request_cancel(registration->request);
	register_finished(registration);
	registration->compare_ms = 0;
}

void register_back(struct consul *consul)
{
	struct registration *registration = consul->registration;

	registration->compare_ms = 0;
	if (!registration->admitted)
		return;
	registration->retry_ms = 0;
	admit_late(consul);
}

void register_token(struct consul *consul)
{
	struct registration *registration = consul->registration;

	registration->retry_ms = 0;
	registration->urgent = registration->urgent || registration->placed;
	registration->whole = true;
}

void register_missing(struct consul *consul)
{
	consul->registration->compare_ms = 0;
}

/* What is told of us. */

/* The first of the tags, and the leader's, for which there is room in all checks. */
static int take_tags(struct consul *consul, const char *const *tags, size_t n_checks,
		     char ***ret_tags, size_t *ret_n)
{
	struct registration *registration = consul->registration;
	size_t room = TAGS_BYTES_MAX / (n_checks + 1), n = 0, taken = 0;
	char **copies;

	while (tags && tags[n])
		n++;
	copies = calloc(n + 1, sizeof *copies);
	if (!copies)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		size_t size = strlen(tags[i]) + 4;

		if (strcmp(tags[i], "leader") && size > room)
			continue;
		copies[taken] = strdup(tags[i]);
		if (!copies[taken++]) {
			tags_free(copies, taken);
			return -ENOMEM;
		}
		room -= size < room ? size : room;
	}
	if (taken < n && !registration->cut)
		consul_log(
			consul, DROVER_LOG_WARNING,
			"%zu of %zu types are not among the tags in Consul, for it keeps all tags "
			"with each of %zu checks; they are served all the same",
			n - taken, n, n_checks + 1);
	registration->cut = taken < n;
	*ret_tags = copies;
	*ret_n = taken;
	return 0;
}

static bool same_tags(const struct registration *registration, char **tags, size_t n)
{
	bool same = registration->n_tags == n;

	for (size_t i = 0; i < n && same; i++)
		same = !strcmp(registration->tags[i], tags[i]);
	return same;
}

int register_report(struct consul *consul, const struct drover_report *report)
{
	struct registration *registration = consul->registration;
	char **tags;
	size_t n;
	int r;

	r = take_tags(consul, report->tags, report->n_checks, &tags, &n);
	if (r < 0)
		return r;
	r = beat_report(consul, report->checks, report->n_checks);
	if (r < 0) {
		tags_free(tags, n);
		return r;
	}
	if (!same_tags(registration, tags, n))
		registration->retagged = true;
	tags_free(registration->tags, registration->n_tags);
	registration->tags = tags;
	registration->n_tags = n;
	registration->reported = true;
	return 0;
}

int register_leave(struct consul *consul, bool leaving)
{
	struct registration *registration = consul->registration;

	if (registration->leaving == leaving)
		return 0;
	registration->leaving = leaving;
	if (!registration->admitted)
		return 0;
	interrupt(registration);
	registration->urgent = true;
	registration->retry_ms = 0;
	register_process(consul, now_ms());
	return 0;
}

int register_remove(struct consul *consul)
{
	struct registration *registration = consul->registration;

	registration->removed = true;
	interrupt(registration);
	beat_run(consul, false);
	maintenance_watch(registration->maintenance, NULL);
	if (!registration->request && !registration->placed && !registration->sent)
		return -ENOENT; /* nobody knows us */
	register_process(consul, now_ms());
	return 0;
}
