/* SPDX-License-Identifier: MIT */
/*
 * Where the agent is, and as whom we speak to it: the plugin's rows, and for what they leave out the
 * variables that Consul's own programs read. Decides defaults and what contradicts what; the host
 * has checked types and bounds before. A token is read from its file when it is to be sent.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "consul.h"

#define ADDRESS "127.0.0.1:8500"
#define PORT    "8500"

const struct drover_option settings_options[] = {
	{"address", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "Where the local Consul agent listens: \"host:port\", \"http://…\", \"https://…\" or "
	 "\"unix:///path\". Default: CONSUL_HTTP_ADDR of the environment, or 127.0.0.1:8500."},
	{"token_file", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "A file with the ACL token, read again when it changes or a request is denied. Default: "
	 "CONSUL_HTTP_TOKEN_FILE, or the token in CONSUL_HTTP_TOKEN, or none."},
	{"credential", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "The same as a credential of systemd (LoadCredential=), by its name."},
	{"auth_file", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "A file with \"user:password\" for an agent behind a proxy that asks for them. Default: "
	 "CONSUL_HTTP_AUTH, or none."},
	{"tls", DROVER_OPTION_BOOL, 0, NULL, 0, 0,
	 "Speak TLS to an address that does not say how. Default: CONSUL_HTTP_SSL, or false."},
	{"verify", DROVER_OPTION_BOOL, 0, NULL, 0, 0,
	 "With TLS: check the agent's certificate and name. Default: CONSUL_HTTP_SSL_VERIFY, or "
	 "true."},
	{"ca_file", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "Certificates of the authorities that may have signed the agent's, in PEM. Default: "
	 "CONSUL_CACERT, or those that this system believes."},
	{"ca_path", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "A directory of such certificates, hashed. Default: CONSUL_CAPATH."},
	{"cert_file", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "A client certificate, in PEM. Default: CONSUL_CLIENT_CERT."},
	{"key_file", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "Its key, in PEM. Default: CONSUL_CLIENT_KEY."},
	{"server_name", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "The name that the agent's certificate is for, where that is not the address. Default: "
	 "CONSUL_TLS_SERVER_NAME."},
	{"namespace", DROVER_OPTION_STRING, 0, NULL, 0, 0,
	 "The namespace, with Consul Enterprise. Default: CONSUL_NAMESPACE, or none."},
	{"alive_ttl", DROVER_OPTION_DURATION, 0, "30s", 3000, 3600000,
	 "A node that has not beaten for so long counts as dead; it beats every third of it."},
	{"deregister_after", DROVER_OPTION_DURATION, 0, "24h", 60000, INT64_C(30) * 86400000,
	 "The agent removes a dead node's entry after this; longer than any outage."},
	{"session_ttl", DROVER_OPTION_DURATION, 0, "15s", 10000, 3600000,
	 "A leader that cannot renew its session for so long leads no more; Consul takes up to "
	 "twice as long to believe that it is gone."},
	{"lock_delay", DROVER_OPTION_DURATION, 0, "15s", 1000, 60000,
	 "After a leader's session ended by itself, the time until another one leads. At least "
	 "session_ttl keeps two from believing that they lead at a time; what one writes that "
	 "leads no more is refused in any case."},
	{0},
};

/* Copies, or says that there is no memory; NULL and "" are NULL. */
static int keep(char **to, const char *text, struct fault *fault)
{
	if (!text || !*text)
		return 0;
	*to = strdup(text);
	return *to ? 0 : fault_set(fault, -ENOMEM, "no memory");
}

static int keep_row(const struct drover_host *host, const char *row, const char *variable,
		    char **to, struct fault *fault)
{
	const char *set = host->setting(host, row);

	return keep(to, set ? set : getenv(variable), fault);
}

