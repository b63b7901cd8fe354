/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A pipe: the ordered filters between two nodes. It takes a model's or a delta's bytes
 * block by block into an encoded object, and back.
 *
 * One pipe serves one direction of one hop of one node. Blocks run in parallel on the
 * worker pool when every filter is TIERED_CONCURRENT. An empty pipe copies.
 *
 * Threads: encode on one thread at a time (it spreads the blocks itself); decoders are
 * separate objects and may be used by many threads at once.
 */
#ifndef TIERED_CORE_PIPE_H
#define TIERED_CORE_PIPE_H

#include "core/loop/pool.h"
#include "core/options/options.h"
#include "core/plugins/hosting.h"
#include "core/plugins/plugins.h"
#include "core/spool/encoded.h"

/** A plugin and its options, as a plan or an assignment names them. */
struct tiered_use {
    const struct tiered_loaded *loaded;
    const char *options_json; /* "{}" or NULL: none */
};

struct tiered_pipe;
/** `layout` is referenced. hosting is borrowed for the pipe's life. */
int tiered_pipe_create(const struct tiered_use *filters, size_t n_filters,
                       struct tiered_layout *layout,
                       const struct tiered_hosting *hosting, struct tiered_pipe **ret,
                       struct tiered_error *err);
void tiered_pipe_destroy(struct tiered_pipe *pipe);

/**
 * Encode: for each block, `data` (the model's buffer) minus `base` (same layout; NULL:
 * the bytes as they are) goes through the filters and is appended to `out`, which the
 * caller made with tiered_encoded_begin / tiered_outbox_begin from head and seals
 * afterwards. Because filter headers belong to the head, the caller passes a function
 * that makes `out` once they are known. Refuses non-finite values, naming the tensor
 * and index, when `screen` is set.
 */
struct tiered_encode_job {
    const uint8_t *data, *base;
    const struct tiered_model *reference; /* that both ends have; NULL: none */
    bool screen;
    double norm; /* the parent's, for a bound that follows norms; 0: none was told */
    struct tiered_hosting *hosting; /* of this pass: node and path */
    struct tiered_pool *pool;       /* NULL: this thread */
    /** head->pipe, tensors are filled; add the rest and make the object. */
    int (*make)(void *user, Tiered__V1__Head *head, struct tiered_encoded **ret,
                struct tiered_error *err);
    void *user;
};
int tiered_pipe_encode(struct tiered_pipe *pipe, const struct tiered_encode_job *job,
                       struct tiered_encoded **ret, struct tiered_error *err);

/**
 * What the last encode that was finished made of the blocks: bytes[0] before the first
 * filter, bytes[k] after the k-th of n; headers are not among them. Lives in the pipe
 * and changes with its next encode. Zeros before the first.
 */
struct tiered_pipe_counts {
    size_t n; /* filters */
    const uint64_t *bytes;
};
struct tiered_pipe_counts tiered_pipe_counts(const struct tiered_pipe *pipe);

/** What the filters carry from one pass to the next, as bytes (appended to *ret; none
    where no filter has any), and back into a pipe of the same filters. It is to be
   saved together with what the pass made. */
bool tiered_pipe_has_state(const struct tiered_pipe *pipe);
int tiered_pipe_save(const struct tiered_pipe *pipe, struct tiered_bytes *ret,
                     struct tiered_error *err);
int tiered_pipe_load(struct tiered_pipe *pipe, const void *data, size_t size,
                     struct tiered_error *err);

/** How often the pipe's noise was let out, as of its state; 0 without a filter that
   adds noise. */
uint64_t tiered_pipe_released(const struct tiered_pipe *pipe);
/** The same of a saved state by itself. */
int tiered_pipe_state_released(const struct tiered_use *filters, size_t n_filters,
                               const struct tiered_hosting *hosting, const void *data,
                               size_t size, uint64_t *ret, struct tiered_error *err);
/** The norm that the filters bound an update to; 0: none, or none that is fixed. */
int tiered_pipe_norm(const struct tiered_use *filters, size_t n_filters,
                     double *ret_norm, struct tiered_error *err);
/** The last pass, through a pipe whose bound follows norms: 1 when its update was
    within the bound, 0 when it was clipped; NAN: no bound follows. */
double tiered_pipe_within(const struct tiered_pipe *pipe);

/** Decoding one encoded object. Its head's filter names must be this pipe's. */
struct tiered_decoder;
int tiered_decoder_create(const struct tiered_use *filters, size_t n_filters,
                          const struct tiered_hosting *hosting,
                          struct tiered_encoded *encoded, struct tiered_decoder **ret,
                          struct tiered_error *err);
/** The same with a model that both ends have (borrowed for the decoder's life; NULL:
    none), for filters that refer to one. */
int tiered_decoder_create_with(const struct tiered_use *filters, size_t n_filters,
                               const struct tiered_hosting *hosting,
                               const struct tiered_model *reference,
                               struct tiered_encoded *encoded,
                               struct tiered_decoder **ret, struct tiered_error *err);
/** True when one of the filters can refer to a model that both ends have. */
bool tiered_pipe_refers(const struct tiered_use *filters, size_t n_filters);
/** Block `index` to its raw bytes: block->size_bytes into out. Safe from many threads
   when tiered_decoder_concurrent(); otherwise one at a time, in order. */
int tiered_decoder_read(struct tiered_decoder *decoder, uint32_t index, void *out,
                        struct tiered_error *err);
/** Where block `index` lies raw in memory, aligned as its dtype is, for as long as the
    decoder lives: without filters, when the object is in memory. NULL: read it. */
const void *tiered_decoder_borrow(const struct tiered_decoder *decoder, uint32_t index);
bool tiered_decoder_concurrent(const struct tiered_decoder *decoder);
/** As tiered_pipe_within, of the object's sender. */
double tiered_decoder_within(const struct tiered_decoder *decoder);
struct tiered_layout *tiered_decoder_layout(const struct tiered_decoder *decoder);
void tiered_decoder_destroy(struct tiered_decoder *decoder);
/** All blocks into a new, sealed model; its digest must be head->content where given.
 */
int tiered_decoder_model(struct tiered_decoder *decoder, struct tiered_pool *pool,
                         struct tiered_model **ret, struct tiered_error *err);
/** A decoder (with `reference`) and its model at once. Takes the caller's reference on
   `encoded`, also on failure: bytes that no filter changed, and that nobody else has,
   become the model's as they are. */
int tiered_decode_model(const struct tiered_use *filters, size_t n_filters,
                        const struct tiered_hosting *hosting,
                        const struct tiered_model *reference,
                        struct tiered_encoded *encoded, struct tiered_pool *pool,
                        struct tiered_model **ret, struct tiered_error *err);
/** Screen every block for non-finite values: -1 TIERED_ERANGE names tensor and index.
 */
int tiered_decoder_screen(struct tiered_decoder *decoder, struct tiered_pool *pool,
                          struct tiered_error *err);

TIERED_DEFINE_FREE(struct tiered_pipe, tiered_pipe_destroy)
TIERED_DEFINE_FREE(struct tiered_decoder, tiered_decoder_destroy)

#endif
