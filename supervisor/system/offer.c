/* SPDX-License-Identifier: MIT */
/*
 * Writes and reads what nodes say of themselves. Decides nothing: who may take a share comes of it in
 * the supervisor that leads. It comes from a registry that others can write to, so all of it is
 * checked: this parser is a fuzz target. Called by the supervisor.
 */
#include "system/offer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "system/json.h"

#include "base/banned.h"

#define OBJECTIVE_MAX_MS (INT64_C(10000) * 86400 * 1000)

static const char *const serves_names[OFFER_SERVES_MAX] = {
	[OFFER_SERVES] = "",
	[OFFER_PROBING] = "most events fail",
	[OFFER_NO_HANDLER] = "no handler",
	[OFFER_REFUSED_HANDLER] = "its handler was refused",
	[OFFER_FAILING] = "its processes fail",
	[OFFER_PAUSED] = "paused",
	[OFFER_DRAINING] = "draining",
	[OFFER_LEAVING] = "its configuration was removed",
};

const char *offer_serves_name(enum offer_serves serves)
{
	return serves < OFFER_SERVES_MAX ? serves_names[serves] : "not served";
}

static void append_text(struct buf *out, const char *before, const char *text)
{
	buf_append_text(out, before);
	json_append_quoted(out, text, strlen(text));
}

static void append_policy(struct buf *out, const struct offer_policy *policy)
{
	append_text(out, "{\"broker\":", policy->broker);
	if (policy->queue)
		append_text(out, ",\"queue\":", policy->queue);
	if (policy->min)
		buf_printf(out, ",\"min\":%d", policy->min);
	buf_printf(out, ",\"max\":%d", policy->max);
	if (policy->node_max)
		buf_printf(out, ",\"node_max\":%d", policy->node_max);
	buf_printf(out, ",\"objective_ms\":%lld", (long long)policy->objective_ms);
	if (policy->exclusive)
		buf_append_text(out, ",\"exclusive\":true");
	if (policy->consumes)
		buf_append_text(out, ",\"consumes\":true");
	buf_append_text(out, "}");
}

bool offer_encode(const struct offer *offer, struct buf *out)
{
	buf_printf(out, "{\"format\":%d,\"plans\":[%d,%d]", OFFER_FORMAT, offer->plan_format_min,
		   offer->plan_format_max);
	append_text(out, ",\"node\":", offer->node);
	buf_printf(out, ",\"epoch\":%llu,\"policies\":[", (unsigned long long)offer->epoch);
	for (size_t i = 0; i < offer->n_policies; i++) {
		buf_append_text(out, i ? "," : "");
		append_policy(out, &offer->policies[i]);
	}
	buf_append_text(out, "],\"types\":{");
	for (size_t i = 0; i < offer->n_types; i++) {
		append_text(out, i ? "," : "", offer->types[i].name);
		buf_printf(out, ":[%zu,%d]", offer->types[i].policy, (int)offer->types[i].serves);
	}
	buf_append_text(out, "}}");
	return !out->failed;
}

static int read_number(const struct json *value, int64_t low, int64_t high, int64_t *ret_number,
		       struct why *why)
{
	if (json_integer(value, low, high, ret_number))
		return 0;
	return why_set(why, -EINVAL, "no whole number from %lld to %lld", (long long)low,
		       (long long)high);
}

static int read_workers(const struct json *value, int *ret_workers, struct why *why)
{
	int64_t number;
	int r = read_number(value, 0, OFFER_WORKERS_MAX, &number, why);

	if (r >= 0)
		*ret_workers = (int)number;
	return r;
}

static int read_flag(const struct json *value, bool *ret_flag, struct why *why)
{
	if (value->type != JSON_TRUE && value->type != JSON_FALSE)
		return why_set(why, -EINVAL, "neither true nor false");
	*ret_flag = value->type == JSON_TRUE;
	return 0;
}

/* The first n elements of an array. */
static int read_numbers(const struct json *array, size_t n, const int64_t *low, const int64_t *high,
			int64_t *ret_numbers, struct why *why)
{
	size_t position = 0;
	struct json item;
	int r;

	for (size_t i = 0; i < n; i++) {
		if (!json_item(array, &position, &item))
			return why_set(why, -EINVAL, "no array of %zu numbers", n);
		r = read_number(&item, low[i], high[i], &ret_numbers[i], why);
		if (r < 0)
			return why_prefix(why, r, "element %zu", i + 1);
	}
	return 0;
}

