/* SPDX-License-Identifier: MIT */
/*
 * The tables of keys: what there is, its default, its bounds, what a change of it touches, and the
 * sentence for the sample. Adding a key is adding a row and its field. Decides nothing; everything
 * else of the configuration reads it.
 */
#include "system/config/rows.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/nearest.h"
#include "system/config/check.h"
#include "system/credentials.h"

#include "base/banned.h"

#define SECOND INT64_C(1000)
#define DAY    (86400 * SECOND)
#define MEBI   (INT64_C(1) << 20)
#define PEBI   (INT64_C(1) << 50)
#define MANY   INT64_C(1000000000)

#define WORKERS_MAX 10000 /* of a type, in the cluster */

#define CONFIG_WORD_MAX 64 /* of a key: what stands between its dots */

static const char *const modes[] = {"event", "stream", "consumer", NULL};
static const char *const brakes[] = {"auto", "off", NULL};
static const char *const declares[] = {"auto", "none", NULL};
static const char *const inboxes[] = {"none", "sqlite", NULL};
static const char *const scopes[] = {"node", "cluster", NULL};

#define N_ROWS(rows) (sizeof(rows) / sizeof *(rows))
#define FIELD(field) .offset = offsetof(ROW_STRUCT, field)

#define ROW_STRUCT struct config
static const struct config_row node_rows[] = {
	{"node", CONFIG_KIND_TEXT, FIELD(node), .example = "web1", .check = config_check_name,
	 .touch = CONFIG_TOUCH_RESTART,
	 .sentence = "This node's name in the cluster. Default: the name of the host"},
	{"cluster", CONFIG_KIND_TEXT, FIELD(cluster), .fallback = "drover",
	 .check = config_check_label, .touch = CONFIG_TOUCH_RESTART,
	 .sentence = "The cluster's name: of the service and the keys in the registry, so that "
		     "several clusters can share one"},
	{"runtime_dir", CONFIG_KIND_TEXT, FIELD(runtime_dir), .fallback = RUNSTATEDIR "/drover",
	 .example = "/run/drover", .check = config_check_socket_dir, .touch = CONFIG_TOUCH_RESTART,
	 .sentence = "The directory of control.sock"},
	{"state_dir", CONFIG_KIND_TEXT, FIELD(state_dir), .fallback = LOCALSTATEDIR "/lib/drover",
	 .example = "/var/lib/drover", .check = config_check_path, .touch = CONFIG_TOUCH_RESTART,
	 .sentence = "The directory of what outlives droverd: queues, inboxes, overrides, the "
		     "node's id. One droverd per directory"},
	{"handlers", CONFIG_KIND_LIST, FIELD(handlers),
	 .fallback = "/usr/lib/drover/handlers:/usr/local/lib/drover/handlers",
	 .check = config_check_path, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "The directories that are watched for handlers; a file order.paid.so, "
		     "order.paid.php or an executable order.paid serves the type order.paid"},
	{"user", CONFIG_KIND_TEXT, FIELD(user), .example = "nobody", .check = config_check_user,
	 .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "The user that workers run as, unless their type names another. Default: "
		     "droverd's own, which may not be root; say \"root\" here if it must be"},
	{"weight", CONFIG_KIND_INT, FIELD(weight), .max = CONFIG_WEIGHT_MAX, .example = "4",
	 .touch = CONFIG_TOUCH_RESTART,
	 .sentence = "This node's part of the cluster's workers, beside the weights of the other "
		     "nodes; 0 is none. Default: the number of its processors"},
	{"address", CONFIG_KIND_TEXT, FIELD(address), .example = "10.0.0.1",
	 .check = config_check_address, .touch = CONFIG_TOUCH_RESTART,
	 .sentence = "The name or address of this node in the registry. Default: the one that the "
		     "registry has of this host"},
	{"autonomy_after", CONFIG_KIND_DURATION, FIELD(autonomy_after_ms), .min = SECOND,
	 .max = 30 * DAY, .fallback = "30s", .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "When no node of the cluster has led for so long, this one sizes its workers "
		     "by itself until one does; workers are never taken away for it"},
	{"settle", CONFIG_KIND_DURATION, FIELD(settle_ms), .max = DAY, .fallback = "12s",
	 .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "A node that is not there any more keeps its part of the workers for so long; "
		     "one that says that it leaves does not"},
};
#undef ROW_STRUCT

