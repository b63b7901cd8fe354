/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sender's side. A pass takes every block through the first few filters: all of
 * them to write, those before a filter that needs a scan to let it look. Blocks are
 * made in parallel and handed on in order: by whoever finds the next one ready, while
 * the others go on.
 *
 * Memory: a ring of slots with a buffer each, which ends up with the block's bytes, and
 * one a worker. The stages write to the two in turn, so that the last writes the
 * slot's.
 *
 * The mutex guards what is handed on; neither filters nor the one that takes the blocks
 * are called with it held.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "core/model/numeric.h"
#include "core/pipe/stage.h"

struct tiered_pipe {
    struct pipe_stages stages;
    struct tiered_layout *layout;
    const struct tiered_hosting *hosting;
    size_t scratch_bytes;
    uint64_t *counts; /* of the last encode: before the filters, after each */
};

struct made {
    uint8_t *buffer;
    const uint8_t *data; /* the buffer, or the caller's own bytes */
    size_t size;
    uint32_t crc; /* of the pass that writes */
    bool ready;
};

/* What becomes of a block that a pass has made: one at a time, in order, any thread. */
typedef int (*sink_fn)(void *user, const struct tiered_block *block,
                       const struct made *made, struct tiered_error *err);

/* Handing on. */
struct queue {
    pthread_mutex_t lock;
    pthread_cond_t moved; /* a slot is free again, or all is over */
    size_t n_taken;       /* blocks handed on */
    bool taking;          /* one thread is at it */
    bool failed;
    sink_fn sink;
    void *user;
};

struct pass {
    const struct tiered_pipe *pipe;
    const struct tiered_encode_job *job;
    const struct tiered_host *host;
    size_t n_stages; /* of this pass */
    bool screen;
    struct tiered_pool *pool;
    size_t n_slots, n_workers;
    struct made *slots; /* block i is in slot i modulo n_slots */
    struct queue queue;
    uint8_t **scratch; /* a worker's */
    bool writes;       /* the pass that writes counts */
    _Atomic uint64_t *counts;
};

int tiered_pipe_create(const struct tiered_use *filters, size_t n_filters,
                       struct tiered_layout *layout,
                       const struct tiered_hosting *hosting, struct tiered_pipe **ret,
                       struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_pipe_destroyp)
    struct tiered_pipe *pipe = calloc(1, sizeof(*pipe));
    if (!pipe) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    pipe->layout = tiered_layout_ref(layout);
    pipe->hosting = hosting;
    pipe->counts = calloc(n_filters + 1, sizeof(*pipe->counts));
    if (!pipe->counts) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (pipe_stages_open(filters, n_filters, layout, hosting, &pipe->stages, err) < 0 ||
        pipe_stages_scratch(&pipe->stages, layout, &pipe->scratch_bytes, err) < 0) {
        return -1;
    }
    *ret = TIERED_STEAL(pipe);
    return 0;
}

void tiered_pipe_destroy(struct tiered_pipe *pipe)
{
    if (pipe) {
        pipe_stages_close(&pipe->stages);
        tiered_layout_unref(pipe->layout);
        free(pipe->counts);
        free(pipe);
    }
}

struct tiered_pipe_counts tiered_pipe_counts(const struct tiered_pipe *pipe)
{
    return (struct tiered_pipe_counts){pipe->stages.n, pipe->counts};
}

bool tiered_pipe_has_state(const struct tiered_pipe *pipe)
{
    return pipe_stages_have_state(&pipe->stages);
}

int tiered_pipe_save(const struct tiered_pipe *pipe, struct tiered_bytes *ret,
                     struct tiered_error *err)
{
    return pipe_stages_save(&pipe->stages, ret, err);
}

int tiered_pipe_load(struct tiered_pipe *pipe, const void *data, size_t size,
                     struct tiered_error *err)
{
    return pipe_stages_load(&pipe->stages, data, size, err);
}

uint64_t tiered_pipe_released(const struct tiered_pipe *pipe)
{
    return pipe_stages_released(&pipe->stages);
}

double tiered_pipe_within(const struct tiered_pipe *pipe)
{
    return pipe_stages_within(&pipe->stages);
}

