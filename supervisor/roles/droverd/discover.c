/* SPDX-License-Identifier: MIT */
/*
 * Brokers that are found as services of the registry, in place of configured hosts. Decides which
 * instances are the broker's now: the ones that the registry last called passing. A registry that
 * is away, or that calls all of them failing, takes none of them back: what worked last is tried on
 * (G5), and kept on disk for a start without it. Called by registry.c, brokers.c and whoever sets a
 * process up.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "system/found.h"

#include "base/banned.h"

#define FILE_NAME "endpoints"
#define FILE_MAX  (1 << 20)
#define SHOWN     6 /* instances that are named in a sentence */

struct service {
	struct service *next;
	char *name;
	struct found found;  /* in use */
	struct found coming; /* of a list that has not ended yet */
	bool wanted;         /* by a broker of the configuration in force */
	bool told;           /* by the registry, since droverd started */
	bool failing;        /* it called none of them passing */
};

struct discovery {
	struct service *services;
};

static struct service *find(const struct supervisor *supervisor, const char *name)
{
	const struct cluster *cluster = supervisor->cluster;
	struct service *service =
		cluster && cluster->discovery ? cluster->discovery->services : NULL;

	while (service && name && strcmp(service->name, name))
		service = service->next;
	return name ? service : NULL;
}

static void say(struct supervisor *supervisor, const char *verb, const struct service *service)
{
	struct message message = {0};

	message_start(&message, verb);
	message_add_text(&message, "service", service->name);
	registry_send(supervisor, &message);
}

static void service_free(struct service *service)
{
	found_free(&service->found);
	found_free(&service->coming);
	free(service->name);
	free(service);
}

/* The disk. */

static void recall(const struct supervisor *supervisor, struct service *service)
{
	char *text = NULL;
	size_t size;
	int r = state_read(supervisor, FILE_NAME, FILE_MAX, &text, &size);

	if (r >= 0)
		r = found_read(text, service->name, &service->found);
	if (r < 0 && r != -ENOENT)
		log_change(KIND_STATE_NOT_READ, NULL,
			   "%s/" FILE_NAME ": %s; where %s was found last is not known",
			   supervisor->config->state_dir, strerror(-r), service->name);
	free(text);
}

static void keep(const struct supervisor *supervisor)
{
	struct buf text = {0};
	int r;

	for (const struct service *s = supervisor->cluster->discovery->services; s; s = s->next)
		found_write(&text, s->name, &s->found);
	r = text.failed ? -ENOMEM
			: state_write(supervisor, FILE_NAME, buf_text(&text), buf_size(&text));
	if (r < 0)
		log_change(KIND_STATE_NOT_WRITTEN, NULL,
			   "%s/" FILE_NAME ": %s; a start without the registry would look where "
			   "they were found before",
			   supervisor->config->state_dir, strerror(-r));
	buf_free(&text);
}

/* In words. */

static void list(const struct found *found, struct buf *out)
{
	char place[FOUND_PLACE_MAX];

	for (size_t i = 0; i < found->n && i < SHOWN; i++)
		buf_printf(out, "%s%s", i ? ", " : "", found_place(&found->list[i], place));
	if (found->n > SHOWN)
		buf_printf(out, " and %zu more", found->n - SHOWN);
}

const char *discover_describe(const struct broker *broker, char *text, size_t size)
{
	const struct service *service = find(broker->supervisor, broker->config->service);
	struct buf out = {0};

	*text = '\0';
	if (!broker->config->service)
		return text;
	if (!service || (!service->found.n && !service->told))
		buf_printf(&out,
			   "it was not found yet: the registry has not said where the service "
			   "%s is",
			   broker->config->service);
	else if (!service->found.n)
		buf_printf(&out,
			   "it was not found yet: the registry knows no instance of the service "
			   "%s that passes its checks",
			   service->name);
	else
		list(&service->found, &out);
	if (service && service->found.n && !service->told)
		buf_printf(&out, ", as found before this start");
	else if (service && service->found.n && service->failing)
		buf_printf(&out, ", none of which passes its checks now");
	snprintf(text, size, "%s", buf_text(&out));
	buf_free(&out);
	return text;
}

/* For those who need it. */

bool discover_known(const struct broker *broker)
{
	const struct service *service = find(broker->supervisor, broker->config->service);

	return !broker->config->service || (service && service->found.n);
}

void message_add_hosts(struct message *message, const struct supervisor *supervisor,
		       const struct config_plugin *broker, const char *key)
{
	const struct service *service = find(supervisor, broker->service);
	size_t order[FOUND_MAX];
	char place[FOUND_PLACE_MAX];

	if (!service)
		return;
	/* Another order for every process: not all of a cluster are to fall upon the same one. */
	found_shuffle(&service->found, supervisor_random, order);
	for (size_t i = 0; i < service->found.n; i++)
		message_add_text(message, key, found_place(&service->found.list[order[i]], place));
}

