/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The orchestrator's HTTP server: the JSON API, server-sent events, /metrics, the
 * dashboard page. On loopback, read-only. libmicrohttpd runs on the orchestrator's own
 * loop (its epoll descriptor is watched there), so no state is shared with a thread.
 *
 * Only 127.0.0.1 is listened on, and a request must name it.
 * Threads: the loop.
 */
#ifndef TIERED_ORCHESTRATOR_HTTP_H
#define TIERED_ORCHESTRATOR_HTTP_H

#include <jansson.h>

#include "core/base/base.h"

struct run;
struct http;

/** `port` 0: any free one. Writes RUN_FOLDER/http.json ({"url": …}, mode 0600). */
int http_create(struct run *run, uint16_t port, struct http **ret,
                struct tiered_error *err);
void http_destroy(struct http *http);
const char *http_url(const struct http *http);
/** To everybody who follows /api/events. */
void http_event(struct http *http, const json_t *event);

TIERED_DEFINE_FREE(struct http, http_destroy)

#endif
