/* SPDX-License-Identifier: Apache-2.0 */
/* What is the grpc transport's own: its addresses and options, keepalive, a frozen
   peer, many connections; and bytes that no gRPC library would send, by a hand-made
   peer. */
#include "transport_peer.h"

static const struct tiered_plugin *plugin;
static const struct tiered_transport_ops *ops;

/* Options with which a peer that gives no sign is gone after a second. */
static const char quick[] = "{\"keepalive_time\": \"500ms\", \"keepalive_timeout\": "
                            "\"500ms\", \"connect_timeout\": \"1s\"}";

static struct kit_pair *begin(enum kit_mode mode)
{
    struct kit_pair *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    p->ops = ops;
    kit_tcp_address("", p->address, sizeof(p->address));
    p->server_state = kit_init(ops);
    p->client_state = kit_init(ops);
    if (mode != KIT_REFUSE) {
        kit_listen(p, mode);
    }
    return p;
}

static void addresses(void **state)
{
    (void)state;
    static const struct {
        const char *address, *text;
    } rows[] = {
        {"", "address '' is not of the form HOST:PORT"},
        {"host", "address 'host' is not of the form HOST:PORT"},
        {"host:", "address 'host:' is not of the form HOST:PORT"},
        {"host:x", "address 'host:x' is not of the form HOST:PORT"},
        {"host:1/x", "address 'host:1/x' is not of the form HOST:PORT"},
        {"unix:/x.sock", "address 'unix:/x.sock' is not of the form HOST:PORT"},
        {"http://h:1", "address 'http://h:1' is not of the form HOST:PORT"},
        {"[::1:7400", "address '[::1:7400' is not of the form HOST:PORT"},
        {"[]:7400", "address '[]:7400' is not of the form HOST:PORT"},
        {"::1:7400", "address '::1:7400' is not of the form HOST:PORT"},
        {"host:0", "address 'host:0': a port is a number in 1..65535"},
        {"host:65536", "address 'host:65536': a port is a number in 1..65535"},
        {"host:4294967297",
         "address 'host:4294967297': a port is a number in 1..65535"},
        {":7400", "address ':7400' has no host to connect to"},
    };
    struct kit_pair *p = begin(KIT_REFUSE);
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct tiered_error err = {0};
        struct tiered_stream *stream;
        assert_int_equal(ops->open(p->client_state, rows[i].address, TIERED_PUSH,
                                   &kit_handler, p, &stream, &err),
                         -1);
        assert_string_equal(err.text, rows[i].text);
        assert_int_equal(err.code, TIERED_EINVAL);
    }
    char longest[400];
    memset(longest, 'a', sizeof(longest));
    snprintf(longest + 254, 6, ":7400");
    assert_int_equal(
        ops->open(p->client_state, longest, TIERED_PUSH, &kit_handler, p, NULL, NULL),
        -1);
    kit_finish(p);
}

static void listening_says_what_is_wrong(void **state)
{
    (void)state;
    struct kit_pair *p = begin(KIT_ECHO);
    struct tiered_error err = {0};
    char expected[300];
    assert_int_equal(
        ops->listen(p->client_state, p->address, &kit_listener, &p->server, &err), -1);
    snprintf(expected, sizeof(expected),
             "cannot listen on '%s': Address already in use", p->address);
    assert_string_equal(err.text, expected);
    assert_int_equal(
        ops->listen(p->client_state, "192.0.2.1:7400", &kit_listener, &p->server, &err),
        -1);
    assert_string_equal(
        err.text, "cannot listen on '192.0.2.1:7400': Cannot assign requested address");
    kit_finish(p);
}

static void times_have_bounds(void **state)
{
    (void)state;
    static const char *const rows[] = {"{\"keepalive_time\": \"99ms\"}",
                                       "{\"keepalive_timeout\": \"25h\"}",
                                       "{\"connect_timeout\": \"0s\"}"};
    static const char *const names[] = {"keepalive_time", "keepalive_timeout",
                                        "connect_timeout"};
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct tiered_error err = {0};
        char expected[128];
        void *made;
        kit_configure(plugin, rows[i]);
        assert_int_equal(
            ops->init(&kit_host, kit_config.data, &kit_credentials, &made, &err), -1);
        snprintf(expected, sizeof(expected),
                 "option '%s' of transport 'grpc' must be 100ms to 24h", names[i]);
        assert_string_equal(err.text, expected);
    }
    kit_configure(plugin, NULL);
}

