/* SPDX-License-Identifier: MIT */
/*
 * Letters that cannot be kept in our hands: in a queue that others made, which may count how often a
 * letter was looked at, and destroy it at the last time; and in any quorum queue, for RabbitMQ (3.10)
 * becomes ever slower with letters in somebody's hands, and puts them back in any order when he is
 * gone. So a pass turns the whole queue round: a copy of each letter is put behind the last one, and
 * when that is confirmed the original is acknowledged; whatever happens in between, there is one at
 * least, and in the end all are in their order. A letter that is to be replayed or purged is settled
 * when it comes by. Called by dead.c.
 */
#include "dead.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STUCK_MS 5000
#define IDLE_MS  200 /* the caller may want more letters; then the rest of the queue goes round */

/* A letter that came by. */
struct passing {
	TAILQ_ENTRY(passing) link;
	struct browser *browser;
	struct box *box;       /* NULL: its pass is over, and it is among the browser's late ones */
	struct letter *letter; /* of the box */
	uint64_t tag;
	uint32_t epoch; /* of the channel it came by */
	bool published; /* its copy is on its way, */
	bool confirmed; /* and has arrived */
	bool settles;   /* … which replays the letter */
	amqp_pool_t pool;
	struct mail mail; /* its properties are in the pool */
	char routing_key[NAME_SIZE];
	void *body;
};

static void leave(struct box *box, struct passing *passing)
{
	TAILQ_REMOVE(&box->passing, passing, link);
	box->n_passing--;
	passing->box = NULL;
}

/* Of one that has left, or never came. */
static void passing_free(struct passing *passing)
{
	empty_amqp_pool(&passing->pool);
	free(passing->body);
	free(passing);
}

static void drop(struct box *box, struct passing *passing)
{
	leave(box, passing);
	passing_free(passing);
}

static bool is_key(amqp_bytes_t key, const char *name)
{
	return key.len == strlen(name) && !memcmp(key.bytes, name, key.len);
}

/* What the broker would act upon, or has written itself. */
static bool is_dropped(amqp_bytes_t key)
{
	static const char *const dropped[] = {"CC", "BCC", "x-delivery-count", "x-acquired-count"};

	for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++)
		if (is_key(key, dropped[i]))
			return true;
	return false;
}

static bool has_header(const amqp_basic_properties_t *properties, const char *name)
{
	if (properties->_flags & AMQP_BASIC_HEADERS_FLAG)
		for (int i = 0; i < properties->headers.num_entries; i++)
			if (is_key(properties->headers.entries[i].key, name))
				return true;
	return false;
}

static void add_header(amqp_table_t *headers, const char *name, const char *value)
{
	headers->entries[headers->num_entries++] = (amqp_table_entry_t){
		.key = amqp_cstring_bytes(name),
		.value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)},
	};
}

/* Everything as it was, with the letter's key and the routing key it would lose. */
static int copy_properties(struct passing *passing, amqp_basic_properties_t *ret_properties)
{
	const amqp_basic_properties_t *from = passing->mail.properties;
	bool headers = from->_flags & AMQP_BASIC_HEADERS_FLAG;
	size_t n = headers ? (size_t)from->headers.num_entries : 0;
	amqp_basic_properties_t to = *from;

	to.headers = (amqp_table_t){
		.entries = amqp_pool_alloc(&passing->pool, (n + 2) * sizeof(amqp_table_entry_t))};
	if (!to.headers.entries)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (!is_dropped(from->headers.entries[i].key))
			to.headers.entries[to.headers.num_entries++] = from->headers.entries[i];
	if (!has_header(from, HEADER_LETTER))
		add_header(&to.headers, HEADER_LETTER, passing->letter->key);
	if (!has_header(from, HEADER_ROUTING_KEY) && !has_header(from, "x-death"))
		add_header(&to.headers, HEADER_ROUTING_KEY, passing->routing_key);
	to._flags |= AMQP_BASIC_HEADERS_FLAG;
	/* Only its own name may be written by a user. */
	to._flags &= ~(amqp_flags_t)AMQP_BASIC_USER_ID_FLAG;
	*ret_properties = to;
	return 0;
}

/*
 * In their order: what is confirmed is acknowledged, and only then shown, for the caller may have
 * seen enough and end; what is in our hands then is given out once more.
 */
static void pass_on(struct box *box)
{
	struct browser *browser = box->browser;
	struct passing *passing;
	int r = 0;

	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list. */
	while (r == 0 && (passing = TAILQ_FIRST(&box->passing)) && passing->confirmed) {
		struct letter *letter = passing->letter;

		if (passing->settles)
			letter->state = LETTER_ACKING;
		r = ack_send(browser, passing->tag, passing->settles ? letter : NULL);
		if (r == 0 && box->shows)
			r = letter_show(letter, &passing->mail);
		drop(box, passing);
		box->done++;
	}
	if (r < 0)
		dead_pass_over(box, r, strerror(-r));
	else
		dead_get(box);
}

