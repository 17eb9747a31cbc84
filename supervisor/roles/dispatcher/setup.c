/* SPDX-License-Identifier: MIT */
/*
 * Reads what the supervisor says about the type: its queue, its policy, its definition. The first
 * message also opens inbox and broker; later ones change the policy while events flow. The
 * supervisor validated all values; here they are only taken.
 */
#include "roles/dispatcher/dispatcher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

static void read_policy(struct policy *policy, const struct message_view *view)
{
	policy->timeout_ms = message_int(view, "timeout_ms", 60000);
	policy->stop_timeout_ms = message_int(view, "stop_timeout_ms", policy->timeout_ms);
	policy->retry = (struct retry_policy){
		.first_ms = message_int(view, "retry_first_ms", retry_default.first_ms),
		.factor = message_real(view, "retry_factor_percent", retry_default.factor * 100) /
			  100,
		.cap_ms = message_int(view, "retry_cap_ms", retry_default.cap_ms),
		.max_attempts = (int)message_int(view, "max_attempts", retry_default.max_attempts),
	};
	policy->inbox_keep_ms = message_int(view, "inbox_keep_ms", INT64_C(7) * 86400000);
	policy->recycle_events = message_int(view, "recycle_events", 0);
	policy->recycle_age_ms = message_int(view, "recycle_age_ms", 0);
	policy->recycle_bytes = message_int(view, "recycle_bytes", 0);
	policy->log_rate = message_int(view, "log_rate", LINES_PER_SECOND);
	snprintf(policy->inbox_key, sizeof policy->inbox_key, "%s",
		 message_text(view, "inbox_key", ""));
	if (message_text(view, "handler", NULL))
		snprintf(policy->handler, sizeof policy->handler, "%s",
			 message_text(view, "handler", ""));
}

void setup_policy(struct dispatcher *d, const struct message_view *view)
{
	int64_t now_ms = clock_now_ms();

	read_policy(&d->policy, view);
	d->brake.off = !strcmp(message_text(view, "brake", "auto"), "off");
	d->inbox_wanted = !d->consumer && !strcmp(message_text(view, "inbox", "none"), "sqlite");
	/* Nothing is handed out before the duty has opened it. */
	d->inbox_blocked = d->inbox_wanted && !d->inbox;
	if (!d->inbox_wanted) {
		inbox_close(d->inbox);
		d->inbox = NULL;
	}
	if (definition_read(&d->definition, view) < 0)
		dispatcher_error(d, KIND_OUT_OF_MEMORY, NULL,
				 "out of memory: the definition of the type stays as it was");
	dispatcher_due(d, DUTY_INBOX, now_ms);
	dispatcher_due(d, DUTY_WORKERS, now_ms);
	d->changed = true;
}

int setup_read(struct dispatcher *d, const struct message_view *view, struct why *why)
{
	const char *type = message_text(view, "type", NULL);
	char ident[128];

	if (!type)
		return why_set(why, -EPROTO, "the setup names no type");
	d->type = strdup(type);
	d->node = strdup(message_text(view, "node", ""));
	d->state_dir = strdup(message_text(view, "state_dir", "."));
	d->queue = broker_queue_read(view);
	if (!d->type || !d->node || !d->state_dir || !d->queue)
		return why_set(why, -ENOMEM, "out of memory");
	d->consumer = !strcmp(message_text(view, "mode", ""), "consumer");
	snprintf(ident, sizeof ident, "dispatcher %s", type);
	log_open(ident);
	log_belong(type, message_text(view, "broker", NULL));
	setup_policy(d, view);
	dispatcher_due(d, DUTY_REPORT, clock_now_ms());
	if (!d->consumer)
		return broker_open(d, view, why);
	d->broker_state = DROVER_BROKER_UP; /* there is none that could be anything else */
	return 0;
}

void setup_free(struct dispatcher *d)
{
	broker_client_close(&d->client);
	jobs_free(d);
	inbox_close(d->inbox);
	buf_free(&d->key);
	buf_free(&d->batch);
	definition_free(&d->definition);
	free(d->queue);
	free(d->type);
	free(d->node);
	free(d->state_dir);
}
