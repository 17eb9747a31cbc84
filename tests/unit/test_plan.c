/* SPDX-License-Identifier: MIT */
/*
 * Plans as text: what is written is read back; what is cut off or has a bit turned over is an error
 * with a sentence or a plan that keeps every bound; what breaks a bound is refused. And shares: they
 * sum up to the totals, within node_max and groups, and everybody who holds the plan agrees.
 */
#include "system/plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "system/group.h"
#include "unit.h"

#include "base/banned.h"

static char *id_of(int i)
{
	char text[PLAN_ID_MAX + 1];

	snprintf(text, sizeof text, "node%05d", i);
	return strdup(text);
}

/* Sorted, as a leader writes them, in any format; some of the nodes, most of them, and few. */
static void make_plan(struct plan *plan, uint64_t *random, int n_nodes, int n_types)
{
	char name[64];

	*plan = (struct plan){.format = PLAN_FORMAT_MIN + random_below(random, 2),
			      .epoch = 1 + random_next(random) % 1000,
			      .seq = random_next(random) % 1000,
			      .leader = id_of(0)};
	plan->nodes = calloc((size_t)n_nodes + 1, sizeof *plan->nodes);
	for (int i = 0; i < n_nodes; i++) {
		struct plan_node *node = &plan->nodes[plan->n_nodes++];

		node->id = id_of(i);
		node->member = (struct apportion_member){apportion_hash(node->id),
							 (uint32_t)random_below(random, 5), -1};
	}
	plan->groups = calloc(3, sizeof *plan->groups);
	plan->n_groups = 3;
	for (size_t g = 0; g < 3; g++) {
		struct plan_group *group = &plan->groups[g];

		group->nodes = calloc((size_t)n_nodes + 1, sizeof *group->nodes);
		for (int i = 0; i < n_nodes; i++)
			if (g == 2 ? !random_below(random, 9) : random_below(random, g ? 40 : 3))
				group->nodes[group->n++] = (unsigned)i;
	}
	plan->types = calloc((size_t)n_types + 1, sizeof *plan->types);
	for (int i = 0; i < n_types; i++) {
		snprintf(name, sizeof name, "type%04d \"\\\xc3\xa9/", i);
		plan->types[plan->n_types++] = (struct plan_type){
			.name = strdup(name),
			.total = 1 + random_below(random, 50),
			.node_max = random_below(random, 2) ? 0 : 1 + random_below(random, 6),
			.group = random_below(random, 4) - 1,
		};
	}
}

static void test_round_trip(void **state)
{
	uint64_t random = 11;

	(void)state;
	for (int round = 0; round < 200; round++) {
		struct plan plan, again = {0};
		struct buf text = {0}, twice = {0};
		struct why why = {0};

		make_plan(&plan, &random, random_below(&random, round % 10 ? 12 : 300),
			  random_below(&random, 12));
		assert_true(plan_encode(&plan, &text));
		want_text("round trip",
			  plan_decode(buf_front(&text), buf_size(&text), &again, &why) < 0
				  ? why.text
				  : "",
			  "");
		assert_true(plan_same(&plan, &again));
		assert_int_equal(plan_compare(&plan, &again), 0);
		assert_int_equal(plan.format, again.format);
		assert_string_equal(plan.leader, again.leader);
		assert_true(plan_encode(&again, &twice));
		assert_int_equal(buf_size(&text), buf_size(&twice));
		assert_memory_equal(buf_front(&text), buf_front(&twice), buf_size(&text));
		for (size_t i = 0; i < plan.n_types; i++)
			assert_ptr_equal(plan_find(&again, plan.types[i].name), &again.types[i]);
		assert_null(plan_find(&again, "type"));
		buf_free(&text);
		buf_free(&twice);
		plan_free(&plan);
		plan_free(&again);
		assert_int_equal(again.epoch, 0);
	}
}

