/* SPDX-License-Identifier: MIT */
/*
 * Offers and loads as text: what is written is read back; what is cut off or has a bit turned over is
 * an error with a sentence, or keeps every bound; what breaks one is refused.
 */
#include "system/offer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "unit.h"

#include "base/banned.h"

static void make_offer(struct offer *offer, uint64_t *random)
{
	int n_policies = 1 + random_below(random, 4), n_types = random_below(random, 10);
	char name[64];

	*offer = (struct offer){.plan_format_min = 1,
				.plan_format_max = 1 + random_below(random, 3),
				.node = strdup("web1 \"\xc3\xa9\""),
				.epoch = random_next(random) % 1000000};
	offer->policies = calloc((size_t)n_policies, sizeof *offer->policies);
	for (int i = 0; i < n_policies; i++)
		offer->policies[offer->n_policies++] = (struct offer_policy){
			.broker = strdup("main"),
			.queue = random_below(random, 2) ? strdup("other/queue") : NULL,
			.min = random_below(random, 3),
			.max = random_below(random, 100),
			.node_max = random_below(random, 3),
			.objective_ms = 1 + random_below(random, 100000),
			.exclusive = random_below(random, 2),
			.consumes = random_below(random, 2),
		};
	offer->types = calloc((size_t)n_types + 1, sizeof *offer->types);
	for (int i = 0; i < n_types; i++) {
		snprintf(name, sizeof name, "type%03d", i);
		offer->types[offer->n_types++] = (struct offer_type){
			.name = strdup(name),
			.policy = (size_t)random_below(random, n_policies),
			.serves = (enum offer_serves)random_below(random, OFFER_SERVES_MAX),
		};
	}
}

static void make_load(struct load *load, uint64_t *random)
{
	int n_types = random_below(random, 10);
	char name[64];

	*load = (struct load){.workers = random_below(random, 100),
			      .busy = random_below(random, 9),
			      .drained = random_below(random, 2) > 0,
			      .drained_known = true};
	load->types = calloc((size_t)n_types + 1, sizeof *load->types);
	for (int i = 0; i < n_types; i++) {
		snprintf(name, sizeof name, "type%03d", i);
		load->types[load->n_types++] = (struct load_type){
			.name = strdup(name),
			.workers = random_below(random, 50),
			.busy = random_below(random, 50),
			.held = random_below(random, 1000),
			.in_flight = random_below(random, 1000),
			.handled = random_next(random) >> 11,
			.rate = random_unit(random) * 10000,
			.handling_us = random_below(random, 5) - 1,
		};
	}
}

static void want_same_offer(const struct offer *a, const struct offer *b)
{
	assert_int_equal(a->plan_format_min, b->plan_format_min);
	assert_int_equal(a->plan_format_max, b->plan_format_max);
	assert_string_equal(a->node, b->node);
	assert_int_equal(a->epoch, b->epoch);
	assert_int_equal(a->n_policies, b->n_policies);
	assert_int_equal(a->n_types, b->n_types);
	for (size_t i = 0; i < a->n_policies; i++)
		assert_true(offer_policy_same(&a->policies[i], &b->policies[i]));
	for (size_t i = 0; i < a->n_types; i++) {
		assert_string_equal(a->types[i].name, b->types[i].name);
		assert_int_equal(a->types[i].policy, b->types[i].policy);
		assert_int_equal(a->types[i].serves, b->types[i].serves);
		assert_ptr_equal(offer_find(b, a->types[i].name), &b->types[i]);
	}
	assert_null(offer_find(b, "type"));
}

static void want_same_load(const struct load *a, const struct load *b)
{
	assert_int_equal(a->workers, b->workers);
	assert_int_equal(a->busy, b->busy);
	assert_int_equal(a->drained, b->drained);
	assert_int_equal(a->drained_known, b->drained_known);
	assert_int_equal(a->n_types, b->n_types);
	for (size_t i = 0; i < a->n_types; i++) {
		const struct load_type *x = &a->types[i], *y = &b->types[i];

		assert_string_equal(x->name, y->name);
		assert_int_equal(x->workers, y->workers);
		assert_int_equal(x->busy, y->busy);
		assert_int_equal(x->held, y->held);
		assert_int_equal(x->in_flight, y->in_flight);
		assert_int_equal(x->handled, y->handled);
		assert_true(fabs(x->rate - y->rate) <= 0.0006);
		assert_int_equal(x->handling_us, y->handling_us);
		assert_ptr_equal(load_find(b, x->name), y);
	}
	assert_null(load_find(b, "type"));
}

