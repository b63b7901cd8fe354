/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of numbers have little to repeat: what a dictionary gives them is tables,
 * which a small block could not pay for by itself. So most candidates are tables alone,
 * from the blocks up to some size, as large and small ones may be of different kinds;
 * others have content too, for blobs and counters.
 *
 * Each is made twice, of every second block, and judged on the other blocks, so that it
 * cannot win by having learnt them. The winner is then made of all blocks.
 */
#include "train.h"

#include <stdlib.h>
#include <string.h>

#include <zdict.h>

#define CONTENT_MOST (16u << 10)
#define TABLES_MOST  512u /* bytes of a dictionary's head and four tables */
#define FEWEST       4u   /* samples */

#define ALL 2 /* "half" of the samples: 0, 1, or both */

static const struct candidate {
    uint32_t most, content; /* bytes of a block; of what may repeat */
} candidates[] = {
    {1u << 10, 0},           {4u << 10, 0},           {SAMPLE_MOST, 0},
    {SAMPLE_MOST, 1u << 10}, {SAMPLE_MOST, 4u << 10}, {SAMPLE_MOST, CONTENT_MOST},
};
#define N_CANDIDATES (sizeof(candidates) / sizeof(candidates[0]))

/* The samples in one run of bytes, as zstd's trainer wants them. */
struct lesson {
    uint8_t *bytes;
    size_t *sizes;
    unsigned n;
    uint8_t content[CONTENT_MOST + TABLES_MOST];
    size_t content_size; /* at the end of `content` */
    bool tried;
};

struct judge {
    const struct samples *samples;
    ZSTD_CCtx *context;
    int level;
    uint32_t *plain; /* what each sample takes without a dictionary */
    size_t capacity;
    uint8_t *out;
    struct lesson lesson;
};

static void judge_finish(struct judge *j)
{
    free(j->plain);
    free(j->out);
    free(j->lesson.bytes);
    free(j->lesson.sizes);
    free(j);
}

static struct judge *judge_create(const struct samples *samples, ZSTD_CCtx *context,
                                  int level)
{
    struct judge *j = calloc(1, sizeof(*j));
    if (!j) {
        return NULL;
    }
    *j = (struct judge){.samples = samples, .context = context, .level = level};
    j->capacity = ZSTD_compressBound(SAMPLE_MOST);
    j->plain = malloc((samples->n + 1) * sizeof(*j->plain));
    j->out = malloc(j->capacity);
    j->lesson.bytes = malloc(samples->bytes + 1);
    j->lesson.sizes = malloc((samples->n + 1) * sizeof(*j->lesson.sizes));
    if (!j->plain || !j->out || !j->lesson.bytes || !j->lesson.sizes) {
        judge_finish(j);
        return NULL;
    }
    for (size_t i = 0; i < samples->n; i++) {
        const struct sample *one = &samples->items[i];
        size_t made = press(context, NULL, one->data, one->size, j->out, j->capacity);
        j->plain[i] = ZSTD_isError(made) ? 0 : (uint32_t)made; /* 0: nothing to gain */
    }
    return j;
}

/* ---- making one ---- */

static void gather(struct judge *j, unsigned half, uint32_t most)
{
    struct lesson *l = &j->lesson;
    size_t at = 0;
    l->n = 0;
    for (size_t i = 0; i < j->samples->n; i++) {
        const struct sample *one = &j->samples->items[i];
        if ((half == ALL || i % 2 == half) && one->size <= most) {
            memcpy(l->bytes + at, one->data, one->size);
            l->sizes[l->n++] = one->size;
            at += one->size;
        }
    }
}

/* What repeats most stands at the end, so that a shorter content is a part of it. */
static void find_content(struct lesson *l)
{
    l->content_size = 0;
    size_t made =
        ZDICT_trainFromBuffer(l->content, sizeof(l->content), l->bytes, l->sizes, l->n);
    if (ZDICT_isError(made)) {
        return;
    }
    size_t tables = ZDICT_getDictHeaderSize(l->content, made);
    if (!ZDICT_isError(tables) && tables < made) {
        l->content_size = made - tables;
        memmove(l->content + sizeof(l->content) - l->content_size, l->content + tables,
                l->content_size);
    }
}

