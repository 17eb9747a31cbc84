/* SPDX-License-Identifier: MIT */
/*
 * Dead letters for errands. A pass gets the letters of a queue, one after the other, none of them
 * acknowledged. Those of a classic queue of ours stay in our hands until they are settled, and go
 * back to their places when the errand ends; what becomes of others is rotate.c's. A lock, a queue
 * of this connection, keeps two errands from seeing a half of the letters each. Nothing is
 * acknowledged (ack.c) that was not copied, confirmed, or is to be purged. Called by rabbitmq.c.
 */
#include "dead.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOCK_MS       15000 /* so long other errands may take: a few thousand letters a second */
#define LOCK_RETRY_MS 100
#define TURN_MS       50

void dead_tell(struct letter *letter, int error, const char *sentence)
{
	struct rabbit *rabbit = letter->box->rabbit;
	bool gone = !error || error == -ENOENT || (!letter->tag && !letter->box->rotates);

	letter->state = LETTER_SHOWN;
	rabbit->calls.letter_settled(rabbit->calls.context, letter->key, error, sentence);
	if (gone)
		letter_free(letter);
}

void dead_settled(struct letter *letter, int error, const char *sentence)
{
	if (error || !letter->box->rotates || !rotate_keeps(letter))
		dead_tell(letter, error, sentence);
}

/* A pass. */

void dead_pass_over(struct box *box, int error, const char *sentence)
{
	struct rabbit *rabbit = box->rabbit;
	bool shows = box->shows;

	box->state = PASS_NONE;
	box->browser->active = NULL;
	if (box->rotates)
		rotate_over(box, error, sentence);
	if (!shows)
		return;
	if (error)
		rabbit->calls.browse_failed(rabbit->calls.context, error, sentence);
	else
		rabbit->calls.letter(rabbit->calls.context, NULL);
}

__attribute__((format(printf, 3, 4))) static void pass_failed(struct box *box, int error,
							      const char *format, ...)
{
	struct fault fault;
	va_list ap;

	va_start(ap, format);
	vsnprintf(fault.sentence, sizeof fault.sentence, format, ap);
	va_end(ap);
	dead_pass_over(box, error, fault.sentence);
}

static int compare_letters(const void *a, const void *b)
{
	const struct letter *left = *(const struct letter *const *)a;
	const struct letter *right = *(const struct letter *const *)b;

	if (left->last_ms != right->last_ms)
		return left->last_ms < right->last_ms ? -1 : 1;
	return left->number < right->number ? -1 : left->number > right->number;
}

/*
 * The oldest first, also where a look that was cut off, at a time when the queue was another, has
 * left them in any order.
 */
static int sort(struct box *box)
{
	struct letter **letters, *letter;
	size_t n = 0;

	TAILQ_FOREACH(letter, &box->letters, link)
		n++;
	letters = calloc(n + 1, sizeof(struct letter *));
	if (!letters)
		return -ENOMEM;
	for (n = 0; (letter = TAILQ_FIRST(&box->letters)); n++) {
		TAILQ_REMOVE(&box->letters, letter, link);
		letters[n] = letter;
	}
	qsort(letters, n, sizeof(struct letter *), compare_letters);
	for (size_t i = 0; i < n; i++)
		TAILQ_INSERT_TAIL(&box->letters, letters[i], link);
	free(letters);
	return 0;
}

static void check_end(struct box *box)
{
	if (box->state != PASS_GETTING || box->got < box->asked ||
	    (box->asked < box->n && !box->empty))
		return;
	if (!box->rotates) {
		box->state = PASS_SHOWING;
		box->shown = NULL;
		if (sort(box) < 0)
			pass_failed(box, -ENOMEM, "no memory");
	} else if (TAILQ_EMPTY(&box->passing) && !ack_waits(box->browser)) {
		/* The caller may end now; what the broker did not see would come a second time. */
		dead_pass_over(box, 0, NULL);
	}
}

