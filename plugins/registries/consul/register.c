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
#include "register.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MINUTE_MS  60000
#define COMPARE_MS 30000
#define VERIFY_MS  5000 /* at least, after a registration, until the servers must have it */
#define REMOVE_MS  1000
/* So many times in a row are no accident: it is refused. */
#define BROKEN_MAX     3            /* by an agent that breaks off */
#define STRANGER_MAX   2            /* by servers that know the host as another one, */
#define UNSEEN_MAX     6            /* or do not know us; that is at least 40 s */
#define TAGS_BYTES_MAX (512u << 10) /* of all our checks: Consul keeps the tags in each of them */

enum action {
	NOTHING,
	REGISTERING,
	REMOVING_CHECK,
	REMOVING,
	COMPARING,
	COMPARING_CHECKS,
	GLANCING
};

struct registration {
	char **tags;
	size_t n_tags;
	bool reported, leaving;
	bool admitted; /* our name is ours */
	bool placed;   /* the agent has our instance, as far as is known */
	bool sent;     /* it may have it: a registration was on its way to it */
	bool urgent;   /* to be registered without waiting */
	bool whole;    /* with all checks */
	bool retagged; /* the tags are others than those registered */
	bool cut;      /* some tags are left out, which was logged */
	bool late;     /* others may have taken us for dead, and our name */
	/* In a row: the agent broke off when we registered; the servers did not know us. */
	unsigned broken, unseen;
	bool removed;

	enum action action;
	struct request *request;    /* on its way, if action is not NOTHING */
	char *removing;             /* the check */
	bool created, was_retagged; /* of the registration on its way */
	struct identity_question *question;
	struct maintenance *maintenance;

	int64_t admitted_ms;                  /* when that was found out last */
	int64_t retry_ms;                     /* nothing before */
	int64_t texts_ms, tags_ms, repair_ms; /* not before, for these */
	int64_t compare_ms, verify_ms;
};

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

static bool start(struct consul *consul, enum action action, const char *method, const char *path,
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

static void finished(struct registration *registration)
{
	registration->request = NULL;
	registration->action = NOTHING;
}

/* What a failure means for the next try, and for what is said of us. */
static void failed(struct consul *consul, const struct answer *answer)
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

	if (answer->failure != FAILURE_AWAY || state_away(consul))
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
	state_refuse(consul, REFUSAL_REGISTER, sentence);
}

static struct face face_of(const struct consul *consul)
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

	finished(registration);
	beat_described(consul, answer->failure == FAILURE_NONE);
	if (answer->failure) {
		registration->urgent = registration->urgent || registration->created;
		registration->retagged = registration->retagged || registration->was_retagged;
		registration->whole = true;
		failed(consul, answer);
		broken_off(consul, answer);
		return;
	}
	registration->broken = 0;
	if (!registration->placed) {
		consul_log(consul, DROVER_LOG_INFO, "registered with Consul as %s",
			   consul->service_id);
		registration->verify_ms = now + VERIFY_MS + random_ms(2 * VERIFY_MS);
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
	struct face face = face_of(consul);
	const struct check *const *checks;
	bool created = beat_new(consul);
	size_t n;
	char *body;

	checks = beat_describe(consul, registration->whole, &n);
	body = describe_face(&face, checks, n);
	if (!body || !start(consul, REGISTERING, "PUT", "/v1/agent/service/register", body,
			    REQUEST_MS, on_registered)) {
		beat_described(consul, false);
		registration->retry_ms = now_ms() + RETRY_MS;
		free(body);
		return;
	}
	free(body);
	registration->sent = true;
	registration->created = created;
	registration->was_retagged = registration->retagged;
	registration->urgent = registration->whole = registration->retagged = false;
}

/* Removing. */

static void on_check_removed(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct registration *registration = consul->registration;

	finished(registration);
	/* Of an older agent, 500 says as well that there is none; the comparison will tell. */
	if (answer->failure == FAILURE_NONE || answer->failure == FAILURE_MISSING ||
	    answer->failure == FAILURE_SERVER)
		beat_removed(consul, registration->removing);
	else
		failed(consul, answer);
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
		start(consul, REMOVING_CHECK, "PUT",
		      http_path(consul, "/v1/agent/check/deregister/%s", encoded), NULL, REQUEST_MS,
		      on_check_removed);
}

