/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a topology for a command. */
#include "orchestrator/load.h"

int cmd_load_plan(const char *path, const char *const *sets, size_t n_sets,
                  const char *plugins, struct loaded_plan *ret,
                  struct tiered_error *err)
{
    ret->plugins = tiered_plugins_create(plugins, err);
    if (!ret->plugins) {
        return -1;
    }
    ret->topology = tiered_topology_load(path, sets, n_sets, ret->plugins, &ret->diag,
                                         &ret->source);
    if (!ret->topology ||
        tiered_plan_make(ret->topology, 1, &ret->plan, &ret->diag) < 0) {
        return tiered_fail(err, TIERED_EINVAL, "%zu error%s in '%s'",
                           ret->diag.n_errors, ret->diag.n_errors == 1 ? "" : "s",
                           path);
    }
    return 0;
}

void cmd_load_report(const struct loaded_plan *loaded)
{
    tiered_diag_print(&loaded->diag, (const char *)loaded->source.data,
                      loaded->source.size, stderr);
}

void cmd_load_finish(struct loaded_plan *loaded)
{
    tiered_plan_destroy(loaded->plan);
    tiered_topology_destroy(loaded->topology);
    tiered_plugins_destroy(loaded->plugins);
    tiered_diag_finish(&loaded->diag);
    tiered_bytes_finish(&loaded->source);
    *loaded = (struct loaded_plan){0};
}