static int send_get(struct rpc *rpc, struct channel *channel)
{
	const struct box *box = rpc->cookie;
	amqp_basic_get_t method = {.queue = amqp_cstring_bytes(box->dead)};

	return link_send_method(channel, AMQP_BASIC_GET_METHOD, &method);
}

/* The letter itself came before: see on_content. */
static void on_get(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct box *box = rpc->cookie;
	struct browser *browser = box->browser;

	browser->idle[browser->n_idle++] = rpc;
	if (browser->active != box || box->state != PASS_GETTING)
		return;
	box->got++;
	if (reply->error) {
		pass_failed(box, reply->error, "queue %s: %s", box->dead, reply->text);
		return;
	}
	box->empty |= reply->method->id == AMQP_BASIC_GET_EMPTY_METHOD;
	dead_get(box);
}

void dead_get(struct box *box)
{
	struct browser *browser = box->browser;
	size_t most = box->rotates ? rotate_window(box) : GETS;

	while (box->state == PASS_GETTING && !box->empty && box->asked < box->n &&
	       box->asked - box->got + box->n_passing < most && browser->n_idle) {
		struct rpc *rpc = browser->idle[--browser->n_idle];

		*rpc = (struct rpc){.send = send_get, .done = on_get, .cookie = box};
		box->asked++;
		rpc_start(ack_channel(browser), rpc);
	}
	check_end(box);
}

/* What is in our hands, in turns. */
static void show_some(struct box *box)
{
	int64_t start = now_ms();
	struct letter *letter;

	while ((letter = box->shown ? TAILQ_NEXT(box->shown, link) : TAILQ_FIRST(&box->letters))) {
		struct mail mail;
		amqp_pool_t pool;
		void *bytes = NULL;
		int r;

		box->shown = letter;
		if (letter->state != LETTER_SHOWN)
			continue;
		init_amqp_pool(&pool, 4096);
		r = spool_read(letter, &pool, &mail, &bytes);
		if (r == 0)
			r = letter_show(letter, &mail);
		empty_amqp_pool(&pool);
		free(bytes);
		if (r < 0) {
			pass_failed(box, r, "letter %s: %s", letter->key, strerror(-r));
			return;
		}
		if (box->state != PASS_SHOWING || now_ms() - start >= TURN_MS)
			return;
	}
	dead_pass_over(box, 0, NULL);
}

static int send_count(struct rpc *rpc, struct channel *channel)
{
	const struct box *box = rpc->cookie;
	amqp_queue_declare_t method = {.queue = amqp_cstring_bytes(box->dead), .passive = 1};

	return link_send_method(channel, AMQP_QUEUE_DECLARE_METHOD, &method);
}

static void on_count(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct box *box = rpc->cookie;
	const amqp_queue_declare_ok_t *found;

	if (box->state != PASS_COUNTING)
		return;
	if (reply->error == -ENOENT && !box->foreign) {
		dead_pass_over(box, 0, NULL); /* nothing ever died */
		return;
	}
	if (reply->error) {
		pass_failed(box, reply->error, "queue %s: %s", box->dead, reply->text);
		return;
	}
	found = reply->method->decoded;
	/* 0 may mean that a quorum queue could not be asked. */
	box->n = found->message_count ? found->message_count : 1;
	box->state = PASS_GETTING;
	dead_get(box);
}

static void count(struct box *box)
{
	box->state = PASS_COUNTING;
	box->rpc = (struct rpc){.send = send_count, .done = on_count, .cookie = box};
	rpc_start(&box->rabbit->main.channels[CHANNEL_CONTROL], &box->rpc);
}

static int send_lock(struct rpc *rpc, struct channel *channel)
{
	const struct box *box = rpc->cookie;
	amqp_table_entry_t classic = {
		.key = amqp_cstring_bytes("x-queue-type"),
		.value = {.kind = AMQP_FIELD_KIND_UTF8,
			  .value.bytes = amqp_cstring_bytes("classic")},
	};
	amqp_queue_declare_t method = {
		.queue = amqp_cstring_bytes(box->look),
		.exclusive = 1,
		.auto_delete = 1,
		.arguments = {.num_entries = 1, .entries = &classic},
	};

	return link_send_method(channel, AMQP_QUEUE_DECLARE_METHOD, &method);
}

