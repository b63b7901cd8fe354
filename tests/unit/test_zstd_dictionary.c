/* SPDX-License-Identifier: Apache-2.0 */
/* zstd's dictionary: it goes out where it pays and nowhere else, the same one whatever
   the order of the blocks, outlives its process, and is believed only as far as it can
   be checked. */
#include "codec_kit.h"

#include <pthread.h>
#include <zstd.h>

#define ON  "{\"dictionary\":true}"
#define OFF "{}"

enum { LAYERS = 60, VALUES = 300 };

/* Tensors of one dtype with a counter behind each, as between the layers of a network:
   two blocks a layer, both small. */
static struct tiered_layout *layers(size_t n, enum tiered_dtype dtype, uint64_t values)
{
    struct kit_tensor *tensors = calloc(2 * n, sizeof(*tensors));
    for (size_t i = 0; i < n; i++) {
        tensors[2 * i] = (struct kit_tensor){dtype, TIERED_PARAMETER, values, 0};
        tensors[2 * i + 1] = (struct kit_tensor){TIERED_I64, TIERED_BUFFER, 1, 0};
    }
    struct tiered_layout *layout = kit_layout(tensors, 2 * n);
    free(tensors);
    assert_int_equal(layout->n_blocks, 2 * n);
    return layout;
}

/* Small whole numbers of a normal distribution, and counters of 100. */
static uint8_t *updates(const struct tiered_layout *layout, uint8_t seed)
{
    static float values[1u << 20];
    uint8_t *data = calloc(1, (size_t)layout->m.data_bytes);
    for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &layout->m.tensors[i];
        size_t width = tiered_dtype_size(t->dtype);
        assert_true(t->n_elements <= TIERED_COUNT(values));
        kit_normal(values, (size_t)t->n_elements, 20, (uint8_t)(seed + i));
        for (uint64_t k = 0; k < t->n_elements; k++) {
            double v = t->dtype == TIERED_I64 ? 100 : rint((double)values[k]);
            tiered_from_f64(t->dtype, &v, 1, data + t->offset_bytes + k * width);
        }
    }
    return data;
}

static uint8_t *noise(const struct tiered_layout *layout, uint8_t seed)
{
    const uint8_t key[32] = {seed};
    struct tiered_rng rng;
    uint8_t *data = malloc((size_t)layout->m.data_bytes);
    tiered_rng_init(&rng, key);
    for (uint64_t i = 0; i < layout->m.data_bytes; i++) {
        data[i] = (uint8_t)tiered_rng_u64(&rng);
    }
    return data;
}

static size_t cost(const struct kit_pass *p)
{
    size_t bytes = p->header_size;
    for (size_t i = 0; i < p->n_blocks; i++) {
        bytes += p->blocks[i].size;
    }
    return bytes;
}

/* The next pass of `c`, which a state that knows nothing decodes; what it costs. */
static size_t next(struct kit_codec *c, const uint8_t *data, size_t *ret_header)
{
    struct kit_pass p;
    uint8_t *out = calloc(1, (size_t)c->layout->m.data_bytes);
    kit_encode(c, data, &p);
    kit_decode("zstd", OFF, c->layout, &p, out);
    for (uint32_t i = 0; i < c->layout->n_blocks; i++) {
        const struct tiered_block *b = &c->layout->blocks[i];
        assert_memory_equal(out + b->offset_bytes, data + b->offset_bytes,
                            b->size_bytes);
    }
    size_t bytes = cost(&p);
    *ret_header = p.header_size;
    kit_pass_finish(&p);
    free(out);
    return bytes;
}

static size_t plain_cost(struct tiered_layout *layout, const uint8_t *data)
{
    size_t header;
    struct kit_codec c = kit_open("zstd", OFF, layout);
    size_t bytes = next(&c, data, &header);
    assert_int_equal(header, 0);
    kit_close(&c);
    return bytes;
}