static void on_removed(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct registration *registration = consul->registration;

	finished(registration);
	if (answer->failure && answer->failure != FAILURE_MISSING)
		consul_log(consul, DROVER_LOG_WARNING,
			   "the registration %s cannot be removed (%s); it becomes critical by "
			   "itself and is removed after a while",
			   consul->service_id, answer->sentence);
	registration->placed = registration->sent = false;
	if (registration->removed)
		consul_deregistered(consul);
}

static void remove_now(struct consul *consul)
{
	const char *id = http_encode(consul, consul->service_id);

	if (!id || !start(consul, REMOVING, "PUT",
			  http_path(consul, "/v1/agent/service/deregister/%s", id), NULL, REMOVE_MS,
			  on_removed))
		consul_deregistered(consul);
}

/* Whose our name is. */

/*
 * The servers may be about to hear of it: an agent tries again within 30 s what they refused, and one
 * whose servers lost their data tells them within minutes, which is no refusal.
 */
static void unseen(struct consul *consul, unsigned most, const char *sentence)
{
	struct registration *registration = consul->registration;
	bool over = !registration->late && ++registration->unseen > most;

	registration->verify_ms = now_ms() + (over ? REFUSED_MS : VERIFY_MS);
	if (over)
		state_refuse(consul, REFUSAL_CATALOG, sentence);
}

static void on_identity(struct consul *consul, enum identity identity, const char *sentence)
{
	struct registration *registration = consul->registration;
	int64_t now = now_ms();

	registration->question = NULL;
	registration->verify_ms = NEVER;
	if (identity != IDENTITY_UNSEEN && identity != IDENTITY_STRANGER)
		registration->unseen = 0;
	switch (identity) {
	case IDENTITY_OURS:
		state_refuse(consul, REFUSAL_CATALOG, NULL);
		registration->late = false;
		registration->urgent = registration->urgent || !registration->admitted;
		registration->whole = registration->whole || !registration->admitted;
		registration->admitted = true;
		registration->admitted_ms = now;
		return;
	case IDENTITY_UNSEEN:
	case IDENTITY_STRANGER:
		unseen(consul, identity == IDENTITY_STRANGER ? STRANGER_MAX : UNSEEN_MAX, sentence);
		return;
	case IDENTITY_UNKNOWN:
	case IDENTITY_DENIED:
		if (registration->admitted)
			registration->verify_ms = now + VERIFY_MS;
		else
			registration->retry_ms =
				now + (identity == IDENTITY_DENIED ? REFUSED_MS : RETRY_MS);
		if (identity == IDENTITY_DENIED)
			state_refuse(consul, REFUSAL_REGISTER, sentence);
		return;
	case IDENTITY_TAKEN:
	case IDENTITY_TAKEN_HERE:
		break;
	}
	state_refuse(consul, REFUSAL_NAME, sentence);
	registration->retry_ms = now + REFUSED_MS;
	registration->late = false;
	beat_run(consul, false);
	beat_forget(consul);
	registration->admitted = false;
	if (registration->placed && identity == IDENTITY_TAKEN)
		remove_now(consul);
	registration->placed = registration->sent = false;
}

/* Comparing. */

static void on_compared_checks(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct registration *registration = consul->registration;
	bool compared = registration->action == COMPARING_CHECKS;
	struct catalog catalog;

	finished(registration);
	if (answer->failure || catalog_read_checks(answer->body, answer->length, &catalog) < 0) {
		failed(consul, answer);
		return;
	}
	if (compared) {
		registration->compare_ms =
			now_ms() + COMPARE_MS - COMPARE_MS / 10 + random_ms(COMPARE_MS / 5);
		beat_compare(consul, &catalog);
		registration->urgent = registration->urgent || beat_new(consul);
		if (catalog.n_checks)
			maintenance_watch(registration->maintenance, catalog.checks[0].node);
	}
	maintenance_look(registration->maintenance, &catalog);
	catalog_free(&catalog);
}