static void on_lock(struct rpc *rpc, const struct rpc_reply *reply)
{
	struct box *box = rpc->cookie;

	if (box->state != PASS_LOCKING)
		return;
	if (!reply->error) {
		box->locked = true;
		count(box);
	} else if (reply->error == -EBUSY && now_ms() < box->deadline_ms) {
		box->retry_ms = now_ms() + LOCK_RETRY_MS;
	} else if (reply->error == -EBUSY) {
		pass_failed(box, -EBUSY,
			    "somebody else has been looking at the dead letters in %s for more "
			    "than %d s (queue %s is his); try again when he is through",
			    box->dead, LOCK_MS / 1000, box->look);
	} else if (reply->error == -EACCES) {
		pass_failed(box, -EACCES,
			    "the user needs the permission to configure queue %s, which keeps two "
			    "from looking at the letters in %s at once (%s)",
			    box->look, box->dead, reply->text);
	} else {
		pass_failed(box, reply->error, "queue %s: %s", box->look, reply->text);
	}
}

static void lock(struct box *box)
{
	box->retry_ms = NEVER;
	box->rpc = (struct rpc){.send = send_lock, .done = on_lock, .cookie = box};
	rpc_start(&box->rabbit->main.channels[CHANNEL_CONTROL], &box->rpc);
}

void dead_pass(struct box *box, bool shows)
{
	box->browser->active = box;
	box->pass++;
	box->shows = shows;
	box->n = box->asked = box->got = box->done = 0;
	box->empty = false;
	if (box->locked) {
		count(box);
		return;
	}
	box->state = PASS_LOCKING;
	box->deadline_ms = now_ms() + LOCK_MS;
	lock(box);
}

/* The channel of the passes. */

static void take(struct box *box, struct content *content)
{
	const amqp_basic_get_ok_t *got = content->method.decoded;
	struct mail mail = letter_mail(box, content);
	struct letter *letter = letter_seen(box, &mail);
	struct fault fault = {"no memory"};
	int r = letter ? 0 : -ENOMEM;

	if (r == 0) {
		letter->tag = got->delivery_tag;
		r = spool_write(letter, &mail, &fault);
	}
	if (r < 0) {
		ack_return(box->browser, got->delivery_tag);
		if (letter)
			letter_free(letter);
		pass_failed(box, r, "%s", fault.sentence);
	}
}

static void on_content(struct channel *channel, struct content *content)
{
	struct browser *browser = channel->link->rabbit->browser;
	const amqp_basic_get_ok_t *got = content->method.decoded;
	struct box *box = browser->active;

	if (!box || box->state != PASS_GETTING) {
		ack_return(browser, got->delivery_tag);
		return;
	}
	if (box->got == 0 && got->message_count >= box->n)
		box->n = (size_t)got->message_count + 1;
	if (box->rotates)
		rotate_take(box, content);
	else
		take(box, content);
}

/* What was in our hands is the broker's again. */
static void drop_letters(struct box *box, const char *sentence)
{
	struct letter *letter, *next;

	for (letter = TAILQ_FIRST(&box->letters); letter; letter = next) {
		next = TAILQ_NEXT(letter, link);
		letter->tag = 0;
		if (letter->state == LETTER_ACKING)
			dead_settled(letter, -ENOTCONN, sentence);
		else if (letter->state == LETTER_SHOWN)
			letter_free(letter);
	}
}

static void drop_all(struct browser *browser, const char *sentence)
{
	if (browser->active)
		dead_pass_over(browser->active, -ENOTCONN, sentence);
	ack_drop(browser);
	for (struct box *box = browser->boxes; box; box = box->next)
		drop_letters(box, sentence);
}

