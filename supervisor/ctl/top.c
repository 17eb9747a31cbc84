/* SPDX-License-Identifier: MIT */
/*
 * droverctl top: the status every second. On a terminal it has the screen for itself and gives it
 * back as it was; elsewhere it writes one snapshot after the other. A daemon that goes away is said
 * so and waited for.
 */
#include "ctl/ctl.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"

#include "base/banned.h"

#define EVERY_MS   1000
#define LINES_OVER 5 /* node, cluster, titles, blank lines */

struct screen {
	bool on;   /* stdout is a terminal */
	bool keys; /* stdin too: q ends it */
	struct termios before;
	int signals;
	size_t lines, columns;
};

static void measure(struct screen *screen)
{
	struct winsize size = {0};

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_row) {
		size.ws_row = 24;
		size.ws_col = 80;
	}
	screen->lines = size.ws_row;
	screen->columns = size.ws_col;
}

static void enter(struct screen *screen, bool json)
{
	struct buf out = {0};
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGWINCH);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	screen->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	screen->on = !json && isatty(STDOUT_FILENO) == 1;
	screen->keys = screen->on && tcgetattr(STDIN_FILENO, &screen->before) == 0;
	if (screen->keys) {
		struct termios raw = screen->before;

		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	if (screen->on)
		buf_append_text(&out, "\033[?1049h\033[?25l"); /* the other screen, no cursor */
	answer_write(&out);
	buf_free(&out);
}

static void leave(struct screen *screen)
{
	struct buf out = {0};

	if (screen->on)
		buf_append_text(&out, "\033[?25h\033[?1049l");
	answer_write(&out);
	buf_free(&out);
	if (screen->keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &screen->before);
	close(screen->signals);
}

/* Waits for the next snapshot's time; false: it was the last. */
static bool wait_for_next(struct screen *screen, int64_t until_ms)
{
	struct pollfd pollers[] = {{screen->signals, POLLIN, 0},
				   {screen->keys ? STDIN_FILENO : -1, POLLIN, 0}};

	for (;;) {
		int64_t left_ms = until_ms - clock_now_ms();
		struct signalfd_siginfo info;
		char key;

		if (left_ms <= 0 || poll(pollers, 2, (int)left_ms) == 0)
			return true;
		if (pollers[0].revents &&
		    read(screen->signals, &info, sizeof info) == sizeof info) {
			if (info.ssi_signo != SIGWINCH)
				return false;
			return true; /* drawn anew for the new size, at once */
		}
		if (pollers[1].revents &&
		    (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q'))
			return false;
	}
}

/* Lines longer than the terminal, or more of them, would scroll; escape sequences take no room. */
static void fit(const struct screen *screen, const char *text, struct buf *out)
{
	size_t column = 0, line = 0;

	for (; *text && line < screen->lines; text++) {
		if (*text == '\033') {
			size_t length = strcspn(text, "m") + 1;

			buf_append(out, text, length);
			text += length - 1;
			continue;
		}
		if (*text == '\n') {
			buf_append_text(out, "\033[K");
			if (++line < screen->lines)
				buf_append_text(out, "\n");
			column = 0;
			continue;
		}
		column += ((unsigned char)*text & 0xc0) != 0x80;
		if (column <= screen->columns)
			buf_append(out, text, 1);
	}
	buf_append_text(out, "\033[J");
}

static void draw(const struct ctl *ctl, struct screen *screen, const cJSON *answer)
{
	struct buf text = {0}, out = {0};

	if (!screen->on) {
		show_status(ctl, answer, &out);
		buf_append_text(&out, "\n");
	} else {
		size_t room, types = (size_t)cJSON_GetArraySize(
				     cJSON_GetObjectItemCaseSensitive(answer, "types"));

		measure(screen);
		room = screen->lines > LINES_OVER + 2 ? screen->lines - LINES_OVER : 2;
		show_node(ctl, answer, &text);
		buf_append_text(&text, "\n");
		show_types(ctl, answer, types > room ? room - 1 : room, &text);
		if (types + 1 < room)
			show_problems(ctl, answer, room - types - 1, &text);
		buf_append_text(&out, "\033[H");
		fit(screen, buf_text(&text), &out);
	}
	answer_write(&out);
	buf_free(&text);
	buf_free(&out);
}

/* The daemon is away or being started again: says so and lets the caller try again. */
static void draw_away(const struct screen *screen, const struct why *why)
{
	struct buf out = {0};

	if (screen->on) {
		buf_append_text(&out, "\033[H\033[2J");
		buf_append_text(&out, why->text);
		buf_append_text(&out, "\n");
		answer_write(&out);
	} else {
		answer_complain(why->text);
	}
	buf_free(&out);
}

static int snapshot(struct ctl *ctl, struct screen *screen, struct why *why)
{
	struct client_request request = {.method = "GET", .path = "/v1/status", .body_fd = -1};
	struct buf body = {0};
	cJSON *answer = NULL;
	long code = 0;
	int r;

	r = client_call(ctl->client, &request, &code, &body, why);
	if (r == 0) {
		answer = cJSON_ParseWithLength((const char *)buf_front(&body), buf_size(&body));
		if (!answer || code >= 400)
			r = why_set(why, -EIO, "droverd's answer (HTTP status %ld) makes no sense",
				    code);
	}
	if (r == 0 && ctl->json)
		answer_write(&body);
	else if (r == 0)
		draw(ctl, screen, answer);
	cJSON_Delete(answer);
	buf_free(&body);
	return r;
}

int top_run(struct ctl *ctl, const struct call *call)
{
	const char *count = call_option(call, "count");
	struct screen screen = {0};
	char *end = NULL;
	long left = count ? strtol(count, &end, 10) : -1;
	bool seen = false, going;
	struct why why = {0};
	int r;

	if (count && (*end || left <= 0)) {
		answer_complain("top: --count is a number from 1 on");
		return CTL_USAGE;
	}
	enter(&screen, ctl->json);
	do {
		int64_t next_ms = clock_now_ms() + EVERY_MS;

		r = snapshot(ctl, &screen, &why);
		seen |= r == 0;
		if (seen && r < 0)
			draw_away(&screen, &why);
		/* Where there never was a daemon, that is the answer. */
		going = seen && !(left > 0 && !--left) && wait_for_next(&screen, next_ms);
	} while (going);
	leave(&screen);
	return seen ? CTL_OK : answer_failed(r, &why);
}
