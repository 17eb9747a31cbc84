/* SPDX-License-Identifier: MIT */
/*
 * What follows from all settings together. Private to the configuration's files.
 */
#ifndef DROVER_SYSTEM_CONFIG_SETTLE_H
#define DROVER_SYSTEM_CONFIG_SETTLE_H

#include "system/config.h"
#include "system/config/error.h"

/*
 * Fills in what is computed (the node's name, the default broker, stop_timeout, users), sorts the
 * types, and checks what involves several settings. 0 or -ENOMEM; what is wrong is in `errors`.
 */
int config_settle(struct config *config, struct config_errors *errors);

#endif
