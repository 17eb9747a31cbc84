/* SPDX-License-Identifier: MIT */
/*
 * The plugin's rows, and what they said: hosts, credentials, TLS, names. Decides defaults and what
 * contradicts what; the host has checked types and bounds before. A password is read from its file
 * for each connection, so that a rotated one counts, and kept no longer than that.
 */
#include "rabbitmq.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT     5672
#define PORT_TLS 5671

const struct drover_option settings_options[] = {
	{"hosts", DROVER_OPTION_LIST, DROVER_OPTION_SECRET, NULL, 0, 0,
	 "The broker's nodes, tried in this order: \"host\", \"host:port\", or URLs like "
	 "\"amqps://user@host/vhost\" (these may hold a password, so they are shown nowhere). "
	 "Default: localhost."},
	{"port", DROVER_OPTION_INT, 0, NULL, 1, 65535,
	 "The port of hosts that name none. Default: 5672, with TLS 5671."},
	{"vhost", DROVER_OPTION_STRING, 0, "/", 0, 0, "The virtual host."},
	{"user", DROVER_OPTION_STRING, 0, "guest", 0, 0, "The user to log in as."},
	{"password_file", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "A file with the user's password, read anew for each connection. Default: no file; the "
	 "password of the user guest is guest then."},
	{"credential", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "The same as a credential of systemd (LoadCredential=), by its name."},
	{"tls", DROVER_OPTION_BOOL, 0, "false", 0, 0, "Speak TLS to all hosts."},
	{"ca_file", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "Certificates of the authorities that may have signed the broker's, in PEM. Default: "
	 "those that this system believes."},
	{"cert_file", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "A client certificate, in PEM, for brokers that want one."},
	{"key_file", DROVER_OPTION_STRING, 0, NULL, 0, 0, "Its key, in PEM."},
	{"verify", DROVER_OPTION_BOOL, 0, "true", 0, 0,
	 "With TLS: check the broker's certificate and host name. false is logged at each "
	 "connection."},
	{"heartbeat", DROVER_OPTION_DURATION, 0, "10s", 1000, 600000,
	 "A broker that is silent for two and a half of them is lost; in whole seconds."},
	{"frame_max", DROVER_OPTION_SIZE, 0, "64K", 4096, 65536,
	 "The longest frame; longer bodies travel in several."},
	{"connect_timeout", DROVER_OPTION_DURATION, 0, "1s", 50, 1500,
	 "To reach one host: TCP, TLS and login. The dispatcher does nothing else meanwhile."},
	{"exchange", DROVER_OPTION_STRING, 0, "drover", 0, 0,
	 "The topic exchange that events are published to and queues are bound to."},
	{"queue_type", DROVER_OPTION_STRING, 0, "classic", 0, 0,
	 "What is made: \"classic\" or \"quorum\" queues."},
	{"management", DROVER_OPTION_STRING, DROVER_OPTION_SECRET, NULL, 0, 0,
	 "The URL of the management API, like \"http://rabbit1:15672\", for what AMQP does not "
	 "tell: bindings, limits, rates. Default: it is not asked."},
	{"depths", DROVER_OPTION_STRING, 0, "amqp", 0, 0,
	 "Who is asked how deep the queues are: \"amqp\", which cannot tell whether a quorum queue "
	 "without consumers is empty; with \"management\" the management API is asked then."},
	{0},
};

static char *copy(const char *text, size_t size)
{
	return text && size ? strndup(text, size) : NULL;
}

