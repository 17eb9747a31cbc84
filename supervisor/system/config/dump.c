/* SPDX-License-Identifier: MIT */
/*
 * Writes configurations: the effective one for --dump-config, and the sample file with every key.
 * Both go by the rows. Never writes a secret: values of environments and settings that are called
 * like one are redacted. Called by droverd, and by the test that keeps etc/drover.conf true.
 */
#include "system/config.h"

#include <string.h>
#include <strings.h>

#include "system/config/rows.h"
#include "system/config/value.h"

#include "base/banned.h"

const char *config_mode_name(int mode)
{
	return config_row_find(&config_table_types, "mode")->choices[mode];
}

const char *config_brake_name(int brake)
{
	return config_row_find(&config_table_types, "brake")->choices[brake];
}

const char *config_declare_name(int declare)
{
	return config_row_find(&config_table_types, "declare")->choices[declare];
}

const char *config_inbox_name(int inbox)
{
	return config_row_find(&config_table_types, "inbox")->choices[inbox];
}

/* Writes rows as settings; opens and closes the groups of dotted keys. */
struct writer {
	struct buf *out;
	unsigned depth;      /* of indentation */
	const char *comment; /* before each line: "" or "#" */
	char group[32];      /* that is open; "" for none */
};

static void start_line(struct writer *writer, const char *prefix)
{
	buf_append_text(writer->out, prefix);
	for (unsigned i = 0; i < writer->depth; i++)
		buf_append_text(writer->out, "\t");
}

static void line(struct writer *writer, const char *text)
{
	start_line(writer, writer->comment);
	buf_append_text(writer->out, text);
	buf_append_text(writer->out, "\n");
}

static void leave_group(struct writer *writer)
{
	if (!*writer->group)
		return;
	*writer->group = '\0';
	writer->depth--;
	line(writer, "};");
}

/* Enters the group that `key` is in; returns its name there. */
static const char *enter_group(struct writer *writer, const char *key)
{
	const char *dot = strchr(key, '.');
	size_t length = dot ? (size_t)(dot - key) : 0;

	if (*writer->group &&
	    (strncmp(writer->group, key, length) || writer->group[length] || !length))
		leave_group(writer);
	if (!dot)
		return key;
	if (!*writer->group) {
		start_line(writer, writer->comment);
		buf_printf(writer->out, "%.*s = {\n", (int)length, key);
		memcpy(writer->group, key, length);
		writer->group[length] = '\0';
		writer->depth++;
	}
	return dot + 1;
}

static void write_row(struct writer *writer, const struct config_row *row, const void *base,
		      bool redact)
{
	const char *name = enter_group(writer, row->key);

	start_line(writer, writer->comment);
	buf_printf(writer->out, "%s = ", name);
	config_value_print(row, base, redact, writer->out);
	buf_append_text(writer->out, ";\n");
}

/*
 * All rows without `without` that are set. What is not set here but is in `inherited` (NULL: there
 * is none) has to be written too, else it would be inherited when this is read again.
 */
static void write_rows(struct writer *writer, const struct config_table *table, const void *base,
		       const void *inherited, unsigned without)
{
	for (size_t i = 0; i < table->n_rows; i++) {
		const struct config_row *row = &table->rows[i];

		if (row->flags & without)
			continue;
		if (config_value_is_set(row, base) ||
		    (inherited && config_value_is_set(row, inherited)))
			write_row(writer, row, base, true);
	}
	leave_group(writer);
}

/* A setting that is called like a secret is one, whatever its plugin calls it. */
static bool is_secret(const char *name)
{
	static const char *const words[] = {"password",   "passwd",  "passphrase",
					    "secret",     "token",   "private",
					    "credential", "api_key", "apikey"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcasestr(name, words[i]))
			return true;
	return false;
}

static void write_setting(struct writer *writer, const struct config_setting *setting)
{
	bool list = setting->n_values != 1, secret = setting->secret || is_secret(setting->name);

	start_line(writer, writer->comment);
	buf_printf(writer->out, "%s = %s", setting->name, list ? "[" : "");
	for (size_t i = 0; i < setting->n_values; i++) {
		buf_append_text(writer->out, !list ? "" : i ? ", " : " ");
		config_value_print_text(secret ? CONFIG_REDACTED : setting->values[i], writer->out);
	}
	buf_append_text(writer->out, list ? " ];\n" : ";\n");
}

static void write_plugin(struct writer *writer, const struct config_table *table,
			 const struct config_plugin *plugin)
{
	write_rows(writer, table, plugin, NULL, 0);
	for (size_t i = 0; i < plugin->n_settings; i++)
		write_setting(writer, &plugin->settings[i]);
}

static void open_section(struct writer *writer, const char *name, const char *bracket)
{
	start_line(writer, writer->comment);
	buf_printf(writer->out, "%s = %s\n", name, bracket);
	writer->depth++;
}

static void close_section(struct writer *writer, const char *bracket)
{
	writer->depth--;
	line(writer, bracket);
}

/* Between the groups of a list; before the first one nothing. */
static void next_entry(struct writer *writer, bool first)
{
	if (first) {
		line(writer, "{");
		writer->depth++;
		return;
	}
	writer->depth--;
	line(writer, "}, {");
	writer->depth++;
}

static void close_list(struct writer *writer, bool empty)
{
	if (!empty)
		close_section(writer, "}");
	close_section(writer, ");");
}

/* What NULL stands for is written, as a reader wants to know what is in force. */
static struct config_type spell_out(const struct config_type *type, char *own_name[2])
{
	struct config_type spelt = *type;

	own_name[0] = type->name;
	own_name[1] = NULL;
	if (!spelt.queue)
		spelt.queue = type->name;
	if (!spelt.bind)
		spelt.bind = own_name;
	return spelt;
}

