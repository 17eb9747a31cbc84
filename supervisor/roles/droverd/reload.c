/* SPDX-License-Identifier: MIT */
/*
 * Reading the configuration, at start and again at SIGHUP or by command. Decides whether one is
 * accepted: checked whole, also by the plugins, before anything that runs is touched; a refused one
 * changes nothing. What an accepted one changes is
 * types.c's part.
 */
#include "roles/droverd/notify.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#include "base/banned.h"

/* G8: whose rights handlers get is said by somebody, not left to how droverd was started. */
static void check_user(const struct supervisor *supervisor, const struct config *config,
		       struct buf *errors)
{
	if (!config->user && !geteuid())
		buf_printf(
			errors,
			"%s: it does not say as whom handlers run, and droverd runs as root; a line "
			"like this is needed, with an account that may do what they must and no more "
			"(root, if that is meant): user = \"www-data\";\n",
			supervisor->config_file);
}

int reload_read(const struct supervisor *supervisor, struct config **ret_config, struct buf *errors)
{
	struct config *config = NULL;
	int r = config_load(supervisor->config_file, supervisor->config_explicit, &config, errors);

	if (r < 0)
		return r;
	check_user(supervisor, config, errors);
	if (buf_size(errors)) {
		config_free(config);
		return -EINVAL;
	}
	*ret_config = config;
	return 0;
}

size_t reload_log(struct buf *lines)
{
	char *rest = strdup(buf_text(lines)), *at = rest, *line;
	size_t n = 0;

	while ((line = strsep(&at, "\n"))) {
		if (!*line)
			continue;
		log_change(KIND_CONFIG_ERROR, NULL, "%s", line);
		n++;
	}
	free(rest);
	return n;
}

/* The first of several errors, and that there are more. */
static int first_line(struct why *why, int error, struct buf *lines, size_t n)
{
	const char *text = buf_text(lines);
	char more[64] = "";

	if (n > 1)
		snprintf(more, sizeof more, " (and %zu more, in droverd's log)", n - 1);
	return why_set(why, error, "%.*s%s", (int)strcspn(text, "\n"), text, more);
}

/* The types that no file serves, by the first of them: most likely a name is wrong. */
static const char *tell_bare_types(const struct supervisor *supervisor, char *text, size_t size)
{
	const struct type *first = NULL;
	size_t n = 0;

	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];

		if (type->gone || type->found || type->config->handler)
			continue;
		first = n++ ? first : type;
	}
	text[0] = '\0';
	if (n == 1)
		snprintf(text, size, " (no handler file for %s)", first->name);
	else if (n)
		snprintf(text, size, " (no handler file for %s and %zu more)", first->name, n - 1);
	return text;
}

void reload_announce(struct supervisor *supervisor, enum log_kind kind, const char *what)
{
	const struct config *config = supervisor->config;
	char sum[320], bare[192];
	size_t i = 0;

	snprintf(sum, sizeof sum, "%zu event type%s%s, %zu broker%s", supervisor->n_types,
		 supervisor->n_types == 1 ? "" : "s",
		 tell_bare_types(supervisor, bare, sizeof bare), config->n_brokers,
		 config->n_brokers == 1 ? "" : "s");
	log_change(kind, NULL, "%s: node %s, %s", what, config->node, sum);
	while (i < supervisor->n_watches && supervisor->watches[i].descriptor < 0)
		i++;
	if (i && i == supervisor->n_watches)
		log_change(KIND_HANDLERS_MISSING, NULL,
			   "no handlers directory is there: %s%s; watched for",
			   supervisor->watches[0].directory, i > 1 ? " and others" : "");
	notify_ready(supervisor);
}

static int read_again(struct supervisor *supervisor, struct config **ret_config, struct why *why)
{
	struct buf errors = {0};
	struct config *config = NULL;
	const char *key;
	int r = reload_read(supervisor, &config, &errors);

	if (r < 0) {
		r = first_line(why, r, &errors, reload_log(&errors));
		buf_free(&errors);
		return r;
	}
	buf_free(&errors);
	key = config_restart_key(supervisor->config, config);
	if (key)
		r = why_set(
			why, -EBUSY,
			"%s: %s has changed, which only a restart of droverd can put in force; restart it, or "
			"change it back",
			supervisor->config_file, key);
	else
		r = errand_check(supervisor, config, why);
	if (r < 0)
		config_free(config);
	else
		*ret_config = config;
	return r;
}

int supervisor_reload(struct supervisor *supervisor, struct why *why)
{
	struct config *config = NULL;
	struct why reason = {0};
	int r;

	if (supervisor->stopping)
		return why_set(why, -EBUSY, "droverd is being stopped");
	notify_reloading();
	r = read_again(supervisor, &config, &reason);
	if (r >= 0) {
		r = types_apply(supervisor, config, &reason);
		if (r < 0)
			config_free(config);
	}
	if (r < 0) {
		supervisor->reload_refused = reason;
		notify_ready(supervisor);
		return why_set(why, r, "%s", reason.text);
	}
	supervisor->reload_refused.text[0] = '\0';
	watch_directories(supervisor);
	/* Whoever reloads may have mended something elsewhere. */
	handlers_reconsider(supervisor);
	files_scan(supervisor);
	brokers_start(supervisor); /* those that are new */
	brokers_declare(supervisor);
	reload_announce(supervisor, KIND_RELOADED, "reloaded");
	return 0;
}

static int on_reload_signal(sd_event_source *source, const struct signalfd_siginfo *info,
			    void *context)
{
	struct why why = {0};

	(void)source;
	(void)info;
	/* A command's refusal is logged with who asked; nobody asked here. */
	if (supervisor_reload(context, &why) < 0)
		log_change(KIND_RELOAD_REFUSED, NULL,
			   "the new configuration is refused, the running one stays in force: %s",
			   why.text);
	return 0;
}

int reload_open(struct supervisor *supervisor)
{
	return sd_event_add_signal(supervisor->event, NULL, SIGHUP, on_reload_signal, supervisor);
}
