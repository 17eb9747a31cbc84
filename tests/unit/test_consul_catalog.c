/* SPDX-License-Identifier: MIT */
/*
 * What Consul says about services and checks, read; and what a node says of itself, written, so that
 * what comes back is known as the same.
 */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../plugins/registries/consul/register.h"

static const char one_instance[] =
	"{\"ID\":\"drover-web1\",\"Service\":\"drover\",\"Tags\":[\"b\",\"a\"],\"Meta\":{\"id\":\"77\"},"
	"\"Port\":9600,\"Address\":\"10.0.0.5\",\"TaggedAddresses\":{\"lan_ipv4\":{}},"
	"\"Weights\":{\"Passing\":3,\"Warning\":0},\"EnableTagOverride\":false,\"ContentHash\":\"1\"}";

static int read_instance(const char *body, struct catalog *catalog)
{
	return catalog_read_instance(body, strlen(body), catalog);
}

static void test_an_instance(void **state)
{
	static const char *const tags[] = {"a", "b"}, *const others[] = {"a", "a"};
	struct catalog catalog;
	const struct instance *instance;

	(void)state;
	assert_int_equal(read_instance(one_instance, &catalog), 0);
	assert_int_equal(catalog.n_instances, 1);
	instance = catalog.instances;
	assert_string_equal(instance->id, "drover-web1");
	assert_string_equal(instance->service, "drover");
	assert_string_equal(instance->address, "10.0.0.5");
	assert_string_equal(instance->node, "");
	assert_int_equal(instance->port, 9600);
	assert_int_equal(instance->weight_passing, 3);
	assert_int_equal(instance->weight_warning, 0);
	assert_false(instance->tag_override);
	assert_string_equal(instance_meta(instance, "id"), "77");
	assert_string_equal(instance_meta(instance, "no"), "");
	assert_int_equal(instance_count_meta(instance), 1);
	assert_true(instance_has_tags(instance, tags, 2));
	assert_false(instance_has_tags(instance, tags, 1));
	assert_false(instance_has_tags(instance, others, 2));
	catalog_free(&catalog);
}

static void test_bodies(void **state)
{
	static const struct {
		const char *name, *body;
		int instance, instances, health, checks; /* how many are read, or -errno */
	} rows[] = {
		{"none", "", -EBADMSG, -EBADMSG, -EBADMSG, -EBADMSG},
		{"text", "no such thing", -EBADMSG, -EBADMSG, -EBADMSG, -EBADMSG},
		{"cut off", "[{\"ID\":", -EBADMSG, -EBADMSG, -EBADMSG, -EBADMSG},
		{"a number", "12", -EBADMSG, -EBADMSG, -EBADMSG, -EBADMSG},
		{"null", "null", 0, 0, 0, 0},
		{"empty array", "[]", 0, 0, 0, 0},
		{"empty object", "{}", 0, 0, 0, 0},
		{"rows that are none", "[1,null,\"x\",[],{}]", 0, 0, 0, 0},
		{"names that are none", "[{\"ServiceID\":1,\"ServiceName\":{},\"CheckID\":[]}]", 0,
		 0, 0, 0},
		{"the catalog's", "[{\"Node\":\"n\",\"ServiceID\":\"a\",\"ServiceName\":\"b\"},{}]",
		 0, 1, 0, 0},
		{"of health", "[{\"Service\":{\"ID\":\"a\",\"Service\":\"b\"},\"Checks\":null}]", 0,
		 0, 1, 0},
		{"checks as a list", "[{\"CheckID\":\"a\"},{\"CheckID\":\"b\"}]", 0, 0, 0, 2},
		{"checks by id", "{\"a\":{\"CheckID\":\"a\"},\"b\":{\"CheckID\":\"b\"}}", 0, 0, 0,
		 2},
	};
	struct catalog catalog;

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		const struct {
			int (*read)(const char *body, size_t length, struct catalog *ret_catalog);
			int expected;
		} kinds[] = {
			{catalog_read_instance, rows[i].instance},
			{catalog_read_instances, rows[i].instances},
			{catalog_read_health, rows[i].health},
			{catalog_read_checks, rows[i].checks},
		};

		for (size_t k = 0; k < ROWS(kinds); k++) {
			int r = kinds[k].read(rows[i].body, strlen(rows[i].body), &catalog);

			if (r == 0) {
				r = (int)(catalog.n_instances + catalog.n_checks);
				catalog_free(&catalog);
			}
			want_int(rows[i].name, r, kinds[k].expected);
		}
	}
}