static int read_format(const struct json *value, void *into, struct why *why)
{
	int64_t format;
	int r = read_number(value, 1, INT32_MAX, &format, why);

	(void)into;
	if (r >= 0 && format > OFFER_FORMAT)
		return why_set(why, -EPROTONOSUPPORT,
			       "it is of format %d; this droverd reads up to %d", (int)format,
			       OFFER_FORMAT);
	return r;
}

/* The rows of a policy. */

static int read_broker(const struct json *value, void *into, struct why *why)
{
	return json_copy(value, OFFER_NAME_MAX, &((struct offer_policy *)into)->broker, why);
}

static int read_queue(const struct json *value, void *into, struct why *why)
{
	return json_copy(value, OFFER_QUEUE_MAX, &((struct offer_policy *)into)->queue, why);
}

static int read_min(const struct json *value, void *into, struct why *why)
{
	return read_workers(value, &((struct offer_policy *)into)->min, why);
}

static int read_max(const struct json *value, void *into, struct why *why)
{
	return read_workers(value, &((struct offer_policy *)into)->max, why);
}

static int read_node_max(const struct json *value, void *into, struct why *why)
{
	return read_workers(value, &((struct offer_policy *)into)->node_max, why);
}

static int read_objective(const struct json *value, void *into, struct why *why)
{
	return read_number(value, 1, OBJECTIVE_MAX_MS, &((struct offer_policy *)into)->objective_ms,
			   why);
}

static int read_exclusive(const struct json *value, void *into, struct why *why)
{
	return read_flag(value, &((struct offer_policy *)into)->exclusive, why);
}

static int read_consumes(const struct json *value, void *into, struct why *why)
{
	return read_flag(value, &((struct offer_policy *)into)->consumes, why);
}

static const struct json_member policy_members[] = {
	{"broker", true, read_broker},
	{"queue", false, read_queue},
	{"min", false, read_min},
	{"max", true, read_max},
	{"node_max", false, read_node_max},
	{"objective_ms", true, read_objective},
	{"exclusive", false, read_exclusive},
	{"consumes", false, read_consumes},
};

/* The rows of an offer. */

static int read_plans(const struct json *value, void *into, struct why *why)
{
	static const int64_t low[] = {1, 1}, high[] = {INT32_MAX, INT32_MAX};
	struct offer *offer = into;
	int64_t formats[2];
	int r = read_numbers(value, 2, low, high, formats, why);

	if (r < 0)
		return r;
	if (formats[0] > formats[1])
		return why_set(why, -EINVAL, "the first is more than the second");
	offer->plan_format_min = (int)formats[0];
	offer->plan_format_max = (int)formats[1];
	return 0;
}

static int read_node(const struct json *value, void *into, struct why *why)
{
	return json_copy(value, OFFER_NODE_MAX, &((struct offer *)into)->node, why);
}

static int read_epoch(const struct json *value, void *into, struct why *why)
{
	int64_t epoch;
	int r = read_number(value, 0, OFFER_NUMBER_MAX, &epoch, why);

	if (r >= 0)
		((struct offer *)into)->epoch = (uint64_t)epoch;
	return r;
}

static int read_policies(const struct json *value, void *into, struct why *why)
{
	struct offer *offer = into;
	size_t position = 0;
	struct json item;
	int r;

	offer->policies = json_rows(value, JSON_ARRAY, sizeof *offer->policies, &r, why);
	if (!offer->policies)
		return r;
	while (json_item(value, &position, &item)) {
		r = json_members(&item, policy_members,
				 sizeof policy_members / sizeof *policy_members,
				 &offer->policies[offer->n_policies++], why);
		if (r < 0)
			return why_prefix(why, r, "element %zu", offer->n_policies);
	}
	return 0;
}

static int read_offer_type(const struct json *key, const struct json *value,
			   struct offer_type *type, struct why *why)
{
	static const int64_t low[] = {0, 0}, high[] = {OFFER_BYTES_MAX, INT32_MAX};
	int64_t numbers[2];
	int r;