#define ROW_STRUCT struct config_plugin
static const struct config_row broker_rows[] = {
	{"name", CONFIG_KIND_TEXT, FIELD(name), .example = "main", .flags = CONFIG_ROW_REQUIRED,
	 .check = config_check_name, .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "How types refer to it"},
	{"plugin", CONFIG_KIND_TEXT, FIELD(plugin), .example = "sqlite",
	 .flags = CONFIG_ROW_REQUIRED, .check = config_check_plugin,
	 .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "Which plugin talks to it; `droverctl plugins` lists them"},
	{"service", CONFIG_KIND_TEXT, FIELD(service), .example = "rabbitmq",
	 .check = config_check_name, .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "The service of the registry whose instances are the broker's hosts, in place "
		     "of the plugin's own setting for them"},
};

static const struct config_row registry_rows[] = {
	{"plugin", CONFIG_KIND_TEXT, FIELD(plugin), .fallback = "none",
	 .check = config_check_plugin, .touch = CONFIG_TOUCH_RESTART,
	 .sentence = "Which plugin talks to it; \"none\" is a node by itself"},
};
#undef ROW_STRUCT

#define ROW_STRUCT struct config_type
#define LIMIT_MAX  (INT64_C(1) << 30)
static const struct config_row type_rows[] = {
	{"type", CONFIG_KIND_TEXT, FIELD(name), .example = "order.paid",
	 .flags = CONFIG_ROW_REQUIRED | CONFIG_ROW_OWN, .check = config_check_name,
	 .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "The type's name, and that of the kind of event it takes"},
	{"description", CONFIG_KIND_TEXT, FIELD(description), .example = "An order was paid for",
	 .flags = CONFIG_ROW_OWN, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "What the event says, for people who read status"},
	{"broker", CONFIG_KIND_TEXT, FIELD(broker), .fallback = "main", .check = config_check_name,
	 .touch = CONFIG_TOUCH_DISPATCHER, .sentence = "The broker its events come from"},
	{"queue", CONFIG_KIND_TEXT, FIELD(queue), .example = "order.paid", .flags = CONFIG_ROW_OWN,
	 .check = config_check_queue, .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "Its queue or topic; every type has one of its own. Default: the type's name"},
	{"bind", CONFIG_KIND_LIST, FIELD(bind), .example = "order.paid:order.refunded",
	 .flags = CONFIG_ROW_OWN, .check = config_check_filled, .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "Which types of event it receives. Default: its own name"},
	{"declare", CONFIG_KIND_CHOICE, FIELD(declare), .example = "auto", .choices = declares,
	 .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "Whether what is missing of its queue is made at the broker, or nothing is "
		     "touched there; \"none\" needs `dead_letter`, and `retry_queue` unless "
		     "`dead_letter` is \"broker\". Default: \"auto\"; with mode = \"consumer\" "
		     "\"none\", which then needs neither"},
	{"retry_queue", CONFIG_KIND_TEXT, FIELD(retry_queue), .example = "order.paid.retry",
	 .check = config_check_queue, .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "An existing queue where failed events wait, and from which they come back by "
		     "themselves. Default: the broker's own means"},
	{"dead_letter", CONFIG_KIND_TEXT, FIELD(dead_letter), .example = "order.paid.failed",
	 .check = config_check_queue, .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence =
		 "An existing queue for its dead letters; or \"broker\": they are rejected, and "
		 "the broker's own rule for its queue says what becomes of them. Default: the "
		 "broker's own means"},
	{"handler", CONFIG_KIND_COMMAND, FIELD(handler),
	 .example = "/usr/bin/php:/srv/app/current/artisan:drover", .flags = CONFIG_ROW_OWN,
	 .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "A file, or a command line as a list. Default: the file of its name in one of "
		     "the handlers directories"},
	{"mode", CONFIG_KIND_CHOICE, FIELD(mode), .fallback = "event", .choices = modes,
	 .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "How an executable gets its events: \"event\", a process for each; "
		     "\"stream\", a long-running program that reads one after the other; "
		     "\"consumer\", a long-running program that takes them from the broker by "
		     "itself"},
	{"user", CONFIG_KIND_TEXT, FIELD(user), .example = "nobody", .check = config_check_user,
	 .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "The user its workers run as. Default: `user` of the node"},
	{"group", CONFIG_KIND_TEXT, FIELD(group), .example = "nogroup", .check = config_check_group,
	 .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "The group its workers run as. Default: the user's primary group"},
	{"groups", CONFIG_KIND_LIST, FIELD(groups), .example = "nogroup",
	 .check = config_check_group, .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "Supplementary groups of its workers. Default: none"},
	{"environment", CONFIG_KIND_ENVIRONMENT, FIELD(environment),
	 .example = "APP_ENV=production", .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "Environment variables of its handler, as here or as a group { APP_ENV = "
		     "\"production\"; }. A type's are added to those of `defaults` and win over "
		     "them. Values are shown nowhere"},
	{"environment_file", CONFIG_KIND_TEXT, FIELD(environment_file),
	 .example = "/etc/drover/app.env", .check = credentials_check_source,
	 .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "A file of further variables, NAME=value a line as for systemd's "
		     "EnvironmentFile=; they win over `environment`. It may be readable by droverd "
		     "alone. A name without \"/\" is a credential of droverd's unit. It is read "
		     "when workers are started: after a change of it, `droverctl restart TYPE`"},
	{"credentials", CONFIG_KIND_LIST, FIELD(credentials), .example = "db-password",
	 .check = credentials_check, .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "Files that its workers can read, and no other user's: \"NAME:FILE\", or "
		     "\"NAME\" alone for a credential of droverd's unit. They find them in the "
		     "directory that $CREDENTIALS_DIRECTORY names. Read when workers are started, "
		     "too"},
	{"working_directory", CONFIG_KIND_TEXT, FIELD(working_directory), .example = "/srv/app",
	 .check = config_check_path, .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "The directory its handler runs in. Default: the root directory"},
	{"rlimits.nofile", CONFIG_KIND_LIMIT_COUNT, .example = "1024", .max = LIMIT_MAX,
	 .touch = CONFIG_TOUCH_TEMPLATE, .resource = RLIMIT_NOFILE,
	 .sentence = "Open files of a worker. All limits: see setrlimit(2); \"unlimited\" is a "
		     "value too. Default: droverd's own"},
	{"rlimits.as", CONFIG_KIND_LIMIT_SIZE, .example = "1G", .max = PEBI,
	 .touch = CONFIG_TOUCH_TEMPLATE, .resource = RLIMIT_AS, .sentence = "Address space"},
	{"rlimits.core", CONFIG_KIND_LIMIT_SIZE, .example = "0", .max = PEBI,
	 .touch = CONFIG_TOUCH_TEMPLATE, .resource = RLIMIT_CORE, .sentence = "Core dumps"},
	{"rlimits.cpu", CONFIG_KIND_LIMIT_SECONDS, .example = "1h", .min = 1,
	 .max = 3650 * DAY / SECOND, .touch = CONFIG_TOUCH_TEMPLATE, .resource = RLIMIT_CPU,
	 .sentence = "Processor time over a worker's whole life, in whole seconds"},
	{"rlimits.nproc", CONFIG_KIND_LIMIT_COUNT, .example = "512", .max = LIMIT_MAX,
	 .touch = CONFIG_TOUCH_TEMPLATE, .resource = RLIMIT_NPROC,
	 .sentence = "Processes of the worker's user"},
	{"rlimits.fsize", CONFIG_KIND_LIMIT_SIZE, .example = "1G", .max = PEBI,
	 .touch = CONFIG_TOUCH_TEMPLATE, .resource = RLIMIT_FSIZE,
	 .sentence = "A file that it writes"},
	{"rlimits.data", CONFIG_KIND_LIMIT_SIZE, .example = "512M", .max = PEBI,
	 .touch = CONFIG_TOUCH_TEMPLATE, .resource = RLIMIT_DATA, .sentence = "Data segment"},
	{"rlimits.stack", CONFIG_KIND_LIMIT_SIZE, .example = "8M", .max = PEBI,
	 .touch = CONFIG_TOUCH_TEMPLATE, .resource = RLIMIT_STACK, .sentence = "Stack"},
	{"rlimits.memlock", CONFIG_KIND_LIMIT_SIZE, .example = "8M", .max = PEBI,
	 .touch = CONFIG_TOUCH_TEMPLATE, .resource = RLIMIT_MEMLOCK, .sentence = "Locked memory"},
	{"nice", CONFIG_KIND_INT, FIELD(nice), .min = -20, .max = 19, .fallback = "0",
	 .touch = CONFIG_TOUCH_TEMPLATE,
	 .sentence = "Added to droverd's own niceness; below 0 needs privileges"},

	{"objective", CONFIG_KIND_DURATION, FIELD(objective_ms), .min = 10, .max = 30 * DAY,
	 .fallback = "5s", .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "An event waits at most this long; as many workers are started as that takes"},
	{"min", CONFIG_KIND_INT, FIELD(min), .max = WORKERS_MAX, .fallback = "0",
	 .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "Workers that are there also without work, in the whole cluster"},
	{"max", CONFIG_KIND_INT, FIELD(max), .max = WORKERS_MAX, .fallback = "8",
	 .touch = CONFIG_TOUCH_LIVE, .sentence = "Workers at most, in the whole cluster"},
	{"node_max", CONFIG_KIND_INT, FIELD(node_max), .max = WORKERS_MAX, .fallback = "0",
	 .touch = CONFIG_TOUCH_LIVE, .sentence = "Workers at most on one node; 0 is no bound"},
	{"exclusive", CONFIG_KIND_BOOL, FIELD(exclusive), .fallback = "false",
	 .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "One worker at a time, anywhere; `max = 1` does not promise that while nodes "
		     "come and go"},

	{"timeout", CONFIG_KIND_DURATION, FIELD(timeout_ms), .min = 10, .max = 30 * DAY,
	 .fallback = "60s", .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "An event that is handled longer than this counts as failed, and its worker "
		     "is ended"},
	{"stop_timeout", CONFIG_KIND_DURATION, FIELD(stop_timeout_ms), .min = 10, .max = 30 * DAY,
	 .example = "60s", .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "How long busy workers may go on when droverd stops or the type is removed; "
		     "then their events are given back. Default: `timeout`"},
	{"max_attempts", CONFIG_KIND_INT, FIELD(max_attempts), .min = 1, .max = 1000,
	 .fallback = "15", .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "An event that failed as often becomes a dead letter"},
	{"retry.first", CONFIG_KIND_DURATION, FIELD(retry_first_ms), .max = 30 * DAY,
	 .fallback = "1s", .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "The wait before the second attempt"},
	{"retry.factor", CONFIG_KIND_FACTOR, FIELD(retry_factor_percent), .min = 100, .max = 10000,
	 .fallback = "3", .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "Each further wait is as many times longer"},
	{"retry.cap", CONFIG_KIND_DURATION, FIELD(retry_cap_ms), .max = 30 * DAY, .fallback = "10m",
	 .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "But never longer than this"},
	{"brake", CONFIG_KIND_CHOICE, FIELD(brake), .fallback = "auto", .choices = brakes,
	 .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "When most events fail, hand out single ones as probes instead of burning the "
		     "attempts of all; \"off\" is for types that fail by nature"},

	{"inbox", CONFIG_KIND_CHOICE, FIELD(inbox), .fallback = "none", .choices = inboxes,
	 .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "Remember the events that were handled, and handle none twice on this node"},
	{"inbox_key", CONFIG_KIND_TEXT, FIELD(inbox_key), .example = "order_id",
	 .check = config_check_filled, .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_DISPATCHER,
	 .sentence = "The top-level JSON field that tells events apart. Default: source and id of "
		     "the event"},
	{"inbox_keep", CONFIG_KIND_DURATION, FIELD(inbox_keep_ms), .min = SECOND, .max = 3650 * DAY,
	 .fallback = "7d", .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "How long they are remembered"},

	{"recycle.events", CONFIG_KIND_COUNT, FIELD(recycle_events), .max = MANY, .fallback = "0",
	 .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "A worker is replaced after so many events; 0 is never"},
	{"recycle.age", CONFIG_KIND_DURATION, FIELD(recycle_age_ms), .max = 3650 * DAY,
	 .fallback = "0", .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "A worker is replaced at this age; 0 is never"},
	{"recycle.memory", CONFIG_KIND_SIZE, FIELD(recycle_bytes), .max = PEBI, .fallback = "0",
	 .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "A worker is replaced when it has grown to this; 0 is never"},

	{"log_rate", CONFIG_KIND_COUNT, FIELD(log_rate), .max = 100000, .fallback = "200",
	 .touch = CONFIG_TOUCH_LIVE,
	 .sentence =
		 "Lines a second that its handler may print, in all workers of a node together; "
		 "five times as many at once"},

	{"content_type", CONFIG_KIND_TEXT, FIELD(content_type), .example = "application/json",
	 .check = config_check_media_type, .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "The media type that events must have. Default: any"},
	{"max_bytes", CONFIG_KIND_SIZE, FIELD(max_bytes), .min = 1, .max = 32 * MEBI,
	 .fallback = "16M", .flags = CONFIG_ROW_HANDS, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "The largest body an event may have"},
	{"required", CONFIG_KIND_LIST, FIELD(required), .example = "order_id:user_id",
	 .flags = CONFIG_ROW_OWN | CONFIG_ROW_HANDS, .check = config_check_filled,
	 .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "Top-level JSON fields that events must have. What breaks the definition is "
		     "refused when it is published, and a dead letter when it is taken"},
};
#undef ROW_STRUCT