/* As Consul's own programs read their variables. */
static int read_bool(const struct drover_host *host, const char *row, const char *variable,
		     bool otherwise, bool *ret_value, struct fault *fault)
{
	static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
	static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};
	const char *set = host->setting(host, row), *text = set ? set : getenv(variable);

	if (!text || !*text) {
		*ret_value = otherwise;
		return 0;
	}
	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
			*ret_value = !strcmp(text, yes[i]);
			return 0;
		}
	return fault_set(fault, -EINVAL, "%s = \"%s\" is neither true nor false",
			 set ? row : variable, text);
}

/* "host:port" with an optional path, of a URL; what is wrong with it. */
static const char *check_place(const char *place)
{
	size_t size = strcspn(place, "/?#");

	if (!size || *place == ':')
		return "names no host";
	if (memchr(place, '@', size))
		return "holds a user: those belong into auth_file or CONSUL_HTTP_AUTH";
	if (place[size + strcspn(place + size, "?#")])
		return "is more than an address";
	for (const char *at = place; *at; at++)
		if ((unsigned char)*at <= ' ' || *at == '"' || *at == '\\')
			return "is no address";
	return NULL;
}

static bool names_port(const char *place)
{
	const char *bracket = *place == '[' ? strchr(place, ']') : NULL;

	return strchr(bracket ? bracket : place, ':');
}

static int read_address(const struct drover_host *host, struct settings *settings,
			struct fault *fault)
{
	const char *set = host->setting(host, "address"),
		   *text = set ? set : getenv("CONSUL_HTTP_ADDR");
	const char *what = set ? "address" : "CONSUL_HTTP_ADDR", *scheme, *place, *wrong;
	int r;

	if (!text || !*text)
		text = ADDRESS;
	if (!strncmp(text, "unix://", 7)) {
		if (text[7] != '/')
			return fault_set(fault, -EINVAL,
					 "%s = \"%s\": a unix socket has an absolute path, like "
					 "\"unix:///run/consul.sock\"",
					 what, text);
		r = asprintf(&settings->url, "http%s://localhost", settings->tls ? "s" : "");
		if (r < 0)
			settings->url = NULL;
		r = r < 0 ? fault_set(fault, -ENOMEM, "no memory")
			  : keep(&settings->socket_path, text + 7, fault);
		return r < 0 ? r : keep(&settings->shown, text + 7, fault);
	}
	scheme = strstr(text, "://");
	place = scheme ? scheme + 3 : text;
	if (scheme && strncmp(text, "http://", 7) && strncmp(text, "https://", 8))
		return fault_set(fault, -EINVAL,
				 "%s: \"%.*s\" is no way to an agent: \"host:port\", \"http://…\", "
				 "\"https://…\" and \"unix:///path\" are",
				 what, (int)(scheme - text), text);
	wrong = check_place(place);
	if (wrong)
		/* Not the address itself: there may be a password in it. */
		return fault_set(fault, -EINVAL, "%s %s", what, wrong);
	if (scheme)
		settings->tls = settings->tls || !strncmp(text, "https://", 8);
	r = asprintf(&settings->url, "http%s://%s%s", settings->tls ? "s" : "", place,
		     scheme || names_port(place) ? "" : ":" PORT);
	if (r < 0) {
		settings->url = NULL;
		return fault_set(fault, -ENOMEM, "no memory");
	}
	while (settings->url[r - 1] == '/')
		settings->url[--r] = '\0';
	return keep(&settings->shown, strstr(settings->url, "://") + 3, fault);
}

static int read_token(const struct drover_host *host, struct settings *settings,
		      struct fault *fault)
{
	const char *file = host->setting(host, "token_file");
	const char *credential = host->setting(host, "credential");
	const char *directory = getenv("CREDENTIALS_DIRECTORY"), *variable;
	int r;

