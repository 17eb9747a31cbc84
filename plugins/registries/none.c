/* SPDX-License-Identifier: MIT */
/*
 * The registry of a node that has none: there is nobody to tell and nobody to hear of, so it is
 * always up and whatever is reported goes nowhere. It is a plugin like any other, so that a node
 * without a registry takes the same path as one with it.
 */
#include <drover/registry.h>

static int none_open(const struct drover_host *host, const struct drover_registration *self,
		     const struct drover_registry_callbacks *callbacks, void **ret_registry,
		     char *error_text, size_t error_size)
{
	static char nothing;

	(void)host;
	(void)self;
	(void)error_text;
	(void)error_size;
	callbacks->state(callbacks->context, DROVER_REGISTRY_UP,
			 "no registry: this node is on its own");
	*ret_registry = &nothing;
	return 0;
}

static void none_close(void *registry)
{
	(void)registry;
}

static int none_fd(void *registry)
{
	(void)registry;
	return -1;
}

static uint32_t none_events(void *registry)
{
	(void)registry;
	return 0;
}

static int64_t none_timeout_ms(void *registry)
{
	(void)registry;
	return -1;
}

static void none_process(void *registry)
{
	(void)registry;
}

static int none_report(void *registry, const struct drover_report *report)
{
	(void)registry;
	(void)report;
	return 0;
}

static int none_deregister(void *registry)
{
	(void)registry;
	return 0;
}

DROVER_EXPORT const struct drover_registry drover_plugin = {
	DROVER_PLUGIN(DROVER_KIND_REGISTRY, struct drover_registry, "none"),
	.plugin.sentence = "no registry: the node is on its own",
	.open = none_open,
	.close = none_close,
	.fd = none_fd,
	.events = none_events,
	.timeout_ms = none_timeout_ms,
	.process = none_process,
	.report = none_report,
	.deregister = none_deregister,
};
