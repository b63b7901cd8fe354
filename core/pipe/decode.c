/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receiver's side: any block back to its raw bytes.
 *
 * The mutex guards the list of idle scratch; nothing is called with it held.
 */
#include <pthread.h>

#include "core/pipe/stage.h"

/* What one running read needs; kept for the next one. */
struct scratch {
    struct scratch *next;
    uint8_t *in, *out; /* the steps write to the two in turn */
    uint8_t *raw;      /* of a screened block; NULL until needed */
};

struct tiered_decoder {
    struct pipe_stages stages;
    struct tiered_encoded *encoded;
    struct tiered_layout *layout; /* the encoded object's */
    size_t scratch_bytes;
    bool ended;
    pthread_mutex_t lock;
    struct scratch *idle;
};

static void scratch_free(struct scratch *s)
{
    if (s) {
        free(s->in);
        free(s->out);
        free(s->raw);
        free(s);
    }
}

static struct scratch *scratch_take(struct tiered_decoder *d, struct tiered_error *err)
{
    pthread_mutex_lock(&d->lock);
    struct scratch *s = d->idle;
    if (s) {
        d->idle = s->next;
    }
    pthread_mutex_unlock(&d->lock);
    if (s) {
        return s;
    }
    s = calloc(1, sizeof(*s));
    if (s) {
        s->in = malloc(d->scratch_bytes);
        s->out = malloc(d->scratch_bytes);
    }
    if (!s || !s->in || !s->out) {
        scratch_free(s);
        tiered_fail(err, TIERED_ENOMEM, "out of memory for the pipe");
        return NULL;
    }
    return s;
}

static void scratch_give(struct tiered_decoder *d, struct scratch *s)
{
    pthread_mutex_lock(&d->lock);
    s->next = d->idle;
    d->idle = s;
    pthread_mutex_unlock(&d->lock);
}

static int check_names(const Tiered__V1__Head *head, const struct tiered_use *filters,
                       size_t n, struct tiered_error *err)
{
    if (head->n_pipe != n) {
        return tiered_fail(err, TIERED_EPEER,
                           "the update went through %zu filters; this pipe has %zu",
                           head->n_pipe, n);
    }
    for (size_t i = 0; i < n; i++) {
        const char *want = filters[i].loaded->plugin.name;
        if (strcmp(head->pipe[i]->name, want) != 0) {
            return tiered_fail(err, TIERED_EPEER,
                               "the update went through filter '%.63s'; this pipe has "
                               "'%s' there",
                               head->pipe[i]->name, want);
        }
    }
    return 0;
}

static int begin(struct tiered_decoder *d, struct tiered_error *err)
{
    const Tiered__V1__Head *head = tiered_encoded_head(d->encoded);
    for (size_t i = 0; i < d->stages.n; i++) {
        const struct pipe_stage *stage = &d->stages.items[i];
        const ProtobufCBinaryData *header = &head->pipe[i]->header;
        if (stage->ops->inverse_begin &&
            stage->ops->inverse_begin(stage->state, header->data, header->len, err) <
                0) {
            return pipe_stage_failed(stage, err);
        }
    }
    return 0;
}

static int open_stages(struct tiered_decoder *d, const struct tiered_use *filters,
                       size_t n, const struct tiered_hosting *hosting,
                       const struct tiered_model *reference, struct tiered_error *err)
{
    if (check_names(tiered_encoded_head(d->encoded), filters, n, err) < 0 ||
        pipe_stages_open(filters, n, d->layout, hosting, &d->stages, err) < 0 ||
        pipe_stages_scratch(&d->stages, d->layout, &d->scratch_bytes, err) < 0) {
        return -1;
    }
    if (d->scratch_bytes < TIERED_ENCODED_BLOCK_MAX) {
        d->scratch_bytes = TIERED_ENCODED_BLOCK_MAX;
    }
    return pipe_stages_refer(&d->stages, d->layout, reference, err) < 0 ? -1
                                                                        : begin(d, err);
}

int tiered_decoder_create(const struct tiered_use *filters, size_t n_filters,
                          const struct tiered_hosting *hosting,
                          struct tiered_encoded *encoded, struct tiered_decoder **ret,
                          struct tiered_error *err)
{
    return tiered_decoder_create_with(filters, n_filters, hosting, NULL, encoded, ret,
                                      err);
}

int tiered_decoder_create_with(const struct tiered_use *filters, size_t n_filters,
                               const struct tiered_hosting *hosting,
                               const struct tiered_model *reference,
                               struct tiered_encoded *encoded,
                               struct tiered_decoder **ret, struct tiered_error *err)
{
    struct tiered_decoder *d = calloc(1, sizeof(*d));
    if (!d) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    pthread_mutex_init(&d->lock, NULL);
    d->encoded = tiered_encoded_ref(encoded);
    d->layout = tiered_encoded_layout(encoded);
    d->ended = true; /* until it has begun */
    if (open_stages(d, filters, n_filters, hosting, reference, err) < 0) {
        tiered_decoder_destroy(d);
        return -1;
    }
    d->ended = false;
    *ret = d;
    return 0;
}

