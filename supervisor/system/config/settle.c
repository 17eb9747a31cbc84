/* SPDX-License-Identifier: MIT */
/*
 * The whole of a configuration: names that refer to each other, things that may exist once, values
 * that are computed from others. Reads no files and looks at no single value's form, which its row
 * has checked already. Called by config_load when all files could be parsed, also when some of
 * their settings were refused.
 */
#include "system/config/settle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "policy/budget.h"
#include "system/config/check.h"

#include "base/banned.h"

#define HOST_NAME_SIZE 256

static void name_node(struct config *config, struct config_errors *errors)
{
	char host[HOST_NAME_SIZE] = "";
	struct why why;

	if (config->node)
		return;
	gethostname(host, sizeof host - 1);
	if (config_check_name(host, &why) < 0)
		config_error_add(errors, NULL,
				 "node: the name of this host, \"%s\", cannot be the node's: %s; "
				 "write node = \"…\";",
				 host, why.text);
	config->node = arena_text(&config->memory, host);
}

static void weigh_node(struct config *config)
{
	long processors;

	if (config->weight >= 0)
		return;
	processors = sysconf(_SC_NPROCESSORS_ONLN);
	config->weight = processors < 1                   ? 1
			 : processors > CONFIG_WEIGHT_MAX ? CONFIG_WEIGHT_MAX
							  : (int)processors;
}

/* Two entries of a name, in whatever files. */
static void refuse_twice(struct config_errors *errors, const char *section, const char *name,
			 const struct config_place *first, const struct config_place *again)
{
	config_error_add(errors, again, "%s.%s: already defined at %s:%u", section, name,
			 first->file, first->line);
}

static void add_default_broker(struct config *config)
{
	struct arena *memory = &config->memory;
	struct config_plugin *broker = &config->brokers[0];
	struct config_setting *setting = arena_alloc(memory, sizeof *setting);
	char **values = arena_alloc(memory, sizeof *values);

	*broker = (struct config_plugin){.name = arena_text(memory, "main"),
					 .plugin = arena_text(memory, "sqlite"),
					 .settings = setting,
					 .n_settings = 1,
					 .place.file = ""};
	if (!setting || !values)
		return;
	values[0] = arena_text(memory, "queue");
	*setting = (struct config_setting){.name = arena_text(memory, "path"),
					   .values = values,
					   .n_values = 1,
					   .place.file = ""};
	config->n_brokers = 1;
}

static void settle_brokers(struct config *config, struct config_errors *errors)
{
	for (size_t i = 0; i < config->n_brokers; i++) {
		const struct config_plugin *broker = &config->brokers[i], *first;

		first = config_find_broker(config, broker->name);
		if (first != broker)
			refuse_twice(errors, "brokers", broker->name, &first->place,
				     &broker->place);
	}
	if (!config->n_brokers)
		add_default_broker(config);
}

static void settle_budgets(const struct config *config, struct config_errors *errors)
{
	for (size_t i = 0; i < config->n_budgets; i++) {
		const struct config_budget *budget = &config->budgets[i], *first = config->budgets;

		while (strcmp(first->name, budget->name))
			first++;
		if (first != budget)
			refuse_twice(errors, "budgets", budget->name, &first->place,
				     &budget->place);
	}
	if (config->n_budgets > BUDGETS_MAX)
		config_error_add(errors, &config->budgets[BUDGETS_MAX].place,
				 "budgets: there are %zu; %d are allowed", config->n_budgets,
				 BUDGETS_MAX);
}

static void settle_owners(const struct config *config, struct config_errors *errors)
{
	for (size_t i = 0; i < config->n_handler_owners; i++) {
		const struct config_owners *owners = &config->handler_owners[i],
					   *first = config->handler_owners;

		while (strcmp(first->directory, owners->directory))
			first++;
		if (first != owners)
			refuse_twice(errors, "handler_owners", owners->directory, &first->place,
				     &owners->place);
	}
}

/* A type names its own queue, or binds its own name alone: that says nothing. */
static void simplify(struct config_type *type)
{
	if (type->queue && !strcmp(type->queue, type->name))
		type->queue = NULL;
	if (type->bind && !strcmp(type->bind[0], type->name) && !type->bind[1])
		type->bind = NULL;
}

static void list_brokers(const struct config *config, struct buf *names)
{
	for (size_t i = 0; i < config->n_brokers; i++)
		buf_printf(names, "%s\"%s\"", i ? ", " : "", config->brokers[i].name);
}

/* What it inherited is told once, with `defaults`. */
static void check_broker(const struct config *config, const struct config_type *type,
			 struct config_errors *errors)
{
	const struct config_place *place = &type->place;
	struct buf names = {0};

	if (config_find_broker(config, type->broker) ||
	    (type->name && type->broker == config->defaults.broker))
		return;
	if (!place->line)
		place = &config->brokers[0].place;
	list_brokers(config, &names);
	config_error_add(errors, place, "%s%s.broker = \"%s\": no such broker; there is %s",
			 type->name ? "types." : "defaults", type->name ? type->name : "",
			 type->broker, buf_text(&names));
	buf_free(&names);
}

static bool same_text(const char *a, const char *b)
{
	return a && b && !strcmp(a, b);
}

