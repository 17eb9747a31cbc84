/* SPDX-License-Identifier: MIT */
/*
 * The cluster as status --cluster shows it.
 */
#include "roles/droverd/cluster.h"

#include "base/banned.h"