/* Every bound of the header. */
static void want_valid(const struct plan *plan)
{
	assert_true(plan->format >= PLAN_FORMAT_MIN && plan->format <= PLAN_FORMAT);
	assert_true(plan->epoch >= 1 && plan->epoch <= PLAN_EPOCH_MAX);
	assert_true(plan->seq <= PLAN_EPOCH_MAX);
	assert_true(*plan->leader && strlen(plan->leader) <= PLAN_ID_MAX);
	for (size_t i = 0; i < plan->n_nodes; i++) {
		assert_true(*plan->nodes[i].id && strlen(plan->nodes[i].id) <= PLAN_ID_MAX);
		assert_true(!i || strcmp(plan->nodes[i - 1].id, plan->nodes[i].id) < 0);
		assert_true(plan->nodes[i].member.weight <= APPORTION_WEIGHT_MAX);
		assert_true(plan->nodes[i].member.node == apportion_hash(plan->nodes[i].id));
		assert_int_equal(plan->nodes[i].member.cap, -1);
	}
	for (size_t g = 0; g < plan->n_groups; g++)
		for (size_t i = 0; i < plan->groups[g].n; i++) {
			assert_true(plan->groups[g].nodes[i] < plan->n_nodes);
			assert_true(!i || plan->groups[g].nodes[i - 1] < plan->groups[g].nodes[i]);
		}
	for (size_t i = 0; i < plan->n_types; i++) {
		const struct plan_type *type = &plan->types[i];

		assert_true(*type->name && strlen(type->name) <= PLAN_NAME_MAX);
		assert_true(!i || strcmp(type[-1].name, type->name) < 0);
		assert_true(type->total >= 1 && type->total <= APPORTION_TOTAL_MAX);
		assert_true(type->node_max >= 0 && type->node_max <= APPORTION_TOTAL_MAX);
		assert_true(type->group >= -1 && type->group < (int)plan->n_groups);
	}
}

/* 1: it was a plan. The text lies at the very end of its memory, so that no tool misses a step over. */
static int want_sense(const uint8_t *bytes, size_t size)
{
	uint8_t *text = malloc(size ? size : 1);
	struct plan plan = {.epoch = 4711};
	struct why why = {0};
	int r;

	memcpy(text, bytes, size);
	r = plan_decode(text, size, &plan, &why);
	free(text);
	if (r < 0) {
		assert_true(r == -EINVAL || r == -EPROTONOSUPPORT);
		assert_true(*why.text);
		assert_int_equal(plan.epoch, 4711);
		return 0;
	}
	want_valid(&plan);
	plan_free(&plan);
	return 1;
}

static void test_cut_and_flipped(void **state)
{
	uint64_t random = 12;
	struct plan plan;
	struct buf text = {0};
	int valid = 0;

	(void)state;
	make_plan(&plan, &random, 4, 5);
	assert_true(plan_encode(&plan, &text));
	for (size_t size = 0; size < buf_size(&text); size++)
		assert_int_equal(want_sense(buf_front(&text), size), 0);
	for (size_t at = 0; at < buf_size(&text); at++)
		for (int bit = 0; bit < 8; bit++) {
			buf_front(&text)[at] ^= (uint8_t)(1 << bit);
			valid += want_sense(buf_front(&text), buf_size(&text));
			buf_front(&text)[at] ^= (uint8_t)(1 << bit);
		}
	assert_true(valid > 0); /* a digit became another */
	assert_int_equal(want_sense(buf_front(&text), buf_size(&text)), 1);
	buf_free(&text);
	plan_free(&plan);
}

#define HEAD  "{\"format\":1,\"epoch\":7,\"seq\":1,\"leader\":\"a\","
#define HEAD2 "{\"format\":2,\"epoch\":7,\"seq\":1,\"leader\":\"a\","
#define NODES "\"nodes\":[[\"a\",1],[\"b\",2]],"
#define REST  "\"groups\":[],\"types\":{}}"

