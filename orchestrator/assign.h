/* SPDX-License-Identifier: Apache-2.0 */
/**
 * From the plan to what an agent is told: one Assignment with its nodes. Pure.
 */
#ifndef TIERED_ORCHESTRATOR_ASSIGN_H
#define TIERED_ORCHESTRATOR_ASSIGN_H

#include "core/plan/plan.h"
#include "core/wire/wire.h"

#define ASSIGN_ADDRESS_SIZE 128

struct assign_context {
    const struct tiered_plan *plan;
    const char *run, *token;
    uint64_t orphan_timeout_ms;
    const uint16_t
        *ports; /* of each agent on loopback, where links keep their transports
                   (up --network); NULL: every link is a Unix socket */
};

/** Free with tiered__v1__assignment__free_unpacked(a, NULL). */
int assign_agent(const struct assign_context *context, uint32_t agent,
                 Tiered__V1__Assignment **ret, struct tiered_error *err);
/** "unix:s/NAME.sock", relative to the run folder, where every process of `up` stands:
   a socket's path may be 107 bytes long, and run folders are not always short. */
void assign_address(const char *agent, char out[ASSIGN_ADDRESS_SIZE]);
/** How the children of `node` reach it: the address, and the transport's use (NULL:
   unix; malloc'd). An inner node's children all come the same way. */
int assign_way(const struct assign_context *context, uint32_t node,
               char out[ASSIGN_ADDRESS_SIZE], Tiered__V1__PluginUse **ret,
               struct tiered_error *err);
/** The orchestrator's own; no agent can have this name. */
#define ASSIGN_ORCHESTRATOR "unix:s/@.sock"

#endif