/* Content that nothing refers to: a dictionary may not be without. */
static const uint8_t no_content[8];

/* False: nothing can be learnt from these samples so. */
static bool make(struct judge *j, const struct candidate *c, struct dictionary *ret)
{
    struct lesson *l = &j->lesson;
    const uint8_t *content = no_content;
    size_t size = sizeof(no_content), room = c->content + TABLES_MOST;
    if (c->content) {
        size = c->content < l->content_size ? c->content : l->content_size;
        content = l->content + sizeof(l->content) - size;
    }
    uint8_t *bytes = size && l->n ? malloc(room) : NULL;
    if (!bytes) {
        return false;
    }
    const ZDICT_params_t params = {.compressionLevel = j->level, .dictID = 1};
    size_t made = ZDICT_finalizeDictionary(bytes, room, content, size, l->bytes,
                                           l->sizes, l->n, params);
    if (ZDICT_isError(made)) {
        free(bytes);
        return false;
    }
    return dictionary_make(bytes, made, j->level, ret, NULL) == 0;
}

static bool make_of(struct judge *j, const struct candidate *c, unsigned half,
                    struct dictionary *ret)
{
    gather(j, half, c->most);
    if (c->content && !j->lesson.tried) {
        find_content(&j->lesson);
        j->lesson.tried = true;
    }
    return make(j, c, ret);
}

/* ---- judging it ---- */

/* By how much the blocks of a half become shorter; one that would not stays. */
static uint64_t gain_of(const struct judge *j, const struct dictionary *d,
                        unsigned half)
{
    uint64_t gain = 0;
    for (size_t i = 0; i < j->samples->n; i++) {
        const struct sample *one = &j->samples->items[i];
        if (half == ALL || i % 2 == half) {
            size_t made =
                press(j->context, d, one->data, one->size, j->out, j->capacity);
            gain += made < j->plain[i] ? j->plain[i] - made : 0;
        }
    }
    return gain;
}

/* What is left of a gain when the dictionary is paid; a quarter more than its price, as
   the next pass's blocks are others. Not above 0: it does not pay. */
static int64_t worth(uint64_t gain, size_t packed)
{
    return (int64_t)gain - (int64_t)(packed + packed / 4);
}

struct verdict {
    uint64_t gain;
    size_t packed;
};

static void judge_half(struct judge *j, unsigned half,
                       struct verdict verdicts[N_CANDIDATES])
{
    j->lesson.tried = false;
    for (size_t k = 0; k < N_CANDIDATES; k++) {
        struct dictionary d = {0};
        struct verdict *v = &verdicts[k];
        if (candidates[k].content <= j->samples->bytes / 8 &&
            make_of(j, &candidates[k], half, &d)) {
            v->gain += gain_of(j, &d, 1 - half);
            v->packed = d.packed_size > v->packed ? d.packed_size : v->packed;
        }
        dictionary_finish(&d);
    }
}

static void choose(struct judge *j, struct dictionary *d)
{
    struct verdict verdicts[N_CANDIDATES] = {{0}};
    int64_t best = 0;
    const struct candidate *chosen = NULL;
    bool have = !dictionary_is_none(d);
    if (have) {
        best = worth(gain_of(j, d, ALL), d->packed_size);
    }
    bool stays = have && best > 0;
    best = stays ? best : 0;
    judge_half(j, 0, verdicts);
    judge_half(j, 1, verdicts);
    for (size_t k = 0; k < N_CANDIDATES; k++) {
        int64_t is = worth(verdicts[k].gain, verdicts[k].packed);
        if (is > best) {
            best = is;
            chosen = &candidates[k];
        }
    }
    struct dictionary made = {0};
    j->lesson.tried = false;
    if (chosen && make_of(j, chosen, ALL, &made)) {
        dictionary_finish(d);
        *d = made;
    } else if (!stays) {
        dictionary_finish(d);
    }
}

int dictionary_choose(struct dictionary *d, const struct samples *samples,
                      ZSTD_CCtx *context, int level, struct tiered_error *err)
{
    if (samples->n < FEWEST) {
        dictionary_finish(d);
        return 0;
    }
    struct judge *j = judge_create(samples, context, level);
    if (!j) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    choose(j, d);
    judge_finish(j);
    return 0;
}