static const struct {
	const char *name, *text;
	int error;
	const char *why; /* a part of the sentence */
} texts[] = {
	{"plain", HEAD NODES REST, 0, ""},
	{"more than is known",
	 HEAD
	 "\"new\":{\"nodes\":3},\"nodes\":[[\"a\",1,\"x\"],[\"b\",2]],\"groups\":[],\"types\":{\"t\":[1,0,-1,[9]]}}",
	 0, ""},
	{"in any order",
	 "{\"types\":{},\"groups\":[],\"nodes\":[],\"leader\":\"a\",\"seq\":0,\"epoch\":1,\"format\":1}",
	 0, ""},
	{"blanks", " { \"format\" : 1 , \"epoch\":7,\"seq\":1,\"leader\":\"a\"," NODES REST " \n",
	 0, ""},
	{"nothing", "", -EINVAL, "not JSON"},
	{"no object", "[1]", -EINVAL, "\"format\" is missing"},
	{"newer", "{\"format\":3,\"nodes\":\"anything\"}", -EPROTONOSUPPORT, "of format 3"},
	{"older", "{\"format\":0}", -EPROTONOSUPPORT, "of format 0"},
	{"a format that is none", "{\"format\":\"1\"}", -EINVAL, "\"format\""},
	{"no leader", "{\"format\":1,\"epoch\":7,\"seq\":1," NODES REST, -EINVAL,
	 "\"leader\" is missing"},
	{"no groups", HEAD NODES "\"types\":{}}", -EINVAL, "\"groups\" is missing"},
	{"an empty leader", "{\"format\":1,\"epoch\":7,\"seq\":1,\"leader\":\"\"," NODES REST,
	 -EINVAL, "leader"},
	{"a control character",
	 "{\"format\":1,\"epoch\":7,\"seq\":1,\"leader\":\"a\\u0000\"," NODES REST, -EINVAL,
	 "leader"},
	{"epoch 0", "{\"format\":1,\"epoch\":0,\"seq\":1,\"leader\":\"a\"," NODES REST, -EINVAL,
	 "epoch"},
	{"an epoch without an end",
	 "{\"format\":1,\"epoch\":18446744073709551615,\"seq\":1,\"leader\":\"a\"," NODES REST,
	 -EINVAL, "epoch"},
	{"a fraction", "{\"format\":1,\"epoch\":1.0,\"seq\":1,\"leader\":\"a\"," NODES REST,
	 -EINVAL, "epoch"},
	{"an exponent", "{\"format\":1,\"epoch\":1e3,\"seq\":1,\"leader\":\"a\"," NODES REST,
	 -EINVAL, "epoch"},
	{"epoch twice",
	 "{\"format\":1,\"epoch\":1,\"epoch\":2,\"seq\":1,\"leader\":\"a\"," NODES REST, -EINVAL,
	 "twice"},
	{"a node twice", HEAD "\"nodes\":[[\"a\",1],[\"a\",1]]," REST, -EINVAL, "there twice"},
	{"nodes out of order", HEAD "\"nodes\":[[\"b\",1],[\"a\",1]]," REST, -EINVAL,
	 "not in order"},
	{"a negative weight", HEAD "\"nodes\":[[\"a\",-1]]," REST, -EINVAL, "no weight"},
	{"a heavy node", HEAD "\"nodes\":[[\"a\",65536]]," REST, -EINVAL,
	 "no weight from 0 to 65535"},
	{"no weight", HEAD "\"nodes\":[[\"a\"]]," REST, -EINVAL, "no weight"},
	{"a node that is none", HEAD "\"nodes\":[7]," REST, -EINVAL, "no array"},
	{"a long id", HEAD "\"nodes\":[[\"123456789012345678901234567890123\",1]]," REST, -EINVAL,
	 "1 to 32"},
	{"a group of nobody known", HEAD NODES "\"groups\":[[0,2]],\"types\":{}}", -EINVAL,
	 "node 2 of 2"},
	{"a group with one twice", HEAD NODES "\"groups\":[[1,1]],\"types\":{}}", -EINVAL,
	 "no index in order"},
	{"a negative index", HEAD NODES "\"groups\":[[-1]],\"types\":{}}", -EINVAL, "no index"},
	{"a type of no group", HEAD NODES "\"groups\":[[0]],\"types\":{\"t\":[1,0,1]}}", -EINVAL,
	 "group 1 of 1"},
	{"a type twice", HEAD NODES "\"groups\":[],\"types\":{\"t\":[1],\"t\":[2]}}", -EINVAL,
	 "there twice"},
	{"twice, in other letters",
	 HEAD NODES "\"groups\":[],\"types\":{\"t\":[1],\"\\u0074\":[2]}}", -EINVAL, "there twice"},
	{"a total of 0", HEAD NODES "\"groups\":[],\"types\":{\"t\":[0]}}", -EINVAL,
	 "element 1 of \"t\""},
	{"a total without an end",
	 HEAD NODES "\"groups\":[],\"types\":{\"t\":[99999999999999999999]}}", -EINVAL,
	 "element 1"},
	{"a large total", HEAD NODES "\"groups\":[],\"types\":{\"t\":[1048577]}}", -EINVAL,
	 "element 1"},
	{"a negative node_max", HEAD NODES "\"groups\":[],\"types\":{\"t\":[1,-1]}}", -EINVAL,
	 "element 2"},
	{"no total", HEAD NODES "\"groups\":[],\"types\":{\"t\":[]}}", -EINVAL, "no total"},
	{"a total that is none", HEAD NODES "\"groups\":[],\"types\":{\"t\":7}}", -EINVAL,
	 "no total"},
	{"a type without a name", HEAD NODES "\"groups\":[],\"types\":{\"\":[1]}}", -EINVAL,
	 "printable"},
	{"all but one", HEAD2 NODES "\"groups\":[{\"but\":[1]}],\"types\":{\"t\":[1,0,0]}}", 0, ""},
	{"digits", HEAD2 NODES "\"groups\":[\"4\"],\"types\":{\"t\":[1,0,0]}}", 0, ""},
	{"groups before nodes", HEAD2 "\"groups\":[\"c\",{\"but\":[]},[0]]," NODES "\"types\":{}}",
	 0, ""},
	{"no nodes", HEAD2 "\"nodes\":[],\"groups\":[\"\",{\"but\":[]},[]],\"types\":{}}", 0, ""},
	{"all but one, in format 1", HEAD NODES "\"groups\":[{\"but\":[1]}],\"types\":{}}", -EINVAL,
	 "element 1"},
	{"digits in format 1", HEAD NODES "\"groups\":[\"c\"],\"types\":{}}", -EINVAL, "element 1"},
	{"all but nobody known", HEAD2 NODES "\"groups\":[{\"but\":[2]}],\"types\":{}}", -EINVAL,
	 "node 2 of 2"},
	{"all but one, twice", HEAD2 NODES "\"groups\":[{\"but\":[1,1]}],\"types\":{}}", -EINVAL,
	 "no index in order"},
	{"an object that says nothing", HEAD2 NODES "\"groups\":[{}],\"types\":{}}", -EINVAL,
	 "\"but\" is missing"},
	{"a group that is none", HEAD2 NODES "\"groups\":[7],\"types\":{}}", -EINVAL, "element 1"},
	{"too few digits", HEAD2 NODES "\"groups\":[\"\"],\"types\":{}}", -EINVAL,
	 "0 digits are not a quarter of 2 nodes"},
	{"too many digits", HEAD2 NODES "\"groups\":[\"c0\"],\"types\":{}}", -EINVAL, "2 digits"},
	{"a digit that is none", HEAD2 NODES "\"groups\":[\"g\"],\"types\":{}}", -EINVAL,
	 "character 1"},
	{"a digit of nobody", HEAD2 NODES "\"groups\":[\"e\"],\"types\":{}}", -EINVAL,
	 "node 2 of 2"},
	{"two values", HEAD NODES REST "{}", -EINVAL, "more after"},
};