static int run_stage(const struct pipe_stage *stage, const struct tiered_block *block,
                     const uint8_t *in, size_t *size, uint8_t *out, size_t capacity,
                     struct tiered_error *err)
{
    size_t made = 0;
    if (stage->ops->forward(stage->state, block, in, *size, out, capacity, &made, err) <
        0) {
        return pipe_stage_failed(stage, err);
    }
    if (made > capacity) {
        return tiered_fail(err, TIERED_EINVAL, "filter '%s' made more than its bound",
                           stage->plugin->name);
    }
    *size = made;
    return 0;
}

/* Where the next step writes: the last one to the slot, and back from there in turn. */
static uint8_t *target(const struct made *slot, uint8_t *scratch, size_t steps_after)
{
    return steps_after % 2 == 0 ? slot->buffer : scratch;
}

static void count(struct pass *pass, size_t k, size_t size)
{
    if (pass->writes) {
        atomic_fetch_add_explicit(&pass->counts[k], size, memory_order_relaxed);
    }
}

static int make_block(struct pass *pass, size_t i, unsigned worker,
                      struct tiered_error *err)
{
    const struct tiered_pipe *pipe = pass->pipe;
    const struct tiered_block *block = &pipe->layout->blocks[i];
    struct made *slot = &pass->slots[i % pass->n_slots];
    uint8_t *scratch = pass->scratch[worker];
    slot->data = pass->job->data + block->offset_bytes;
    slot->size = (size_t)block->size_bytes;
    if (pass->job->base) {
        uint8_t *out = target(slot, scratch, pass->n_stages);
        tiered_subtract(block->dtype, slot->data, pass->job->base + block->offset_bytes,
                        (size_t)block->n_elements, out);
        slot->data = out;
    }
    if (pass->screen && pipe_screen(pipe->layout, block, slot->data, err) < 0) {
        return -1;
    }
    count(pass, 0, slot->size);
    for (size_t k = 0; k < pass->n_stages; k++) {
        uint8_t *out = target(slot, scratch, pass->n_stages - 1 - k);
        if (run_stage(&pipe->stages.items[k], block, slot->data, &slot->size, out,
                      pipe->scratch_bytes, err) < 0) {
            return -1;
        }
        slot->data = out;
        count(pass, k + 1, slot->size);
    }
    if (pass->writes) {
        slot->crc = tiered_crc32c(0, slot->data, slot->size);
    }
    return 0;
}

/* The block that was in this one's slot must be gone. It is on its way: whoever makes
   an older block waits for less. */
static bool wait_for_slot(struct pass *pass, size_t i)
{
    struct queue *q = &pass->queue;
    pthread_mutex_lock(&q->lock);
    while (!q->failed && i >= q->n_taken + pass->n_slots) {
        pthread_cond_wait(&q->moved, &q->lock);
    }
    bool go_on = !q->failed;
    pthread_mutex_unlock(&q->lock);
    return go_on;
}

/* With the lock held, which it gives up meanwhile. */
static int hand_on(struct pass *pass, struct tiered_error *err)
{
    struct queue *q = &pass->queue;
    const struct tiered_layout *layout = pass->pipe->layout;
    int result = 0;
    while (result == 0 && !q->failed && q->n_taken < layout->n_blocks &&
           pass->slots[q->n_taken % pass->n_slots].ready) {
        struct made *slot = &pass->slots[q->n_taken % pass->n_slots];
        const struct tiered_block *block = &layout->blocks[q->n_taken];
        pthread_mutex_unlock(&q->lock);
        result = q->sink(q->user, block, slot, err);
        pthread_mutex_lock(&q->lock);
        slot->ready = false;
        q->n_taken++;
        pthread_cond_broadcast(&q->moved);
    }
    return result;
}