	r = json_copy(key, OFFER_NAME_MAX, &type->name, why);
	if (r < 0)
		return r;
	r = read_numbers(value, 2, low, high, numbers, why);
	if (r < 0)
		return why_prefix(why, r, "\"%s\"", type->name);
	type->policy = (size_t)numbers[0];
	type->serves =
		numbers[1] < OFFER_SERVES_MAX ? (enum offer_serves)numbers[1] : OFFER_SERVES_MAX;
	return 0;
}

static int out_of_order(const char *name, struct why *why)
{
	return why_set(why, -EINVAL, "\"%s\" is not in order, or there twice", name);
}

static int read_offer_types(const struct json *value, void *into, struct why *why)
{
	struct offer *offer = into;
	struct json key, item;
	size_t position = 0;
	int r;

	offer->types = json_rows(value, JSON_OBJECT, sizeof *offer->types, &r, why);
	if (!offer->types)
		return r;
	while (json_next(value, &position, &key, &item)) {
		struct offer_type *type = &offer->types[offer->n_types++];

		r = read_offer_type(&key, &item, type, why);
		if (r < 0)
			return r;
		if (offer->n_types > 1 && strcmp(type[-1].name, type->name) >= 0)
			return out_of_order(type->name, why);
	}
	return 0;
}

static const struct json_member offer_members[] = {
	{"format", true, read_format},     {"plans", true, read_plans},
	{"node", true, read_node},         {"epoch", true, read_epoch},
	{"policies", true, read_policies}, {"types", true, read_offer_types},
};

static int check_policies(const struct offer *offer, struct why *why)
{
	for (size_t i = 0; i < offer->n_types; i++)
		if (offer->types[i].policy >= offer->n_policies)
			return why_set(why, -EINVAL, "\"%s\" has policy %zu of %zu",
				       offer->types[i].name, offer->types[i].policy,
				       offer->n_policies);
	return 0;
}

static int read_text(const void *text, size_t size, struct json *ret_root, struct why *why)
{
	if (size > OFFER_BYTES_MAX)
		return why_set(why, -EINVAL, "%zu bytes are more than %d", size, OFFER_BYTES_MAX);
	return json_read(text, size, ret_root, why);
}

int offer_decode(const void *text, size_t size, struct offer *ret_offer, struct why *why)
{
	struct offer offer = {0};
	struct json root;
	int r;

	r = read_text(text, size, &root, why);
	if (r >= 0)
		r = json_members(&root, offer_members, sizeof offer_members / sizeof *offer_members,
				 &offer, why);
	if (r >= 0)
		r = check_policies(&offer, why);
	if (r < 0) {
		offer_free(&offer);
		return r;
	}
	*ret_offer = offer;
	return 0;
}

void offer_free(struct offer *offer)
{
	if (!offer)
		return;
	free(offer->node);
	for (size_t i = 0; i < offer->n_policies; i++) {
		free(offer->policies[i].broker);
		free(offer->policies[i].queue);
	}
	free(offer->policies);
	for (size_t i = 0; i < offer->n_types; i++)
		free(offer->types[i].name);
	free(offer->types);
	*offer = (struct offer){0};
}

static int compare_offer_type(const void *name, const void *type)
{
	return strcmp(name, ((const struct offer_type *)type)->name);
}

const struct offer_type *offer_find(const struct offer *offer, const char *type)
{
	return offer->n_types ? bsearch(type, offer->types, offer->n_types, sizeof *offer->types,
					compare_offer_type)
			      : NULL;
}

bool offer_policy_same(const struct offer_policy *a, const struct offer_policy *b)
{
	return !strcmp(a->broker, b->broker) && !a->queue == !b->queue &&
	       (!a->queue || !strcmp(a->queue, b->queue)) && a->min == b->min && a->max == b->max &&
	       a->node_max == b->node_max && a->objective_ms == b->objective_ms &&
	       a->exclusive == b->exclusive && a->consumes == b->consumes;
}

/* Loads. */

static long long thousandths(double rate)
{
	if (!(rate > 0))
		return 0;
	return rate < (double)OFFER_NUMBER_MAX / 1000 ? (long long)(rate * 1000 + 0.5)
						      : (long long)OFFER_NUMBER_MAX;
}