/* An idle connection lives on however often it is asked for a sign. */
static void pings_are_welcome(void **state)
{
    (void)state;
    uint8_t byte[1];
    kit_configure(plugin,
                  "{\"keepalive_time\": \"100ms\", \"keepalive_timeout\": \"2s\"}");
    struct kit_pair *p = begin(KIT_ECHO);
    struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
    kit_fill(byte, 0, 1);
    kit_send(c, byte, 1, NULL, 0, NULL);
    WAIT_FOR(c->n_messages == 1);
    usleep(1500000); /* some fifteen pings each way */
    kit_fill(byte, 1, 1);
    assert_int_equal(kit_send(c, byte, 1, NULL, 0, NULL), 0);
    WAIT_FOR(c->n_messages == 2);
    assert_int_equal(READ(c->closed), 0);
    kit_finish(p);
    kit_configure(plugin, NULL);
}

/* The transport notices by itself, for a stream that sends and for one that only waits,
   and gives the borrowed bytes back. */
static void a_frozen_peer_is_noticed(void **state)
{
    enum { N = 64, MIB = 1 << 20 };
    (void)state;
    kit_configure(plugin, quick);
    struct kit_pair *p = begin(KIT_REFUSE);
    struct peer peer = peer_spawn("grpc", quick, p->address);
    struct kit_end *pushing = kit_open(p, TIERED_PUSH, KIT_DROP);
    struct kit_end *waiting = kit_open(p, TIERED_SESSION, KIT_DROP);
    uint8_t *buffer = calloc(N, MIB), byte[1];
    kit_fill(byte, 0, 1);
    kit_send(pushing, byte, 1, NULL, 0, NULL);
    kit_send(waiting, byte, 1, NULL, 0, NULL);
    WAIT_FOR(pushing->n_messages == 1 && waiting->n_messages == 1);
    kill(peer.pid, SIGSTOP);
    waitpid(peer.pid, NULL, WUNTRACED);
    for (size_t i = 0; i < N; i++) {
        kit_send(pushing, NULL, 0, buffer + i * MIB, MIB, NULL);
    }
    WAIT_FOR(pushing->closed && waiting->closed && pushing->done == N + 1);
    assert_int_equal(pushing->end, TIERED_END_BROKEN);
    assert_int_equal(waiting->end, TIERED_END_BROKEN);
    assert_int_equal(waiting->err.code, TIERED_EIO);
    struct kit_end *late = kit_open(p, TIERED_SESSION, KIT_DROP); /* still frozen */
    WAIT_FOR(late->closed);
    assert_int_equal(late->end, TIERED_END_BROKEN);
    kill(peer.pid, SIGCONT);
    struct kit_end *again = kit_open(p, TIERED_SESSION, KIT_DROP);
    kit_send(again, byte, 1, NULL, 0, NULL);
    WAIT_FOR(again->n_messages == 1);
    peer_end(&peer);
    WAIT_FOR(again->closed);
    kit_finish(p);
    free(buffer);
    kit_configure(plugin, NULL);
}

/* Every address of the loopback network is another connection. */
static void a_thousand_connections(void **state)
{
    enum { N = 1000 };
    (void)state;
    struct kit_pair *p = begin(KIT_REFUSE);
    char port[16];
    uint8_t bytes[100];
    snprintf(port, sizeof(port), "%s", strrchr(p->address, ':'));
    snprintf(p->address, sizeof(p->address), "%s", port); /* of all addresses */
    kit_listen(p, KIT_ECHO);
    kit_fill(bytes, 0, sizeof(bytes));
    for (unsigned i = 0; i < N; i++) {
        snprintf(p->address, sizeof(p->address), "127.0.%u.%u%s", 1 + i / 250,
                 1 + i % 250, port);
        struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
        kit_send(c, NULL, 0, bytes, sizeof(bytes), NULL);
    }
    for (unsigned i = 0; i < N; i++) {
        struct kit_end *c = p->clients[i];
        WAIT_FOR(c->n_messages == 1 || c->closed);
        assert_string_equal(c->err.text, "");
        assert_int_equal(p->ops->half_close(c->stream, NULL), 0);
    }
    for (unsigned i = 0; i < N; i++) {
        struct kit_end *c = p->clients[i];
        WAIT_FOR(c->closed);
        assert_int_equal(c->end, TIERED_END_CLEAN);
    }
    assert_int_equal(READ(p->server.n_ends), N);
    kit_finish(p);
}