#define ROW_STRUCT struct config_budget
static const struct config_row budget_rows[] = {
	{"name", CONFIG_KIND_TEXT, FIELD(name), .example = "node", .flags = CONFIG_ROW_REQUIRED,
	 .check = config_check_name, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "How status and `droverctl why` call it"},
	{"types", CONFIG_KIND_LIST, FIELD(types), .example = "*", .flags = CONFIG_ROW_REQUIRED,
	 .check = config_check_filled, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "Patterns of the types that share it, as the shell's: \"order.*\""},
	{"max", CONFIG_KIND_INT, FIELD(max), .min = 1, .max = 10 * WORKERS_MAX, .example = "30",
	 .flags = CONFIG_ROW_REQUIRED, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "Workers at most, of all of them"},
	{"floor", CONFIG_KIND_INT, FIELD(floor), .max = WORKERS_MAX, .fallback = "0",
	 .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "Workers that each of them gets before any gets more"},
	{"scope", CONFIG_KIND_CHOICE, FIELD(scope), .fallback = "node", .choices = scopes,
	 .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "Where they are counted: on this node, or in the whole cluster; the node that "
		     "leads it goes by its own configuration"},
};
#undef ROW_STRUCT

#define ROW_STRUCT struct config_owners
static const struct config_row owners_rows[] = {
	{"directory", CONFIG_KIND_TEXT, FIELD(directory), .example = "/srv/app",
	 .flags = CONFIG_ROW_REQUIRED, .check = config_check_path, .touch = CONFIG_TOUCH_LIVE,
	 .sentence =
		 "One of `handlers`, or any in which a type's `handler` lies; with all below it"},
	{"owners", CONFIG_KIND_LIST, FIELD(owners), .example = "nobody",
	 .flags = CONFIG_ROW_REQUIRED, .check = config_check_user, .touch = CONFIG_TOUCH_LIVE,
	 .sentence = "The users that may own the handler files there, and the directories"},
};
#undef ROW_STRUCT

