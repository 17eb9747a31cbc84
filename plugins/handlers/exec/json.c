/* SPDX-License-Identifier: MIT */
/*
 * A strict scanner of JSON (RFC 8259) that builds nothing, a writer of strings, and base64. Called
 * for everything that goes to a program or comes from one; trusts neither side.
 */
#include "json.h"

#include <errno.h>
#include <string.h>

#define DEPTH_MAX 512

static const char *skip_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static const char *skip_string(const char *at, const char *end)
{
	if (at >= end || *at++ != '"')
		return NULL;
	for (; at < end && *at != '"'; at++) {
		if ((unsigned char)*at < ' ')
			return NULL;
		if (*at != '\\')
			continue;
		if (++at >= end || !*at || !strchr("\"\\/bfnrtu", *at))
			return NULL;
		if (*at != 'u')
			continue;
		for (int i = 0; i < 4; i++)
			if (++at >= end || !is_hex(*at))
				return NULL;
	}
	return at < end ? at + 1 : NULL;
}

static const char *skip_digits(const char *at, const char *end)
{
	const char *first = at;

	while (at < end && *at >= '0' && *at <= '9')
		at++;
	return at > first ? at : NULL;
}

static const char *skip_number(const char *at, const char *end)
{
	if (at < end && *at == '-')
		at++;
	if (at < end && *at == '0')
		at++;
	else
		at = skip_digits(at, end);
	if (at && at < end && *at == '.')
		at = skip_digits(at + 1, end);
	if (at && at < end && (*at == 'e' || *at == 'E')) {
		at++;
		if (at < end && (*at == '+' || *at == '-'))
			at++;
		at = skip_digits(at, end);
	}
	return at;
}

static const char *skip_word(const char *at, const char *end)
{
	static const char *const words[] = {"true", "false", "null"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		size_t length = strlen(words[i]);

		if ((size_t)(end - at) >= length && !memcmp(at, words[i], length))
			return at + length;
	}
	return NULL;
}

static const char *skip_value(const char *at, const char *end, int depth);

/* The name of a member and its colon. */
static const char *skip_name(const char *at, const char *end)
{
	at = skip_string(skip_space(at, end), end);
	if (!at)
		return NULL;
	at = skip_space(at, end);
	return at < end && *at == ':' ? at + 1 : NULL;
}

static const char *skip_nested(const char *at, const char *end, int depth)
{
	bool object = *at == '{';
	char close = object ? '}' : ']';

	if (depth >= DEPTH_MAX)
		return NULL;
	at = skip_space(at + 1, end);
	if (at < end && *at == close)
		return at + 1;
	for (;;) {
		if (object)
			at = skip_name(at, end);
		if (at)
			at = skip_value(at, end, depth + 1);
		if (!at)
			return NULL;
		at = skip_space(at, end);
		if (at >= end || (*at != ',' && *at != close))
			return NULL;
		if (*at++ == close)
			return at;
	}
}

static const char *skip_value(const char *at, const char *end, int depth)
{
	at = skip_space(at, end);
	if (at >= end)
		return NULL;
	switch (*at) {
	case '{':
	case '[':
		return skip_nested(at, end, depth);
	case '"':
		return skip_string(at, end);
	case 't':
	case 'f':
	case 'n':
		return skip_word(at, end);
	default:
		return skip_number(at, end);
	}
}

const char *json_skip(const char *at, const char *end)
{
	return skip_value(at, end, 0);
}

bool json_valid(const char *text, size_t size)
{
	const char *end = text + size, *at = json_skip(text, end);

	return at && skip_space(at, end) == end && utf8_valid(text, size);
}

bool json_member(const char *object, size_t size, const char *name, const char **ret_value,
		 size_t *ret_size)
{
	const char *end = object + size, *at = skip_space(object, end), *value, *first;
	size_t length = strlen(name);

	if (at >= end || *at++ != '{')
		return false;
	while ((first = skip_space(at, end)) < end && (at = skip_name(first, end))) {
		value = skip_space(at, end);
		at = json_skip(value, end);
		if (!at)
			return false;
		if (!strncmp(first + 1, name, length) && first[length + 1] == '"') {
			*ret_value = value;
			*ret_size = (size_t)(at - value);
			return true;
		}
		at = skip_space(at, end);
		if (at >= end || *at++ != ',')
			return false;
	}
	return false;
}

