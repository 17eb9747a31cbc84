/* SPDX-License-Identifier: MIT */
/*
 * Some nodes of a cluster in one process: stand-ins for what survey, planning and standing ask of the
 * rest of droverd, and a registry of one value between them.
 */
#include "cluster_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/banned.h"

#define ROUND_MS 250

struct rig_node rig_nodes[RIG_NODES];
struct override rig_order;
const char *rig_ordered;
int64_t rig_now_ms;
int rig_writes, rig_fail;
char *rig_value;
bool rig_everywhere;

static size_t n_nodes, leader;
static uint64_t version;
static struct {
	struct supervisor *by;
	registry_written *done;
	void *context;
	char *data, expected[DROVER_REGISTRY_VERSION_MAX];
	bool fenced;
} asked;

static struct rig_node *node_of(const struct supervisor *supervisor)
{
	for (size_t i = 0; i < n_nodes; i++)
		if (&rig_nodes[i].supervisor == supervisor)
			return &rig_nodes[i];
	fail_msg("whose supervisor is that?");
	abort(); /* the compiler does not know that no test goes on after that */
}

/* Stand-ins. */

void decide_soon(struct supervisor *supervisor)
{
	(void)supervisor;
}

bool budget_covers(const struct config_budget *budget, const char *type)
{
	for (char **name = budget->types; *name; name++)
		if (!strcmp(*name, type))
			return true;
	return false;
}

void message_add_hosts(struct message *message, const struct supervisor *supervisor,
		       const struct config_plugin *broker, const char *key)
{
	(void)message;
	(void)supervisor;
	(void)broker;
	(void)key;
}

bool cluster_covers(const struct type *type)
{
	(void)type;
	return true;
}

void cluster_wake(struct supervisor *supervisor, int64_t due_ms)
{
	struct rig_node *node = node_of(supervisor);

	if (due_ms >= 0 && due_ms < node->wake_ms)
		node->wake_ms = due_ms;
}

struct peer *peer_find(const struct supervisor *supervisor, const char *id)
{
	(void)supervisor;
	(void)id;
	return NULL;
}

const struct override *orders_find(const struct supervisor *supervisor, const char *type)
{
	static const struct override nothing = {.min = -1, .max = -1};

	(void)supervisor;
	return rig_ordered && !strcmp(rig_ordered, type) ? &rig_order : &nothing;
}

const struct override *orders_of(const struct type *type)
{
	return orders_find(type->supervisor, type->name);
}

bool orders_drain(const struct supervisor *supervisor)
{
	(void)supervisor;
	return rig_everywhere;
}

struct broker *broker_find(struct supervisor *supervisor, const char *name)
{
	struct rig_node *node = node_of(supervisor);

	return !strcmp(node->plugin.name, name) ? &node->broker : NULL;
}

struct type *type_find(struct supervisor *supervisor, const char *name)
{
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (!strcmp(supervisor->types[i]->name, name))
			return supervisor->types[i];
	return NULL;
}

struct type *type_of_queue(struct supervisor *supervisor, struct broker *broker, const char *queue)
{
	(void)broker;
	return type_find(supervisor, queue);
}

int child_send(struct child *child, const struct message *message)
{
	struct rig_node *node = child->context;
	struct message_view view;
	size_t used = strlen(node->said);

	assert_int_equal(message_read(buf_front(&message->buf), buf_size(&message->buf), &view), 0);
	snprintf(node->said + used, sizeof node->said - used, "%s %s %s;",
		 message_is(&view, "queue") ? "queue" : "forget", message_text(&view, "queue", "?"),
		 message_text(&view, "declare", ""));
	return 0;
}

int state_read(const struct supervisor *supervisor, const char *name, size_t max, char **ret_text,
	       size_t *ret_size)
{
	const struct rig_node *node = node_of(supervisor);

	assert_string_equal(name, "plan");
	if (!node->kept)
		return -ENOENT;
	assert_true(strlen(node->kept) <= max);
	*ret_text = strdup(node->kept);
	*ret_size = strlen(node->kept);
	return 0;
}

int state_write(const struct supervisor *supervisor, const char *name, const void *data,
		size_t size)
{
	struct rig_node *node = node_of(supervisor);

	assert_string_equal(name, "plan");
	free(node->kept);
	node->kept = strndup(data, size);
	return 0;
}

int registry_put(struct supervisor *supervisor, const char *key, const void *data, size_t size,
		 const char *expected, bool fenced, registry_written *done, void *context)
{
	assert_string_equal(key, "plan");
	assert_null(asked.by); /* one at a time */
	asked.by = supervisor;
	asked.done = done;
	asked.context = context;
	asked.fenced = fenced;
	asked.data = strndup(data, size);
	snprintf(asked.expected, sizeof asked.expected, "%s", expected);
	return 0;
}

/* The registry. */

static const char *version_text(char text[DROVER_REGISTRY_VERSION_MAX])
{
	text[0] = '\0';
	if (rig_value)
		snprintf(text, DROVER_REGISTRY_VERSION_MAX, "%llu", (unsigned long long)version);
	return text;
}

