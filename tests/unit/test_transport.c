/* SPDX-License-Identifier: Apache-2.0 */
/* What every transport must do, once for all of them: `transports` has a row each. With
   TIERED_BIG=1 the large push is 2 GiB. */
#include "transport_peer.h"

#define MIB (1u << 20)

struct transport {
    const char *name;
    void (*make_address)(char *out, size_t size); /* a new one that is free */
    const struct tiered_transport_ops *ops;
};

static char folder[] = "/tmp/tiered-transport-XXXXXX";

static void unix_address(char *out, size_t size)
{
    static unsigned n;
    snprintf(out, size, "unix:%s/%u.sock", folder, n++);
}

static void grpc_address(char *out, size_t size)
{
    kit_tcp_address("grpc://", out, size);
}

static struct transport transports[] = {
    {"unix", unix_address, NULL},
    {"grpc", grpc_address, NULL},
};

static struct kit_pair *begin(void **state, enum kit_mode server_mode)
{
    const struct transport *t = *state;
    struct kit_pair *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    p->ops = t->ops;
    t->make_address(p->address, sizeof(p->address));
    p->server_state = kit_init(t->ops);
    p->client_state = kit_init(t->ops);
    if (server_mode != KIT_REFUSE) {
        kit_listen(p, server_mode);
    }
    return p;
}

/* The nth test message of `size` bytes, a third of it in the head. */
static void send_numbered(struct kit_end *e, uint64_t index, uint8_t *buffer,
                          size_t size)
{
    struct tiered_error err = {0};
    size_t head = size / 3;
    kit_fill(buffer, index, size);
    if (kit_send(e, buffer, head, buffer + head, size - head, &err) < 0) {
        fail_msg("send: %s", err.text);
    }
}

static void states_and_addresses(void **state)
{
    const struct transport *t = *state;
    struct tiered_error err = {0};
    struct kit_pair *p = begin(state, KIT_ECHO);
    void *other = kit_init(t->ops);
    char elsewhere[256];
    assert_int_equal(t->ops->listen(other, p->address, &kit_listener, &p->server, &err),
                     -1);
    assert_true(err.text[0] != '\0');
    assert_int_equal(t->ops->listen(other, "nonsense", &kit_listener, &p->server, &err),
                     -1);
    t->make_address(elsewhere, sizeof(elsewhere));
    assert_int_equal(t->ops->unlisten(other, elsewhere, &err), -1);
    assert_int_equal(err.code, TIERED_ENOENT);
    /* what one gives up another may take at once */
    assert_int_equal(t->ops->unlisten(p->server_state, p->address, &err), 0);
    assert_int_equal(t->ops->listen(other, p->address, &kit_listener, &p->server, &err),
                     0);
    struct tiered_stream *stream;
    assert_int_equal(t->ops->open(p->client_state, "nonsense", TIERED_PUSH,
                                  &kit_handler, p, &stream, &err),
                     -1);
    assert_int_equal(
        t->ops->open(p->client_state, p->address, 9, &kit_handler, p, &stream, &err),
        -1);
    t->ops->destroy(other);
    kit_finish(p);
}

static void echo_of_every_kind(void **state)
{
    struct kit_pair *p = begin(state, KIT_ECHO);
    for (size_t kind = TIERED_SESSION; kind <= TIERED_PULL; kind++) {
        struct kit_end *c = kit_open(p, kind, KIT_DROP);
        struct kit_end *s = kit_accepted(p, kind - 1);
        uint8_t buffer[100];
        char who[64] = "x";
        assert_int_equal(s->kind, kind);
        send_numbered(c, 0, buffer, sizeof(buffer));
        WAIT_FOR(c->n_messages == 1 && c->done == 1);
        assert_int_equal(READ(c->n_bytes), sizeof(buffer));
        assert_int_equal(p->ops->peer(s->stream, who, sizeof(who), NULL), 0);
        assert_null(memchr(who, 'x', 1));
        assert_int_equal(p->ops->half_close(c->stream, NULL), 0);
        WAIT_FOR(c->closed && s->closed);
        assert_int_equal(c->end, TIERED_END_CLEAN);
        assert_int_equal(s->end, TIERED_END_CLEAN);
        p->ops->release(c->stream);
    }
    kit_finish(p);
}

static void order_is_kept(void **state)
{
    enum { N = 2000 };
    struct kit_pair *p = begin(state, KIT_ECHO);
    struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
    uint8_t *buffer = malloc(N * 2600);
    size_t at = 0;
    for (uint64_t i = 0; i < N; i++) {
        size_t size = 9 + (size_t)(i * 7919 % 2500);
        send_numbered(c, i, buffer + at, size);
        at += size;
    }
    WAIT_FOR(c->n_messages == N && c->done == N);
    assert_int_equal(READ(c->n_bytes), at);
    kit_finish(p);
    free(buffer);
}

