/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of links share: a parent and its children on one event loop, over real
   Unix sockets. Everything happens on the test's own thread, inside WAIT(). */
#ifndef TIERED_TEST_LINK_FIXTURE_H
#define TIERED_TEST_LINK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/link/downlink.h"
#include "core/link/uplink.h"
#include "core/plugins/plugins.h"

#define WAIT_MS    10000
#define RUN        "run-1"
#define TOKEN      "sesame"
#define GENERATION 3
#define N_CHILDREN 3 /* "@agent-1", "a", "b" */
#define AGENT      0
#define A          1
#define B          2

enum offer_mode { TAKE, SETTLED, REFUSE };
enum verdict_mode { ACCEPT, REJECT, HOLD };
enum model_mode { UNKNOWN, MAKING, SERVED };

struct seen_child {
    unsigned n_ready, n_lost, n_frames, n_beats, n_offers, n_received;
    bool ready;
    char missing[256];
    int last_frame;
    struct tiered_path path; /* of the last offer */
};

struct fixture {
    struct tiered_loop *loop;
    struct tiered_net *parent_net, *child_net;
    char address[128];
    uint64_t heartbeat_ms, silence_ms; /* of the parent */
    struct tiered_timer tick;

    struct tiered_server *server;
    struct tiered_downlink *downlink;
    struct seen_child seen[N_CHILDREN];
    enum offer_mode offer;
    enum verdict_mode verdict;
    enum model_mode serve;
    bool no_room, drop_at_offer;
    const char *store_folder; /* NULL: in memory */
    struct tiered_push *held; /* HOLD */
    struct tiered_encoded *received, *model;
    struct tiered_digest model_digest;
    unsigned n_stored, n_discarded, n_models;

    /* a parent by hand */
    bool no_welcome;
    struct peer *hands, *hand[4]; /* all; the newest by kind of stream */
    unsigned n_hand[4];
};

/** One child, with what its uplink told. */
struct child {
    struct tiered_uplink *uplink;
    unsigned n_connected, n_lost, n_refused, n_frames, n_pulled, n_pushed;
    char lost[256], refused[256], reason[256];
    enum tiered_code code;
    int last_frame;
    bool accepted, settled;
    struct tiered_path path;
    struct tiered_encoded *pulled;
    struct tiered_digest pulled_digest;
};

/** One stream, spoken by hand. */
struct peer {
    struct fixture *f;
    struct tiered_conn *conn;
    unsigned n_frames, n_acks, n_blocks, half_closed, closed;
    struct tiered_error end;
    int first, last; /* bodies */
    char reason[1100];
    uint32_t code, next_block, first_block;
    bool settled, accepted, done, welcome, ready, begun;
    struct tiered_frame_context context;
    struct peer *next;
};

static struct tiered_plugins *plugins;
static const struct tiered_loaded *transport;
static char folder[] = "/tmp/tiered-link-XXXXXX";

static inline void on_tick(void *arg)
{
    tiered_loop_stop(arg);
}

