/* SPDX-License-Identifier: MIT */
/*
 * The cluster as people see it: the nodes, what the plan gives each type and each node, what bound
 * it, and what nobody can serve. Only reads what peers.c, survey.c, planning.c and orders.c know; a
 * node that does not lead asks for its peers first and waits a moment. Called by commands.c and
 * rows.c.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sorted.h"
#include "base/units.h"
#include "policy/limits.h"
#include "roles/droverd/commands.h"
#include "system/timer.h"

#include "base/banned.h"

#define LOOK_MS     60000 /* so long the peers are kept up to date after somebody looked */
#define PATIENCE_MS 2000  /* for what the registry tells of them */
#define POLL_MS     50
#define SHARES_MAX  64 /* nodes whose shares are shown one by one */

/* Who leads, and what that means for this node. */

static size_t count_nodes(const struct cluster *cluster)
{
	size_t n = 0;

	/* The leader's own knowledge is newer than its plan. */
	if (!cluster->leading || !cluster->members_known)
		return cluster->plan.n_nodes;
	for (size_t i = 0; i < cluster->n_peers; i++)
		n += cluster->peers[i]->settle.member;
	return n;
}

static int64_t unled_ms(const struct cluster *cluster)
{
	return cluster->unled_ms ? clock_now_ms() - cluster->unled_ms : -1;
}

static const char *name_standing(enum standing standing)
{
	static const char *const names[] = {
		[STANDING_ALONE] = "alone",           [STANDING_WAITING] = "waiting",
		[STANDING_FOLLOWS] = "follows",       [STANDING_LEADS] = "leads",
		[STANDING_AUTONOMOUS] = "autonomous",
	};

	return names[standing];
}

static const char *describe(const struct cluster *cluster, char *text, size_t size)
{
	bool planned = cluster->plan.epoch > 0;
	size_t n = count_nodes(cluster);
	char since[UNITS_TEXT_MAX];

	units_human_duration(unled_ms(cluster) / 1000 * 1000, since, sizeof since);
	switch (cluster->standing) {
	case STANDING_ALONE:
		snprintf(text, size, "this node is in no cluster");
		break;
	case STANDING_LEADS:
		snprintf(text, size, "this node leads, %zu node%s", n, n == 1 ? "" : "s");
		break;
	case STANDING_FOLLOWS:
		if (planned)
			snprintf(text, size, "leader %s, %zu node%s", cluster->leader, n,
				 n == 1 ? "" : "s");
		else
			snprintf(text, size, "leader %s, which has not planned yet",
				 cluster->leader);
		break;
	case STANDING_WAITING:
		if (cluster->state == DROVER_REGISTRY_REFUSED)
			snprintf(text, size, "the registry refuses this node; %s",
				 cluster->plan_ms ? "the last plan stands"
						  : "it takes nothing of the cluster's work");
		else
			snprintf(text, size, "nobody leads for %s; %s", since,
				 planned ? "the last plan stands"
					 : "there is no plan yet, workers stay as they are");
		break;
	case STANDING_AUTONOMOUS:
		if (cluster->unled_ms)
			snprintf(text, size,
				 "nobody leads for %s; this node sizes its workers by itself until "
				 "a new plan comes",
				 since);
		else
			snprintf(text, size,
				 "this node sizes its workers by itself until %s has planned",
				 cluster->leading ? "it" : cluster->leader);
		break;
	}
	return text;
}

