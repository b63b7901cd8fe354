/* SPDX-License-Identifier: Apache-2.0 */
/* Open files: each link of the tree takes a few, and the usual limit is soon reached.
 */
#include "orchestrator/limits.h"

#include <errno.h>
#include <sys/resource.h>

#define OWN_FILES   32 /* of a process: loop, record, log, listeners, plugins … */
#define LINK_FILES  3  /* session, push and pull */
#define STORE_FILES 1  /* an update in the spool or the outbox */

static uint64_t agent_files(const struct tiered_plan *plan,
                            const struct tiered_planned_agent *agent)
{
    uint64_t links = 0;
    for (uint32_t i = 0; i < agent->n_nodes; i++) {
        links += 1 + (uint64_t)plan->nodes[agent->nodes[i]].n_children;
    }
    return OWN_FILES + links * (LINK_FILES + STORE_FILES);
}

int limits_raise(const struct tiered_plan *plan, struct tiered_error *err)
{
    uint64_t needed = OWN_FILES + (uint64_t)plan->n_agents; /* sessions of the agents */
    for (uint32_t i = 0; i < plan->n_agents; i++) {
        uint64_t files = agent_files(plan, &plan->agents[i]);
        needed = files > needed ? files : needed;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot read the limit of open files: %s",
                           strerror(errno));
    }
    if (limit.rlim_cur < needed && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur < needed) {
        return tiered_fail(err, TIERED_ESTATE,
                           "this run may need %llu open files in one process, and %llu "
                           "are allowed; 'ulimit -n %llu' raises the limit",
                           (unsigned long long)needed,
                           (unsigned long long)limit.rlim_cur,
                           (unsigned long long)needed);
    }
    return 0;
}
