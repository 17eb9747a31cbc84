/* SPDX-License-Identifier: MIT */
/*
 * The registrar: the one process of a node that speaks to the registry, through a registry plugin,
 * and tells the supervisor how that stands. It decides nothing about workers, and a registry that
 * is away is a state, no failure: what was known last stands. Started by the supervisor.
 */
#include <drover/registry.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "system/plugin.h"
#include "system/pump.h"
#include "system/role.h"
#include "system/settings.h"

#include "base/banned.h"

struct registrar {
	struct role role;
	const struct drover_registry *calls;
	void *registry;            /* NULL: not opened yet */
	struct settings *settings; /* the plugin reads them as long as it is open */
	struct drover_registry_callbacks callbacks;
	struct pump pump;
};

static const char *state_name(enum drover_registry_state state)
{
	static const char *const names[] = {
		[DROVER_REGISTRY_UP] = "UP",
		[DROVER_REGISTRY_SUSPENDED] = "SUSPENDED",
		[DROVER_REGISTRY_LOST] = "LOST",
	};

	return state < sizeof names / sizeof *names && names[state] ? names[state] : "LOST";
}

static void on_state(void *context, enum drover_registry_state state, const char *sentence)
{
	struct registrar *registrar = context;
	struct message message = {0};

	message_start(&message, "registry");
	message_add_text(&message, "state", state_name(state));
	message_add_text(&message, "sentence", sentence ? sentence : "");
	endpoint_send(&registrar->role.supervisor, &message);
	message_free(&message);
}

static void on_log(void *context, int level, const char *line)
{
	(void)context;
	log_line((enum log_level)level, "%s", line);
}

static int open_registry(struct registrar *registrar, const struct message_view *setup,
			 struct why *why)
{
	static const char *const extra[] = {"state_dir", NULL};
	const struct drover_registration self = {
		.size = sizeof self,
		.cluster = message_text(setup, "cluster", ""),
		.node = message_text(setup, "node", ""),
		.node_id = message_text(setup, "node_id", ""),
		.version = message_text(setup, "version", ""),
		.weight = 1,
	};
	const struct drover_plugin *plugin;
	struct why said = {0};
	void *handle;
	int r;

	r = plugin_open(message_text(setup, "plugin_path", ""), message_text(setup, "plugin", ""),
			DROVER_KIND_REGISTRY, sizeof *registrar->calls, &plugin, &handle, why);
	if (r < 0)
		return r;
	r = settings_new(plugin->options, extra, setup, &registrar->settings, why);
	if (r < 0)
		return r;
	settings_connect(registrar->settings, on_log, NULL, registrar);
	registrar->calls = (const struct drover_registry *)(const void *)plugin;
	r = registrar->calls->open(settings_host(registrar->settings), &self, &registrar->callbacks,
				   &registrar->registry, said.text, sizeof said.text);
	if (r < 0)
		return why_set(why, r, "%s", *said.text ? said.text : strerror(-r));
	registrar->pump = (struct pump){
		.fd = registrar->calls->fd,
		.events = registrar->calls->events,
		.timeout_ms = registrar->calls->timeout_ms,
		.process = registrar->calls->process,
		.plugin = registrar->registry,
	};
	r = pump_open(&registrar->pump, registrar->role.event);
	return r < 0 ? why_set(why, r, "event loop: %s", strerror(-r)) : 0;
}

static void on_message(void *context, const struct message_view *view, const int *fds, size_t n_fds)
{
	struct registrar *registrar = context;
	struct message ready = {0};
	struct why why = {0};

	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (!message_is(view, "setup") || registrar->calls)
		return;
	/* A registry that is away is no error, so this is one that trying again here cannot mend. */
	if (open_registry(registrar, view, &why) < 0)
		role_fail(&registrar->role, "registry %s", why.text);
	message_start(&ready, "ready");
	endpoint_send(&registrar->role.supervisor, &ready);
	message_free(&ready);
}

int main(void)
{
	static struct registrar registrar;

	registrar.callbacks = (struct drover_registry_callbacks){
		.size = sizeof registrar.callbacks,
		.context = &registrar,
		.state = on_state,
	};
	registrar.role.message = on_message;
	registrar.role.context = &registrar;
	role_open(&registrar.role, "registrar");
	return role_run(&registrar.role);
}