static void test_texts(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(texts); i++) {
		struct plan plan = {0};
		struct why why = {0};
		int r = plan_decode(texts[i].text, strlen(texts[i].text), &plan, &why);

		want_int(texts[i].name, r, texts[i].error);
		if (!strstr(why.text, texts[i].why))
			want_text(texts[i].name, why.text, texts[i].why);
		if (r >= 0)
			want_valid(&plan);
		plan_free(&plan);
	}
}

/* What a group of these of so many nodes is written as. */
static const struct {
	const char *name;
	int n_nodes;
	int first, step; /* each step-th node from the first on is in it, */
	bool others;     /* or each that is not one of these */
	const char *written;
} written[] = {
	{"nobody", 9, 9, 1, false, "[]"},
	{"one", 2000, 7, 2000, false, "[7]"},
	{"all but one", 2000, 1007, 2000, true, "{\"but\":[1007]}"},
	{"all", 2000, 2000, 1, true, "{\"but\":[]}"},
	{"a few of few", 5, 0, 3, false, "\"90\""},
	{"two of two", 2, 0, 1, false, "\"c\""},
	{"each second", 17, 0, 2, false, "\"aaaa8\""},
	{"each third is out", 17, 2, 3, true, "\"db6d8\""},
	{"what is as short as digits", 12, 7, 5, true, "\"fef\""},
};

