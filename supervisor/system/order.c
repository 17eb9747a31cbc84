/* SPDX-License-Identifier: MIT */
/*
 * Writes and reads a book of orders. Decides what of a text is an order and what is refused; the
 * meaning of an order, and whether it has run out, is droverd's. Called by roles/droverd/orders.c,
 * with bytes from a registry where others can write: this parser is a fuzz target.
 */
#include "system/order.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sorted.h"
#include "system/config.h"
#include "system/json.h"

#include "base/banned.h"

/* Writing. */

/* The fields that all orders have; the object is open, and `first` when nothing is in it yet. */
static void add_common(struct buf *out, bool first, int64_t until_ms, const struct signature *by)
{
	if (until_ms)
		buf_printf(out, "%s\"until_ms\":%" PRId64, first ? "" : ",", until_ms);
	buf_append_text(out, first && !until_ms ? "\"author\":" : ",\"author\":");
	json_append_quoted(out, by->author, strlen(by->author));
	if (*by->note) {
		buf_append_text(out, ",\"note\":");
		json_append_quoted(out, by->note, strlen(by->note));
	}
	buf_append_text(out, "}");
}

static void add_scale(struct buf *out, const struct override *override)
{
	buf_append_text(out, "\"scale\":{");
	if (override->min >= 0)
		buf_printf(out, "\"min\":%d", override->min);
	if (override->max >= 0)
		buf_printf(out, "%s\"max\":%d", override->min >= 0 ? "," : "", override->max);
	add_common(out, override->min < 0 && override->max < 0, override->until_ms,
		   &override->scaled_by);
}

static void add_order(struct buf *out, const struct order *order)
{
	const struct override *override = &order->override;

	json_append_quoted(out, order->type, strlen(order->type));
	buf_append_text(out, ":{");
	if (override->scaled)
		add_scale(out, override);
	if (override->paused) {
		buf_append_text(out, override->scaled ? ",\"pause\":{" : "\"pause\":{");
		add_common(out, true, override->paused_until_ms, &override->paused_by);
	}
	buf_append_text(out, "}");
}

bool order_encode(const struct order_book *book, struct buf *out)
{
	buf_printf(out, "{\"format\":%d,\"cluster\":", ORDER_FORMAT);
	json_append_quoted(out, book->cluster ? book->cluster : "",
			   book->cluster ? strlen(book->cluster) : 0);
	buf_printf(out, ",\"seq\":%" PRIu64, book->seq);
	if (book->drained) {
		buf_append_text(out, ",\"drain\":{");
		add_common(out, true, book->drained_until_ms, &book->drained_by);
	}
	buf_append_text(out, ",\"types\":{");
	for (size_t i = 0; i < book->n_orders; i++) {
		buf_append_text(out, i ? "," : "");
		add_order(out, &book->orders[i]);
	}
	buf_append_text(out, "}}");
	return !out->failed;
}

/* Reading. */

static int wrong(struct why *why, const char *what, const char *must)
{
	return why_set(why, -EINVAL, "orders: %s is not %s", what, must);
}

/* A whole number within bounds, as JSON writes it: no fraction, no exponent. */
static bool read_number(const struct json *value, int64_t low, int64_t high, int64_t *ret_number)
{
	char text[24], *end;
	long long number;

	if (value->type != JSON_NUMBER || value->size >= sizeof text)
		return false;
	memcpy(text, value->text, value->size);
	text[value->size] = '\0';
	errno = 0;
	number = strtoll(text, &end, 10);
	if (errno || *end || number < low || number > high)
		return false;
	*ret_number = number;
	return true;
}

/* Bytes of `text` that fit into `room` without cutting a character of UTF-8. */
static size_t fitting(const char *text, size_t size, size_t room)
{
	if (size <= room)
		return size;
	while (room && ((unsigned char)text[room] & 0xc0) == 0x80)
		room--;
	return room;
}

/* A text that is shown in terminals and logs: what is too long is cut, control characters go. */
static int read_line(const struct json *value, char *to, size_t size)
{
	struct buf text = {0};
	size_t length;

	if (value->type != JSON_STRING)
		return -EINVAL;
	json_append_string(&text, value);
	if (text.failed) {
		buf_free(&text);
		return -ENOMEM;
	}
	length = fitting((const char *)buf_front(&text), buf_size(&text), size - 1);
	if (length)
		memcpy(to, buf_front(&text), length);
	to[length] = '\0';
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)to[i] < ' ' || to[i] == 0x7f)
			to[i] = '?';
	buf_free(&text);
	return 0;
}