_Static_assert(N_ROWS(type_rows) <= CONFIG_ROWS_MAX, "CONFIG_ROWS_MAX is for the longest table");

const char config_defaults_sentence[] =
	"What holds for every type that does not say otherwise, and for types that have nothing "
	"but a handler file";

const struct config_table config_table_node = {"", node_rows, N_ROWS(node_rows), false, NULL};
const struct config_table config_table_brokers =
	{"brokers", broker_rows, N_ROWS(broker_rows), true,
	 "Where events come from. Further keys are the plugin's own. Without any broker there is "
	 "one: \"main\", the embedded one in the directory \"queue\" of state_dir"};
const struct config_table config_table_registry =
	{"registry", registry_rows, N_ROWS(registry_rows), true,
	 "Where the nodes of a cluster find each other. Further keys are the plugin's own"};
const struct config_table config_table_types =
	{"types", type_rows, N_ROWS(type_rows), false,
	 "The event types. One that has a handler file and no entry here is served with the "
	 "defaults. An entry may have every key of `defaults` too; where it has not, the value of "
	 "`defaults` holds"};
const struct config_table config_table_budgets = {"budgets", budget_rows, N_ROWS(budget_rows),
						  false, "Bounds that types share, 64 at most"};
const struct config_table config_table_owners = {
	"handler_owners", owners_rows, N_ROWS(owners_rows), false,
	"Who can change a handler decides what runs, so it must be owned by root or the user it runs "
	"as. Here others are allowed as well, directory by directory, as one who ships handlers "
	"without being root"};