bool load_encode(const struct load *load, struct buf *out)
{
	buf_printf(out, "{\"format\":%d,\"workers\":%d,\"busy\":%d,\"drained\":%s,\"types\":{",
		   OFFER_FORMAT, load->workers, load->busy, load->drained ? "true" : "false");
	for (size_t i = 0; i < load->n_types; i++) {
		const struct load_type *type = &load->types[i];

		append_text(out, i ? "," : "", type->name);
		buf_printf(out, ":[%d,%d,%lld,%lld,%llu,%lld,%lld]", type->workers, type->busy,
			   (long long)type->held, (long long)type->in_flight,
			   (unsigned long long)type->handled, thousandths(type->rate),
			   (long long)type->handling_us);
	}
	buf_append_text(out, "}}");
	return !out->failed;
}

static int read_load_workers(const struct json *value, void *into, struct why *why)
{
	return read_workers(value, &((struct load *)into)->workers, why);
}

static int read_load_busy(const struct json *value, void *into, struct why *why)
{
	return read_workers(value, &((struct load *)into)->busy, why);
}

static int read_load_drained(const struct json *value, void *into, struct why *why)
{
	((struct load *)into)->drained_known = true;
	return read_flag(value, &((struct load *)into)->drained, why);
}

static int read_load_type(const struct json *key, const struct json *value, struct load_type *type,
			  struct why *why)
{
	static const int64_t low[] = {0, 0, 0, 0, 0, 0, -1};
	static const int64_t high[] = {
		OFFER_WORKERS_MAX, OFFER_WORKERS_MAX, OFFER_NUMBER_MAX, OFFER_NUMBER_MAX,
		OFFER_NUMBER_MAX,  OFFER_NUMBER_MAX,  OFFER_NUMBER_MAX,
	};
	int64_t numbers[7];
	int r;

	r = json_copy(key, OFFER_NAME_MAX, &type->name, why);
	if (r < 0)
		return r;
	r = read_numbers(value, 7, low, high, numbers, why);
	if (r < 0)
		return why_prefix(why, r, "\"%s\"", type->name);
	type->workers = (int)numbers[0];
	type->busy = (int)numbers[1];
	type->held = numbers[2];
	type->in_flight = numbers[3];
	type->handled = (uint64_t)numbers[4];
	type->rate = (double)numbers[5] / 1000;
	type->handling_us = numbers[6];
	return 0;
}

static int read_load_types(const struct json *value, void *into, struct why *why)
{
	struct load *load = into;
	struct json key, item;
	size_t position = 0;
	int r;

	load->types = json_rows(value, JSON_OBJECT, sizeof *load->types, &r, why);
	if (!load->types)
		return r;
	while (json_next(value, &position, &key, &item)) {
		struct load_type *type = &load->types[load->n_types++];

		r = read_load_type(&key, &item, type, why);
		if (r < 0)
			return r;
		if (load->n_types > 1 && strcmp(type[-1].name, type->name) >= 0)
			return out_of_order(type->name, why);
	}
	return 0;
}

static const struct json_member load_members[] = {
	{"format", true, read_format},    {"workers", true, read_load_workers},
	{"busy", true, read_load_busy},   {"drained", false, read_load_drained},
	{"types", true, read_load_types},
};

int load_decode(const void *text, size_t size, struct load *ret_load, struct why *why)
{
	struct load load = {0};
	struct json root;
	int r;

	r = read_text(text, size, &root, why);
	if (r >= 0)
		r = json_members(&root, load_members, sizeof load_members / sizeof *load_members,
				 &load, why);
	if (r < 0) {
		load_free(&load);
		return r;
	}
	*ret_load = load;
	return 0;
}

void load_free(struct load *load)
{
	if (!load)
		return;
	for (size_t i = 0; i < load->n_types; i++)
		free(load->types[i].name);
	free(load->types);
	*load = (struct load){0};
}

static int compare_load_type(const void *name, const void *type)
{
	return strcmp(name, ((const struct load_type *)type)->name);
}

const struct load_type *load_find(const struct load *load, const char *type)
{
	return load->n_types ? bsearch(type, load->types, load->n_types, sizeof *load->types,
				       compare_load_type)
			     : NULL;
}