/* Of a pass that is over. */
static void on_late(struct rabbit *rabbit, struct passing *passing, int error)
{
	TAILQ_REMOVE(&passing->browser->late, passing, link);
	if (rabbit->main.channels[CHANNEL_WORK].epoch == passing->epoch &&
	    (error || ack_send(passing->browser, passing->tag, NULL) < 0))
		ack_return(passing->browser, passing->tag);
	passing_free(passing);
}

static void on_published(struct rabbit *rabbit, void *cookie, int error, const char *sentence)
{
	struct passing *passing = cookie;
	struct box *box = passing->box;
	struct fault fault;

	if (!box) {
		on_late(rabbit, passing, error);
		return;
	}
	if (!error) {
		passing->confirmed = true;
		pass_on(box);
		return;
	}
	fault_set(&fault, error, "queue %s takes no copy (%s)",
		  passing->settles ? box->queue : box->dead,
		  sentence ? sentence : strerror(-error));
	passing->published = false;
	if (passing->settles)
		dead_tell(passing->letter, error, fault.sentence);
	dead_pass_over(box, error, fault.sentence);
}

static int copy(struct passing *passing)
{
	struct box *box = passing->box;
	amqp_basic_properties_t properties;
	const struct outgoing outgoing = {
		.exchange = "",
		.routing_key = box->dead,
		.properties = &properties,
		.body = passing->body,
		.size = passing->mail.size,
		.body_stays = true,
	};
	int r = copy_properties(passing, &properties);

	return r < 0 ? r : publish_start(box->rabbit, &outgoing, on_published, passing);
}

static int settle(struct passing *passing)
{
	struct box *box = passing->box;
	struct letter *letter = passing->letter;
	int r;

	if (letter->action == DROVER_LETTER_REPLAY) {
		r = letter_replay(box, &passing->mail, on_published, passing);
		if (r < 0)
			return r;
		letter->state = LETTER_COPYING;
		passing->published = passing->settles = true;
		box->n_wanted--;
		return 0;
	}
	letter->state = LETTER_ACKING;
	r = ack_send(box->browser, passing->tag, letter);
	if (r < 0) {
		letter->state = LETTER_WANTED;
		return r;
	}
	box->n_wanted--;
	box->done++;
	drop(box, passing);
	return 0;
}

/* -EAGAIN: not now. */
static int turn(struct passing *passing)
{
	struct box *box = passing->box;
	int r;

	if (passing->letter->state == LETTER_WANTED)
		return settle(passing);
	/* A wanted one comes later: the caller goes by the order of the letters, too. */
	if (!box->shows && !box->n_wanted && box->idle_ms > now_ms()) {
		if (box->idle_ms == NEVER)
			box->idle_ms = now_ms() + IDLE_MS;
		return -EAGAIN;
	}
	r = copy(passing);
	passing->published = r == 0;
	return r;
}

static void turn_all(struct box *box)
{
	struct passing *passing, *next;
	int r = 0;

	for (passing = TAILQ_FIRST(&box->passing); passing && r == 0; passing = next) {
		next = TAILQ_NEXT(passing, link);
		if (!passing->published)
			r = turn(passing);
	}
	if (r < 0 && r != -EAGAIN)
		dead_pass_over(box, r, strerror(-r));
}

/* Takes the content's body. */
static struct passing *passing_new(struct box *box, struct content *content)
{
	const amqp_basic_get_ok_t *got = content->method.decoded;
	struct passing *passing = calloc(1, sizeof *passing);
	amqp_bytes_t raw = content->raw_properties;
	void *properties;

	if (!passing)
		return NULL;
	init_amqp_pool(&passing->pool, 4096);
	raw.bytes = amqp_pool_alloc(&passing->pool, raw.len ? raw.len : 1);
	if (raw.bytes)
		memcpy(raw.bytes, content->raw_properties.bytes, raw.len);
	if (!raw.bytes ||
	    amqp_decode_properties(AMQP_BASIC_CLASS, &passing->pool, raw, &properties) < 0) {
		passing_free(passing);
		return NULL;
	}
	passing->mail = letter_mail(box, content);
	passing->mail.properties = properties;
	passing->mail.raw_properties = raw;
	passing->browser = box->browser;
	passing->tag = got->delivery_tag;
	passing->epoch = box->rabbit->main.channels[CHANNEL_WORK].epoch;
	memcpy(passing->routing_key, got->routing_key.bytes, got->routing_key.len);
	if (passing->mail.routing_key.len)
		passing->mail.routing_key = amqp_cstring_bytes(passing->routing_key);
	passing->body = content->body;
	content->body = NULL;
	passing->letter = letter_seen(box, &passing->mail);
	if (!passing->letter) {
		passing_free(passing);
		return NULL;
	}
	passing->box = box;
	TAILQ_INSERT_TAIL(&box->passing, passing, link);
	box->n_passing++;
	return passing;
}

/*
 * So many letters may be in our hands. Those are looked at in vain when we are killed: one in the
 * beginning, lest many looks that end at once destroy the first ones. No more than a few ever: a
 * channel of RabbitMQ keeps acknowledgements for a quorum queue to itself while 32 are on their way
 * (measured: it forgot 56 of them when the connection ended, and as many letters came twice); and
 * more would not be faster.
 */