void view_row_plan(const struct request *request)
{
	const struct cluster *cluster = request->supervisor->cluster;
	struct message row = {0};
	char text[256];

	if (!cluster || !cluster->clustered)
		return;
	request_row_start(&row, request, "plan");
	message_add_text(&row, "standing", name_standing(cluster->standing));
	message_add_text(&row, "sentence", describe(cluster, text, sizeof text));
	row_add_text(&row, "leader", cluster->leader);
	row_add_text(&row, "leader_id", cluster->leader_id);
	row_add_count(&row, "unled_ms", unled_ms(cluster));
	message_add_int(&row, "nodes", (int64_t)count_nodes(cluster));
	message_add_int(&row, "epoch", (int64_t)cluster->plan.epoch);
	message_add_int(&row, "seq", (int64_t)cluster->plan.seq);
	row_add_text(&row, "by", cluster->plan.leader);
	row_add_count(&row, "age_ms", cluster->plan_ms ? clock_now_ms() - cluster->plan_ms : -1);
	message_add_int(&row, "types", (int64_t)cluster->plan.n_types);
	message_add_flag(&row, "drained", orders_drain(request->supervisor));
	if (orders_drain(request->supervisor)) {
		row_add_text(&row, "drained_author",
			     orders_drained_by(request->supervisor)->author);
		row_add_text(&row, "drained_note", orders_drained_by(request->supervisor)->note);
	}
	request_row(request, &row);
}

/* This node's part of a type. */

/* The name of a node; of one that is not known just now the beginning of its id. */
static const char *name_node(const struct supervisor *supervisor, const char *id, char *text,
			     size_t size)
{
	const struct peer *peer = peer_find(supervisor, id);

	if (!strcmp(id, supervisor->node_id))
		return supervisor->config->node;
	if (peer && *peer->node)
		return peer->node;
	if (!strcmp(id, supervisor->cluster->leader_id))
		return supervisor->cluster->leader;
	snprintf(text, size, "%.8s…", id);
	return text;
}

static void add_subject(struct message *row, const struct subject *subject)
{
	char text[128];

	row_add_count(row, "cluster.demand", subject->wanted.known ? subject->wanted.workers : -1);
	row_add_count(row, "cluster.waiting", subject->wanted.known ? subject->wanted.ready : -1);
	message_add_text(row, "cluster.rule", limits_rule_name(subject->rule));
	row_add_text(row, "cluster.bound",
		     limits_rule_text(subject->rule, subject->rule_value, subject->budget, text,
				      sizeof text));
	row_add_text(row, "cluster.differs", subject->differs);
}

void view_add_share(struct message *row, const struct type *type)
{
	const struct supervisor *supervisor = type->supervisor;
	const struct subject *subject;
	struct share share;
	char text[512];

	if (!supervisor->cluster || !supervisor->cluster->clustered)
		return;
	row_add_override(row, "order", orders_of(type));
	if (!cluster_covers(type)) {
		message_add_unknown(row, "cluster");
		return;
	}
	share = share_of(type, clock_now_ms());
	subject = survey_find(supervisor, type->name);
	row_add_count(row, "cluster.share", share.known ? share.workers : -1);
	row_add_count(row, "cluster.total", share.known ? share.total : -1);
	row_add_count(row, "cluster.nodes", share.known ? share.nodes : -1);
	message_add_flag(row, "cluster.own", share.own);
	message_add_text(row, "cluster.sentence", standing_tell(type, text, sizeof text));
	if (subject)
		add_subject(row, subject);
}

/* The nodes. */

static const char *state_of(const struct cluster *cluster, const struct peer *peer)
{
	if (!peer->listed)
		return "gone";
	if (peer->leaving)
		return "leaving";
	if (peer->alive)
		return "alive";
	return cluster->leading && peer->settle.member ? "settling" : "silent";
}

static void add_own_workers(struct message *row, const struct supervisor *supervisor)
{
	int workers = 0, busy = 0;

	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct report *report = &supervisor->types[i]->report;

		workers += report->ready + report->starting;
		busy += report->busy;
	}
	message_add_int(row, "workers", workers);
	message_add_int(row, "busy", busy);
	message_add_int(row, "age_ms", 0);
}

static void add_offered(struct message *row, const struct offer *offer)
{
	int64_t serves = 0;

	for (size_t i = 0; offer && i < offer->n_types; i++)
		serves += offer->types[i].serves == OFFER_SERVES;
	row_add_count(row, "types", offer ? (int64_t)offer->n_types : -1);
	row_add_count(row, "serves", offer ? serves : -1);
}

