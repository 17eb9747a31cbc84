/* SPDX-License-Identifier: MIT */
/*
 * Dead letters as such: the key by which a person names one, what is told about it, and the spool,
 * an unlinked file that holds the bytes of letters in our hands, lest a million of them fill the
 * memory. Decides nothing about when a letter is shown or settled. Called by dead.c and rotate.c.
 */
#include "dead.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct mail letter_mail(const struct box *box, const struct content *content)
{
	const amqp_basic_get_ok_t *got = content->method.decoded;
	const char *exchange = box->rabbit->settings.exchange;
	bool event = got->exchange.len == strlen(exchange) &&
		     !memcmp(got->exchange.bytes, exchange, got->exchange.len);

	return (struct mail){
		.properties = content->properties,
		.raw_properties = content->raw_properties,
		.routing_key = event ? got->routing_key : amqp_empty_bytes,
		.body = content->body,
		.size = content->size,
		.redelivered = got->redelivered,
	};
}

static const amqp_field_value_t *find_entry(const amqp_table_t *table, const char *key)
{
	size_t length = strlen(key);

	for (int i = 0; i < table->num_entries; i++)
		if (table->entries[i].key.len == length &&
		    !memcmp(table->entries[i].key.bytes, key, length))
			return &table->entries[i].value;
	return NULL;
}

static bool is_text(const amqp_field_value_t *value)
{
	return value &&
	       (value->kind == AMQP_FIELD_KIND_UTF8 || value->kind == AMQP_FIELD_KIND_BYTES);
}

/* Why the broker itself moved a message here, of the last time. */
struct death {
	char reason[200];
	int64_t count, time_ms;
};

static bool read_death(const amqp_basic_properties_t *properties, struct death *death)
{
	const amqp_field_value_t *deaths = NULL, *reason, *queue, *count, *time;
	const amqp_table_t *last;

	if (properties->_flags & AMQP_BASIC_HEADERS_FLAG)
		deaths = find_entry(&properties->headers, "x-death");
	if (!deaths || deaths->kind != AMQP_FIELD_KIND_ARRAY ||
	    deaths->value.array.num_entries < 1 ||
	    deaths->value.array.entries[0].kind != AMQP_FIELD_KIND_TABLE)
		return false;
	last = &deaths->value.array.entries[0].value.table;
	reason = find_entry(last, "reason");
	queue = find_entry(last, "queue");
	count = find_entry(last, "count");
	time = find_entry(last, "time");
	*death = (struct death){.time_ms = DROVER_UNKNOWN};
	if (is_text(reason) && is_text(queue))
		snprintf(death->reason, sizeof death->reason, "%.*s in queue %.*s",
			 (int)reason->value.bytes.len, (char *)reason->value.bytes.bytes,
			 (int)queue->value.bytes.len, (char *)queue->value.bytes.bytes);
	if (count && count->kind == AMQP_FIELD_KIND_I64)
		death->count = count->value.i64;
	if (time && time->kind == AMQP_FIELD_KIND_TIMESTAMP && time->value.u64 < INT64_MAX / 1000)
		death->time_ms = (int64_t)time->value.u64 * 1000;
	return true;
}

/* Keys. */

static uint64_t hash(uint64_t sum, const void *data, size_t size)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < size; i++)
		sum = (sum ^ bytes[i]) * UINT64_C(1099511628211);
	return (sum ^ 0xff) * UINT64_C(1099511628211);
}

static uint64_t hash_text(uint64_t sum, const char *text)
{
	return hash(sum, text, text ? strlen(text) : 0);
}

/*
 * A letter of ours has a name of its own. Any other is named after what is in it, so that it has
 * the same key whenever it is looked at.
 */
static void make_key(const struct message_text *text, const struct mail *mail, unsigned twin,
		     char key[NAME_SIZE])
{
	const struct drover_event *event = &text->event;
	uint64_t sum = UINT64_C(14695981039346656037);
	char suffix[16] = "";

	if (twin > 1)
		snprintf(suffix, sizeof suffix, "-%u", twin);
	if (text->letter) {
		snprintf(key, NAME_SIZE, "%.200s%s", text->letter, suffix);
		return;
	}
	if (!(event->flags & DROVER_EVENT_ID_MADE_UP))
		sum = hash_text(sum, event->id);
	sum = hash_text(sum, event->source);
	sum = hash_text(sum, event->type);
	sum = hash_text(sum, event->subject);
	sum = hash(sum, mail->body, mail->size);
	snprintf(key, NAME_SIZE, "%016" PRIx64 "%s", sum, suffix);
}

