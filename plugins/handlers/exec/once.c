/* SPDX-License-Identifier: MIT */
/*
 * One program per event: its body on stdin, its attributes in the environment and on descriptor 3,
 * emitted events from descriptor 4, the verdict by exit status. Stdin is a file in memory, so that no
 * body is too large for a pipe. Time is the dispatcher's: it sends SIGTERM, which program.c hands on.
 */
#include "exec.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "line.h"

#define TAIL_SIZE    200    /* of stderr, as the reason */
#define VARIABLE_MAX 32768u /* a longer attribute stands on descriptor 3 alone */

extern char **environ;

struct tail {
	char text[TAIL_SIZE];
	size_t size;
	bool cut; /* there was more before it */
};

struct run {
	struct program program;
	struct drover_outcome *outcome;
	struct input lines;
	struct tail tail;
	char why[200]; /* what is wrong with what it wrote on descriptor 4; "" */
};

static const struct {
	int status;
	enum drover_verdict verdict;
} exits[] = {
	{EX_OK, DROVER_DONE},
	{EX_TEMPFAIL, DROVER_RETRY},
	{EX_DATAERR, DROVER_REJECT},
};

static const struct {
	const char *name;
	size_t offset;
} variables[] = {
	{"DROVER_ID=", offsetof(struct drover_event, id)},
	{"DROVER_TYPE=", offsetof(struct drover_event, type)},
	{"DROVER_SOURCE=", offsetof(struct drover_event, source)},
	{"DROVER_TIME=", offsetof(struct drover_event, time)},
	{"DROVER_SUBJECT=", offsetof(struct drover_event, subject)},
	{"TRACEPARENT=", offsetof(struct drover_event, traceparent)},
};

#define VARIABLES (sizeof variables / sizeof *variables)

static bool is_ours(const char *entry)
{
	for (size_t i = 0; i < VARIABLES; i++)
		if (!strncmp(entry, variables[i].name, strlen(variables[i].name)))
			return true;
	return !strncmp(entry, "DROVER_ATTEMPT=", 15);
}

static void free_environment(char **all, char **own)
{
	for (size_t i = 0; own && i <= VARIABLES; i++)
		free(own[i]);
	free(own);
	free(all);
}

/* Ours, where the event has the attribute, and what this process was given. */
static char **make_environment(const struct drover_event *event, char ***ret_own)
{
	char **own = calloc(VARIABLES + 1, sizeof *own), **all;
	size_t n = 0, n_environ = 0;

	while (environ[n_environ])
		n_environ++;
	all = calloc(n_environ + VARIABLES + 2, sizeof *all);
	if (!own || !all)
		goto fail;
	for (size_t i = 0; i < VARIABLES; i++) {
		const char *value =
			*(const char *const *)((const char *)event + variables[i].offset);

		if (!value || strlen(value) > VARIABLE_MAX)
			continue;
		if (asprintf(&own[i], "%s%s", variables[i].name, value) < 0) {
			own[i] = NULL;
			goto fail;
		}
		all[n++] = own[i];
	}
	if (asprintf(&own[VARIABLES], "DROVER_ATTEMPT=%u", event->attempt) < 0) {
		own[VARIABLES] = NULL;
		goto fail;
	}
	all[n++] = own[VARIABLES];
	for (size_t i = 0; i < n_environ; i++)
		if (!is_ours(environ[i]))
			all[n++] = environ[i];
	*ret_own = own;
	return all;
fail:
	free_environment(all, own);
	return NULL;
}

static int start(const struct exec *exec, const struct drover_event *event, struct run *run)
{
	struct program_files files = {-1, -1, -1, -1};
	char **environment, **own, *attributes;
	size_t size;
	int r = -ENOMEM;

	environment = make_environment(event, &own);
	attributes = line_of_event(event, false, &size);
	if (environment && attributes) {
		files.input = program_file(event->body, event->body_size);
		files.events = program_file(attributes, size);
		r = files.input < 0 ? files.input : files.events < 0 ? files.events : 0;
	}
	if (r == 0)
		r = program_pipe_from(&run->program.lines, &files.lines);
	if (r == 0)
		r = program_pipe_from(&run->program.errors, &files.errors);
	if (r == 0) {
		r = program_start(exec->path, exec->argv, environment, &files, &run->program);
	} else {
		const int made[] = {files.input, files.events, files.lines};

		for (size_t i = 0; i < sizeof made / sizeof *made; i++)
			if (made[i] >= 0)
				close(made[i]);
	}
	free(attributes);
	if (environment)
		free_environment(environment, own);
	return r;
}

static void keep_tail(struct tail *tail, const char *data, size_t size)
{
	size_t keep;

	if (size > TAIL_SIZE) {
		tail->cut = true;
		data += size - TAIL_SIZE;
		size = TAIL_SIZE;
	}
	keep = TAIL_SIZE - size < tail->size ? TAIL_SIZE - size : tail->size;
	tail->cut |= keep < tail->size;
	memmove(tail->text, tail->text + tail->size - keep, keep);
	memcpy(tail->text + keep, data, size);
	tail->size = keep + size;
}

