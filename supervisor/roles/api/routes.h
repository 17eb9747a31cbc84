/* SPDX-License-Identifier: MIT */
/*
 * The paths of the HTTP interface (docs/http-api.md): which command each one is, which arguments it
 * takes, and how its answer is written. The table is here; who may command what, the supervisor
 * decides.
 */
#ifndef DROVER_ROLES_API_ROUTES_H
#define DROVER_ROLES_API_ROUTES_H

#include <stdbool.h>

#include "base/why.h"
#include "system/message.h"

enum route_format {
	ROUTE_OBJECT,  /* rows become one JSON object, sent as they come */
	ROUTE_VERDICT, /* the same, but the HTTP status waits for the end of the rows */
	ROUTE_METRICS, /* rows become Prometheus text */
	ROUTE_LINES,   /* an errand's JSON lines, sent as they come */
	ROUTE_SUM,     /* an errand's one JSON object; the HTTP status waits for its end */
};

struct route {
	const char *method, *path;
	const char *command; /* as the supervisor knows it */
	enum route_format format;
	const char *arguments; /* names it takes, between spaces: " type min max " */
	const char *actions;   /* values that "action" may have, between spaces; NULL: none */
	const char *arrays;    /* keys that are in the object also when empty, between spaces */
	bool takes_body;       /* the body of the request goes to the errand */
	bool is_public;        /* also for a read-only listener */
};

/*
 * NULL when there is none: *ret_allow is then the method that the path has (for 405), or NULL (404).
 */
const struct route *route_find(const char *method, const char *path, const char **ret_allow);

/*
 * Adds an argument to an ask, as the field and type that system/protocol.h wants. -EINVAL with a
 * sentence for a name that the route does not take or a value that is wrong.
 */
int route_argument(const struct route *route, const char *name, const char *value,
		   struct message *ask, struct why *why);

/*
 * When all arguments were added: checks those that must be there and adds what follows from the
 * request's Content-Type (NULL: it has none).
 */
int route_complete(const struct route *route, const char *content_type, struct message *ask,
		   struct why *why);

/* The argument that a header of CloudEvents in HTTP ("ce-id") stands for; NULL: none. */
const char *route_header_argument(const char *header);

/* The HTTP status of a command's status (0 or -errno). */
unsigned route_code(int status);

#endif