/* "host", "host:port", "[::1]:port" */
static int read_host(struct endpoint *endpoint, const char *text, struct fault *fault)
{
	const char *end = *text == '[' ? strchr(text, ']') : NULL;
	const char *colon = strrchr(end ? end : text, ':');
	char *rest = NULL;

	/* More than one and no brackets: an address of IPv6. */
	if (!end && colon && strchr(text, ':') != colon)
		colon = NULL;
	if (end)
		endpoint->host = copy(text + 1, (size_t)(end - text - 1));
	else
		endpoint->host = copy(text, colon ? (size_t)(colon - text) : strlen(text));
	if (colon) {
		long port = strtol(colon + 1, &rest, 10);

		if (rest == colon + 1 || *rest || port < 1 || port > 65535)
			return fault_set(fault, -EINVAL,
					 "hosts: \"%s\": the port is a number from 1 to 65535",
					 text);
		endpoint->port = (int)port;
	}
	return endpoint->host ? 0 : fault_set(fault, -EINVAL, "hosts: \"%s\" names no host", text);
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A part of a URL, its %XX decoded; NULL: it is none, or there is no memory. */
static char *decode(const char *text, size_t size)
{
	char *made = malloc(size + 1), *to = made;

	for (size_t i = 0; made && i < size; i++) {
		int high, low;

		if (text[i] != '%') {
			*to++ = text[i];
			continue;
		}
		high = i + 2 < size ? hex(text[i + 1]) : -1;
		low = high >= 0 ? hex(text[i + 2]) : -1;
		if (low < 0 || !(high | low)) {
			explicit_bzero(made, size);
			free(made);
			return NULL;
		}
		*to++ = (char)(high << 4 | low);
		i += 2;
	}
	if (made)
		*to = '\0';
	return made;
}

/*
 * "amqp://user:password@host:port/vhost"; what it leaves out stays NULL. The library's own parser
 * takes no names beyond ASCII.
 */
static int read_url(struct endpoint *endpoint, const char *url, struct fault *fault)
{
	const char *after = strstr(url, "://") + 3, *slash = strchrnul(after, '/');
	const char *at = memchr(after, '@', (size_t)(slash - after)), *colon;
	char *place = strndup(at ? at + 1 : after, (size_t)(slash - (at ? at + 1 : after)));
	int r = -EINVAL;

	if (!place)
		return fault_set(fault, -ENOMEM, "no memory");
	endpoint->tls = !strncmp(url, "amqps://", 8);
	endpoint->port = endpoint->tls ? PORT_TLS : PORT;
	if (endpoint->tls || !strncmp(url, "amqp://", 7))
		r = *place ? read_host(endpoint, place, fault) : -EINVAL;
	free(place);
	if (r == 0 && at) {
		colon = memchr(after, ':', (size_t)(at - after));
		endpoint->user = decode(after, (size_t)((colon ? colon : at) - after));
		if (colon)
			endpoint->password = decode(colon + 1, (size_t)(at - colon - 1));
		r = endpoint->user && (!colon || endpoint->password) ? 0 : -EINVAL;
	}
	if (r == 0 && *slash && slash[1]) {
		endpoint->vhost = decode(slash + 1, strlen(slash + 1));
		r = endpoint->vhost ? 0 : -EINVAL;
	}
	/* Not the URL itself: there may be a password in it. */
	return r == 0 ? 0
		      : fault_set(fault, r,
				  "hosts: one that contains \"://\" is no URL like "
				  "\"amqps://user@host:5671/vhost\"");
}

static void free_hosts(struct endpoint *hosts, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct endpoint *endpoint = &hosts[i];

		if (endpoint->password)
			explicit_bzero(endpoint->password, strlen(endpoint->password));
		free(endpoint->password);
		free(endpoint->host);
		free(endpoint->user);
		free(endpoint->vhost);
	}
	free(hosts);
}

int settings_hosts(const struct drover_host *host, struct settings *settings,
		   const char *const *list, size_t n, struct fault *fault)
{
	bool tls = host->number(host, "tls");
	int port = (int)host->number(host, "port"), r = 0;
	struct endpoint *hosts = calloc(n ? n : 1, sizeof *hosts);

	if (!hosts)
		return fault_set(fault, -ENOMEM, "no memory");
	if (!n)
		r = fault_set(fault, -EINVAL, "hosts: there is none in it");
	for (size_t i = 0; i < n && r == 0; i++) {
		hosts[i] = (struct endpoint){.tls = tls,
					     .port = port  ? port
						     : tls ? PORT_TLS
							   : PORT};
		r = strstr(list[i], "://") ? read_url(&hosts[i], list[i], fault)
					   : read_host(&hosts[i], list[i], fault);
	}
	if (r < 0) {
		free_hosts(hosts, n);
		return r;
	}
	free_hosts(settings->hosts, settings->n_hosts);
	settings->hosts = hosts;
	settings->n_hosts = n;
	return 0;
}

static int read_hosts(const struct drover_host *host, struct settings *settings,
		      struct fault *fault)
{
	static const char *const none[] = {"localhost", NULL};
	const char *const *list = host->list(host, "hosts");
	size_t n = 0;

	if (!list || !*list)
		list = none;
	while (list[n])
		n++;
	return settings_hosts(host, settings, list, n, fault);
}

