/* SPDX-License-Identifier: MIT */
/*
 * Checks of single texts of the configuration. Each returns 0, or -EINVAL with what is allowed in
 * the sentence: "not a name; …".
 */
#ifndef DROVER_SYSTEM_CONFIG_CHECK_H
#define DROVER_SYSTEM_CONFIG_CHECK_H

#include "base/why.h"

int config_check_text(const char *text, struct why *why);  /* any UTF-8 text that can be shown */
int config_check_name(const char *text, struct why *why);  /* of a type, broker, budget, node */
int config_check_label(const char *text, struct why *why); /* RFC 1123: the cluster's name */
int config_check_plugin(const char *text, struct why *why);
int config_check_path(const char *text, struct why *why);         /* absolute */
int config_check_socket_dir(const char *text, struct why *why);   /* and short enough */
int config_check_handler_path(const char *text, struct why *why); /* and no command line */
int config_check_user(const char *text, struct why *why);         /* known to this machine */
int config_check_group(const char *text, struct why *why);
int config_check_address(const char *text, struct why *why); /* of a host */
int config_check_filled(const char *text, struct why *why);  /* not empty */
int config_check_queue(const char *text, struct why *why);
int config_check_media_type(const char *text, struct why *why);
int config_check_variable(const char *text, struct why *why); /* a name in an environment */

#endif
