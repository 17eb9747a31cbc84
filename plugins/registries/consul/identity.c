/* SPDX-License-Identifier: MIT */
/*
 * Whether the name and the id of this node are its own: finds the instances of the service that have
 * either, here and anywhere in the catalog, and of those that are not ours whether they live. One that
 * does not say that it is alive, or whose host is not believed to be up, does not count. Of our own
 * instance it finds whether the servers take what the agent tells them: an agent that lost its data
 * and has another id now is not believed to be its host, and nothing of that is in its answers. Asks
 * only; admit.c decides when, and what follows.
 */
#include "register.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An instance that has our name or our id, and may live. */
struct rival {
	char *node, *id, *name, *node_id, *address;
};

struct identity_question {
	struct consul *consul;
	enum standing standing;
	void (*done)(struct consul *consul, enum identity identity, const char *sentence);
	struct request *request;
	bool local;                /* this agent has an instance of our service id */
	char local_id[64];         /* whose node id this is */
	char *own_node;            /* Consul's name of the agent's host; NULL: not known */
	char host_id[HOST_ID_MAX]; /* the id of that host, as the servers have it; "": not known */
	struct rival *rivals;
	size_t n_rivals, at;
};

static void rival_free(struct rival *rival)
{
	free(rival->node);
	free(rival->id);
	free(rival->name);
	free(rival->node_id);
	free(rival->address);
}

void identity_cancel(struct identity_question *question)
{
	if (!question)
		return;
	request_cancel(question->request);
	for (size_t i = 0; i < question->n_rivals; i++)
		rival_free(&question->rivals[i]);
	free(question->rivals);
	free(question->own_node);
	free(question);
}

static void settle(struct identity_question *question, enum identity identity, const char *sentence)
{
	struct consul *consul = question->consul;
	void (*done)(struct consul *, enum identity, const char *) = question->done;

	identity_cancel(question);
	done(consul, identity, sentence);
}

static void settle_unknown(struct identity_question *question, const struct answer *answer)
{
	settle(question, answer->failure == FAILURE_DENIED ? IDENTITY_DENIED : IDENTITY_UNKNOWN,
	       answer->failure ? answer->sentence : "the agent's answer is none");
}

static void ask(struct identity_question *question, const char *path, int64_t timeout_ms,
		void (*answered)(void *context, const struct answer *answer))
{
	struct request_order order = {
		.method = "GET",
		.path = path,
		.timeout_ms = timeout_ms,
		.lane = LANE_ORDINARY,
		.done = answered,
		.context = question,
	};

	question->request = path ? request_start(question->consul, &order) : NULL;
}

static const char *with_filter(struct consul *consul, const char *path, const char *filter)
{
	const char *encoded = http_encode(consul, filter);

	return encoded ? http_path(consul, "%s?filter=%s", path, encoded) : NULL;
}

static void settle_taken(struct identity_question *question, enum identity identity,
			 const char *name, const char *node_id, const char *address)
{
	struct consul *consul = question->consul;
	char sentence[SENTENCE_MAX];

	if (strcmp(node_id, consul->node_id))
		snprintf(sentence, sizeof sentence,
			 "the name %s is taken by another live node (id %s, at %s); give this one "
			 "another `node` name, or stop the other",
			 name, *node_id ? node_id : "none", address);
	else
		snprintf(sentence, sizeof sentence,
			 "the id of this node, %s, is that of another live node (%s, at %s): the "
			 "state directory of one is a copy of the other's; stop this node and "
			 "remove the file with its id from its state_dir, or stop the other",
			 node_id, name, address);
	settle(question, identity, sentence);
}

static void ask_rival(struct identity_question *question);

static void on_rival(void *context, const struct answer *answer)
{
	struct identity_question *question = context;
	const struct rival *rival = &question->rivals[question->at];
	struct catalog catalog;
	bool says = false, dead = false;

	question->request = NULL;
	if (answer->failure || catalog_read_checks(answer->body, answer->length, &catalog) < 0) {
		settle_unknown(question, answer);
		return;
	}
	for (size_t i = 0; i < catalog.n_checks; i++) {
		says = says || *catalog.checks[i].service_id;
		dead = dead || catalog.checks[i].health == DROVER_HEALTH_CRITICAL;
	}
	catalog_free(&catalog);
	if (says && !dead) {
		settle_taken(question, IDENTITY_TAKEN, rival->name, rival->node_id, rival->address);
		return;
	}
	question->at++;
	ask_rival(question);
}

