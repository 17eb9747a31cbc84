/* SPDX-License-Identifier: MIT */
/*
 * droverctl: reads its command line by the table in commands.c and runs the command. Everything a
 * command does is asked of droverd over its control socket, but for `try`, which needs no daemon.
 */
#include "ctl/ctl.h"

#include <ctype.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/nearest.h"
#include "ctl/try.h"

#include "base/banned.h"

#define SOCKET_DEFAULT RUNSTATEDIR "/drover/control.sock"

static const char try_summary[] = "run a handler once on one event, without a daemon";

static void print_options(const struct ctl_option *options)
{
	for (; options && options->name; options++) {
		char text[64];

		snprintf(text, sizeof text, "--%s%s%s", options->name, options->value ? " " : "",
			 options->value ? options->value : "");
		printf("  %-22s %s\n", text, options->help);
	}
}

static void print_help(void)
{
	const struct ctl_command *command;

	printf("Usage: droverctl [--socket PATH] [--json] COMMAND …\n"
	       "       droverctl COMMAND --help\n\n"
	       "Looks after droverd, the consumer supervisor.\n\n"
	       "  --socket PATH          its control socket; default $DROVER_SOCKET, else\n"
	       "                         %s\n"
	       "  --json                 print what droverd says, for programs\n"
	       "  --version              of droverctl alone\n\n"
	       "Exit codes: 0 ok, 1 refused, 2 usage, 3 no daemon.\n\n"
	       "Commands:\n",
	       SOCKET_DEFAULT);
	for (size_t i = 0; (command = command_at(i)); i++) {
		char text[64];

		snprintf(text, sizeof text, "%s %s", command->name, command->operands);
		printf("  %-22s %s\n", text, command->summary);
	}
	printf("  %-22s %s\n", "try FILE --event F", try_summary);
}

static void print_command_help(const struct ctl_command *command)
{
	printf("Usage: droverctl %s%s%s%s\n\n%c%s.\n", command->name, *command->operands ? " " : "",
	       command->operands, command->options ? " [OPTIONS]" : "",
	       toupper((unsigned char)*command->summary), command->summary + 1);
	if (command->more)
		printf("%s\n", command->more);
	if (command->options)
		printf("\n");
	print_options(command->options);
}

__attribute__((format(printf, 1, 2))) static int usage(const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	return answer_usage(text);
}

static int unknown_command(const char *name)
{
	const struct ctl_command *command;
	struct nearest nearest = {0};

	nearest_consider(&nearest, name, "try");
	for (size_t i = 0; (command = command_at(i)); i++)
		nearest_consider(&nearest, name, command->name);
	if (nearest.name)
		return usage("there is no command \"%s\"; did you mean %s? (--help lists all)",
			     name, nearest.name);
	return usage("there is no command \"%s\"; --help lists all", name);
}

static int unknown_option(const struct ctl_command *command, const char *name)
{
	const struct ctl_option *option = command->options;
	struct nearest nearest = {0};

	for (; option && option->name; option++)
		nearest_consider(&nearest, name, option->name);
	if (nearest.name)
		return usage("%s has no option --%s; did you mean --%s?", command->name, name,
			     nearest.name);
	return usage("%s has no option --%s; %s --help lists its options", command->name, name,
		     command->name);
}

static const struct ctl_option *find_option(const struct ctl_command *command, const char *name)
{
	const struct ctl_option *option = command->options;

	while (option && option->name && strcmp(option->name, name))
		option++;
	return option && option->name ? option : NULL;
}

/* Options that may stand before and after the command. 1: it was one. 0: not. */
static int read_global(struct ctl *ctl, char **argv, int *i, int *ret_exit)
{
	const char *argument = argv[*i];

	*ret_exit = -1;
	if (!strcmp(argument, "--json")) {
		ctl->json = true;
	} else if (!strncmp(argument, "--socket=", 9)) {
		ctl->socket = argument + 9;
	} else if (!strcmp(argument, "--socket")) {
		if (!argv[*i + 1])
			*ret_exit = usage("--socket needs a path");
		else
			ctl->socket = argv[++*i];
	} else {
		return 0;
	}
	return 1;
}

