/* SPDX-License-Identifier: MIT */
/*
 * The recording node of tests/conformance: it knows drover/registry.h and no registry.
 */
#include "member.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"
#include "system/settings.h"

#include "base/banned.h"

#define WAIT_MS 20000

static struct member *open_members;

int64_t member_now_ms(void)
{
	return clock_now_ms();
}

/* Of this thread: how often it slept, and the time that it had. */
static long sleeps(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : -1;
}

static int64_t worked_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* How long it took. Where it never slept, what it did not work was others' time, and it blocked nobody. */
static int64_t process(struct member *member)
{
	int64_t start_ms = clock_now_ms(), before_ms = worked_ms();
	long before = sleeps();

	member->calls->process(member->registry);
	return sleeps() == before ? worked_ms() - before_ms : clock_now_ms() - start_ms;
}

static void copy(char to[MEMBER_TEXT_MAX], const char *text)
{
	snprintf(to, MEMBER_TEXT_MAX, "%s", text ? text : "");
}

static void on_state(void *context, enum drover_registry_state state, const char *sentence)
{
	struct member *member = context;

	member->state = state;
	copy(member->sentence, sentence);
	member->states++;
}

static void on_members(void *context, const struct drover_member *members, size_t n)
{
	struct member *member = context;

	member->members_told++;
	member->n_rows = n;
	for (size_t i = 0; i < n && i < MEMBER_MAX; i++) {
		struct member_row *row = member->rows + i;

		row->flags = members[i].flags;
		row->weight = members[i].weight;
		row->started_ms = members[i].started_ms;
		copy(row->node, members[i].node);
		copy(row->node_id, members[i].node_id);
		copy(row->version, members[i].version);
		copy(row->address, members[i].address);
	}
}

static void forget_values(struct member_watch *watch)
{
	for (size_t i = 0; i < watch->n; i++)
		free(watch->values[i].data);
	watch->n = 0;
}

static void on_values(void *context, const char *key, const struct drover_value *values, size_t n)
{
	struct member *member = context;
	struct member_watch *watch = member->watches;

	while (watch < member->watches + member->n_watches && strcmp(watch->key, key) != 0)
		watch++;
	if (watch == member->watches + MEMBER_MAX)
		load_give_up("too many watches");
	if (watch == member->watches + member->n_watches)
		copy(member->watches[member->n_watches++].key, key);
	watch->told++;
	forget_values(watch);
	for (size_t i = 0; i < n && i < MEMBER_MAX; i++) {
		struct member_value *value = watch->values + i;

		copy(value->key, values[i].key);
		snprintf(value->version, sizeof value->version, "%s", values[i].version);
		value->length = values[i].length;
		value->data = calloc(1, value->length + 1);
		if (!value->data)
			load_give_up("no memory");
		memcpy(value->data, values[i].data, value->length);
		watch->n = i + 1;
	}
}

static void on_leader(void *context, int leading, const char *node, const char *node_id)
{
	struct member *member = context;

	member->leaders_told++;
	member->leading = leading;
	copy(member->leader, node);
	copy(member->leader_id, node_id);
}

static void on_maintenance(void *context, int on, const char *reason)
{
	(void)context;
	(void)on;
	(void)reason;
}

static void on_endpoints(void *context, const char *service,
			 const struct drover_endpoint *endpoints, size_t n)
{
	struct member *member = context;

	(void)service;
	member->endpoints_told++;
	member->n_endpoints = n;
	if (n) {
		copy(member->host, endpoints[0].host);
		member->port = endpoints[0].port;
	}
}

static void on_put(void *context, uint64_t cookie, const struct drover_put_result *result)
{
	struct member *member = context;

	member->puts_told++;
	member->put_cookie = cookie;
	member->put.error = result->error;
	snprintf(member->put.version, sizeof member->put.version, "%s", result->version);
	copy(member->put.sentence, result->sentence);
}

static void on_deregistered(void *context)
{
	struct member *member = context;

	member->deregistered++;
}