size_t rotate_window(const struct box *box)
{
	return box->done < 64 ? 1 + box->done / 8 : 8;
}

void rotate_take(struct box *box, struct content *content)
{
	const amqp_basic_get_ok_t *got = content->method.decoded;
	struct passing *passing = passing_new(box, content);
	int r = passing ? 0 : -ENOMEM;

	if (!passing)
		ack_return(box->browser, got->delivery_tag);
	if (r < 0)
		dead_pass_over(box, r, strerror(-r));
	else
		turn_all(box);
}

int rotate_want(struct letter *letter, enum drover_letter_action action)
{
	struct box *box = letter->box;

	letter->state = LETTER_WANTED;
	letter->action = action;
	letter->wanted_in = box->pass;
	box->n_wanted++;
	box->idle_ms = NEVER;
	return 0;
}

bool rotate_keeps(struct letter *letter)
{
	struct box *box = letter->box;
	struct letter *before = box->untold;

	if (box->browser->active != box || box->shows)
		return false;
	box->untold = letter;
	if (before)
		dead_tell(before, 0, NULL);
	return true;
}

/* A broker with an alarm takes no copy, for how long nobody knows. */
static bool is_stuck(struct box *box)
{
	const struct link *publisher = &box->rabbit->publisher;

	if (!publisher->blocked || TAILQ_EMPTY(&box->passing)) {
		box->stuck_ms = NEVER;
		return false;
	}
	if (box->stuck_ms == NEVER)
		box->stuck_ms = now_ms() + STUCK_MS;
	return box->stuck_ms <= now_ms();
}

void rotate_process(struct box *box)
{
	struct browser *browser = box->browser;
	bool open = box->rabbit->main.channels[CHANNEL_WORK].state == CHANNEL_OPEN;

	struct fault fault;

	if (is_stuck(box)) {
		fault_set(&fault, -EBUSY,
			  "the broker takes no messages (%.80s): to look at letters in queue %s it "
			  "must take copies of them",
			  box->rabbit->publisher.blocked_why, box->dead);
		dead_pass_over(box, -EBUSY, fault.sentence);
	}
	if (box->state == PASS_GETTING)
		turn_all(box);
	else if (box->n_wanted && !browser->active && browser->n_idle == GETS && open)
		dead_pass(box, false);
	if (box->state == PASS_GETTING)
		dead_get(box);
}

int64_t rotate_due_ms(const struct box *box)
{
	if (box->n_wanted && !box->browser->active && box->browser->n_idle == GETS)
		return 0;
	if (box->state == PASS_GETTING && !box->n_wanted && box->idle_ms < box->stuck_ms)
		return box->idle_ms;
	return box->stuck_ms;
}

/* Not seen in a whole pass. */
static bool is_gone(const struct box *box, const struct letter *letter)
{
	return letter->pass != box->pass && letter->wanted_in != box->pass;
}

static void end_letter(struct box *box, struct letter *letter, int error, const char *sentence)
{
	if (letter->state == LETTER_SHOWN && !error && box->shows && letter->pass != box->pass) {
		letter_free(letter); /* somebody took it */
	} else if (letter->state == LETTER_WANTED && error) {
		box->n_wanted--;
		dead_tell(letter, error, sentence);
	} else if (letter->state == LETTER_WANTED && is_gone(box, letter)) {
		box->n_wanted--;
		dead_tell(letter, -ENOENT, "somebody else took it meanwhile");
	}
}

static void end_passing(struct passing *passing, int error, const char *sentence)
{
	struct box *box = passing->box;
	struct letter *letter = passing->settles ? passing->letter : NULL;

	if (passing->confirmed) {
		if (letter)
			letter->state = LETTER_ACKING;
		ack_send(box->browser, passing->tag, letter);
		drop(box, passing);
	} else if (passing->published) {
		if (letter)
			dead_tell(letter, error, sentence);
		leave(box, passing); /* its copy may yet be confirmed: see on_late */
		TAILQ_INSERT_TAIL(&box->browser->late, passing, link);
	} else {
		ack_return(box->browser, passing->tag);
		drop(box, passing);
	}
}

void rotate_over(struct box *box, int error, const char *sentence)
{
	struct letter *letter, *next, *untold = box->untold;
	struct passing *passing;

	while ((passing = TAILQ_FIRST(&box->passing)))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed has left the list. */
		end_passing(passing, error, sentence);
	box->idle_ms = box->stuck_ms = NEVER;
	box->untold = NULL;
	if (untold)
		dead_tell(untold, 0, NULL);
	for (letter = TAILQ_FIRST(&box->letters); letter; letter = next) {
		next = TAILQ_NEXT(letter, link);
		end_letter(box, letter, error, sentence);
	}
}

void rotate_close(struct browser *browser)
{
	struct passing *passing;

	while ((passing = TAILQ_FIRST(&browser->late))) {
		TAILQ_REMOVE(&browser->late, passing, link);
		passing_free(passing);
	}
}
