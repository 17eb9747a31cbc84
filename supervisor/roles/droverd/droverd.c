/* SPDX-License-Identifier: MIT */
/*
 * droverd, the supervisor: options, the order in which everything starts and ends, signals, reload.
 * Decides when the node is ready, what of a new configuration is refused, and how long a stop may
 * take; everything else each file of this folder decides for its own concern. Touches no network,
 * loads no plugin.
 */
#include "roles/droverd/supervisor.h"

#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "policy/budget.h"

#include "base/banned.h"

#define EXIT_USAGE  2
#define EXIT_CONFIG 78 /* EX_CONFIG of sysexits.h; the unit file does not restart on it */

#define STOP_MARGIN_MS 5000 /* after the longest stop_timeout: the grace, and settling */
#define DEATH_MS       3000 /* for roles to end once they are told to */

enum action {
	ACTION_RUN,
	ACTION_CHECK,
	ACTION_DUMP,
	ACTION_VERSION,
	ACTION_HELP,
};

static const struct {
	struct option option;
	const char *argument, *sentence;
} options[] = {
	{{"config", required_argument, NULL, 'c'}, " FILE", "read FILE and conf.d/ beside it"},
	{{"check", no_argument, NULL, ACTION_CHECK},
	 "",
	 "say what is wrong with it, start nothing"},
	{{"dump-config", no_argument, NULL, ACTION_DUMP}, "", "print all that is in force of it"},
	{{"version", no_argument, NULL, ACTION_VERSION}, "", "print the version"},
	{{"help", no_argument, NULL, ACTION_HELP}, "", "print this"},
};

#define OPTIONS (sizeof options / sizeof *options)

double supervisor_random(void)
{
	return drand48();
}

static void print_help(FILE *to)
{
	fprintf(to, "Usage: droverd [OPTION]…\n"
		    "Supervises consumers of events on this host; runs in the foreground.\n\n");
	for (size_t i = 0; i < OPTIONS; i++) {
		char left[64];

		snprintf(left, sizeof left, "--%s%s", options[i].option.name, options[i].argument);
		fprintf(to, "  %-20s %s\n", left, options[i].sentence);
	}
	fprintf(to, "\nWithout --config it reads %s, which may be missing. See droverd(8).\n",
		SYSCONFDIR "/drover/drover.conf");
}

/* Whoever reloads later may stand in another directory. */
static char *absolute(const char *path)
{
	char *here, *whole = NULL;

	if (*path == '/')
		return strdup(path);
	here = getcwd(NULL, 0);
	if (here && asprintf(&whole, "%s/%s", here, path) < 0)
		whole = NULL;
	free(here);
	return whole;
}

/* False: a usage error, said. */
static bool parse_options(struct supervisor *supervisor, int argc, char **argv,
			  enum action *ret_action)
{
	struct option table[OPTIONS + 1] = {0};
	const char *file = SYSCONFDIR "/drover/drover.conf";
	int option;

	for (size_t i = 0; i < OPTIONS; i++)
		table[i] = options[i].option;
	*ret_action = ACTION_RUN;
	while ((option = getopt_long(argc, argv, "", table, NULL)) >= 0) {
		if (option == '?')
			goto usage;
		if (option == 'c') {
			file = optarg;
			supervisor->config_explicit = true;
		} else if (*ret_action != ACTION_RUN && *ret_action != (enum action)option) {
			fprintf(stderr, "droverd: one of --check, --dump-config, --version\n");
			goto usage;
		} else {
			*ret_action = (enum action)option;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "droverd: \"%s\" is no option\n", argv[optind]);
		goto usage;
	}
	supervisor->config_file = absolute(file);
	return supervisor->config_file != NULL;
usage:
	fprintf(stderr, "Try 'droverd --help'.\n");
	return false;
}

/* The configuration and what is checked of it beyond its own file. */