static void test_pays(void **state)
{
    (void)state;
    struct tiered_layout *layout = layers(LAYERS, TIERED_I16, VALUES);
    struct kit_codec c = kit_open("zstd", ON, layout);
    for (uint8_t round = 0; round < 4; round++) {
        size_t header;
        uint8_t *data = updates(layout, (uint8_t)(70 * round));
        size_t plain = plain_cost(layout, data), bytes = next(&c, data, &header);
        if (round == 0) { /* nothing earlier: as without */
            assert_int_equal(header, 0);
            assert_int_equal(bytes, plain);
        } else { /* tables are all that numbers need */
            assert_in_range(header, 1, 400);
            assert_true(bytes < plain * 95 / 100);
        }
        free(data);
    }
    kit_close(&c);
    tiered_layout_unref(layout);
}

/* No block is ever larger than without, and one that is not small is the same. */
static void test_block_by_block(void **state)
{
    (void)state;
    const struct kit_tensor large = {TIERED_F32, TIERED_PARAMETER, 5000, 0};
    struct kit_tensor tensors[2 * LAYERS + 1] = {[2 * LAYERS] = large};
    for (size_t i = 0; i < LAYERS; i++) {
        tensors[2 * i] =
            (struct kit_tensor){TIERED_I16, TIERED_PARAMETER, 1 + 9 * i, 0};
        tensors[2 * i + 1] = (struct kit_tensor){TIERED_I64, TIERED_BUFFER, i % 3, 0};
    }
    struct tiered_layout *layout = kit_layout(tensors, TIERED_COUNT(tensors));
    uint8_t *data = updates(layout, 1);
    struct kit_codec with = kit_open("zstd", ON, layout),
                     without = kit_open("zstd", OFF, layout);
    struct kit_pass a, b;
    kit_encode(&with, data, &a);
    kit_pass_finish(&a);
    kit_encode(&with, data, &a);
    kit_encode(&without, data, &b);
    size_t shorter = 0, last = b.n_blocks - 1;
    assert_true(a.header_size > 0);
    for (size_t i = 0; i < a.n_blocks; i++) {
        assert_true(a.blocks[i].size <= b.blocks[i].size);
        shorter += a.blocks[i].size < b.blocks[i].size;
        bool named = ZSTD_getDictID_fromFrame(a.blocks[i].data, a.blocks[i].size);
        assert_int_equal(named, a.blocks[i].size < b.blocks[i].size);
    }
    assert_true(shorter > LAYERS / 2);
    assert_int_equal(a.blocks[last].size, b.blocks[last].size);
    assert_memory_equal(a.blocks[last].data, b.blocks[last].data, b.blocks[last].size);
    kit_pass_finish(&a);
    kit_pass_finish(&b);
    kit_close(&with);
    kit_close(&without);
    free(data);
    tiered_layout_unref(layout);
}

/* Noise, one large block, too few blocks, none: bytes as without, in every round. */
static void test_costs_nothing(void **state)
{
    (void)state;
    struct tiered_layout *const layouts[] = {
        layers(LAYERS, TIERED_U8, 1000), kit_flat(TIERED_F32, 101770),
        layers(1, TIERED_I16, VALUES), kit_flat(TIERED_F32, 0),
        layers(LAYERS, TIERED_I8, 1)};
    for (size_t i = 0; i < TIERED_COUNT(layouts); i++) {
        struct kit_codec c = kit_open("zstd", ON, layouts[i]);
        for (uint8_t round = 0; round < 3; round++) {
            size_t header;
            uint8_t *data =
                i == 0 ? noise(layouts[i], round) : updates(layouts[i], round);
            assert_int_equal(next(&c, data, &header), plain_cost(layouts[i], data));
            assert_int_equal(header, 0);
            free(data);
        }
        kit_close(&c);
        tiered_layout_unref(layouts[i]);
    }
}

/* Blocks of another kind than the rounds before: the dictionary is paid once more, and
   not again. */
