/* SPDX-License-Identifier: MIT */
/*
 * The other nodes of the cluster: members of the registry, with what they offer and what they have
 * to do. Decides when the registrar is asked for them, which of them count (policy/settle), and
 * when what a node left behind in the registry is removed; nothing about workers. Called by
 * registry.c with what is heard, by cluster.c each round.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sorted.h"

#include "base/banned.h"

#define LEFT_MS (60 * 60 * 1000) /* what a node left is removed when it is gone for so long */
#define TIDY_MS (60 * 1000)      /* how often that is looked for */

static void free_offer(struct peer *peer)
{
	if (peer->offer)
		offer_free(peer->offer);
	free(peer->offer);
	peer->offer = NULL;
	peer->offer_version[0] = '\0';
}

static void free_load(struct peer *peer)
{
	if (peer->load)
		load_free(peer->load);
	free(peer->load);
	peer->load = NULL;
	peer->load_version[0] = '\0';
}

static void free_peer(struct peer *peer)
{
	free_offer(peer);
	free_load(peer);
	free(peer);
}

static const char *id_of(const void *entry)
{
	return (*(struct peer *const *)entry)->id;
}

/* Whether it is there; its place, or where it would be. */
static bool find(const struct cluster *cluster, const char *id, size_t *ret_at)
{
	const struct sorted peers = {cluster->peers, cluster->n_peers, sizeof *cluster->peers,
				     id_of};

	return sorted_find(&peers, id, ret_at);
}

struct peer *peer_find(const struct supervisor *supervisor, const char *id)
{
	const struct cluster *cluster = supervisor->cluster;
	size_t at;

	return find(cluster, id, &at) ? cluster->peers[at] : NULL;
}

static bool is_id(const char *id)
{
	size_t length = strlen(id);

	return length && length < sizeof((struct peer){0}.id);
}

/* Finds or makes it; NULL: it cannot be one, or there is no memory. */
static struct peer *take_peer(struct cluster *cluster, const char *id)
{
	struct peer *peer, **peers;
	size_t at;

	if (find(cluster, id, &at))
		return cluster->peers[at];
	if (!is_id(id))
		return NULL;
	peers = realloc(cluster->peers, (cluster->n_peers + 1) * sizeof(struct peer *));
	if (!peers)
		return NULL;
	cluster->peers = peers;
	peer = calloc(1, sizeof *peer);
	if (!peer)
		return NULL;
	snprintf(peer->id, sizeof peer->id, "%s", id);
	memmove(peers + at + 1, peers + at, (cluster->n_peers - at) * sizeof *peers);
	peers[at] = peer;
	cluster->n_peers++;
	return peer;
}

static void drop_peer(struct cluster *cluster, size_t at)
{
	free_peer(cluster->peers[at]);
	cluster->n_peers--;
	memmove(cluster->peers + at, cluster->peers + at + 1,
		(cluster->n_peers - at) * sizeof(struct peer *));
}

static void drop_all(struct cluster *cluster)
{
	while (cluster->n_peers)
		drop_peer(cluster, cluster->n_peers - 1);
	free(cluster->peers);
	cluster->peers = NULL;
	cluster->members_known = cluster->offers_known = cluster->loads_known = false;
	cluster->peers_seeded = false;
}

/* The members. */

void peers_member(struct supervisor *supervisor, const struct message_view *row)
{
	struct cluster *cluster = supervisor->cluster;
	int64_t weight = message_int(row, "weight", 0);
	struct peer *peer;

	if (!cluster->peers_told)
		return;
	peer = take_peer(cluster, message_text(row, "node_id", ""));
	if (!peer)
		return;
	peer->heard = true;
	snprintf(peer->node, sizeof peer->node, "%s", message_text(row, "node", ""));
	snprintf(peer->address, sizeof peer->address, "%s", message_text(row, "address", ""));
	snprintf(peer->version, sizeof peer->version, "%s", message_text(row, "version", ""));
	/* It stands in the registry as a text that anybody may write; a plan with more is read by nobody. */
	peer->weight = weight < 0                      ? 0
		       : weight > APPORTION_WEIGHT_MAX ? APPORTION_WEIGHT_MAX
						       : (unsigned)weight;
	peer->alive = message_flag(row, "alive");
	peer->leaving = message_flag(row, "leaving");
	peer->self = message_flag(row, "self");
	peer->started_ms = message_int(row, "started_ms", 0);
}

void peers_members(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;

	if (!cluster->peers_told)
		return;
	for (size_t i = 0; i < cluster->n_peers; i++) {
		struct peer *peer = cluster->peers[i];

		peer->listed = peer->heard;
		peer->heard = false;
		if (!peer->listed)
			peer->alive = peer->leaving = false;
	}
	cluster->members_known = true;
}

