/* SPDX-License-Identifier: MIT */
/*
 * Questions to RabbitMQ's management API over HTTP, for rabbitmq.so (see management.h). Reads only.
 * Decides nothing: what the API does not say is unknown, and what it says is handed on as it is.
 * Its caller waits on one descriptor, an epoll instance with libcurl's sockets in it.
 */
#include "management.h"

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <drover/plugin.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../common.h"
#include "../../transfers.h"

#define UNKNOWN     (-1)
#define CONNECTIONS 4
#define BODY_MAX    (256u << 20) /* of an answer */

struct question {
	struct question *next;
	struct management *management;
	CURL *curl;
	management_answer *answer;
	void *context;
	char *name;   /* of one queue; NULL: all */
	cJSON *queue; /* what was said of it, while we ask for its bindings */
	struct transfer_body body;
	char error[CURL_ERROR_SIZE];
};

struct management {
	struct transfers transfers;
	struct question *questions;
	char *url, *vhost, *exchange, *ca_file, *user, *password;
	bool verify;
	long timeout_ms;
};

/* Asking. */

static void question_free(struct question *question)
{
	struct management *management = question->management;
	struct question **at = &management->questions;

	while (*at != question)
		at = &(*at)->next;
	*at = question->next;
	if (question->curl) {
		curl_multi_remove_handle(management->transfers.multi, question->curl);
		curl_easy_cleanup(question->curl);
	}
	cJSON_Delete(question->queue);
	free(question->name);
	free(question->body.data);
	free(question);
}

/* "URL/api/queues/VHOST[/NAME[/bindings]]" */
static char *address(const struct question *question)
{
	const struct management *management = question->management;
	char *vhost = curl_easy_escape(question->curl, management->vhost, 0);
	char *name = question->name ? curl_easy_escape(question->curl, question->name, 0) : NULL;
	size_t length = strlen(management->url);
	char *url = NULL;
	int r = -1;

	while (length && management->url[length - 1] == '/')
		length--;
	if (vhost && name)
		r = asprintf(&url, "%.*s/api/queues/%s/%s%s", (int)length, management->url, vhost,
			     name, question->queue ? "/bindings" : "");
	else if (vhost && !question->name)
		r = asprintf(&url, "%.*s/api/queues/%s?disable_stats=true&enable_queue_totals=true",
			     (int)length, management->url, vhost);
	curl_free(vhost);
	curl_free(name);
	return r < 0 ? NULL : url;
}

static void set_protocols(CURL *curl)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

static int send_question(struct question *question)
{
	const struct management *management = question->management;
	CURL *curl = question->curl;
	char *url = address(question);
	bool login = url && !strchr(management->url, '@') && management->user;
	CURLMcode code;

	if (!url)
		return -ENOMEM;
	curl_easy_setopt(curl, CURLOPT_URL, url);
	free(url);
	curl_easy_setopt(curl, CURLOPT_PRIVATE, question);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, transfer_body_add);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &question->body);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, question->error);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, management->timeout_ms);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, management->verify ? 1L : 0L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, management->verify ? 2L : 0L);
	set_protocols(curl);
	if (management->ca_file)
		curl_easy_setopt(curl, CURLOPT_CAINFO, management->ca_file);
	if (login) {
		curl_easy_setopt(curl, CURLOPT_USERNAME, management->user);
		curl_easy_setopt(curl, CURLOPT_PASSWORD, management->password);
	}
	code = curl_multi_add_handle(management->transfers.multi, curl);
	return code == CURLM_OK ? 0 : -ENOMEM;
}

static int ask(struct management *management, const char *name, management_answer *answer,
	       void *context)
{
	struct question *question = calloc(1, sizeof *question);
	int r = -ENOMEM;

	if (!question)
		return r;
	*question = (struct question){
		.next = management->questions,
		.management = management,
		.curl = curl_easy_init(),
		.answer = answer,
		.context = context,
		.body.most = BODY_MAX,
		.name = name ? strdup(name) : NULL,
	};
	management->questions = question;
	if (question->curl && (question->name || !name))
		r = send_question(question);
	if (r < 0)
		question_free(question);
	return r;
}