	if (file && credential)
		return fault_set(fault, -EINVAL,
				 "token_file and credential are both set; one of them is allowed");
	if (credential && !directory)
		return fault_set(
			fault, -EINVAL,
			"credential = \"%s\": there are no credentials of systemd; the unit "
			"needs LoadCredential=%s:FILE",
			credential, credential);
	if (credential && strchr(credential, '/'))
		return fault_set(fault, -EINVAL,
				 "credential = \"%s\": a name, not a path, is allowed", credential);
	if (credential) {
		if (asprintf(&settings->token_file, "%s/%s", directory, credential) >= 0)
			return 0;
		settings->token_file = NULL;
		return fault_set(fault, -ENOMEM, "no memory");
	}
	if (file)
		return keep(&settings->token_file, file, fault);
	/* As Consul's programs have it: the token itself goes before its file. */
	variable = getenv("CONSUL_HTTP_TOKEN");
	r = keep(&settings->token, variable, fault);
	return r < 0 || settings->token
		       ? r
		       : keep(&settings->token_file, getenv("CONSUL_HTTP_TOKEN_FILE"), fault);
}

static int read_auth(const struct drover_host *host, struct settings *settings, struct fault *fault)
{
	const char *file = host->setting(host, "auth_file");

	return file ? secret_read("auth", file, &settings->auth, fault)
		    : keep(&settings->auth, getenv("CONSUL_HTTP_AUTH"), fault);
}

static int read_files(const struct drover_host *host, struct settings *settings,
		      struct fault *fault)
{
	const struct {
		const char *row, *variable;
		char **to;
	} rows[] = {
		{"ca_file", "CONSUL_CACERT", &settings->ca_file},
		{"ca_path", "CONSUL_CAPATH", &settings->ca_path},
		{"cert_file", "CONSUL_CLIENT_CERT", &settings->cert_file},
		{"key_file", "CONSUL_CLIENT_KEY", &settings->key_file},
		{"server_name", "CONSUL_TLS_SERVER_NAME", &settings->server_name},
		{"namespace", "CONSUL_NAMESPACE", &settings->namespace},
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof rows / sizeof *rows; i++)
		r = keep_row(host, rows[i].row, rows[i].variable, rows[i].to, fault);
	if (r == 0 && !settings->cert_file != !settings->key_file)
		r = fault_set(fault, -EINVAL,
			      "cert_file and key_file (CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY) go "
			      "together; only one is set");
	if (r == 0 && !settings->tls && host->setting(host, "ca_file"))
		r = fault_set(fault, -EINVAL,
			      "ca_file is set, but the agent at %s is not spoken to by TLS: set "
			      "tls = true, or leave it out",
			      settings->shown);
	return r;
}

int settings_read(const struct drover_host *host, struct settings *settings, struct fault *fault)
{
	int r;

	*settings = (struct settings){
		.deregister_ms = host->number(host, "deregister_after"),
		.alive_ttl_ms = host->number(host, "alive_ttl"),
		.session_ttl_ms = host->number(host, "session_ttl"),
		.lock_delay_ms = host->number(host, "lock_delay"),
	};
	r = read_bool(host, "tls", "CONSUL_HTTP_SSL", false, &settings->tls, fault);
	if (r == 0)
		r = read_bool(host, "verify", "CONSUL_HTTP_SSL_VERIFY", true, &settings->verify,
			      fault);
	if (r == 0)
		r = read_address(host, settings, fault);
	if (r == 0)
		r = read_token(host, settings, fault);
	if (r == 0)
		r = read_auth(host, settings, fault);
	if (r == 0)
		r = read_files(host, settings, fault);
	if (r < 0)
		settings_free(settings);
	return r;
}

void settings_free(struct settings *settings)
{
	secret_free(settings->token);
	secret_free(settings->auth);
	free(settings->url);
	free(settings->socket_path);
	free(settings->shown);
	free(settings->token_file);
	free(settings->ca_file);
	free(settings->ca_path);
	free(settings->cert_file);
	free(settings->key_file);
	free(settings->server_name);
	free(settings->namespace);
	*settings = (struct settings){0};
}

int settings_token(const struct settings *settings, char **ret_token, struct fault *fault)
{
	char *token = NULL;
	int r = settings->token_file ? secret_read("token", settings->token_file, &token, fault)
				     : keep(&token, settings->token, fault);

	if (r == 0)
		*ret_token = token;
	return r;
}