static void row_peer(const struct request *request, const struct peer *peer)
{
	const struct supervisor *supervisor = request->supervisor;
	const struct cluster *cluster = supervisor->cluster;
	bool self = !strcmp(peer->id, supervisor->node_id);
	struct message row = {0};

	request_row_start(&row, request, "member");
	row_add_text(&row, "node", peer->node);
	message_add_text(&row, "node_id", peer->id);
	message_add_text(&row, "state", state_of(cluster, peer));
	message_add_flag(&row, "leads",
			 *cluster->leader_id && !strcmp(peer->id, cluster->leader_id));
	message_add_flag(&row, "self", self);
	message_add_int(&row, "weight", peer->weight);
	row_add_text(&row, "version", peer->version);
	row_add_text(&row, "address", peer->address);
	row_add_time(&row, "started", peer->started_ms);
	if (self) {
		add_own_workers(&row, supervisor);
		message_add_flag(&row, "drained", cluster_drained(supervisor));
	} else {
		if (peer->load && peer->load->drained_known)
			message_add_flag(&row, "drained", peer->load->drained);
		else
			message_add_unknown(&row, "drained");
		row_add_count(&row, "workers", peer->load ? peer->load->workers : -1);
		row_add_count(&row, "busy", peer->load ? peer->load->busy : -1);
		row_add_count(&row, "age_ms", peer->load ? clock_now_ms() - peer->loaded_ms : -1);
	}
	add_offered(&row, peer->offer);
	request_row(request, &row);
}

/* A node that the plan counts on and that nothing else is known of. */
static void row_planned(const struct request *request, const struct plan_node *node)
{
	struct message row = {0};

	request_row_start(&row, request, "member");
	message_add_unknown(&row, "node");
	message_add_text(&row, "node_id", node->id);
	message_add_text(&row, "state", "unknown");
	message_add_flag(&row, "leads", !strcmp(node->id, request->supervisor->cluster->leader_id));
	message_add_flag(&row, "self", !strcmp(node->id, request->supervisor->node_id));
	message_add_int(&row, "weight", node->member.weight);
	request_row(request, &row);
}

static void rows_of_nodes(const struct request *request)
{
	const struct supervisor *supervisor = request->supervisor;
	const struct cluster *cluster = supervisor->cluster;

	for (size_t i = 0; i < cluster->n_peers; i++)
		row_peer(request, cluster->peers[i]);
	for (size_t i = 0; i < cluster->plan.n_nodes; i++)
		if (!peer_find(supervisor, cluster->plan.nodes[i].id))
			row_planned(request, &cluster->plan.nodes[i]);
}

/* The types, of all nodes: a union of sorted lists, walked by name. */

static void take_nearer(const char **nearest, const char *name)
{
	if (name && (!*nearest || strcmp(name, *nearest) < 0))
		*nearest = name;
}

static const char *name_of_offered(const void *entry)
{
	return ((const struct offer_type *)entry)->name;
}

static const char *offered_after(const struct offer *offer, const char *after)
{
	const struct sorted types = {offer->types, offer->n_types, sizeof *offer->types,
				     name_of_offered};
	size_t at = sorted_after(&types, after);

	return at < offer->n_types ? offer->types[at].name : NULL;
}

static const char *name_of_planned(const void *entry)
{
	return ((const struct plan_type *)entry)->name;
}

static const char *planned_after(const struct plan *plan, const char *after)
{
	const struct sorted types = {plan->types, plan->n_types, sizeof *plan->types,
				     name_of_planned};
	size_t at = sorted_after(&types, after);

	return at < plan->n_types ? plan->types[at].name : NULL;
}

static const char *own_after(const struct supervisor *supervisor, const char *after)
{
	const struct type *type = type_after(supervisor, after);

	while (type && !cluster_covers(type))
		type = type_after(supervisor, type->name);
	return type ? type->name : NULL;
}