/* Answers. */

static const char *text_of(const cJSON *object, const char *name)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static int64_t number_of(const cJSON *object, const char *name, int64_t otherwise)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

	if (!cJSON_IsNumber(item) || !(item->valuedouble > -1e15 && item->valuedouble < 1e15))
		return otherwise;
	return (int64_t)item->valuedouble;
}

/* What was said when the queue was made, and what a policy says: the smaller one counts. */
static int64_t limit_of(const cJSON *queue, const char *argument, const char *policy)
{
	const cJSON *arguments = cJSON_GetObjectItemCaseSensitive(queue, "arguments");
	const cJSON *definition =
		cJSON_GetObjectItemCaseSensitive(queue, "effective_policy_definition");
	int64_t limits[] = {number_of(arguments, argument, INT64_MIN),
			    number_of(definition, policy, INT64_MIN)};
	int64_t limit = UNKNOWN;

	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
		if (limits[i] == INT64_MIN)
			continue;
		if (limits[i] < 0)
			limits[i] = INT64_MAX;
		if (limit == UNKNOWN || limits[i] < limit)
			limit = limits[i];
	}
	return limit;
}

static struct management_queue read_queue(const cJSON *json)
{
	return (struct management_queue){
		.name = text_of(json, "name"),
		.kind = text_of(json, "type"),
		.ready = number_of(json, "messages_ready", UNKNOWN),
		.delivery_limit = limit_of(json, "x-delivery-limit", "delivery-limit"),
		.consumer_timeout_ms = limit_of(json, "x-consumer-timeout", "consumer-timeout"),
	};
}

static int compare_queues(const void *a, const void *b)
{
	const struct management_queue *left = a, *right = b;

	return strcmp(left->name, right->name);
}

static void answer_all(struct question *question, const cJSON *json)
{
	size_t room = (size_t)cJSON_GetArraySize(json), n = 0;
	struct management_queue *queues = calloc(room + 1, sizeof *queues);
	const cJSON *item;

	if (!queues) {
		question->answer(question->context, -ENOMEM, "no memory", NULL, 0);
		return;
	}
	cJSON_ArrayForEach(item, json) {
		queues[n] = read_queue(item);
		n += queues[n].name != NULL;
	}
	qsort(queues, n, sizeof *queues, compare_queues);
	question->answer(question->context, 0, NULL, queues, n);
	free(queues);
}

static void answer_one(struct question *question, const cJSON *json)
{
	const char *exchange = question->management->exchange, *source, *key;
	struct management_queue queue = read_queue(question->queue);
	const char **bind = calloc((size_t)cJSON_GetArraySize(json) + 1, sizeof *bind);
	size_t n = 0;
	const cJSON *item;

	if (!bind) {
		question->answer(question->context, -ENOMEM, "no memory", NULL, 0);
		return;
	}
	cJSON_ArrayForEach(item, json) {
		source = text_of(item, "source");
		key = text_of(item, "routing_key");
		if (source && key && !strcmp(source, exchange))
			bind[n++] = key;
	}
	queue.name = question->name;
	queue.bind = bind;
	question->answer(question->context, 0, NULL, &queue, 1);
	free(bind);
}

/* Of one queue its bindings are asked for next: true. */
static bool ask_on(struct question *question, cJSON *json)
{
	if (!question->name || question->queue || !cJSON_IsObject(json))
		return false;
	curl_multi_remove_handle(question->management->transfers.multi, question->curl);
	question->queue = json;
	free(question->body.data);
	question->body.data = NULL;
	question->body.size = 0;
	return send_question(question) == 0;
}

static void take_answer(struct question *question)
{
	cJSON *json = cJSON_ParseWithLength(question->body.data ? question->body.data : "",
					    question->body.size);

	if (ask_on(question, json))
		return;
	if (!cJSON_IsArray(json)) {
		question->answer(question->context, -EBADMSG,
				 "the management API answers something else than it is asked", NULL,
				 0);
		cJSON_Delete(question->queue == json ? NULL : json);
	} else {
		if (question->name)
			answer_one(question, json);
		else
			answer_all(question, json);
		cJSON_Delete(json);
	}
	question_free(question);
}