/* One option of the command, "--name value" or "--name=value". */
static int read_option(struct call *call, char **argv, int *i)
{
	const char *argument = argv[*i] + 2, *value = strchr(argument, '=');
	const struct ctl_option *option;
	char name[64];

	snprintf(name, sizeof name, "%.*s", (int)(value ? value - argument : 63), argument);
	option = find_option(call->command, name);
	if (!option)
		return unknown_option(call->command, name);
	if (!option->value && value)
		return usage("%s: --%s has no value", call->command->name, name);
	if (option->value && !value && !argv[*i + 1])
		return usage("%s: --%s needs a value: %s", call->command->name, name,
			     option->value);
	if (call->n_options == CALL_OPTIONS_MAX)
		return usage("%s: more than %d options", call->command->name, CALL_OPTIONS_MAX);
	call->options[call->n_options].option = option;
	call->options[call->n_options++].value = !option->value ? ""
						 : value        ? value + 1
								: argv[++*i];
	return -1;
}

/* The command's part of the line. An exit code, or -1: it is to be run. */
static int read_call(struct ctl *ctl, struct call *call, char **argv)
{
	const struct ctl_command *command = call->command;
	bool only_operands = false;
	int r;

	for (int i = 0; argv[i]; i++) {
		if (!only_operands && read_global(ctl, argv, &i, &r)) {
			if (r >= 0)
				return r;
		} else if (!only_operands && !strcmp(argv[i], "--")) {
			only_operands = true;
		} else if (!only_operands &&
			   (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))) {
			print_command_help(command);
			return CTL_OK;
		} else if (!only_operands && !strncmp(argv[i], "--", 2)) {
			r = read_option(call, argv, &i);
			if (r >= 0)
				return r;
		} else if (call->n_operands == command->most) {
			return usage("%s: \"%s\" is too much; usage: droverctl %s %s",
				     command->name, argv[i], command->name, command->operands);
		} else {
			call->operands[call->n_operands++] = argv[i];
		}
	}
	if (call->n_operands < command->least)
		return usage("usage: droverctl %s %s; %s --help says more", command->name,
			     command->operands, command->name);
	return -1;
}

static void look_at_terminal(struct ctl *ctl)
{
	const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");
	struct winsize size;

	if (isatty(STDOUT_FILENO) != 1)
		return;
	ctl->colour = !(no_colour && *no_colour) && !(terminal && !strcmp(terminal, "dumb"));
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
		ctl->width = size.ws_col;
}

static int run(struct ctl *ctl, const char *name, int argc, char **argv)
{
	struct call call = {.command = command_find(name)};
	struct why why = {0};
	int r;

	if (!strcmp(name, "try"))
		return try_command(argc, argv, ctl->json);
	if (!call.command)
		return unknown_command(name);
	r = read_call(ctl, &call, argv + 1);
	if (r >= 0)
		return r;
	look_at_terminal(ctl);
	r = client_open(ctl->socket, &ctl->client, &why);
	if (r < 0)
		return answer_failed(r, &why);
	r = call.command->run(ctl, &call);
	client_close(ctl->client);
	return r;
}

int main(int argc, char **argv)
{
	const char *socket = getenv("DROVER_SOCKET");
	struct ctl ctl = {.socket = socket && *socket ? socket : SOCKET_DEFAULT};
	int r, i;

	log_open("droverctl");
	signal(SIGPIPE, SIG_IGN);
	for (i = 1; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_help();
			return CTL_OK;
		}
		if (!strcmp(argv[i], "--version")) {
			printf("droverctl %s\n", PACKAGE_VERSION);
			return CTL_OK;
		}
		if (!read_global(&ctl, argv, &i, &r))
			return usage("there is no option %s; --help lists all", argv[i]);
		if (r >= 0)
			return r;
	}
	if (i >= argc) {
		print_help();
		return CTL_USAGE;
	}
	if (!strcmp(argv[i], "help") && i + 1 == argc) {
		print_help();
		return CTL_OK;
	}
	if (!strcmp(argv[i], "help")) {
		char ask[] = "--help", *help[] = {argv[i + 1], ask, NULL};

		return run(&ctl, argv[i + 1], 2, help);
	}
	return run(&ctl, argv[i], argc - i, argv + i);
}
