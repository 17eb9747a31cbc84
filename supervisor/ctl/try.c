/* SPDX-License-Identifier: MIT */
/*
 * Runs a handler as a worker would, in this very process, so that a debugger or valgrind sees it:
 * load with its checks, start, one event, stop. Emitted events are shown and not published. The
 * timeout ladder is that of a dispatcher: SIGTERM, and after the grace the end. Called by droverctl.
 */
#include "ctl/try.h"

#include <drover/handler.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/units.h"
#include "base/why.h"
#include "ctl/table.h"
#include "system/cloudevents.h"
#include "system/dropin.h"
#include "system/host.h"
#include "system/paths.h"

#include "base/banned.h"

#define EVENT_MAX  (64u << 20) /* bytes of the event's file */
#define TIMEOUT_MS 60000       /* as a type has it that says nothing */
#define GRACE_MS   2000

struct try_options {
	const char *file, *event, *mode;
	int64_t timeout_ms; /* 0: none */
	uint32_t attempt;
};

struct trial {
	struct try_options options;
	char path[PATH_MAX]; /* of the file, links resolved */
	char type[DROPIN_TYPE_MAX];
	struct buf text; /* the event's file */
	struct cloudevent event;
	struct host *host;
	struct buf emitted; /* an object a line */
	struct frame_verdict verdict;
};

static const char usage[] =
	"usage: droverctl [--json] try FILE --event F [option …]\n"
	"Runs a handler once: a .so, a script or an executable, on the event in file F (a CloudEvents\n"
	"JSON object; \"-\": from stdin), without a daemon or a broker.\n"
	"  --mode event|stream  of an executable: a process per event, or one that stays (default event)\n"
	"  --timeout DURATION   SIGTERM after it, and the end 2 s later (default 60s; 0: none, as under gdb)\n"
	"  --attempt N          which try it is (default 1)\n"
	"  --env NAME=VALUE     for the handler; may be given several times\n"
	"Exit status: 0 the event was done, 1 it was not or the file cannot be run, 2 usage.\n";

/* The ladder: signal handlers, for the handler's code has this process's only thread. */
static volatile sig_atomic_t late;
static bool is_object;