/** Run the loop until `condition` holds; 10 s at most. */
#define WAIT(f, condition)                                                             \
    do {                                                                               \
        uint64_t until_ = tiered_now_ms() + WAIT_MS;                                   \
        while (!(condition)) {                                                         \
            if (tiered_now_ms() > until_) {                                            \
                fail_msg("waited in vain for " #condition);                            \
            }                                                                          \
            tiered_loop_timer((f)->loop, &(f)->tick, 1, on_tick, (f)->loop);           \
            assert_int_equal(tiered_loop_run((f)->loop, NULL), 0);                     \
        }                                                                              \
    } while (0)

/* ---- the parent ---- */

static inline void on_ready(void *user, uint32_t child, bool ready, const char *missing)
{
    struct seen_child *seen = &((struct fixture *)user)->seen[child];
    seen->n_ready += ready;
    seen->n_lost += !ready;
    seen->ready = ready;
    snprintf(seen->missing, sizeof(seen->missing), "%s", missing);
}

static inline void on_child_frame(void *user, uint32_t child,
                                  const struct tiered_frame *frame)
{
    struct seen_child *seen = &((struct fixture *)user)->seen[child];
    seen->n_frames++;
    seen->last_frame = (int)frame->pb->body_case;
}

static inline void on_beat(void *user, uint32_t child, const struct tiered_frame *frame)
{
    (void)frame;
    ((struct fixture *)user)->seen[child].n_beats++;
}

static inline void on_offer(void *user, uint32_t child, struct tiered_push *push,
                            const struct tiered_frame *frame,
                            const Tiered__V1__Head *head)
{
    struct fixture *f = user;
    assert_int_equal(frame->pb->body_case, TIERED__V1__FRAME__BODY_PUSH_BEGIN);
    assert_ptr_equal(frame->pb->push_begin->head, head);
    assert_int_equal(tiered_push_child(push), child);
    f->seen[child].n_offers++;
    f->seen[child].path = tiered_push_path(push);
    if (f->drop_at_offer) {
        tiered_downlink_drop(f->downlink, child, TIERED_EPEER, "dropped");
    } else if (f->offer == TAKE) {
        tiered_push_receive(push);
    } else if (f->offer == SETTLED) {
        tiered_push_settled(push);
    } else {
        tiered_push_done(push, false, TIERED_ESTATE, "no round is open");
    }
}

static inline int on_store(void *user, const Tiered__V1__Head *head,
                           struct tiered_encoded **ret, struct tiered_error *err)
{
    struct fixture *f = user;
    char path[256];
    if (f->no_room) {
        return tiered_fail(err, TIERED_ENOMEM, "the spool is full");
    }
    snprintf(path, sizeof(path), "%s/in-%u", f->store_folder ? f->store_folder : "",
             f->n_stored);
    int result = tiered_encoded_create(head, f->store_folder ? path : NULL, ret, err);
    f->n_stored += result == 0;
    return result;
}

static inline void on_discard(void *user, struct tiered_encoded *encoded)
{
    ((struct fixture *)user)->n_discarded++;
    tiered_encoded_unref(encoded);
}

static inline void on_received(void *user, uint32_t child, struct tiered_push *push,
                               struct tiered_encoded *encoded)
{
    struct fixture *f = user;
    f->seen[child].n_received++;
    tiered_encoded_unref(f->received);
    f->received = encoded;
    if (f->verdict == HOLD) {
        f->held = push;
    } else {
        tiered_push_done(push, f->verdict == ACCEPT, TIERED_ERANGE,
                         f->verdict == ACCEPT ? "" : "a value is not finite");
    }
}

static inline int on_model(void *user, const struct tiered_wanted *wanted,
                           struct tiered_encoded **ret)
{
    struct fixture *f = user;
    f->n_models++;
    if (f->serve == UNKNOWN || !tiered_digest_equal(&wanted->model, &f->model_digest)) {
        return -1;
    }
    if (f->serve == MAKING) {
        return 0;
    }
    *ret = tiered_encoded_ref(f->model);
    return 1;
}

static const struct tiered_downlink_owner parent_owner = {
    .ready = on_ready,
    .frame = on_child_frame,
    .heartbeat = on_beat,
    .offer = on_offer,
    .store = on_store,
    .discard = on_discard,
    .received = on_received,
    .model = on_model,
};

static inline void parent_start(struct fixture *f)
{
    static const char *const names[N_CHILDREN] = {"@agent-1", "a", "b"};
    const struct tiered_server_config config = {.loop = f->loop,
                                                .net = f->parent_net,
                                                .address = f->address,
                                                .run = RUN,
                                                .token = TOKEN,
                                                .generation = GENERATION,
                                                .heartbeat_ms = f->heartbeat_ms,
                                                .silence_ms = f->silence_ms};
    assert_int_equal(tiered_server_create(&config, &f->server, NULL), 0);
    assert_int_equal(tiered_downlink_create(f->server, names, N_CHILDREN, &parent_owner,
                                            f, &f->downlink, NULL),
                     0);
}

static inline void parent_stop(struct fixture *f)
{
    tiered_downlink_destroy(TIERED_STEAL(f->downlink));
    tiered_server_destroy(TIERED_STEAL(f->server));
}

static inline uint64_t parent_got(const struct fixture *f)
{
    uint64_t up, down;
    tiered_downlink_bytes(f->downlink, &up, &down);
    return up;
}

static inline int set_up_nets(void **state)
{
    static unsigned n;
    struct fixture *f = calloc(1, sizeof(*f));
    f->heartbeat_ms = 100;
    f->silence_ms = WAIT_MS;
    snprintf(f->address, sizeof(f->address), "unix:%s/%u.sock", folder, n++);
    assert_int_equal(tiered_loop_create(&f->loop, NULL), 0);
    assert_int_equal(
        tiered_net_create(transport, NULL, f->loop, NULL, &f->parent_net, NULL), 0);
    assert_int_equal(
        tiered_net_create(transport, NULL, f->loop, NULL, &f->child_net, NULL), 0);
    *state = f;
    return 0;
}

static inline int set_up(void **state)
{
    set_up_nets(state);
    parent_start(*state);
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    parent_stop(f);
    tiered_net_destroy(f->child_net);
    tiered_net_destroy(f->parent_net);
    tiered_loop_cancel(f->loop, &f->tick);
    tiered_loop_destroy(f->loop);
    tiered_encoded_unref(f->received);
    tiered_encoded_unref(f->model);
    while (f->hands) {
        struct peer *p = f->hands;
        f->hands = p->next;
        free(p);
    }
    free(f);
    return 0;
}

/* ---- children ---- */

static inline void on_connected(void *user)
{
    ((struct child *)user)->n_connected++;
}

static inline void on_lost(void *user, const char *why)
{
    struct child *c = user;
    c->n_lost++;
    snprintf(c->lost, sizeof(c->lost), "%s", why);
}

static inline void on_refused(void *user, enum tiered_code code, const char *reason)
{
    struct child *c = user;
    c->n_refused++;
    c->code = code;
    snprintf(c->refused, sizeof(c->refused), "%s", reason);
}

static inline void on_parent_frame(void *user, const struct tiered_frame *frame)
{
    struct child *c = user;
    c->n_frames++;
    c->last_frame = (int)frame->pb->body_case;
}

static inline void on_pulled(void *user, const struct tiered_digest *model,
                             struct tiered_encoded *encoded, const char *reason)
{
    struct child *c = user;
    c->n_pulled++;
    tiered_encoded_unref(c->pulled);
    c->pulled = encoded;
    c->pulled_digest = *model;
    snprintf(c->reason, sizeof(c->reason), "%s", reason ? reason : "");
}

static inline void on_pushed(void *user, const struct tiered_path *path, bool accepted,
                             bool settled, const char *reason)
{
    struct child *c = user;
    c->n_pushed++;
    c->path = *path;
    c->accepted = accepted;
    c->settled = settled;
    snprintf(c->reason, sizeof(c->reason), "%s", reason);
}

static const struct tiered_uplink_owner child_owner = {
    .connected = on_connected,
    .lost = on_lost,
    .refused = on_refused,
    .frame = on_parent_frame,
    .pulled = on_pulled,
    .pushed = on_pushed,
};

static inline struct tiered_uplink_config child_config(struct fixture *f,
                                                       const char *node)
{
    return (struct tiered_uplink_config){.loop = f->loop,
                                         .net = f->child_net,
                                         .address = f->address,
                                         .run = RUN,
                                         .node = node,
                                         .agent = "agent-1",
                                         .token = TOKEN,
                                         .folder = folder,
                                         .generation = GENERATION,
                                         .silence_ms = WAIT_MS};
}

static inline void child_start_as(struct child *c,
                                  const struct tiered_uplink_config *config)
{
    *c = (struct child){0};
    assert_int_equal(tiered_uplink_create(config, &child_owner, c, &c->uplink, NULL),
                     0);
}

static inline void child_start(struct fixture *f, struct child *c, const char *node)
{
    const struct tiered_uplink_config config = child_config(f, node);
    child_start_as(c, &config);
}

static inline void child_stop(struct child *c)
{
    tiered_uplink_destroy(TIERED_STEAL(c->uplink));
    tiered_encoded_unref(TIERED_STEAL(c->pulled));
}

static inline uint64_t child_sent(const struct child *c)
{
    uint64_t up, down;
    tiered_uplink_bytes(c->uplink, &up, &down);
    return up;
}

static inline uint64_t child_got(const struct child *c)
{
    uint64_t up, down;
    tiered_uplink_bytes(c->uplink, &up, &down);
    return down;
}

/* ---- encoded objects ---- */

#define BLOCK 1000 /* encoded bytes of a small object's block */

/** `n_blocks` blocks of `size` bytes each that depend on `seed`, sealed; path NULL: in
    memory. */
static inline struct tiered_encoded *make_through(char *filter, uint32_t n_blocks,
                                                  size_t size, unsigned seed,
                                                  const char *path)
{
    uint64_t shape = (uint64_t)n_blocks * (TIERED_BLOCK_BYTES / sizeof(float));
    Tiered__V1__Tensor tensor = TIERED__V1__TENSOR__INIT, *tensors[] = {&tensor};
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    struct tiered_encoded *e;
    uint8_t *bytes = malloc(size);
    tensor.name = (char *)"w";
    tensor.dtype = TIERED_F32;
    tensor.n_shape = 1;
    tensor.shape = &shape;
    head.n_tensors = 1;
    head.tensors = tensors;
    head.num_examples = 7;
    Tiered__V1__FilterHead stage = TIERED__V1__FILTER_HEAD__INIT, *pipe[] = {&stage};
    stage.name = filter;
    head.n_pipe = filter != NULL;
    head.pipe = pipe;
    assert_int_equal(tiered_encoded_begin(&head, path, &e, NULL), 0);
    for (uint32_t i = 0; i < n_blocks; i++) {
        for (size_t k = 0; k < size; k++) {
            bytes[k] = (uint8_t)(k * 31 + i * 7 + seed);
        }
        assert_int_equal(tiered_encoded_append(e, i, tiered_crc32c(0, bytes, size),
                                               bytes, size, NULL),
                         0);
    }
    assert_int_equal(tiered_encoded_seal(e, false, NULL), 0);
    free(bytes);
    return e;
}

static inline struct tiered_encoded *make_sized(uint32_t n_blocks, size_t size,
                                                unsigned seed, const char *path)
{
    return make_through(NULL, n_blocks, size, seed, path);
}

static inline struct tiered_encoded *make(uint32_t n_blocks, unsigned seed)
{
    return make_sized(n_blocks, BLOCK, seed, NULL);
}

/** The same blocks in the same order, and the same head. */
static inline bool same(const struct tiered_encoded *a, const struct tiered_encoded *b)
{
    return a && b &&
           tiered_head_equal(tiered_encoded_head(a), tiered_encoded_head(b)) &&
           tiered_encoded_next(a) == tiered_encoded_next(b);
}

static inline int link_tests_begin(void)
{
    struct tiered_error err;
    const char *from = getenv("TIERED_PLUGINS");
    tiered_log_set_level(TIERED_LOG_ERROR);
    plugins = tiered_plugins_create(from ? from : "build/lib/tiered", &err);
    if (!plugins ||
        tiered_plugins_get(plugins, "unix", TIERED_TRANSPORT, &transport, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    return mkdtemp(folder) ? 0 : -1;
}

/** The folder must be empty: no socket and no file is left behind. */
static inline int link_tests_end(void)
{
    tiered_plugins_destroy(plugins);
    return rmdir(folder) < 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