static void on_closed(struct channel *channel, uint16_t code, const char *text)
{
	(void)code;
	drop_all(channel->link->rabbit->browser, text ? text : "the connection was lost");
}

static void on_unblocked(struct channel *channel)
{
	ack_flush(channel->link->rabbit->browser);
}

static const struct channel_calls work_calls = {
	.closed = on_closed,
	.content = on_content,
	.unblocked = on_unblocked,
};

/* Boxes. */

static void box_free(struct box *box)
{
	while (!TAILQ_EMPTY(&box->letters))
		letter_free(TAILQ_FIRST(&box->letters));
	if (box->spool_fd >= 0)
		close(box->spool_fd);
	free(box->table);
	free(box->queue);
	free(box->type);
	free(box);
}

static int box_new(struct browser *browser, const struct drover_queue *queue, struct box **ret_box)
{
	const char *dead = queue->size >= sizeof *queue ? queue->dead_letter : NULL;
	struct box *box = calloc(1, sizeof *box);
	int r = -ENOMEM;

	if (!box)
		return r;
	TAILQ_INIT(&box->letters);
	TAILQ_INIT(&box->passing);
	box->browser = browser;
	box->rabbit = browser->rabbit;
	box->spool_fd = -1;
	box->retry_ms = box->idle_ms = box->stuck_ms = NEVER;
	box->foreign = dead;
	box->rotates = dead || browser->rabbit->settings.quorum;
	box->queue = strdup(queue->name);
	box->type = strdup(queue->type);
	box->table = calloc(LETTER_BUCKETS, sizeof(struct letter *));
	if (box->queue && box->type && box->table)
		r = dead ? 0 : topology_dead_name(queue, box->dead);
	if (r == 0 && dead && snprintf(box->dead, NAME_SIZE, "%s", dead) >= NAME_SIZE)
		r = -ENAMETOOLONG;
	if (r == 0 && snprintf(box->look, NAME_SIZE, "%s.look", box->dead) >= NAME_SIZE)
		r = -ENAMETOOLONG;
	if (r < 0) {
		box_free(box);
		return r;
	}
	box->next = browser->boxes;
	browser->boxes = box;
	*ret_box = box;
	return 0;
}

static struct box *find_box(const struct browser *browser, const char *queue)
{
	struct box *box = browser ? browser->boxes : NULL;

	while (box && strcmp(box->queue, queue) != 0)
		box = box->next;
	return box;
}

static int browser_get(struct rabbit *rabbit, struct browser **ret_browser)
{
	struct browser *browser = rabbit->browser;

	if (!browser) {
		browser = rabbit->browser = calloc(1, sizeof *browser);
		if (!browser)
			return -ENOMEM;
		browser->rabbit = rabbit;
		STAILQ_INIT(&browser->to_send);
		STAILQ_INIT(&browser->sent);
		STAILQ_INIT(&browser->barred);
		TAILQ_INIT(&browser->late);
		for (size_t i = 0; i < GETS; i++)
			browser->idle[browser->n_idle++] = &browser->gets[i];
	}
	if (rabbit->main.channels[CHANNEL_WORK].state == CHANNEL_UNUSED)
		link_use(&rabbit->main, CHANNEL_WORK, &work_calls);
	*ret_browser = browser;
	return 0;
}

/* What the handle is called for. */

int dead_browse(struct rabbit *rabbit, const struct drover_queue *queue)
{
	const char *dead = queue->size >= sizeof *queue ? queue->dead_letter : NULL;
	struct browser *browser;
	struct fault fault;
	struct box *box;
	int r;

	if (dead && !strcmp(dead, DROVER_DEAD_LETTER_BROKER)) {
		r = fault_set(&fault, -ENOTSUP,
			      "what dies of queue %s is the broker's affair (dead_letter = "
			      "\"broker\"): it is where the queue's own dead-letter rule puts it",
			      queue->name);
		rabbit->calls.browse_failed(rabbit->calls.context, r, fault.sentence);
		return 0;
	}
	if (!rabbit->main.open)
		return -EAGAIN;
	r = browser_get(rabbit, &browser);
	if (r < 0)
		return r;
	if (ack_channel(browser)->state != CHANNEL_OPEN || browser->active ||
	    browser->n_idle < GETS)
		return -EAGAIN;
	box = find_box(browser, queue->name);
	if (!box)
		r = box_new(browser, queue, &box);
	if (r == 0)
		dead_pass(box, true);
	return r;
}

