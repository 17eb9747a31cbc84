/* SPDX-License-Identifier: MIT */
/*
 * Reads files of environment variables by systemd's rules: a backslash takes the next character as
 * it is and joins lines; in double quotes it escapes only what the shell would; in single quotes
 * nothing is special; what is quoted can go on over lines. Unlike systemd it takes nothing that is
 * wrong for something else: such a line is refused. Called by the supervisor when workers are
 * about to be started.
 */
#include "system/environment.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "system/config/check.h"

#include "base/banned.h"

#define NAME_SIZE     160 /* more than a name may have */
#define VARIABLES_MAX 4096

struct reader {
	const char *file, *at, *end;
	unsigned line;
	char *out; /* where the next byte of a variable goes; there is room for all */
};

static int wrong(const struct reader *reader, unsigned line, const char *sentence, struct why *why)
{
	return why_set(why, -EINVAL, "%s:%u: %s", reader->file, line, sentence);
}

/* The next character; -1 at the end. */
static int take(struct reader *reader)
{
	if (reader->at == reader->end)
		return -1;
	reader->line += *reader->at == '\n';
	return (unsigned char)*reader->at++;
}

static bool skip(struct reader *reader, const char *what)
{
	while (reader->at < reader->end && *reader->at && strchr(what, *reader->at))
		take(reader);
	return reader->at < reader->end;
}

static void put(struct reader *reader, int c)
{
	*reader->out++ = (char)c;
}

static int read_name(struct reader *reader, struct why *why)
{
	size_t most = (size_t)(reader->end - reader->at), length = 0;
	char name[NAME_SIZE];
	struct why reason;

	while (length < most && !strchr("=\n", reader->at[length]))
		length++;
	if (length == most || reader->at[length] != '=')
		return wrong(reader, reader->line, "no \"=\"; a line is NAME=value", why);
	memcpy(reader->out, reader->at, length + 1);
	reader->at += length + 1;
	while (length && strchr(" \t", reader->out[length - 1]))
		length--;
	reader->out[length] = '\0';
	memcpy(name, reader->out, length < NAME_SIZE ? length + 1 : NAME_SIZE);
	name[NAME_SIZE - 1] = '\0';
	if (config_check_variable(name, &reason) < 0)
		return wrong(reader, reader->line, reason.text, why);
	reader->out += length;
	put(reader, '=');
	return 0;
}

static int read_single(struct reader *reader, struct why *why)
{
	unsigned line = reader->line;
	int c;

	while ((c = take(reader)) != '\'') {
		if (c < 0)
			return wrong(reader, line, "the quote is not closed", why);
		put(reader, c);
	}
	return 0;
}

static int read_double(struct reader *reader, struct why *why)
{
	unsigned line = reader->line;
	int c;

	while ((c = take(reader)) != '"') {
		if (c == '\\') {
			c = take(reader);
			if (c == '\n')
				continue;
			if (c > 0 && !strchr("\"\\`$", c))
				put(reader, '\\');
		}
		if (c < 0)
			return wrong(reader, line, "the quote is not closed", why);
		put(reader, c);
	}
	return 0;
}

/* Blanks at its end are none of it, unless they were escaped. */
static void read_plain(struct reader *reader)
{
	char *end = reader->out;
	int c;

	while (reader->at < reader->end && *reader->at != '\n') {
		bool escaped = *reader->at == '\\';

		c = take(reader);
		if (escaped)
			c = take(reader);
		if (c < 0 || (escaped && c == '\n'))
			continue;
		put(reader, c);
		if (escaped || (c != ' ' && c != '\t' && c != '\r'))
			end = reader->out;
	}
	reader->out = end;
}

/* Quoted parts follow each other, with blanks between them; what is not quoted goes to the line's end. */
static int read_value(struct reader *reader, struct why *why)
{
	int r = 0;

	while (r == 0 && skip(reader, " \t\r") && *reader->at != '\n') {
		char first = *reader->at;

		if (first == '\'' || first == '"')
			take(reader);
		if (first == '\'')
			r = read_single(reader, why);
		else if (first == '"')
			r = read_double(reader, why);
		else
			read_plain(reader);
	}
	put(reader, '\0');
	return r;
}

/* In place of one of the same name. */
static int keep(struct environment *environment, char *variable)
{
	size_t length = strcspn(variable, "=") + 1, i = 0;

	while (i < environment->n && strncmp(environment->variables[i], variable, length))
		i++;
	if (i == VARIABLES_MAX)
		return -E2BIG;
	environment->variables[i] = variable;
	environment->n += i == environment->n;
	return 0;
}

int environment_parse(const char *file, const char *text, size_t size,
		      struct environment *ret_environment, struct why *why)
{
	struct reader reader = {file, text, text + size, 1, NULL};
	struct environment environment = {.size = size + 2};
	int r = 0;

	if (memchr(text, '\0', size))
		return why_set(why, -EINVAL, "%s: it has a byte 0, which no variable can have",
			       file);
	/* A variable has no more bytes than its line, but for the last one, which has no newline. */
	environment.text = calloc(environment.size, 1);
	environment.variables = calloc(VARIABLES_MAX, sizeof *environment.variables);
	if (!environment.text || !environment.variables)
		r = why_set(why, -ENOMEM, "out of memory");
	reader.out = environment.text;
	while (r == 0 && skip(&reader, " \t\r\n")) {
		char *variable = reader.out;

		if (*reader.at == '#' || *reader.at == ';') {
			while (reader.at < reader.end && *reader.at != '\n')
				reader.at++;
			continue;
		}
		r = read_name(&reader, why);
		if (r == 0)
			r = read_value(&reader, why);
		if (r == 0 && keep(&environment, variable) < 0)
			r = wrong(&reader, reader.line, "there are more variables than 4096", why);
	}
	if (r < 0)
		environment_free(&environment);
	else
		*ret_environment = environment;
	return r;
}

void environment_free(struct environment *environment)
{
	if (environment->text)
		explicit_bzero(environment->text, environment->size);
	free(environment->text);
	free(environment->variables);
	*environment = (struct environment){0};
}