static int end(struct tiered_decoder *d, struct tiered_error *err)
{
    int result = 0;
    for (size_t i = 0; !d->ended && i < d->stages.n; i++) {
        const struct pipe_stage *stage = &d->stages.items[i];
        if (result == 0 && stage->ops->inverse_end &&
            stage->ops->inverse_end(stage->state, err) < 0) {
            result = pipe_stage_failed(stage, err);
        }
    }
    d->ended = true;
    return result;
}

void tiered_decoder_destroy(struct tiered_decoder *d)
{
    if (!d) {
        return;
    }
    end(d, NULL);
    pipe_stages_close(&d->stages);
    while (d->idle) {
        struct scratch *s = d->idle;
        d->idle = s->next;
        scratch_free(s);
    }
    pthread_mutex_destroy(&d->lock);
    tiered_encoded_unref(d->encoded);
    free(d);
}

bool tiered_decoder_concurrent(const struct tiered_decoder *decoder)
{
    return decoder->stages.concurrent;
}

double tiered_decoder_within(const struct tiered_decoder *decoder)
{
    return pipe_stages_within(&decoder->stages);
}

struct tiered_layout *tiered_decoder_layout(const struct tiered_decoder *decoder)
{
    return decoder->layout;
}

static int fail_size(const struct tiered_block *block, size_t got,
                     struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ECORRUPT,
                       "block %u decodes to %zu bytes, expected %llu", block->index,
                       got, (unsigned long long)block->size_bytes);
}

/* A stage's output may be no larger than what its sender could have fed it. */
static int undo_stage(struct tiered_decoder *d, size_t k,
                      const struct tiered_block *block, const uint8_t *in, size_t *size,
                      uint8_t *out, struct tiered_error *err)
{
    const struct pipe_stage *stage = &d->stages.items[k];
    size_t capacity, made = 0;
    if (pipe_stages_bound(&d->stages, k, (size_t)block->size_bytes, &capacity, err) <
        0) {
        return -1;
    }
    if (stage->ops->inverse(stage->state, block, in, *size, out, capacity, &made, err) <
        0) {
        pipe_stage_failed(stage, err);
        return tiered_error_prefix(err, "block %u: ", block->index);
    }
    if (made > capacity) {
        return tiered_fail(err, TIERED_EINVAL, "filter '%s' made more than its room",
                           stage->plugin->name);
    }
    *size = made;
    return 0;
}

static int read_with(struct tiered_decoder *d, struct scratch *s,
                     const struct tiered_block *block, uint8_t *out,
                     struct tiered_error *err)
{
    size_t size;
    uint32_t crc;
    const uint8_t *in = tiered_encoded_borrow(d->encoded, block->index);
    tiered_encoded_block(d->encoded, block->index, &size, &crc);
    if (!in) {
        if (tiered_encoded_read(d->encoded, block->index, s->in, d->scratch_bytes,
                                err) < 0) {
            return -1;
        }
        in = s->in;
    }
    for (size_t k = d->stages.n; k-- > 0;) {
        uint8_t *to = k == 0 ? out : in == s->out ? s->in : s->out;
        if (undo_stage(d, k, block, in, &size, to, err) < 0) {
            return -1;
        }
        in = to;
    }
    return size == block->size_bytes ? 0 : fail_size(block, size, err);
}

/* Without filters the stored bytes are the raw ones: no scratch, one copy. */
static int read_plain(struct tiered_decoder *d, const struct tiered_block *block,
                      void *out, struct tiered_error *err)
{
    size_t size;
    uint32_t crc;
    tiered_encoded_block(d->encoded, block->index, &size, &crc);
    return size == block->size_bytes
               ? tiered_encoded_read(d->encoded, block->index, out, size, err)
               : fail_size(block, size, err);
}

int tiered_decoder_read(struct tiered_decoder *d, uint32_t index, void *out,
                        struct tiered_error *err)
{
    if (index >= d->layout->n_blocks) {
        return tiered_fail(err, TIERED_EINVAL, "block %u of %u", index,
                           d->layout->n_blocks);
    }
    const struct tiered_block *block = &d->layout->blocks[index];
    if (d->stages.n == 0) {
        return read_plain(d, block, out, err);
    }
    struct scratch *s = scratch_take(d, err);
    if (!s) {
        return -1;
    }
    int result = read_with(d, s, block, out, err);
    scratch_give(d, s);
    return result;
}