/* The agent's id is what it says in the gossip; its own endpoint is not for every token. */
static void on_hosts(void *context, const struct answer *answer)
{
	struct identity_question *question = context;
	char id[HOST_ID_MAX], sentence[SENTENCE_MAX];

	question->request = NULL;
	if (answer->failure ||
	    catalog_read_host_id(answer->body, answer->length, question->own_node, id) < 0 ||
	    !strcmp(id, question->host_id)) {
		settle(question, IDENTITY_OURS, "");
		return;
	}
	snprintf(
		sentence, sizeof sentence,
		"Consul's servers have reserved the name of this host, %.64s, for the node id %.36s, "
		"and its agent has the id %.36s: they take nothing from it, and what they show of "
		"this node is old; give the agent its node_id back, or remove the host from the "
		"catalog",
		question->own_node, question->host_id, id);
	settle(question, IDENTITY_STRANGER, sentence);
}

static void ask_hosts(struct identity_question *question)
{
	char filter[512];

	snprintf(filter, sizeof filter, "Name == \"%s\"", question->own_node);
	ask(question, with_filter(question->consul, "/v1/agent/members", filter), REQUEST_MS,
	    on_hosts);
	if (!question->request)
		settle(question, IDENTITY_OURS, "");
}

static void ask_rival(struct identity_question *question)
{
	struct consul *consul = question->consul;
	const struct rival *rival = &question->rivals[question->at];
	const char *node;
	char filter[512], path[512];

	if (question->at == question->n_rivals) {
		if (*question->host_id)
			ask_hosts(question);
		else
			settle(question, IDENTITY_OURS, "");
		return;
	}
	node = http_encode(consul, rival->node);
	snprintf(filter, sizeof filter, "CheckID == \"serfHealth\" or CheckID == \"%s:alive\"",
		 rival->id);
	snprintf(path, sizeof path, "/v1/health/node/%s", node ? node : "");
	ask(question, with_filter(consul, path, filter), SERVER_MS, on_rival);
	if (!question->request)
		settle(question, IDENTITY_UNKNOWN, "out of memory");
}

/* The node's name in a service id; an id that is none of ours is its own name. */
static const char *name_of(const struct consul *consul, const char *id)
{
	size_t length = strlen(consul->cluster);

	return strncmp(id, consul->cluster, length) || id[length] != '-' ? id : id + length + 1;
}

static bool add_rival(struct identity_question *question, const struct instance *instance)
{
	struct rival *rival = &question->rivals[question->n_rivals];

	*rival = (struct rival){
		.node = strdup(instance->node),
		.id = strdup(instance->id),
		.name = strdup(name_of(question->consul, instance->id)),
		.node_id = strdup(instance_meta(instance, "id")),
		.address = strdup(*instance->address ? instance->address : instance->node_address),
	};
	question->n_rivals++;
	return rival->node && rival->id && rival->name && rival->node_id && rival->address;
}

static bool is_own(const struct identity_question *question, const struct instance *instance)
{
	return question->local && question->own_node &&
	       !strcmp(instance->node, question->own_node) &&
	       !strcmp(instance->id, question->consul->service_id);
}

static void settle_unseen(struct identity_question *question)
{
	struct consul *consul = question->consul;
	char sentence[SENTENCE_MAX];

	snprintf(
		sentence, sizeof sentence,
		"the Consul agent at %.200s has this node registered, but Consul's servers do not get "
		"it from there; the agent's log says why (its own token may not, or the name of its "
		"host is reserved for another node id)",
		consul->settings.shown);
	settle(question, IDENTITY_UNSEEN, sentence);
}

