/* SPDX-License-Identifier: Apache-2.0 */
/* An agent's nets and servers. */
#include "agents/ways.h"

#include "core/options/options.h"

struct way {
    struct way *next;
    char *name;
    struct tiered_config config;
    struct tiered_credentials credentials;
    struct tiered_net *net;
};

struct entrance {
    struct entrance *next;
    char *address;
    struct tiered_server *server;
};

static int load(struct agent *agent, const Tiered__V1__PluginUse *use,
                const struct tiered_loaded **ret, struct tiered_error *err)
{
    struct tiered_digest digest;
    if (!use) { /* within a host, and before any assignment */
        return tiered_plugins_get(agent->plugins, "unix", TIERED_TRANSPORT, ret, err);
    }
    return tiered_wire_digest(&use->digest, &digest, err) < 0
               ? -1
               : tiered_plugins_get_exact(agent->plugins, use->name, TIERED_TRANSPORT,
                                          &digest, ret, err);
}

static void way_free(struct way *way)
{
    tiered_net_destroy(way->net);
    tiered_config_finish(&way->config);
    free(way->name);
    free(way);
}

static int make(struct agent *agent, const Tiered__V1__PluginUse *use, bool insecure,
                struct way *way, struct tiered_error *err)
{
    const struct tiered_loaded *loaded;
    if (!way->name) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    way->credentials = (struct tiered_credentials){.size = sizeof(way->credentials),
                                                   .insecure = insecure};
    if (load(agent, use, &loaded, err) < 0 ||
        tiered_config_from_json(&loaded->plugin, use ? use->options : "{}",
                                &way->config, err) < 0) {
        return -1;
    }
    return tiered_net_create(loaded, way->config.data, agent->loop, &way->credentials,
                             &way->net, err);
}

int ways_net(struct agent *agent, const Tiered__V1__PluginUse *use, bool insecure,
             struct tiered_net **ret, struct tiered_error *err)
{
    const char *name = use ? use->name : "unix";
    for (struct way *w = agent->ways; w; w = w->next) {
        if (strcmp(w->name, name) == 0) {
            *ret = w->net;
            return 0;
        }
    }
    struct way *way = calloc(1, sizeof(*way));
    if (!way) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    way->name = strdup(name);
    if (make(agent, use, insecure, way, err) < 0) {
        way_free(way);
        return -1;
    }
    way->next = agent->ways;
    agent->ways = way;
    *ret = way->net;
    return 0;
}

static int listen_on(struct agent *agent, struct tiered_net *net,
                     struct entrance *entrance, struct tiered_error *err)
{
    const struct tiered_server_config config = {
        .loop = agent->loop,
        .net = net,
        .address = entrance->address,
        .run = agent->assignment->run,
        .token = agent->assignment->token,
        .generation = agent->assignment->generation,
        .heartbeat_ms = HEARTBEAT_MS,
        .silence_ms = SILENCE_MS,
    };
    return entrance->address ? tiered_server_create(&config, &entrance->server, err)
                             : tiered_fail(err, TIERED_ENOMEM, "out of memory");
}

int ways_server(struct agent *agent, const Tiered__V1__PluginUse *use, bool insecure,
                const char *address, struct tiered_server **ret,
                struct tiered_error *err)
{
    struct tiered_net *net;
    for (struct entrance *e = agent->entrances; e; e = e->next) {
        if (strcmp(e->address, address) == 0) {
            *ret = e->server;
            return 0;
        }
    }
    struct entrance *entrance = calloc(1, sizeof(*entrance));
    if (!entrance) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    entrance->address = strdup(address);
    if (ways_net(agent, use, insecure, &net, err) < 0 ||
        listen_on(agent, net, entrance, err) < 0) {
        free(entrance->address);
        free(entrance);
        return -1;
    }
    entrance->next = agent->entrances;
    agent->entrances = entrance;
    *ret = entrance->server;
    return 0;
}

void ways_destroy(struct agent *agent)
{
    while (agent->entrances) {
        struct entrance *e = agent->entrances;
        agent->entrances = e->next;
        tiered_server_destroy(e->server);
        free(e->address);
        free(e);
    }
    while (agent->ways) {
        struct way *w = agent->ways;
        agent->ways = w->next;
        way_free(w);
    }
}