static void test_round_trip(void **state)
{
	uint64_t random = 21;

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct offer offer, offer_again = {0};
		struct load load, load_again = {0};
		struct buf text = {0};

		make_offer(&offer, &random);
		assert_true(offer_encode(&offer, &text));
		assert_int_equal(offer_decode(buf_front(&text), buf_size(&text), &offer_again,
					      NULL),
				 0);
		want_same_offer(&offer, &offer_again);
		buf_clear(&text);
		make_load(&load, &random);
		assert_true(load_encode(&load, &text));
		assert_int_equal(load_decode(buf_front(&text), buf_size(&text), &load_again, NULL),
				 0);
		want_same_load(&load, &load_again);
		buf_free(&text);
		offer_free(&offer);
		offer_free(&offer_again);
		load_free(&load);
		load_free(&load_again);
		assert_null(offer_again.node);
	}
}

static bool within(int64_t number, int64_t low, int64_t high)
{
	return number >= low && number <= high;
}

static void want_valid_offer(const struct offer *offer)
{
	assert_true(offer->plan_format_min >= 1 &&
		    offer->plan_format_min <= offer->plan_format_max);
	assert_true(*offer->node && strlen(offer->node) <= OFFER_NODE_MAX);
	assert_true(offer->epoch <= OFFER_NUMBER_MAX);
	for (size_t i = 0; i < offer->n_policies; i++) {
		const struct offer_policy *policy = &offer->policies[i];

		assert_true(*policy->broker && strlen(policy->broker) <= OFFER_NAME_MAX);
		assert_true(!policy->queue || strlen(policy->queue) <= OFFER_QUEUE_MAX);
		assert_true(within(policy->min, 0, OFFER_WORKERS_MAX));
		assert_true(within(policy->max, 0, OFFER_WORKERS_MAX));
		assert_true(within(policy->node_max, 0, OFFER_WORKERS_MAX));
		assert_true(policy->objective_ms > 0);
	}
	for (size_t i = 0; i < offer->n_types; i++) {
		assert_true(*offer->types[i].name);
		assert_true(!i || strcmp(offer->types[i - 1].name, offer->types[i].name) < 0);
		assert_true(offer->types[i].policy < offer->n_policies);
		assert_true(offer->types[i].serves <= OFFER_SERVES_MAX);
		assert_true(offer_serves_name(offer->types[i].serves) != NULL);
	}
}

static void want_valid_load(const struct load *load)
{
	assert_true(within(load->workers, 0, OFFER_WORKERS_MAX));
	assert_true(within(load->busy, 0, OFFER_WORKERS_MAX));
	for (size_t i = 0; i < load->n_types; i++) {
		const struct load_type *type = &load->types[i];

		assert_true(!i || strcmp(type[-1].name, type->name) < 0);
		assert_true(within(type->workers, 0, OFFER_WORKERS_MAX));
		assert_true(within(type->busy, 0, OFFER_WORKERS_MAX));
		assert_true(within(type->held, 0, OFFER_NUMBER_MAX));
		assert_true(within(type->in_flight, 0, OFFER_NUMBER_MAX));
		assert_true(type->handled <= OFFER_NUMBER_MAX);
		assert_true(type->rate >= 0 && type->rate <= (double)OFFER_NUMBER_MAX);
		assert_true(within(type->handling_us, -1, OFFER_NUMBER_MAX));
	}
}

/* 1: it was read. The text lies at the very end of its memory. */
static int want_sense(const uint8_t *bytes, size_t size, bool is_load)
{
	uint8_t *text = malloc(size ? size : 1);
	struct offer offer = {0};
	struct load load = {0};
	struct why why = {0};
	int r;

	memcpy(text, bytes, size);
	r = is_load ? load_decode(text, size, &load, &why) : offer_decode(text, size, &offer, &why);
	free(text);
	if (r < 0) {
		assert_true(r == -EINVAL || r == -EPROTONOSUPPORT);
		assert_true(*why.text);
		assert_true(!load.types && !offer.types);
		return 0;
	}
	if (is_load)
		want_valid_load(&load);
	else
		want_valid_offer(&offer);
	load_free(&load);
	offer_free(&offer);
	return 1;
}