/* Offers and loads. */

/* What a node cannot say so that we understand is as if it had said nothing. */
static void complain(const struct peer *peer, const char *what, const struct why *why)
{
	log_change(KIND_REGISTRY_UNREADABLE, NULL,
		   "the %s of node %s cannot be read: %s; it is taken for one that has none", what,
		   *peer->node ? peer->node : peer->id, why->text);
}

static void take_offer(struct cluster *cluster, struct peer *peer,
		       const struct registry_value *value)
{
	struct why why = {0};

	if (!strcmp(peer->offer_version, value->version))
		return;
	free_offer(peer);
	snprintf(peer->offer_version, sizeof peer->offer_version, "%s", value->version);
	peer->offered_ms = clock_now_ms();
	peer->offer = calloc(1, sizeof *peer->offer);
	if (!peer->offer)
		return;
	if (offer_decode(value->data, value->size, peer->offer, &why) < 0) {
		complain(peer, "offer", &why);
		free(peer->offer);
		peer->offer = NULL;
		return;
	}
	if (!*peer->node && peer->offer->node)
		snprintf(peer->node, sizeof peer->node, "%s", peer->offer->node);
	/* Above that no plan can be numbered. */
	if (peer->offer->epoch > cluster->epoch_seen && peer->offer->epoch < PLAN_EPOCH_MAX)
		cluster->epoch_seen = peer->offer->epoch;
}

static void take_load(struct cluster *cluster, struct peer *peer,
		      const struct registry_value *value)
{
	struct why why = {0};

	(void)cluster;
	if (!strcmp(peer->load_version, value->version))
		return;
	free_load(peer);
	snprintf(peer->load_version, sizeof peer->load_version, "%s", value->version);
	peer->loaded_ms = clock_now_ms();
	peer->load = calloc(1, sizeof *peer->load);
	if (!peer->load || load_decode(value->data, value->size, peer->load, &why) >= 0)
		return;
	complain(peer, "load", &why);
	free(peer->load);
	peer->load = NULL;
}

/* What of a peer is kept under one of the two prefixes. */
static const struct kept {
	const char *prefix;
	void (*take)(struct cluster *cluster, struct peer *peer,
		     const struct registry_value *value);
	void (*drop)(struct peer *peer);
	size_t version, known; /* offsets: of struct peer, of struct cluster */
} kept[] = {
	{"offers/", take_offer, free_offer, offsetof(struct peer, offer_version),
	 offsetof(struct cluster, offers_known)},
	{"loads/", take_load, free_load, offsetof(struct peer, load_version),
	 offsetof(struct cluster, loads_known)},
};

#define N_KEPT (sizeof kept / sizeof *kept)

/* Whether the registry has one, that could be read or not. */
static bool has(const struct peer *peer, const struct kept *what)
{
	return *((const char *)peer + what->version);
}

static void take_values(struct cluster *cluster, const struct kept *what,
			const struct registry_value *values, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct peer *peer = take_peer(cluster, values[i].key);

		if (!peer)
			continue;
		peer->heard = true;
		what->take(cluster, peer, &values[i]);
	}
	for (size_t i = 0; i < cluster->n_peers; i++) {
		struct peer *peer = cluster->peers[i];

		if (!peer->heard && has(peer, what))
			what->drop(peer);
		peer->heard = false;
	}
	*(bool *)((char *)cluster + what->known) = true;
}

void peers_values(struct supervisor *supervisor, const char *watch,
		  const struct registry_value *values, size_t n)
{
	struct cluster *cluster = supervisor->cluster;

	if (!cluster->peers_told)
		return;
	for (size_t i = 0; i < N_KEPT; i++)
		if (!strcmp(watch, kept[i].prefix))
			take_values(cluster, &kept[i], values, n);
}

/* What the registrar is to tell. */

static void say_members(struct supervisor *supervisor, bool on)
{
	struct message message = {0};

	message_start(&message, "members");
	message_add_flag(&message, "on", on);
	registry_send(supervisor, &message);
}

static void listen(struct supervisor *supervisor, bool on)
{
	struct cluster *cluster = supervisor->cluster;

	if (cluster->peers_told == on)
		return;
	cluster->peers_told = on;
	say_members(supervisor, on);
	for (size_t i = 0; i < N_KEPT; i++)
		registry_watch(supervisor, kept[i].prefix, on);
	if (!on)
		drop_all(cluster);
}

static void listen_as_wanted(struct supervisor *supervisor, int64_t now_ms)
{
	struct cluster *cluster = supervisor->cluster;

	listen(supervisor, cluster->leading || now_ms < cluster->peers_wanted_ms);
	if (!cluster->leading && cluster->peers_told)
		cluster_wake(supervisor, cluster->peers_wanted_ms);
}