/* The length of the character at `at`, 0 when it is none (RFC 3629). */
static size_t utf8_length(const unsigned char *at, size_t left)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t length;

	if (at[0] < 0x80)
		return 1;
	if (at[0] < 0xc2 || at[0] > 0xf4)
		return 0;
	length = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
	if (left < length)
		return 0;
	if (at[0] == 0xe0)
		low = 0xa0;
	else if (at[0] == 0xed)
		high = 0x9f;
	else if (at[0] == 0xf0)
		low = 0x90;
	else if (at[0] == 0xf4)
		high = 0x8f;
	if (at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
		if (at[i] < 0x80 || at[i] > 0xbf)
			return 0;
	return length;
}

bool utf8_valid(const char *text, size_t size)
{
	const unsigned char *at = (const unsigned char *)text;
	size_t length;

	for (size_t i = 0; i < size; i += length) {
		length = at[i] ? utf8_length(at + i, size - i) : 0;
		if (!length)
			return false;
	}
	return true;
}

static void put_escaped(FILE *out, unsigned char c)
{
	static const char names[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
	const char *name = c ? strchr(names, c) : NULL;

	if (name)
		fprintf(out, "\\%c", letters[name - names]);
	else
		fprintf(out, "\\u%04x", c);
}

void json_put_string(FILE *out, const char *text, size_t size)
{
	const unsigned char *at = (const unsigned char *)text;
	size_t from = 0, i = 0;

	putc_unlocked('"', out);
	while (i < size) {
		size_t length = utf8_length(at + i, size - i);

		if (length && at[i] >= ' ' && at[i] != '"' && at[i] != '\\') {
			i += length;
			continue;
		}
		fwrite(text + from, 1, i - from, out);
		if (length)
			put_escaped(out, at[i]);
		else
			fputs("\xef\xbf\xbd", out);
		from = ++i;
	}
	fwrite(text + from, 1, size - from, out);
	putc_unlocked('"', out);
}

void json_put_value(FILE *out, const char *text, size_t size)
{
	size_t from = 0;

	/* Within strings there are no bare newlines: the value is valid. */
	for (size_t i = 0; i < size; i++) {
		if (text[i] != '\n' && text[i] != '\r')
			continue;
		fwrite(text + from, 1, i - from, out);
		putc_unlocked(' ', out);
		from = i + 1;
	}
	fwrite(text + from, 1, size - from, out);
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_put(FILE *out, const void *data, size_t size)
{
	const unsigned char *at = data;

	for (; size; at += 3) {
		size_t n = size < 3 ? size : 3;
		unsigned value = (unsigned)at[0] << 16 | (n > 1 ? (unsigned)at[1] << 8 : 0) |
				 (n > 2 ? at[2] : 0);

		putc_unlocked(digits[value >> 18], out);
		putc_unlocked(digits[value >> 12 & 63], out);
		putc_unlocked(n > 1 ? digits[value >> 6 & 63] : '=', out);
		putc_unlocked(n > 2 ? digits[value & 63] : '=', out);
		size -= n;
	}
}

long base64_get(const char *text, size_t size, unsigned char *out)
{
	unsigned char *at = out;
	size_t padding = 0;

	if (size % 4)
		return -EINVAL;
	while (padding < 2 && size > padding && text[size - padding - 1] == '=')
		padding++;
	for (size_t i = 0; i < size; i += 4) {
		size_t keep = i + 4 == size ? 3 - padding : 3;
		unsigned value = 0;

		for (size_t j = 0; j < 4; j++) {
			const char *digit = text[i + j] ? strchr(digits, text[i + j]) : NULL;

			if (j > keep && text[i + j] == '=')
				digit = digits;
			if (!digit)
				return -EINVAL;
			value = value << 6 | (unsigned)(digit - digits);
		}
		for (size_t j = 0; j < keep; j++)
			*at++ = (unsigned char)(value >> (16 - 8 * j));
	}
	return at - out;
}
