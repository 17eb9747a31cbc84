/* SPDX-License-Identifier: MIT */
/*
 * One long-running program: an event as a JSON line on its descriptor 3, its verdict as a line on its
 * descriptor 4. A program that dies over an event takes this process with it, so that the event
 * counts as crashed; one that dies idle is started again. What it says out of turn must never pass
 * for the verdict of another event: such a program is replaced.
 */
#include "exec.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "line.h"

#define END_MS 100 /* for a program that has hung up to be seen to have ended */

extern char **environ;

/* One event on its way through the program. */
struct turn {
	struct exec *exec;
	const struct drover_event *event;
	struct drover_outcome *outcome;
	size_t size;      /* of the event's line */
	const char *text; /* what of it is not written yet, `left` bytes */
	size_t left;
	bool over;   /* there is a verdict */
	bool broken; /* it said what it must not: `why` */
	enum drover_verdict verdict;
	char why[200];
};

int stream_start(struct exec *exec, const struct drover_host *host)
{
	struct program_files files = {-1, -1, -1, -1};
	int r;

	exec->program = (struct program){0, -1, -1, -1, -1};
	exec->suspect = false;
	input_clear(&exec->verdicts);
	r = program_pipe_to(&exec->program.events, &files.events);
	if (r == 0) {
		r = program_pipe_from(&exec->program.lines, &files.lines);
		if (r < 0)
			close(files.events);
	}
	if (r == 0)
		r = program_start(exec->path, exec->argv, environ, &files, &exec->program);
	if (r < 0) {
		program_close(&exec->program);
		host->log(host, DROVER_LOG_ERROR, "cannot run %s: %s", exec->path, strerror(-r));
	}
	return r;
}

static int end(struct exec *exec)
{
	int status = program_end(&exec->program);

	program_close(&exec->program);
	input_clear(&exec->verdicts);
	return status;
}

/* Makes sure of a program that is alive and has said nothing since its last verdict. */
static int prepare(struct exec *exec, const struct drover_host *host)
{
	char how[64];

	if (exec->program.pid && program_ended(&exec->program)) {
		program_describe(end(exec), how, sizeof how);
		host->log(host, DROVER_LOG_WARNING, "%s %s between events; it is started again",
			  exec->path, how);
	} else if (exec->program.pid) {
		const char *what = exec->suspect ? "wrote a wrong line on descriptor 4" : NULL;
		int r = what ? 0 : input_read(&exec->verdicts, exec->program.lines);

		if (r == -EPIPE)
			what = "has closed its descriptor 4";
		else if (r || (!what && !input_empty(&exec->verdicts)))
			what = "wrote on descriptor 4 without an event";
		if (what) {
			host->log(host, DROVER_LOG_WARNING, "%s %s; it is ended and started again",
				  exec->path, what);
			end(exec);
		}
	}
	return exec->program.pid ? 0 : stream_start(exec, host);
}

static void take_verdict(struct turn *turn, const struct line *line)
{
	struct drover_outcome *outcome = turn->outcome;

	if (line->id && strcmp(line->id, turn->event->id)) {
		turn->broken = true;
		snprintf(turn->why, sizeof turn->why, "it is the verdict of another event, %.64s",
			 line->id);
		return;
	}
	if (turn->left) {
		turn->broken = true;
		snprintf(turn->why, sizeof turn->why,
			 "it is a verdict that came before the event was read");
		return;
	}
	turn->over = true;
	turn->verdict = line->verdict;
	outcome->delay_ms = line->delay_ms;
	snprintf(outcome->reason, sizeof outcome->reason, "%s", line->reason ? line->reason : "");
}

static void take_line(struct turn *turn, const char *text, size_t size)
{
	struct line line;
	int r = line_read(text, size, &line, turn->why, sizeof turn->why);

	if (r == 0 && line.kind == LINE_VERDICT) {
		take_verdict(turn, &line);
	} else if (r == 0 && line.kind == LINE_EXTEND) {
		turn->outcome->extend(turn->outcome, line.extend_ms);
	} else if (r == 0) {
		r = turn->outcome->emit(turn->outcome, &line.event);
		if (r < 0)
			snprintf(turn->why, sizeof turn->why, "it cannot be emitted: %s",
				 r == -EMSGSIZE
					 ? "an event may emit 16 MiB and 10,000 events in all"
					 : strerror(-r));
	}
	turn->broken |= r < 0;
	line_free(&line);
}