static void tell(struct rig_node *node)
{
	struct registry_value value = {.data = rig_value,
				       .size = rig_value ? strlen(rig_value) : 0};

	if (node->cut_off)
		return;
	version_text(value.version);
	planning_values(&node->supervisor, &value, rig_value ? 1 : 0);
}

static void answer(void)
{
	struct supervisor *by = asked.by;
	char now[DROVER_REGISTRY_VERSION_MAX];
	int error = rig_fail;

	if (!by)
		return;
	assert_true(asked.fenced);
	if (!error && node_of(by)->cut_off)
		error = -EHOSTDOWN;
	if (!error && by != &rig_nodes[leader].supervisor)
		error = -EPERM;
	if (!error && strcmp(asked.expected, version_text(now)) != 0)
		error = -ESTALE;
	if (!error) {
		free(rig_value);
		rig_value = strdup(asked.data);
		version++;
		rig_writes++;
	}
	asked.by = NULL;
	free(asked.data);
	asked.done(asked.context, error, error ? "" : version_text(now), error ? "no" : "");
	if (!error)
		for (size_t i = 0; i < n_nodes; i++)
			tell(&rig_nodes[i]);
}

/* The nodes. */

static void begin_node(size_t i)
{
	static char names[RIG_NODES][32];
	struct rig_node *node = &rig_nodes[i];
	struct supervisor *supervisor = &node->supervisor;

	*node = (struct rig_node){.wake_ms = INT64_MAX};
	snprintf(names[i], sizeof names[i], "web%zu", i + 1);
	node->plugin = (struct config_plugin){.name = (char *)(uintptr_t) "main"};
	node->config = (struct config){.node = names[i],
				       .weight = 1,
				       .state_dir = (char *)(uintptr_t) "/nowhere",
				       .brokers = &node->plugin,
				       .n_brokers = 1};
	node->broker = (struct broker){.supervisor = supervisor,
				       .config = &node->plugin,
				       .gauge = &node->gauge,
				       .state = DROVER_BROKER_UP,
				       .scope = DROVER_SCOPE_CLUSTER};
	node->gauge = (struct child){.context = node, .pid = (pid_t)(100 + i)};
	node->cluster = (struct cluster){.clustered = true,
					 .standing = STANDING_FOLLOWS,
					 .state = DROVER_REGISTRY_UP};
	supervisor->config = &node->config;
	supervisor->cluster = &node->cluster;
	supervisor->brokers = &node->broker;
	supervisor->types = node->sorted;
	snprintf(supervisor->node_id, sizeof supervisor->node_id, "%032zu", i + 1);
	planning_open(supervisor);
	tell(node);
}

void rig_begin(size_t n)
{
	n_nodes = n;
	leader = SIZE_MAX;
	rig_now_ms = 1000000;
	rig_writes = rig_fail = 0;
	rig_ordered = NULL;
	rig_everywhere = false;
	version = 0;
	for (size_t i = 0; i < n; i++)
		begin_node(i);
}

static void free_peers(struct cluster *cluster)
{
	for (size_t i = 0; i < cluster->n_peers; i++) {
		offer_free(cluster->peers[i]->offer);
		free(cluster->peers[i]->offer);
		load_free(cluster->peers[i]->load);
		free(cluster->peers[i]->load);
		free(cluster->peers[i]);
	}
	free(cluster->peers);
	cluster->peers = NULL;
	cluster->n_peers = 0;
}

void rig_end(void)
{
	if (asked.by) {
		asked.by = NULL;
		free(asked.data);
	}
	for (size_t i = 0; i < n_nodes; i++) {
		survey_end(&rig_nodes[i].supervisor);
		planning_close(&rig_nodes[i].supervisor);
		free_peers(&rig_nodes[i].cluster);
		free(rig_nodes[i].kept);
	}
	free(rig_value);
	rig_value = NULL;
}

struct type *rig_type(size_t i, const char *name, int max)
{
	struct rig_node *node = &rig_nodes[i];
	size_t at = node->supervisor.n_types++;
	struct type *type = &node->types[at];

	assert_true(at < RIG_TYPES);
	node->configs[at] = (struct config_type){.name = (char *)(uintptr_t)name,
						 .broker = node->plugin.name,
						 .objective_ms = 5000,
						 .max = max};
	*type = (struct type){.name = (char *)(uintptr_t)name,
			      .supervisor = &node->supervisor,
			      .config = &node->configs[at],
			      .broker = &node->broker,
			      .report = {.handling_us = 100000, .idle_low = -1}};
	node->sorted[at] = type;
	return type;
}

struct type *rig_find(size_t i, const char *name)
{
	struct type *type = type_find(&rig_nodes[i].supervisor, name);

	if (!type)
		abort(); /* a test's own error */
	return type;
}

