/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that are made in parallel are handed on in order, whichever is late, and one
   that fails while others wait for it ends the pass. */
#include "../plugins/plain.h"
#include "pipe_kit.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#define BLOCKS 60u
#define SLOTS  10u /* of a pool of three */

static atomic_uint made; /* blocks but the late one */
static unsigned late, most;
static bool fails;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Until the others have made all that there is room for, and have had time for more. */
static void let_others_go_on(unsigned want)
{
    double give_up = seconds() + 20, enough = 0;
    while (seconds() < give_up && (enough == 0 || seconds() < enough)) {
        enough = enough == 0 && atomic_load(&made) >= want ? seconds() + 0.05 : enough;
        sched_yield();
    }
    most = atomic_load(&made);
}

static int late_forward(void *state, const struct tiered_block *block, const void *in,
                        size_t in_size, void *out, size_t capacity, size_t *ret_size,
                        struct tiered_error *err)
{
    if (block->index != late) {
        atomic_fetch_add(&made, 1);
        return plain_copy(state, block, in, in_size, out, capacity, ret_size, err);
    }
    let_others_go_on(late + SLOTS - 1);
    return fails ? tiered_fail(err, TIERED_EIO, "the late one")
                 : plain_copy(state, block, in, in_size, out, capacity, ret_size, err);
}

static const struct tiered_filter_ops late_ops = {
    .size = sizeof(late_ops),
    PLAIN_OPS,
    .bound = plain_bound,
    .forward = late_forward,
    .inverse = plain_copy,
};
static struct tiered_loaded late_loaded = {.plugin = {.kind = TIERED_FILTER,
                                                      .name = "late",
                                                      .traits = TIERED_CONCURRENT,
                                                      .ops = &late_ops}};

/* Tensors of dtypes in turn: a block each. */
static struct tiered_layout *many_blocks(void)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    for (unsigned i = 0; i < BLOCKS; i++) {
        char name[16];
        const uint64_t n = 100 + i;
        snprintf(name, sizeof(name), "t%u", i);
        tiered_layout_add(b, name, i % 2 ? TIERED_F64 : TIERED_F32, TIERED_PARAMETER, 1,
                          &n, &err);
    }
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_int_equal(layout->n_blocks, BLOCKS);
    return layout;
}

static int send_late(unsigned index, struct tiered_pool *pool,
                     const struct tiered_model *model, struct tiered_encoded **ret,
                     struct tiered_error *err)
{
    const struct tiered_use filter = {&late_loaded, NULL};
    late = index;
    atomic_store(&made, 0);
    return encode(&filter, 1, model, NULL, false, pool, ret, err);
}

static void the_late_one_is_waited_for(void **state)
{
    (void)state;
    static const unsigned which[] = {0, 1, 9, 30};
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp) struct tiered_layout *layout = many_blocks();
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = noise(layout, 1);
    TIERED_CLEANUP(tiered_pool_destroyp) struct tiered_pool *pool = NULL;
    assert_int_equal(tiered_pool_create(3, &pool, &err), 0);
    for (size_t i = 0; i < TIERED_COUNT(which); i++) {
        TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
        assert_int_equal(send_late(which[i], pool, model, &e, &err), 0);
        assert_int_equal(most, which[i] + SLOTS - 1); /* no slot was taken from it */
        for (uint32_t k = 0; k < BLOCKS; k++) {
            const struct tiered_block *block = &layout->blocks[k];
            uint8_t got[2048];
            size_t size;
            uint32_t crc;
            tiered_encoded_block(e, k, &size, &crc);
            assert_int_equal(size, block->size_bytes);
            assert_int_equal(tiered_encoded_read(e, k, got, sizeof(got), &err), 0);
            assert_memory_equal(got, model->data + block->offset_bytes, size);
        }
    }
}

static void a_failure_ends_the_waiting(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp) struct tiered_layout *layout = many_blocks();
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = noise(layout, 1);
    TIERED_CLEANUP(tiered_pool_destroyp) struct tiered_pool *pool = NULL;
    struct tiered_encoded *e = NULL;
    assert_int_equal(tiered_pool_create(3, &pool, &err), 0);
    fails = true;
    assert_int_equal(send_late(5, pool, model, &e, &err), -1);
    fails = false;
    assert_string_equal(err.text, "filter 'late': the late one");
    assert_null(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_late_one_is_waited_for),
        cmocka_unit_test(a_failure_ends_the_waiting),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
