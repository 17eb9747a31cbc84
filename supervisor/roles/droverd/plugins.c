/* SPDX-License-Identifier: MIT */
/*
 * The command "plugins": where handlers are looked for, which plugins are installed and which of
 * them cannot be loaded, and the handlers of types. A plugin tells what is wrong with it by being
 * loaded, so an errand does that (roles/errand/plugins.c), and its answers are rows; the handlers
 * follow when it has ended. Only reads the supervisor's state.
 */
#include "roles/droverd/commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/banned.h"

#define LOOKS_MAX 4 /* at a time: whoever may look must not fill the machine with processes */

struct look {
	struct supervisor *supervisor;
	int64_t request; /* may be over before the look is */
};

static int n_looks;

static void add_problem(const struct request *request, const char *about, const char *problem)
{
	struct message row = {0};

	request_row_start(&row, request, "problem");
	message_add_text(&row, "about", about);
	message_add_text(&row, "problem", problem);
	request_row(request, &row);
}

static void on_look_message(void *context, struct child *child, const struct message_view *view,
			    const int *fds, size_t n_fds)
{
	const struct look *look = context;
	const struct request *request = request_of_id(look->supervisor, look->request);
	struct message row = {0};

	(void)child;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (!request || !message_is(view, "plugin"))
		return;
	request_row_start(&row, request, "plugin");
	message_add_all(&row, view, NULL);
	request_row(request, &row);
}

static void on_look_exited(void *context, struct child *child, int status, const char *said)
{
	struct look *look = context;
	struct request *request = request_of_id(look->supervisor, look->request);
	struct message_view none = {0};
	struct why why = {0};
	char how[sizeof child->said];
	int r;

	n_looks--;
	free(look);
	if (!request)
		return;
	if (status) {
		child_obituary(child, status, said, how, sizeof how);
		add_problem(request, "plugins", how);
	}
	r = request_walk(request, &none, rows_handler, &why);
	if (r <= 0)
		request_end(request, r, why.text);
}

static const struct child_owner look_owner = {on_look_message, on_look_exited};

static int start_look(const struct request *request, struct why *why)
{
	struct supervisor *supervisor = request->supervisor;
	struct look *look = malloc(sizeof *look);
	struct child_request start = {
		.program = PROGRAM_ERRAND,
		.title = "errand plugins",
		.owner = &look_owner,
		.context = look,
		.link = -1,
	};
	struct message message = {0};
	struct child *child;
	int r;

	if (!look)
		return why_set(why, -ENOMEM, "out of memory");
	*look = (struct look){supervisor, request->id};
	r = child_start(&supervisor->children, &start, &child, why);
	if (r < 0) {
		free(look);
		return r;
	}
	n_looks++;
	/* Should any of this not have been sent, the errand is ended as one that does not answer. */
	message_start(&message, "setup");
	message_add_text(&message, "errand", "plugins");
	message_add_text(&message, "arg.directory", supervisor->paths.plugins);
	child_send(child, &message);
	message_start(&message, "go");
	child_send(child, &message);
	message_free(&message);
	return 1;
}

int rows_plugins(struct request *request, const struct message_view *ask, struct why *why)
{
	const struct supervisor *supervisor = request->supervisor;
	struct message row = {0};

	(void)ask;
	if (n_looks == LOOKS_MAX)
		return why_set(why, -EBUSY, "%d others are looking at the plugins; ask again",
			       n_looks);
	for (size_t i = 0; i < supervisor->n_watches; i++) {
		request_row_start(&row, request, "directory");
		message_add_text(&row, "directory", supervisor->watches[i].directory);
		message_add_flag(&row, "present", supervisor->watches[i].descriptor >= 0);
		request_row(request, &row);
	}
	if (*supervisor->handlers_problem)
		add_problem(request, "handlers", supervisor->handlers_problem);
	return start_look(request, why);
}
