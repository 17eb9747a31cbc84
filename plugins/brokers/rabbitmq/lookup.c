/* SPDX-License-Identifier: MIT */
/*
 * Names of hosts. getaddrinfo(3) waits for name servers as long as its own configuration likes, for
 * many seconds when they are away; so names are looked up by the C library's helper threads, which
 * run no code of ours, and we wait as long as we can afford. A lookup that nobody waits for any more
 * cannot be called off: it is kept for whoever asks for the same name next. Called by open.c.
 */
#include "rabbitmq.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lookup {
	struct lookup *next;
	struct gaicb request; /* the library's while it runs */
	struct addrinfo hints;
	char port[8];
	char host[];
};

static struct lookup *abandoned; /* that run; one for each name at most */

static bool runs(struct lookup *lookup)
{
	return gai_error(&lookup->request) == EAI_INPROGRESS;
}

static void lookup_free(struct lookup *lookup)
{
	if (lookup->request.ar_result)
		freeaddrinfo(lookup->request.ar_result);
	free(lookup);
}

/* One of this name, taken from the list; those that came to an end unasked are thrown away. */
static struct lookup *find(const char *host, const char *port)
{
	struct lookup **at = &abandoned, *found = NULL;

	while (*at) {
		struct lookup *lookup = *at;

		if (!found && !strcmp(lookup->host, host) && !strcmp(lookup->port, port)) {
			*at = lookup->next;
			found = lookup;
		} else if (!runs(lookup)) {
			*at = lookup->next;
			lookup_free(lookup);
		} else {
			at = &lookup->next;
		}
	}
	return found;
}

static struct lookup *start(const char *host, const char *port)
{
	struct lookup *lookup = calloc(1, sizeof *lookup + strlen(host) + 1);
	struct gaicb *list[1];

	if (!lookup)
		return NULL;
	memcpy(lookup->port, port, strlen(port) + 1);
	memcpy(lookup->host, host, strlen(host) + 1);
	lookup->hints = (struct addrinfo){.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	lookup->request = (struct gaicb){.ar_name = lookup->host,
					 .ar_service = lookup->port,
					 .ar_request = &lookup->hints};
	list[0] = &lookup->request;
	if (getaddrinfo_a(GAI_NOWAIT, list, 1, NULL)) {
		free(lookup);
		return NULL;
	}
	return lookup;
}

static void await(struct lookup *lookup, int64_t until_ms)
{
	const struct gaicb *list[] = {&lookup->request};
	int64_t left_ms;

	while (runs(lookup) && (left_ms = until_ms - now_ms()) > 0) {
		const struct timespec timeout = {left_ms / 1000, left_ms % 1000 * 1000000};

		gai_suspend(list, 1, &timeout);
	}
}

int lookup_addresses(const char *host, int port, int64_t until_ms, struct addrinfo **ret_addresses,
		     struct fault *fault)
{
	const struct addrinfo numeric = {.ai_socktype = SOCK_STREAM,
					 .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	struct lookup *lookup;
	char service[sizeof lookup->port];
	int r;

	snprintf(service, sizeof service, "%d", port);
	/* An address needs nobody's help. */
	if (getaddrinfo(host, service, &numeric, ret_addresses) == 0)
		return 0;
	lookup = find(host, service);
	if (!lookup)
		lookup = start(host, service);
	if (!lookup)
		return fault_set(fault, -ENOMEM, "no memory to look up its name");
	await(lookup, until_ms);
	if (runs(lookup)) {
		lookup->next = abandoned;
		abandoned = lookup;
		return fault_set(fault, -ETIMEDOUT, "no name server has told its address yet");
	}
	r = gai_error(&lookup->request);
	if (r == 0) {
		*ret_addresses = lookup->request.ar_result;
		lookup->request.ar_result = NULL;
	}
	lookup_free(lookup);
	return r ? fault_set(fault, -ENOENT, "its name is not known: %s", gai_strerror(r)) : 0;
}
