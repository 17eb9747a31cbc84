/* SPDX-License-Identifier: MIT */
/*
 * What a node keeps in its state directory: the lock that makes it this droverd's alone, its node
 * id, and what operators have set over the configuration; and how other files there are read and
 * written. Decides what of an unreadable file is still of use; must never keep droverd from starting
 * for a damaged overrides file. Called by droverd.c at start, by commands.c and decide.c when
 * overrides change, and by whoever keeps a file.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#include "base/banned.h"

#define ID_TEXT_MAX    33 /* 128 bits in hexadecimal */
#define OVERRIDES_MAX  (8 << 20)
#define OVERRIDES_FILE "overrides"

/* The directory, with what is missing above it. */
static int make_directory(const char *path, mode_t mode, struct why *why)
{
	char *copy = strdup(path);
	int r = 0;

	if (!copy)
		return why_set(why, -ENOMEM, "out of memory");
	for (char *slash = copy + 1; r == 0 && (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			r = why_set(why, -errno, "make directory %s: %s", copy, strerror(errno));
		*slash = '/';
	}
	if (r == 0 && mkdir(copy, mode) < 0 && errno != EEXIST)
		r = why_set(why, -errno, "make directory %s: %s", path, strerror(errno));
	free(copy);
	return r;
}

static int open_in(const struct supervisor *supervisor, const char *name, int flags, mode_t mode,
		   char path[PATH_MAX])
{
	int fd;

	snprintf(path, PATH_MAX, "%s/%s", supervisor->config->state_dir, name);
	fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, mode);
	return fd < 0 ? -errno : fd;
}

/*
 * A record lock: it is not inherited by children, ends with this process however it ends, and the
 * kernel knows whose it is.
 */
static int lock(struct supervisor *supervisor, struct why *why)
{
	struct flock wanted = {.l_type = F_WRLCK, .l_whence = SEEK_SET}, other = wanted;
	char path[PATH_MAX];
	int fd = open_in(supervisor, "lock", O_RDWR | O_CREAT, 0600, path);

	if (fd < 0)
		return why_set(why, fd, "%s: %s", path, strerror(-fd));
	if (fcntl(fd, F_SETLK, &wanted) < 0) {
		int error = -errno;

		if (fcntl(fd, F_GETLK, &other) < 0 || other.l_type == F_UNLCK)
			other.l_pid = 0;
		close(fd);
		if (error != -EACCES && error != -EAGAIN)
			return why_set(why, error, "lock %s: %s", path, strerror(-error));
		return why_set(
			why, -EBUSY,
			"another droverd (pid %d) runs on the state directory %s; stop it, or give this one a state_dir of its own",
			(int)other.l_pid, supervisor->config->state_dir);
	}
	supervisor->state_lock = fd;
	return 0;
}

static int make_id(char text[ID_TEXT_MAX])
{
	uint8_t bytes[16];

	if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
		return -EIO;
	for (size_t i = 0; i < sizeof bytes; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}

static int write_all(int fd, const void *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data = (const char *)data + n;
			size -= (size_t)n;
		}
	}
	return 0;
}

int state_write(const struct supervisor *supervisor, const char *name, const void *data,
		size_t size)
{
	char path[PATH_MAX], fresh_name[64], fresh[PATH_MAX];
	int fd, directory, r;

	snprintf(fresh_name, sizeof fresh_name, "%s.new", name);
	fd = open_in(supervisor, fresh_name, O_WRONLY | O_CREAT | O_TRUNC, 0600, fresh);
	if (fd < 0)
		return fd;
	r = write_all(fd, data, size);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	close(fd);
	snprintf(path, sizeof path, "%s/%s", supervisor->config->state_dir, name);
	if (r == 0 && rename(fresh, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(fresh);
		return r;
	}
	directory = open(supervisor->config->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory >= 0) {
		fsync(directory);
		close(directory);
	}
	return 0;
}

int state_read(const struct supervisor *supervisor, const char *name, size_t max, char **ret_text,
	       size_t *ret_size)
{
	char path[PATH_MAX], *text;
	int fd = open_in(supervisor, name, O_RDONLY, 0, path), r = 0;
	size_t used = 0;
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size > max) {
		close(fd);
		return -EINVAL;
	}
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		r = -ENOMEM;
	while (r == 0 && used < (size_t)st.st_size) {
		ssize_t n = read(fd, text + used, (size_t)st.st_size - used);

		if (n < 0 && errno != EINTR)
			r = -errno;
		if (n == 0)
			break;
		if (n > 0)
			used += (size_t)n;
	}
	close(fd);
	if (r < 0) {
		free(text);
		return r;
	}
	text[used] = '\0';
	*ret_text = text;
	*ret_size = used;
	return 0;
}

