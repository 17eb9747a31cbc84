/* SPDX-License-Identifier: MIT */
/*
 * How plugins, brokers, queues and policies of the configuration are told to other processes, field
 * by field as system/protocol.h names them. Decides nothing; called by whoever starts a role or
 * tells it of a change.
 */
#include "roles/droverd/cluster.h"

#include <stdio.h>

#include "base/banned.h"

static void add_settings(struct message *message, const struct config_plugin *plugin)
{
	for (size_t i = 0; i < plugin->n_settings; i++) {
		const struct config_setting *setting = &plugin->settings[i];
		char key[256];

		snprintf(key, sizeof key, "set.%s", setting->name);
		for (size_t j = 0; j < setting->n_values; j++)
			message_add_text(message, key, setting->values[j]);
	}
}

void message_add_plugin(struct message *message, const struct supervisor *supervisor,
			const struct config *config, const char *kind,
			const struct config_plugin *plugin)
{
	char path[PATH_MAX];

	message_add_text(message, "plugin", plugin->plugin);
	/* Without a path the plugin cannot be loaded, and whoever tries says so. */
	if (paths_plugin(&supervisor->paths, kind, plugin->plugin, path, NULL) >= 0)
		message_add_text(message, "plugin_path", path);
	message_add_text(message, "state_dir", config->state_dir);
	message_add_text(message, "node", config->node);
	message_add_text(message, "instance", supervisor->instance);
	add_settings(message, plugin);
}

void message_add_broker(struct message *message, const struct supervisor *supervisor,
			const struct config_plugin *broker)
{
	message_add_text(message, "broker", broker->name);
	message_add_plugin(message, supervisor, supervisor->config, "brokers", broker);
	message_add_hosts(message, supervisor, broker, "set.hosts");
}

static void add_definition(struct message *message, const struct config_type *type)
{
	message_add_text(message, "content_type", type->content_type);
	message_add_int(message, "max_bytes", type->max_bytes);
	for (char **field = type->required; field && *field; field++)
		message_add_text(message, "required", *field);
}

static void add_retry(struct message *message, const struct config_type *type)
{
	message_add_int(message, "retry_first_ms", type->retry_first_ms);
	message_add_int(message, "retry_factor_percent", type->retry_factor_percent);
	message_add_int(message, "retry_cap_ms", type->retry_cap_ms);
}

const char *type_queue_name(const struct config_type *type)
{
	return type->queue ? type->queue : type->name;
}

void message_add_queue(struct message *message, const struct config_type *type)
{
	message_add_text(message, "type", type->name);
	message_add_text(message, "queue", type_queue_name(type));
	for (char **bind = type->bind; bind && *bind; bind++)
		message_add_text(message, "bind", *bind);
	if (!type->bind)
		message_add_text(message, "bind", type->name);
	message_add_flag(message, "exclusive", type->exclusive);
	message_add_text(message, "declare", config_declare_name(type->declare));
	message_add_text(message, "retry_queue", type->retry_queue);
	message_add_text(message, "dead_letter", type->dead_letter);
	message_add_int(message, "timeout_ms", type->timeout_ms);
	message_add_int(message, "max_attempts", type->max_attempts);
	add_retry(message, type);
	add_definition(message, type);
}

void message_add_policy(struct message *message, const struct config_type *type)
{
	message_add_text(message, "mode", config_mode_name(type->mode));
	message_add_int(message, "timeout_ms", type->timeout_ms);
	message_add_int(message, "stop_timeout_ms", type->stop_timeout_ms);
	message_add_int(message, "max_attempts", type->max_attempts);
	add_retry(message, type);
	message_add_text(message, "brake", config_brake_name(type->brake));
	message_add_text(message, "inbox", config_inbox_name(type->inbox));
	message_add_text(message, "inbox_key", type->inbox_key);
	message_add_int(message, "inbox_keep_ms", type->inbox_keep_ms);
	message_add_int(message, "recycle_events", type->recycle_events);
	message_add_int(message, "recycle_age_ms", type->recycle_age_ms);
	message_add_int(message, "recycle_bytes", type->recycle_bytes);
	message_add_int(message, "log_rate", type->log_rate);
	add_definition(message, type);
}