static void on_replayed(struct rabbit *rabbit, void *cookie, int error, const char *sentence)
{
	struct letter *letter = cookie;

	if (!error && !letter->tag) {
		error = -ENOTCONN;
		sentence = "it was replayed, but the connection was lost before the letter was "
			   "taken out: it is still there";
	}
	letter->state = LETTER_ACKING;
	if (!error)
		error = ack_send(rabbit->browser, letter->tag, letter);
	if (error)
		dead_settled(letter, error, sentence);
}

static int replay(struct letter *letter)
{
	struct mail mail;
	amqp_pool_t pool;
	void *bytes = NULL;
	int r;

	init_amqp_pool(&pool, 4096);
	r = spool_read(letter, &pool, &mail, &bytes);
	if (r == 0)
		r = letter_replay(letter->box, &mail, on_replayed, letter);
	empty_amqp_pool(&pool);
	free(bytes);
	if (r == 0)
		letter->state = LETTER_COPYING;
	return r;
}

int dead_settle(struct rabbit *rabbit, const struct drover_queue *queue, const char *key,
		enum drover_letter_action action)
{
	struct box *box = find_box(rabbit->browser, queue->name);
	struct letter *letter = box ? letter_find(box, key) : NULL;
	int r;

	if (action != DROVER_LETTER_REPLAY && action != DROVER_LETTER_PURGE)
		return -EINVAL;
	if (!letter || letter->state != LETTER_SHOWN)
		return -ENOENT;
	if (box->rotates)
		return rotate_want(letter, action);
	if (action == DROVER_LETTER_REPLAY)
		return replay(letter);
	letter->state = LETTER_ACKING;
	r = ack_send(rabbit->browser, letter->tag, letter);
	if (r < 0)
		letter->state = LETTER_SHOWN;
	return r;
}

void dead_lost(struct rabbit *rabbit)
{
	if (!rabbit->browser)
		return;
	drop_all(rabbit->browser, "the connection was lost");
	for (struct box *box = rabbit->browser->boxes; box; box = box->next)
		box->locked = false;
}

void dead_process(struct rabbit *rabbit)
{
	struct browser *browser = rabbit->browser;
	struct box *active = browser ? browser->active : NULL;

	if (!browser)
		return;
	if (active && active->state == PASS_LOCKING && active->retry_ms <= now_ms())
		lock(active);
	else if (active && active->state == PASS_SHOWING)
		show_some(active);
	for (struct box *box = browser->boxes; box; box = box->next)
		if (box->rotates)
			rotate_process(box);
}

int64_t dead_due_ms(const struct rabbit *rabbit)
{
	const struct browser *browser = rabbit->browser;
	const struct box *active = browser ? browser->active : NULL;
	int64_t due = NEVER, rotate;

	if (active && active->state == PASS_LOCKING)
		due = active->retry_ms;
	else if (active && active->state == PASS_SHOWING)
		due = 0;
	for (const struct box *box = browser ? browser->boxes : NULL; box; box = box->next) {
		rotate = box->rotates ? rotate_due_ms(box) : NEVER;
		due = rotate < due ? rotate : due;
	}
	return due;
}

void dead_close(struct rabbit *rabbit)
{
	struct browser *browser = rabbit->browser;

	if (!browser)
		return;
	ack_drop(browser);
	while (browser->boxes) {
		struct box *box = browser->boxes;

		browser->boxes = box->next;
		if (box->rotates)
			rotate_over(box, -ECANCELED, NULL);
		box_free(box);
	}
	rotate_close(browser);
	free(browser);
	rabbit->browser = NULL;
}
