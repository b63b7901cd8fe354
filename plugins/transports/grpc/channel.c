/* SPDX-License-Identifier: Apache-2.0 */
/* Connections. Streams to one address share one while it has any; gRPC's own retries
   are off (a transfer resumes by block), and a connection that has failed is not waited
   for: the next stream dials anew, and the host decides when. */
#include "inside.h"

#define BACKOFF_MS 100

static grpc_channel *dial(struct state *st, const char *target)
{
    grpc_arg list[] = {
        integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, st->config.keepalive_time),
        integer_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, st->config.keepalive_timeout),
        integer_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        integer_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, TIERED_MESSAGE_MAX),
        integer_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
        integer_arg(GRPC_ARG_ENABLE_RETRIES, 0),
        integer_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, BACKOFF_MS),
        /* so long may an attempt take */
        integer_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, st->config.connect_timeout),
        integer_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
        integer_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        integer_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
        integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        integer_arg(GRPC_ARG_HTTP2_BDP_PROBE, 0),
        integer_arg(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, WINDOW_BYTES),
    };
    const grpc_channel_args args = {sizeof(list) / sizeof(list[0]), list};
    return grpc_channel_create(target, st->channel_credentials, &args);
}

void channel_forget(struct channel *c)
{
    struct channel **at = &c->state->channels;
    if (!c->listed) {
        return;
    }
    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    c->listed = false;
}

void channel_unref(struct channel *c)
{
    if (--c->refs == 0) {
        channel_forget(c);
        grpc_channel_destroy(c->grpc);
        free(c);
    }
}

static struct channel *channel_create(struct state *st, const char *target)
{
    struct channel *c = calloc(1, sizeof(*c));
    if (!c) {
        return NULL;
    }
    c->state = st;
    c->listed = true;
    snprintf(c->target, sizeof(c->target), "%s", target);
    c->grpc = dial(st, target);
    c->next = st->channels;
    st->channels = c;
    return c;
}

struct channel *channel_for(struct state *st, const char *target)
{
    struct channel *c = st->channels;
    while (c && strcmp(c->target, target) != 0) {
        c = c->next;
    }
    if (c && grpc_channel_check_connectivity_state(c->grpc, 0) ==
                 GRPC_CHANNEL_TRANSIENT_FAILURE) {
        channel_forget(c);
        c = NULL;
    }
    c = c ? c : channel_create(st, target);
    if (c) {
        c->refs++;
    }
    return c;
}