static void test_health(void **state)
{
	static const struct {
		const char *name, *checks;
		enum drover_health health;
	} rows[] = {
		{"none", "[]", DROVER_HEALTH_PASSING},
		{"all pass", "[{\"Status\":\"passing\"},{\"Status\":\"passing\"}]",
		 DROVER_HEALTH_PASSING},
		{"one warns", "[{\"Status\":\"warning\"},{\"Status\":\"passing\"}]",
		 DROVER_HEALTH_WARNING},
		{"the worst counts", "[{\"Status\":\"critical\"},{\"Status\":\"warning\"}]",
		 DROVER_HEALTH_CRITICAL},
		{"maintenance", "[{\"Status\":\"maintenance\"}]", DROVER_HEALTH_CRITICAL},
		{"nothing said", "[{}]", DROVER_HEALTH_CRITICAL},
	};
	struct catalog catalog;
	char body[512];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		snprintf(
			body, sizeof body,
			"[{\"Node\":{\"Node\":\"n\",\"Address\":\"10.0.0.9\"},\"Service\":{\"ID\":\"a\","
			"\"Service\":\"s\",\"Port\":99999,\"Weights\":{\"Passing\":-1}},\"Checks\":%s}]",
			rows[i].checks);
		assert_int_equal(catalog_read_health(body, strlen(body), &catalog), 0);
		assert_int_equal(catalog.n_instances, 1);
		want_int(rows[i].name, catalog.instances->health, rows[i].health);
		want_text(rows[i].name, catalog.instances->node_address, "10.0.0.9");
		want_int(rows[i].name, catalog.instances->port, 0);
		want_int(rows[i].name, catalog.instances->weight_passing, 1);
		catalog_free(&catalog);
	}
}

static const char *const face_tags[] = {"order.paid", "leader"};
static const struct face face = {
	.service = "drover",
	.id = "drover-web1",
	.node_id = "0123456789abcdef",
	.version = "0.1.0",
	.address = "10.0.0.5",
	.port = 9600,
	.weight = 4,
	.started_ms = INT64_C(1790000000123),
	.deregister_ms = 86400000,
	.tags = face_tags,
	.n_tags = 2,
};

static void test_a_registration(void **state)
{
	static char alive[] = "drover-web1:alive", mail[] = "drover-web1:type:mail",
		    name[] = "mail", text[] = "well \"so\"";
	const struct check checks[] = {
		{.id = alive,
		 .name = name,
		 .ttl_ms = 30000,
		 .health = DROVER_HEALTH_PASSING,
		 .describing = true},
		{.id = mail,
		 .name = name,
		 .ttl_ms = REPORTED_TTL_MS,
		 .told = text,
		 .health = DROVER_HEALTH_WARNING,
		 .since_ms = INT64_C(1790000000123),
		 .describing = true},
		{.id = mail, .name = name, .ttl_ms = REPORTED_TTL_MS},
	};
	const struct check *const list[] = {&checks[0], &checks[1], &checks[2]};
	char *body = describe_face(&face, list, 3);

	(void)state;
	assert_non_null(body);
	assert_string_equal(
		body,
		"{\"ID\":\"drover-web1\",\"Name\":\"drover\",\"EnableTagOverride\":false,"
		"\"Address\":\"10.0.0.5\",\"Port\":9600,\"Tags\":[\"order.paid\",\"leader\"],"
		"\"Meta\":{\"id\":\"0123456789abcdef\",\"version\":\"0.1.0\",\"weight\":\"4\","
		"\"started\":\"2026-09-21T14:13:20.123Z\"},\"Checks\":["
		"{\"CheckID\":\"drover-web1:alive\",\"Name\":\"mail\",\"Notes\":\"\","
		"\"Status\":\"passing\",\"TTL\":\"30000ms\","
		"\"DeregisterCriticalServiceAfter\":\"86400000ms\"},"
		"{\"CheckID\":\"drover-web1:type:mail\",\"Name\":\"mail\","
		"\"Notes\":\"so since 2026-09-21 14:13:20 UTC\",\"Status\":\"warning\","
		"\"TTL\":\"600000ms\"}]}");
	free(body);
	body = describe_health(DROVER_HEALTH_CRITICAL, text);
	assert_non_null(body);
	assert_string_equal(body, "{\"Status\":\"critical\",\"Output\":\"well \\\"so\\\"\"}");
	free(body);
}