static const char *name_after(const struct supervisor *supervisor, const char *after)
{
	const struct cluster *cluster = supervisor->cluster;
	const struct subject *subject = survey_next(supervisor, after);
	const char *nearest = subject ? subject->name : NULL;

	for (size_t i = 0; i < cluster->n_peers; i++)
		if (cluster->peers[i]->offer)
			take_nearer(&nearest, offered_after(cluster->peers[i]->offer, after));
	take_nearer(&nearest, planned_after(&cluster->plan, after));
	take_nearer(&nearest, own_after(supervisor, after));
	take_nearer(&nearest, orders_next(supervisor, after));
	return nearest;
}

static void add_shares(struct message *row, const struct supervisor *supervisor,
		       const struct plan_type *type)
{
	const struct plan *plan = &supervisor->cluster->plan;
	size_t n = type ? plan_eligible(plan, type) : 0;
	char text[32];

	for (size_t i = 0; n && n <= SHARES_MAX && i < plan->n_nodes; i++) {
		int share = plan_share(plan, type, plan->nodes[i].id);

		if (!share)
			continue;
		message_add_text(row, "on[]",
				 name_node(supervisor, plan->nodes[i].id, text, sizeof text));
		message_add_int(row, "shares[]", share);
	}
}

/* What the nodes say of a type. */
struct serving {
	size_t n[OFFER_SERVES_MAX];
	const char *node[OFFER_SERVES_MAX]; /* one that said so */
	int workers, busy;
	bool loaded;
	const char *broker;
};

static struct serving serving_of(const struct supervisor *supervisor, const char *name)
{
	const struct cluster *cluster = supervisor->cluster;
	struct serving serving = {0};

	for (size_t i = 0; i < cluster->n_peers; i++) {
		const struct peer *peer = cluster->peers[i];
		const struct offer_type *offered =
			peer->offer ? offer_find(peer->offer, name) : NULL;
		const struct load_type *load = peer->load ? load_find(peer->load, name) : NULL;

		if (load) {
			serving.workers += load->workers;
			serving.busy += load->busy;
		}
		serving.loaded |= peer->load != NULL;
		if (!offered || !peer->listed)
			continue;
		serving.broker = peer->offer->policies[offered->policy].broker;
		serving.n[offered->serves]++;
		serving.node[offered->serves] = peer->node;
	}
	return serving;
}

/* Why no node serves it: "no handler on web1, paused on 2 nodes"; "" when some node does. */
static void describe_unserved(const struct serving *serving, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	if (serving->n[OFFER_SERVES] || serving->n[OFFER_PROBING])
		return;
	for (size_t i = 0; i < OFFER_SERVES_MAX && used < size; i++) {
		const char *name = offer_serves_name((enum offer_serves)i);

		if (!serving->n[i])
			continue;
		if (serving->n[i] == 1)
			used += (size_t)snprintf(text + used, size - used, "%s%s on %.64s",
						 used ? ", " : "", name, serving->node[i]);
		else
			used += (size_t)snprintf(text + used, size - used, "%s%s on %zu nodes",
						 used ? ", " : "", name, serving->n[i]);
	}
}

/* Nodes that it would be shared out over; -1: none says anything about it. */
static int64_t count_serving(const struct serving *serving)
{
	size_t said = 0;

	for (size_t i = 0; i < OFFER_SERVES_MAX; i++)
		said += serving->n[i];
	if (!said)
		return -1;
	return (int64_t)(serving->n[OFFER_SERVES] ? serving->n[OFFER_SERVES]
						  : serving->n[OFFER_PROBING]);
}

