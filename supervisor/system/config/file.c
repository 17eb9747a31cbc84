/* SPDX-License-Identifier: MIT */
/*
 * Gets a file's text into libconfig's tree. libconfig 1.5 cuts integers to 32 bits without a word,
 * follows @include into anything that can be opened, and counts on a stack how deep groups go; so
 * the text is looked over first, by a scan that knows strings, comments, brackets and numbers.
 * What settings mean is not its business. Called by config_load.
 */
#include "system/config/file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/units.h"

#include "base/banned.h"

static int read_all(int fd, struct buf *text)
{
	ssize_t n;

	/* One byte more than allowed tells that a file grew while it was read. */
	do {
		void *room = buf_reserve(text, 16384);

		if (!room)
			return -ENOMEM;
		n = read(fd, room, 16384);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text->end += (size_t)n;
	} while (n && buf_size(text) <= CONFIG_FILE_BYTES_MAX);
	return buf_size(text) > CONFIG_FILE_BYTES_MAX ? -EFBIG : 0;
}

/* Not blocking: a FIFO in its place must not keep droverd from starting. */
static int read_file(const char *file, bool required, struct buf *text,
		     struct config_errors *errors)
{
	struct config_place place = {.file = file};
	char most[UNITS_TEXT_MAX];
	struct stat st;
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r = 0;

	if (fd < 0 && errno == ENOENT && !required)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		config_error_add(errors, &place, "cannot be read: %s", strerror(-r));
	} else if (!S_ISREG(st.st_mode)) {
		r = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
		config_error_add(errors, &place, "is %s; a file is needed",
				 S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
	} else {
		r = read_all(fd, text);
		if (r == -EFBIG)
			config_error_add(errors, &place, "is too large; %s at most are read",
					 units_format_size(CONFIG_FILE_BYTES_MAX, most,
							   sizeof most));
		else if (r < 0)
			config_error_add(errors, &place, "cannot be read: %s", strerror(-r));
	}
	if (fd >= 0)
		close(fd);
	return r;
}

struct scan {
	const char *at;
	unsigned line, depth;
	const char *file;
	struct config_errors *errors;
};

static int refuse(struct scan *scan, unsigned line, const char *sentence)
{
	struct config_place place = {.file = scan->file, .line = line};

	config_error_add(scan->errors, &place, "%s", sentence);
	return -EINVAL;
}

static void skip_line(struct scan *scan)
{
	scan->at += strcspn(scan->at, "\n");
}

static int skip_comment(struct scan *scan)
{
	unsigned line = scan->line;

	for (scan->at += 2; *scan->at && strncmp(scan->at, "*/", 2); scan->at++)
		scan->line += *scan->at == '\n';
	if (!*scan->at)
		return refuse(scan, line, "the comment that begins here does not end");
	scan->at += 2;
	return 0;
}

static int skip_string(struct scan *scan)
{
	unsigned line = scan->line;

	for (scan->at++; *scan->at && *scan->at != '"'; scan->at++) {
		if (*scan->at == '\\' && scan->at[1])
			scan->at++;
		scan->line += *scan->at == '\n';
	}
	if (!*scan->at)
		return refuse(scan, line, "the text that begins here does not end");
	scan->at++;
	return 0;
}

static void skip_word(struct scan *scan)
{
	while (isalnum((unsigned char)*scan->at) || (*scan->at && strchr("_-*.", *scan->at)))
		scan->at++;
}

static int scan_number(struct scan *scan)
{
	const char *start = scan->at;
	struct why why;
	bool hex = start[0] == '0' && (start[1] == 'x' || start[1] == 'X');
	long long value;
	char *end;

	errno = 0;
	value = strtoll(start, &end, hex ? 16 : 10);
	if (!hex && (*end == '.' || *end == 'e' || *end == 'E')) {
		strtod(start, &end);
		scan->at = end;
		return 0;
	}
	scan->at = end;
	skip_word(scan);
	if (!errno && (*end == 'L' || value <= INT_MAX))
		return 0;
	why_set(&why, 0,
		errno ? "the number %.*s is too large"
		      : "the number %.*s does not fit in 32 bits; write an L after it",
		(int)(end - start), start);
	return refuse(scan, scan->line, why.text);
}