void peers_want(struct supervisor *supervisor, int64_t for_ms)
{
	int64_t now_ms = clock_now_ms();

	if (now_ms + for_ms > supervisor->cluster->peers_wanted_ms)
		supervisor->cluster->peers_wanted_ms = now_ms + for_ms;
	if (supervisor->cluster->clustered)
		listen_as_wanted(supervisor, now_ms);
}

void peers_registrar_started(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;

	/* The last one may have died in the middle of a list. */
	for (size_t i = 0; i < cluster->n_peers; i++)
		cluster->peers[i]->heard = false;
	if (cluster->peers_told)
		say_members(supervisor, true);
}

/* Who counts. */

/*
 * Who leads newly knows nobody; the nodes of the plan in force are not gone because of that. Those
 * that stopped in good order took their offers with them, unless the registry has no plan either: then
 * it lost its data, and whoever is registered again first is not alone.
 */
static void seed(struct cluster *cluster)
{
	bool lost = !*cluster->plan_version;

	if (cluster->peers_seeded || !cluster->plan_known || !cluster->offers_known)
		return;
	cluster->peers_seeded = true;
	for (size_t i = 0; i < cluster->plan.n_nodes; i++) {
		const struct plan_node *node = &cluster->plan.nodes[i];
		size_t at;
		struct peer *peer = lost                           ? take_peer(cluster, node->id)
				    : find(cluster, node->id, &at) ? cluster->peers[at]
								   : NULL;

		if (!peer || (!lost && !has(peer, &kept[0])))
			continue;
		peer->settle.member = true;
		if (!peer->listed)
			peer->weight = node->member.weight;
	}
}

static void settle(struct supervisor *supervisor, struct peer *peer, int64_t now_ms)
{
	bool before = peer->settle.member;
	int64_t due_ms = -1;

	settle_next(&peer->settle, peer->listed && peer->alive, peer->leaving,
		    supervisor->config->settle_ms, now_ms, &due_ms);
	cluster_wake(supervisor, due_ms);
	if (peer->self || before == peer->settle.member || !supervisor->cluster->leading)
		return;
	if (peer->settle.member)
		log_change(KIND_NODE_JOINED, NULL,
			   "node %s is in the cluster; it gets a share of the work", peer->node);
	else
		log_change(KIND_NODE_LEFT, NULL, "node %s %s; its share goes to the other nodes",
			   *peer->node ? peer->node : peer->id,
			   peer->leaving ? "takes no more work" : "is gone");
}

static bool is_left(const struct peer *peer)
{
	/* A list that names it may be on its way still. */
	return !peer->listed && !peer->heard && !peer->settle.member;
}

/* What nodes left behind that are gone for good. The registry removes nothing by itself. */
static void tidy(struct supervisor *supervisor, int64_t now_ms)
{
	struct cluster *cluster = supervisor->cluster;

	if (!cluster->leading || now_ms - cluster->tidied_ms < TIDY_MS)
		return;
	cluster->tidied_ms = now_ms;
	for (size_t i = 0; i < cluster->n_peers; i++) {
		const struct peer *peer = cluster->peers[i];

		if (!peer->unlisted_ms || now_ms - peer->unlisted_ms < LEFT_MS)
			continue;
		for (size_t j = 0; j < N_KEPT; j++) {
			char key[64];

			snprintf(key, sizeof key, "%s%s", kept[j].prefix, peer->id);
			if (has(peer, &kept[j]))
				registry_put(supervisor, key, NULL, 0, NULL, true, NULL, NULL);
		}
	}
}

void peers_round(struct supervisor *supervisor, int64_t now_ms)
{
	struct cluster *cluster = supervisor->cluster;

	listen_as_wanted(supervisor, now_ms);
	if (cluster->leading)
		seed(cluster);
	/* Until the registry has answered nobody is absent. */
	if (!cluster->members_known || (cluster->leading && !cluster->peers_seeded))
		return;
	for (size_t i = cluster->n_peers; i-- > 0;) {
		struct peer *peer = cluster->peers[i];

		/* While nobody can be asked, what was known last stands. */
		if (cluster->state == DROVER_REGISTRY_UP)
			settle(supervisor, peer, now_ms);
		if (!is_left(peer))
			peer->unlisted_ms = 0;
		else if (!has(peer, &kept[0]) && !has(peer, &kept[1]))
			drop_peer(cluster, i);
		else if (!peer->unlisted_ms)
			peer->unlisted_ms = now_ms;
	}
	tidy(supervisor, now_ms);
}

void peers_close(struct supervisor *supervisor)
{
	drop_all(supervisor->cluster);
}
