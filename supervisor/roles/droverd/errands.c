/* SPDX-License-Identifier: MIT */
/*
 * Errands: disposable processes for what needs a broker or foreign code for a moment. Starts them
 * for the api and for the declaring of queues, and runs the trial of a configuration's plugins and
 * waits for it. What an errand does is its own (roles/errand); what follows from its answer is the
 * caller's.
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#include "base/banned.h"

#define CHECK_PATIENCE_MS 5000

static void on_served_message(void *context, struct child *child, const struct message_view *view,
			      const int *fds, size_t n_fds);
static void on_served_exited(void *context, struct child *child, int status, const char *said);

static const struct child_owner served_owner = {on_served_message, on_served_exited};

int errand_start(struct supervisor *supervisor, const char *title, const struct message *setup,
		 const struct config_plugin *broker, const struct child_owner *owner, void *context,
		 int api_fd, struct child **ret_child, struct why *why)
{
	char full[PROCESS_TITLE_MAX];
	struct child_request request = {
		.program = PROGRAM_ERRAND,
		.title = full,
		.owner = owner,
		.context = context,
		.link = -1,
	};
	struct message message = {0};
	struct child *child;
	int r;

	snprintf(full, sizeof full, "errand %s", title);
	r = child_start(&supervisor->children, &request, &child, why);
	if (r < 0) {
		if (api_fd >= 0)
			close(api_fd);
		return r;
	}
	child_send(child, setup);
	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];

		if (type->gone || strcmp(type->config->broker, broker->name))
			continue;
		message_start(&message, "queue");
		message_add_queue(&message, type->config);
		child_send(child, &message);
	}
	message_start(&message, "go");
	/* Should any of this not have been sent, the errand ends and says so, or never begins. */
	if (api_fd >= 0)
		child_send_fd(child, &message, api_fd);
	else
		child_send(child, &message);
	message_free(&message);
	*ret_child = child;
	return 0;
}

static void add_args(struct message *message, const struct message_view *ask)
{
	struct message_field field;
	size_t position = 0;

	while (message_next(ask, &position, &field)) {
		if (strncmp(field.key, "arg.", 4))
			continue;
		if (field.type == MESSAGE_INT)
			message_add_int(message, field.key, field.number);
		else if (field.type == MESSAGE_FLAG)
			message_add_flag(message, field.key, field.number);
		else
			message_add_text(message, field.key, field.text);
	}
}

int errand_serve(struct supervisor *supervisor, const char *errand,
		 const struct config_plugin *broker, const struct message_view *ask,
		 int *ret_api_fd, struct why *why)
{
	struct message setup = {0};
	char title[PROCESS_TITLE_MAX];
	struct child *child;
	const struct broker *known = broker_find(supervisor, broker->name);
	int pair[2], r;

	if (known && !discover_known(known))
		return why_set(why, -ENOTCONN, "broker %s: %s", broker->name, known->sentence);
	r = channel_pair(pair);
	if (r < 0)
		return why_set(why, r, "make a channel: %s", strerror(-r));
	snprintf(title, sizeof title, "%s %.128s", errand, message_text(ask, "arg.type", ""));
	message_start(&setup, "setup");
	message_add_text(&setup, "errand", errand);
	message_add_broker(&setup, supervisor, broker);
	add_args(&setup, ask);
	r = errand_start(supervisor, title, &setup, broker, &served_owner, NULL, pair[1], &child,
			 why);
	message_free(&setup);
	if (r < 0) {
		close(pair[0]);
		return r;
	}
	*ret_api_fd = pair[0];
	return 0;
}

static void on_served_message(void *context, struct child *child, const struct message_view *view,
			      const int *fds, size_t n_fds)
{
	(void)context;
	(void)child;
	(void)view;
	for (size_t i = 0; i < n_fds; i++)
		close(fds[i]);
}

static void on_served_exited(void *context, struct child *child, int status, const char *said)
{
	char how[128];

	(void)context;
	/* What it refused or found wrong it told the client; this is for what it could not tell. */
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return;
	process_describe_status(status, how, sizeof how);
	log_change(KIND_ROLE_DIED, NULL,
		   "%s %s%s%s; what it had confirmed stands, its client is told that the rest "
		   "failed",
		   child->title, how, *said ? ": " : "", said);
}