static void test_given_up(void **state)
{
    (void)state;
    struct tiered_layout *layout = layers(LAYERS, TIERED_I16, VALUES);
    struct kit_codec c = kit_open("zstd", ON, layout);
    size_t header;
    uint8_t *good = updates(layout, 1), *bad = noise(layout, 1);
    next(&c, good, &header);
    size_t bytes = next(&c, bad, &header);
    assert_true(header > 0);
    assert_int_equal(bytes, plain_cost(layout, bad) + header);
    assert_int_equal(next(&c, bad, &header), plain_cost(layout, bad));
    assert_int_equal(header, 0);
    kit_close(&c);
    free(good);
    free(bad);
    tiered_layout_unref(layout);
}

/* Text repeats what tables cannot say: content is worth its bytes. */
static void test_content(void **state)
{
    (void)state;
    struct tiered_layout *layout = layers(LAYERS, TIERED_U8, 1200);
    uint8_t *data = calloc(1, (size_t)layout->m.data_bytes);
    size_t header, n = 0;
    for (uint32_t i = 0; i < layout->m.n_tensors; i += 2) {
        const struct tiered_tensor *t = &layout->m.tensors[i];
        char *text = (char *)data + t->offset_bytes;
        for (size_t at = 0; at + 100 < t->size_bytes; n++) {
            at +=
                (size_t)snprintf(text + at, 100,
                                 "{\"feature\":%zu,\"threshold\":0.%zu,\"leaf_value\":"
                                 "-%zu},",
                                 n * 7 % 41, n * 7919 % 10007, n * n % 103);
        }
    }
    struct kit_codec c = kit_open("zstd", ON, layout);
    next(&c, data, &header);
    size_t bytes = next(&c, data, &header);
    assert_true(bytes < plain_cost(layout, data) * 9 / 10);
    kit_close(&c);
    free(data);
    tiered_layout_unref(layout);
}

/* ---- the same dictionary, whatever comes first ---- */

static struct tiered_bytes save(struct kit_codec *c)
{
    struct tiered_error err;
    struct tiered_bytes saved = {0};
    assert_int_equal(c->ops->saved.save(c->state, NULL, 0, &saved.size, &err), 0);
    saved.data = malloc(saved.size + 1);
    assert_int_equal(
        c->ops->saved.save(c->state, saved.data, saved.size, &saved.size, &err), 0);
    return saved;
}

struct part {
    struct kit_codec *c;
    const uint8_t *data;
    uint32_t first, turns;
    bool down;
};

/* Every block, from some on, up or down, once or more often. */
static void *forward_all(void *user)
{
    const struct part *part = user;
    const struct tiered_layout *layout = part->c->layout;
    uint32_t n = layout->n_blocks;
    uint8_t *out = malloc(1u << 16);
    for (uint32_t k = 0; k < part->turns * n; k++) {
        uint32_t step = part->down ? n - 1 - k % n : k;
        const struct tiered_block *b = &layout->blocks[(part->first + step) % n];
        struct tiered_error err;
        size_t made;
        if (part->c->ops->forward(part->c->state, b, part->data + b->offset_bytes,
                                  b->size_bytes, out, 1u << 16, &made, &err) < 0) {
            abort();
        }
    }
    free(out);
    return NULL;
}

/* More small blocks than are looked at, from 10 bytes to 8,000: large ones that do not
   fit make no room for small ones that come later. Also after a pass that was dropped.
 */