static void try_bits(struct buf *text, bool is_load)
{
	int valid = 0;

	for (size_t size = 0; size < buf_size(text); size++)
		assert_int_equal(want_sense(buf_front(text), size, is_load), 0);
	for (size_t at = 0; at < buf_size(text); at++)
		for (int bit = 0; bit < 8; bit++) {
			buf_front(text)[at] ^= (uint8_t)(1 << bit);
			valid += want_sense(buf_front(text), buf_size(text), is_load);
			buf_front(text)[at] ^= (uint8_t)(1 << bit);
		}
	assert_true(valid > 0);
	assert_int_equal(want_sense(buf_front(text), buf_size(text), is_load), 1);
}

static void test_cut_and_flipped(void **state)
{
	uint64_t random = 22;
	struct offer offer;
	struct load load;
	struct buf text = {0};

	(void)state;
	make_offer(&offer, &random);
	assert_true(offer_encode(&offer, &text));
	try_bits(&text, false);
	buf_clear(&text);
	do
		make_load(&load, &random);
	while (!load.n_types && (load_free(&load), true));
	assert_true(load_encode(&load, &text));
	try_bits(&text, true);
	buf_free(&text);
	offer_free(&offer);
	load_free(&load);
}

#define HEAD          "{\"format\":1,\"plans\":[1,1],\"node\":\"web1\",\"epoch\":0,"
#define POLICY        "\"policies\":[{\"broker\":\"main\",\"max\":8,\"objective_ms\":5000}],"
#define WITH(members) "\"policies\":[{\"broker\":\"main\"," members "}],"
#define NONE          "\"types\":{}}"

static const struct {
	const char *name, *text;
	int error;
	const char *why; /* a part of the sentence */
} offers[] = {
	{"plain", HEAD POLICY "\"types\":{\"a\":[0,0],\"b\":[0,1]}}", 0, ""},
	{"more than is known", HEAD "\"x\":[]," POLICY "\"types\":{\"a\":[0,0,[7]]}}", 0, ""},
	{"a reason that is newer than we are", HEAD POLICY "\"types\":{\"a\":[0,99]}}", 0, ""},
	{"newer", "{\"format\":2}", -EPROTONOSUPPORT, "of format 2"},
	{"no format", "{\"plans\":[1,1],\"node\":\"web1\",\"epoch\":0," POLICY NONE, -EINVAL,
	 "\"format\" is missing"},
	{"no object", "7", -EINVAL, "no JSON object"},
	{"one plan format",
	 "{\"format\":1,\"plans\":[1],\"node\":\"web1\",\"epoch\":0," POLICY NONE, -EINVAL,
	 "no array of 2 numbers"},
	{"plan formats upside down",
	 "{\"format\":1,\"plans\":[2,1],\"node\":\"web1\",\"epoch\":0," POLICY NONE, -EINVAL,
	 "more than the second"},
	{"no node", "{\"format\":1,\"plans\":[1,1],\"node\":\"\",\"epoch\":0," POLICY NONE, -EINVAL,
	 "\"node\""},
	{"a negative epoch",
	 "{\"format\":1,\"plans\":[1,1],\"node\":\"a\",\"epoch\":-1," POLICY NONE, -EINVAL,
	 "\"epoch\""},
	{"no max", HEAD WITH("\"objective_ms\":1") NONE, -EINVAL, "\"max\" is missing"},
	{"max twice", HEAD WITH("\"max\":1,\"max\":2,\"objective_ms\":1") NONE, -EINVAL,
	 "\"max\" is there twice"},
	{"a negative max", HEAD WITH("\"max\":-1,\"objective_ms\":1") NONE, -EINVAL, "\"max\""},
	{"a max without an end", HEAD WITH("\"max\":1048577,\"objective_ms\":1") NONE, -EINVAL,
	 "\"max\""},
	{"an objective of 0", HEAD WITH("\"max\":1,\"objective_ms\":0") NONE, -EINVAL,
	 "objective_ms"},
	{"a flag that is none", HEAD WITH("\"max\":1,\"objective_ms\":1,\"exclusive\":1") NONE,
	 -EINVAL, "neither true nor false"},
	{"an empty queue", HEAD WITH("\"max\":1,\"objective_ms\":1,\"queue\":\"\"") NONE, -EINVAL,
	 "\"queue\""},
	{"policies that are none", HEAD "\"policies\":{}," NONE, -EINVAL, "no JSON array"},
	{"a policy that is not there", HEAD POLICY "\"types\":{\"a\":[1,0]}}", -EINVAL,
	 "policy 1 of 1"},
	{"a type twice", HEAD POLICY "\"types\":{\"a\":[0,0],\"a\":[0,1]}}", -EINVAL,
	 "there twice"},
	{"types out of order", HEAD POLICY "\"types\":{\"b\":[0,0],\"a\":[0,1]}}", -EINVAL,
	 "not in order"},
	{"a negative reason", HEAD POLICY "\"types\":{\"a\":[0,-1]}}", -EINVAL, "\"a\""},
};