static void arm(int64_t ms)
{
	const struct itimerval timer = {
		.it_value = {ms / 1000, ms % 1000 * 1000},
	};

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void tell(const char *text)
{
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		return;
}

static void on_alarm(int signo)
{
	int saved = errno;

	(void)signo;
	if (late++) {
		tell("droverctl: the grace of 2 s has passed, too: the handler is killed\n");
		/* exec, which runs a program for us, ends that at SIGHUP first. */
		kill(getpid(), is_object ? SIGKILL : SIGHUP);
	} else {
		tell("droverctl: the timeout has passed: SIGTERM now, the end in 2 s\n");
		arm(GRACE_MS);
		kill(getpid(), SIGTERM);
	}
	errno = saved;
}

static void on_log(void *context, int level, const char *line)
{
	static const char *const names[] = {[DROVER_LOG_ERROR] = "error",
					    [DROVER_LOG_WARNING] = "warning",
					    [DROVER_LOG_NOTICE] = "notice",
					    [DROVER_LOG_INFO] = "info",
					    [DROVER_LOG_DEBUG] = "debug"};

	(void)context;
	fprintf(stderr, "%s: %s\n",
		level >= DROVER_LOG_ERROR && level <= DROVER_LOG_DEBUG ? names[level] : "error",
		line);
}

static int on_emit(void *context, const struct drover_event *event)
{
	struct trial *trial = context;

	buf_append_text(&trial->emitted, "{");
	cloudevent_append(&trial->emitted, event);
	buf_append_text(&trial->emitted, "}\n");
	return trial->emitted.failed ? -ENOMEM : 0;
}

static int on_extend(void *context, int64_t ms)
{
	(void)context;
	arm(ms);
	return 0;
}

static int refuse(const char *sentence)
{
	fprintf(stderr, "droverctl: %s\n", sentence);
	return 1;
}

/* 0, or 2: the sentence was printed. */
static int parse(int argc, char **argv, struct try_options *options)
{
	static const struct option longs[] = {
		{"event", required_argument, NULL, 'e'},
		{"mode", required_argument, NULL, 'm'},
		{"timeout", required_argument, NULL, 't'},
		{"attempt", required_argument, NULL, 'a'},
		{"env", required_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	char *end;
	int c;

	optind = 0; /* droverctl has used getopt before */
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'e':
			options->event = optarg;
			break;
		case 'm':
			options->mode = optarg;
			if (strcmp(optarg, "event") && strcmp(optarg, "stream")) {
				fprintf(stderr,
					"droverctl: --mode %s: event and stream are allowed; a consumer "
					"takes its events from the broker by itself and can be run as it "
					"is\n",
					optarg);
				return 2;
			}
			break;
		case 't':
			if (units_parse_duration(optarg, &options->timeout_ms) < 0) {
				fprintf(stderr,
					"droverctl: --timeout %s is not a duration like \"500ms\" or \"5s\"\n",
					optarg);
				return 2;
			}
			break;
		case 'a':
			options->attempt = (uint32_t)strtoul(optarg, &end, 10);
			if (*end || !options->attempt) {
				fprintf(stderr,
					"droverctl: --attempt %s is not a number from 1 on\n",
					optarg);
				return 2;
			}
			break;
		case 'v':
			if (!strchr(optarg, '=') || putenv(optarg)) {
				fprintf(stderr, "droverctl: --env %s is not NAME=VALUE\n", optarg);
				return 2;
			}
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind + 1 != argc || !options->event) {
		fputs(usage, stderr);
		return 2;
	}
	options->file = argv[optind];
	return 0;
}

static int read_event(struct trial *trial, struct why *why)
{
	const char *file = trial->options.event;
	int fd = strcmp(file, "-") ? open(file, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
	struct drover_event *event = &trial->event.event;
	ssize_t n;
	int r;

	if (fd < 0)
		return why_set(why, -errno, "%s: %s", file, strerror(errno));
	do {
		void *room = buf_reserve(&trial->text, 65536);

		n = room ? read(fd, room, 65536) : -1;
		trial->text.end += n > 0 ? (size_t)n : 0;
	} while (n > 0 && buf_size(&trial->text) <= EVENT_MAX);
	r = n < 0 ? -errno : n > 0 ? -EFBIG : 0;
	close(fd);
	if (r < 0)
		return why_set(why, r, "%s: %s", file,
			       r == -EFBIG ? "an event has at most 64 MiB" : strerror(-r));
	r = cloudevent_read(&trial->event, (const char *)buf_front(&trial->text),
			    buf_size(&trial->text), why);
	if (r < 0)
		return why_prefix(why, r, "%s", file);
	event->attempt = trial->options.attempt;
	if (!event->id)
		event->id = "try";
	if (!event->source)
		event->source = "droverctl";
	if (!event->type)
		event->type = trial->type;
	return 0;
}

/* The plugin that serves the file, and its settings: the file itself, or exec with a command line. */
static int open_handler(struct trial *trial, struct why *why)
{
	const struct host_sink sink = {.log = on_log,
				       .emit = on_emit,
				       .extend = on_extend,
				       .context = trial};
	const char *interpreter, *path = trial->path;
	struct message message = {0};
	struct message_view view;
	char plugin[PATH_MAX];
	struct paths paths;
	int r = 0;

	message_start(&message, "setup");
	if (!is_object) {
		r = dropin_command(trial->path, &interpreter, why);
		if (r == 0)
			r = paths_find(&paths, why);
		if (r == 0)
			r = paths_plugin(&paths, "handlers", "exec", plugin, why);
		if (r < 0)
			goto out;
		path = plugin;
		message_add_text(&message, "set.command", interpreter);
		message_add_text(&message, "set.command", trial->path);
		message_add_text(&message, "set.mode", trial->options.mode);
	}
	r = message_read(buf_front(&message.buf), buf_size(&message.buf), &view);
	if (r < 0)
		why_set(why, r, "out of memory");
	else
		r = host_open(path, trial->options.file, trial->type, &view, &trial->host, why);
	if (r == 0)
		host_connect(trial->host, &sink);
out:
	message_free(&message);
	return r;
}

static int run(struct trial *trial, struct why *why)
{
	const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	int r = open_handler(trial, why);

	if (r == 0)
		r = host_load(trial->host, why);
	if (r == 0)
		r = host_start(trial->host, why);
	if (r < 0)
		return r;
	sigaction(SIGALRM, &action, NULL);
	arm(trial->options.timeout_ms);
	host_handle(trial->host, &trial->event.event, trial->options.timeout_ms, &trial->verdict);
	arm(0);
	host_stop(trial->host);
	fflush(stdout);
	return 0;
}

static const char *verdict_name(const struct trial *trial)
{
	static const char *const names[] =
		{[DROVER_DONE] = "done", [DROVER_RETRY] = "retry", [DROVER_REJECT] = "reject"};

	return names[trial->verdict.verdict];
}

/* The emitted events, each with `before` before it. */
static void each_emitted(struct trial *trial, FILE *out, const char *before, const char *between)
{
	const char *line = buf_text(&trial->emitted);

	while (*line) {
		size_t length = strcspn(line, "\n");

		fprintf(out, "%s%.*s", before, (int)length, line);
		line += length + 1;
		if (*line)
			fputs(between, out);
	}
}

static void print_json(struct trial *trial, FILE *out)
{
	const struct frame_verdict *verdict = &trial->verdict;
	struct buf text = {0};

	buf_append_text(&text, "{");
	cloudevent_append_text(&text, "verdict", verdict_name(trial));
	cloudevent_append_text(&text, "reason", *verdict->reason ? verdict->reason : NULL);
	if (verdict->delay_ms >= 0)
		buf_printf(&text, ",\"delay_ms\":%" PRId64, verdict->delay_ms);
	fprintf(out, "%s,\"busy_us\":%" PRId64 ",\"emitted\":[", buf_text(&text), verdict->busy_us);
	each_emitted(trial, out, "", ",");
	fputs("]}\n", out);
	buf_free(&text);
}

static void print_text(struct trial *trial, FILE *out)
{
	const struct frame_verdict *verdict = &trial->verdict;
	char text[TABLE_TEXT_MAX];

	fprintf(out, "verdict  %s\n", verdict_name(trial));
	if (*verdict->reason)
		fprintf(out, "reason   %s\n", verdict->reason);
	if (verdict->verdict == DROVER_RETRY)
		fprintf(out, "again    %s%s\n", verdict->delay_ms < 0 ? "" : "after ",
			verdict->delay_ms < 0
				? "as the type's retry policy says"
				: units_human_duration(verdict->delay_ms, text, sizeof text));
	fprintf(out, "took     %s\n", table_ms((double)verdict->busy_us / 1000, text, sizeof text));
	each_emitted(trial, out, verdict->verdict == DROVER_DONE ? "emitted  " : "dropped  ", "\n");
	if (buf_size(&trial->emitted))
		fputs("\n", out);
}

int try_command(int argc, char **argv, bool json)
{
	struct trial trial = {.options = {.mode = "event", .timeout_ms = TIMEOUT_MS, .attempt = 1}};
	struct why why = {0};
	const char *slash;
	FILE *out;
	int r;

	r = parse(argc, argv, &trial.options);
	if (r)
		return r;
	if (!realpath(trial.options.file, trial.path)) {
		why_set(&why, -errno, "%s: %s", trial.options.file, strerror(errno));
		return refuse(why.text);
	}
	slash = strrchr(trial.options.file, '/');
	if (!dropin_type(slash ? slash + 1 : trial.options.file, trial.type))
		snprintf(trial.type, sizeof trial.type, "try");
	is_object = dropin_is_object(trial.path);
	/* What the handler prints is its log and must not mix with the outcome. */
	out = fdopen(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3), "w");
	if (!out || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		return refuse("stdout or stderr is closed");
	r = read_event(&trial, &why);
	if (r == 0)
		r = run(&trial, &why);
	if (r == 0 && json)
		print_json(&trial, out);
	else if (r == 0)
		print_text(&trial, out);
	else
		refuse(why.text);
	host_close(trial.host);
	fclose(out);
	buf_free(&trial.emitted);
	cloudevent_free(&trial.event);
	buf_free(&trial.text);
	return r < 0 || trial.verdict.verdict != DROVER_DONE;
}