static void test_same_bytes(void **state)
{
    (void)state;
    enum { N_THREADS = 4 };
    struct tiered_error err;
    static struct kit_tensor tensors[1800];
    for (size_t i = 0; i < 1800; i += 2) {
        uint64_t values = i % 14 ? 5 + i * 37 % 400 : 4000;
        tensors[i] = (struct kit_tensor){TIERED_I16, TIERED_PARAMETER, values, 0};
        tensors[i + 1] = (struct kit_tensor){TIERED_I64, TIERED_BUFFER, 2, 0};
    }
    struct tiered_layout *layout = kit_layout(tensors, 1800);
    uint8_t *data = updates(layout, 9), *other = noise(layout, 9);
    struct tiered_bytes want = {0};
    for (uint32_t turn = 0; turn < 8; turn++) {
        struct kit_codec c = kit_open("zstd", ON, layout);
        struct part parts[N_THREADS];
        pthread_t threads[N_THREADS];
        if (turn == 1) {
            assert_int_equal(c.ops->begin(c.state, &kit_hosting.host, &err), 0);
            parts[0] = (struct part){&c, other, 0, 1, false};
            forward_all(&parts[0]);
        }
        assert_int_equal(c.ops->begin(c.state, &kit_hosting.host, &err), 0);
        uint32_t n = turn < 6 ? 1 : N_THREADS;
        for (uint32_t k = 0; k < n; k++) {
            parts[k] = (struct part){&c, data, turn * 301 + k * 77, n > 1 ? 2 : 1,
                                     (turn + k) % 2};
            pthread_create(&threads[k], NULL, forward_all, &parts[k]);
        }
        for (uint32_t k = 0; k < n; k++) {
            pthread_join(threads[k], NULL);
        }
        assert_int_equal(c.ops->end(c.state, &err), 0);
        struct tiered_bytes got = save(&c);
        assert_true(got.size > 0);
        if (turn == 0) {
            want = got;
        } else {
            assert_int_equal(got.size, want.size);
            assert_memory_equal(got.data, want.data, want.size);
            tiered_bytes_finish(&got);
        }
        kit_close(&c);
    }
    tiered_bytes_finish(&want);
    free(data);
    free(other);
    tiered_layout_unref(layout);
}

/* ---- what is saved, and what comes from a peer ---- */

/* A state that has seen one pass, and what it saves. */
static struct kit_codec trained(struct tiered_layout *layout, uint8_t seed,
                                struct tiered_bytes *ret)
{
    size_t header;
    struct kit_codec c = kit_open("zstd", ON, layout);
    uint8_t *data = updates(layout, seed);
    next(&c, data, &header);
    *ret = save(&c);
    assert_true(ret->size > 0);
    free(data);
    return c;
}

static void test_saved(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout *layout = layers(LAYERS, TIERED_I16, VALUES);
    struct tiered_bytes saved, again;
    struct kit_codec c = trained(layout, 5, &saved),
                     other = kit_open("zstd", ON, layout),
                     off = kit_open("zstd", OFF, layout);
    uint8_t *data = updates(layout, 99);
    struct kit_pass a, b;
    assert_int_equal(
        other.ops->saved.load(other.state, 1, saved.data, saved.size, &err), 0);
    kit_encode(&c, data, &a);
    kit_encode(&other, data, &b);
    assert_int_equal(a.header_size, saved.size);
    assert_memory_equal(a.header, saved.data, saved.size); /* one that survives */
    assert_int_equal(b.header_size, a.header_size);
    assert_memory_equal(b.header, a.header, a.header_size);
    for (size_t i = 0; i < a.n_blocks; i++) {
        assert_int_equal(a.blocks[i].size, b.blocks[i].size);
        assert_memory_equal(a.blocks[i].data, b.blocks[i].data, a.blocks[i].size);
    }
    /* switched off since: forgotten */
    assert_int_equal(off.ops->saved.load(off.state, 1, saved.data, saved.size, &err),
                     0);
    again = save(&off);
    assert_int_equal(again.size, 0);
    assert_int_equal(off.ops->saved.load(off.state, 2, saved.data, saved.size, &err),
                     -1);
    assert_string_equal(err.text, "a dictionary of version 2; this is version 1");
    tiered_bytes_finish(&again);
    tiered_bytes_finish(&saved);
    kit_pass_finish(&a);
    kit_pass_finish(&b);
    kit_close(&c);
    kit_close(&other);
    kit_close(&off);
    free(data);
    tiered_layout_unref(layout);
}

/* Of a header and of a saved state: every cut, a byte too many and every flipped bit.
   The dictionary is under a checksum; so what is not refused, as some bits of a frame
   mean nothing, is the same dictionary. */