/* The trial of a configuration. */

struct trial {
	const char *plugin;
	int fd; /* the errand's channel */
	pid_t pid;
	struct config_plugin *marked; /* whose secrets are to be marked; NULL: nobody's */
	bool marks;                   /* that was done */
};

static int begin_trial(struct supervisor *supervisor, const char *name, struct trial *ret_trial,
		       struct why *why)
{
	bool open_yet = supervisor->children.event != NULL;
	char path[PATH_MAX + 16], title[PROCESS_TITLE_MAX];
	int pair[2], program, r;

	snprintf(path, sizeof path, "%s/errand", supervisor->paths.programs);
	program = open_yet ? supervisor->children.programs[PROGRAM_ERRAND]
			   : open(path, O_RDONLY | O_CLOEXEC);
	if (program < 0)
		return why_set(why, -errno, "%s: %s; is Drover installed completely?", path,
			       strerror(errno));
	r = channel_pair(pair);
	if (r < 0) {
		why_set(why, r, "make a channel: %s", strerror(-r));
	} else {
		struct process_spec spec = {
			.program = program,
			.title = title,
			.fds = &pair[1],
			.n_fds = 1,
			.environment = open_yet ? supervisor->children.trusted : environ,
			.death_signal = SIGKILL,
		};

		snprintf(title, sizeof title, "drover: errand check %s", name);
		r = process_spawn(&spec, &ret_trial->pid, why);
		close(pair[1]);
		ret_trial->fd = pair[0];
		if (r < 0)
			close(pair[0]);
	}
	if (!open_yet)
		close(program);
	return r;
}

static void mark_secrets(struct trial *trial, const struct message_view *view)
{
	struct config_plugin *plugin = trial->marked;
	struct message_field field;
	size_t position = 0;

	if (!plugin)
		return;
	trial->marks = true;
	while (message_next(view, &position, &field))
		for (size_t i = 0; field.text && i < plugin->n_settings; i++)
			if (!strcmp(plugin->settings[i].name, field.text))
				plugin->settings[i].secret = true;
}

/*
 * Reads with recv and into its own memory: the view that a caller higher up is reading must stay.
 * 1: *ret_status and why are the answer. 0: something else came.
 */
static int read_answer(struct trial *trial, int *ret_status, struct why *why)
{
	static uint8_t data[MESSAGE_MAX];
	struct message_view view;
	ssize_t size = recv(trial->fd, data, sizeof data, MSG_DONTWAIT);

	if (size < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET))
		return 0;
	if (size <= 0 || message_read(data, (size_t)size, &view) < 0)
		return -EPIPE;
	if (message_is(&view, "secret"))
		mark_secrets(trial, &view);
	if (!message_is(&view, "end") && !message_is(&view, "failed"))
		return 0;
	*ret_status = (int)message_int(&view, "status", -EINVAL);
	if (*ret_status < 0)
		why_set(why, *ret_status, "%s", message_text(&view, "why", "no reason given"));
	return 1;
}

static int await_trial(struct trial *trial, struct why *why)
{
	int64_t until_ms = clock_now_ms() + CHECK_PATIENCE_MS, left_ms;
	struct pollfd wait = {.fd = trial->fd, .events = POLLIN};
	int status = 0, ended = 0, r = 0;
	char how[128];

	while (!r && (left_ms = until_ms - clock_now_ms()) > 0)
		if (poll(&wait, 1, (int)left_ms) > 0)
			r = read_answer(trial, &status, why);
	/*
	 * It has nothing left to do but to end, and may be unable to. One that closed its channel
	 * by dying keeps the status that it died with.
	 */
	kill(trial->pid, SIGKILL);
	while (waitpid(trial->pid, &ended, 0) < 0 && errno == EINTR)
		;
	close(trial->fd);
	if (r > 0)
		return status;
	if (!r)
		return why_set(why, -ETIMEDOUT, "plugin %s: no answer within %d s", trial->plugin,
			       CHECK_PATIENCE_MS / 1000);
	return why_set(why, -EPIPE, "plugin %s: its trial %s", trial->plugin,
		       process_describe_status(ended, how, sizeof how));
}