static int read_choice(const struct drover_host *host, const char *name, const char *first,
		       const char *second, bool *ret_second, struct fault *fault)
{
	const char *value = host->setting(host, name);

	if (!value || (strcmp(value, first) && strcmp(value, second)))
		return fault_set(fault, -EINVAL, "%s = \"%s\": \"%s\" or \"%s\" is allowed", name,
				 value ? value : "", first, second);
	*ret_second = !strcmp(value, second);
	return 0;
}

static int read_password_source(const struct drover_host *host, struct settings *settings,
				struct fault *fault)
{
	const char *file = host->setting(host, "password_file");
	const char *credential = host->setting(host, "credential");
	const char *directory = getenv("CREDENTIALS_DIRECTORY");

	if (file && credential)
		return fault_set(
			fault, -EINVAL,
			"password_file and credential are both set; one of them is allowed");
	if (credential && !directory)
		return fault_set(
			fault, -EINVAL,
			"credential = \"%s\": there are no credentials of systemd; the unit "
			"needs LoadCredential=%s:FILE",
			credential, credential);
	if (credential && strchr(credential, '/'))
		return fault_set(fault, -EINVAL,
				 "credential = \"%s\": a name, not a path, is allowed", credential);
	if (credential && asprintf(&settings->password_file, "%s/%s", directory, credential) < 0) {
		settings->password_file = NULL;
		return fault_set(fault, -ENOMEM, "no memory");
	}
	if (file && !(settings->password_file = strdup(file)))
		return fault_set(fault, -ENOMEM, "no memory");
	return 0;
}

static int check_tls(const struct settings *settings, struct fault *fault)
{
	bool tls = false;

	for (size_t i = 0; i < settings->n_hosts; i++)
		tls = tls || settings->hosts[i].tls;
	if (!tls && (settings->ca_file || settings->cert_file || settings->key_file))
		return fault_set(fault, -EINVAL,
				 "%s is set, but no host is spoken to by TLS: set tls = true, or "
				 "leave it out",
				 settings->ca_file     ? "ca_file"
				 : settings->cert_file ? "cert_file"
						       : "key_file");
	if (!settings->cert_file != !settings->key_file)
		return fault_set(fault, -EINVAL,
				 "cert_file and key_file go together; only one is set");
	return 0;
}

int settings_read(const struct drover_host *host, struct settings *settings, struct fault *fault)
{
	const char *node = host->setting(host, "node");
	int r;

	*settings = (struct settings){
		.vhost = host->setting(host, "vhost"),
		.user = host->setting(host, "user"),
		.ca_file = host->setting(host, "ca_file"),
		.cert_file = host->setting(host, "cert_file"),
		.key_file = host->setting(host, "key_file"),
		.verify = host->number(host, "verify"),
		.heartbeat_s = (int)(host->number(host, "heartbeat") / 1000),
		.frame_max = (int)host->number(host, "frame_max"),
		.connect_ms = host->number(host, "connect_timeout"),
		.exchange = host->setting(host, "exchange"),
		.management = host->setting(host, "management"),
		.node = node ? node : "",
	};
	r = read_hosts(host, settings, fault);
	if (r == 0)
		r = read_choice(host, "queue_type", "classic", "quorum", &settings->quorum, fault);
	if (r == 0)
		r = read_choice(host, "depths", "amqp", "management",
				&settings->depths_by_management, fault);
	if (r == 0)
		r = read_password_source(host, settings, fault);
	if (r == 0)
		r = check_tls(settings, fault);
	if (r == 0 && settings->depths_by_management && !settings->management)
		r = fault_set(fault, -EINVAL,
			      "depths = \"management\" needs `management`, the URL to ask");
	if (r == 0 && !*settings->exchange)
		r = fault_set(fault, -EINVAL,
			      "exchange = \"\": the default exchange takes no bindings; name one");
	if (r < 0)
		settings_free(settings);
	return r;
}

void settings_free(struct settings *settings)
{
	free_hosts(settings->hosts, settings->n_hosts);
	free(settings->password_file);
	*settings = (struct settings){0};
}

int settings_password(const struct settings *settings, const struct endpoint *endpoint,
		      char **ret_password, struct fault *fault)
{
	const char *user = endpoint->user ? endpoint->user : settings->user;

	if (!endpoint->password && settings->password_file)
		return secret_read("password", settings->password_file, ret_password, fault);
	if (!endpoint->password && strcmp(user, "guest"))
		return fault_set(fault, -EINVAL,
				 "user = \"%s\" needs password_file (or credential)", user);
	*ret_password = strdup(endpoint->password ? endpoint->password : "guest");
	return *ret_password ? 0 : fault_set(fault, -ENOMEM, "no memory");
}