static int put(struct pass *pass, size_t i, int result, struct tiered_error *err)
{
    struct queue *q = &pass->queue;
    pthread_mutex_lock(&q->lock);
    pass->slots[i % pass->n_slots].ready = result == 0;
    if (result == 0 && !q->taking) {
        q->taking = true;
        result = hand_on(pass, err);
        q->taking = false;
    }
    if (result < 0) {
        q->failed = true;
        pthread_cond_broadcast(&q->moved);
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

static int run_block(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    struct pass *pass = user;
    if (!wait_for_slot(pass, i)) {
        return 0; /* the one that failed says why */
    }
    int result = pass->host->cancelled(pass->host)
                     ? tiered_fail(err, TIERED_ECANCELED, "stopped on request")
                     : make_block(pass, i, worker, err);
    return put(pass, i, result, err);
}

static int run_pass(struct pass *pass, size_t n_stages, sink_fn sink, void *user,
                    struct tiered_error *err)
{
    pass->n_stages = n_stages;
    pass->queue.n_taken = 0;
    pass->queue.sink = sink;
    pass->queue.user = user;
    if (tiered_pool_for(pass->pool, pass->pipe->layout->n_blocks, run_block, pass,
                        err) < 0) {
        return -1;
    }
    pass->screen = false; /* once is enough */
    return 0;
}

static int scan_sink(void *user, const struct tiered_block *block,
                     const struct made *made, struct tiered_error *err)
{
    const struct pipe_stage *stage = user;
    return stage->ops->scan(stage->state, block, made->data, made->size, err) < 0
               ? pipe_stage_failed(stage, err)
               : 0;
}

static int append_sink(void *user, const struct tiered_block *block,
                       const struct made *made, struct tiered_error *err)
{
    return tiered_encoded_append(user, block->index, made->crc, made->data, made->size,
                                 err);
}

static int take_header(const struct pipe_stage *stage, Tiered__V1__FilterHead *ret,
                       struct tiered_error *err)
{
    size_t size = 0;
    tiered__v1__filter_head__init(ret);
    ret->name = (char *)(uintptr_t)stage->plugin->name;
    if (!stage->ops->header) {
        return 0;
    }
    TIERED_FREE uint8_t *data = malloc(TIERED_FILTER_HEADER_MAX);
    if (!data) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (stage->ops->header(stage->state, data, TIERED_FILTER_HEADER_MAX, &size, err) <
        0) {
        return pipe_stage_failed(stage, err);
    }
    if (size > TIERED_FILTER_HEADER_MAX) {
        return tiered_fail(err, TIERED_EINVAL, "filter '%s': its header is too large",
                           stage->plugin->name);
    }
    uint8_t *fitted = size ? realloc(data, size) : NULL;
    if (fitted) {
        data = NULL;
        ret->header = (ProtobufCBinaryData){.len = size, .data = fitted};
    }
    return size && !fitted ? tiered_fail(err, TIERED_ENOMEM, "out of memory") : 0;
}

static int prepare(struct pass *pass, Tiered__V1__FilterHead *headers,
                   struct tiered_error *err)
{
    const struct pipe_stages *stages = &pass->pipe->stages;
    if (pipe_stages_refer(stages, pass->pipe->layout, pass->job->reference, err) < 0 ||
        pipe_stages_bound_to(stages, pass->job->norm, err) < 0) {
        return -1;
    }
    for (size_t k = 0; k < stages->n; k++) {
        const struct pipe_stage *stage = &stages->items[k];
        if (stage->ops->begin && stage->ops->begin(stage->state, pass->host, err) < 0) {
            return pipe_stage_failed(stage, err);
        }
    }
    for (size_t k = 0; k < stages->n; k++) {
        struct pipe_stage *stage = &stages->items[k];
        if ((stage->plugin->traits & TIERED_NEEDS_SCAN) &&
            run_pass(pass, k, scan_sink, stage, err) < 0) {
            return -1;
        }
        if (take_header(stage, &headers[k], err) < 0) {
            return -1;
        }
    }
    return 0;
}

static int make_object(const struct pass *pass, Tiered__V1__FilterHead *headers,
                       struct tiered_encoded **ret, struct tiered_error *err)
{
    const struct tiered_encode_job *job = pass->job;
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    size_t n = pass->pipe->stages.n;
    TIERED_FREE Tiered__V1__FilterHead **pointers = malloc((n + 1) * sizeof(*pointers));
    if (!pointers) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t k = 0; k < n; k++) {
        pointers[k] = &headers[k];
    }
    if (tiered_wire_tensors(pass->pipe->layout, &head.tensors, &head.n_tensors, err) <
        0) {
        return -1;
    }
    Tiered__V1__Tensor **tensors = head.tensors;
    size_t n_tensors = head.n_tensors;
    head.pipe = pointers;
    head.n_pipe = n;
    int result = job->make(job->user, &head, ret, err);
    tiered_wire_free_tensors(tensors, n_tensors);
    return result;
}

static int write_out(struct pass *pass, Tiered__V1__FilterHead *headers,
                     struct tiered_encoded **ret, struct tiered_error *err)
{
    const struct pipe_stages *stages = &pass->pipe->stages;
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    if (prepare(pass, headers, err) < 0 || make_object(pass, headers, &e, err) < 0) {
        return -1;
    }
    pass->writes = true;
    if (run_pass(pass, stages->n, append_sink, e, err) < 0) {
        return -1;
    }
    for (size_t k = 0; k < stages->n; k++) {
        const struct pipe_stage *stage = &stages->items[k];
        if (stage->ops->end && stage->ops->end(stage->state, err) < 0) {
            return pipe_stage_failed(stage, err);
        }
    }
    for (size_t k = 0; k <= stages->n; k++) {
        pass->pipe->counts[k] = atomic_load(&pass->counts[k]);
        if (k > 0) {
            tiered_encoded_stage_bytes(e, k - 1, pass->pipe->counts[k]);
        }
    }
    *ret = TIERED_STEAL(e);
    return 0;
}

static void pass_finish(struct pass *pass)
{
    pthread_cond_destroy(&pass->queue.moved);
    pthread_mutex_destroy(&pass->queue.lock);
    for (size_t i = 0; pass->slots && i < pass->n_slots; i++) {
        free(pass->slots[i].buffer);
    }
    for (size_t i = 0; pass->scratch && i < pass->n_workers; i++) {
        free(pass->scratch[i]);
    }
    free(pass->slots);
    free(pass->scratch);
    free(pass->counts);
}

static int pass_init(struct pass *pass, const struct tiered_pipe *pipe,
                     const struct tiered_encode_job *job, struct tiered_error *err)
{
    unsigned threads = 1;
    pthread_mutex_init(&pass->queue.lock, NULL);
    pthread_cond_init(&pass->queue.moved, NULL);
    pass->pool = pipe->stages.concurrent ? job->pool : NULL;
    if (pass->pool) {
        threads = tiered_pool_threads(pass->pool);
    }
    pass->pipe = pipe;
    pass->job = job;
    pass->host = job->hosting ? &job->hosting->host : &pipe->hosting->host;
    pass->screen = job->screen;
    pass->n_workers = threads + 1;
    pass->n_slots = pass->pool ? 2 * (size_t)threads + 4 : 1; /* who waits has slack */
    size_t n_blocks = pipe->layout->n_blocks ? pipe->layout->n_blocks : 1;
    pass->n_slots = pass->n_slots < n_blocks ? pass->n_slots : n_blocks;
    pass->slots = calloc(pass->n_slots + 1, sizeof(*pass->slots));
    pass->scratch = calloc(pass->n_workers, sizeof(*pass->scratch));
    pass->counts = calloc(pipe->stages.n + 1, sizeof(*pass->counts));
    bool made = pass->slots && pass->scratch && pass->counts;
    for (size_t i = 0; made && i < pass->n_slots; i++) {
        pass->slots[i].buffer = malloc(pipe->scratch_bytes);
        made = pass->slots[i].buffer != NULL;
    }
    for (size_t i = 0; made && i < pass->n_workers; i++) {
        pass->scratch[i] = malloc(pipe->scratch_bytes);
        made = pass->scratch[i] != NULL;
    }
    return made ? 0 : tiered_fail(err, TIERED_ENOMEM, "out of memory for the pipe");
}

int tiered_pipe_encode(struct tiered_pipe *pipe, const struct tiered_encode_job *job,
                       struct tiered_encoded **ret, struct tiered_error *err)
{
    struct pass pass = {0};
    TIERED_FREE Tiered__V1__FilterHead *headers =
        calloc(pipe->stages.n + 1, sizeof(*headers));
    if (!headers) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    int result =
        pass_init(&pass, pipe, job, err) < 0 ? -1 : write_out(&pass, headers, ret, err);
    for (size_t k = 0; k < pipe->stages.n; k++) {
        free(headers[k].header.data);
    }
    pass_finish(&pass);
    return result;
}
