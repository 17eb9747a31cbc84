/* SPDX-License-Identifier: MIT */
/*
 * Reads JSON in one pass over the text. A value is accepted whole before anybody looks into it, so
 * the functions that walk an accepted value need no error path. Decides nothing about meaning;
 * called by errands and the dispatcher, with bytes from anywhere: this parser is a fuzz target.
 */
#include "system/json.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

struct cursor {
	const char *start, *at, *end;
	int depth;
	const char *wrong; /* what, at `at`; NULL: nothing */
};

static bool fail(struct cursor *c, const char *wrong)
{
	c->wrong = wrong;
	return false;
}

static void skip_blanks(struct cursor *c)
{
	while (c->at < c->end &&
	       (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
		c->at++;
}

static bool is_digit(const struct cursor *c)
{
	return c->at < c->end && *c->at >= '0' && *c->at <= '9';
}

/* The length of the UTF-8 character at `at`; 0: there is none (RFC 3629). */
static size_t utf8_length(const unsigned char *at, size_t left)
{
	static const struct {
		unsigned char low, high;               /* of the first byte */
		unsigned char second_low, second_high; /* of the second; the others are 80..BF */
		size_t length;
	} rows[] = {
		{0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2},
		{0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
		{0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
		{0xf4, 0xf4, 0x80, 0x8f, 4},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (at[0] < rows[i].low || at[0] > rows[i].high)
			continue;
		if (left < rows[i].length)
			return 0;
		if (rows[i].length > 1 &&
		    (at[1] < rows[i].second_low || at[1] > rows[i].second_high))
			return 0;
		for (size_t j = 2; j < rows[i].length; j++)
			if ((at[j] & 0xc0) != 0x80)
				return 0;
		return rows[i].length;
	}
	return 0;
}

bool json_is_utf8(const void *text, size_t size)
{
	const unsigned char *at = text;

	while (size) {
		size_t length = utf8_length(at, size);

		if (!length)
			return false;
		at += length;
		size -= length;
	}
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits after \u; -1: they are not there. */
static long hex_unit(const char *at, const char *end)
{
	long unit = 0;

	if (end - at < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		int digit = hex_digit(at[i]);

		if (digit < 0)
			return -1;
		unit = unit << 4 | digit;
	}
	return unit;
}

static bool is_high(long unit)
{
	return unit >= 0xd800 && unit <= 0xdbff;
}

static bool is_low(long unit)
{
	return unit >= 0xdc00 && unit <= 0xdfff;
}

static bool take_escape(struct cursor *c)
{
	long unit;

	c->at++;
	if (c->at == c->end)
		return fail(c, "a string does not end");
	if (*c->at != 'u') {
		if (!strchr("\"\\/bfnrt", *c->at) || !*c->at)
			return fail(c, "an unknown escape in a string");
		c->at++;
		return true;
	}
	unit = hex_unit(c->at + 1, c->end);
	if (unit < 0)
		return fail(c, "\\u without four hexadecimal digits");
	if (is_low(unit))
		return fail(c, "half a surrogate pair");
	if (is_high(unit)) {
		if (c->end - c->at < 11 || c->at[5] != '\\' || c->at[6] != 'u' ||
		    !is_low(hex_unit(c->at + 7, c->end)))
			return fail(c, "half a surrogate pair");
		c->at += 6;
	}
	c->at += 5;
	return true;
}

static bool take_string(struct cursor *c)
{
	c->at++;
	while (c->at < c->end && *c->at != '"') {
		unsigned char byte = (unsigned char)*c->at;

		if (byte == '\\') {
			if (!take_escape(c))
				return false;
		} else if (byte < 0x20) {
			return fail(c, "a control character in a string");
		} else if (byte < 0x80) {
			c->at++;
		} else {
			size_t length =
				utf8_length((const unsigned char *)c->at, (size_t)(c->end - c->at));

			if (!length)
				return fail(c, "a string that is not UTF-8");
			c->at += length;
		}
	}
	if (c->at == c->end)
		return fail(c, "a string does not end");
	c->at++;
	return true;
}

static bool take_digits(struct cursor *c)
{
	if (!is_digit(c))
		return fail(c, "a number without digits");
	while (is_digit(c))
		c->at++;
	return true;
}

static bool take_number(struct cursor *c)
{
	if (*c->at == '-')
		c->at++;
	if (c->at < c->end && *c->at == '0') {
		c->at++;
		if (is_digit(c))
			return fail(c, "a number that begins with 0");
	} else if (!take_digits(c)) {
		return false;
	}
	if (c->at < c->end && *c->at == '.') {
		c->at++;
		if (!take_digits(c))
			return false;
	}
	if (c->at < c->end && (*c->at == 'e' || *c->at == 'E')) {
		c->at++;
		if (c->at < c->end && (*c->at == '+' || *c->at == '-'))
			c->at++;
		return take_digits(c);
	}
	return true;
}

static bool take_word(struct cursor *c, const char *word)
{
	size_t length = strlen(word);

	if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0)
		return fail(c, "no value");
	c->at += length;
	return true;
}

static bool take_value(struct cursor *c, struct json *ret_value);

static bool take_member(struct cursor *c, struct json *ret_key, struct json *ret_value)
{
	const char *start = c->at;

	if (c->at == c->end || *c->at != '"')
		return fail(c, "no name in quotes");
	if (!take_string(c))
		return false;
	*ret_key = (struct json){JSON_STRING, start, (size_t)(c->at - start)};
	skip_blanks(c);
	if (c->at == c->end || *c->at != ':')
		return fail(c, "no colon after a name");
	c->at++;
	skip_blanks(c);
	return take_value(c, ret_value);
}

/* The inside of an array or object, its first bracket taken. */
static bool take_elements(struct cursor *c, char close)
{
	struct json key, value;

	if (++c->depth > JSON_DEPTH_MAX)
		return fail(c, "too many brackets inside each other");
	skip_blanks(c);
	if (c->at < c->end && *c->at == close)
		goto out;
	for (;;) {
		if (close == '}' ? !take_member(c, &key, &value) : !take_value(c, &value))
			return false;
		skip_blanks(c);
		if (c->at < c->end && *c->at == close)
			break;
		if (c->at == c->end || *c->at != ',')
			return fail(c, close == '}' ? "neither , nor } after a member"
						    : "neither , nor ] after an element");
		c->at++;
		skip_blanks(c);
	}
out:
	c->depth--;
	c->at++;
	return true;
}

static bool take_value(struct cursor *c, struct json *ret_value)
{
	struct json value = {.text = c->at};
	bool good;

	if (c->at == c->end)
		return fail(c, "the end where a value should be");
	switch (*c->at) {
	case '{':
	case '[':
		value.type = *c->at == '{' ? JSON_OBJECT : JSON_ARRAY;
		c->at++;
		good = take_elements(c, value.type == JSON_OBJECT ? '}' : ']');
		break;
	case '"':
		value.type = JSON_STRING;
		good = take_string(c);
		break;
	case 't':
		value.type = JSON_TRUE;
		good = take_word(c, "true");
		break;
	case 'f':
		value.type = JSON_FALSE;
		good = take_word(c, "false");
		break;
	case 'n':
		value.type = JSON_NULL;
		good = take_word(c, "null");
		break;
	default:
		if (*c->at != '-' && !is_digit(c))
			return fail(c, "no value");
		value.type = JSON_NUMBER;
		good = take_number(c);
	}
	value.size = (size_t)(c->at - value.text);
	*ret_value = value;
	return good;
}

int json_read(const void *text, size_t size, struct json *ret_value, struct why *why)
{
	const char *start = size ? text : "";
	struct cursor c = {.start = start, .at = start, .end = start + size};
	struct json value = {0};

	skip_blanks(&c);
	if (take_value(&c, &value)) {
		skip_blanks(&c);
		if (c.at < c.end)
			fail(&c, "more after the value");
	}
	if (c.wrong)
		return why_set(why, -EINVAL, "not JSON: %s at byte %zu", c.wrong,
			       (size_t)(c.at - c.start) + 1);
	*ret_value = value;
	return 0;
}

bool json_next(const struct json *object, size_t *position, struct json *ret_key,
	       struct json *ret_value)
{
	struct cursor c = {.start = object->text};
	bool more;

	/* What is no object may have no text either. */
	if (object->type != JSON_OBJECT)
		return false;
	c.at = c.start + (*position ? *position : 1);
	c.end = c.start + object->size;
	skip_blanks(&c);
	if (c.at < c.end && *c.at == ',') {
		c.at++;
		skip_blanks(&c);
	}
	more = take_member(&c, ret_key, ret_value);
	*position = (size_t)(c.at - c.start);
	return more;
}

bool json_item(const struct json *array, size_t *position, struct json *ret_item)
{
	struct cursor c = {.start = array->text};
	bool more;

	if (array->type != JSON_ARRAY)
		return false;
	c.at = c.start + (*position ? *position : 1);
	c.end = c.start + array->size;
	skip_blanks(&c);
	if (c.at < c.end && *c.at == ',') {
		c.at++;
		skip_blanks(&c);
	}
	more = take_value(&c, ret_item);
	*position = (size_t)(c.at - c.start);
	return more;
}

size_t json_count(const struct json *value)
{
	struct json key, item;
	size_t position = 0, n = 0;

	if (value->type == JSON_ARRAY)
		while (json_item(value, &position, &item))
			n++;
	else
		while (json_next(value, &position, &key, &item))
			n++;
	return n;
}

bool json_find(const struct json *value, const char *name, struct json *ret_value)
{
	struct json key, member;
	size_t position = 0;

	while (json_next(value, &position, &key, &member)) {
		if (!json_is(&key, name))
			continue;
		*ret_value = member;
		return true;
	}
	return false;
}

static void append_utf8(struct buf *out, long point)
{
	unsigned char bytes[4];
	size_t n;

	if (point < 0x80) {
		bytes[0] = (unsigned char)point;
		n = 1;
	} else if (point < 0x800) {
		bytes[0] = (unsigned char)(0xc0 | point >> 6);
		n = 2;
	} else if (point < 0x10000) {
		bytes[0] = (unsigned char)(0xe0 | point >> 12);
		n = 3;
	} else {
		bytes[0] = (unsigned char)(0xf0 | point >> 18);
		n = 4;
	}
	for (size_t i = n - 1; i > 0; i--, point >>= 6)
		bytes[i] = (unsigned char)(0x80 | (point & 0x3f));
	buf_append(out, bytes, n);
}

/* Appends what the escape at *at says and moves on behind it. */
static void append_escape(struct buf *out, const char **at, const char *end)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	char letter = (*at)[1];
	long point;

	*at += 2;
	if (letter != 'u') {
		buf_append(out, &to[strchr(from, letter) - from], 1);
		return;
	}
	point = hex_unit(*at, end);
	*at += 4;
	if (is_high(point)) {
		point = 0x10000 + ((point - 0xd800) << 10) + (hex_unit(*at + 2, end) - 0xdc00);
		*at += 6;
	}
	append_utf8(out, point);
}

void json_append_string(struct buf *out, const struct json *string)
{
	const char *at = string->text + 1, *end = string->text + string->size - 1;

	while (at < end) {
		const char *plain = memchr(at, '\\', (size_t)(end - at));

		buf_append(out, at, (size_t)((plain ? plain : end) - at));
		at = plain ? plain : end;
		if (plain)
			append_escape(out, &at, end);
	}
}

bool json_is(const struct json *string, const char *text)
{
	struct buf said = {0};
	size_t length = strlen(text);
	bool same;

	if (string->type != JSON_STRING)
		return false;
	if (!memchr(string->text, '\\', string->size))
		return string->size == length + 2 && !memcmp(string->text + 1, text, length);
	json_append_string(&said, string);
	same = buf_size(&said) == length && !memcmp(buf_front(&said), text, length);
	buf_free(&said);
	return same;
}

bool json_integer(const struct json *value, int64_t low, int64_t high, int64_t *ret_number)
{
	const char *at = value->text, *end = value->text + value->size;
	int64_t number = 0;
	bool negative;

	if (value->type != JSON_NUMBER)
		return false;
	negative = *at == '-';
	for (at += negative; at < end; at++) {
		if (*at < '0' || *at > '9' || __builtin_mul_overflow(number, 10, &number) ||
		    __builtin_sub_overflow(number, *at - '0', &number))
			return false;
	}
	/* Summed up below zero, where there is room for one more. */
	if (!negative && __builtin_sub_overflow(0, number, &number))
		return false;
	if (number < low || number > high)
		return false;
	*ret_number = number;
	return true;
}

/* Whether it is a text as json_copy takes it. */
static bool is_plain(struct buf *text, size_t most)
{
	if (!buf_size(text) || buf_size(text) > most)
		return false;
	for (size_t i = 0; i < buf_size(text); i++)
		if (buf_front(text)[i] < 0x20 || buf_front(text)[i] == 0x7f)
			return false;
	return true;
}

int json_copy(const struct json *string, size_t most, char **ret_text, struct why *why)
{
	struct buf text = {0};
	char *copy = NULL;
	bool plain = false;

	/* Six bytes of escape at most for one of text. */
	if (string->type == JSON_STRING && string->size <= 6 * most + 2) {
		json_append_string(&text, string);
		plain = is_plain(&text, most);
		if (plain)
			copy = strndup((const char *)buf_front(&text), buf_size(&text));
	}
	plain |= text.failed;
	buf_free(&text);
	if (!plain)
		return why_set(why, -EINVAL, "no text of 1 to %zu printable bytes", most);
	if (!copy)
		return why_set(why, -ENOMEM, "no memory");
	*ret_text = copy;
	return 0;
}

void *json_rows(const struct json *value, enum json_type type, size_t size, int *ret_error,
		struct why *why)
{
	void *rows;

	if (value->type != type) {
		*ret_error = why_set(why, -EINVAL, "no JSON %s",
				     type == JSON_OBJECT ? "object" : "array");
		return NULL;
	}
	rows = calloc(json_count(value) + 1, size);
	if (!rows)
		*ret_error = why_set(why, -ENOMEM, "no memory");
	return rows;
}

static const struct json_member *row_of(const struct json *key, const struct json_member *rows,
					size_t n_rows)
{
	for (size_t i = 0; i < n_rows; i++)
		if (json_is(key, rows[i].name))
			return &rows[i];
	return NULL;
}

int json_members(const struct json *object, const struct json_member *rows, size_t n_rows,
		 void *into, struct why *why)
{
	struct json key, value;
	size_t position = 0;
	uint32_t seen = 0;
	int r;

	if (object->type != JSON_OBJECT)
		return why_set(why, -EINVAL, "no JSON object");
	while (json_next(object, &position, &key, &value)) {
		const struct json_member *row = row_of(&key, rows, n_rows);

		if (!row)
			continue;
		if (seen & UINT32_C(1) << (row - rows))
			return why_set(why, -EINVAL, "\"%s\" is there twice", row->name);
		seen |= UINT32_C(1) << (row - rows);
		r = row->read(&value, into, why);
		if (r < 0)
			return why_prefix(why, r, "\"%s\"", row->name);
	}
	for (size_t i = 0; i < n_rows; i++)
		if (rows[i].required && !(seen & UINT32_C(1) << i))
			return why_set(why, -EINVAL, "\"%s\" is missing", rows[i].name);
	return 0;
}

void json_append_quoted(struct buf *out, const void *text, size_t size)
{
	static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
	const unsigned char *at = text;

	buf_append(out, "\"", 1);
	while (size) {
		size_t length = utf8_length(at, size), plain = 0;

		while (plain < size && at[plain] >= 0x20 && at[plain] < 0x7f && at[plain] != '"' &&
		       at[plain] != '\\')
			plain++;
		if (plain) {
			buf_append(out, at, plain);
			length = plain;
		} else if (!length) {
			buf_append_text(out, "\xef\xbf\xbd");
			length = 1;
		} else if (*at && strchr(from, *at)) {
			buf_printf(out, "\\%c", to[strchr(from, *at) - from]);
		} else if (*at < 0x20 || *at == 0x7f) {
			buf_printf(out, "\\u%04x", *at);
		} else {
			buf_append(out, at, length);
		}
		at += length;
		size -= length;
	}
	buf_append(out, "\"", 1);
}
