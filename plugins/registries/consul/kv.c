/* SPDX-License-Identifier: MIT */
/*
 * Keys and values: watches, and writes. Decides what a version is (the key's ModifyIndex) and what
 * became of a write: all go as transactions, whose answer says which condition did not hold. Writes
 * of one key go one after the other, in the order in which they came.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "answers.h"
#include "consul.h"

#define KEY_MAX       200
#define PUTS_MAX      256   /* on their way */
#define PUT_MS        10000 /* a server without leader holds a request for 7 s */
#define BURST         4     /* questions at once, of a watch */
#define REFILL_MS     250   /* and then one each so long; of a prefix: */
#define REFILL_ALL_MS 500

struct watch {
	LIST_ENTRY(watch) next;
	struct consul *consul;
	struct query *query;
	char *key; /* as it was given */
	bool denied;
};

struct put {
	TAILQ_ENTRY(put) next;
	struct consul *consul;
	struct request *request; /* NULL: it waits for another, or is to be told */
	char *key;
	char *body;   /* NULL: it is not sent */
	bool removes; /* there is nothing afterwards */
	bool fenced;
	bool over; /* to be told */
	int error;
	char version[DROVER_REGISTRY_VERSION_MAX];
	char sentence[SENTENCE_MAX];
	uint64_t cookie;
	char *session; /* of the fence */
};

struct kv {
	LIST_HEAD(, watch) watches;
	TAILQ_HEAD(, put) puts;
	size_t n_puts;
};

bool kv_key_valid(const char *key)
{
	size_t size = key ? strlen(key) : 0;

	return size && size <= KEY_MAX && *key != '/' && key[size - 1] != '/' &&
	       strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/") ==
		       size;
}

/* Watches. */

static void tell_values(struct watch *watch, const struct answer_value *values, size_t n)
{
	const struct drover_registry_callbacks *callbacks = &watch->consul->callbacks;
	struct drover_value *told = calloc(n + 1, sizeof *told);
	size_t cluster = strlen(watch->consul->cluster) + 1;

	if (!told) {
		query_refresh(watch->query);
		return;
	}
	for (size_t i = 0; i < n; i++)
		told[i] = (struct drover_value){
			.size = sizeof *told,
			.key = strlen(values[i].key) > cluster ? values[i].key + cluster : "",
			.data = values[i].data,
			.length = values[i].length,
			.version = values[i].version,
		};
	callbacks->values(callbacks->context, watch->key, told, n);
	free(told);
}

static void count_denials(struct consul *consul, const char *sentence)
{
	const struct watch *watch;
	bool denied = false;

	LIST_FOREACH(watch, &consul->kv->watches, next)
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list. */
	denied = denied || watch->denied;
	if (sentence || !denied)
		state_refuse(consul, REFUSAL_KEYS, sentence);
}

static void on_values(void *context, const struct answer *answer)
{
	struct watch *watch = context;
	struct answer_value *values = NULL;
	size_t n = 0;
	int r = 0;

	if (!answer->same && answer->failure != FAILURE_MISSING)
		r = answers_values(answer->body, answer->length, &values, &n);
	if (watch->denied) {
		watch->denied = false;
		count_denials(watch->consul, NULL);
	}
	if (r < 0)
		consul_log(
			watch->consul, DROVER_LOG_WARNING,
			"what the Consul agent says of the key %s/%s is no list of keys; what was "
			"known of it stands",
			watch->consul->cluster, watch->key);
	else if (!answer->same)
		tell_values(watch, values, n);
	answers_values_free(values, n);
}

static void on_values_failed(void *context, const struct answer *answer)
{
	struct watch *watch = context;

	if (answer->failure != FAILURE_DENIED && answer->failure != FAILURE_REFUSED) {
		consul_log(watch->consul, DROVER_LOG_WARNING, "%s; it is asked again",
			   answer->sentence);
		return;
	}
	watch->denied = true;
	count_denials(watch->consul, answer->sentence);
}