#define LOAD "{\"format\":1,\"workers\":3,\"busy\":1,\"types\":"

static const struct {
	const char *name, *text;
	int error;
	const char *why;
} loads[] = {
	{"plain", LOAD "{\"a\":[1,1,0,1,99,1500,20000]}}", 0, ""},
	{"more than is known", LOAD "{\"a\":[1,1,0,1,99,1500,-1,8,9]},\"x\":1}", 0, ""},
	{"newer", "{\"format\":3,\"types\":1}", -EPROTONOSUPPORT, "of format 3"},
	{"no flag", "{\"format\":1,\"workers\":3,\"busy\":1,\"drained\":1,\"types\":{}}", -EINVAL,
	 "\"drained\""},
	{"too few numbers", LOAD "{\"a\":[1,1,0,1,99,1500]}}", -EINVAL, "no array of 7 numbers"},
	{"no array", LOAD "{\"a\":{}}}", -EINVAL, "no array of 7 numbers"},
	{"negative workers", LOAD "{\"a\":[-1,1,0,1,99,1500,0]}}", -EINVAL, "element 1"},
	{"a fraction", LOAD "{\"a\":[1,1,0,1,99,1.5,0]}}", -EINVAL, "element 6"},
	{"never handled, twice", LOAD "{\"a\":[1,1,0,1,99,1,-2]}}", -EINVAL, "element 7"},
	{"out of order", LOAD "{\"b\":[1,1,0,1,9,1,0],\"a\":[1,1,0,1,9,1,0]}}", -EINVAL,
	 "in order"},
	{"no types", "{\"format\":1,\"workers\":3,\"busy\":1}", -EINVAL, "\"types\" is missing"},
};

static void test_texts(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(offers); i++) {
		struct offer offer = {0};
		struct why why = {0};

		want_int(offers[i].name,
			 offer_decode(offers[i].text, strlen(offers[i].text), &offer, &why),
			 offers[i].error);
		if (!strstr(why.text, offers[i].why))
			want_text(offers[i].name, why.text, offers[i].why);
		offer_free(&offer);
	}
	for (size_t i = 0; i < ROWS(loads); i++) {
		struct load load = {0};
		struct why why = {0};

		want_int(loads[i].name,
			 load_decode(loads[i].text, strlen(loads[i].text), &load, &why),
			 loads[i].error);
		if (!strstr(why.text, loads[i].why))
			want_text(loads[i].name, why.text, loads[i].why);
		load_free(&load);
	}
}

/* Rates that are none must not make a text that nobody can read. */
static void test_rates(void **state)
{
	static const double rates[] = {NAN, INFINITY, -INFINITY, -1, 1e300, 0.0004};
	static const double read[] = {0, 9007199254740.992, 0, 0, 9007199254740.992, 0};

	(void)state;
	for (size_t i = 0; i < ROWS(rates); i++) {
		struct load_type type = {.name = (char[]){"a"}, .rate = rates[i]};
		struct load load = {.types = &type, .n_types = 1}, again = {0};
		struct buf text = {0};

		assert_true(load_encode(&load, &text));
		assert_int_equal(load_decode(buf_front(&text), buf_size(&text), &again, NULL), 0);
		want_between("rate", again.types[0].rate, read[i] - 0.001, read[i] + 0.001);
		load_free(&again);
		buf_free(&text);
	}
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(offer_serves_name(OFFER_SERVES), "");
	for (int i = OFFER_PROBING; i <= OFFER_SERVES_MAX; i++)
		assert_true(strlen(offer_serves_name((enum offer_serves)i)) > 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_cut_and_flipped),
		cmocka_unit_test(test_texts),      cmocka_unit_test(test_rates),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