void member_open(struct member *member, const struct loaded *loaded,
		 const struct drover_registration *self)
{
	const struct drover_registry_callbacks callbacks = {
		.size = sizeof callbacks,
		.context = member,
		.state = on_state,
		.members = on_members,
		.values = on_values,
		.leader = on_leader,
		.maintenance = on_maintenance,
		.endpoints = on_endpoints,
		.put = on_put,
		.deregistered = on_deregistered,
	};
	char error[512] = "";

	*member = (struct member){
		.calls = (const struct drover_registry *)(const void *)loaded->plugin,
	};
	if (member->calls->open(settings_host(loaded->settings), self, &callbacks,
				&member->registry, error, sizeof error) < 0)
		load_give_up(error);
	member->next = open_members;
	open_members = member;
}

void member_close(struct member *member)
{
	struct member **at = &open_members;

	while (*at != member)
		at = &(*at)->next;
	*at = member->next;
	member->calls->close(member->registry);
	for (size_t i = 0; i < member->n_watches; i++)
		forget_values(member->watches + i);
	*member = (struct member){0};
}

void member_turn(int64_t ms)
{
	struct pollfd fds[MEMBER_MAX];
	struct member *polled[MEMBER_MAX];
	nfds_t n = 0;

	for (struct member *member = open_members; member; member = member->next) {
		int64_t timeout = member->calls->timeout_ms(member->registry);

		if (timeout >= 0 && timeout < ms)
			ms = timeout;
		polled[n] = member;
		fds[n++] = (struct pollfd){
			.fd = member->calls->fd(member->registry),
			.events = (short)member->calls->events(member->registry),
		};
	}
	if (poll(fds, n, (int)ms) < 0)
		return;
	for (nfds_t i = 0; i < n; i++) {
		int64_t took_ms;

		if (!fds[i].revents && polled[i]->calls->timeout_ms(polled[i]->registry) != 0)
			continue;
		took_ms = process(polled[i]);
		if (took_ms > polled[i]->slowest_ms)
			polled[i]->slowest_ms = took_ms;
	}
}

void member_idle(int64_t ms)
{
	int64_t deadline_ms = clock_now_ms() + ms, now_ms;

	while ((now_ms = clock_now_ms()) < deadline_ms)
		member_turn(deadline_ms - now_ms);
}

const struct member_row *member_find(const struct member *member, const char *node_id)
{
	for (size_t i = 0; i < member->n_rows && i < MEMBER_MAX; i++)
		if (!strcmp(member->rows[i].node_id, node_id))
			return member->rows + i;
	return NULL;
}

const struct member_watch *member_watched(const struct member *member, const char *key)
{
	for (size_t i = 0; i < member->n_watches; i++)
		if (!strcmp(member->watches[i].key, key))
			return member->watches + i;
	return NULL;
}

const char *member_text(const struct member *member, const char *key)
{
	const struct member_watch *watch = member_watched(member, key);

	return watch && watch->n == 1 ? watch->values[0].data : "";
}

int member_put(struct member *member, const char *key, const void *data, size_t length,
	       const char *version, uint32_t flags)
{
	uint64_t cookie = ++member->cookie;
	int64_t deadline_ms = clock_now_ms() + WAIT_MS;
	int r;

	while ((r = member->calls->put(member->registry, key, data, length, version, flags,
				       cookie)) == -EAGAIN &&
	       clock_now_ms() < deadline_ms)
		member_turn(20);
	if (r < 0)
		return r;
	member_until(member->put_cookie == cookie, WAIT_MS);
	return member->put_cookie == cookie ? member->put.error : -ETIME;
}

int member_report(struct member *member, size_t n_checks, size_t ill, const char *tag)
{
	struct drover_check checks[32];
	char ids[32][32];
	const char *const tags[] = {tag, NULL};
	const struct drover_report report = {
		.size = sizeof report,
		.tags = tags,
		.checks = checks,
		.n_checks = n_checks,
	};

	for (size_t i = 0; i < n_checks; i++) {
		snprintf(ids[i], sizeof ids[i], "type:t%zu", i);
		checks[i] = (struct drover_check){
			.size = sizeof *checks,
			.id = ids[i],
			.name = ids[i],
			.health = i < ill ? DROVER_HEALTH_CRITICAL : DROVER_HEALTH_PASSING,
			.text = "4 of 4 workers busy, \"812\" waiting \xc3\xbc",
		};
	}
	return member->calls->report(member->registry, &report);
}
