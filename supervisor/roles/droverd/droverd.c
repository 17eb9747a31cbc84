/* SPDX-License-Identifier: MIT */
/*
 * droverd, the supervisor: its options, and the order in which everything starts and is taken down
 * again. Decides only that; each other file of this folder decides for its own concern. Touches no
 * network and loads no plugin.
 */
#include "roles/droverd/notify.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "roles/droverd/cluster.h"
#include "roles/droverd/outfit.h"

#include "base/banned.h"

#define EXIT_USAGE  2
#define EXIT_CONFIG 78 /* EX_CONFIG of sysexits.h; the unit file does not restart on it */

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

static int dump(struct supervisor *supervisor)
{
	struct buf text = {0};
	struct why why = {0};
	int r = config_load(supervisor->config_file, supervisor->config_explicit,
			    &supervisor->config, &text);

	if (r < 0) {
		fputs(buf_text(&text), stderr);
	} else {
		buf_clear(&text);
		/* Without them no plugin can be asked, and all their settings count as secret. */
		snprintf(supervisor->instance, sizeof supervisor->instance, "check");
		if (open_basics(supervisor, &why) < 0)
			fprintf(stderr, "droverd: %s\n", why.text);
		errand_find_secrets(supervisor, supervisor->config);
		config_dump(supervisor->config, &text);
		fputs(buf_text(&text), stdout);
	}
	buf_free(&text);
	return r < 0 ? EXIT_CONFIG : EXIT_SUCCESS;
}

static int check(struct supervisor *supervisor)
{
	struct buf errors = {0};
	struct why why = {0};
	int r = reload_read(supervisor, &supervisor->config, &errors);

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

static void on_reaped(void *context)
{
	supervisor_progress(context);
}

static int open_loop(struct supervisor *supervisor, struct why *why)
{
	int r = stop_open(supervisor);

	if (r >= 0)
		r = reload_open(supervisor);
	if (r >= 0)
		r = notify_open(supervisor);
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

/* What a droverd that was killed could not take away, and at the end all. */
static void clear_credentials(const struct supervisor *supervisor)
{
	char path[PATH_MAX];

	credentials_clear(outfit_parent(supervisor, path));
}

/*
 * A trial that could not be made, or did not come to its end, says nothing about what is written in
 * the configuration: the next start may go well.
 */
static int exit_for(int error)
{
	static const int passing[] = {EAGAIN, ENOMEM, EMFILE, ENFILE, ETIMEDOUT, EPIPE};

	for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
		if (error == -passing[i])
			return EXIT_FAILURE;
	return EXIT_CONFIG;
}

/* Each step needs the ones before it; the first that fails ends the start. */
static int start(struct supervisor *supervisor, struct why *why, int *ret_exit)
{
	int r;

	*ret_exit = EXIT_FAILURE;
	raise_limits();
	if (open_basics(supervisor, why) < 0 || state_open(supervisor, why) < 0 ||
	    open_loop(supervisor, why) < 0 || commands_open(supervisor, why) < 0 ||
	    watch_open(supervisor, why) < 0)
		return -1;
	clear_credentials(supervisor);
	r = errand_check(supervisor, supervisor->config, why);
	if (r < 0) {
		*ret_exit = exit_for(r);
		return -1;
	}
	if (cluster_open(supervisor, why) < 0 ||
	    types_apply(supervisor, supervisor->config, why) < 0)
		return -1;
	watch_directories(supervisor);
	files_scan(supervisor);
	state_load_overrides(supervisor);
	brokers_start(supervisor);
	brokers_declare(supervisor);
	commands_start(supervisor);
	registrar_start(supervisor);
	supervisor->ready = true;
	reload_announce(supervisor, KIND_READY, "ready");
	return 0;
}

static void warn_of_root(const struct supervisor *supervisor)
{
	const struct config *config = supervisor->config;

	if (!geteuid() && config->user && !strcmp(config->user, "root"))
		log_change(
			KIND_RUNS_AS_ROOT, NULL,
			"handlers run as root, as user = \"root\" says; whatever goes wrong in one "
			"can change everything on this host");
}

static void close_all(struct supervisor *supervisor)
{
	registrar_close(supervisor);
	cluster_close(supervisor);
	commands_close(supervisor);
	decide_close(supervisor);
	notify_close(supervisor);
	watch_close(supervisor);
	types_free(supervisor);
	brokers_free(supervisor);
	supervisor->stop_timer = sd_event_source_disable_unref(supervisor->stop_timer);
	children_close(&supervisor->children);
	clear_credentials(supervisor);
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

	if (reload_read(supervisor, &supervisor->config, &errors) < 0) {
		reload_log(&errors);
		buf_free(&errors);
		log_change(
			KIND_CONFIG_REFUSED, NULL,
			"not started: the configuration is wrong; mend it, and try it with droverd --check");
		return EXIT_CONFIG;
	}
	buf_free(&errors);
	/* For the log, in each process of this node's. */
	setenv("DROVER_NODE", supervisor->config->node, 1);
	log_open("droverd");
	warn_of_root(supervisor);
	if (start(supervisor, &why, &r) < 0) {
		log_change(KIND_NOT_STARTED, NULL, "not started: %s", why.text);
		return r; /* what was started ends with this process */
	}
	r = sd_event_loop(supervisor->event);
	if (r < 0) {
		log_change(KIND_LOOP_FAILED, NULL,
			   "event loop: %s; exiting, and everything that was started with it",
			   strerror(-r));
		return EXIT_FAILURE;
	}
	close_all(supervisor);
	log_change(KIND_STOPPED, NULL, "stopped");
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
	int r;

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
	r = run(&supervisor);
	log_linger();
	return r;
}