static void check_user(const char *name, const struct config_place *place, struct buf *errors)
{
	if (name && !getpwnam(name))
		buf_printf(errors, "%s:%u: user = \"%s\": there is no such user on this host\n",
			   place->file ? place->file : "", place->line, name);
}

static void check_host(const struct supervisor *supervisor, const struct config *config,
		       struct buf *errors)
{
	static const struct config_place nowhere = {"", 0};

	if (!config->user && !geteuid())
		buf_printf(
			errors,
			"%s: droverd runs as root, and no user is configured for the handlers; write user = \"NAME\"; "
			"with an account that may do what the handlers must and no more, or user = \"root\"; if they "
			"are to run as root\n",
			supervisor->config_file);
	if (config->user && !getpwnam(config->user))
		buf_printf(errors, "%s: user = \"%s\": there is no such user on this host\n",
			   supervisor->config_file, config->user);
	for (size_t i = 0; i < config->n_types; i++)
		if (config->types[i].user &&
		    (!config->defaults.user ||
		     strcmp(config->types[i].user, config->defaults.user) != 0))
			check_user(config->types[i].user, &config->types[i].place, errors);
	check_user(config->defaults.user, &nowhere, errors);
	if (config->n_budgets > BUDGETS_MAX)
		buf_printf(errors, "%s:%u: budgets: there are %zu; at most %d are allowed\n",
			   config->budgets[BUDGETS_MAX].place.file,
			   config->budgets[BUDGETS_MAX].place.line, config->n_budgets, BUDGETS_MAX);
}

static int load(const struct supervisor *supervisor, struct config **ret_config, struct buf *errors)
{
	struct config *config = NULL;
	int r = config_load(supervisor->config_file, supervisor->config_explicit, &config, errors);

	if (r < 0)
		return r;
	check_host(supervisor, config, errors);
	if (buf_size(errors)) {
		config_free(config);
		return -EINVAL;
	}
	*ret_config = config;
	return 0;
}

static size_t log_lines(struct buf *lines)
{
	char *rest = strdup(buf_text(lines)), *at = rest, *line;
	size_t n = 0;

	while ((line = strsep(&at, "\n"))) {
		if (!*line)
			continue;
		log_error("%s", line);
		n++;
	}
	free(rest);
	return n;
}

/* The first of several errors, and that there are more. */
static int first_line(struct why *why, int error, struct buf *lines, size_t n)
{
	const char *text = buf_text(lines);
	char more[64] = "";

	if (n > 1)
		snprintf(more, sizeof more, " (and %zu more, in droverd's log)", n - 1);
	return why_set(why, error, "%.*s%s", (int)strcspn(text, "\n"), text, more);
}

static int dump(struct supervisor *supervisor)
{
	struct buf text = {0};
	int r = config_load(supervisor->config_file, supervisor->config_explicit,
			    &supervisor->config, &text);

	if (r < 0) {
		fputs(buf_text(&text), stderr);
	} else {
		buf_clear(&text);
		config_dump(supervisor->config, &text);
		fputs(buf_text(&text), stdout);
	}
	buf_free(&text);
	return r < 0 ? EXIT_CONFIG : EXIT_SUCCESS;
}

/* Start. */

static void raise_limits(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* What --check needs too: the loop, and a way to start errands. */
static int open_basics(struct supervisor *supervisor, struct why *why)
{
	sigset_t mask;
	int r;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	r = paths_find(&supervisor->paths, why);
	if (r < 0)
		return r;
	r = sd_event_new(&supervisor->event);
	if (r < 0)
		return why_set(why, r, "event loop: %s", strerror(-r));
	return children_open(&supervisor->children, supervisor->event, supervisor->paths.programs,
			     why);
}

static int check(struct supervisor *supervisor)
{
	struct buf errors = {0};
	struct why why = {0};
	int r = load(supervisor, &supervisor->config, &errors);

	if (r >= 0) {
		snprintf(supervisor->instance, sizeof supervisor->instance, "check");
		files_check(supervisor, &errors);
		r = open_basics(supervisor, &why);
		if (r >= 0)
			r = errand_check(supervisor, supervisor->config, &why);
		if (r < 0)
			buf_printf(&errors, "%s\n", why.text);
	}
	fputs(buf_text(&errors), stderr);
	r = buf_size(&errors) ? EXIT_CONFIG : EXIT_SUCCESS;
	if (r == EXIT_SUCCESS)
		printf("%s: the configuration is good\n", supervisor->config_file);
	buf_free(&errors);
	return r;
}

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *info,
			  void *context);
