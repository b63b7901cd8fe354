/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server. Followers of events each have a queue that is bounded: one that does
   not read is cut off, and reconnects. */
#include "orchestrator/http.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>

#include "orchestrator/run.h"

#define FOLLOWERS_MOST 64
#define QUEUE_MOST     (4u << 20) /* bytes that a follower may lag behind */
#define NODES_MS       1000
#define POLL_MS        1000 /* libmicrohttpd's own time-outs */
#define DRAIN_MS       300  /* for followers to read the last events at the end */

struct follower {
    struct follower *next;
    struct http *http;
    struct MHD_Connection *connection;
    struct tiered_bytes queue;
    bool suspended, lost;
};

struct http {
    struct run *run;
    struct MHD_Daemon *daemon;
    int epoll;
    char url[64];
    struct follower *followers;
    unsigned n_followers;
    bool ending;
    struct tiered_timer nodes, poll;
};

extern const char dashboard_html[];
extern const size_t dashboard_html_size;

/* ---- answers ---- */

static enum MHD_Result send_response(struct MHD_Connection *connection, unsigned status,
                                     struct MHD_Response *response, const char *type)
{
    if (!response) {
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Content-Security-Policy",
                            "default-src 'self' 'unsafe-inline'");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result send_text(struct MHD_Connection *connection, unsigned status,
                                 char *text, const char *type)
{
    if (!text) {
        return MHD_NO;
    }
    return send_response(
        connection, status,
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE),
        type);
}

static enum MHD_Result send_json(struct MHD_Connection *connection, json_t *value)
{
    char *text =
        value ? json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(value);
    return send_text(connection, MHD_HTTP_OK, text, "application/json");
}

static enum MHD_Result send_error(struct MHD_Connection *connection, unsigned status,
                                  const char *reason)
{
    json_t *value = json_pack("{s:s}", "error", reason);
    char *text =
        value ? json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(value);
    return send_text(connection, status, text, "application/json");
}

static void append_round(void *user, json_t *event)
{
    json_array_append(user, event);
}

static json_t *rounds_json(struct run *run)
{
    json_t *list = json_array();
    record_rounds(run->record, run->id, append_round, list, NULL);
    return list;
}

/* ---- server-sent events ---- */

static ssize_t follower_read(void *cls, uint64_t pos, char *buffer, size_t max)
{
    (void)pos;
    struct follower *f = cls;
    if (f->lost) {
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    if (f->queue.size == 0 && f->http->ending) {
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    if (f->queue.size == 0) {
        MHD_suspend_connection(f->connection);
        f->suspended = true;
        return 0;
    }
    size_t n = f->queue.size < max ? f->queue.size : max;
    memcpy(buffer, f->queue.data, n);
    memmove(f->queue.data, f->queue.data + n, f->queue.size - n);
    f->queue.size -= n;
    return (ssize_t)n;
}

static void follower_free(void *cls)
{
    struct follower *f = cls;
    struct follower **at = &f->http->followers;
    while (*at && *at != f) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = f->next;
        f->http->n_followers--;
    }
    tiered_bytes_finish(&f->queue);
    free(f);
}

static void wake(struct follower *f)
{
    if (f->suspended) {
        f->suspended = false;
        MHD_resume_connection(f->connection);
    }
}

static void tell(struct http *http, const char *json)
{
    for (struct follower *f = http->followers; f; f = f->next) {
        if (f->queue.size > QUEUE_MOST ||
            tiered_bytes_printf(&f->queue, "data: %s\n\n", json) < 0) {
            f->lost = true;
        }
        wake(f);
    }
    if (http->followers) {
        MHD_run(http->daemon);
    }
}

static enum MHD_Result follow(struct http *http, struct MHD_Connection *connection)
{
    if (http->n_followers >= FOLLOWERS_MOST) {
        return send_error(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                          "too many followers of events");
    }
    struct follower *f = calloc(1, sizeof(*f));
    if (!f) {
        return MHD_NO;
    }
    f->http = http;
    f->connection = connection;
    tiered_bytes_printf(&f->queue, "retry: 1000\n\n");
    f->next = http->followers;
    http->followers = f;
    http->n_followers++;
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, 16384, follower_read, f, follower_free);
    if (!response) {
        follower_free(f);
        return MHD_NO;
    }
    return send_response(connection, MHD_HTTP_OK, response, "text/event-stream");
}

void http_event(struct http *http, const json_t *event)
{
    if (!http || !http->followers) {
        return;
    }
    char *text = json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (text) {
        tell(http, text);
    }
    free(text);
}

static void tell_nodes(void *arg)
{
    struct http *http = arg;
    tiered_loop_timer(http->run->loop, &http->nodes, NODES_MS, tell_nodes, http);
    if (http->followers) {
        json_t *event = json_pack("{s:s, s:o}", "event", "nodes", "nodes",
                                  view_nodes_json(http->run));
        http_event(http, event);
        json_decref(event);
    }
}

/* ---- requests ---- */

static bool is_loopback(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (!info || info->client_addr->sa_family != AF_INET) {
        return false;
    }
    const struct sockaddr_in *in = (const struct sockaddr_in *)info->client_addr;
    return (ntohl(in->sin_addr.s_addr) >> 24) == 127;
}