static struct watch *find(struct consul *consul, const char *key)
{
	struct watch *watch;

	LIST_FOREACH(watch, &consul->kv->watches, next)
	if (!strcmp(watch->key, key))
		return watch;
	return NULL;
}

static void watch_free(struct watch *watch)
{
	query_cancel(watch->query);
	LIST_REMOVE(watch, next);
	free(watch->key);
	free(watch);
}

static bool is_prefix(const char *key)
{
	return *key && key[strlen(key) - 1] == '/';
}

static struct query *start_query(struct watch *watch)
{
	struct consul *consul = watch->consul;
	struct query_order order = {
		.burst = BURST,
		.refill_ms = is_prefix(watch->key) ? REFILL_ALL_MS : REFILL_MS,
		.changed = on_values,
		.failed = on_values_failed,
		.context = watch,
	};
	const char *cluster = http_encode(consul, consul->cluster);

	if (cluster)
		order.path = http_path(consul, "/v1/kv/%s/%s%s", cluster, watch->key,
				       is_prefix(watch->key) ? "?recurse=true" : "");
	return order.path ? query_start(consul, &order) : NULL;
}

int kv_watch(struct consul *consul, const char *key)
{
	size_t size = key ? strlen(key) : 0;
	char plain[KEY_MAX + 1];
	struct watch *watch;

	if (!size || size > KEY_MAX)
		return -EINVAL;
	snprintf(plain, sizeof plain, "%.*s", (int)(size - is_prefix(key)), key);
	if (!kv_key_valid(plain))
		return -EINVAL;
	if (find(consul, key))
		return 0;
	watch = calloc(1, sizeof *watch);
	if (!watch)
		return -ENOMEM;
	watch->consul = consul;
	watch->key = strdup(key);
	LIST_INSERT_HEAD(&consul->kv->watches, watch, next);
	if (watch->key)
		watch->query = start_query(watch);
	if (watch->query)
		return 0;
	watch_free(watch);
	return -ENOMEM;
}

int kv_unwatch(struct consul *consul, const char *key)
{
	struct watch *watch = find(consul, key);

	if (!watch)
		return -ENOENT;
	watch_free(watch);
	count_denials(consul, NULL);
	return 0;
}

/* Writes. */

static void put_free(struct put *put)
{
	struct kv *kv = put->consul->kv;

	request_cancel(put->request);
	TAILQ_REMOVE(&kv->puts, put, next);
	kv->n_puts--;
	free(put->key);
	free(put->body);
	free(put->session);
	free(put);
}

static void fail(struct put *put, int error, const char *sentence)
{
	put->over = true;
	put->error = error;
	snprintf(put->sentence, sizeof put->sentence, "%s", sentence);
}

static void not_leading(struct put *put)
{
	fail(put, -EPERM, "this node does not lead the cluster");
}

static void rolled_back(struct put *put, const struct answer_txn *txn)
{
	const struct watch *watch = find(put->consul, put->key);
	char sentence[SENTENCE_MAX];

	snprintf(sentence, sizeof sentence, "the key %s: Consul says: %s", put->key, txn->what);
	/* Whoever wrote by what he knew is told what is there. */
	if (txn->stale && watch)
		query_refresh(watch->query);
	if (txn->denied)
		fail(put, -EACCES, sentence);
	else if (put->fenced && txn->failed == 0)
		not_leading(put);
	else
		fail(put, txn->stale ? -ESTALE : -EINVAL, sentence);
}