static void on_catalog(void *context, const struct answer *answer)
{
	struct identity_question *question = context;
	struct catalog catalog;
	uint64_t created = 0;
	bool complete = true;

	question->request = NULL;
	if (answer->failure || catalog_read_instances(answer->body, answer->length, &catalog) < 0) {
		settle_unknown(question, answer);
		return;
	}
	for (size_t i = 0; i < catalog.n_instances; i++) {
		const struct instance *instance = &catalog.instances[i];

		if (!is_own(question, instance))
			continue;
		created = instance->created;
		if (question->standing != STANDING_NEW && strlen(instance->host_id) < HOST_ID_MAX)
			memcpy(question->host_id, instance->host_id, strlen(instance->host_id) + 1);
	}
	question->rivals = calloc(catalog.n_instances + 1, sizeof *question->rivals);
	complete = question->rivals != NULL;
	for (size_t i = 0; i < catalog.n_instances && complete; i++) {
		const struct instance *instance = &catalog.instances[i];

		/* Of two that registered at the same time, the one that the servers saw first stays. */
		if (is_own(question, instance) ||
		    (question->standing == STANDING_THERE && instance->created > created))
			continue;
		complete = add_rival(question, instance);
	}
	catalog_free(&catalog);
	if (!complete)
		settle(question, IDENTITY_UNKNOWN, "out of memory");
	else if (question->standing != STANDING_NEW && !created)
		settle_unseen(question);
	else
		ask_rival(question);
}

static void ask_catalog(struct identity_question *question)
{
	struct consul *consul = question->consul;
	char filter[512], path[256];

	snprintf(filter, sizeof filter, "ServiceID == \"%s\" or ServiceMeta.id == \"%s\"",
		 consul->service_id, consul->node_id);
	snprintf(path, sizeof path, "/v1/catalog/service/%s", consul->cluster);
	ask(question, with_filter(consul, path, filter), SERVER_MS, on_catalog);
	if (!question->request)
		settle(question, IDENTITY_UNKNOWN, "out of memory");
}

/* The check of the instance that this agent has: whether it lives, and on which host we are. */
static void on_local_check(void *context, const struct answer *answer)
{
	struct identity_question *question = context;
	struct catalog catalog;
	bool alive = false;

	question->request = NULL;
	if (answer->failure || catalog_read_checks(answer->body, answer->length, &catalog) < 0) {
		settle_unknown(question, answer);
		return;
	}
	for (size_t i = 0; i < catalog.n_checks; i++) {
		free(question->own_node);
		question->own_node = strdup(catalog.checks[i].node);
		alive = catalog.checks[i].health != DROVER_HEALTH_CRITICAL;
	}
	catalog_free(&catalog);
	if (alive && strcmp(question->local_id, question->consul->node_id))
		settle_taken(question, IDENTITY_TAKEN_HERE, question->consul->node,
			     question->local_id, "this host");
	else
		ask_catalog(question);
}

static void on_local(void *context, const struct answer *answer)
{
	struct identity_question *question = context;
	struct consul *consul = question->consul;
	struct catalog catalog = {0};
	char filter[512];

	question->request = NULL;
	if (answer->failure == FAILURE_MISSING) {
		ask_catalog(question);
		return;
	}
	if (answer->failure || catalog_read_instance(answer->body, answer->length, &catalog) < 0) {
		settle_unknown(question, answer);
		return;
	}
	question->local = catalog.n_instances > 0;
	if (question->local)
		snprintf(question->local_id, sizeof question->local_id, "%s",
			 instance_meta(catalog.instances, "id"));
	catalog_free(&catalog);
	snprintf(filter, sizeof filter, "CheckID == \"%s:alive\"", consul->service_id);
	ask(question, with_filter(consul, "/v1/agent/checks", filter), REQUEST_MS, on_local_check);
	if (!question->request)
		settle(question, IDENTITY_UNKNOWN, "out of memory");
}

int identity_ask(struct consul *consul, enum standing standing,
		 void (*done)(struct consul *consul, enum identity identity, const char *sentence),
		 struct identity_question **ret_question)
{
	struct identity_question *question = calloc(1, sizeof *question);
	const char *id = http_encode(consul, consul->service_id);
	const char *path = id ? http_path(consul, "/v1/agent/service/%s", id) : NULL;

	if (!question)
		return -ENOMEM;
	question->consul = consul;
	question->standing = standing;
	question->done = done;
	ask(question, path, REQUEST_MS, on_local);
	if (!question->request) {
		identity_cancel(question);
		return -ENOMEM;
	}
	*ret_question = question;
	return 0;
}
