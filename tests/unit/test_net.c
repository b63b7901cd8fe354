/* SPDX-License-Identifier: Apache-2.0 */
/* Connections on an event loop: everything is told on the loop's thread, in order, and
   nothing after a close. Over the unix transport. */
#include "transport_kit.h"

#include "core/net/net.h"

#define MIB (1u << 20)

static struct tiered_loaded unix_transport;
static char folder[] = "/tmp/tiered-net-XXXXXX";
static pthread_t loop_thread;

struct probe {
    struct tiered_conn *conn;
    struct fixture *f;
    unsigned messages, half_closed, closed, done, elsewhere;
    unsigned stop_at_messages, stop_at_done;
    bool stop_at_closed, close_at_message, echo, keep, inside_send;
    enum tiered_stream_end end;
    struct tiered_error err;
    struct tiered_message *kept[TIERED_STREAM_WINDOW];
};

struct fixture {
    struct tiered_loop *loop;
    struct tiered_net *server, *client;
    struct tiered_timer watchdog;
    char address[128];
    unsigned accepted;
    struct probe in, out; /* the accepting and the opening side */
    bool accept_nobody, timed_out;
    void (*next[3])(struct fixture *); /* what to do instead of stopping */
};

static void count_here(struct probe *p)
{
    p->elsewhere += !pthread_equal(pthread_self(), loop_thread) || p->inside_send;
}

static void stop_when(struct probe *p, bool condition)
{
    struct fixture *f = p->f;
    void (*next)(struct fixture *) = f->next[0];
    if (!condition) {
        return;
    }
    if (!next) {
        tiered_loop_stop(f->loop);
        return;
    }
    memmove(f->next, f->next + 1, sizeof(f->next) - sizeof(f->next[0]));
    f->next[TIERED_COUNT(f->next) - 1] = NULL;
    next(f);
}

static void on_done(void *opaque)
{
    struct probe *p = opaque;
    count_here(p);
    p->done++;
    stop_when(p, p->done == p->stop_at_done);
}

static int send_bytes(struct probe *p, const void *bytes, size_t n)
{
    const struct tiered_outgoing m = {
        .body = bytes, .body_size = n, .done = on_done, .opaque = p};
    p->inside_send = true;
    int rc = tiered_conn_send(p->conn, &m, NULL);
    p->inside_send = false;
    return rc;
}

static void release_it(void *opaque)
{
    struct tiered_message *m = opaque;
    m->release(m);
}

static void on_message(void *user, struct tiered_message *m)
{
    struct probe *p = user;
    count_here(p);
    assert_int_equal(p->closed + p->half_closed, 0);
    assert_true(kit_is(m->data, m->size, p->messages));
    p->messages++;
    if (p->echo) {
        const struct tiered_outgoing back = {
            .body = m->data, .body_size = m->size, .done = release_it, .opaque = m};
        assert_int_equal(tiered_conn_send(p->conn, &back, NULL), 0);
    } else if (p->keep) {
        p->kept[p->messages - 1] = m;
    } else {
        m->release(m);
    }
    stop_when(p, p->messages == p->stop_at_messages);
    if (p->close_at_message) {
        tiered_conn_close(p->conn);
        p->conn = NULL;
    }
}

static void on_half_closed(void *user)
{
    struct probe *p = user;
    count_here(p);
    p->half_closed++;
    if (p->echo) {
        assert_int_equal(tiered_conn_half_close(p->conn, NULL), 0);
    }
}

static void on_closed(void *user, enum tiered_stream_end end,
                      const struct tiered_error *err)
{
    struct probe *p = user;
    count_here(p);
    p->closed++;
    p->end = end;
    p->err = *err;
    stop_when(p, p->stop_at_closed);
}

static const struct tiered_conn_handler handler = {on_message, on_half_closed,
                                                   on_closed};

static void on_accept(void *user, struct tiered_conn *conn,
                      enum tiered_stream_kind kind)
{
    struct fixture *f = user;
    assert_true(pthread_equal(pthread_self(), loop_thread));
    assert_int_equal(kind, TIERED_PUSH);
    assert_int_equal(tiered_conn_kind(conn), TIERED_PUSH);
    f->accepted++;
    if (!f->accept_nobody) {
        f->in.conn = conn;
        tiered_conn_set_handler(conn, &handler, &f->in);
    }
}