static const char ours[] =
	"{\"ID\":\"drover-web1\",\"Service\":\"drover\",\"Tags\":[\"leader\",\"order.paid\"],"
	"\"Meta\":{\"id\":\"0123456789abcdef\",\"version\":\"0.1.0\",\"weight\":\"4\","
	"\"started\":\"2026-09-21T14:13:20.123Z\"},\"Port\":9600,\"Address\":\"10.0.0.5\","
	"\"EnableTagOverride\":false}";

static void test_what_is_the_same(void **state)
{
	static const struct {
		const char *name, *from, *to; /* one change of what the agent has */
		bool same;
	} rows[] = {
		{"as registered", "", "", true},
		{"more that the agent adds", "\"Port\"", "\"ContentHash\":\"1\",\"Port\"", true},
		{"a tag", "order.paid", "order.made", false},
		{"a tag more", "[\"leader\"", "[\"x\",\"leader\"", false},
		{"port", "9600", "9601", false},
		{"address", "10.0.0.5", "10.0.0.6", false},
		{"weight", "\"4\"", "\"5\"", false},
		{"meta more", "\"weight\"", "\"leaving\":\"true\",\"weight\"", false},
		{"meta less", "\"version\":\"0.1.0\",", "", false},
		{"service", "\"drover\"", "\"staging\"", false},
		{"overridable", "false", "true", false},
	};
	struct face leaving = face;
	struct catalog catalog;
	char body[1024];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		const char *at = strstr(ours, rows[i].from);

		assert_non_null(at);
		snprintf(body, sizeof body, "%.*s%s%s", (int)(at - ours), ours, rows[i].to,
			 at + strlen(rows[i].from));
		assert_int_equal(read_instance(body, &catalog), 0);
		want_int(rows[i].name, describe_same(&face, catalog.instances), rows[i].same);
		catalog_free(&catalog);
	}
	assert_int_equal(read_instance(ours, &catalog), 0);
	leaving.leaving = true;
	assert_false(describe_same(&leaving, catalog.instances));
	catalog_free(&catalog);
}

static void test_the_id_of_a_host(void **state)
{
	static const struct {
		const char *name, *body;
		int r;
		const char *id;
	} rows[] = {
		{"there",
		 "[{\"Name\":\"b\",\"Tags\":{\"id\":\"2\"}},{\"Name\":\"a\",\"Tags\":{\"id\":\"1\"}}]",
		 0, "1"},
		{"another", "[{\"Name\":\"b\",\"Tags\":{\"id\":\"2\"}}]", -ENOENT, NULL},
		{"without", "[{\"Name\":\"a\",\"Tags\":{}},{\"Name\":5},7]", -ENOENT, NULL},
		{"too long",
		 "[{\"Name\":\"a\",\"Tags\":{\"id\":\"0123456789012345678901234567890123456789"
		 "012345678901234567890123456789\"}}]",
		 -ENOENT, NULL},
		{"none", "null", -ENOENT, NULL},
		{"nonsense", "no", -EBADMSG, NULL},
	};
	char id[HOST_ID_MAX];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		want_int(rows[i].name,
			 catalog_read_host_id(rows[i].body, strlen(rows[i].body), "a", id),
			 rows[i].r);
		if (rows[i].id)
			want_text(rows[i].name, id, rows[i].id);
	}
}

static void test_times(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} rows[] = {
		{"2026-09-21T14:13:20.123Z", INT64_C(1790000000123)},
		{"2000-02-29T23:59:59.000Z", INT64_C(951868799000)},
		{"", 0},
		{"yesterday", 0},
		{"2026-09-21T14:13:20Z", 0},
		{"2026-09-21T14:13:20.123Zx", 0},
		{"2026-09-21T14:13:20.123+02:00", 0},
		{"1901-01-01T00:00:00.000Z", 0},
	};
	char text[TIME_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < ROWS(rows); i++) {
		want_int(rows[i].text, describe_time_read(rows[i].text), rows[i].ms);
		if (!rows[i].ms)
			continue;
		describe_time(rows[i].ms, text);
		want_text(rows[i].text, text, rows[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_instance),      cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_health),           cmocka_unit_test(test_a_registration),
		cmocka_unit_test(test_what_is_the_same), cmocka_unit_test(test_times),
		cmocka_unit_test(test_the_id_of_a_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