void config_dump(const struct config *config, struct buf *out)
{
	struct writer writer = {.out = out, .comment = ""};

	write_rows(&writer, &config_table_node, config, NULL, 0);
	open_section(&writer, "brokers", "(");
	for (size_t i = 0; i < config->n_brokers; i++) {
		next_entry(&writer, !i);
		write_plugin(&writer, &config_table_brokers, &config->brokers[i]);
	}
	close_list(&writer, !config->n_brokers);
	open_section(&writer, "registry", "{");
	write_plugin(&writer, &config_table_registry, &config->registry);
	close_section(&writer, "};");
	open_section(&writer, "defaults", "{");
	write_rows(&writer, &config_table_types, &config->defaults, NULL, CONFIG_ROW_OWN);
	close_section(&writer, "};");
	open_section(&writer, "types", "(");
	for (size_t i = 0; i < config->n_types; i++) {
		char *own_name[2];
		struct config_type type = spell_out(&config->types[i], own_name);
		bool consumes = type.mode == CONFIG_MODE_CONSUMER;

		next_entry(&writer, !i);
		write_rows(&writer, &config_table_types, &type, &config->defaults,
			   consumes ? CONFIG_ROW_HANDS : 0);
	}
	close_list(&writer, !config->n_types);
	open_section(&writer, "budgets", "(");
	for (size_t i = 0; i < config->n_budgets; i++) {
		next_entry(&writer, !i);
		write_rows(&writer, &config_table_budgets, &config->budgets[i], NULL, 0);
	}
	close_list(&writer, !config->n_budgets);
	open_section(&writer, "handler_owners", "(");
	for (size_t i = 0; i < config->n_handler_owners; i++) {
		next_entry(&writer, !i);
		write_rows(&writer, &config_table_owners, &config->handler_owners[i], NULL, 0);
	}
	close_list(&writer, !config->n_handler_owners);
}

#define COMMENT_WIDTH 96
#define TAB_WIDTH     8

/* `text` as comment lines, broken between words. */
static void explain(struct writer *writer, const char *text)
{
	size_t width = COMMENT_WIDTH - writer->depth * TAB_WIDTH;

	while (*text) {
		size_t length = strlen(text);

		if (length > width)
			for (length = width; length && text[length] != ' ';)
				length--;
		start_line(writer, "#");
		buf_append_text(writer->out, writer->depth ? "# " : " ");
		buf_append(writer->out, text, length);
		buf_append_text(writer->out, "\n");
		text += length;
		text += *text == ' ';
	}
}

static void explain_row(struct writer *writer, const struct config_row *row)
{
	char allowed[CONFIG_ALLOWED_MAX];
	struct buf text = {0};

	config_value_allowed(row, allowed);
	buf_printf(&text, "%s.", row->sentence);
	if (*allowed)
		buf_printf(&text, " Allowed: %s.", allowed);
	explain(writer, buf_text(&text));
	buf_free(&text);
}

static void explain_section(struct writer *writer, const char *sentence)
{
	struct buf text = {0};

	buf_printf(&text, "%s.", sentence);
	buf_append_text(writer->out, "\n");
	explain(writer, buf_text(&text));
	buf_free(&text);
}

/*
 * The rows of a section that are, or are not, of a type itself: each with its sentence and its
 * default, or an example where the default is none.
 */
static void sample_rows(struct writer *writer, const struct config_table *table, bool own)
{
	union {
		struct config node;
		struct config_plugin plugin;
		struct config_type type;
		struct config_budget budget;
		struct config_owners owners;
	} base = {0};
	struct arena memory = {0};

	for (size_t i = 0; i < table->n_rows; i++) {
		const struct config_row *row = &table->rows[i];

		if (own != !!(row->flags & CONFIG_ROW_OWN))
			continue;
		config_value_fill(row, row->example, &base, &memory);
		if (memory.failed) {
			writer->out->failed = true;
			break;
		}
		enter_group(writer, row->key);
		explain_row(writer, row);
		write_row(writer, row, &base, false);
	}
	leave_group(writer);
	arena_free(&memory);
}

static void sample_list(struct writer *writer, const struct config_table *table)
{
	explain_section(writer, table->sentence);
	open_section(writer, table->name, "(");
	next_entry(writer, true);
	sample_rows(writer, table, table == &config_table_types);
	if (table == &config_table_brokers) {
		explain(writer, "A setting of the plugin sqlite: its directory, in state_dir.");
		line(writer, "path = \"queue\";");
	}
	close_list(writer, false);
}

void config_sample(struct buf *out)
{
	struct writer writer = {.out = out, .comment = "#"};

	explain(&writer, "The configuration of Drover; see drover.conf(5). Every key is here, "
			 "commented out, with its default, or with an example where it has none. "
			 "An empty file works.");
	explain(&writer, "*.conf in the directory conf.d beside this file are read after it, "
			 "sorted by name; they add to brokers, types and budgets. "
			 "`droverd --check` says whether all is well, `droverd --dump-config` what "
			 "is in force.");
	buf_append_text(out, "\n");
	sample_rows(&writer, &config_table_node, false);
	sample_list(&writer, &config_table_brokers);
	explain_section(&writer, config_table_registry.sentence);
	open_section(&writer, "registry", "{");
	sample_rows(&writer, &config_table_registry, false);
	close_section(&writer, "};");
	explain_section(&writer, config_defaults_sentence);
	open_section(&writer, "defaults", "{");
	sample_rows(&writer, &config_table_types, false);
	close_section(&writer, "};");
	sample_list(&writer, &config_table_types);
	sample_list(&writer, &config_table_budgets);
	sample_list(&writer, &config_table_owners);
}
