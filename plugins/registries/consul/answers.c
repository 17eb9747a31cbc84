/* SPDX-License-Identifier: MIT */
/*
 * What the agent's JSON says, as structs. Decides what is an answer and what is not; what it means
 * is the caller's business. The one file of the plugin that is fuzzed.
 */
#include "answers.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cJSON *member(const cJSON *object, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(object, name);
}

static const char *text_of(const cJSON *object, const char *name)
{
	return cJSON_GetStringValue(member(object, name));
}

/* An index of Raft: whole, and not beyond what a double holds. */
static void index_of(const cJSON *object, const char *name, char *text, size_t size)
{
	const cJSON *item = member(object, name);

	*text = '\0';
	if (cJSON_IsNumber(item) && item->valuedouble >= 1 && item->valuedouble < 9e15)
		snprintf(text, size, "%" PRIu64, (uint64_t)item->valuedouble);
}

/* Base64. */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *answers_encode(const void *data, size_t length)
{
	const unsigned char *from = data;
	char *made = malloc((length + 2) / 3 * 4 + 1), *to = made;

	if (!made)
		return NULL;
	for (size_t i = 0; i < length; i += 3) {
		uint32_t bits = (uint32_t)from[i] << 16 |
				(i + 1 < length ? (uint32_t)from[i + 1] << 8 : 0) |
				(i + 2 < length ? from[i + 2] : 0u);

		*to++ = digits[bits >> 18];
		*to++ = digits[bits >> 12 & 63];
		*to++ = i + 1 < length ? digits[bits >> 6 & 63] : '=';
		*to++ = i + 2 < length ? digits[bits & 63] : '=';
	}
	*to = '\0';
	return made;
}

static int decode(const char *text, void **ret_data, size_t *ret_length)
{
	size_t size = strlen(text), n = 0;
	unsigned char *made = malloc(size / 4 * 3 + 1);

	if (!made)
		return -ENOMEM;
	for (size_t i = 0; size % 4 == 0 && i < size; i += 4) {
		uint32_t bits = 0;
		int pad = 0;

		for (int k = 0; k < 4; k++) {
			char c = text[i + (size_t)k];
			const char *digit = c == '=' ? NULL : strchr(digits, c);

			/* Padding ends the text, and is at most two long. */
			if (c == '=' && i + 4 == size && k >= 2)
				pad++;
			else if (!digit || pad)
				goto bad;
			bits = bits << 6 | (digit ? (uint32_t)(digit - digits) : 0);
		}
		made[n++] = (unsigned char)(bits >> 16);
		if (pad < 2)
			made[n++] = (unsigned char)(bits >> 8 & 255);
		if (pad < 1)
			made[n++] = (unsigned char)(bits & 255);
	}
	if (size % 4)
		goto bad;
	*ret_data = made;
	*ret_length = n;
	return 0;
bad:
	free(made);
	return -EBADMSG;
}

/* Keys and values. */

static int read_value(const cJSON *json, struct answer_value *value)
{
	const char *key = text_of(json, "Key"), *text = text_of(json, "Value");
	const char *session = text_of(json, "Session");
	int r;

	index_of(json, "ModifyIndex", value->version, sizeof value->version);
	if (!key || !*value->version)
		return -EBADMSG;
	r = decode(text ? text : "", &value->data, &value->length);
	if (r < 0)
		return r;
	value->key = strdup(key);
	value->session = session && *session ? strdup(session) : NULL;
	return value->key && (value->session || !session || !*session) ? 0 : -ENOMEM;
}

static int compare_values(const void *a, const void *b)
{
	const struct answer_value *left = a, *right = b;

	return strcmp(left->key, right->key);
}

int answers_values(const char *body, size_t length, struct answer_value **ret_values, size_t *ret_n)
{
	cJSON *json = cJSON_ParseWithLength(body, length);
	size_t room = cJSON_IsArray(json) ? (size_t)cJSON_GetArraySize(json) : 0, n = 0;
	struct answer_value *values = calloc(room + 1, sizeof *values);
	const cJSON *item;
	int r = !cJSON_IsArray(json) ? -EBADMSG : !values ? -ENOMEM : 0;

	if (r == 0)
		cJSON_ArrayForEach(item, json) {
			r = read_value(item, &values[n++]);
			if (r < 0)
				break;
		}
	cJSON_Delete(json);
	if (r < 0) {
		answers_values_free(values, n);
		return r;
	}
	qsort(values, n, sizeof *values, compare_values);
	*ret_values = values;
	*ret_n = n;
	return 0;
}

