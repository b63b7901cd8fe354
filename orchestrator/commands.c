/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands, in the order that --help shows. */
#include "orchestrator/cmd.h"

#include <stddef.h>

const struct tiered_command *const tiered_commands[] = {
    &cmd_init,      &cmd_validate, &cmd_plan,    &cmd_up,   &cmd_runs,
    &cmd_status,    &cmd_watch,    &cmd_why,     &cmd_logs, &cmd_model,
    &cmd_aggregate, &cmd_filter,   &cmd_plugins, NULL,
};