static int on_reload_signal(sd_event_source *source, const struct signalfd_siginfo *info,
			    void *context);

static void on_reaped(void *context)
{
	supervisor_progress(context);
}

static int open_loop(struct supervisor *supervisor, struct why *why)
{
	sd_event *event = supervisor->event;
	int r = sd_event_add_signal(event, NULL, SIGTERM, on_stop_signal, supervisor);

	if (r >= 0)
		r = sd_event_add_signal(event, NULL, SIGINT, on_stop_signal, supervisor);
	if (r >= 0)
		r = sd_event_add_signal(event, NULL, SIGHUP, on_reload_signal, supervisor);
	if (r >= 0)
		r = sd_event_set_watchdog(event, true);
	if (r >= 0)
		r = decide_open(supervisor);
	if (r < 0)
		return why_set(why, r, "event loop: %s", strerror(-r));
	supervisor->children.reaped = on_reaped;
	supervisor->children.context = supervisor;
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return why_set(why, -errno, "become a subreaper: %s", strerror(errno));
#if !defined(__SANITIZE_ADDRESS__)
	prctl(PR_SET_DUMPABLE, 0); /* the leak checker must be able to look at its own process */
#endif
	return 0;
}

static size_t count_served(const struct supervisor *supervisor)
{
	size_t n = 0;

	for (size_t i = 0; i < supervisor->n_types; i++)
		n += supervisor->types[i]->handler != NULL;
	return n;
}

static void announce(struct supervisor *supervisor, const char *what)
{
	size_t served = count_served(supervisor), tried = 0;
	char trials[64] = "";

	for (size_t i = 0; i < supervisor->n_types; i++)
		tried += supervisor->types[i]->candidate != NULL;
	if (tried)
		snprintf(trials, sizeof trials, ", %zu handlers in their trial load", tried);
	log_notice("%s: node %s, %zu event types, %zu of them with a handler%s, %zu broker%s", what,
		   supervisor->config->node, supervisor->n_types, served, trials,
		   supervisor->config->n_brokers, supervisor->config->n_brokers == 1 ? "" : "s");
	sd_notifyf(0, "READY=1\nSTATUS=%zu event types, %zu with a handler", supervisor->n_types,
		   served);
}

/* Each step needs the ones before it; the first that fails ends the start. */
static int start(struct supervisor *supervisor, struct why *why, int *ret_exit)
{
	*ret_exit = EXIT_FAILURE;
	raise_limits();
	if (open_basics(supervisor, why) < 0 || state_open(supervisor, why) < 0 ||
	    open_loop(supervisor, why) < 0 || commands_open(supervisor, why) < 0 ||
	    files_open(supervisor, why) < 0)
		return -1;
	if (errand_check(supervisor, supervisor->config, why) < 0) {
		*ret_exit = EXIT_CONFIG;
		return -1;
	}
	if (types_apply(supervisor, supervisor->config, why) < 0)
		return -1;
	files_watch(supervisor);
	files_scan(supervisor);
	state_load_overrides(supervisor);
	brokers_start(supervisor);
	brokers_declare(supervisor);
	commands_start(supervisor);
	registry_start(supervisor);
	supervisor->ready = true;
	announce(supervisor, "ready");
	return 0;
}

static void warn_of_root(const struct supervisor *supervisor)
{
	const struct config *config = supervisor->config;

	if (!geteuid() && config->user && !strcmp(config->user, "root"))
		log_warning(
			"handlers run as root, as user = \"root\" says; whatever goes wrong in one "
			"can change everything on this host");
}