static void test_written_shortly(void **state)
{
	(void)state;
	for (size_t i = 0; i < ROWS(written); i++) {
		struct buf text = {0};
		struct plan_group group = {
			.nodes = calloc((size_t)written[i].n_nodes, sizeof *group.nodes)};

		for (int k = 0; k < written[i].n_nodes; k++) {
			bool named = k >= written[i].first &&
				     (k - written[i].first) % written[i].step == 0;

			if (named != written[i].others)
				group.nodes[group.n++] = (unsigned)k;
		}
		group_append(&text, &group, (size_t)written[i].n_nodes, true);
		want_text(written[i].name, buf_text(&text), written[i].written);
		buf_free(&text);
		free(group.nodes);
	}
}

/* Many types, each of which some other ten of a thousand nodes cannot serve. */
static void test_many_groups(void **state)
{
	static const struct {
		int format;
		size_t low, high;
	} sizes[] = {{1, 400000, 450000}, {2, 20000, 30000}};
	struct plan plan = {.format = 1, .epoch = 1, .leader = id_of(0)};

	(void)state;
	plan.nodes = calloc(1000, sizeof *plan.nodes);
	plan.groups = calloc(100, sizeof *plan.groups);
	plan.types = calloc(100, sizeof *plan.types);
	for (; plan.n_nodes < 1000; plan.n_nodes++)
		plan.nodes[plan.n_nodes].id = id_of((int)plan.n_nodes);
	for (; plan.n_groups < 100; plan.n_groups++) {
		struct plan_group *group = &plan.groups[plan.n_groups];

		group->nodes = calloc(1000, sizeof *group->nodes);
		for (unsigned i = 0; i < 1000; i++)
			if (i % 100 != plan.n_groups)
				group->nodes[group->n++] = i;
		plan.types[plan.n_types++] = (struct plan_type){.name = id_of((int)plan.n_groups),
								.total = 1,
								.group = (int)plan.n_groups};
	}
	for (size_t i = 0; i < ROWS(sizes); i++) {
		struct buf text = {0};
		struct plan again = {0};

		plan.format = sizes[i].format;
		assert_true(plan_encode(&plan, &text));
		want_between("bytes", (double)buf_size(&text), (double)sizes[i].low,
			     (double)sizes[i].high);
		assert_int_equal(plan_decode(buf_front(&text), buf_size(&text), &again, NULL),
				 buf_size(&text) > PLAN_BYTES_MAX ? -EINVAL : 0);
		if (again.epoch)
			assert_true(plan_same(&plan, &again));
		plan_free(&again);
		buf_free(&text);
	}
	plan_free(&plan);
}

/* A short text that stands for more memory than any leader has use for. */
static void test_expansion(void **state)
{
	struct buf text = {0};
	struct plan plan = {0};
	struct why why = {0};

	(void)state;
	buf_append_text(&text, HEAD2 "\"nodes\":[[\"0000\",1]");
	for (int i = 1; i < 5000; i++)
		buf_printf(&text, ",[\"%04d\",1]", i);
	buf_append_text(&text, "],\"groups\":[{\"but\":[]}");
	for (int i = 1; i < 5000; i++)
		buf_append_text(&text, ",{\"but\":[]}");
	buf_append_text(&text, "],\"types\":{}}");
	assert_true(buf_size(&text) <= PLAN_BYTES_MAX);
	assert_int_equal(plan_decode(buf_front(&text), buf_size(&text), &plan, &why), -EINVAL);
	assert_non_null(strstr(why.text, "more than 4194304 nodes in all"));
	buf_free(&text);
}

static void test_large(void **state)
{
	size_t size = PLAN_BYTES_MAX;
	char *text = malloc(size + 2);
	struct plan plan = {0};
	struct why why;

	(void)state;
	memset(text, ' ', size + 2);
	memcpy(text, HEAD NODES REST, strlen(HEAD NODES REST));
	assert_int_equal(plan_decode(text, size, &plan, &why), 0);
	plan_free(&plan);
	assert_int_equal(plan_decode(text, size + 1, &plan, &why), -EINVAL);
	assert_non_null(strstr(why.text, "131073 bytes are more than 131072"));
	memset(text, '[', size);
	assert_int_equal(plan_decode(text, size, &plan, &why), -EINVAL);
	free(text);
}

static void test_compare(void **state)
{
	const struct plan empty = {0}, first = {.epoch = 1, .seq = 9}, second = {.epoch = 2},
			  third = {.epoch = 2, .seq = 1};

	(void)state;
	assert_true(plan_compare(&first, &empty) > 0);
	assert_true(plan_compare(&second, &first) > 0);
	assert_true(plan_compare(&first, &second) < 0);
	assert_true(plan_compare(&third, &second) > 0);
	assert_int_equal(plan_compare(&third, &third), 0);
}