/* What all orders have. */
static int read_common(const struct json *object, const char *what, int64_t *until_ms,
		       struct signature *by, struct why *why)
{
	struct json value;
	int r = 0;

	*until_ms = 0;
	*by = (struct signature){0};
	if (object->type != JSON_OBJECT)
		return wrong(why, what, "an object");
	if (json_find(object, "until_ms", &value) && !read_number(&value, 0, INT64_MAX, until_ms))
		return wrong(why, "until_ms", "a number of milliseconds since 1970");
	if (json_find(object, "author", &value))
		r = read_line(&value, by->author, sizeof by->author);
	if (r == 0 && json_find(object, "note", &value))
		r = read_line(&value, by->note, sizeof by->note);
	if (r == -ENOMEM)
		return why_set(why, r, "out of memory");
	return r < 0 ? wrong(why, "an author or a note", "a text") : 0;
}

static int read_bound(const struct json *object, const char *name, int *ret_bound, struct why *why)
{
	struct json value;
	int64_t number = -1;

	if (json_find(object, name, &value) && !read_number(&value, 0, ORDER_WORKERS_MAX, &number))
		return wrong(why, name, "a number of workers");
	*ret_bound = (int)number;
	return 0;
}

static int read_override(const struct json *object, struct override *ret_override, struct why *why)
{
	struct override override = {.min = -1, .max = -1};
	struct json value;
	int r = 0;

	if (object->type != JSON_OBJECT)
		return wrong(why, "what holds of a type", "an object");
	if (json_find(object, "scale", &value)) {
		r = read_common(&value, "scale", &override.until_ms, &override.scaled_by, why);
		if (r == 0)
			r = read_bound(&value, "min", &override.min, why);
		if (r == 0)
			r = read_bound(&value, "max", &override.max, why);
		override.scaled = true;
	}
	if (r == 0 && json_find(object, "pause", &value)) {
		r = read_common(&value, "pause", &override.paused_until_ms, &override.paused_by,
				why);
		override.paused = true;
	}
	if (r < 0)
		return r;
	*ret_override = override;
	return 0;
}

static int read_type(const struct json *key, const struct json *value, struct order_book *book,
		     struct why *why)
{
	struct override override = {0};
	struct buf name = {0};
	int r;

	json_append_string(&name, key);
	if (name.failed)
		r = why_set(why, -ENOMEM, "out of memory");
	else if (memchr(buf_text(&name), '\0', buf_size(&name)) ||
		 !config_type_name_valid(buf_text(&name)))
		r = wrong(why, "a member of types", "the name of an event type");
	else if (order_find(book, buf_text(&name)))
		r = why_set(why, -EINVAL, "orders: %s is there twice", buf_text(&name));
	else
		r = read_override(value, &override, why);
	if (r == 0 && order_set(book, buf_text(&name), &override) < 0)
		r = why_set(why, -ENOMEM, "out of memory");
	buf_free(&name);
	return r;
}

static int read_types(const struct json *types, struct order_book *book, struct why *why)
{
	struct json key, value;
	size_t position = 0;
	int r = 0;

	if (types->type != JSON_OBJECT)
		return wrong(why, "types", "an object");
	while (r == 0 && json_next(types, &position, &key, &value))
		r = read_type(&key, &value, book, why);
	return r;
}

static int read_cluster(const struct json *value, struct order_book *book, struct why *why)
{
	struct buf text = {0};
	int r = 0;

	if (value->type != JSON_STRING)
		return wrong(why, "cluster", "a text");
	json_append_string(&text, value);
	book->cluster = text.failed ? NULL : strdup(buf_text(&text));
	if (!book->cluster)
		r = why_set(why, -ENOMEM, "out of memory");
	else if (strlen(book->cluster) != buf_size(&text))
		r = wrong(why, "cluster", "a text without NUL");
	buf_free(&text);
	return r;
}