static void messages_up_to_the_limit(void **state)
{
    struct kit_pair *p = begin(state, KIT_ECHO);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    struct tiered_error err = {0};
    uint8_t *buffer = malloc(TIERED_MESSAGE_MAX + 1);
    kit_fill(buffer, 0, TIERED_MESSAGE_MAX);
    assert_int_equal(kit_send(c, buffer, TIERED_MESSAGE_MAX, NULL, 0, &err), 0);
    WAIT_FOR(c->n_messages == 1);
    kit_fill(buffer, 1, TIERED_MESSAGE_MAX);
    assert_int_equal(kit_send(c, NULL, 0, buffer, TIERED_MESSAGE_MAX, &err), 0);
    WAIT_FOR(c->n_messages == 2);
    assert_int_equal(READ(c->n_bytes), 2 * TIERED_MESSAGE_MAX);
    assert_int_equal(kit_send(c, buffer, 1, buffer, TIERED_MESSAGE_MAX, &err), -1);
    assert_int_equal(err.code, TIERED_EINVAL);
    assert_int_equal(kit_send(c, buffer, 2, buffer, SIZE_MAX, &err), -1);
    assert_int_equal(kit_send(c, buffer, 0, buffer, 0, &err), -1);
    send_numbered(c, 2, buffer, 1); /* the refused ones left the stream as it was */
    WAIT_FOR(c->n_messages == 3);
    kit_finish(p);
    free(buffer);
}

/* A reader that keeps what it got stops its own sender and nobody else. */
static void a_full_window_holds_back_its_stream_only(void **state)
{
    enum { N = 64 };
    struct kit_pair *p = begin(state, KIT_KEEP);
    struct kit_end *slow = kit_open(p, TIERED_PUSH, KIT_DROP);
    struct kit_end *slow_server = kit_accepted(p, 0);
    uint8_t *buffer = malloc((size_t)N * MIB), small[64];
    for (uint64_t i = 0; i < N; i++) {
        send_numbered(slow, i, buffer + i * MIB, MIB);
    }
    WAIT_FOR(slow_server->n_messages == TIERED_STREAM_WINDOW);
    READ(p->server.mode = KIT_ECHO);
    struct kit_end *quick = kit_open(p, TIERED_SESSION, KIT_DROP);
    for (uint64_t i = 0; i < 200; i++) {
        send_numbered(quick, i, small, sizeof(small));
        WAIT_FOR(quick->n_messages == i + 1);
    }
    assert_int_equal(READ(slow_server->n_messages), TIERED_STREAM_WINDOW);
    assert_true(READ(slow->done) < N);
    kit_set_mode(slow_server, KIT_DROP);
    WAIT_FOR(slow_server->n_messages == N && slow->done == N);
    kit_finish(p);
    free(buffer);
}

static void a_slow_reader_gets_everything(void **state)
{
    enum { N = 100, SIZE = 100000 };
    struct kit_pair *p = begin(state, KIT_KEEP);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    struct kit_end *s = kit_accepted(p, 0);
    uint8_t *buffer = malloc((size_t)N * SIZE);
    for (uint64_t i = 0; i < N; i++) {
        send_numbered(c, i, buffer + i * SIZE, SIZE);
    }
    assert_int_equal(p->ops->half_close(c->stream, NULL), 0);
    for (size_t i = 0; i < N; i++) {
        WAIT_FOR(s->n_held > 0);
        assert_true(kit_let_go(s));
    }
    WAIT_FOR(s->n_messages == N && s->half_closed == 1 && c->done == N);
    kit_finish(p);
    free(buffer);
}

static void half_close_both_ways(void **state)
{
    struct kit_pair *p = begin(state, KIT_ANSWER);
    struct kit_end *c = kit_open(p, TIERED_PULL, KIT_DROP);
    struct tiered_error err = {0};
    uint8_t buffer[32];
    send_numbered(c, 0, buffer, sizeof(buffer));
    assert_int_equal(p->ops->half_close(c->stream, &err), 0);
    assert_int_equal(kit_send(c, buffer, 1, NULL, 0, &err), -1);
    assert_int_equal(err.code, TIERED_ESTATE);
    assert_int_equal(p->ops->half_close(c->stream, &err), -1);
    struct kit_end *s = kit_accepted(p, 0);
    WAIT_FOR(c->closed && s->closed);
    assert_int_equal(c->n_messages, 3);
    assert_int_equal(s->n_messages, 1);
    assert_int_equal(c->half_closed, 1);
    assert_int_equal(s->half_closed, 1);
    assert_int_equal(c->end, TIERED_END_CLEAN);
    assert_int_equal(s->end, TIERED_END_CLEAN);
    assert_int_equal(c->err.code, TIERED_OK);
    assert_int_equal(kit_send(c, buffer, 1, NULL, 0, &err), -1);
    assert_int_equal(err.code, TIERED_ESTATE);
    p->ops->cancel(c->stream); /* of a stream that has ended: nothing */
    kit_finish(p);
}

