/* SPDX-License-Identifier: MIT */
/*
 * The way to the management API: loads rabbitmq/management.so, which lies beside this plugin, when
 * the first question is asked, and never in a dispatcher; gives it its place in the handle's loop.
 * Decides nothing about what is asked. Called by topology.c and depths.c.
 */
#include "rabbitmq.h"

#include "../rabbitmq-management/management.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define MODULE     "rabbitmq/management.so"
#define TIMEOUT_MS 4000

struct api {
	void *module;
	const struct management_calls *calls;
	struct management *management;
	int error; /* it cannot be used; said in the log */
};

static int load(struct api *api, struct fault *fault)
{
	char path[PATH_MAX];
	const char *slash;
	Dl_info info;

	if (!dladdr(settings_options, &info) || !(slash = strrchr(info.dli_fname, '/')) ||
	    snprintf(path, sizeof path, "%.*s/%s", (int)(slash - info.dli_fname), info.dli_fname,
		     MODULE) >= (int)sizeof path)
		return fault_set(fault, -ENOENT, "it is not known where %s would be", MODULE);
	api->module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!api->module)
		return fault_set(fault, -ENOENT, "%s", dlerror());
	api->calls = dlsym(api->module, MANAGEMENT_SYMBOL);
	if (!api->calls || api->calls->version != MANAGEMENT_VERSION)
		return fault_set(fault, -EINVAL, "%s is of another version than this plugin", path);
	return 0;
}

static const struct endpoint *endpoint_in_use(const struct rabbit *rabbit)
{
	return &rabbit->settings.hosts[rabbit->main.host % rabbit->settings.n_hosts];
}

static int start(struct rabbit *rabbit, struct api *api, struct fault *fault)
{
	const struct settings *settings = &rabbit->settings;
	const struct endpoint *endpoint = endpoint_in_use(rabbit);
	const struct management_setup setup = {
		.url = settings->management,
		.vhost = endpoint->vhost ? endpoint->vhost : settings->vhost,
		.exchange = settings->exchange,
		.ca_file = settings->ca_file,
		.verify = settings->verify,
		.timeout_ms = TIMEOUT_MS,
	};
	struct epoll_event event = {.events = EPOLLIN};
	int r = load(api, fault);

	if (r < 0)
		return r;
	api->management = api->calls->open(&setup);
	if (!api->management)
		return fault_set(fault, -ENOMEM, "no memory");
	if (epoll_ctl(rabbit->epoll_fd, EPOLL_CTL_ADD, api->calls->fd(api->management), &event) < 0)
		return fault_set(fault, -errno, "epoll: %s", strerror(errno));
	return 0;
}

/* A password is read anew each time: it may be another one by now. */
static int login(const struct rabbit *rabbit, const struct api *api, struct fault *fault)
{
	const struct endpoint *endpoint = endpoint_in_use(rabbit);
	char *password = NULL;
	int r = settings_password(&rabbit->settings, endpoint, &password, fault);

	if (r < 0)
		return r;
	r = api->calls->login(api->management,
			      endpoint->user ? endpoint->user : rabbit->settings.user, password);
	explicit_bzero(password, strlen(password));
	free(password);
	return r < 0 ? fault_set(fault, r, "no memory") : 0;
}

static int api_get(struct rabbit *rabbit, struct api **ret_api)
{
	struct api *api = rabbit->api;
	struct fault fault;
	int r;

	if (!rabbit->settings.management || rabbit->use == DROVER_USE_CONSUME)
		return -ENOTSUP;
	if (!api) {
		api = rabbit->api = calloc(1, sizeof *api);
		if (!api)
			return -ENOMEM;
		api->error = start(rabbit, api, &fault);
		if (api->error)
			rabbit_log(rabbit, DROVER_LOG_ERROR,
				   "the management API cannot be used: %s", fault.sentence);
	}
	if (api->error)
		return api->error;
	r = login(rabbit, api, &fault);
	if (r < 0) {
		rabbit_log(rabbit, DROVER_LOG_ERROR, "the management API cannot be asked: %s",
			   fault.sentence);
		return r;
	}
	rabbit_soon(rabbit);
	*ret_api = api;
	return 0;
}

int management_queues(struct rabbit *rabbit, management_done *done, void *context)
{
	struct api *api;
	int r = api_get(rabbit, &api);

	return r < 0 ? r : api->calls->queues(api->management, done, context);
}

int management_queue(struct rabbit *rabbit, const char *name, management_done *done, void *context)
{
	struct api *api;
	int r = api_get(rabbit, &api);

	return r < 0 ? r : api->calls->queue(api->management, name, done, context);
}

void management_process(struct rabbit *rabbit)
{
	const struct api *api = rabbit->api;

	if (api && !api->error)
		api->calls->process(api->management);
}

int64_t management_due_ms(const struct rabbit *rabbit)
{
	const struct api *api = rabbit->api;
	int64_t timeout_ms = api && !api->error ? api->calls->timeout_ms(api->management) : -1;

	return timeout_ms < 0 ? NEVER : now_ms() + timeout_ms;
}

void management_close(struct rabbit *rabbit)
{
	struct api *api = rabbit->api;

	if (!api)
		return;
	if (api->management)
		api->calls->close(api->management);
	if (api->module)
		dlclose(api->module);
	free(api);
	rabbit->api = NULL;
}