static struct letter **bucket(const struct box *box, const char *key)
{
	return box->table + hash_text(0, key) % LETTER_BUCKETS;
}

struct letter *letter_find(const struct box *box, const char *key)
{
	struct letter *letter = *bucket(box, key);

	while (letter && strcmp(letter->key, key) != 0)
		letter = letter->next;
	return letter;
}

static struct letter *add(struct box *box, const char *key)
{
	struct letter **first = bucket(box, key);
	size_t size = strlen(key) + 1;
	struct letter *letter = calloc(1, sizeof *letter + size);

	if (!letter)
		return NULL;
	letter->box = box;
	letter->number = box->n_letters++;
	memcpy(letter->key, key, size);
	letter->next = *first;
	*first = letter;
	TAILQ_INSERT_TAIL(&box->letters, letter, link);
	return letter;
}

/*
 * Letters with nothing to tell them from each other are counted. The first of them knows how far,
 * lest a hundred thousand of them compare all with all.
 */
static struct letter *find_twin(struct box *box, const struct message_text *text,
				const struct mail *mail)
{
	struct letter *first, *letter;
	char key[NAME_SIZE];
	unsigned twin;

	make_key(text, mail, 1, key);
	first = letter_find(box, key);
	twin = first && (first->tag || first->twins_in == box->pass) ? first->twins : 0;
	do {
		make_key(text, mail, ++twin, key);
		letter = letter_find(box, key);
	} while (letter && (letter->pass == box->pass || letter->tag));
	if (!letter)
		letter = add(box, key);
	if (!first)
		first = letter;
	if (first) {
		first->twins = twin;
		first->twins_in = box->pass;
	}
	return letter;
}

struct letter *letter_seen(struct box *box, const struct mail *mail)
{
	struct message_text *text =
		event_read(mail->properties, mail->routing_key, box->type, mail->redelivered);
	struct letter *letter;
	struct death death;

	if (!text)
		return NULL;
	letter = find_twin(box, text, mail);
	if (letter) {
		letter->pass = box->pass;
		letter->last_ms = text->last_ms;
		if (letter->last_ms == DROVER_UNKNOWN && read_death(mail->properties, &death))
			letter->last_ms = death.time_ms;
	}
	free(text);
	return letter;
}

void letter_free(struct letter *letter)
{
	struct box *box = letter->box;
	struct letter **at = bucket(box, letter->key);

	while (*at != letter)
		at = &(*at)->next;
	*at = letter->next;
	if (box->shown == letter)
		box->shown = TAILQ_PREV(letter, letters, link);
	TAILQ_REMOVE(&box->letters, letter, link);
	free(letter);
	if (TAILQ_EMPTY(&box->letters) && box->spool_fd >= 0 && ftruncate(box->spool_fd, 0) == 0)
		box->spool_end = 0;
}

/* What is known about a letter. */

int letter_show(const struct letter *letter, const struct mail *mail)
{
	struct rabbit *rabbit = letter->box->rabbit;
	struct message_text *text = event_read(mail->properties, mail->routing_key,
					       letter->box->type, mail->redelivered);
	struct drover_letter shown;
	struct death death;

	if (!text)
		return -ENOMEM;
	shown = (struct drover_letter){
		.size = sizeof shown,
		.attempts = text->attempts,
		.key = letter->key,
		.reason = text->reason,
		.node = text->node,
		.first_ms = text->first_ms,
		.last_ms = text->last_ms,
		.event = text->event,
	};
	if (!text->reason && read_death(mail->properties, &death)) {
		shown.reason = death.reason;
		if (!shown.attempts && death.count > 0)
			shown.attempts =
				death.count < UINT32_MAX ? (uint32_t)death.count : UINT32_MAX;
		if (shown.last_ms == DROVER_UNKNOWN)
			shown.last_ms = death.time_ms;
	}
	shown.event.body = mail->body;
	shown.event.body_size = mail->size;
	rabbit->calls.letter(rabbit->calls.context, &shown);
	free(text);
	return 0;
}

