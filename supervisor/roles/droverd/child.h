/* SPDX-License-Identifier: MIT */
/*
 * The supervisor's children: every role is one. A child has a channel, must answer pings, and is
 * reaped here; what its messages mean and what follows from its end, its owner decides.
 */
#ifndef DROVER_ROLES_DROVERD_CHILD_H
#define DROVER_ROLES_DROVERD_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/why.h"
#include "system/process.h"
#include "system/role.h"

enum program {
	PROGRAM_REGISTRAR,
	PROGRAM_GAUGE,
	PROGRAM_API,
	PROGRAM_ERRAND,
	PROGRAM_DISPATCHER,
	PROGRAM_TEMPLATE,
	PROGRAMS, /* how many */
};

struct child;

struct child_owner {
	/* Any message but pong. The descriptors belong to the callee. */
	void (*message)(void *context, struct child *child, const struct message_view *view,
			const int *fds, size_t n_fds);
	/*
	 * It was reaped; the child is freed when this returns. `said` is its own reason ("" when it
	 * gave none).
	 */
	void (*exited)(void *context, struct child *child, int status, const char *said);
};

struct child {
	struct child *next;
	struct children *children;
	enum program program;
	pid_t pid;
	char title[PROCESS_TITLE_MAX];
	struct endpoint endpoint;
	const struct child_owner *owner;
	void *context;

	int64_t started_ms;
	bool ready; /* it said so */
	bool mute;  /* no pings: it is loading foreign code, or will exit by itself */
	/* an answer to a ping, or with `mute` its `ready`, is due; 0: nothing is due */
	int64_t deadline_ms;
	bool killed; /* for not answering */
	bool reaped; /* with this status; its pid may be another process's from now on */
	int status;
	bool leaving;      /* its end is wanted */
	char *credentials; /* directory that is removed after its end; NULL: none */
	char said[sizeof(struct why)];
};

struct children {
	sd_event *event;
	sd_event_source *pinger, *reaper;
	/* descriptors opened at start, so that an upgraded file never talks to an old parent */
	int programs[PROGRAMS];
	struct child *first;
	int64_t pinged_ms;
	char **environment; /* of roles: nothing of ours but what they need */
	char **trusted;     /* of those that open plugins: with the directory of our credentials */
	void (*reaped)(void *context); /* after children have ended; NULL: nobody asks */
	void *context;
};

int children_open(struct children *children, sd_event *event, const char *directory,
		  struct why *why);
void children_close(struct children *children); /* after all have ended */

struct child_request {
	enum program program;
	const char *title; /* without "drover: " */
	const struct child_owner *owner;
	void *context;
	int link; /* fd 4 of the child, taken; -1: none */
	const struct process_user *user;
	const struct process_limit *limits;
	size_t n_limits;
	int nice;
	const char *working_directory;
	char *const *environment; /* entries added to the roles' own; ends with NULL; NULL: none */
	char *credentials;        /* directory, taken: removed after its end; NULL: none */
	int death_signal;         /* 0: SIGKILL */
	/* mute until ready, which is due within this; 0: pinged from the start */
	int64_t patience_ms;
};

int child_start(struct children *children, const struct child_request *request,
		struct child **ret_child, struct why *why);
int child_send(struct child *child, const struct message *message);
int child_send_fd(struct child *child, const struct message *message, int fd); /* takes fd */
void child_kill(struct child *child); /* SIGKILL; `exited` follows */
/* The same, and says why: it does not do `what`, "answer" or "end". */
void child_give_up(struct child *child, const char *what);
/* Its end is wanted: closes the channel, which ends it; `exited` follows. */
void child_leave(struct child *child);

/* What an ended child died of, in words: its own, and its status. Returns text. */
const char *child_obituary(const struct child *child, int status, const char *said, char *text,
			   size_t size);

const char *program_name(enum program program);

#endif
