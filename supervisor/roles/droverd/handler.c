/* SPDX-License-Identifier: MIT */
/*
 * One version of a type's handler: what is kept of its file, and the processes that load it, a
 * template or a disposable one for a trial, under the type's user, limits and environment. Decides
 * whether a file may be run at all; which version serves is decided in handlers.c. Runs no foreign
 * code in this process.
 */
#include "roles/droverd/supervisor.h"

#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "roles/droverd/account.h"
#include "roles/droverd/outfit.h"

#include "base/banned.h"

#define LOAD_PATIENCE_MS 30000 /* for a handler's load */

static void free_list(char **list)
{
	for (char **item = list; item && *item; item++)
		free(*item);
	free(list);
}

void handler_free(struct handler *handler)
{
	if (!handler)
		return;
	if (handler->memfd >= 0)
		close(handler->memfd);
	free_list(handler->command);
	free(handler->path);
	free(handler);
}

/* argv from an optional first word and a list. NULL: no memory. */
static char **make_command(const char *first, char *const *words, const char *only)
{
	size_t n = 0;
	char **command;

	while (words && words[n])
		n++;
	command = calloc(n + 3, sizeof *command);
	if (!command)
		return NULL;
	n = 0;
	if (first)
		command[n++] = strdup(first);
	if (only)
		command[n++] = strdup(only);
	for (size_t i = 0; words && words[i]; i++)
		command[n++] = strdup(words[i]);
	for (size_t i = 0; i < n; i++) {
		if (command[i])
			continue;
		for (size_t j = 0; j < n; j++)
			free(command[j]);
		free(command);
		return NULL;
	}
	return command;
}

static bool is_below(const char *path, const char *directory)
{
	size_t length = strlen(directory);

	while (length && directory[length - 1] == '/')
		length--;
	return !strncmp(path, directory, length) && path[length] == '/';
}

static size_t count_owners(const struct config *config)
{
	size_t n = 0;

	for (size_t i = 0; i < config->n_handler_owners; i++)
		for (char **name = config->handler_owners[i].owners; *name; name++)
			n++;
	return n;
}

/*
 * The user that a handler runs as may own it, and whom handler_owners names for the directory that it
 * is in: by the path that names it, or where that leads.
 */
static int trust(const struct type *type, const char *path, uid_t user, struct why *why)
{
	const struct config *config = type->supervisor->config;
	uid_t *uids = calloc(count_owners(config) + 1, sizeof *uids);
	struct dropin_owners owners = {.uids = uids};
	char *real = realpath(path, NULL);
	int r;

	if (!uids) {
		free(real);
		return why_set(why, -ENOMEM, "out of memory");
	}
	uids[owners.n++] = user;
	for (size_t i = 0; i < config->n_handler_owners; i++) {
		const struct config_owners *there = &config->handler_owners[i];

		if (!is_below(path, there->directory) &&
		    !(real && is_below(real, there->directory)))
			continue;
		for (char **name = there->owners; *name; name++) {
			const struct passwd *entry = getpwnam(*name);

			if (entry)
				uids[owners.n++] = entry->pw_uid;
		}
	}
	r = dropin_trust(path, &owners, why);
	free(uids);
	free(real);
	return r;
}

/* Every file that a command line names by an absolute path must be trusted. */
static int trust_words(const struct type *type, char *const *words, uid_t user, struct why *why)
{
	struct stat st;
	int r = 0;

	for (; *words && r >= 0; words++)
		if (**words == '/' && !stat(*words, &st) && S_ISREG(st.st_mode))
			r = trust(type, *words, user, why);
	return r;
}

static int prepare(struct handler *handler, const struct type *type,
		   const struct handler_source *source, struct why *why)
{
	const char *interpreter = NULL;
	struct account account;
	uid_t user;
	int r;

	r = account_find(type, &account, why);
	if (r < 0)
		return r;
	user = account.process.uid;
	if (source->words) {
		r = trust_words(type, source->words, user, why);
		if (r >= 0)
			handler->command = make_command(NULL, source->words, NULL);
	} else {
		r = trust(type, source->path, user, why);
		if (r >= 0 && dropin_is_object(source->path)) {
			handler->memfd = dropin_copy(source->path, why);
			return handler->memfd < 0 ? handler->memfd : 0;
		}
		if (r >= 0)
			r = dropin_command(source->path, &interpreter, why);
		if (r >= 0)
			handler->command = make_command(interpreter, NULL, source->path);
	}
	if (r < 0)
		return r;
	return handler->command ? 0 : why_set(why, -ENOMEM, "out of memory");
}