static void ask_checks(struct consul *consul, enum action action, const char *filter)
{
	const char *encoded = http_encode(consul, filter);

	start(consul, action, "GET",
	      encoded ? http_path(consul, "/v1/agent/checks?filter=%s", encoded) : NULL, NULL,
	      REQUEST_MS, on_compared_checks);
}

static void lost(struct consul *consul)
{
	struct registration *registration = consul->registration;

	consul_log(consul, DROVER_LOG_NOTICE,
		   "the Consul agent does not know %s any more: registering it again",
		   consul->service_id);
	beat_forget(consul);
	registration->placed = false;
	registration->urgent = true;
}

static void on_compared(void *context, const struct answer *answer)
{
	struct consul *consul = context;
	struct registration *registration = consul->registration;
	struct face face = face_of(consul);
	struct catalog catalog;
	char filter[512];
	bool there, ours, same;

	finished(registration);
	if (answer->failure == FAILURE_MISSING) {
		registration->compare_ms = now_ms() + COMPARE_MS;
		lost(consul);
		return;
	}
	if (answer->failure || catalog_read_instance(answer->body, answer->length, &catalog) < 0) {
		failed(consul, answer);
		return;
	}
	there = catalog.n_instances > 0;
	ours = there && !strcmp(instance_meta(catalog.instances, "id"), consul->node_id);
	same = there && describe_same(&face, catalog.instances);
	catalog_free(&catalog);
	if (there && !ours) {
		registration->verify_ms = 0;
		registration->compare_ms = now_ms() + COMPARE_MS;
		return;
	}
	state_refuse(consul, REFUSAL_REGISTER, NULL);
	if (!same && !registration->retagged && now_ms() >= registration->repair_ms) {
		registration->urgent = true;
		registration->repair_ms = now_ms() + MINUTE_MS;
	}
	snprintf(filter, sizeof filter, "ServiceID == \"%s\" or CheckID == \"_node_maintenance\"",
		 consul->service_id);
	ask_checks(consul, COMPARING_CHECKS, filter);
}

static void compare(struct consul *consul)
{
	const char *id = http_encode(consul, consul->service_id);

	start(consul, COMPARING, "GET", id ? http_path(consul, "/v1/agent/service/%s", id) : NULL,
	      NULL, REQUEST_MS, on_compared);
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

static void ask_identity(struct consul *consul, enum standing standing)
{
	struct registration *registration = consul->registration;

	if (identity_ask(consul, standing, on_identity, &registration->question) < 0)
		registration->retry_ms = now_ms() + RETRY_MS;
}

static void next(struct consul *consul, int64_t now)
{
	struct registration *registration = consul->registration;
	const char *stale = beat_stale(consul);
	char filter[512];

	if (!registration->admitted) {
		ask_identity(consul, STANDING_NEW);
	} else if (register_at_ms(consul) <= now && !registration->urgent &&
		   !beat_telling(consul) && beat_hidden(consul)) {
		beat_tell(consul);
		if (!beat_telling(consul))
			register_now(consul);
	} else if (register_at_ms(consul) <= now &&
		   (registration->urgent || !beat_telling(consul))) {
		register_now(consul);
	} else if (stale) {
		remove_check(consul, stale);
	} else if (maintenance_due(registration->maintenance)) {
		maintenance_filter(consul, filter, sizeof filter);
		ask_checks(consul, GLANCING, filter);
	} else if (registration->compare_ms <= now) {
		compare(consul);
	} else if (registration->verify_ms <= now) {
		ask_identity(consul, registration->late ? STANDING_LATE : STANDING_THERE);
	}
}

void register_process(struct consul *consul, int64_t now)
{
	if (register_due_ms(consul) > now)
		return;
	if (consul->registration->removed)
		remove_now(consul);
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
	finished(registration);
	registration->compare_ms = 0;
}

void register_back(struct consul *consul)
{
	struct registration *registration = consul->registration;

	registration->compare_ms = 0;
	if (!registration->admitted)
		return;
	registration->retry_ms = 0;
	register_late(consul);
}

void register_late(struct consul *consul)
{
	struct registration *registration = consul->registration;

	if (registration->late || !registration->admitted)
		return;
	registration->late = true;
	registration->verify_ms = now_ms() + VERIFY_MS + random_ms(2 * VERIFY_MS);
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