void answers_values_free(struct answer_value *values, size_t n)
{
	for (size_t i = 0; values && i < n; i++) {
		free(values[i].key);
		free(values[i].data);
		free(values[i].session);
	}
	free(values);
}

bool answers_holder(const void *data, size_t length, struct answer_holder *ret_holder)
{
	cJSON *json = cJSON_ParseWithLength(data, length);
	const char *node = text_of(json, "node"), *node_id = text_of(json, "node_id");
	bool said = node && *node && node_id && *node_id;

	if (said) {
		snprintf(ret_holder->node, sizeof ret_holder->node, "%s", node);
		snprintf(ret_holder->node_id, sizeof ret_holder->node_id, "%s", node_id);
	}
	cJSON_Delete(json);
	return said;
}

/* Sessions. */

/* As Go writes durations: "1h0m15s", "500ms"; -1: it is none of these. */
static int64_t read_duration(const char *text)
{
	static const struct {
		const char *unit;
		int64_t ms;
	} units[] = {{"ms", 1}, {"h", 3600000}, {"m", 60000}, {"s", 1000}};
	int64_t ms = 0;

	while (text && *text) {
		double number = 0, part = 1;
		size_t i;

		if (*text < '0' || *text > '9')
			return -1;
		for (; *text >= '0' && *text <= '9'; text++)
			number = number * 10 + (*text - '0');
		if (*text == '.')
			for (text++; *text >= '0' && *text <= '9'; text++)
				number += (*text - '0') * (part /= 10);
		for (i = 0; i < sizeof units / sizeof *units; i++)
			if (!strncmp(text, units[i].unit, strlen(units[i].unit)))
				break;
		if (i == sizeof units / sizeof *units || number > 1e6)
			return -1;
		text += strlen(units[i].unit);
		ms += (int64_t)(number * (double)units[i].ms);
	}
	return text && ms ? ms : -1;
}

int answers_session(const char *body, size_t length, struct answer_session *ret_session)
{
	cJSON *json = cJSON_ParseWithLength(body, length);
	const cJSON *session = cJSON_IsArray(json) ? cJSON_GetArrayItem(json, 0) : json;
	const char *id = text_of(session, "ID");
	bool good = id && *id && strlen(id) < sizeof ret_session->id &&
		    id[strspn(id, "0123456789abcdefABCDEF-")] == '\0';

	if (good) {
		*ret_session = (struct answer_session){
			.ttl_ms = read_duration(text_of(session, "TTL")),
		};
		memcpy(ret_session->id, id, strlen(id) + 1);
	}
	cJSON_Delete(json);
	return good ? 0 : -EBADMSG;
}

/* Transactions. */

static void read_results(const cJSON *results, struct answer_txn *txn)
{
	const cJSON *item, *last = NULL;

	cJSON_ArrayForEach(item, results)
		last = item;
	txn->done = true;
	index_of(member(last, "KV"), "ModifyIndex", txn->version, sizeof txn->version);
}

static void read_errors(const cJSON *errors, struct answer_txn *txn)
{
	const cJSON *item, *at;
	const char *what;

	txn->failed = -1;
	cJSON_ArrayForEach(item, errors) {
		what = text_of(item, "What");
		at = member(item, "OpIndex");
		if (!what)
			continue;
		if (strstr(what, "Permission denied") || strstr(what, "ACL not found"))
			txn->denied = true;
		if (!cJSON_IsNumber(at) || at->valuedouble < 0 || at->valuedouble > 127)
			continue;
		if (txn->failed >= 0 && txn->failed <= (int)at->valuedouble)
			continue;
		txn->failed = (int)at->valuedouble;
		txn->stale = strstr(what, "is stale") || strstr(what, "failed index check") ||
			     strstr(what, "doesn't exist") || strstr(what, " exists");
		snprintf(txn->what, sizeof txn->what, "%s", what);
	}
}

int answers_txn(const char *body, size_t length, struct answer_txn *ret_txn)
{
	cJSON *json = cJSON_ParseWithLength(body, length);
	const cJSON *errors = member(json, "Errors"), *results = member(json, "Results");
	struct answer_txn txn = {.failed = -1};
	int r = 0;

	if (cJSON_IsArray(errors) && cJSON_GetArraySize(errors))
		read_errors(errors, &txn);
	else if (cJSON_IsObject(json) && (cJSON_IsArray(results) || cJSON_IsNull(results)))
		read_results(results, &txn);
	else
		r = -EBADMSG;
	cJSON_Delete(json);
	if (r == 0)
		*ret_txn = txn;
	return r;
}