/* A peer made by hand: HTTP/2 whose headers are spelled out, without compression. */
struct wire {
    uint8_t bytes[4096];
    size_t n;
};

static void add(struct wire *w, const void *bytes, size_t n)
{
    assert_true(w->n + n <= sizeof(w->bytes));
    memcpy(w->bytes + w->n, bytes, n);
    w->n += n;
}

static void add_frame(struct wire *w, uint8_t type, uint8_t flags, uint32_t stream,
                      const struct wire *payload)
{
    const uint8_t header[9] = {(uint8_t)(payload->n >> 16),
                               (uint8_t)(payload->n >> 8),
                               (uint8_t)payload->n,
                               type,
                               flags,
                               (uint8_t)(stream >> 24),
                               (uint8_t)(stream >> 16),
                               (uint8_t)(stream >> 8),
                               (uint8_t)stream};
    add(w, header, sizeof(header));
    add(w, payload->bytes, payload->n);
}

static void add_header(struct wire *w, const char *name, const char *value)
{
    const uint8_t lengths[2] = {(uint8_t)strlen(name), (uint8_t)strlen(value)};
    add(w, "", 1); /* a literal that is not indexed */
    add(w, &lengths[0], 1);
    add(w, name, lengths[0]);
    add(w, &lengths[1], 1);
    add(w, value, lengths[1]);
}

static void add_request(struct wire *w, const char *method)
{
    struct wire headers = {.n = 0};
    add(w, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    add_frame(w, 4, 0, 0, &headers); /* SETTINGS */
    add_header(&headers, ":method", "POST");
    add_header(&headers, ":scheme", "http");
    add_header(&headers, ":path", method);
    add_header(&headers, ":authority", "test");
    add_header(&headers, "te", "trailers");
    add_header(&headers, "content-type", "application/grpc");
    add_header(&headers, "grpc-encoding", "gzip");
    add_frame(w, 1, 4, 1, &headers); /* HEADERS, all of them */
}

/* DATA with one gRPC message that says it has `size` bytes. */
static void add_message(struct wire *w, uint8_t compressed, uint32_t size,
                        const char *text, bool last)
{
    const uint8_t head[5] = {compressed, (uint8_t)(size >> 24), (uint8_t)(size >> 16),
                             (uint8_t)(size >> 8), (uint8_t)size};
    struct wire data = {.n = 0};
    add(&data, head, sizeof(head));
    add(&data, text, strlen(text));
    add_frame(w, 0, last, 1, &data);
}

static int raw_send(const struct kit_pair *p, const struct wire *w)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port =
                                htons((uint16_t)atoi(strrchr(p->address, ':') + 1))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(send(fd, w->bytes, w->n, MSG_NOSIGNAL), w->n);
    return fd;
}

/* Read until the text is seen; the end of the connection without it fails. */
static void raw_expect(int fd, const char *text)
{
    char seen[8192];
    size_t n = 0;
    while (!memmem(seen, n, text, strlen(text))) {
        ssize_t got = recv(fd, seen + n, sizeof(seen) - n, 0);
        if (got <= 0) {
            fail_msg("the peer never said '%s'", text);
        }
        n += (size_t)got;
    }
}

static void unknown_methods_are_answered(void **state)
{
    (void)state;
    static const char *const rows[] = {"/tiered.v1.Tiered/Steal", "/x",
                                       "/tiered.v1.Tiered/Session2"};
    struct kit_pair *p = begin(KIT_ECHO);
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct wire w = {.n = 0};
        add_request(&w, rows[i]);
        int fd = raw_send(p, &w);
        raw_expect(fd, "no such method");
        close(fd);
    }
    assert_int_equal(READ(p->server.n_ends), 0);
    kit_finish(p);
}