/* Whoever accepted a stream may end its side before the other, which then goes on. */
static void the_acceptor_may_end_first(void **state)
{
    struct kit_pair *p = begin(state, KIT_DROP);
    struct kit_end *c = kit_open(p, TIERED_PULL, KIT_DROP);
    struct kit_end *s = kit_accepted(p, 0);
    struct tiered_error err = {0};
    uint8_t buffers[6][32];
    send_numbered(s, 0, buffers[0], 32);
    send_numbered(s, 1, buffers[1], 32);
    assert_int_equal(p->ops->half_close(s->stream, &err), 0);
    assert_int_equal(kit_send(s, buffers[0], 1, NULL, 0, &err), -1);
    WAIT_FOR(c->half_closed == 1);
    assert_int_equal(READ(c->n_messages), 2);
    assert_int_equal(READ(c->closed + s->closed), 0);
    for (uint64_t i = 0; i < 4; i++) {
        send_numbered(c, i, buffers[2 + i], 32);
        WAIT_FOR(s->n_messages == i + 1);
    }
    assert_int_equal(p->ops->half_close(c->stream, &err), 0);
    WAIT_FOR(c->closed && s->closed);
    assert_int_equal(s->half_closed, 1);
    assert_int_equal(c->end, TIERED_END_CLEAN);
    assert_int_equal(s->end, TIERED_END_CLEAN);
    kit_finish(p);
}

static void a_stream_without_a_message(void **state)
{
    struct kit_pair *p = begin(state, KIT_ECHO);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    assert_int_equal(p->ops->half_close(c->stream, NULL), 0);
    struct kit_end *s = kit_accepted(p, 0);
    WAIT_FOR(c->closed && s->closed);
    assert_int_equal(c->end, TIERED_END_CLEAN);
    assert_int_equal(s->end, TIERED_END_CLEAN);
    assert_int_equal(c->half_closed + s->half_closed, 2);
    kit_finish(p);
}

static void cancel_while_sending(void **state)
{
    enum { N = 64 };
    struct kit_pair *p = begin(state, KIT_KEEP);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    uint8_t *buffer = malloc(MIB);
    kit_fill(buffer, 0, MIB);
    for (int i = 0; i < N; i++) {
        assert_int_equal(kit_send(c, NULL, 0, buffer, MIB, NULL), 0);
    }
    struct kit_end *s = kit_accepted(p, 0);
    WAIT_FOR(s->n_messages > 0);
    p->ops->cancel(c->stream);
    p->ops->cancel(c->stream);
    WAIT_FOR(c->closed && c->done == N);
    assert_int_equal(c->end, TIERED_END_CANCELLED);
    READ(s->n_wrong = 0);     /* all are number 0 here */
    READ(s->mode = KIT_DROP); /* what has arrived by now may still come */
    while (kit_let_go(s)) {
    }
    WAIT_FOR(s->closed);
    assert_int_equal(s->end, TIERED_END_BROKEN);
    assert_true(s->err.text[0] != '\0');
    s->n_wrong = 0;
    kit_finish(p);
    free(buffer);
}

static void calls_from_inside_the_handlers(void **state)
{
    struct kit_pair *p = begin(state, KIT_CANCEL);
    uint8_t buffer[10];
    for (size_t i = 0; i < 20; i++) {
        struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
        READ(c->release_when_closed = true);
        send_numbered(c, 0, buffer, sizeof(buffer));
        WAIT_FOR(c->closed);
        assert_int_equal(c->end, TIERED_END_BROKEN);
        struct kit_end *s = kit_accepted(p, i);
        WAIT_FOR(s->closed);
        assert_int_equal(s->end, TIERED_END_CANCELLED);
    }
    kit_finish(p);
}

static void refused_and_unreachable(void **state)
{
    struct kit_pair *p = begin(state, KIT_REFUSE);
    struct kit_end *nobody = kit_open(p, TIERED_SESSION, KIT_DROP);
    WAIT_FOR(nobody->closed);
    assert_int_equal(nobody->end, TIERED_END_BROKEN);
    assert_true(nobody->err.text[0] != '\0');
    kit_listen(p, KIT_REFUSE);
    struct kit_end *refused = kit_open(p, TIERED_SESSION, KIT_DROP);
    WAIT_FOR(refused->closed);
    assert_int_equal(refused->end, TIERED_END_BROKEN);
    kit_finish(p);
}

