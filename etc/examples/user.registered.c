/* SPDX-License-Identifier: MIT */
/*
 * A handler in C: writes a welcome mail for every new user into the directory OUTBOX, as a file named
 * after the event. The same event gives the same file, so it does no harm when it comes twice.
 *
 *     {"user_id": 1, "name": "Ada Lovelace", "email": "ada@example.org"}
 *
 * Built with the Makefile beside it and dropped into a handlers directory as user.registered.so, it
 * serves the type user.registered.
 */
#include <cjson/cJSON.h>
#include <ctype.h>
#include <drover/handler.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct outbox {
	int directory;
	long pace_ms; /* how long a mail takes; a real one is not written in no time */
};

/* Once, in the template: what is wrong here refuses the file before any event is lost on it. */
static int load(const struct drover_host *host, void **ret_state)
{
	const char *path = getenv("OUTBOX"), *pace = getenv("MAIL_MS");
	struct outbox *outbox = calloc(1, sizeof *outbox);
	int error;

	if (!outbox)
		return -ENOMEM;
	if (!path) {
		host->log(host, DROVER_LOG_ERROR,
			  "OUTBOX is not set; name a directory in this type's `environment`");
		free(outbox);
		return -EINVAL;
	}
	outbox->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (outbox->directory < 0) {
		error = -errno;
		host->log(host, DROVER_LOG_ERROR, "OUTBOX %s: %s", path, strerror(-error));
		free(outbox);
		return error;
	}
	outbox->pace_ms = pace ? strtol(pace, NULL, 10) : 0;
	*ret_state = outbox;
	return 0;
}

static void unload(void *state)
{
	struct outbox *outbox = state;

	close(outbox->directory);
	free(outbox);
}

/* An event's id is any text; a file's name is not. */
static void name_file(const char *id, char *name, size_t size)
{
	size_t n = 0;

	for (; *id && n + 8 < size; id++) {
		if (isalnum((unsigned char)*id) || *id == '-' || *id == '_')
			name[n++] = *id;
		else
			n += (size_t)snprintf(name + n, size - n, "%%%02x", (unsigned char)*id);
	}
	snprintf(name + n, size - n, ".eml");
}

/* Whole or not at all: under another name first, on the disk, then in its place. 0 or -errno. */
static int write_mail(int directory, const char *name, const char *person, const char *address)
{
	char temporary[NAME_MAX + 1];
	int fd, error = 0;

	snprintf(temporary, sizeof temporary, ".%.200s.%d", name, (int)getpid());
	fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (dprintf(fd,
		    "From: The shop <shop@example.org>\n"
		    "To: %s <%s>\n"
		    "Subject: Welcome\n"
		    "\n"
		    "Dear %s,\n"
		    "good to have you with us.\n",
		    person, address, person) < 0 ||
	    fsync(fd) < 0 || renameat(directory, temporary, directory, name) < 0 ||
	    fsync(directory) < 0)
		error = -errno;
	close(fd);
	if (error)
		unlinkat(directory, temporary, 0);
	return error;
}

static enum drover_verdict welcome(const struct outbox *outbox, const struct drover_event *event,
				   const cJSON *user, struct drover_outcome *outcome)
{
	const char *person = cJSON_GetStringValue(cJSON_GetObjectItem(user, "name"));
	const char *address = cJSON_GetStringValue(cJSON_GetObjectItem(user, "email"));
	struct timespec pace = {outbox->pace_ms / 1000, outbox->pace_ms % 1000 * 1000000};
	char name[NAME_MAX - 32];
	int r;

	/* Trying again gives an event no address: it is for a person to look at. */
	if (!person || !address || strpbrk(person, "\r\n") || strpbrk(address, "\r\n<>"))
		return drover_reject(outcome, "no name and mail address in it");
	/* On purpose: to show what becomes of an event that kills its handler. */
	if (!strcmp(person, "Crash Test Dummy"))
		abort();
	nanosleep(&pace, NULL);
	name_file(event->id, name, sizeof name);
	r = write_mail(outbox->directory, name, person, address);
	if (r < 0)
		return drover_retry(outcome, -1, "cannot write %s: %s", name, strerror(-r));
	outcome->host->log(outcome->host, DROVER_LOG_INFO, "welcomed %s", address);
	return DROVER_DONE;
}

static enum drover_verdict handle(void *state, const struct drover_event *event,
				  struct drover_outcome *outcome)
{
	cJSON *user = cJSON_ParseWithLength(event->body, event->body_size);
	enum drover_verdict verdict = welcome(state, event, user, outcome);

	cJSON_Delete(user);
	return verdict;
}

DROVER_EXPORT const struct drover_handler drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_HANDLER, struct drover_handler, "user.registered"),
	.plugin.version = "1.0",
	.plugin.sentence = "writes a welcome mail for a new user",
	.load = load,
	.handle = handle,
	.unload = unload,
};
