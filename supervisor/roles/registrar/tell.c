/* SPDX-License-Identifier: MIT */
/*
 * What the registry plugin says, as messages to the supervisor: a list is a row each and then the
 * verb that makes it the whole of what is known. Decides nothing, keeps nothing. The plugin calls it.
 */
#include <string.h>

#include "roles/registrar/registrar.h"

#include "base/log.h"

#include "base/banned.h"

static const char *text(const char *text)
{
	return text ? text : "";
}

static void send(struct registrar *registrar, struct message *message)
{
	endpoint_send(&registrar->role.supervisor, message);
	message_free(message);
}

/* A verb with one text, or none: that is how lists end. */
static void send_text(struct registrar *registrar, const char *verb, const char *key,
		      const char *value)
{
	struct message message = {0};

	message_start(&message, verb);
	if (key)
		message_add_text(&message, key, value);
	send(registrar, &message);
}

static const char *state_name(enum drover_registry_state state)
{
	static const char *const names[] = {
		[DROVER_REGISTRY_UP] = "UP",
		[DROVER_REGISTRY_SUSPENDED] = "SUSPENDED",
		[DROVER_REGISTRY_LOST] = "LOST",
		[DROVER_REGISTRY_REFUSED] = "REFUSED",
	};

	return state < sizeof names / sizeof *names && names[state] ? names[state] : "LOST";
}

static void on_state(void *context, enum drover_registry_state state, const char *sentence)
{
	struct message message = {0};

	message_start(&message, "registry");
	message_add_text(&message, "state", state_name(state));
	message_add_text(&message, "sentence", text(sentence));
	send(context, &message);
}

static void on_members(void *context, const struct drover_member *members, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct drover_member *member = members + i;
		struct message message = {0};

		message_start(&message, "member");
		message_add_text(&message, "node", text(member->node));
		message_add_text(&message, "node_id", text(member->node_id));
		message_add_text(&message, "version", text(member->version));
		message_add_text(&message, "address", text(member->address));
		message_add_int(&message, "weight", member->weight);
		message_add_flag(&message, "alive", member->flags & DROVER_MEMBER_ALIVE);
		message_add_flag(&message, "leaving", member->flags & DROVER_MEMBER_LEAVING);
		message_add_flag(&message, "self", member->flags & DROVER_MEMBER_SELF);
		message_add_int(&message, "started_ms", member->started_ms);
		send(context, &message);
	}
	send_text(context, "members", NULL, NULL);
}

static void on_values(void *context, const char *watch, const struct drover_value *values, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct message message = {0};
		size_t length = values[i].length;

		/* No value of ours: there is one, which cannot be read, and may be replaced. */
		if (length > DROVER_REGISTRY_VALUE_MAX) {
			log_change(
				KIND_REGISTRY_UNREADABLE, NULL,
				"registry, key %.200s: %zu bytes are more than any value of ours "
				"has; they are taken for none at all",
				values[i].key, length);
			length = 0;
		}
		message_start(&message, "value");
		message_add_text(&message, "watch", watch);
		message_add_text(&message, "key", values[i].key);
		message_add_blob(&message, "data", values[i].data, length);
		message_add_text(&message, "version", values[i].version);
		send(context, &message);
	}
	send_text(context, "values", "watch", watch);
}

static void on_leader(void *context, int leading, const char *node, const char *node_id)
{
	struct registrar *registrar = context;
	struct message message = {0};

	registrar->leading = leading;
	if (registrar->orphaned && *text(node))
		role_leave(); /* another leads: what was to be done is done */
	message_start(&message, "leader");
	message_add_flag(&message, "leading", leading);
	message_add_text(&message, "node", text(node));
	message_add_text(&message, "node_id", text(node_id));
	send(context, &message);
}

static void on_maintenance(void *context, int on, const char *reason)
{
	struct message message = {0};

	message_start(&message, "maintenance");
	message_add_flag(&message, "on", on);
	message_add_text(&message, "reason", text(reason));
	send(context, &message);
}

static void on_endpoints(void *context, const char *service,
			 const struct drover_endpoint *endpoints, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct message message = {0};

		message_start(&message, "endpoint");
		message_add_text(&message, "service", service);
		message_add_text(&message, "host", endpoints[i].host);
		message_add_int(&message, "port", endpoints[i].port);
		message_add_int(&message, "weight", endpoints[i].weight);
		send(context, &message);
	}
	send_text(context, "endpoints", "service", service);
}

void tell_put(struct registrar *registrar, uint64_t ask, int error, const char *version,
	      const char *sentence)
{
	struct message message = {0};

	message_start(&message, "put");
	message_add_int(&message, "ask", (int64_t)ask);
	message_add_int(&message, "status", error);
	message_add_text(&message, "version", text(version));
	message_add_text(&message, "sentence", text(sentence));
	send(registrar, &message);
}

static void on_put(void *context, uint64_t cookie, const struct drover_put_result *result)
{
	tell_put(context, cookie, result->error, result->version, result->sentence);
}

static void on_deregistered(void *context)
{
	send_text(context, "deregistered", NULL, NULL);
}

const struct drover_registry_callbacks tell_callbacks = {
	.size = sizeof tell_callbacks,
	.state = on_state,
	.members = on_members,
	.values = on_values,
	.leader = on_leader,
	.maintenance = on_maintenance,
	.endpoints = on_endpoints,
	.put = on_put,
	.deregistered = on_deregistered,
};
