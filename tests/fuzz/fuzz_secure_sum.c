/* SPDX-License-Identifier: Apache-2.0 */
/* What both sides of secure-sum make of a peer's message. Input: a byte that picks the
   step (low two bits), the side (bit 2) and how the message is made (bit 3): of the
   input alone behind a good header, or a real message with edits (u16 place, u8 xor)
   and a u16 to which it is cut. */
#include "fuzz.h"

#include "core/plugins/hosting.h"
#include "plugins/privacy/secure-sum/inside.h"

#define N      5u
#define VALUES 3u

struct group {
    struct tiered_hosting hosting;
    struct ss_rules rules;
    struct ss_aggregator aggregator;
    struct ss_member members[N];
};

static struct ss_rules rules_of(void)
{
    return (struct ss_rules){
        .threshold = 0.6, .min_group = 3, .neighbours = 2, .ring = {4, 8, 1000, 0}};
}

static void must(int result, const struct tiered_error *err)
{
    FUZZ_CHECK(result == 0, "%s", err->text);
}

/* Up to the messages of `step`: *asked for member 0, *answer its own. */
static void play(struct group *g, uint32_t step, struct ss_writer *asked,
                 struct ss_writer *answer)
{
    struct tiered_error err = {0};
    const struct tiered_group_round round = {.size = sizeof(round),
                                             .host = &g->hosting.host,
                                             .n_members = N,
                                             .n_values = VALUES};
    must(ss_aggregator_begin(&g->aggregator, &g->rules, &round, &err), &err);
    for (uint32_t i = 0; i < N; i++) {
        must(ss_member_begin(&g->members[i], &g->rules, &round, &err), &err);
    }
    for (uint32_t s = 1; s <= step; s++) {
        /* member 0 last: its messages stay; the last member drops out */
        for (uint32_t i = s > SS_PRE_STEPS ? N - 1 : N; i-- > 0;) {
            must(ss_aggregator_step(&g->aggregator, s, i, asked->at, asked->capacity,
                                    &asked->size, &err),
                 &err);
            if (s == step && i == 0) {
                return;
            }
            must(ss_member_step(&g->members[i], s, asked->at, asked->size, answer->at,
                                answer->capacity, &answer->size, &err),
                 &err);
            must(ss_aggregator_receive(&g->aggregator, s, i, answer->at, answer->size,
                                       &err),
                 &err);
        }
        must(ss_aggregator_close(&g->aggregator, s, &err), &err);
        if (s == SS_PRE_STEPS) {
            const uint32_t who[] = {0, 1, 2, 3};
            for (uint32_t i = 0; i < N; i++) {
                const struct tiered_group_weight weight = {2, 3};
                const double values[VALUES] = {1, -2, 3};
                uint8_t open[TIERED_GROUP_OPEN], tail[TIERED_GROUP_TAIL];
                uint32_t words[VALUES];
                uint64_t clipped = 0;
                must(ss_member_open(&g->members[i], &weight, VALUES, open, tail, &err),
                     &err);
                must(ss_member_mask(&g->members[i], 0, VALUES, values, words, &clipped,
                                    &err),
                     &err);
            }
            must(ss_aggregator_survivors(&g->aggregator, who, 4, &err), &err);
        }
    }
}

/* The message under test, from a real one. */
static size_t make(struct fuzz_input *in, bool raw, const uint8_t *real, size_t size,
                   uint8_t *out, size_t capacity)
{
    memcpy(out, real, size);
    if (raw) {
        size_t n = in->size < capacity - SS_HEADER_BYTES ? in->size
                                                         : capacity - SS_HEADER_BYTES;
        memcpy(out + SS_HEADER_BYTES, in->data, n);
        return SS_HEADER_BYTES + n;
    }
    size_t cut = fuzz_u16(in);
    while (in->size >= 3) {
        size_t at = fuzz_u16(in) % size;
        out[at] ^= fuzz_byte(in);
    }
    return cut < size ? size - cut : size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct group g;
    static uint8_t asked_bytes[1 << 16], answer_bytes[1 << 16], message[1 << 16];
    struct fuzz_input in = {data, size};
    struct tiered_error err = {0};
    unsigned choice = fuzz_byte(&in);
    uint32_t step = 1 + (choice & 3);
    struct ss_writer asked = {asked_bytes, 0, sizeof(asked_bytes)};
    struct ss_writer answer = {answer_bytes, 0, sizeof(answer_bytes)};
    g.rules = rules_of();
    tiered_hosting_init(&g.hosting, 1, "fuzz", "edge", "leaf", "1");
    play(&g, step, &asked, &answer);
    size_t made = 0;
    bool raw = choice & 8;
    if (choice & 4) { /* the aggregator's parser */
        must(ss_member_step(&g.members[0], step, asked.at, asked.size, answer.at,
                            answer.capacity, &answer.size, &err),
             &err);
        size_t n = make(&in, raw, answer.at, answer.size, message, sizeof(message));
        if (ss_aggregator_receive(&g.aggregator, step, 0, message, n, &err) < 0) {
            fuzz_check_error(&err);
        } else if (ss_aggregator_close(&g.aggregator, step, &err) < 0) {
            fuzz_check_error(&err);
        }
    } else {
        size_t n = make(&in, raw, asked.at, asked.size, message, sizeof(message));
        if (ss_member_step(&g.members[0], step, message, n, answer.at, answer.capacity,
                           &made, &err) < 0) {
            fuzz_check_error(&err);
        } else {
            FUZZ_CHECK(made <= answer.capacity, "more than there is room for");
        }
    }
    ss_aggregator_finish(&g.aggregator);
    for (uint32_t i = 0; i < N; i++) {
        ss_member_finish(&g.members[i]);
    }
    return 0;
}