/* For most of them gRPC waits, for a rest that does not come; the peer by hand answers
   no pings either, and is given up. */
static void bad_messages_break_their_stream(void **state)
{
    (void)state;
    static const struct {
        uint8_t compressed;
        uint32_t size;
        const char *text;
        bool last;
        const char *says;
    } rows[] = {
        {0, TIERED_MESSAGE_MAX + 1, "abc", false,
         "the peer cancelled the stream or is gone"},
        {0, UINT32_MAX, "abc", false, "the peer cancelled the stream or is gone"},
        {0, 5, "abc", true, "the peer cancelled the stream or is gone"},
        {1, 3, "abc", false, "the peer sent a compressed message"},
        {7, 3, "abc", false, "the peer cancelled the stream or is gone"},
    };
    kit_configure(plugin, quick);
    struct kit_pair *p = begin(KIT_DROP);
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct wire w = {.n = 0};
        add_request(&w, "/tiered.v1.Tiered/Push");
        add_message(&w, rows[i].compressed, rows[i].size, rows[i].text, rows[i].last);
        int fd = raw_send(p, &w);
        struct kit_end *s = kit_accepted(p, i);
        WAIT_FOR(s->closed);
        assert_int_equal(s->end, TIERED_END_BROKEN);
        assert_string_equal(s->err.text, rows[i].says);
        assert_int_equal(s->n_messages, 0);
        /* gRPC tells the end of the stream before it tells that a message was cut */
        assert_int_equal(s->half_closed, rows[i].last);
        close(fd);
    }
    kit_finish(p);
    kit_configure(plugin, NULL);
}

/* ---- a peer that sends for ever, as fast as it is let ---- */

struct flood {
    int fd;
    int64_t windows[2]; /* of the connection, of stream 1 */
    int64_t sent;
    uint32_t reset; /* the code that stream 1 was ended with; 0: it was not */
    uint8_t in[1 << 16];
    size_t n_in;
};