static void on_txn(void *context, const struct answer *answer)
{
	struct put *put = context;
	struct consul *consul = put->consul;
	struct answer_txn txn = {0};
	int r = -EBADMSG;

	put->request = NULL;
	if (answer->failure == FAILURE_NONE || answer->failure == FAILURE_CONFLICT)
		r = answers_txn(answer->body, answer->length, &txn);
	if (r == 0 && txn.done != (answer->failure == FAILURE_NONE))
		r = -EBADMSG;
	if (r == 0 && txn.done) {
		put->over = true;
		snprintf(put->version, sizeof put->version, "%s", put->removes ? "" : txn.version);
	} else if (r == 0) {
		rolled_back(put, &txn);
	} else {
		fail(put,
		     answer->failure == FAILURE_DENIED ? -EACCES
		     : answer->failure == FAILURE_REFUSED || answer->failure == FAILURE_MISSING
			     ? -EINVAL
			     : -EHOSTDOWN,
		     *answer->sentence ? answer->sentence
				       : "the Consul agent's answer to a transaction is none");
	}
	kv_process(consul, now_ms());
}

static void send_put(struct put *put)
{
	struct request_order order = {
		.method = "PUT",
		.path = "/v1/txn",
		.body = put->body,
		.length = strlen(put->body),
		.timeout_ms = PUT_MS,
		.lane = LANE_ORDINARY,
		.done = on_txn,
		.context = put,
	};
	const char *session = session_id(put->consul);

	/* By the time that it is its turn we may lead no more, or again with another session. */
	if (put->fenced &&
	    (!lead_leading(put->consul) || !session || strcmp(session, put->session))) {
		not_leading(put);
		return;
	}
	put->request = request_start(put->consul, &order);
	if (!put->request)
		fail(put, -EHOSTDOWN, "no memory");
}

/* An operation of a transaction; NULL: no memory. */
static cJSON *add_op(cJSON *ops, const char *verb, const char *key)
{
	cJSON *op = cJSON_CreateObject(), *kv = cJSON_AddObjectToObject(op, "KV");

	if (!cJSON_AddStringToObject(kv, "Verb", verb) ||
	    !cJSON_AddStringToObject(kv, "Key", key) || !cJSON_AddItemToArray(ops, op)) {
		cJSON_Delete(op);
		return NULL;
	}
	return kv;
}

static bool add_write(cJSON *ops, const char *key, const void *data, size_t length,
		      const char *version)
{
	const char *verb = version ? "cas" : "set";
	char *text;
	cJSON *kv;
	bool good;

	if (!data && version) {
		/* A removal that is conditional says nothing of a key that is not there. */
		kv = add_op(ops, *version ? "check-index" : "check-not-exists", key);
		if (!kv || (*version && !cJSON_AddRawToObject(kv, "Index", version)))
			return false;
		return !*version || add_op(ops, "delete", key);
	}
	kv = add_op(ops, data ? verb : "delete", key);
	if (!kv || !data)
		return kv != NULL;
	text = answers_encode(data, length);
	good = text && cJSON_AddStringToObject(kv, "Value", text) &&
	       (!version || cJSON_AddRawToObject(kv, "Index", *version ? version : "0"));
	free(text);
	return good;
}

static char *make_body(struct put *put, const void *data, size_t length, const char *version)
{
	struct consul *consul = put->consul;
	cJSON *ops = cJSON_CreateArray(), *fence;
	char *key = NULL, *body = NULL;
	bool good = ops && asprintf(&key, "%s/%s", consul->cluster, put->key) >= 0;

	if (good && put->fenced) {
		fence = add_op(ops, "check-session", lead_key(consul));
		good = fence && cJSON_AddStringToObject(fence, "Session", put->session);
	}
	if (good && add_write(ops, key, data, length, version))
		body = cJSON_PrintUnformatted(ops);
	cJSON_Delete(ops);
	free(key);
	return body;
}

static bool version_valid(const char *version)
{
	return !version ||
	       (strlen(version) < 20 && strspn(version, "0123456789") == strlen(version));
}

