/* SPDX-License-Identifier: MIT */
/*
 * The instances of a service, as system/found.h says. Takes nothing of a file or a registry for
 * granted: hosts are checked before they are kept, for they go into settings and lines.
 */
#include "system/found.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

#define HOST_MAX 255

/* No spaces, no control characters, nothing that could be a URL: names and addresses alone. */
static bool is_host(const char *text)
{
	size_t length = strlen(text);

	if (!length || length > HOST_MAX)
		return false;
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c == 0x7f || strchr("/@[]\"'\\", *c))
			return false;
	return true;
}

int found_add(struct found *found, const char *host, long long port, long long weight)
{
	struct found_instance *list;
	char *copy;

	if (!is_host(host) || port < 1 || port > 65535 || weight < 1)
		return -EINVAL;
	if (found->n == FOUND_MAX)
		return -E2BIG;
	list = realloc(found->list, (found->n + 1) * sizeof *list);
	if (!list)
		return -ENOMEM;
	found->list = list;
	copy = strdup(host);
	if (!copy)
		return -ENOMEM;
	list[found->n++] = (struct found_instance){
		.host = copy,
		.port = (unsigned)port,
		.weight = weight > 65535 ? 65535 : (unsigned)weight,
	};
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct found_instance *left = a, *right = b;
	int by_host = strcmp(left->host, right->host);

	return by_host ? by_host : (left->port > right->port) - (left->port < right->port);
}

void found_settle(struct found *found)
{
	size_t n = 0;

	if (!found->n)
		return;
	qsort(found->list, found->n, sizeof *found->list, compare);
	for (size_t i = 0; i < found->n; i++) {
		if (n && !compare(&found->list[n - 1], &found->list[i]))
			free(found->list[i].host);
		else
			found->list[n++] = found->list[i];
	}
	found->n = n;
}

void found_free(struct found *found)
{
	for (size_t i = 0; i < found->n; i++)
		free(found->list[i].host);
	free(found->list);
	*found = (struct found){0};
}

bool found_same(const struct found *a, const struct found *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (compare(&a->list[i], &b->list[i]) || a->list[i].weight != b->list[i].weight)
			return false;
	return true;
}

const char *found_place(const struct found_instance *instance, char text[FOUND_PLACE_MAX])
{
	bool colons = strchr(instance->host, ':');

	snprintf(text, FOUND_PLACE_MAX, "%s%s%s:%u", colons ? "[" : "", instance->host,
		 colons ? "]" : "", instance->port);
	return text;
}

void found_shuffle(const struct found *found, double (*random)(void), size_t order[FOUND_MAX])
{
	double total = 0;

	for (size_t i = 0; i < found->n; i++) {
		order[i] = i;
		total += found->list[i].weight;
	}
	for (size_t i = 0; i < found->n; i++) {
		double left = random() * total;
		size_t at = i, taken;

		while (at + 1 < found->n && left >= found->list[order[at]].weight)
			left -= found->list[order[at++]].weight;
		taken = order[at];
		total -= found->list[taken].weight;
		memmove(order + i + 1, order + i, (at - i) * sizeof *order);
		order[i] = taken;
	}
}

void found_write(struct buf *out, const char *service, const struct found *found)
{
	for (size_t i = 0; i < found->n; i++)
		buf_printf(out, "%s\t%s\t%u\t%u\n", service, found->list[i].host,
			   found->list[i].port, found->list[i].weight);
}

int found_read(const char *text, const char *service, struct found *ret_found)
{
	char *copy = strdup(text), *rest = copy, *line;
	struct found found = {0};
	int r = copy ? 0 : -ENOMEM;

	while (r != -ENOMEM && (line = strsep(&rest, "\n"))) {
		const char *name = strsep(&line, "\t"), *host = strsep(&line, "\t");
		const char *port = strsep(&line, "\t"), *weight = strsep(&line, "\t");

		if (weight && !strcmp(name, service))
			r = found_add(&found, host, strtoll(port, NULL, 10),
				      strtoll(weight, NULL, 10));
	}
	free(copy);
	if (r == -ENOMEM) {
		found_free(&found);
		return r;
	}
	found_settle(&found);
	*ret_found = found;
	return 0;
}