static bool is_id(const char *text)
{
	size_t digits = strspn(text, "0123456789abcdef");

	return digits == ID_TEXT_MAX - 1 && (!text[digits] || !strcmp(text + digits, "\n"));
}

static int find_node_id(struct supervisor *supervisor, struct why *why)
{
	char *text = NULL, line[ID_TEXT_MAX + 1];
	size_t size;
	int r = state_read(supervisor, "node-id", 256, &text, &size);

	if (r == 0 && is_id(text)) {
		snprintf(supervisor->node_id, sizeof supervisor->node_id, "%.32s", text);
		free(text);
		return 0;
	}
	if (r == 0)
		log_change(KIND_STATE_NOT_READ, NULL,
			   "%s/node-id holds no node id; a new one is made",
			   supervisor->config->state_dir);
	free(text);
	if (r < 0 && r != -ENOENT)
		return why_set(why, r, "%s/node-id: %s", supervisor->config->state_dir,
			       strerror(-r));
	r = make_id(supervisor->node_id);
	snprintf(line, sizeof line, "%s\n", supervisor->node_id);
	if (r == 0)
		r = state_write(supervisor, "node-id", line, strlen(line));
	return r < 0 ? why_set(why, r, "%s/node-id: %s", supervisor->config->state_dir,
			       strerror(-r))
		     : 0;
}

int state_open(struct supervisor *supervisor, struct why *why)
{
	int r = make_directory(supervisor->config->state_dir, 0750, why);

	if (r == 0)
		r = make_directory(supervisor->config->runtime_dir, 0755, why);
	if (r == 0)
		r = lock(supervisor, why);
	if (r == 0)
		r = find_node_id(supervisor, why);
	if (r == 0 && make_id(supervisor->instance) < 0)
		r = why_set(why, -EIO, "no random numbers");
	return r;
}

void state_close(struct supervisor *supervisor)
{
	if (supervisor->state_lock >= 0)
		close(supervisor->state_lock);
	supervisor->state_lock = -1;
}

/*
 * Overrides are a line per type: its name and then "key=value" fields, tabs between all. Lines of
 * types that are not known now are kept: their handler file may come back.
 */

static void add_line(struct buf *out, const struct type *type)
{
	const struct override *override = &type->override;

	if (!override->scaled && !override->paused)
		return;
	buf_printf(out, "%s", type->name);
	if (override->scaled)
		buf_printf(out, "\tmin=%d\tmax=%d\tuntil=%" PRId64 "\tauthor=%s\tnote=%s",
			   override->min, override->max, override->until_ms,
			   override->scaled_by.author, override->scaled_by.note);
	if (override->paused)
		buf_printf(out, "\tpaused=%" PRId64 "\tpaused_author=%s\tpaused_note=%s",
			   override->paused_until_ms, override->paused_by.author,
			   override->paused_by.note);
	buf_append_text(out, "\n");
}

static bool read_number(const char *text, int64_t *ret_number)
{
	char *end;
	long long number;

	errno = 0;
	number = strtoll(text, &end, 10);
	if (errno || end == text || *end)
		return false;
	*ret_number = number;
	return true;
}

static bool read_bound(const char *value, int *ret_bound)
{
	int64_t number;

	if (!read_number(value, &number) || number < -1 || number > DEMAND_WORKERS_MAX)
		return false;
	*ret_bound = (int)number;
	return true;
}

static bool read_field(struct override *override, const char *key, const char *value)
{
	struct signature *scaled = &override->scaled_by, *paused = &override->paused_by;
	const struct {
		const char *key;
		char *text;
		size_t size;
	} texts[] = {
		{"author", scaled->author, sizeof scaled->author},
		{"note", scaled->note, sizeof scaled->note},
		{"paused_author", paused->author, sizeof paused->author},
		{"paused_note", paused->note, sizeof paused->note},
	};

	if (!strcmp(key, "min"))
		return (override->scaled = read_bound(value, &override->min));
	if (!strcmp(key, "max"))
		return (override->scaled = read_bound(value, &override->max));
	if (!strcmp(key, "until"))
		return read_number(value, &override->until_ms);
	if (!strcmp(key, "paused"))
		return (override->paused = read_number(value, &override->paused_until_ms));
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (!strcmp(key, texts[i].key))
			snprintf(texts[i].text, texts[i].size, "%s", value);
	return true; /* a key of a later version is no harm */
}