/* A page elsewhere may name this server by a host name of its own (DNS rebinding). */
static bool host_is_ours(struct MHD_Connection *connection)
{
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");
    return !host || strncmp(host, "127.0.0.1", 9) == 0 ||
           strncmp(host, "localhost", 9) == 0;
}

static enum MHD_Result answer(struct http *http, struct MHD_Connection *connection,
                              const char *url)
{
    if (strcmp(url, "/") == 0 || strcmp(url, "/index.html") == 0) {
        return send_response(connection, MHD_HTTP_OK,
                             MHD_create_response_from_buffer(dashboard_html_size,
                                                             (void *)dashboard_html,
                                                             MHD_RESPMEM_PERSISTENT),
                             "text/html; charset=utf-8");
    }
    if (strcmp(url, "/api/run") == 0) {
        return send_json(connection, view_run_json(http->run));
    }
    if (strcmp(url, "/api/nodes") == 0) {
        return send_json(connection, view_nodes_json(http->run));
    }
    if (strcmp(url, "/api/rounds") == 0) {
        return send_json(connection, rounds_json(http->run));
    }
    if (strcmp(url, "/api/events") == 0) {
        return follow(http, connection);
    }
    if (strcmp(url, "/metrics") == 0) {
        return send_text(connection, MHD_HTTP_OK, view_metrics(http->run),
                         "text/plain; version=0.0.4");
    }
    return send_error(connection, MHD_HTTP_NOT_FOUND, "no such page");
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection,
                                  const char *url, const char *method,
                                  const char *version, const char *upload_data,
                                  size_t *upload_data_size, void **con_cls)
{
    (void)version;
    (void)upload_data;
    static int begun;
    if (!*con_cls) { /* the headers alone */
        *con_cls = &begun;
        return MHD_YES;
    }
    if (*upload_data_size > 0) {
        return MHD_NO;
    }
    if (!is_loopback(connection) || !host_is_ours(connection)) {
        return send_error(connection, MHD_HTTP_FORBIDDEN, "loopback alone");
    }
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        return send_error(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET");
    }
    return answer(cls, connection, url);
}

/* ---- life ---- */

static void run_daemon(void *arg)
{
    struct http *http = arg;
    MHD_run(http->daemon);
}

static void poll_daemon(void *arg)
{
    struct http *http = arg;
    tiered_loop_timer(http->run->loop, &http->poll, POLL_MS, poll_daemon, http);
    MHD_run(http->daemon);
}

static int start_daemon(struct http *http, uint16_t port, struct tiered_error *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    http->daemon =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC, port,
                         NULL, NULL, on_request, http, MHD_OPTION_SOCK_ADDR,
                         (struct sockaddr *)&address, MHD_OPTION_CONNECTION_LIMIT, 256u,
                         MHD_OPTION_CONNECTION_TIMEOUT, 120u, MHD_OPTION_END);
    if (!http->daemon) {
        return tiered_fail(err, TIERED_EIO, "cannot listen on 127.0.0.1:%u for HTTP",
                           port);
    }
    const union MHD_DaemonInfo *bound =
        MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);
    const union MHD_DaemonInfo *epoll =
        MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!bound || !epoll) {
        return tiered_fail(err, TIERED_EIO, "the HTTP server does not say its port");
    }
    http->epoll = epoll->epoll_fd;
    snprintf(http->url, sizeof(http->url), "http://127.0.0.1:%u/", bound->port);
    return tiered_loop_watch(http->run->loop, http->epoll, run_daemon, http, err);
}

static int save_address(const struct http *http, struct tiered_error *err)
{
    char path[4096], text[256];
    snprintf(path, sizeof(path), "%s/http.json", http->run->folder);
    int n = snprintf(text, sizeof(text), "{\"url\": \"%s\"}\n", http->url);
    return tiered_file_write_mode(path, 0600, text, (size_t)n, err);
}

int http_create(struct run *run, uint16_t port, struct http **ret,
                struct tiered_error *err)
{
    TIERED_CLEANUP(http_destroyp) struct http *http = calloc(1, sizeof(*http));
    if (!http) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    http->run = run;
    http->epoll = -1;
    if (start_daemon(http, port, err) < 0 || save_address(http, err) < 0) {
        return -1;
    }
    tell_nodes(http);
    poll_daemon(http);
    *ret = TIERED_STEAL(http);
    return 0;
}

/* What was told last (the end of the run) reaches those who still read. */
static void drain(struct http *http)
{
    uint64_t until = tiered_now_ms() + DRAIN_MS;
    http->ending = true;
    for (struct follower *f = http->followers; f; f = f->next) {
        wake(f);
    }
    while (http->followers && tiered_now_ms() < until) {
        MHD_run_wait(http->daemon, 10);
    }
}

void http_destroy(struct http *http)
{
    if (!http) {
        return;
    }
    tiered_loop_cancel(http->run->loop, &http->nodes);
    tiered_loop_cancel(http->run->loop, &http->poll);
    if (http->epoll >= 0) {
        tiered_loop_unwatch(http->run->loop, http->epoll);
    }
    if (http->daemon) {
        drain(http);
        MHD_stop_daemon(http->daemon);
    }
    free(http);
}

const char *http_url(const struct http *http)
{
    return http->url;
}