/* End. */

static int on_stop_timer(sd_event_source *source, uint64_t usec, void *context);

static void arm_stop_timer(struct supervisor *supervisor, int64_t wait_ms)
{
	supervisor->stop_timer = sd_event_source_disable_unref(supervisor->stop_timer);
	supervisor->stop_by_ms = clock_now_ms() + wait_ms;
	sd_event_add_time_relative(supervisor->event, &supervisor->stop_timer, CLOCK_MONOTONIC,
				   (uint64_t)wait_ms * 1000, 10000, on_stop_timer, supervisor);
}

/* Everybody's end is wanted now. */
static void die(struct supervisor *supervisor)
{
	supervisor->dying = true;
	for (size_t i = 0; i < supervisor->n_types; i++)
		pair_kill(supervisor->types[i]);
	for (struct child *child = supervisor->children.first; child; child = child->next)
		if (!child->leaving && child->program != PROGRAM_DISPATCHER)
			child_leave(child);
	arm_stop_timer(supervisor, DEATH_MS);
	supervisor_progress(supervisor);
}

static int on_stop_timer(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;

	(void)source;
	(void)usec;
	if (!supervisor->dying) {
		log_warning(
			"not everything has drained in time; what is still in hand is given out again later");
		die(supervisor);
		return 0;
	}
	for (struct child *child = supervisor->children.first; child; child = child->next) {
		log_warning("%s (pid %d) does not end; it is killed", child->title,
			    (int)child->pid);
		child_kill(child);
	}
	/* Whatever the kernel keeps from dying will find its parent gone. */
	return sd_event_exit(supervisor->event, supervisor->exit_code);
}

void supervisor_progress(struct supervisor *supervisor)
{
	if (supervisor->dying) {
		if (!supervisor->children.first)
			sd_event_exit(supervisor->event, supervisor->exit_code);
		return;
	}
	if (!supervisor->stopping)
		return;
	for (size_t i = 0; i < supervisor->n_types; i++)
		if (supervisor->types[i]->pair != PAIR_NONE)
			return;
	die(supervisor);
}

static int64_t longest_stop_ms(const struct supervisor *supervisor)
{
	int64_t longest = 0;

	for (size_t i = 0; i < supervisor->n_types; i++) {
		const struct type *type = supervisor->types[i];

		if (type->pair != PAIR_NONE && type->config->stop_timeout_ms > longest)
			longest = type->config->stop_timeout_ms;
	}
	return longest + STOP_MARGIN_MS;
}

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *info,
			  void *context)
{
	struct supervisor *supervisor = context;
	const char *name = sigabbrev_np((int)info->ssi_signo);
	char human[UNITS_TEXT_MAX];
	int64_t wait_ms;

	(void)source;
	if (supervisor->dying)
		return 0;
	if (supervisor->stopping) {
		log_notice("SIG%s again: ending at once; what is in hand is given out again later",
			   name);
		die(supervisor);
		return 0;
	}
	wait_ms = longest_stop_ms(supervisor);
	log_notice("SIG%s: stopping; busy workers get up to %s to finish", name,
		   units_human_duration(wait_ms, human, sizeof human));
	sd_notifyf(0, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%llu\nSTATUS=Draining",
		   (unsigned long long)(wait_ms + DEATH_MS) * 1000);
	supervisor->stopping = true;
	arm_stop_timer(supervisor, wait_ms);
	decide_soon(supervisor);
	supervisor_progress(supervisor);
	return 0;
}

/* Reload. */

static int read_again(struct supervisor *supervisor, struct config **ret_config, struct why *why)
{
	struct buf errors = {0};
	struct config *config = NULL;
	const char *key;
	int r = load(supervisor, &config, &errors);

	if (r < 0) {
		r = first_line(why, r, &errors, log_lines(&errors));
		buf_free(&errors);
		return r;
	}
	buf_free(&errors);
	key = config_restart_key(supervisor->config, config);
	if (key)
		r = why_set(
			why, -EBUSY,
			"%s: %s has changed, which only a restart of droverd can put in force; restart it, or "
			"change it back",
			supervisor->config_file, key);
	else
		r = errand_check(supervisor, config, why);
	if (r < 0)
		config_free(config);
	else
		*ret_config = config;
	return r;
}