static int scan_open(struct scan *scan)
{
	struct why why;

	scan->at++;
	if (++scan->depth <= CONFIG_FILE_DEPTH_MAX)
		return 0;
	why_set(&why, 0, "groups and lists are nested too deeply; %d levels are allowed",
		CONFIG_FILE_DEPTH_MAX);
	return refuse(scan, scan->line, why.text);
}

static int scan_include(struct scan *scan)
{
	skip_line(scan);
	return refuse(scan, scan->line,
		      "@include is not supported; a file in the directory conf.d beside "
		      "drover.conf is read by itself when its name ends with .conf");
}

/* One token. The first error of nesting ends the scan, as more would follow from it. */
static int scan_token(struct scan *scan)
{
	char c = *scan->at;

	if (c == '#' || !strncmp(scan->at, "//", 2))
		skip_line(scan);
	else if (!strncmp(scan->at, "/*", 2))
		return skip_comment(scan);
	else if (c == '"')
		return skip_string(scan);
	else if (strchr("{([", c))
		return scan_open(scan);
	else if (isdigit((unsigned char)c))
		return scan_number(scan);
	else if (!strncmp(scan->at, "@include", 8))
		return scan_include(scan);
	else if (isalpha((unsigned char)c) || c == '*' || c == '_')
		skip_word(scan);
	else {
		scan->depth -= scan->depth && strchr("})]", c);
		scan->line += c == '\n';
		scan->at++;
	}
	return 0;
}

static int scan_text(struct scan *scan)
{
	int r = 0;

	while (*scan->at && scan->depth <= CONFIG_FILE_DEPTH_MAX)
		if (scan_token(scan) < 0)
			r = -EINVAL;
	return r;
}

/* What an editor does not write: then it is not a text, and no parser's opinion helps. */
static int scan_bytes(const char *text, size_t size, const char *file, struct config_errors *errors)
{
	struct config_place place = {.file = file, .line = 1};

	for (size_t i = 0; i < size; i++) {
		unsigned char c = (unsigned char)text[i];

		place.line += c == '\n';
		if ((c >= 0x20 && c != 0x7f) || (c >= '\t' && c <= '\r'))
			continue;
		config_error_add(errors, &place, "byte 0x%02x: this is not a text file", c);
		return -EINVAL;
	}
	return 0;
}

static int parse_text(const char *text, const char *file, config_t *ret_tree,
		      struct config_errors *errors)
{
	struct config_place place = {.file = file};
	const char *said;

	config_init(ret_tree);
	if (config_read_string(ret_tree, text))
		return 0;
	said = config_error_text(ret_tree);
	place.line = (unsigned)config_error_line(ret_tree);
	config_error_add(errors, &place, "%s; %s", said,
			 strcmp(said, "duplicate setting name")
				 ? "settings are written name = value; with texts in double quotes"
				 : "a key may stand in its group once");
	config_destroy(ret_tree);
	return -EINVAL;
}

int config_file_parse(const char *file, bool required, config_t *ret_tree,
		      struct config_errors *errors)
{
	struct scan scan = {.line = 1, .file = file, .errors = errors};
	struct buf bytes = {0};
	int r = read_file(file, required, &bytes, errors);

	if (r == 0) {
		scan.at = buf_text(&bytes);
		r = bytes.failed ? -ENOMEM : 0;
	}
	if (r == 0)
		r = scan_bytes(buf_text(&bytes), buf_size(&bytes), file, errors);
	if (r == 0)
		r = scan_text(&scan);
	if (r == 0)
		r = parse_text(buf_text(&bytes), file, ret_tree, errors);
	if (r == -ENOMEM)
		errors->failed = true;
	buf_free(&bytes);
	return r;
}