/* False when nothing more can come. */
static bool take_lines(struct turn *turn)
{
	struct input *input = &turn->exec->verdicts;
	int r = input_read(input, turn->exec->program.lines);
	const char *text;
	size_t size;

	while (r > 0 && !turn->over && !turn->broken && (text = input_line(input, &size))) {
		if (size)
			take_line(turn, text, size);
		input_take(input);
	}
	if (r == -EMSGSIZE || r == -ENOMEM) {
		turn->broken = true;
		snprintf(turn->why, sizeof turn->why, "it is longer than %u MiB, or than memory",
			 INPUT_LINE_MAX >> 20);
	}
	return r >= 0;
}

/* False when it does not read any more. */
static bool write_event(struct turn *turn)
{
	ssize_t n = write(turn->exec->program.events, turn->text, turn->left);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	turn->text += n;
	turn->left -= (size_t)n;
	return true;
}

/* Until there is a verdict, a breach, or nothing more to expect: then false. */
static bool converse(struct turn *turn)
{
	struct program *program = &turn->exec->program;
	struct pollfd fds[] = {
		{program->pidfd, POLLIN, 0},
		{program->lines, POLLIN, 0},
		{program->events, POLLOUT, 0},
	};

	/* Mostly it fits, and the program waits for it. */
	if (!write_event(turn))
		return false;
	while (!turn->over && !turn->broken) {
		if (!turn->left)
			fds[2].fd = -1;
		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[1].revents && !take_lines(turn) && !turn->broken)
			return turn->over;
		if (turn->over || turn->broken)
			break;
		if (fds[2].fd >= 0 && fds[2].revents && !write_event(turn))
			return false;
		/* It has ended, and what it wrote before was read: see above. */
		if (fds[0].revents && !fds[1].revents)
			return false;
	}
	return true;
}

/* As the program died, so does this process: the dispatcher sees what happened to the event. */
static _Noreturn void die_like(int status)
{
	fflush(NULL);
	program_die_like(status ? status : W_EXITCODE(1, 0));
}

/*
 * Whether the program ended without having read a byte of the event: then it ended between events,
 * as programs do that exit after so many, and the event has no part in it.
 */
static bool is_untouched(const struct turn *turn)
{
	int unread = 0;

	return ioctl(turn->exec->program.events, FIONREAD, &unread) == 0 &&
	       (size_t)unread == turn->size - turn->left;
}

static _Noreturn void crash(const struct turn *turn)
{
	struct exec *exec = turn->exec;
	const struct drover_host *host = turn->outcome->host;
	bool ended = program_wait(&exec->program, END_MS);
	bool untouched = is_untouched(turn);
	char how[64];
	int status = end(exec);

	program_describe(status, how, sizeof how);
	host->log(host, DROVER_LOG_ERROR,
		  !ended ? "%s closed descriptor 3 or 4 before it gave the event's verdict, and %s"
		  : untouched ? "%s %s before it read the event, a line on descriptor 3"
			      : "%s %s before it gave the event's verdict",
		  exec->path, how);
	die_like(status);
}

/* Hands the event to the program; to a new one if the running one just ended. */
static int take_turn(struct turn *turn, const char *text)
{
	const struct drover_host *host = turn->outcome->host;
	int r;

	for (bool again = false;; again = true) {
		r = prepare(turn->exec, host);
		if (r < 0)
			return r;
		turn->text = text;
		turn->left = turn->size;
		if (converse(turn))
			return 0;
		if (again || !program_wait(&turn->exec->program, END_MS) || !is_untouched(turn))
			crash(turn);
	}
}

enum drover_verdict stream_handle(struct exec *exec, const struct drover_event *event,
				  struct drover_outcome *outcome)
{
	struct turn turn = {.exec = exec, .event = event, .outcome = outcome};
	char *text = line_of_event(event, true, &turn.size);
	int r = text ? 0 : -ENOMEM;

	program_busy(true);
	if (r == 0)
		r = take_turn(&turn, text);
	free(text);
	if (r < 0) {
		turn.verdict = drover_retry(outcome, -1, "cannot hand the event to %s: %s",
					    exec->path, strerror(-r));
	} else if (turn.broken) {
		exec->suspect = true;
		turn.verdict = drover_retry(outcome, -1, "a line on its descriptor 4 is wrong: %s",
					    turn.why);
	}
	program_busy(false);
	return turn.verdict;
}

void stream_stop(struct exec *exec)
{
	if (!exec->program.pid)
		return;
	/* The end of its events is how it is asked to end. */
	close(exec->program.events);
	exec->program.events = -1;
	if (!program_wait(&exec->program, exec->grace_ms)) {
		program_signal(&exec->program, SIGTERM);
		program_wait(&exec->program, exec->grace_ms);
	}
	end(exec);
}