/* Each thing that sizes something else makes another plan; who wrote it and when does not. */
static void test_same(void **state)
{
	static const char base[] = HEAD NODES "\"groups\":[[0],[1]],\"types\":{\"t\":[5,2,1]}}";
	static const struct {
		const char *text;
		bool same;
	} others[] = {
		{"{\"format\":1,\"epoch\":9,\"seq\":4,\"leader\":\"b\"," NODES
		 "\"groups\":[[0],[1]],\"types\":{\"t\":[5,2,1]}}",
		 true},
		{HEAD
		 "\"nodes\":[[\"a\",1],[\"b\",3]],\"groups\":[[0],[1]],\"types\":{\"t\":[5,2,1]}}",
		 false},
		{HEAD
		 "\"nodes\":[[\"a\",1],[\"c\",2]],\"groups\":[[0],[1]],\"types\":{\"t\":[5,2,1]}}",
		 false},
		{HEAD NODES "\"groups\":[[0],[0]],\"types\":{\"t\":[5,2,1]}}", false},
		{HEAD NODES "\"groups\":[[0],[0,1]],\"types\":{\"t\":[5,2,1]}}", false},
		{HEAD NODES "\"groups\":[[0],[1]],\"types\":{\"t\":[6,2,1]}}", false},
		{HEAD NODES "\"groups\":[[0],[1]],\"types\":{\"t\":[5,3,1]}}", false},
		{HEAD NODES "\"groups\":[[0],[1]],\"types\":{\"t\":[5,2,0]}}", false},
		{HEAD NODES "\"groups\":[[0],[1]],\"types\":{\"u\":[5,2,1]}}", false},
		{HEAD NODES "\"groups\":[[0],[1]],\"types\":{}}", false},
	};
	struct plan plan = {0};

	(void)state;
	assert_int_equal(plan_decode(base, strlen(base), &plan, NULL), 0);
	for (size_t i = 0; i < ROWS(others); i++) {
		struct plan other = {0};

		assert_int_equal(plan_decode(others[i].text, strlen(others[i].text), &other, NULL),
				 0);
		want_int(others[i].text, plan_same(&plan, &other), others[i].same);
		plan_free(&other);
	}
	plan_free(&plan);
}

/* The most that can be given: over the nodes of the type with a weight, up to node_max on each. */
static int room_of(const struct plan *plan, const struct plan_type *type)
{
	const struct plan_group *group = type->group >= 0 ? &plan->groups[type->group] : NULL;
	int64_t room = 0;

	for (size_t i = 0; i < plan_eligible(plan, type); i++)
		if (plan->nodes[group ? group->nodes[i] : i].member.weight)
			room += type->node_max ? type->node_max : type->total;
	return room < type->total ? (int)room : type->total;
}

static bool is_eligible(const struct plan *plan, const struct plan_type *type, size_t node)
{
	const struct plan_group *group = &plan->groups[type->group < 0 ? 0 : type->group];

	for (size_t i = 0; type->group >= 0 && i < group->n; i++)
		if (group->nodes[i] == node)
			return true;
	return type->group < 0;
}

static void test_shares(void **state)
{
	uint64_t random = 13;

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct plan plan;

		make_plan(&plan, &random, random_below(&random, 30), 8);
		for (size_t t = 0; t < plan.n_types; t++) {
			const struct plan_type *type = &plan.types[t];
			int sum = 0;

			for (size_t i = 0; i < plan.n_nodes; i++) {
				int share = plan_share(&plan, type, plan.nodes[i].id);

				assert_true(share >= 0);
				assert_true(!type->node_max || share <= type->node_max);
				assert_true(!share || is_eligible(&plan, type, i));
				sum += share;
			}
			want_int(type->name, sum, room_of(&plan, type));
			assert_int_equal(plan_share(&plan, type, "nobody"), 0);
			assert_int_equal(plan_share(&plan, type, ""), 0);
		}
		plan_free(&plan);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_cut_and_flipped),
		cmocka_unit_test(test_texts),       cmocka_unit_test(test_large),
		cmocka_unit_test(test_compare),     cmocka_unit_test(test_same),
		cmocka_unit_test(test_shares),      cmocka_unit_test(test_written_shortly),
		cmocka_unit_test(test_many_groups), cmocka_unit_test(test_expansion),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
