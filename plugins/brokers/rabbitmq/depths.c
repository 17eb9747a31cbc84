/* SPDX-License-Identifier: MIT */
#include "rabbitmq.h"
