/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A plugin as the command line names it: 'NAME[:key=value,…]'.
 */
#ifndef TIERED_ORCHESTRATOR_SPEC_H
#define TIERED_ORCHESTRATOR_SPEC_H

#include "core/pipe/pipe.h"

/** Load the plugin and write its options as JSON. Free with spec_finish. */
int spec_parse(struct tiered_plugins *plugins, const char *spec, enum tiered_kind kind,
               struct tiered_use *ret, struct tiered_error *err);
void spec_finish(struct tiered_use *use);

#endif