const void *tiered_decoder_borrow(const struct tiered_decoder *d, uint32_t index)
{
    if (d->stages.n || index >= d->layout->n_blocks) {
        return NULL;
    }
    const struct tiered_block *block = &d->layout->blocks[index];
    const void *data = tiered_encoded_borrow(d->encoded, index);
    size_t size;
    uint32_t crc;
    tiered_encoded_block(d->encoded, index, &size, &crc);
    return size == block->size_bytes &&
                   (uintptr_t)data % tiered_dtype_size(block->dtype) == 0
               ? data
               : NULL;
}

/* A pool only where blocks may overlap; otherwise this thread, in order. */
static struct tiered_pool *pool_for(const struct tiered_decoder *d,
                                    struct tiered_pool *pool)
{
    return d->stages.concurrent ? pool : NULL;
}

struct whole {
    struct tiered_decoder *decoder;
    struct tiered_model *model;
};

static int read_into_model(void *user, size_t i, unsigned worker,
                           struct tiered_error *err)
{
    const struct whole *whole = user;
    const struct tiered_block *block = &whole->decoder->layout->blocks[i];
    (void)worker;
    return tiered_decoder_read(whole->decoder, (uint32_t)i,
                               whole->model->data + block->offset_bytes, err);
}

/* What a lossy filter gives back is not what its sender had. */
static int seal(struct tiered_model *model, const struct tiered_encoded *from,
                bool lossy, struct tiered_error *err)
{
    struct tiered_digest want;
    const Tiered__V1__Head *head = tiered_encoded_head(from);
    if (tiered_model_seal(model, err) < 0) {
        return -1;
    }
    if (tiered_wire_digest(&head->content, &want, err) < 0) {
        return -1;
    }
    if (!tiered_digest_is_none(&want) && !lossy &&
        !tiered_digest_equal(&want, &model->content)) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the model is not the one that its head names");
    }
    return 0;
}

int tiered_decoder_model(struct tiered_decoder *d, struct tiered_pool *pool,
                         struct tiered_model **ret, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = tiered_model_create_raw(d->layout, err);
    struct whole whole = {.decoder = d, .model = model};
    if (!model ||
        tiered_pool_for(pool_for(d, pool), d->layout->n_blocks, read_into_model, &whole,
                        err) < 0 ||
        end(d, err) < 0 || seal(model, d->encoded, d->stages.lossy, err) < 0) {
        return -1;
    }
    *ret = TIERED_STEAL(model);
    return 0;
}

int tiered_decode_model(const struct tiered_use *filters, size_t n_filters,
                        const struct tiered_hosting *hosting,
                        const struct tiered_model *reference,
                        struct tiered_encoded *encoded, struct tiered_pool *pool,
                        struct tiered_model **ret, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = encoded;
    TIERED_CLEANUP(tiered_decoder_destroyp) struct tiered_decoder *decoder = NULL;
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = NULL;
    uint8_t *data = n_filters ? NULL : tiered_encoded_take(e);
    if (!data) {
        return tiered_decoder_create_with(filters, n_filters, hosting, reference, e,
                                          &decoder, err) < 0
                   ? -1
                   : tiered_decoder_model(decoder, pool, ret, err);
    }
    model = tiered_model_adopt(tiered_encoded_layout(e), data, err);
    if (!model || seal(model, e, false, err) < 0) {
        return -1;
    }
    *ret = TIERED_STEAL(model);
    return 0;
}

/* In memory and without filters the block is looked at where it lies, unless one of
   another dtype before it made it lie askew. */
static const uint8_t *plain_bytes(const struct tiered_decoder *d,
                                  const struct tiered_block *block)
{
    size_t size;
    uint32_t crc;
    tiered_encoded_block(d->encoded, block->index, &size, &crc);
    const uint8_t *there = d->stages.n || size != block->size_bytes
                               ? NULL
                               : tiered_encoded_borrow(d->encoded, block->index);
    return (uintptr_t)there % tiered_dtype_size(block->dtype) ? NULL : there;
}

static int screen_with(struct tiered_decoder *d, struct scratch *s,
                       const struct tiered_block *block, struct tiered_error *err)
{
    const uint8_t *there = plain_bytes(d, block);
    if (there) {
        return pipe_screen(d->layout, block, there, err);
    }
    if (!s->raw) {
        s->raw = malloc(TIERED_BLOCK_BYTES);
    }
    if (!s->raw) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    int result = d->stages.n ? read_with(d, s, block, s->raw, err)
                             : read_plain(d, block, s->raw, err);
    return result < 0 ? -1 : pipe_screen(d->layout, block, s->raw, err);
}

static int screen_block(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    struct tiered_decoder *d = user;
    struct scratch *s = scratch_take(d, err);
    (void)worker;
    if (!s) {
        return -1;
    }
    int result = screen_with(d, s, &d->layout->blocks[i], err);
    scratch_give(d, s);
    return result;
}

int tiered_decoder_screen(struct tiered_decoder *d, struct tiered_pool *pool,
                          struct tiered_error *err)
{
    return tiered_pool_for(pool_for(d, pool), d->layout->n_blocks, screen_block, d,
                           err);
}
