/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor without ops: refused. */
#include "minimal.h"

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "no-ops", .version = "1.0",
                     .summary = "a test");