int supervisor_reload(struct supervisor *supervisor, struct why *why)
{
	struct config *config = NULL;
	struct why reason = {0};
	int r;

	if (supervisor->stopping)
		return why_set(why, -EBUSY, "droverd is being stopped");
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_now_ns() / 1000);
	r = read_again(supervisor, &config, &reason);
	if (r >= 0) {
		r = types_apply(supervisor, config, &reason);
		if (r < 0)
			config_free(config);
	}
	if (r < 0) {
		log_error("the new configuration is refused, the running one stays in force: %s",
			  reason.text);
		sd_notify(0, "READY=1");
		supervisor->reload_refused = reason;
		return why_set(why, r, "%s", reason.text);
	}
	supervisor->reload_refused.text[0] = '\0';
	files_watch(supervisor);
	files_scan(supervisor);
	brokers_start(supervisor); /* those that are new */
	brokers_declare(supervisor);
	announce(supervisor, "reloaded");
	return 0;
}

static int on_reload_signal(sd_event_source *source, const struct signalfd_siginfo *info,
			    void *context)
{
	struct why why = {0};

	(void)source;
	(void)info;
	supervisor_reload(context, &why);
	return 0;
}

static void close_all(struct supervisor *supervisor)
{
	registry_close(supervisor);
	commands_close(supervisor);
	decide_close(supervisor);
	files_close(supervisor);
	types_free(supervisor);
	brokers_free(supervisor);
	supervisor->stop_timer = sd_event_source_disable_unref(supervisor->stop_timer);
	children_close(&supervisor->children);
	sd_event_unref(supervisor->event);
	state_close(supervisor);
	config_free(supervisor->config);
	free(supervisor->config_file);
}

static int run(struct supervisor *supervisor)
{
	struct buf errors = {0};
	struct why why = {0};
	int r;

	if (load(supervisor, &supervisor->config, &errors) < 0) {
		log_lines(&errors);
		buf_free(&errors);
		log_error(
			"not started: the configuration is wrong; mend it, and try it with droverd --check");
		return EXIT_CONFIG;
	}
	buf_free(&errors);
	warn_of_root(supervisor);
	if (start(supervisor, &why, &r) < 0) {
		log_error("not started: %s", why.text);
		return r; /* what was started ends with this process */
	}
	r = sd_event_loop(supervisor->event);
	if (r < 0) {
		log_error("event loop: %s; exiting, and everything that was started with it",
			  strerror(-r));
		return EXIT_FAILURE;
	}
	close_all(supervisor);
	log_notice("stopped");
	return r;
}

int main(int argc, char **argv)
{
	static struct supervisor supervisor = {
		.state_lock = -1,
		.listener = -1,
		.inotify = -1,
		.registry_state = "SUSPENDED",
		.registry_sentence = "the registrar has not reported yet",
	};
	enum action action;

	log_open("droverd");
	umask(022);
	supervisor.started_ms = clock_now_ms();
	supervisor.started_wall_ms = clock_wall_ms();
	srand48(clock_now_ns() ^ getpid());
	if (!parse_options(&supervisor, argc, argv, &action))
		return EXIT_USAGE;
	switch (action) {
	case ACTION_CHECK:
		return check(&supervisor);
	case ACTION_DUMP:
		return dump(&supervisor);
	case ACTION_VERSION:
		printf("droverd %s\n", PACKAGE_VERSION);
		return EXIT_SUCCESS;
	case ACTION_HELP:
		print_help(stdout);
		return EXIT_SUCCESS;
	case ACTION_RUN:
		break;
	}
	return run(&supervisor);
}
