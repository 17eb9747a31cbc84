/* SPDX-License-Identifier: MIT */
/*
 * What we are, in the agent's words: the body of our registration, and whether what the agent has is
 * the same. Decides what others can read of a node and its checks; when it is sent is decided by
 * register.c and beat.c. Pure.
 *
 * Tags are the types that a node serves, "leader" on the one that leads. Dots are allowed in them and
 * the agent only warns, at its level debug: its DNS joins all labels before the service's name to one
 * tag, so that order.paid.drover.service.consul finds the nodes that serve order.paid. Others that
 * speak DNS may not.
 */
#include "register.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *health_word(enum drover_health health)
{
	static const char *const words[] = {
		[DROVER_HEALTH_PASSING] = "passing",
		[DROVER_HEALTH_WARNING] = "warning",
		[DROVER_HEALTH_CRITICAL] = "critical",
	};

	return words[health];
}

void describe_time(int64_t wall, char text[TIME_TEXT_MAX])
{
	time_t seconds = (time_t)(wall / 1000);
	struct tm tm;
	size_t length;

	gmtime_r(&seconds, &tm);
	length = strftime(text, TIME_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + length, TIME_TEXT_MAX - length, ".%03dZ", (int)(wall % 1000));
}

int64_t describe_time_read(const char *text)
{
	struct tm tm = {0};
	int ms = 0, end = 0;
	time_t seconds;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &ms, &end) != 7 ||
	    !end || text[end] || tm.tm_year < 1970 || ms < 0)
		return 0;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	seconds = timegm(&tm);
	return seconds <= 0 ? 0 : (int64_t)seconds * 1000 + ms;
}

struct meta {
	const char *key;
	char value[128];
};

#define META_MAX 5

/* Keys and values, as many as there are; a value is cut where no such value is. */
static size_t face_meta(const struct face *face, struct meta meta[META_MAX])
{
	size_t n = 0;

	meta[n].key = "id";
	snprintf(meta[n++].value, sizeof meta->value, "%s", face->node_id);
	meta[n].key = "version";
	snprintf(meta[n++].value, sizeof meta->value, "%s", face->version);
	meta[n].key = "weight";
	snprintf(meta[n++].value, sizeof meta->value, "%" PRIu32, face->weight);
	meta[n].key = "started";
	describe_time(face->started_ms, meta[n++].value);
	if (face->leaving) {
		meta[n].key = "leaving";
		snprintf(meta[n++].value, sizeof meta->value, "true");
	}
	return n;
}

static bool add_check(cJSON *array, const struct face *face, const struct check *check)
{
	cJSON *object = cJSON_CreateObject();
	char text[96] = "", since[TIME_TEXT_MAX];

	if (!object || !cJSON_AddItemToArray(array, object)) {
		cJSON_Delete(object);
		return false;
	}
	/*
	 * What an agent was told of a check, but for its health, reaches the servers within minutes;
	 * at once only with a registration that changes what the check is. So the notes change, by
	 * something worth knowing, whenever the text has.
	 */
	if (check->told) {
		describe_time(check->since_ms, since);
		snprintf(text, sizeof text, "so since %.10s %.8s UTC", since, since + 11);
	}
	if (!cJSON_AddStringToObject(object, "CheckID", check->id) ||
	    !cJSON_AddStringToObject(object, "Name", check->name) ||
	    !cJSON_AddStringToObject(object, "Notes", text) ||
	    !cJSON_AddStringToObject(object, "Status", health_word(check->health)))
		return false;
	snprintf(text, sizeof text, "%" PRId64 "ms", check->ttl_ms);
	if (!cJSON_AddStringToObject(object, "TTL", text))
		return false;
	if (check->ttl_ms == REPORTED_TTL_MS)
		return true;
	snprintf(text, sizeof text, "%" PRId64 "ms", face->deregister_ms);
	return cJSON_AddStringToObject(object, "DeregisterCriticalServiceAfter", text);
}

char *describe_face(const struct face *face, const struct check *const *checks, size_t n)
{
	cJSON *body = cJSON_CreateObject(), *tags, *meta, *array;
	struct meta rows[META_MAX];
	size_t n_meta = face_meta(face, rows);
	char *text = NULL;

	if (!cJSON_AddStringToObject(body, "ID", face->id) ||
	    !cJSON_AddStringToObject(body, "Name", face->service) ||
	    !cJSON_AddFalseToObject(body, "EnableTagOverride"))
		goto out;
	if (face->address && !cJSON_AddStringToObject(body, "Address", face->address))
		goto out;
	if (face->port && !cJSON_AddNumberToObject(body, "Port", face->port))
		goto out;
	tags = cJSON_AddArrayToObject(body, "Tags");
	for (size_t i = 0; i < face->n_tags; i++)
		if (!cJSON_AddItemToArray(tags, cJSON_CreateString(face->tags[i])))
			goto out;
	meta = cJSON_AddObjectToObject(body, "Meta");
	for (size_t i = 0; i < n_meta; i++)
		if (!cJSON_AddStringToObject(meta, rows[i].key, rows[i].value))
			goto out;
	array = cJSON_AddArrayToObject(body, "Checks");
	if (!tags || !meta || !array)
		goto out;
	for (size_t i = 0; i < n; i++)
		if (checks[i]->describing && !add_check(array, face, checks[i]))
			goto out;
	text = cJSON_PrintUnformatted(body);
out:
	cJSON_Delete(body);
	return text;
}

char *describe_health(enum drover_health health, const char *text)
{
	cJSON *body = cJSON_CreateObject();
	char *printed = NULL;

	if (cJSON_AddStringToObject(body, "Status", health_word(health)) &&
	    cJSON_AddStringToObject(body, "Output", text))
		printed = cJSON_PrintUnformatted(body);
	cJSON_Delete(body);
	return printed;
}

bool describe_same(const struct face *face, const struct instance *instance)
{
	struct meta rows[META_MAX];
	size_t n = face_meta(face, rows);

	for (size_t i = 0; i < n; i++)
		if (strcmp(instance_meta(instance, rows[i].key), rows[i].value))
			return false;
	return instance_count_meta(instance) == n && !strcmp(instance->id, face->id) &&
	       !strcmp(instance->service, face->service) &&
	       !strcmp(instance->address, face->address ? face->address : "") &&
	       instance->port == face->port && !instance->tag_override &&
	       instance_has_tags(instance, face->tags, face->n_tags);
}