static void row_subject(const struct request *request, const char *name)
{
	const struct supervisor *supervisor = request->supervisor;
	const struct cluster *cluster = supervisor->cluster;
	const struct plan_type *planned = plan_find(&cluster->plan, name);
	const struct subject *subject = survey_find(supervisor, name);
	struct serving serving = serving_of(supervisor, name);
	struct message row = {0};
	char text[256];

	request_row_start(&row, request, "subject");
	message_add_text(&row, "type", name);
	row_add_text(&row, "broker", serving.broker);
	message_add_int(&row, "total", planned ? planned->total : 0);
	row_add_count(&row, "eligible",
		      planned ? (int64_t)plan_eligible(&cluster->plan, planned)
			      : count_serving(&serving));
	add_shares(&row, supervisor, planned);
	row_add_count(&row, "workers", serving.loaded ? serving.workers : -1);
	row_add_count(&row, "busy", serving.loaded ? serving.busy : -1);
	row_add_count(&row, "waiting",
		      subject && subject->wanted.known ? subject->wanted.ready : -1);
	row_add_count(&row, "demand",
		      subject && subject->wanted.known ? subject->wanted.workers : -1);
	row_add_text(&row, "rule", subject ? limits_rule_name(subject->rule) : NULL);
	row_add_text(&row, "bound",
		     subject ? limits_rule_text(subject->rule, subject->rule_value, subject->budget,
						text, sizeof text)
			     : NULL);
	row_add_text(&row, "differs", subject ? subject->differs : NULL);
	message_add_flag(&row, "unseen", subject && subject->unseen);
	describe_unserved(&serving, text, sizeof text);
	row_add_text(&row, "unserved", text);
	row_add_override(&row, "order", orders_find(supervisor, name));
	request_row(request, &row);
}

static int helping(struct request *request)
{
	for (int i = 0; i < REQUEST_HELPING; i++) {
		const char *name = name_after(request->supervisor, request->after);

		/* A name that does not fit would be met again for ever; no type has one. */
		if (!name || strlen(name) >= sizeof request->after)
			return 0;
		snprintf(request->after, sizeof request->after, "%s", name);
		row_subject(request, name);
	}
	request_more(request);
	return 1;
}

/* Waiting for what the registry tells. */

static bool is_known(const struct cluster *cluster)
{
	return cluster->members_known && cluster->offers_known && cluster->loads_known;
}

/* As a request_function. */
static int show(struct request *request)
{
	rows_node(request);
	rows_registry(request);
	view_row_plan(request);
	rows_of_nodes(request);
	if (*request->type) {
		row_subject(request, request->type);
		return 0;
	}
	request->walk = helping;
	return helping(request);
}

static int on_poll(sd_event_source *source, uint64_t usec, void *context)
{
	struct request *request = context;
	const struct cluster *cluster = request->supervisor->cluster;

	(void)usec;
	if (!is_known(cluster) && cluster->state == DROVER_REGISTRY_UP &&
	    clock_now_ms() < request->until_ms) {
		timer_start(source, POLL_MS);
		return 0;
	}
	if (show(request) == 0)
		request_end(request, 0, "");
	return 0;
}

static bool is_type_known(const struct supervisor *supervisor, const char *name)
{
	const struct cluster *cluster = supervisor->cluster;

	for (size_t i = 0; i < cluster->n_peers; i++)
		if (cluster->peers[i]->offer && offer_find(cluster->peers[i]->offer, name))
			return true;
	return plan_find(&cluster->plan, name) || orders_find(supervisor, name)->scaled ||
	       orders_find(supervisor, name)->paused;
}

int view_cluster(struct request *request, const struct message_view *ask, struct why *why)
{
	struct supervisor *supervisor = request->supervisor;
	const struct cluster *cluster = supervisor->cluster;
	const char *name = message_text(ask, "arg.type", "");
	int r;

	if (!cluster || !cluster->clustered)
		return why_set(why, -EINVAL,
			       "this node is in no cluster (registry = \"%s\"); status without "
			       "--cluster shows the node",
			       supervisor->config->registry.plugin);
	if (*name && !is_type_known(supervisor, name) && !request_type(request, ask, why))
		return -ENOENT;
	peers_want(supervisor, LOOK_MS);
	if (is_known(cluster) || cluster->state != DROVER_REGISTRY_UP)
		return show(request);
	request->until_ms = clock_now_ms() + PATIENCE_MS;
	r = sd_event_add_time_relative(supervisor->event, &request->deadline, CLOCK_MONOTONIC,
				       POLL_MS * UINT64_C(1000), 0, on_poll, request);
	return r < 0 ? why_set(why, r, "event loop: %s", strerror(-r)) : 1;
}