static struct offer *make_offer(struct rig_node *node)
{
	struct offer_policy policies[RIG_TYPES];
	struct offer_type types[RIG_TYPES];
	struct offer offer = {.plan_format_min = PLAN_FORMAT_MIN,
			      .plan_format_max = node->reads ? node->reads : PLAN_FORMAT,
			      .node = node->config.node,
			      .epoch = node->cluster.epoch_seen,
			      .policies = policies,
			      .types = types};
	struct offer *made = calloc(1, sizeof *made);
	struct buf text = {0};

	for (size_t i = 0; i < node->supervisor.n_types; i++) {
		const struct config_type *config = &node->configs[i];

		policies[offer.n_policies++] =
			(struct offer_policy){.broker = config->broker,
					      .queue = config->queue,
					      .min = config->min,
					      .max = config->max,
					      .node_max = config->node_max,
					      .objective_ms = config->objective_ms,
					      .exclusive = config->exclusive};
		types[offer.n_types++] =
			(struct offer_type){node->types[i].name, i, node->serves[i]};
	}
	assert_true(offer_encode(&offer, &text));
	assert_int_equal(offer_decode(buf_front(&text), buf_size(&text), made, NULL), 0);
	buf_free(&text);
	return made;
}

static struct load *copy_load(const struct load *load)
{
	struct load *copy = calloc(1, sizeof *copy);
	struct buf text = {0};

	assert_true(load_encode(load, &text));
	assert_int_equal(load_decode(buf_front(&text), buf_size(&text), copy, NULL), 0);
	buf_free(&text);
	return copy;
}

void rig_peers(void)
{
	struct cluster *cluster = &rig_nodes[leader].cluster;
	bool left[RIG_NODES] = {false};

	for (size_t i = 0; i < cluster->n_peers; i++)
		left[i] = !cluster->peers[i]->settle.member;
	free_peers(cluster);
	cluster->peers = calloc(n_nodes, sizeof(struct peer *));
	for (size_t i = 0; i < n_nodes; i++) {
		struct rig_node *node = &rig_nodes[i];
		struct peer *peer = calloc(1, sizeof *peer);

		snprintf(peer->id, sizeof peer->id, "%s", node->supervisor.node_id);
		snprintf(peer->node, sizeof peer->node, "%s", node->config.node);
		peer->weight = (unsigned)node->config.weight;
		peer->listed = peer->alive = peer->settle.member = !left[i];
		peer->self = i == leader;
		peer->offer = make_offer(node);
		peer->load = copy_load(&node->load);
		peer->offered_ms = peer->loaded_ms = rig_now_ms;
		if (peer->offer->epoch > cluster->epoch_seen)
			cluster->epoch_seen = peer->offer->epoch;
		cluster->peers[cluster->n_peers++] = peer;
	}
	cluster->members_known = cluster->offers_known = cluster->loads_known = true;
}

void rig_lead(size_t i)
{
	if (leader < n_nodes) {
		struct cluster *before = &rig_nodes[leader].cluster;

		before->standing = STANDING_FOLLOWS;
		before->leading = false;
		survey_end(&rig_nodes[leader].supervisor);
		free_peers(before);
	}
	leader = i;
	rig_nodes[i].cluster.standing = STANDING_LEADS;
	rig_nodes[i].cluster.leading = true;
	for (size_t j = 0; j < n_nodes; j++) {
		snprintf(rig_nodes[j].cluster.leader, sizeof rig_nodes[j].cluster.leader, "%s",
			 rig_nodes[i].config.node);
		snprintf(rig_nodes[j].cluster.leader_id, sizeof rig_nodes[j].cluster.leader_id,
			 "%s", rig_nodes[i].supervisor.node_id);
	}
	rig_peers();
}

void rig_leave(size_t i)
{
	struct peer *peer = rig_nodes[leader].cluster.peers[i];

	peer->settle.member = peer->alive = peer->listed = false;
}

void rig_see(const char *name, int64_t ready)
{
	struct type *type = rig_find(leader, name);

	type->depth = (struct drover_depth){.size = sizeof type->depth, .ready = ready};
	type->depth_known = ready >= 0;
}

void rig_run(int64_t for_ms)
{
	for (int64_t end_ms = rig_now_ms + for_ms; rig_now_ms < end_ms; rig_now_ms += ROUND_MS) {
		for (size_t i = 0; i < n_nodes; i++) {
			rig_nodes[i].wake_ms = INT64_MAX;
			survey_round(&rig_nodes[i].supervisor, rig_now_ms);
			planning_round(&rig_nodes[i].supervisor, rig_now_ms);
			answer();
		}
		for (size_t i = 0; i < n_nodes; i++)
			standing_refresh(&rig_nodes[i].supervisor);
	}
}

int rig_share(size_t i, const char *name)
{
	struct share share = share_of(rig_find(i, name), rig_now_ms);

	return share.known ? share.workers : -1;
}

int rig_total(const char *name)
{
	const struct subject *subject = survey_find(&rig_nodes[leader].supervisor, name);

	return subject ? subject->total : -1;
}