static void tell(struct supervisor *supervisor, const struct service *service)
{
	for (struct broker *broker = supervisor->brokers; broker; broker = broker->next) {
		if (!broker->config->service || strcmp(broker->config->service, service->name))
			continue;
		broker_found(broker);
		for (size_t i = 0; service->found.n && i < supervisor->n_types; i++)
			if (supervisor->types[i]->broker == broker)
				pair_hosts(supervisor->types[i]);
	}
}

/* What the registry says. */

void discover_endpoint(struct supervisor *supervisor, const struct message_view *row)
{
	struct service *service = find(supervisor, message_text(row, "service", ""));
	const char *host = message_text(row, "host", "");
	int64_t weight = message_int(row, "weight", 1);
	int r;

	if (!service)
		return;
	r = found_add(&service->coming, host, message_int(row, "port", 0), weight < 1 ? 1 : weight);
	if (r < 0)
		log_change(KIND_SERVICE_SKIPPED, NULL,
			   "an instance of the service %s at \"%.64s\" is passed over: %s",
			   service->name, host,
			   r == -EINVAL  ? "this is no host and port"
			   : r == -E2BIG ? "there are too many"
					 : strerror(-r));
}

static void take(struct supervisor *supervisor, struct service *service)
{
	struct buf text = {0};

	found_free(&service->found);
	service->found = service->coming;
	service->coming = (struct found){0};
	list(&service->found, &text);
	log_change(KIND_SERVICE_FOUND, NULL,
		   "the service %s is found at %s; connections that work stay", service->name,
		   buf_text(&text));
	buf_free(&text);
	keep(supervisor);
}

void discover_endpoints(struct supervisor *supervisor, const char *name)
{
	struct service *service = find(supervisor, name);
	bool news;

	if (!service)
		return;
	found_settle(&service->coming);
	news = !service->told || service->failing != !service->coming.n;
	service->told = true;
	service->failing = !service->coming.n;
	if (service->failing && news)
		log_change(KIND_SERVICE_MISSING, NULL,
			   "the service %s: no instance of it passes its checks%s", name,
			   service->found.n ? "; the ones that were found last are kept"
					    : "; it is looked for");
	if (!service->failing && !found_same(&service->found, &service->coming)) {
		take(supervisor, service);
		news = true;
	}
	found_free(&service->coming);
	if (news)
		tell(supervisor, service);
}

/* Which services are looked for. */

static struct service *add(struct supervisor *supervisor, const char *name)
{
	struct discovery *discovery = supervisor->cluster->discovery;
	struct service *service = calloc(1, sizeof *service);

	if (service)
		service->name = strdup(name);
	if (!service || !service->name) {
		free(service);
		log_change(KIND_OUT_OF_MEMORY, NULL,
			   "the service %s: out of memory; it is not looked for", name);
		return NULL;
	}
	recall(supervisor, service);
	service->next = discovery->services;
	discovery->services = service;
	say(supervisor, "discover", service);
	return service;
}

static void drop_unwanted(struct supervisor *supervisor)
{
	struct service **at = &supervisor->cluster->discovery->services;

	while (*at) {
		struct service *service = *at;

		if (service->wanted) {
			at = &service->next;
			continue;
		}
		*at = service->next;
		say(supervisor, "undiscover", service);
		service_free(service);
	}
}

void discover_apply(struct supervisor *supervisor)
{
	const struct config *config = supervisor->config;
	struct cluster *cluster = supervisor->cluster;

	if (!cluster || !cluster->discovery)
		return;
	for (struct service *s = cluster->discovery->services; s; s = s->next)
		s->wanted = false;
	for (size_t i = 0; i < config->n_brokers; i++) {
		const char *name = config->brokers[i].service;
		struct service *service = find(supervisor, name);

		if (name && !service)
			service = add(supervisor, name);
		if (service)
			service->wanted = true;
	}
	drop_unwanted(supervisor);
}

void discover_registrar_started(struct supervisor *supervisor)
{
	const struct discovery *discovery = supervisor->cluster->discovery;

	for (struct service *s = discovery ? discovery->services : NULL; s; s = s->next) {
		found_free(&s->coming);
		say(supervisor, "discover", s);
	}
}

void discover_open(struct supervisor *supervisor)
{
	supervisor->cluster->discovery = calloc(1, sizeof *supervisor->cluster->discovery);
	if (!supervisor->cluster->discovery)
		log_change(KIND_OUT_OF_MEMORY, NULL,
			   "out of memory; no broker is found through the registry");
}

void discover_close(struct supervisor *supervisor)
{
	struct discovery *discovery = supervisor->cluster->discovery;

	while (discovery && discovery->services) {
		struct service *service = discovery->services;

		discovery->services = service->next;
		service_free(service);
	}
	free(discovery);
	supervisor->cluster->discovery = NULL;
}