static void fail(struct question *question, int error, const char *sentence)
{
	question->answer(question->context, error, sentence, NULL, 0);
	question_free(question);
}

static void finish(void *of, CURLcode code)
{
	struct question *question = of;
	char sentence[CURL_ERROR_SIZE + 64];
	long status = 0;

	if (code != CURLE_OK) {
		snprintf(sentence, sizeof sentence, "the management API: %s",
			 *question->error ? question->error : curl_easy_strerror(code));
		fail(question, -EIO, sentence);
		return;
	}
	curl_easy_getinfo(question->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200) {
		take_answer(question);
	} else if (status == 401 || status == 403) {
		snprintf(
			sentence, sizeof sentence,
			"the management API refuses the user (%ld); he needs the tag \"monitoring\""
			" or \"management\"",
			status);
		fail(question, -EACCES, sentence);
	} else if (status == 404) {
		fail(question, -ENOENT, "the management API knows no such queue or vhost");
	} else {
		snprintf(sentence, sizeof sentence, "the management API answers with status %ld",
			 status);
		fail(question, -EIO, sentence);
	}
}

/* What the plugin calls. */

static void api_close(struct management *management)
{
	while (management->questions)
		question_free(management->questions);
	transfers_close(&management->transfers);
	if (management->password)
		explicit_bzero(management->password, strlen(management->password));
	free(management->password);
	free(management->user);
	free(management->url);
	free(management->vhost);
	free(management->exchange);
	free(management->ca_file);
	free(management);
}

static struct management *api_open(const struct management_setup *setup)
{
	struct management *management = calloc(1, sizeof *management);

	if (!management)
		return NULL;
	*management = (struct management){
		.url = strdup(setup->url),
		.vhost = strdup(setup->vhost),
		.exchange = strdup(setup->exchange),
		.ca_file = setup->ca_file ? strdup(setup->ca_file) : NULL,
		.verify = setup->verify,
		.timeout_ms = (long)setup->timeout_ms,
	};
	if (transfers_open(&management->transfers) < 0 || !management->url || !management->vhost ||
	    !management->exchange || (setup->ca_file && !management->ca_file)) {
		api_close(management);
		return NULL;
	}
	curl_multi_setopt(management->transfers.multi, CURLMOPT_MAX_HOST_CONNECTIONS,
			  (long)CONNECTIONS);
	return management;
}

static int api_login(struct management *management, const char *user, const char *password)
{
	char *copies[] = {strdup(user), strdup(password)};

	if (!copies[0] || !copies[1]) {
		free(copies[0]);
		free(copies[1]);
		return -ENOMEM;
	}
	if (management->password)
		explicit_bzero(management->password, strlen(management->password));
	free(management->user);
	free(management->password);
	management->user = copies[0];
	management->password = copies[1];
	return 0;
}

static int api_fd(struct management *management)
{
	return management->transfers.epoll_fd;
}

static int64_t api_timeout_ms(struct management *management)
{
	int64_t now = now_ms();

	if (management->transfers.due_ms == INT64_MAX)
		return -1;
	return management->transfers.due_ms > now ? management->transfers.due_ms - now : 0;
}

static void api_process(struct management *management)
{
	transfers_process(&management->transfers, finish);
}

static int api_queues(struct management *management, management_answer *answer, void *context)
{
	return ask(management, NULL, answer, context);
}

static int api_queue(struct management *management, const char *name, management_answer *answer,
		     void *context)
{
	return ask(management, name, answer, context);
}

DROVER_EXPORT extern const struct management_calls rabbitmq_management;
const struct management_calls rabbitmq_management = {
	.version = MANAGEMENT_VERSION,
	.open = api_open,
	.close = api_close,
	.login = api_login,
	.fd = api_fd,
	.timeout_ms = api_timeout_ms,
	.process = api_process,
	.queues = api_queues,
	.queue = api_queue,
};