static uint32_t read_u32(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void flood_answer(struct flood *f, uint8_t type, const uint8_t *payload,
                         size_t n)
{
    struct wire w = {.n = 0}, body = {.n = 0};
    add(&body, payload, n);
    add_frame(&w, type, 1, 0, &body);
    assert_int_equal(send(f->fd, w.bytes, w.n, MSG_NOSIGNAL), w.n);
}

static void flood_take(struct flood *f, uint8_t type, bool flagged, uint32_t stream,
                       const uint8_t *payload, size_t n)
{
    enum { RESET = 3, SETTINGS = 4, PING = 6, WINDOW_UPDATE = 8, INITIAL_WINDOW = 4 };
    if (type == RESET && stream == 1) {
        f->reset = read_u32(payload);
    } else if (type == SETTINGS && !flagged) {
        for (size_t i = 0; i + 6 <= n; i += 6) {
            bool window = payload[i + 1] == INITIAL_WINDOW;
            f->windows[1] += window ? (int64_t)read_u32(payload + i + 2) - 65535 : 0;
        }
        flood_answer(f, SETTINGS, payload, 0);
    } else if (type == PING && !flagged) {
        flood_answer(f, PING, payload, n);
    } else if (type == WINDOW_UPDATE) {
        f->windows[stream != 0] += read_u32(payload);
    }
}

/* What has come; waits for it when there is nothing to do without. */
static void flood_read(struct flood *f, bool wait)
{
    ssize_t got =
        recv(f->fd, f->in + f->n_in, sizeof(f->in) - f->n_in, wait ? 0 : MSG_DONTWAIT);
    assert_true(got > 0 || (got < 0 && !wait));
    f->n_in += got > 0 ? (size_t)got : 0;
    size_t at = 0, n;
    while (at + 9 <= f->n_in && at + 9 + (n = read_u32(f->in + at) >> 8) <= f->n_in) {
        const uint8_t *h = f->in + at;
        flood_take(f, h[3], h[4] & 1, read_u32(h + 5), h + 9, n);
        at += 9 + n;
    }
    memmove(f->in, f->in + at, f->n_in - at);
    f->n_in -= at;
}

static void flood_write(struct flood *f)
{
    static const uint8_t frame[9 + 16384] = {0, 0x40, 0, 0, 0, 0, 0, 0, 1};
    assert_int_equal(send(f->fd, frame, sizeof(frame), MSG_NOSIGNAL), sizeof(frame));
    f->windows[0] -= 16384;
    f->windows[1] -= 16384;
    f->sent += 16384;
}

/* A stream that announces 4 GiB is ended long before they are in memory, and others of
   the same server go on. */
static void a_flood_is_cut_off(void **state)
{
    (void)state;
    struct kit_pair *p = begin(KIT_ECHO);
    struct wire w = {.n = 0};
    struct flood *f = calloc(1, sizeof(*f));
    uint8_t bytes[100];
    add_request(&w, "/tiered.v1.Tiered/Push");
    add_message(&w, 0, UINT32_MAX, "", false);
    f->fd = raw_send(p, &w);
    f->windows[0] = f->windows[1] = 65535 - 5;
    while (!f->reset && f->sent < 1ll << 30) {
        bool may = f->windows[0] >= 16384 && f->windows[1] >= 16384;
        flood_read(f, !may);
        if (may) {
            flood_write(f);
        }
    }
    assert_int_equal(f->reset, 11); /* ENHANCE_YOUR_CALM */
    assert_in_range(f->sent, 32 << 20, 128 << 20);
    struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
    kit_fill(bytes, 0, sizeof(bytes));
    kit_send(c, NULL, 0, bytes, sizeof(bytes), NULL);
    assert_int_equal(p->ops->half_close(c->stream, NULL), 0);
    WAIT_FOR(c->closed);
    assert_int_equal(c->n_messages, 1);
    close(f->fd);
    free(f);
    kit_finish(p);
}

/* An empty message is a half-close, of whoever sends it. */
static void nothing_comes_after_the_end(void **state)
{
    (void)state;
    struct kit_pair *p = begin(KIT_DROP);
    struct wire w = {.n = 0};
    add_request(&w, "/tiered.v1.Tiered/Session");
    add_message(&w, 0, 0, "", false);
    int fd = raw_send(p, &w);
    struct kit_end *s = kit_accepted(p, 0);
    WAIT_FOR(s->half_closed == 1);
    struct wire more = {.n = 0};
    add_message(&more, 0, 1, "x", false);
    assert_int_equal(send(fd, more.bytes, more.n, MSG_NOSIGNAL), more.n);
    WAIT_FOR(s->closed);
    assert_int_equal(s->end, TIERED_END_BROKEN);
    assert_string_equal(s->err.text, "the peer sent more after its end");
    close(fd);
    kit_finish(p);
}

static void strangers_do_no_harm(void **state)
{
    (void)state;
    struct kit_pair *p = begin(KIT_ECHO);
    struct wire w = {.n = 0};
    add(&w, "GET / HTTP/1.1\r\n\r\n", 18);
    close(raw_send(p, &w));
    w.n = 0;
    close(raw_send(p, &w)); /* says nothing at all */
    add(&w, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff", 33);
    close(raw_send(p, &w));
    w.n = 0;
    add_request(&w, "/tiered.v1.Tiered/Session");
    w.n -= 10; /* in the middle of a header */
    close(raw_send(p, &w));
    struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
    kit_send(c, "", 1, NULL, 0, NULL);
    WAIT_FOR(c->n_messages == 1);
    kit_finish(p);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(listening_says_what_is_wrong),
        cmocka_unit_test(times_have_bounds),
        cmocka_unit_test(pings_are_welcome),
        cmocka_unit_test(a_frozen_peer_is_noticed),
        cmocka_unit_test(a_thousand_connections),
        cmocka_unit_test(unknown_methods_are_answered),
        cmocka_unit_test(bad_messages_break_their_stream),
        cmocka_unit_test(a_flood_is_cut_off),
        cmocka_unit_test(nothing_comes_after_the_end),
        cmocka_unit_test(strangers_do_no_harm),
    };
    if (peer_wanted(argc, argv)) {
        return peer_run(argv);
    }
    kit_allow_descriptors();
    plugin = kit_plugin("grpc");
    ops = plugin->ops;
    return cmocka_run_group_tests_name("transport_grpc", tests, NULL, NULL);
}