int letter_replay(const struct box *box, const struct mail *mail, publish_done *done, void *cookie)
{
	struct message_text *text =
		event_read(mail->properties, mail->routing_key, box->type, mail->redelivered);
	struct copy_notes notes = {.anew = true};
	amqp_basic_properties_t properties;
	struct outgoing outgoing = {
		.exchange = "",
		.routing_key = box->queue,
		.properties = &properties,
		.body = mail->body,
		.size = mail->size,
	};
	amqp_pool_t pool;
	int r;

	if (!text)
		return -ENOMEM;
	notes.first_ms = text->first_ms == DROVER_UNKNOWN ? 0 : text->first_ms;
	notes.routing_key = text->routing_key;
	if (text->event.flags & DROVER_EVENT_ID_MADE_UP)
		notes.made_up_id = text->event.id;
	init_amqp_pool(&pool, 4096);
	r = event_copy(mail->properties, &notes, &pool, &properties);
	if (r == 0)
		r = publish_start(box->rabbit, &outgoing, done, cookie);
	empty_amqp_pool(&pool);
	free(text);
	return r;
}

/* The spool. */

static int spool_open(struct box *box, struct fault *fault)
{
	const struct drover_host *host = box->rabbit->host;
	const char *directory = host->setting(host, "state_dir");

	if (box->spool_fd >= 0)
		return 0;
	if (directory)
		box->spool_fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (box->spool_fd < 0)
		box->spool_fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (box->spool_fd < 0)
		return fault_set(fault, -errno,
				 "no place to keep letters while they are looked at: %s and "
				 "/var/tmp: %s",
				 directory ? directory : "no state directory", strerror(errno));
	return 0;
}

int spool_write(struct letter *letter, const struct mail *mail, struct fault *fault)
{
	struct iovec parts[] = {
		{mail->raw_properties.bytes, mail->raw_properties.len},
		{mail->routing_key.bytes, mail->routing_key.len},
		{(void *)(uintptr_t)mail->body, mail->size},
	};
	struct box *box = letter->box;
	off_t end = box->spool_end;
	int r = spool_open(box, fault);

	for (size_t i = 0; r == 0 && i < sizeof parts / sizeof *parts; i++)
		for (size_t done = 0; done < parts[i].iov_len;) {
			ssize_t n = pwrite(box->spool_fd, (char *)parts[i].iov_base + done,
					   parts[i].iov_len - done, end);

			if (n <= 0)
				return fault_set(fault, n < 0 ? -errno : -EIO,
						 "letters cannot be kept while they are looked "
						 "at: %s",
						 strerror(n < 0 ? errno : EIO));
			done += (size_t)n;
			end += n;
		}
	if (r < 0)
		return r;
	letter->at = box->spool_end;
	letter->properties_size = mail->raw_properties.len;
	letter->routing_key_size = mail->routing_key.len;
	letter->body_size = mail->size;
	box->spool_end = end;
	return 0;
}

int spool_read(const struct letter *letter, amqp_pool_t *pool, struct mail *ret_mail,
	       void **ret_bytes)
{
	size_t size = letter->properties_size + letter->routing_key_size + letter->body_size;
	char *bytes = malloc(size + 1);
	amqp_bytes_t raw = {letter->properties_size, bytes};
	void *properties;
	int r = 0;

	if (!bytes)
		return -ENOMEM;
	for (size_t done = 0; r == 0 && done < size;) {
		ssize_t n = pread(letter->box->spool_fd, bytes + done, size - done,
				  letter->at + (off_t)done);

		if (n <= 0)
			r = n < 0 ? -errno : -EIO;
		else
			done += (size_t)n;
	}
	if (r == 0 && amqp_decode_properties(AMQP_BASIC_CLASS, pool, raw, &properties) < 0)
		r = -EBADMSG;
	if (r < 0) {
		free(bytes);
		return r;
	}
	*ret_mail = (struct mail){
		.properties = properties,
		.raw_properties = raw,
		.routing_key = {letter->routing_key_size, bytes + raw.len},
		.body = bytes + raw.len + letter->routing_key_size,
		.size = letter->body_size,
		.redelivered = true,
	};
	*ret_bytes = bytes;
	return 0;
}