static void a_server_may_come_back(void **state)
{
    struct kit_pair *p = begin(state, KIT_ECHO);
    uint8_t buffer[50];
    for (int i = 0; i < 3; i++) {
        struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
        send_numbered(c, 0, buffer, sizeof(buffer));
        WAIT_FOR(c->n_messages == 1);
        kit_stop_server(p);
        WAIT_FOR(c->closed);
        assert_int_equal(c->end, TIERED_END_BROKEN);
        p->server_state = kit_init(p->ops);
        kit_listen(p, KIT_ECHO);
    }
    kit_finish(p);
}

static void a_thousand_streams(void **state)
{
    enum { N = 1000 };
    struct kit_pair *p = begin(state, KIT_ECHO);
    static uint8_t buffer[300];
    kit_fill(buffer, 0, sizeof(buffer));
    for (int i = 0; i < N; i++) {
        struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
        assert_int_equal(kit_send(c, NULL, 0, buffer, sizeof(buffer), NULL), 0);
    }
    for (int i = 0; i < N; i++) {
        struct kit_end *c = p->clients[i];
        WAIT_FOR(c->n_messages == 1 && c->done == 1);
    }
    assert_int_equal(READ(p->server.n_ends), N);
    for (int i = 0; i < N; i += 2) {
        p->ops->cancel(p->clients[i]->stream);
    }
    for (int i = 0; i < N; i += 2) {
        struct kit_end *c = p->clients[i];
        WAIT_FOR(c->closed);
        p->ops->release(c->stream);
    }
    kit_finish(p);
}

/* TIERED_BIG=1: more than any 32-bit count of bytes. */
static void a_large_push(void **state)
{
    const uint64_t n = getenv("TIERED_BIG") ? 2048 : 64;
    struct kit_pair *p = begin(state, KIT_DROP);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    uint8_t *buffer = malloc(4 * MIB), head[20] = {0};
    for (uint64_t i = 0; i < n; i++) {
        WAIT_FOR(c->done + 4 > i);
        uint8_t *block = buffer + i % 4 * MIB;
        kit_fill(block, i, MIB);
        assert_int_equal(kit_send(c, block, sizeof(head), block + sizeof(head),
                                  MIB - sizeof(head), NULL),
                         0);
    }
    assert_int_equal(p->ops->half_close(c->stream, NULL), 0);
    struct kit_end *s = kit_accepted(p, 0);
    WAIT_FOR(s->half_closed == 1);
    assert_true(READ(s->n_bytes) == n * MIB);
    kit_finish(p);
    free(buffer);
}

static void destroy_with_streams_open(void **state)
{
    enum { N = 16 };
    struct kit_pair *p = begin(state, KIT_KEEP);
    uint8_t *buffer = calloc(1, MIB);
    for (int i = 0; i < N; i++) {
        struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
        for (int k = 0; k < 8; k++) {
            assert_int_equal(kit_send(c, NULL, 0, buffer, i < 8 ? MIB : 1, NULL), 0);
        }
    }
    p->ops->destroy(p->client_state); /* connected or not */
    for (int i = 0; i < N; i++) {
        assert_int_equal(p->clients[i]->closed, 1);
        assert_int_equal(p->clients[i]->done, 8);
        assert_int_equal(p->clients[i]->end, TIERED_END_CANCELLED);
    }
    p->client_state = kit_init(p->ops);
    READ(p->server.mode = KIT_DROP);
    for (size_t i = 0; i < READ(p->server.n_ends); i++) {
        kit_set_mode(p->server.ends[i], KIT_DROP);
    }
    p->ops->destroy(p->server_state);
    p->server_state = NULL;
    for (size_t i = 0; i < p->server.n_ends; i++) {
        p->server.ends[i]->n_wrong = 0; /* the bytes are zero */
    }
    kit_finish(p);
    free(buffer);
}

struct sender {
    pthread_t thread;
    struct kit_end *end;
    uint8_t bytes[8];
};

static void *send_many(void *arg)
{
    struct sender *s = arg;
    for (int i = 0; i < 500; i++) {
        while (kit_send(s->end, s->bytes, 8, NULL, 0, NULL) < 0) {
        }
    }
    return NULL;
}

