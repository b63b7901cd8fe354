/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The ways in and out of an agent: one net for each transport that its links use, one
 * server for each address that its children dial. Made when first asked for, kept until
 * the agent ends. Threads: the loop.
 */
#ifndef TIERED_AGENTS_WAYS_H
#define TIERED_AGENTS_WAYS_H

#include "agents/agent.h"

/** `use` NULL: unix. `insecure`: plaintext on a network was asked for. */
int ways_net(struct agent *agent, const Tiered__V1__PluginUse *use, bool insecure,
             struct tiered_net **ret, struct tiered_error *err);
int ways_server(struct agent *agent, const Tiered__V1__PluginUse *use, bool insecure,
                const char *address, struct tiered_server **ret,
                struct tiered_error *err);
/** After the nodes and the session. */
void ways_destroy(struct agent *agent);

#endif