const struct config_row *config_row_find(const struct config_table *table, const char *key)
{
	for (size_t i = 0; i < table->n_rows; i++)
		if (!strcmp(table->rows[i].key, key))
			return &table->rows[i];
	return NULL;
}

bool config_row_is_group(const struct config_table *table, const char *name)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < table->n_rows; i++)
		if (!strncmp(table->rows[i].key, name, length) && table->rows[i].key[length] == '.')
			return true;
	return false;
}

/* A part of a key, up to its next dot, or a whole word. */
struct part {
	const char *text; /* NULL while nothing is near enough */
	size_t length, distance;
};

static void consider(struct part *nearest, const char *name, const char *candidate, size_t length)
{
	char word[CONFIG_WORD_MAX];
	size_t distance;

	snprintf(word, sizeof word, "%.*s", (int)length, candidate);
	distance = nearest_distance(name, word);
	if (distance < nearest->distance)
		*nearest = (struct part){candidate, length, distance};
}

const char *config_row_nearest(const struct config_table *table, const char *prefix, unsigned flags,
			       const char *const *extra, const char *name, size_t *ret_length)
{
	struct part nearest = {.distance = SIZE_MAX};
	size_t skip = strlen(prefix);

	for (size_t i = 0; i < table->n_rows; i++) {
		const struct config_row *row = &table->rows[i];

		if (!strncmp(row->key, prefix, skip) && !(row->flags & flags))
			consider(&nearest, name, row->key + skip, strcspn(row->key + skip, "."));
	}
	for (size_t i = 0; extra && extra[i]; i++)
		consider(&nearest, name, extra[i], strlen(extra[i]));
	*ret_length = nearest.length;
	return nearest.text;
}
