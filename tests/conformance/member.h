/* SPDX-License-Identifier: MIT */
/*
 * A node's end of a registry, for the conformance suite: opens any registry plugin, runs its loop as
 * a host would, together with those of the other nodes in this process, and records what it says.
 */
#ifndef TESTS_CONFORMANCE_MEMBER_H
#define TESTS_CONFORMANCE_MEMBER_H

#include <drover/registry.h>

#include "load.h"

#define MEMBER_MAX       8 /* of whatever a list holds here */
#define MEMBER_TEXT_MAX  256
#define MEMBER_CALL_MS   100 /* no function of a plugin may block for longer */
#define MEMBER_CALLS_MAX 5   /* … but this machine may be busy: so many times that */

struct member_row {
	uint32_t flags, weight;
	char node[MEMBER_TEXT_MAX], node_id[MEMBER_TEXT_MAX], version[MEMBER_TEXT_MAX],
		address[MEMBER_TEXT_MAX];
	int64_t started_ms;
};

struct member_value {
	char key[MEMBER_TEXT_MAX], version[DROVER_REGISTRY_VERSION_MAX];
	void *data; /* owned; with a NUL behind it */
	size_t length;
};

struct member_watch {
	char key[MEMBER_TEXT_MAX];
	struct member_value values[MEMBER_MAX];
	size_t n;
	size_t told; /* how many times */
};

struct member_put {
	int error;
	char version[DROVER_REGISTRY_VERSION_MAX], sentence[MEMBER_TEXT_MAX];
};

struct member {
	struct member *next; /* of those that are open */
	const struct drover_registry *calls;
	void *registry;

	enum drover_registry_state state; /* 0: not told */
	char sentence[MEMBER_TEXT_MAX];
	size_t states; /* how many times it was told; and so on below */

	struct member_row rows[MEMBER_MAX];
	size_t n_rows, members_told;

	struct member_watch watches[MEMBER_MAX];
	size_t n_watches;

	bool leading;
	char leader[MEMBER_TEXT_MAX], leader_id[MEMBER_TEXT_MAX];
	size_t leaders_told;

	char host[MEMBER_TEXT_MAX]; /* of the first endpoint */
	uint32_t port;
	size_t n_endpoints, endpoints_told;

	uint64_t cookie; /* the last one given */
	struct member_put put;
	uint64_t put_cookie; /* that `put` is the result of */
	size_t puts_told, deregistered;

	int64_t slowest_ms; /* call */
};

void member_open(struct member *member, const struct loaded *loaded,
		 const struct drover_registration *self);
void member_close(struct member *member);

/* One turn of the loops of all open members, waiting for at most ms. */
void member_turn(int64_t ms);
void member_idle(int64_t ms); /* turns for so long */

/* Turns until the condition holds; what it was after that time is for the caller to look at. */
#define member_until(condition, ms)                      \
	for (int64_t until_ms_ = member_now_ms() + (ms); \
	     !(condition) && member_now_ms() < until_ms_; member_turn(20))
int64_t member_now_ms(void);

/* The row of that node id; NULL. */
const struct member_row *member_find(const struct member *member, const char *node_id);
/* What is known of a key that is watched, or of a watched prefix; NULL: it is not watched. */
const struct member_watch *member_watched(const struct member *member, const char *key);
const char *member_text(const struct member *member, const char *key); /* "" where there is none */

/* Waits for its outcome, which is in member->put, too: 0 or -errno; -ETIME without one. */
int member_put(struct member *member, const char *key, const void *data, size_t length,
	       const char *version, uint32_t flags);
/* A report of some checks, all passing but `ill` of them, with a tag or none. */
int member_report(struct member *member, size_t n_checks, size_t ill, const char *tag);

#endif