/* Why the queues that it names do not do; NULL: they do. A consumer's retries are its own. */
static const char *find_fault(const struct config_type *type)
{
	const char *queue = type->queue ? type->queue : type->name;
	bool rejects = same_text(type->dead_letter, "broker");

	if (type->declare == CONFIG_DECLARE_NONE && !type->dead_letter)
		return "declare = \"none\": no place is made for what failed for good, so "
		       "dead_letter is needed: the name of an existing queue, or \"broker\" for "
		       "the dead-letter exchange of its own queue";
	if (type->declare == CONFIG_DECLARE_NONE && !rejects && !type->retry_queue &&
	    type->mode != CONFIG_MODE_CONSUMER)
		return "declare = \"none\": no place is made for what waits for its next attempt, "
		       "so retry_queue is needed: the name of an existing queue whose events come "
		       "back by themselves; only dead_letter = \"broker\" goes without it";
	if (same_text(type->retry_queue, "broker"))
		return "retry_queue = \"broker\": a queue's name is needed; only dead_letter can be "
		       "\"broker\"";
	if (same_text(type->retry_queue, queue))
		return "retry_queue: that is its own queue, where an event would fail again at once";
	if (same_text(type->dead_letter, queue))
		return "dead_letter: that is its own queue, where a dead letter would be handled "
		       "again at once";
	if (same_text(type->dead_letter, type->retry_queue))
		return "dead_letter: that is its retry_queue, from where a dead letter would come "
		       "back";
	return NULL;
}

/* Types that nobody wrote down have what `defaults` say, so these must do by themselves. */
static void check_topology(const struct config *config, const struct config_type *type,
			   struct config_errors *errors)
{
	const char *fault = find_fault(type), *inherited = find_fault(&config->defaults);

	if (!fault || (type->name && fault == inherited))
		return;
	config_error_add(errors, &type->place, "%s%s.%s", type->name ? "types." : "defaults",
			 type->name ? type->name : "", fault);
}

/*
 * A consumer looks after its queue by itself: one that we made first would be refused to it, and what
 * it gives up goes where the broker sends it.
 */
static void settle_topology(struct config *config, struct config_type *type)
{
	bool consumes = type->mode == CONFIG_MODE_CONSUMER;

	if (type->declare < 0)
		type->declare = consumes ? CONFIG_DECLARE_NONE : CONFIG_DECLARE_AUTO;
	if (consumes && type->declare == CONFIG_DECLARE_NONE && !type->dead_letter)
		type->dead_letter = arena_text(&config->memory, "broker");
}

static void settle_type(struct config *config, struct config_type *type,
			struct config_errors *errors)
{
	if (type->name)
		simplify(type);
	if (type->stop_timeout_ms < 0)
		type->stop_timeout_ms = type->timeout_ms;
	if (!type->user)
		type->user = config->user;
	settle_topology(config, type);
	check_broker(config, type, errors);
	check_topology(config, type, errors);
}

static int compare_types(const void *a_, const void *b_)
{
	const struct config_type *a = a_, *b = b_;

	return strcmp(a->name, b->name);
}

static const char *queue_of(const struct config_type *type)
{
	return type->queue ? type->queue : type->name;
}

static int compare_queues(const void *a_, const void *b_)
{
	const struct config_type *a = *(const struct config_type *const *)a_,
				 *b = *(const struct config_type *const *)b_;
	int r = strcmp(a->broker, b->broker);

	return r ? r : strcmp(queue_of(a), queue_of(b));
}

/* Events of a shared queue would go to whichever type takes them first. */
static int check_queues(const struct config *config, struct config_errors *errors)
{
	const struct config_type **by_queue = calloc(config->n_types + 1, sizeof *by_queue);

	if (!by_queue)
		return -ENOMEM;
	for (size_t i = 0; i < config->n_types; i++)
		by_queue[i] = &config->types[i];
	qsort(by_queue, config->n_types, sizeof *by_queue, compare_queues);
	for (size_t i = 1; i < config->n_types; i++) {
		const struct config_type *a = by_queue[i - 1], *b = by_queue[i];

		if (!compare_queues(&by_queue[i - 1], &by_queue[i]) && strcmp(a->name, b->name))
			config_error_add(errors, &b->place,
					 "types.%s.queue = \"%s\": that is the queue of types.%s "
					 "(%s:%u); each type has one of its own",
					 b->name, queue_of(b), a->name, a->place.file,
					 a->place.line);
	}
	free(by_queue);
	return 0;
}

static bool stands_before(const struct config *config, const struct config_place *a,
			  const struct config_place *b)
{
	if (a->file == b->file)
		return a->line <= b->line;
	for (size_t i = 0; i < config->n_files; i++)
		if (config->files[i] == a->file || config->files[i] == b->file)
			return config->files[i] == a->file;
	return true;
}

static int settle_types(struct config *config, struct config_errors *errors)
{
	for (size_t i = 0; i < config->n_types; i++)
		settle_type(config, &config->types[i], errors);
	if (config->n_types)
		qsort(config->types, config->n_types, sizeof *config->types, compare_types);
	for (size_t i = 1; i < config->n_types; i++) {
		const struct config_type *a = &config->types[i - 1], *b = a + 1;

		if (strcmp(a->name, b->name))
			continue;
		if (stands_before(config, &a->place, &b->place))
			refuse_twice(errors, "types", a->name, &a->place, &b->place);
		else
			refuse_twice(errors, "types", a->name, &b->place, &a->place);
	}
	return check_queues(config, errors);
}

int config_settle(struct config *config, struct config_errors *errors)
{
	static char *no_directories[] = {NULL};
	int r;

	if (!config->handlers)
		config->handlers = no_directories;
	name_node(config, errors);
	weigh_node(config);
	settle_brokers(config, errors);
	settle_budgets(config, errors);
	settle_owners(config, errors);
	/* Before the types, which inherited from it and are told only what is their own. */
	settle_type(config, &config->defaults, errors);
	r = settle_types(config, errors);
	return config->memory.failed ? -ENOMEM : r;
}