static void test_damaged(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout *layout = layers(LAYERS, TIERED_I16, VALUES);
    const struct tiered_block *block = &layout->blocks[0];
    struct tiered_bytes saved;
    struct kit_codec c = trained(layout, 5, &saved),
                     receiver = kit_open("zstd", OFF, layout);
    uint8_t *data = updates(layout, 6), out[2 * VALUES];
    struct kit_pass p;
    size_t made, taken = 0;
    kit_encode(&c, data, &p);
    for (size_t cut = 1; cut <= saved.size; cut++) {
        size_t size = cut < saved.size ? cut : saved.size + 1;
        uint8_t *copy = calloc(1, size);
        memcpy(copy, saved.data, cut);
        assert_int_equal(receiver.ops->inverse_begin(receiver.state, copy, size, &err),
                         -1);
        assert_int_equal(err.code, TIERED_ECORRUPT);
        assert_int_equal(c.ops->saved.load(c.state, 1, copy, size, &err), -1);
        free(copy);
    }
    for (size_t bit = 0; bit < 8 * saved.size; bit++) {
        saved.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (receiver.ops->inverse_begin(receiver.state, saved.data, saved.size, &err) ==
            0) {
            assert_int_equal(receiver.ops->inverse(receiver.state, block,
                                                   p.blocks[0].data, p.blocks[0].size,
                                                   out, sizeof(out), &made, &err),
                             0);
            assert_memory_equal(out, data, sizeof(out));
            taken++;
        } else {
            assert_int_equal(err.code, TIERED_ECORRUPT);
        }
        saved.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(taken < 8);
    kit_pass_finish(&p);
    tiered_bytes_finish(&saved);
    kit_close(&c);
    kit_close(&receiver);
    free(data);
    tiered_layout_unref(layout);
}

/* `size` bytes as a header, made by the book but for what `context` says. */
static int offer(struct kit_codec *c, ZSTD_CCtx *context, const void *bytes,
                 size_t size, struct tiered_error *err)
{
    size_t bound = 1 + ZSTD_compressBound(size);
    uint8_t *header = malloc(bound);
    header[0] = 1;
    size_t made = ZSTD_compress2(context, header + 1, bound - 1, bytes, size);
    assert_false(ZSTD_isError(made));
    int result = c->ops->inverse_begin(c->state, header, 1 + made, err);
    free(header);
    ZSTD_freeCCtx(context);
    return result;
}

static ZSTD_CCtx *checked(void)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    return context;
}

static void test_forged(void **state)
{
    (void)state;
    static const char *const no_frame =
        "the dictionary is not one frame of at most 32768 bytes with a checksum";
    static uint8_t zeros[64u << 20], bytes[65536];
    struct tiered_error err = {0};
    struct tiered_layout *layout = layers(LAYERS, TIERED_I16, VALUES);
    struct tiered_bytes saved;
    struct kit_codec c = trained(layout, 5, &saved);
    size_t size = ZSTD_decompress(bytes, sizeof(bytes), saved.data + 1, saved.size - 1);
    assert_false(ZSTD_isError(size));
    assert_int_equal(offer(&c, checked(), bytes, size, &err), 0);
    assert_int_equal(offer(&c, ZSTD_createCCtx(), bytes, size, &err), -1);
    assert_string_equal(err.text, no_frame); /* without a checksum */
    ZSTD_CCtx *context = checked();
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    assert_int_equal(offer(&c, context, bytes, size, &err), -1);
    assert_string_equal(err.text, no_frame); /* without its size */
    /* the largest and one more; a bomb of a few thousand bytes */
    assert_int_equal(offer(&c, checked(), bytes, 32768, &err), 0);
    assert_int_equal(offer(&c, checked(), bytes, 32769, &err), -1);
    assert_string_equal(err.text, no_frame);
    assert_int_equal(offer(&c, checked(), zeros, sizeof(zeros), &err), -1);
    assert_string_equal(err.text, no_frame);
    /* bytes that are no dictionary; one without identity; one with bad tables */
    assert_int_equal(offer(&c, checked(), zeros, 1000, &err), -1);
    assert_string_equal(err.text, "the dictionary is damaged");
    bytes[4] = 0;
    assert_int_equal(offer(&c, checked(), bytes, size, &err), -1);
    assert_string_equal(err.text, "the dictionary is damaged");
    bytes[4] = 9;
    memset(bytes + 8, 0xFF, 60);
    assert_int_equal(offer(&c, checked(), bytes, size, &err), -1);
    assert_string_equal(err.text, "the dictionary is damaged");
    /* a frame behind the frame, though it holds nothing */
    const uint8_t skipped[8] = {0x50, 0x2A, 0x4D, 0x18};
    memcpy(bytes, saved.data, saved.size);
    memcpy(bytes + saved.size, skipped, sizeof(skipped));
    assert_int_equal(
        c.ops->inverse_begin(c.state, bytes, saved.size + sizeof(skipped), &err), -1);
    assert_string_equal(err.text, no_frame);
    saved.data[0] = 2;
    assert_int_equal(c.ops->inverse_begin(c.state, saved.data, saved.size, &err), -1);
    assert_string_equal(err.text, "not a dictionary of version 1");
    tiered_bytes_finish(&saved);
    kit_close(&c);
    tiered_layout_unref(layout);
}

