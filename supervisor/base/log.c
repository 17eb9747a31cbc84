/* SPDX-License-Identifier: MIT */
/*
 * Writes log lines, each at once and whole so that lines of several processes never mix: a datagram
 * to the journal, or a write(2) to stderr, also where no journal answers. Keeps errno. Control
 * characters are shown as '?', so that nothing that came from outside can forge a second line or a
 * field. What a handler printed never has the identifier of Drover's own lines.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/journal.h"

#include "base/banned.h"

#define TEXT_MAX   2048
#define IDENTIFIER "droverd" /* of all that Drover says, whichever process does */
#define PRINTED    "worker"  /* the role of what handlers print */

#define KIND_ROW(name, level, id) [KIND_##name] = {LOG_LEVEL_##level, id},
static const struct {
	enum log_level level;
	const char *id;
} kinds[KINDS_END] = {KINDS(KIND_ROW)};

static char log_ident[128] = "drover";
static char log_node[256], log_type[160], log_broker[160];
static struct journal log_journal = {.fd = -1};
static bool log_terminal;
static bool log_debugging;

void log_open(const char *ident)
{
	snprintf(log_ident, sizeof log_ident, "%s", ident);
	log_terminal = isatty(STDERR_FILENO) == 1;
	log_debugging = getenv("DROVER_DEBUG") != NULL;
	if (getenv("DROVER_NODE"))
		snprintf(log_node, sizeof log_node, "%s", getenv("DROVER_NODE"));
	if (log_journal.fd < 0 && journal_is_stream(STDERR_FILENO))
		journal_open(&log_journal, JOURNAL_SOCKET);
}

void log_belong(const char *type, const char *broker)
{
	snprintf(log_type, sizeof log_type, "%s", type ? type : "");
	snprintf(log_broker, sizeof log_broker, "%s", broker ? broker : "");
}

void log_close(void)
{
	journal_close(&log_journal);
}

void log_linger(void)
{
	if (log_journal.fd >= 0)
		journal_linger(&log_journal);
}

static void add_text(struct journal_entry *entry, const char *name, const char *value,
		     const char *otherwise)
{
	if (!value || !*value)
		value = otherwise;
	if (value && *value)
		journal_add(entry, name, "%.255s", value);
}

static void add_about(struct journal_entry *entry, const struct log_about *about)
{
	static const struct log_about nothing;

	if (!about)
		about = &nothing;
	add_text(entry, "DROVER_NODE", log_node, NULL);
	add_text(entry, "DROVER_TYPE", about->type, log_type);
	add_text(entry, "DROVER_BROKER", about->broker, log_broker);
	add_text(entry, "DROVER_EVENT_ID", about->event, NULL);
	if (about->worker)
		journal_add(entry, "DROVER_WORKER_PID", "%d", (int)about->worker);
	if (about->uid)
		journal_add(entry, "DROVER_UID", "%d", *about->uid);
}

/* Begins an entry with what every one has. */
static void begin_entry(struct journal_entry *entry, enum log_level level, const char *identifier,
			const char *role)
{
	entry->size = 0;
	journal_add(entry, "PRIORITY", "%d", (int)level);
	journal_add(entry, "SYSLOG_FACILITY", "3");
	journal_add(entry, "SYSLOG_IDENTIFIER", "%s", identifier);
	journal_add(entry, "DROVER_ROLE", "%.*s", (int)strcspn(role, " "), role);
}

static void tell_lost(void)
{
	unsigned long lost = log_journal.lost;

	log_journal.lost = 0;
	log_change(
		KIND_JOURNAL_LOST, NULL,
		"%lu line%s of this process %s missing here: the journal did not take %s in time",
		lost, lost == 1 ? "" : "s", lost == 1 ? "is" : "are", lost == 1 ? "it" : "them");
	if (log_journal.lost)
		log_journal.lost = lost; /* not even that was taken */
}

/* False: it is for stderr. */
static bool send_entry(const struct journal_entry *entry)
{
	int r = journal_send(&log_journal, entry);

	if (r == 0 && log_journal.lost)
		tell_lost();
	return r == 0 || r == -EAGAIN;
}

static void write_line(enum log_level level, const char *text)
{
	char line[TEXT_MAX + sizeof log_ident + 8];
	size_t size;
	int head;

	if (log_terminal)
		head = snprintf(line, sizeof line - 1, "%s: %s", log_ident, text);
	else
		head = snprintf(line, sizeof line - 1, "<%d>%s: %s", (int)level, log_ident, text);
	size = (size_t)head < TEXT_MAX - 2 ? (size_t)head : TEXT_MAX - 2;
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)line[i] < ' ' && line[i] != '\t')
			line[i] = '?';
	line[size++] = '\n';
	if (write(STDERR_FILENO, line, size) < 0)
		return; /* there is nobody to tell */
}

static bool journal_line(enum log_kind kind, enum log_level level, const struct log_about *about,
			 const char *text)
{
	struct journal_entry entry;

	if (log_journal.fd < 0)
		return false;
	begin_entry(&entry, level, IDENTIFIER, log_ident);
	/* droverd speaks of all things by name; the others say whose they are. */
	if (strcmp(log_ident, IDENTIFIER) != 0)
		journal_add(&entry, "MESSAGE", "%s: %s", log_ident, text);
	else
		journal_add(&entry, "MESSAGE", "%s", text);
	if (kind)
		journal_add(&entry, "MESSAGE_ID", "%s", kinds[kind].id);
	add_about(&entry, about);
	return send_entry(&entry);
}

static void say(enum log_kind kind, enum log_level level, const struct log_about *about,
		const char *format, va_list ap) __attribute__((format(printf, 4, 0)));

static void say(enum log_kind kind, enum log_level level, const struct log_about *about,
		const char *format, va_list ap)
{
	int saved = errno;
	char text[TEXT_MAX];

	if (level == LOG_LEVEL_DEBUG && !log_debugging)
		return;
	vsnprintf(text, sizeof text, format, ap);
	if (!journal_line(kind, level, about, text))
		write_line(level, text);
	errno = saved;
}

void log_change(enum log_kind kind, const struct log_about *about, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	say(kind, kinds[kind].level, about, format, ap);
	va_end(ap);
}

void log_line(enum log_level level, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	say(KIND_NONE, level, NULL, format, ap);
	va_end(ap);
}

static bool journal_printed(enum log_level level, const struct log_about *about, const char *text)
{
	struct journal_entry entry;

	if (log_journal.fd < 0)
		return false;
	begin_entry(&entry, level, about->type, PRINTED);
	journal_add(&entry, "MESSAGE", "%s", text);
	add_about(&entry, about);
	return send_entry(&entry);
}

void log_printed(enum log_level level, const struct log_about *about, const char *text)
{
	int saved = errno;
	char line[TEXT_MAX];

	if (level == LOG_LEVEL_DEBUG && !log_debugging)
		return;
	snprintf(line, sizeof line, "%s[%d]%s%.64s: %s", about->type, (int)about->worker,
		 about->event ? " " : "", about->event ? about->event : "", text);
	if (!journal_printed(level, about, text))
		write_line(level, line);
	errno = saved;
}
