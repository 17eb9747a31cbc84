/* SPDX-License-Identifier: MIT */
/*
 * One request as libcurl wants it: URL, headers, TLS, and where what comes back goes. Decides nothing
 * about lanes and answers (http.c does), and sends the token in its header only.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http.h"

#define BODY_MAX   (64u << 20)
#define CONNECT_MS 1000
#define AGE_S      600 /* of a connection: new ones see new certificates */

/* The value of this header, in `text`; false: it is another one. */
static bool header_is(const char *line, size_t size, const char *name, char *text, size_t room)
{
	size_t length = strlen(name);

	if (size <= length || strncasecmp(line, name, length) || line[length] != ':')
		return false;
	line += length + 1;
	size -= length + 1;
	while (size && (*line == ' ' || *line == '\t')) {
		line++;
		size--;
	}
	while (size && (unsigned char)line[size - 1] <= ' ')
		size--;
	snprintf(text, room, "%.*s", (int)(size < room ? size : 0), line);
	return true;
}

static size_t on_header(char *line, size_t size, size_t n, void *context)
{
	struct request *request = context;
	char text[64];

	n *= size;
	if (header_is(line, n, "X-Consul-Index", text, sizeof text))
		request->answer.index = strtoull(text, NULL, 10);
	else if (header_is(line, n, "X-Consul-ContentHash", text, sizeof text))
		memcpy(request->answer.hash, text, sizeof text);
	return n;
}

static bool add_header(struct request *request, const char *name, const char *value)
{
	struct curl_slist *list;
	char *line;

	if (asprintf(&line, "%s: %s", name, value) < 0)
		return false;
	list = curl_slist_append(request->headers, line);
	explicit_bzero(line, strlen(line));
	free(line);
	if (list)
		request->headers = list;
	return list != NULL;
}

static bool set_headers(struct request *request)
{
	const struct consul *consul = request->consul;
	const struct http *http = consul->http;

	if (!add_header(request, "Content-Type", "application/json"))
		return false;
	if (consul->settings.namespace && token_is_line(consul->settings.namespace) &&
	    !add_header(request, "X-Consul-Namespace", consul->settings.namespace))
		return false;
	request->token = http->token_count;
	return !http->token || request->anonymous ||
	       add_header(request, "X-Consul-Token", http->token);
}

static void set_tls(CURL *curl, const struct settings *settings)
{
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, settings->verify ? 1L : 0L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, settings->verify ? 2L : 0L);
	if (settings->ca_file)
		curl_easy_setopt(curl, CURLOPT_CAINFO, settings->ca_file);
	if (settings->ca_path)
		curl_easy_setopt(curl, CURLOPT_CAPATH, settings->ca_path);
	if (settings->cert_file) {
		curl_easy_setopt(curl, CURLOPT_SSLCERT, settings->cert_file);
		curl_easy_setopt(curl, CURLOPT_SSLKEY, settings->key_file);
	}
	/* A session that is resumed, and authorities that are remembered, outlive their files. */
	curl_easy_setopt(curl, CURLOPT_SSL_SESSIONID_CACHE, 0L);
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(curl, CURLOPT_CA_CACHE_TIMEOUT, 0L);
#endif
#if LIBCURL_VERSION_NUM >= 0x075000
	curl_easy_setopt(curl, CURLOPT_MAXLIFETIME_CONN, (long)AGE_S);
#endif
}

static void set_protocols(CURL *curl)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

/*
 * The URL. A certificate for another name than the address is asked of a host of that name, and the
 * connection goes to the address.
 */
static bool set_place(struct request *request)
{
	const struct settings *settings = &request->consul->settings;
	bool renamed = settings->server_name && settings->tls;
	const char *place = strstr(settings->url, "://") + 3;
	size_t size = strcspn(place, "/"), host = size;
	struct curl_slist *to;
	char *url = NULL, *rule = NULL;
	int r;

	for (size_t i = size; i-- > 0 && place[i] != ']';)
		if (place[i] == ':')
			host = i;
	if (!renamed)
		r = asprintf(&url, "%s%s", settings->url, request->path);
	else
		r = asprintf(&url, "https://%s%s%s", settings->server_name, place + host,
			     request->path);
	if (r < 0)
		return false;
	curl_easy_setopt(request->curl, CURLOPT_URL, url);
	free(url);
	if (settings->socket_path)
		curl_easy_setopt(request->curl, CURLOPT_UNIX_SOCKET_PATH, settings->socket_path);
	if (!renamed || settings->socket_path)
		return true;
	r = asprintf(&rule, "::%.*s:%.*s", (int)host, place,
		     (int)(size > host ? size - host - 1 : 0), place + host + (size > host));
	to = r < 0 ? NULL : curl_slist_append(NULL, rule);
	free(rule);
	if (!to)
		return false;
	curl_easy_setopt(request->curl, CURLOPT_CONNECT_TO, to);
	request->place = to;
	return true;
}

static void set_answer(struct request *request)
{
	CURL *curl = request->curl;

	curl_easy_setopt(curl, CURLOPT_PRIVATE, request);
	request->got.most = BODY_MAX;
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, transfer_body_add);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &request->got);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, request);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, request->error);
}

static void set_order(struct request *request)
{
	CURL *curl = request->curl;
	int64_t left = request->deadline_ms - now_ms();

	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, request->headers);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(left > 1 ? left : 1));
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	if (request->body || strcmp(request->method, "GET")) {
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)request->length);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request->body ? request->body : "");
		curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
	}
}

static void set_manners(CURL *curl, const struct settings *settings)
{
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
	/* One request a connection: with HTTP/2 the urgent ones would share theirs with all others. */
	curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* Not to be waited for: a thread that resolves a name while its request is cancelled. */
	curl_easy_setopt(curl, CURLOPT_QUICK_EXIT, 1L);
#endif
	set_protocols(curl);
	set_tls(curl, settings);
	if (settings->auth) {
		curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		curl_easy_setopt(curl, CURLOPT_USERPWD, settings->auth);
	}
}

int transfer_start(struct request *request)
{
	struct consul *consul = request->consul;

	token_look(consul, request->again);
	if (*consul->http->token_fault.sentence && !request->anonymous)
		return -EACCES;
	request->curl = curl_easy_init();
	if (!request->curl || !set_headers(request) || !set_place(request))
		return -ENOMEM;
	set_answer(request);
	set_order(request);
	set_manners(request->curl, &consul->settings);
	return curl_multi_add_handle(consul->http->transfers.multi, request->curl) == CURLM_OK
		       ? 0
		       : -ENOMEM;
}

void transfer_end(struct request *request)
{
	if (request->curl) {
		curl_multi_remove_handle(request->consul->http->transfers.multi, request->curl);
		curl_easy_cleanup(request->curl);
	}
	request->curl = NULL;
	for (struct curl_slist *at = request->headers; at; at = at->next)
		explicit_bzero(at->data, strlen(at->data));
	curl_slist_free_all(request->headers);
	curl_slist_free_all(request->place);
	request->headers = request->place = NULL;
	free(request->got.data);
	request->got = (struct transfer_body){0};
	*request->error = '\0';
	request->answer = (struct answer){0};
}