/* Cuts the line at its tabs. */
static bool read_line(char *line, char **ret_name, struct override *ret_override)
{
	struct override override = {.min = -1, .max = -1};
	char *field;

	*ret_name = strsep(&line, "\t");
	while ((field = strsep(&line, "\t"))) {
		char *equals = strchr(field, '=');

		if (!equals)
			return false;
		*equals = '\0';
		if (!read_field(&override, field, equals + 1))
			return false;
	}
	*ret_override = override;
	return **ret_name != '\0';
}

void state_load_overrides(struct supervisor *supervisor)
{
	char *text = NULL, *rest, *line, *name;
	size_t size;
	int r = state_read(supervisor, OVERRIDES_FILE, OVERRIDES_MAX, &text, &size);

	if (r < 0 && r != -ENOENT)
		log_change(KIND_STATE_NOT_READ, NULL,
			   "%s/" OVERRIDES_FILE ": %s; scale and pause of before do not hold",
			   supervisor->config->state_dir, strerror(-r));
	for (rest = text; rest && (line = strsep(&rest, "\n"));) {
		struct override override;
		struct type *type;

		if (!*line)
			continue;
		if (!read_line(line, &name, &override)) {
			log_change(KIND_STATE_NOT_READ, NULL,
				   "%s/" OVERRIDES_FILE
				   ": what it says of %s cannot be read; it does not hold",
				   supervisor->config->state_dir, *name ? name : "a type");
			continue;
		}
		type = type_find(supervisor, name);
		if (type && !type->override_read)
			type->override = override;
	}
	free(text);
	/* From here on what holds is in memory; the file may be behind it, on a full disk. */
	for (size_t i = 0; i < supervisor->n_types; i++)
		supervisor->types[i]->override_read = true;
	decide_soon(supervisor);
}

/* The lines of types that are not here now. */
static void add_strangers(struct supervisor *supervisor, struct buf *out)
{
	char *text = NULL, *rest, *line;
	size_t size;

	if (state_read(supervisor, OVERRIDES_FILE, OVERRIDES_MAX, &text, &size) < 0)
		return;
	for (rest = text; (line = strsep(&rest, "\n"));) {
		size_t length = strcspn(line, "\t");
		char name[DROPIN_TYPE_MAX];

		if (!length || length >= sizeof name)
			continue;
		memcpy(name, line, length);
		name[length] = '\0';
		if (!type_find(supervisor, name))
			buf_printf(out, "%s\n", line);
	}
	free(text);
}

void state_save_overrides(struct supervisor *supervisor)
{
	struct buf out = {0};
	int r;

	for (size_t i = 0; i < supervisor->n_types; i++)
		add_line(&out, supervisor->types[i]);
	add_strangers(supervisor, &out);
	r = out.failed ? -ENOMEM
		       : state_write(supervisor, OVERRIDES_FILE, buf_text(&out), buf_size(&out));
	if (r < 0)
		log_change(KIND_STATE_NOT_WRITTEN, NULL,
			   "%s/" OVERRIDES_FILE
			   ": %s; scale and pause hold, but not over a restart of droverd",
			   supervisor->config->state_dir, strerror(-r));
	buf_free(&out);
}

void override_expire(struct type *type, int64_t wall_ms)
{
	struct override *override = &type->override;
	const struct signature *by = NULL;

	if (override->scaled && override->until_ms && wall_ms >= override->until_ms) {
		override->scaled = false;
		override->until_ms = 0;
		log_change(
			KIND_ORDER_EXPIRED, LOG_ABOUT(.type = type->name),
			"%s: the scale by %s has run out; its configuration holds (min %d, max %d)",
			type->name, override->scaled_by.author, type->config->min,
			type->config->max);
		by = &override->scaled_by;
	}
	if (override->paused && override->paused_until_ms && wall_ms >= override->paused_until_ms) {
		override->paused = false;
		override->paused_until_ms = 0;
		log_change(KIND_ORDER_EXPIRED, LOG_ABOUT(.type = type->name),
			   "%s: the pause by %s has run out; %s", type->name,
			   override->paused_by.author,
			   orders_of(type)->paused ? "it stays paused in the whole cluster"
						   : "it takes events again");
		if (!orders_of(type)->paused)
			pair_say(type, "resume");
		by = &override->paused_by;
	}
	if (by) {
		snprintf(type->note, sizeof type->note, "an override by %.40s ran out", by->author);
		state_save_overrides(type->supervisor);
	}
}