int handler_new(const struct type *type, const struct handler_source *source,
		struct handler **ret_handler, struct why *why)
{
	struct handler *handler = calloc(1, sizeof *handler);
	int r;

	if (handler) {
		handler->memfd = -1;
		handler->stamp = source->stamp;
		handler->line = source->words != NULL;
		handler->path = strdup(source->path);
	}
	if (!handler || !handler->path) {
		handler_free(handler);
		return why_set(why, -ENOMEM, "out of memory");
	}
	handler->polled = type->config->handler || dropin_is_linked(source->path);
	r = prepare(handler, type, source, why);
	if (r < 0)
		handler_free(handler);
	else
		*ret_handler = handler;
	return r;
}

static bool same_words(char *const *a, char *const *b)
{
	for (; *a && *b && !strcmp(*a, *b); a++, b++)
		;
	return !*a && !*b;
}

bool handler_is_of(const struct handler *handler, const struct handler_source *source)
{
	return handler && !strcmp(handler->path, source->path) &&
	       dropin_same(&handler->stamp, &source->stamp) &&
	       handler->line == (source->words != NULL) &&
	       (!source->words || same_words(handler->command, source->words));
}

static int describe(const struct type *type, const struct handler *handler, struct message *message,
		    struct why *why)
{
	char path[PATH_MAX];
	int r;

	message_add_text(message, "file", handler->path);
	if (!handler->command && type_consumes(type))
		return why_set(why, -ENOEXEC,
			       "%s is a shared object, which is handed its events; mode = "
			       "\"consumer\" is for executables",
			       handler->path);
	if (!handler->command) {
		message_add_text(message, "handler", "so");
		return 0;
	}
	r = paths_plugin(&type->supervisor->paths, "handlers", "exec", path, why);
	if (r < 0)
		return r;
	message_add_text(message, "handler", "exec");
	message_add_text(message, "plugin_path", path);
	for (char **word = handler->command; *word; word++)
		message_add_text(message, "set.command", *word);
	message_add_text(message, "set.mode", config_mode_name(type->config->mode));
	return 0;
}

static int set_up(struct child *child, const struct type *type, const struct handler *handler,
		  bool trial, unsigned generation, struct why *why)
{
	struct message setup = {0};
	int fd = -1, r;

	message_start(&setup, "setup");
	message_add_text(&setup, "type", type->name);
	message_add_int(&setup, "generation", generation);
	message_add_flag(&setup, "trial", trial);
	r = describe(type, handler, &setup, why);
	if (r >= 0 && handler->memfd >= 0) {
		fd = dup(handler->memfd);
		if (fd < 0)
			r = why_set(why, -errno, "hand %s over: %s", handler->path,
				    strerror(errno));
	}
	if (r >= 0) {
		r = fd >= 0 ? child_send_fd(child, &setup, fd) : child_send(child, &setup);
		if (r < 0)
			why_set(why, r, "send the setup to its template: %s", strerror(-r));
	}
	message_free(&setup);
	return r;
}

int handler_start(struct type *type, const struct handler *handler, const struct child_owner *owner,
		  bool trial, unsigned generation, int link, struct child **ret_child,
		  struct why *why)
{
	char title[PROCESS_TITLE_MAX];
	struct outfit outfit;
	struct account account;
	struct child *child;
	struct child_request request = {
		.program = PROGRAM_TEMPLATE,
		.title = title,
		.owner = owner,
		.context = type,
		.link = link,
		.limits = type->config->limits,
		.n_limits = type->config->n_limits,
		.nice = type->config->nice,
		.working_directory = type->config->working_directory,
		.death_signal = SIGTERM,
		.patience_ms = LOAD_PATIENCE_MS,
	};
	int r;

	snprintf(title, sizeof title, "%s %s", trial ? "trial" : "template", type->name);
	r = account_find(type, &account, why);
	if (r >= 0)
		r = outfit_make(type, &account, &outfit, why);
	if (r < 0) {
		if (link >= 0)
			close(link);
		return r;
	}
	request.user = account.change ? &account.process : NULL;
	request.environment = outfit.environment;
	request.credentials = outfit.credentials;
	outfit.credentials = NULL;
	r = child_start(&type->supervisor->children, &request, &child, why);
	outfit_free(&outfit);
	if (r < 0)
		return r;
	/* From here on its end is told by `exited`: it has no setup and no future. */
	if (set_up(child, type, handler, trial, generation, why) < 0) {
		snprintf(child->said, sizeof child->said, "%s", why->text);
		child_kill(child);
	}
	*ret_child = child;
	return 0;
}
