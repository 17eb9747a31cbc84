/* SPDX-License-Identifier: MIT */
/*
 * Around a real dispatcher process: a supervisor, templates and workers in plain C, and the broker
 * plugin broker_memory.so. A worker does what the body of an event says (see the table of
 * behaviours in dispatcher_rig.c).
 */
#ifndef TESTS_UNIT_DISPATCHER_RIG_H
#define TESTS_UNIT_DISPATCHER_RIG_H

#include <drover/broker.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "broker_memory.h"
#include "system/channel.h"

#define RIG_WORKERS     4096
#define RIG_GENERATIONS 4
#define RIG_NOTES       32768
#define RIG_WAIT_MS     20000

struct rig_seen {
	char id[64];
	uint32_t attempt;
	pid_t pid;
};

/* Shared with the workers. */
struct rig_shared {
	uint32_t n_seen; /* atomic */
	struct rig_seen seen[RIG_NOTES];
	uint32_t open;           /* what is "gated" goes on */
	uint32_t failing_starts; /* bit of each generation: its workers die before they are ready */
};

struct rig_worker {
	int64_t slot;
	pid_t pid;
	int generation;
	bool alive;
};

struct rig {
	pid_t dispatcher; /* 0: has ended */
	int status;
	struct channel supervisor;
	int control;
	struct channel links[RIG_GENERATIONS];
	int n_links;
	bool mute;        /* templates tell nothing of exits */
	int refuse_forks; /* how many more */
	struct rig_worker workers[RIG_WORKERS];
	int n_workers;
	struct rig_shared *shared;

	struct memory_packet notes[RIG_NOTES]; /* what the broker told */
	int n_notes;
	int64_t counted; /* of the last MEMORY_COUNT; 0: none */

	uint8_t report[MESSAGE_MAX]; /* the last one */
	struct message_view report_view;
	int n_reports;
	uint8_t row[MESSAGE_MAX]; /* the last one of `ps` */
	struct message_view row_view;
	int n_rows;
	bool ready, drained, ended_rows;
	char failed[512];
	int64_t retired; /* the last generation that was; 0: none */
	char directory[64];
	char log[96]; /* the file that its stderr goes to */
};

/* Settings of the type that differ from the rig's: "timeout_ms=300", "required=user_id", … */
void rig_start(struct rig *rig, const char *const *fields, int workers);
void rig_start_again(struct rig *rig, const char *const *fields, int workers); /* same directory */
void rig_stop(struct rig *rig); /* kills what is left, removes the directory */
void rig_kill(struct rig *rig); /* kill -9 of the dispatcher, and its workers with it */

void rig_turn(struct rig *rig, int timeout_ms);
/* Turns until it is true; fails the test after RIG_WAIT_MS. */
#define rig_wait(rig, condition)                                                 \
	do {                                                                     \
		int64_t until_ms_ = clock_now_ms() + RIG_WAIT_MS;                \
		while (!(condition)) {                                           \
			if (clock_now_ms() > until_ms_)                          \
				rig_fail((rig), #condition, __FILE__, __LINE__); \
			rig_turn((rig), 10);                                     \
		}                                                                \
	} while (0)
__attribute__((noreturn)) void rig_fail(struct rig *rig, const char *what, const char *file,
					int line);

void rig_say(struct rig *rig, const char *verb);
void rig_say_int(struct rig *rig, const char *verb, const char *key, int64_t value);
void rig_policy(struct rig *rig, const char *const *fields);
void rig_template(struct rig *rig, bool trial); /* of the next generation */

void rig_deliver(struct rig *rig, const char *id, const char *body, uint32_t attempts);
void rig_broker(struct rig *rig, enum memory_kind kind, int64_t number);

int64_t rig_report(const struct rig *rig, const char *key);
const char *rig_report_text(const struct rig *rig, const char *key);
/* The first settlement of that id from note `from` on; NULL: none yet. */
const struct memory_packet *rig_settled(const struct rig *rig, const char *id, int from);
int rig_count(const struct rig *rig, enum memory_kind kind);
int rig_seen(const struct rig *rig, const char *id);  /* how often it was handed to a handler */
int rig_alive(const struct rig *rig, int generation); /* workers; generation 0: of all */
const struct rig_worker *rig_worker(const struct rig *rig, int n); /* the n-th living one */
bool rig_logged(const struct rig *rig, const char *text);

#endif