/* Where the setting stands that a sentence like "path = 5: …" or "pth: no such setting" begins with. */
static const struct config_place *place_of(const struct config_plugin *plugin, const char *sentence)
{
	size_t length = strcspn(sentence, " :");

	for (size_t i = 0; i < plugin->n_settings; i++)
		if (strlen(plugin->settings[i].name) == length &&
		    !strncmp(plugin->settings[i].name, sentence, length))
			return &plugin->settings[i].place;
	return &plugin->place;
}

static int try_plugin(struct supervisor *supervisor, const struct config *config, const char *kind,
		      const struct config_plugin *plugin, struct trial *trial, struct why *why)
{
	struct channel channel;
	struct message message = {0};
	int r;

	trial->plugin = plugin->plugin;
	r = begin_trial(supervisor, plugin->name, trial, why);
	if (r < 0)
		return r;
	channel_open(&channel, trial->fd);
	message_start(&message, "setup");
	message_add_text(&message, "errand", "check");
	message_add_text(&message, "arg.kind", kind);
	message_add_text(&message, "broker", plugin->name);
	message_add_flag(&message, "arg.discovered", plugin->service != NULL);
	message_add_plugin(&message, supervisor, config, kind, plugin);
	r = channel_send(&channel, &message, NULL, 0);
	message_start(&message, "go");
	r = r < 0 ? r : channel_send(&channel, &message, NULL, 0);
	message_free(&message);
	if (r < 0)
		why_set(why, r, "speak to its trial: %s", strerror(-r));
	/* Also where nothing could be sent: it must end in any case. */
	return await_trial(trial, why);
}

/* A broker is found in one way alone, and only where somebody can be asked for it. */
static int check_service(const struct config *config, const struct config_plugin *broker,
			 struct why *why)
{
	if (!broker->service)
		return 0;
	for (size_t i = 0; i < broker->n_settings; i++) {
		const char *name = broker->settings[i].name;

		if (!strcmp(name, "hosts") || !strcmp(name, "url"))
			return why_set(
				why, -EINVAL,
				"%s is set beside service = \"%s\": the broker is looked for "
				"in the registry or at %s; leave one of them out",
				name, broker->service, name);
	}
	if (!strcmp(config->registry.plugin, "none"))
		return why_set(why, -EINVAL,
			       "service = \"%s\": there is no registry to find it in; configure "
			       "one (registry = { plugin = \"consul\"; };), or say hosts",
			       broker->service);
	return 0;
}

static int check_plugin(struct supervisor *supervisor, const struct config *config,
			const char *kind, const struct config_plugin *plugin, struct why *why)
{
	struct trial trial = {0};
	const struct config_place *place;
	int r = check_service(config, plugin, why);

	if (r >= 0)
		r = try_plugin(supervisor, config, kind, plugin, &trial, why);
	if (r >= 0)
		return 0;
	place = place_of(plugin, why->text);
	if (!strcmp(kind, "brokers"))
		why_prefix(why, r, "broker %s", plugin->name);
	else
		why_prefix(why, r, "registry");
	return *place->file ? why_prefix(why, r, "%s:%u", place->file, place->line) : r;
}

int errand_check(struct supervisor *supervisor, const struct config *config, struct why *why)
{
	struct why said = {0};
	int r = 0;

	for (size_t i = 0; !r && i < config->n_brokers; i++)
		r = check_plugin(supervisor, config, "brokers", &config->brokers[i], &said);
	if (!r)
		r = check_plugin(supervisor, config, "registries", &config->registry, &said);
	return r < 0 ? why_set(why, r, "%s", said.text) : 0;
}

/* What a plugin that cannot be asked would call a secret is not known: then all of it is one. */
static void find_secrets(struct supervisor *supervisor, const struct config *config,
			 const char *kind, struct config_plugin *plugin)
{
	struct trial trial = {.marked = plugin};
	struct why ignored;

	if (!plugin->n_settings)
		return;
	try_plugin(supervisor, config, kind, plugin, &trial, &ignored);
	for (size_t i = 0; !trial.marks && i < plugin->n_settings; i++)
		plugin->settings[i].secret = true;
}

void errand_find_secrets(struct supervisor *supervisor, struct config *config)
{
	for (size_t i = 0; i < config->n_brokers; i++)
		find_secrets(supervisor, config, "brokers", &config->brokers[i]);
	find_secrets(supervisor, config, "registries", &config->registry);
}