static int read_book(const struct json *whole, struct order_book *book, struct why *why)
{
	struct json value;
	int64_t number;
	int r = 0;

	if (!json_find(whole, "format", &value) || !read_number(&value, 1, INT64_MAX, &number))
		return wrong(why, "format", "a number");
	if (number > ORDER_FORMAT)
		return why_set(why, -EPROTONOSUPPORT,
			       "orders of format %" PRId64 "; this droverd reads format %d", number,
			       ORDER_FORMAT);
	if (!json_find(whole, "seq", &value) || !read_number(&value, 0, INT64_MAX, &number))
		return wrong(why, "seq", "a number");
	book->seq = (uint64_t)number;
	if (!json_find(whole, "cluster", &value))
		return wrong(why, "cluster", "there");
	r = read_cluster(&value, book, why);
	if (r == 0 && json_find(whole, "drain", &value)) {
		book->drained = true;
		r = read_common(&value, "drain", &book->drained_until_ms, &book->drained_by, why);
	}
	if (r == 0 && json_find(whole, "types", &value))
		r = read_types(&value, book, why);
	return r;
}

int order_decode(const void *text, size_t size, struct order_book *ret_book, struct why *why)
{
	struct order_book book = {0};
	struct json whole;
	int r;

	if (size > ORDER_BYTES_MAX)
		return why_set(why, -EINVAL, "orders: %zu bytes; %d are allowed", size,
			       ORDER_BYTES_MAX);
	r = json_read(text, size, &whole, why);
	if (r < 0)
		return why_prefix(why, r, "orders");
	r = read_book(&whole, &book, why);
	if (r < 0) {
		order_free(&book);
		return r;
	}
	*ret_book = book;
	return 0;
}

/* The book. */

void order_free(struct order_book *book)
{
	if (!book)
		return;
	for (size_t i = 0; i < book->n_orders; i++)
		free(book->orders[i].type);
	free(book->orders);
	free(book->cluster);
	*book = (struct order_book){0};
}

static const char *type_of(const void *entry)
{
	return ((const struct order *)entry)->type;
}

/* Whether it is there; its place, or where it would be. */
static bool find(const struct order_book *book, const char *type, size_t *ret_place)
{
	const struct sorted orders = {book->orders, book->n_orders, sizeof *book->orders, type_of};

	return sorted_find(&orders, type, ret_place);
}

const struct override *order_find(const struct order_book *book, const char *type)
{
	size_t place;

	return find(book, type, &place) ? &book->orders[place].override : NULL;
}

static void remove_at(struct order_book *book, size_t place)
{
	free(book->orders[place].type);
	book->n_orders--;
	memmove(&book->orders[place], &book->orders[place + 1],
		(book->n_orders - place) * sizeof *book->orders);
}

static int insert_at(struct order_book *book, size_t place, const char *type)
{
	struct order *orders = reallocarray(book->orders, book->n_orders + 1, sizeof *book->orders);
	char *name = strdup(type);

	if (orders)
		book->orders = orders;
	if (!orders || !name) {
		free(name);
		return -ENOMEM;
	}
	memmove(&orders[place + 1], &orders[place], (book->n_orders - place) * sizeof *orders);
	orders[place] = (struct order){.type = name};
	book->n_orders++;
	return 0;
}

int order_set(struct order_book *book, const char *type, const struct override *override)
{
	size_t place;
	bool there = find(book, type, &place);

	if (!override->scaled && !override->paused) {
		if (there)
			remove_at(book, place);
		return 0;
	}
	if (!there && insert_at(book, place, type) < 0)
		return -ENOMEM;
	book->orders[place].override = *override;
	return 0;
}

int order_copy(const struct order_book *book, struct order_book *ret_book)
{
	struct order_book copy = {
		.cluster = book->cluster ? strdup(book->cluster) : NULL,
		.seq = book->seq,
		.drained = book->drained,
		.drained_until_ms = book->drained_until_ms,
		.drained_by = book->drained_by,
	};
	int r = book->cluster && !copy.cluster ? -ENOMEM : 0;

	for (size_t i = 0; r == 0 && i < book->n_orders; i++)
		r = order_set(&copy, book->orders[i].type, &book->orders[i].override);
	if (r < 0) {
		order_free(&copy);
		return r;
	}
	*ret_book = copy;
	return 0;
}

static void take_earlier(int64_t *due_ms, bool holds, int64_t until_ms)
{
	if (holds && until_ms && (!*due_ms || until_ms < *due_ms))
		*due_ms = until_ms;
}

int64_t order_due_ms(const struct order_book *book)
{
	int64_t due_ms = 0;

	take_earlier(&due_ms, book->drained, book->drained_until_ms);
	for (size_t i = 0; i < book->n_orders; i++) {
		const struct override *override = &book->orders[i].override;

		take_earlier(&due_ms, override->scaled, override->until_ms);
		take_earlier(&due_ms, override->paused, override->paused_until_ms);
	}
	return due_ms;
}
