/* SPDX-License-Identifier: MIT */
/*
 * A process's end of a broker, for tests and benchmarks: opens any broker plugin, runs its loop as
 * a host would, and records what it says. Waits are for a condition, with a deadline.
 */
#ifndef TESTS_CONFORMANCE_CLIENT_H
#define TESTS_CONFORMANCE_CLIENT_H

#include <stdbool.h>

#include <drover/broker.h>

#include "load.h"

#define CLIENT_WAIT_MS 10000

struct client_plugin {
	const struct drover_broker *broker;
	struct loaded loaded;
};

/* `settings` are NAME=value, n of them; exits with a message when the plugin cannot be used. */
struct client_plugin client_load(const char *path, char *const *settings, size_t n);
void client_unload(struct client_plugin *plugin);

struct client_letter {
	char key[128], id[128], reason[256], node[64];
	uint32_t attempts;
	int64_t first_ms, last_ms;
};

struct client {
	const struct drover_broker *broker;
	void *handle;

	enum drover_broker_state state;
	char sentence[512];
	bool told; /* its state, once at least */

	struct drover_delivery **deliveries; /* in our hands, in the order they came */
	size_t n_deliveries, room;
	size_t delivered;                                               /* ever */
	void (*on_delivery)(struct client *, struct drover_delivery *); /* NULL: kept above */

	size_t settled, settle_errors;
	size_t published, publish_errors;
	int publish_error;
	char publish_sentence[512];
	size_t declared, declare_errors;
	char declare_sentence[512];
	size_t changed;

	size_t turns; /* of its loop */

	struct drover_depth depth; /* the last one */
	size_t depths;

	struct client_letter letters[16];
	size_t n_letters;
	size_t browses; /* that came to their end, or failed */
	int browse_error;
	char browse_sentence[512];
	size_t letters_settled;
	int letter_error;
};

void client_open(struct client *client, const struct client_plugin *plugin,
		 enum drover_broker_use use);
void client_close(struct client *client);

/* One turn of the loop, waiting for at most ms. */
void client_turn(struct client *client, int64_t ms);
/* Turns until *counter is at least n; false after CLIENT_WAIT_MS. */
bool client_until(struct client *client, const size_t *counter, size_t n);
bool client_until_state(struct client *client, enum drover_broker_state state);
void client_idle(struct client *client, int64_t ms); /* turns for so long */

/* These wait for their outcome: 0 or -errno; -ETIME without one. */
int client_declare(struct client *client, const char *queue, const char *const *bind, bool dry_run);
int client_publish(struct client *client, const struct drover_event *event, int64_t delay_ms);
int client_publish_id(struct client *client, const char *type, const char *id, int64_t delay_ms);
/* Many, confirmed in the end: the number of those that were not. */
size_t client_publish_many(struct client *client, const char *type, size_t n, size_t body_size);
void client_subscribe(struct client *client, const char *queue, uint32_t events, uint64_t bytes);
int client_settle(struct client *client, struct drover_delivery *delivery, uint32_t kind,
		  uint32_t attempts, int64_t delay_ms);
int client_depth(struct client *client, const char *name, struct drover_depth *ret_depth);
int client_browse(struct client *client, const char *name);
int client_letter(struct client *client, const char *name, const char *key,
		  enum drover_letter_action action);

/* The delivery with this event id among those in our hands; NULL. */
struct drover_delivery *client_find(struct client *client, const char *id);

#endif