/* Blocks behind no header, or behind that of another update. */
static void test_wrong_dictionary(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout *layout = layers(LAYERS, TIERED_I16, VALUES);
    const struct tiered_block *block = &layout->blocks[0];
    struct tiered_bytes saved, foreign;
    struct kit_codec c = trained(layout, 5, &saved), d = trained(layout, 77, &foreign),
                     receiver = kit_open("zstd", OFF, layout);
    struct kit_pass p;
    uint8_t *data = updates(layout, 6), out[4 * VALUES];
    char text[128];
    size_t made;
    kit_encode(&c, data, &p);
    unsigned id = ZSTD_getDictID_fromFrame(p.blocks[0].data, p.blocks[0].size);
    assert_in_range(id, 1, 255);
    assert_int_equal(receiver.ops->inverse_begin(receiver.state, NULL, 0, &err), 0);
    assert_int_equal(receiver.ops->inverse(receiver.state, block, p.blocks[0].data,
                                           p.blocks[0].size, out, block->size_bytes,
                                           &made, &err),
                     -1);
    assert_string_equal(err.text,
                        "the frame needs a dictionary, and none came with it");
    assert_int_equal(
        receiver.ops->inverse_begin(receiver.state, foreign.data, foreign.size, &err),
        0);
    assert_int_equal(receiver.ops->inverse(receiver.state, block, p.blocks[0].data,
                                           p.blocks[0].size, out, block->size_bytes,
                                           &made, &err),
                     -1);
    snprintf(text, sizeof(text), "the frame needs dictionary %u; ", id);
    assert_memory_equal(err.text, text, strlen(text));
    assert_int_equal(err.code, TIERED_ECORRUPT);
    /* damaged blocks of the right one: an error, or no more than fits */
    assert_int_equal(
        receiver.ops->inverse_begin(receiver.state, p.header, p.header_size, &err), 0);
    for (size_t bit = 0; bit < 8 * p.blocks[0].size; bit++) {
        p.blocks[0].data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (receiver.ops->inverse(receiver.state, block, p.blocks[0].data,
                                  p.blocks[0].size, out, block->size_bytes, &made,
                                  &err) == 0) {
            assert_true(made <= block->size_bytes);
        }
        p.blocks[0].data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    kit_pass_finish(&p);
    tiered_bytes_finish(&saved);
    tiered_bytes_finish(&foreign);
    kit_close(&c);
    kit_close(&d);
    kit_close(&receiver);
    free(data);
    tiered_layout_unref(layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pays),          cmocka_unit_test(test_block_by_block),
        cmocka_unit_test(test_costs_nothing), cmocka_unit_test(test_given_up),
        cmocka_unit_test(test_content),       cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_saved),         cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_forged),        cmocka_unit_test(test_wrong_dictionary),
    };
    return cmocka_run_group_tests(tests, kit_set_up, kit_tear_down);
}
