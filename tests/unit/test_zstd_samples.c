/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks a dictionary of zstd is trained on: the same ones in any order. */
#include "codec_kit.h"
#include "plugins/codecs/zstd/samples.h"

static int by_rank(const void *a, const void *b)
{
    const struct sample *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static void add(struct samples *s, uint32_t index, uint32_t size)
{
    static const uint8_t zeros[SAMPLE_MOST + 1];
    struct tiered_error err;
    assert_int_equal(samples_add(s, index, zeros, size, &err), 0);
}

/* In any order, with twins among them: what sorting all and cutting off leaves. */
static void test_choice(void **state)
{
    (void)state;
    enum { N = 300, TRIALS = 60 };
    const uint8_t key[32] = {21};
    struct tiered_rng rng;
    struct samples s;
    tiered_rng_init(&rng, key);
    for (int trial = 0; trial < TRIALS; trial++) {
        static struct sample all[N];
        size_t fit = 0, bytes = 0;
        samples_init(&s);
        for (uint32_t i = 0; i < N; i++) { /* where each ranks */
            uint32_t size = 9 + (uint32_t)tiered_rng_below(&rng, SAMPLE_MOST - 8);
            samples_clear(&s);
            add(&s, i, size);
            assert_int_equal(s.n, 1);
            all[i] = (struct sample){s.items[0].rank, size, NULL};
        }
        samples_clear(&s);
        for (uint32_t i = 0; i < 2 * N; i++) {
            uint32_t at = i < N ? (uint32_t)tiered_rng_below(&rng, N)
                                : (i * 7 + (uint32_t)trial) % N;
            add(&s, at, all[at].size);
            add(&s, N + i, i % 2 ? SAMPLE_MOST + 1 : SAMPLE_LEAST - 1);
        }
        samples_settle(&s);
        qsort(all, N, sizeof(*all), by_rank);
        while (fit < N && bytes + all[fit].size <= SAMPLES_BYTES) {
            bytes += all[fit++].size;
        }
        assert_in_range(fit, 10, N - 1);
        assert_int_equal(s.n, fit);
        assert_int_equal(s.bytes, bytes);
        for (size_t i = 0; i < fit; i++) {
            assert_int_equal(s.items[i].rank, all[i].rank);
            assert_int_equal(s.items[i].size, all[i].size);
        }
        samples_finish(&s);
    }
    samples_init(&s); /* and not more than so many */
    for (uint32_t i = 0; i < 4 * SAMPLES_COUNT; i++) {
        add(&s, i, SAMPLE_LEAST);
    }
    samples_settle(&s);
    assert_int_equal(s.n, SAMPLES_COUNT);
    samples_finish(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_choice)};
    return cmocka_run_group_tests(tests, kit_set_up, kit_tear_down);
}
