/* SPDX-License-Identifier: MIT */
/*
 * What a single text of the configuration may be. Looks at nothing but the text, and at the
 * machine's users and groups where one is named. Called through the rows.
 */
#include "system/config/check.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <string.h>
#include <sys/un.h>

#include "system/config.h"

#include "base/banned.h"

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define DIGITS  "0123456789"

#define TYPE_NAME_MAX 128
#define LABEL_MAX     63
#define VARIABLE_MAX  128
#define ADDRESS_MAX   127
#define QUEUE_MAX     255 /* bytes; AMQP's bound, the tightest of the brokers */

/* The socket's own name, and the end of the text. */
#define SOCKET_DIR_MAX (sizeof((struct sockaddr_un){0}.sun_path) - sizeof "/control.sock")

/* The length of the UTF-8 character at `text`, 0: it is none. */
static size_t character(const unsigned char *text)
{
	size_t length = *text < 0x80 ? 1 : *text < 0xe0 ? 2 : *text < 0xf0 ? 3 : 4;
	unsigned long code = length == 1 ? *text : *text & (0x7fu >> length);
	static const unsigned long lowest[] = {0, 0, 0x80, 0x800, 0x10000};

	if ((*text >= 0x80 && *text < 0xc2) || *text > 0xf4)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (text[i] & 0x3f);
	}
	return code < lowest[length] || code > 0x10ffff || (code & ~0x7fful) == 0xd800 ? 0 : length;
}

int config_check_text(const char *text, struct why *why)
{
	for (size_t length; *text; text += length) {
		unsigned char c = (unsigned char)*text;

		length = character((const unsigned char *)text);
		if (!length)
			return why_set(why, -EINVAL, "byte 0x%02x is not UTF-8", c);
		if ((c < 0x20 && c != '\t' && c != '\n') || c == 0x7f)
			return why_set(why, -EINVAL,
				       "control character 0x%02x; tab and newline are allowed", c);
	}
	return 0;
}

bool config_type_name_valid(const char *name)
{
	size_t length = strlen(name);

	return length && length <= TYPE_NAME_MAX && *name != '.' &&
	       strspn(name, LETTERS DIGITS "._-") == length;
}

int config_check_name(const char *text, struct why *why)
{
	if (config_type_name_valid(text))
		return 0;
	return why_set(why, -EINVAL,
		       "not a name; 1 to %d letters, digits, \".\", \"_\" and \"-\" are allowed, "
		       "with no dot first",
		       TYPE_NAME_MAX);
}

int config_check_label(const char *text, struct why *why)
{
	size_t length = strlen(text);

	if (length && length <= LABEL_MAX && strspn(text, LETTERS DIGITS "-") == length &&
	    *text != '-' && text[length - 1] != '-')
		return 0;
	return why_set(why, -EINVAL,
		       "not a service's name; 1 to %d letters, digits and inner \"-\" are allowed",
		       LABEL_MAX);
}

int config_check_plugin(const char *text, struct why *why)
{
	if (*text && !text[strspn(text, "abcdefghijklmnopqrstuvwxyz" DIGITS "_-")])
		return 0;
	return why_set(why, -EINVAL,
		       "not a plugin's name; lower-case letters, digits, \"_\" and \"-\" are "
		       "allowed");
}

int config_check_path(const char *text, struct why *why)
{
	if (*text == '/')
		return 0;
	return why_set(why, -EINVAL, "not an absolute path; one that begins with \"/\" is needed");
}

int config_check_socket_dir(const char *text, struct why *why)
{
	int r = config_check_path(text, why);

	if (r < 0)
		return r;
	if (strlen(text) > SOCKET_DIR_MAX)
		return why_set(why, -EINVAL,
			       "too long by %zu bytes; %zu are allowed, for the path of the socket "
			       "in it is bounded",
			       strlen(text) - SOCKET_DIR_MAX, SOCKET_DIR_MAX);
	return 0;
}

int config_check_handler_path(const char *text, struct why *why)
{
	if (text[strcspn(text, " \t\n")])
		return why_set(why, -EINVAL,
			       "a text alone names one file; write a command line as a list: "
			       "[ \"/usr/bin/php\", \"/srv/handler.php\" ]");
	return config_check_path(text, why);
}

int config_check_user(const char *text, struct why *why)
{
	if (*text && getpwnam(text))
		return 0;
	return why_set(why, -EINVAL, "no such user on this machine; create it or name another");
}

int config_check_group(const char *text, struct why *why)
{
	if (*text && getgrnam(text))
		return 0;
	return why_set(why, -EINVAL, "no such group on this machine; create it or name another");
}

int config_check_address(const char *text, struct why *why)
{
	size_t length = strlen(text);

	if (length && length <= ADDRESS_MAX && !text[strspn(text, LETTERS DIGITS "._-:")])
		return 0;
	return why_set(why, -EINVAL,
		       "not the name or address of a host; one like \"10.0.0.1\", "
		       "\"2001:db8::1\" or \"web1.example.net\" is needed");
}

int config_check_filled(const char *text, struct why *why)
{
	return *text ? 0
		     : why_set(why, -EINVAL, "empty; a text of at least one character is needed");
}

int config_check_queue(const char *text, struct why *why)
{
	size_t length = strlen(text);

	if (length && length <= QUEUE_MAX && !text[strcspn(text, "\t\n")])
		return 0;
	return why_set(why, -EINVAL, "not a queue's name; 1 to %d bytes in one line are allowed",
		       QUEUE_MAX);
}

int config_check_media_type(const char *text, struct why *why)
{
	const char *slash = strchr(text, '/');

	if (slash && slash != text && slash[1] && !text[strcspn(text, " \t\n")])
		return 0;
	return why_set(why, -EINVAL, "not a media type like \"application/json\"");
}

int config_check_variable(const char *text, struct why *why)
{
	size_t length = strspn(text, LETTERS DIGITS "_");

	if (length && length <= VARIABLE_MAX && !text[length] && !strchr(DIGITS, *text))
		return 0;
	return why_set(why, -EINVAL,
		       "not a variable's name; 1 to %d letters, digits and \"_\" are allowed, with "
		       "no digit first",
		       VARIABLE_MAX);
}