static void many_threads_send_on_one_stream(void **state)
{
    struct kit_pair *p = begin(state, KIT_DROP);
    struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
    struct sender senders[4];
    for (size_t i = 0; i < TIERED_COUNT(senders); i++) {
        senders[i] = (struct sender){.end = c};
        pthread_create(&senders[i].thread, NULL, send_many, &senders[i]);
    }
    for (size_t i = 0; i < TIERED_COUNT(senders); i++) {
        pthread_join(senders[i].thread, NULL);
    }
    struct kit_end *s = kit_accepted(p, 0);
    WAIT_FOR(s->n_messages == 2000 && c->done == 2000);
    assert_int_equal(READ(s->n_bytes), 16000);
    READ(s->n_wrong = 0); /* none is numbered */
    kit_finish(p);
}

static void a_peer_that_is_killed(void **state)
{
    enum { N = 32 };
    struct kit_pair *p = begin(state, KIT_REFUSE);
    struct peer peer =
        peer_spawn(((const struct transport *)*state)->name, "", p->address);
    struct kit_end *idle = kit_open(p, TIERED_SESSION, KIT_DROP);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_KEEP);
    uint8_t *buffer = malloc((size_t)N * MIB), small[9];
    for (uint64_t i = 0; i < N; i++) {
        send_numbered(c, i, buffer + i * MIB, MIB);
    }
    send_numbered(idle, 0, small, sizeof(small));
    WAIT_FOR(idle->n_messages == 1 && c->n_held == TIERED_STREAM_WINDOW);
    peer_end(&peer);
    kit_set_mode(c, KIT_DROP);
    WAIT_FOR(c->closed && c->done == N && idle->closed);
    assert_int_equal(c->end, TIERED_END_BROKEN);
    assert_int_equal(idle->end, TIERED_END_BROKEN);
    assert_int_equal(idle->half_closed, 0);
    kit_listen(p, KIT_DROP); /* its address is free again */
    kit_finish(p);
    free(buffer);
}

static void a_peer_that_is_frozen(void **state)
{
    enum { N = 64 };
    struct kit_pair *p = begin(state, KIT_REFUSE);
    struct peer peer =
        peer_spawn(((const struct transport *)*state)->name, "", p->address);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    uint8_t *buffer = malloc((size_t)N * MIB);
    send_numbered(c, 0, buffer, MIB);
    WAIT_FOR(c->n_messages == 1);
    kill(peer.pid, SIGSTOP);
    waitpid(peer.pid, NULL, WUNTRACED);
    for (uint64_t i = 1; i < N; i++) {
        send_numbered(c, i, buffer + i * MIB, MIB);
    }
    struct kit_end *late = kit_open(p, TIERED_SESSION, KIT_DROP);
    assert_int_equal(READ(c->closed), 0);
    p->ops->cancel(c->stream);
    p->ops->cancel(late->stream);
    WAIT_FOR(c->closed && c->done == N && late->closed);
    assert_int_equal(c->end, TIERED_END_CANCELLED);
    peer_end(&peer);
    kit_listen(p, KIT_DROP);
    kit_finish(p);
    free(buffer);
}

#define TEST(fn, state) cmocka_unit_test_prestate(fn, state)

static int run_suite(struct transport *t)
{
    const struct CMUnitTest tests[] = {
        TEST(states_and_addresses, t),
        TEST(echo_of_every_kind, t),
        TEST(order_is_kept, t),
        TEST(messages_up_to_the_limit, t),
        TEST(a_full_window_holds_back_its_stream_only, t),
        TEST(a_slow_reader_gets_everything, t),
        TEST(half_close_both_ways, t),
        TEST(the_acceptor_may_end_first, t),
        TEST(a_stream_without_a_message, t),
        TEST(cancel_while_sending, t),
        TEST(calls_from_inside_the_handlers, t),
        TEST(refused_and_unreachable, t),
        TEST(a_server_may_come_back, t),
        TEST(a_thousand_streams, t),
        TEST(a_large_push, t),
        TEST(destroy_with_streams_open, t),
        TEST(many_threads_send_on_one_stream, t),
        TEST(a_peer_that_is_killed, t),
        TEST(a_peer_that_is_frozen, t),
    };
    t->ops = kit_plugin(t->name)->ops;
    return cmocka_run_group_tests_name(t->name, tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    int failed = 0;
    if (peer_wanted(argc, argv)) {
        return peer_run(argv);
    }
    kit_allow_descriptors();
    if (!mkdtemp(folder)) {
        return 1;
    }
    for (size_t i = 0; i < TIERED_COUNT(transports); i++) {
        failed += run_suite(&transports[i]);
    }
    failed += rmdir(folder) < 0; /* the sockets are gone */
    return failed;
}