static int fill_put(struct put *put, const void *data, size_t length, const char *version)
{
	const char *session = session_id(put->consul);

	if (put->fenced && (!session || !lead_leading(put->consul))) {
		not_leading(put);
		return 0;
	}
	/* One that we never gave is the version of nothing that is there. */
	if (!version_valid(version)) {
		fail(put, -ESTALE, "there is no such version");
		return 0;
	}
	if (put->fenced) {
		put->session = strdup(session);
		if (!put->session)
			return -ENOMEM;
	}
	put->body = make_body(put, data, length, version);
	return put->body ? 0 : -ENOMEM;
}

int kv_put(struct consul *consul, const char *key, const void *data, size_t length,
	   const char *version, uint32_t flags, uint64_t cookie)
{
	struct kv *kv = consul->kv;
	struct put *put;
	int r;

	if (!kv_key_valid(key) || !strcmp(key, "leader") || length > DROVER_REGISTRY_VALUE_MAX)
		return -EINVAL;
	if (kv->n_puts >= PUTS_MAX)
		return -EAGAIN;
	put = calloc(1, sizeof *put);
	if (!put)
		return -ENOMEM;
	*put = (struct put){
		.consul = consul,
		.key = strdup(key),
		.removes = !data,
		.fenced = flags & DROVER_PUT_FENCED,
		.cookie = cookie,
	};
	TAILQ_INSERT_TAIL(&kv->puts, put, next);
	kv->n_puts++;
	r = put->key ? fill_put(put, data, length, version) : -ENOMEM;
	if (r < 0)
		put_free(put);
	return r;
}

/* Whether another of the same key goes first. */
static bool has_to_wait(const struct kv *kv, const struct put *put)
{
	const struct put *before;

	TAILQ_FOREACH(before, &kv->puts, next) {
		if (before == put)
			return false;
		if (!strcmp(before->key, put->key))
			return true;
	}
	return false;
}

int64_t kv_due_ms(const struct consul *consul)
{
	const struct kv *kv = consul->kv;
	const struct put *put;

	TAILQ_FOREACH(put, &kv->puts, next)
		if (put->over || (!put->request && !has_to_wait(kv, put)))
			return 0;
	return NEVER;
}

static void tell_put(struct put *put)
{
	const struct drover_registry_callbacks *callbacks = &put->consul->callbacks;
	struct put told = *put; /* off the list before: being told may write again */
	struct drover_put_result result = {
		.size = sizeof result,
		.error = told.error,
		.version = told.version,
		.sentence = told.sentence,
	};

	put_free(put);
	callbacks->put(callbacks->context, told.cookie, &result);
}

static struct put *first_over(struct kv *kv)
{
	struct put *put;

	TAILQ_FOREACH(put, &kv->puts, next)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list. */
		if (put->over)
			break;
	return put;
}

void kv_process(struct consul *consul, int64_t now)
{
	struct kv *kv = consul->kv;
	size_t n = kv->n_puts; /* not those that are made by telling */
	struct put *put, *after;

	(void)now;
	for (put = TAILQ_FIRST(&kv->puts); put; put = after) {
		after = TAILQ_NEXT(put, next);
		if (!put->over && !put->request && !has_to_wait(kv, put))
			send_put(put);
	}
	while (n-- && (put = first_over(kv)))
		tell_put(put);
}

int kv_open(struct consul *consul)
{
	consul->kv = calloc(1, sizeof *consul->kv);
	if (!consul->kv)
		return -ENOMEM;
	LIST_INIT(&consul->kv->watches);
	TAILQ_INIT(&consul->kv->puts);
	return 0;
}

void kv_close(struct consul *consul)
{
	struct kv *kv = consul->kv;

	if (!kv)
		return;
	while (!LIST_EMPTY(&kv->watches))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list. */
		watch_free(LIST_FIRST(&kv->watches));
	while (!TAILQ_EMPTY(&kv->puts))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list. */
		put_free(TAILQ_FIRST(&kv->puts));
	free(kv);
	consul->kv = NULL;
}