/* Its last whole lines on one: what was cut begins with a line where it can. */
static const char *tail_text(const struct tail *tail, char text[TAIL_SIZE + 1])
{
	const char *from = tail->text, *end = tail->text + tail->size, *newline;
	size_t size;

	while (end > from && (unsigned char)end[-1] <= ' ')
		end--;
	newline = memchr(from, '\n', (size_t)(end - from));
	if (tail->cut && newline)
		from = newline + 1;
	size = (size_t)(end - from);
	for (size_t i = 0; i < size; i++)
		text[i] = (unsigned char)from[i] < ' ' ? ' ' : from[i];
	text[size] = '\0';
	return text;
}

/* Into the log, and the end of it into the tail. False when nothing more can come. */
static bool pass_errors(struct run *run)
{
	char data[4096];
	ssize_t n = read(run->program.errors, data, sizeof data);

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	keep_tail(&run->tail, data, (size_t)n);
	for (ssize_t done = 0, w; done < n; done += w) {
		w = write(STDERR_FILENO, data + done, (size_t)(n - done));
		if (w < 0)
			break; /* nobody reads the log; that is no reason to fail the event */
	}
	return true;
}

static void take_line(struct run *run, const char *text, size_t size)
{
	struct line line;
	int r;

	if (line_read(text, size, &line, run->why, sizeof run->why) == 0) {
		if (line.kind == LINE_EXTEND) {
			run->outcome->extend(run->outcome, line.extend_ms);
		} else if (line.kind == LINE_VERDICT) {
			snprintf(run->why, sizeof run->why,
				 "it has a verdict, which the exit status gives; mode = \"stream\" "
				 "reads verdicts");
		} else {
			r = run->outcome->emit(run->outcome, &line.event);
			if (r < 0)
				snprintf(
					run->why, sizeof run->why, "it cannot be emitted: %s",
					r == -EMSGSIZE
						? "an event may emit 16 MiB and 10,000 events in all"
						: strerror(-r));
		}
	}
	line_free(&line);
}

/*
 * False when nothing more can come. Once a line was wrong the rest is read and dropped, so that the
 * program can go on to its end.
 */
static bool take_lines(struct run *run)
{
	int r = input_read(&run->lines, run->program.lines);
	const char *text;
	size_t size;

	while (r > 0 && (text = input_line(&run->lines, &size))) {
		if (size && !run->why[0])
			take_line(run, text, size);
		input_take(&run->lines);
	}
	if (r == -EMSGSIZE || r == -ENOMEM) {
		snprintf(run->why, sizeof run->why, "it is longer than %u MiB, or than memory",
			 INPUT_LINE_MAX >> 20);
		input_clear(&run->lines);
		return true;
	}
	if (r == -EPIPE && !input_empty(&run->lines) && !run->why[0])
		snprintf(run->why, sizeof run->why, "it has no newline at its end");
	return r != -EPIPE;
}

static void attend(struct run *run)
{
	struct pollfd fds[] = {
		{run->program.pidfd, POLLIN, 0},
		{run->program.lines, POLLIN, 0},
		{run->program.errors, POLLIN, 0},
	};

	while (!fds[0].revents) {
		if (poll(fds, 3, -1) < 0) {
			fds[0].revents = 0;
			continue;
		}
		if (fds[1].revents && !take_lines(run))
			fds[1].fd = -1;
		if (fds[2].revents && !pass_errors(run))
			fds[2].fd = -1;
	}
}

/* When nothing is left that could write: what is in the pipes is the rest. */
static void drain(struct run *run)
{
	struct pollfd fd = {run->program.lines, POLLIN, 0};

	while (poll(&fd, 1, 0) > 0 && take_lines(run))
		;
	fd.fd = run->program.errors;
	while (poll(&fd, 1, 0) > 0 && pass_errors(run))
		;
}

static enum drover_verdict judge(const struct run *run, int status)
{
	char how[64], text[TAIL_SIZE + 1];
	const char *said = tail_text(&run->tail, text);

	if (WIFEXITED(status))
		for (size_t i = 0; i < sizeof exits / sizeof *exits; i++) {
			if (exits[i].status != WEXITSTATUS(status))
				continue;
			if (exits[i].verdict == DROVER_DONE && run->why[0])
				return drover_retry(run->outcome, -1,
						    "a line on its descriptor 4 is wrong: %s",
						    run->why);
			snprintf(run->outcome->reason, sizeof run->outcome->reason, "%s",
				 *said ? said : program_describe(status, how, sizeof how));
			return exits[i].verdict;
		}
	return drover_retry(run->outcome, -1, "%s%s%s%s", program_describe(status, how, sizeof how),
			    WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
				    ? ", perhaps by the kernel for want of memory"
				    : "",
			    *said ? ": " : "", said);
}

enum drover_verdict once_handle(struct exec *exec, const struct drover_event *event,
				struct drover_outcome *outcome)
{
	struct run run = {.program = {0, -1, -1, -1, -1}, .outcome = outcome};
	enum drover_verdict verdict;
	int r, status;

	program_busy(true);
	r = start(exec, event, &run);
	if (r == 0) {
		attend(&run);
		status = program_end(&run.program);
		drain(&run);
		verdict = judge(&run, status);
	} else {
		verdict = drover_retry(outcome, -1, "cannot run %s: %s", exec->path, strerror(-r));
	}
	program_close(&run.program);
	program_busy(false);
	input_clear(&run.lines);
	return verdict;
}