static void on_watchdog(void *arg)
{
    struct fixture *f = arg;
    f->timed_out = true;
    tiered_loop_stop(f->loop);
}

static int set_up(void **state)
{
    static unsigned n;
    struct fixture *f = calloc(1, sizeof(*f));
    loop_thread = pthread_self();
    snprintf(f->address, sizeof(f->address), "unix:%s/%u.sock", folder, n++);
    f->in.f = f->out.f = f;
    assert_int_equal(tiered_loop_create(&f->loop, NULL), 0);
    assert_int_equal(
        tiered_net_create(&unix_transport, NULL, f->loop, NULL, &f->server, NULL), 0);
    assert_int_equal(
        tiered_net_create(&unix_transport, NULL, f->loop, NULL, &f->client, NULL), 0);
    assert_int_equal(tiered_net_listen(f->server, f->address, on_accept, f, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    tiered_net_destroy(f->client);
    tiered_net_destroy(f->server);
    tiered_loop_cancel(f->loop, &f->watchdog);
    tiered_loop_destroy(f->loop);
    unsigned elsewhere = f->in.elsewhere + f->out.elsewhere;
    free(f);
    return (int)elsewhere;
}

static void open_out(struct fixture *f)
{
    assert_int_equal(tiered_net_open(f->client, f->address, TIERED_PUSH, &handler,
                                     &f->out, &f->out.conn, NULL),
                     0);
}

static void run(struct fixture *f)
{
    tiered_loop_timer(f->loop, &f->watchdog, KIT_WAIT_SECONDS * 1000, on_watchdog, f);
    assert_int_equal(tiered_loop_run(f->loop, NULL), 0);
    assert_false(f->timed_out);
}

static void echo_and_a_clean_end(void **state)
{
    enum { N = 50 };
    struct fixture *f = *state;
    static uint8_t bytes[N][100];
    char peer[16] = "x";
    f->in.echo = f->out.stop_at_closed = true;
    open_out(f);
    for (size_t i = 0; i < N; i++) {
        kit_fill(bytes[i], i, sizeof(bytes[i]));
        assert_int_equal(send_bytes(&f->out, bytes[i], sizeof(bytes[i])), 0);
    }
    assert_int_equal(tiered_conn_half_close(f->out.conn, NULL), 0);
    assert_int_equal(tiered_conn_peer(f->out.conn, peer, sizeof(peer), NULL), 0);
    run(f);
    assert_int_equal(f->out.messages, N);
    assert_int_equal(f->out.done, N);
    assert_int_equal(f->out.end, TIERED_END_CLEAN);
    assert_int_equal(f->out.half_closed, 1);
    assert_int_equal(f->in.messages, N);
    assert_int_equal(f->accepted, 1);
    assert_int_equal(send_bytes(&f->out, bytes[0], 1), -1);
    tiered_conn_close(f->out.conn);
    tiered_conn_close(f->in.conn);
    tiered_conn_close(NULL);
}

static void a_close_inside_a_callback_is_the_last(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[4][10];
    f->in.close_at_message = f->out.stop_at_closed = true;
    open_out(f);
    for (size_t i = 0; i < 4; i++) {
        kit_fill(bytes[i], i, sizeof(bytes[i]));
        assert_int_equal(send_bytes(&f->out, bytes[i], sizeof(bytes[i])), 0);
    }
    run(f);
    assert_int_equal(f->in.messages, 1);
    assert_int_equal(f->in.closed, 0);
    assert_int_equal(f->out.end, TIERED_END_BROKEN);
    tiered_conn_close(f->out.conn);
}

static void send_blocks(struct fixture *f, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        kit_fill(bytes + i * MIB, i, MIB);
        assert_int_equal(send_bytes(&f->out, bytes + i * MIB, MIB), 0);
    }
}

static void release_kept(struct fixture *f)
{
    for (size_t i = 0; i < TIERED_STREAM_WINDOW; i++) {
        f->in.kept[i]->release(f->in.kept[i]);
    }
}

static void let_it_flow(struct fixture *f)
{
    assert_true(f->out.done < f->out.stop_at_done);
    f->in.keep = false;
    release_kept(f);
}

static void close_out(struct fixture *f)
{
    tiered_conn_close(f->out.conn);
}

static void messages_kept_hold_the_sender_back(void **state)
{
    enum { N = 32 };
    struct fixture *f = *state;
    uint8_t *bytes = malloc((size_t)N * MIB);
    f->in.keep = f->in.stop_at_closed = true;
    f->in.stop_at_messages = TIERED_STREAM_WINDOW;
    f->out.stop_at_done = N;
    f->next[0] = let_it_flow;
    f->next[1] = close_out;
    open_out(f);
    send_blocks(f, bytes, N);
    run(f);
    assert_int_equal(f->out.done, N);
    assert_int_equal(f->out.closed, 0);
    assert_int_equal(f->in.messages, N);
    assert_int_equal(f->in.end, TIERED_END_BROKEN);
    assert_string_equal(f->in.err.text, "the peer closed the connection");
    tiered_conn_close(f->in.conn);
    free(bytes);
}

/* What was queued is still given back, on the loop's thread. */
static void done_comes_after_a_close(void **state)
{
    enum { N = 16 };
    struct fixture *f = *state;
    uint8_t *bytes = malloc(N * MIB);
    f->in.keep = true;
    f->in.stop_at_messages = TIERED_STREAM_WINDOW;
    f->out.stop_at_done = N;
    f->next[0] = close_out;
    open_out(f);
    send_blocks(f, bytes, N);
    run(f);
    assert_int_equal(f->out.done, N);
    assert_int_equal(f->out.closed, 0);
    tiered_conn_close(f->in.conn);
    release_kept(f);
    free(bytes);
}

static void failures_to_open(void **state)
{
    struct fixture *f = *state;
    struct tiered_error err = {0};
    assert_int_equal(tiered_net_open(f->client, "nowhere", TIERED_PUSH, &handler,
                                     &f->out, &f->out.conn, &err),
                     -1);
    assert_string_equal(err.text,
                        "address 'nowhere' is not of the form unix:/path/to.sock");
    assert_int_equal(tiered_net_unlisten(f->server, f->address, &err), 0);
    assert_int_equal(tiered_net_unlisten(f->server, f->address, &err), -1);
    f->out.stop_at_closed = true;
    open_out(f);
    run(f);
    assert_int_equal(f->out.end, TIERED_END_BROKEN);
    assert_int_equal(f->out.err.code, TIERED_EIO);
    assert_int_equal(f->accepted, 0);
    tiered_conn_close(f->out.conn);
}

static void nobody_takes_it(void **state)
{
    struct fixture *f = *state;
    f->accept_nobody = f->out.stop_at_closed = true;
    open_out(f);
    run(f);
    assert_int_equal(f->accepted, 1);
    assert_int_equal(f->out.end, TIERED_END_BROKEN);
    tiered_conn_close(f->out.conn);
}

/* Streams open on both sides, messages untold and unsent. */
static void destroy_gives_everything_back(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = malloc(16 * MIB);
    f->in.stop_at_messages = 1;
    open_out(f);
    send_blocks(f, bytes, 16);
    run(f);
    tiered_net_destroy(f->client);
    assert_int_equal(f->out.done, 16);
    assert_int_equal(f->out.closed, 0);
    tiered_net_destroy(f->server);
    assert_int_equal(f->in.closed, 0);
    f->client = f->server = NULL;
    free(bytes);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(echo_and_a_clean_end),
        TEST(a_close_inside_a_callback_is_the_last),
        TEST(messages_kept_hold_the_sender_back),
        TEST(done_comes_after_a_close),
        TEST(failures_to_open),
        TEST(nobody_takes_it),
        TEST(destroy_gives_everything_back),
    };
    unix_transport.plugin = *kit_plugin("unix");
    if (!mkdtemp(folder)) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + (rmdir(folder) < 0);
}
