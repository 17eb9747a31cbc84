/* SPDX-License-Identifier: MIT */
/*
 * The process that makes this node known in the service registry. Decides when it is started again;
 * what is asked of it and what it says is registry.c's, what its end means for the cluster
 * cluster.c's. An unreachable registry changes nothing about the workers (G5). Called by droverd.c.
 */
#include "roles/droverd/cluster.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"

#include "base/banned.h"

static int on_retry(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;

	(void)source;
	(void)usec;
	supervisor->registrar_timer = sd_event_source_disable_unref(supervisor->registrar_timer);
	registrar_start(supervisor);
	return 0;
}

static void retry_later(struct supervisor *supervisor, int64_t ran_ms, const char *reason)
{
	int64_t wait_ms = backoff_next_ms(&supervisor->registrar_backoff, &backoff_process, ran_ms,
					  supervisor_random());
	char human[UNITS_TEXT_MAX], sentence[REPORT_TEXT_MAX];

	log_change(KIND_ROLE_DIED, NULL,
		   "registrar: %s; what is known of the registry stands, it is started again in %s",
		   reason, units_human_duration(wait_ms, human, sizeof human));
	snprintf(sentence, sizeof sentence, "the registrar %.200s", reason);
	cluster_registrar_ended(supervisor, sentence);
	sd_event_add_time_relative(supervisor->event, &supervisor->registrar_timer, CLOCK_MONOTONIC,
				   (uint64_t)wait_ms * 1000, 10000, on_retry, supervisor);
}

static void on_message(void *context, struct child *child, const struct message_view *view,
		       const int *fds, size_t n_fds)
{
	(void)child;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	registry_heard(context, view);
}

static void on_exited(void *context, struct child *child, int status, const char *said)
{
	struct supervisor *supervisor = context;
	char how[sizeof child->said];

	supervisor->registrar = NULL;
	registry_lost(supervisor);
	checks_deregistered(supervisor);
	if (!supervisor->dying)
		retry_later(supervisor, clock_now_ms() - child->started_ms,
			    child_obituary(child, status, said, how, sizeof how));
}

static const struct child_owner registrar_owner = {on_message, on_exited};

static int set_up(struct supervisor *supervisor, struct why *why)
{
	const struct config *config = supervisor->config;
	struct message setup = {0};
	char path[PATH_MAX];
	int r;

	r = paths_plugin(&supervisor->paths, "registries", config->registry.plugin, path, why);
	if (r < 0)
		return r;
	message_start(&setup, "setup");
	message_add_plugin(&setup, supervisor, config, "registries", &config->registry);
	message_add_text(&setup, "cluster", config->cluster);
	message_add_text(&setup, "node_id", supervisor->node_id);
	message_add_text(&setup, "version", PACKAGE_VERSION);
	message_add_int(&setup, "weight", config->weight);
	message_add_text(&setup, "address", config->address);
	message_add_int(&setup, "port", 0);
	message_add_int(&setup, "started_ms", supervisor->started_wall_ms);
	r = child_send(supervisor->registrar, &setup);
	message_free(&setup);
	return r < 0 ? why_set(why, r, "send its setup: %s", strerror(-r)) : 0;
}

static bool is_of(const char *variable, const char *plugin)
{
	while (*plugin && toupper((unsigned char)*plugin) == (unsigned char)*variable) {
		plugin++;
		variable++;
	}
	return !*plugin && *variable == '_';
}

/* Of our environment, what is called by the plugin (CONSUL_…): the entries as they are; NULL: none. */
static char **make_environment(const char *plugin)
{
	size_t n = 0;
	char **own;

	for (char **e = environ; e && *e; e++)
		n += is_of(*e, plugin);
	own = calloc(n + 1, sizeof *own);
	n = 0;
	for (char **e = environ; own && e && *e; e++)
		if (is_of(*e, plugin))
			own[n++] = *e;
	return own;
}

void registrar_start(struct supervisor *supervisor)
{
	struct child_request request = {
		.program = PROGRAM_REGISTRAR,
		.title = "registrar",
		.owner = &registrar_owner,
		.context = supervisor,
		.link = -1,
		.death_signal = SIGTERM, /* it gives leadership back before it follows us */
	};
	struct why why = {0};
	char **own;
	int r;

	if (supervisor->dying)
		return;
	own = make_environment(supervisor->config->registry.plugin);
	request.environment = own;
	r = child_start(&supervisor->children, &request, &supervisor->registrar, &why);
	free(own);
	if (r < 0) {
		retry_later(supervisor, 0, why.text);
		return;
	}
	if (set_up(supervisor, &why) < 0) {
		snprintf(supervisor->registrar->said, sizeof why.text, "%s", why.text);
		child_kill(supervisor->registrar);
		return;
	}
	registry_again(supervisor);
	cluster_registrar_started(supervisor);
}

void registrar_close(struct supervisor *supervisor)
{
	supervisor->registrar_timer = sd_event_source_disable_unref(supervisor->registrar_timer);
}
