/* SPDX-License-Identifier: Apache-2.0 */
/* The commit record of an inner node, and a round machine that goes on from it.
   Input: commit.json. */
#include "agents/store.h"
#include "fuzz.h"

#define CHILDREN 4

static void step(struct tiered_round *round, const struct tiered_round_event *event)
{
    struct tiered_error err = {0};
    const struct tiered_round_action *actions;
    size_t n;
    FUZZ_CHECK(tiered_round_step(round, event, &actions, &n, &err) == 0, "%s",
               err.text);
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(actions[i].child < CHILDREN, "an action for child %u",
                   actions[i].child);
    }
}

static void go_on(const struct tiered_round_record *record)
{
    const struct tiered_round_config config = {.node = "fog-0",
                                               .n_children = CHILDREN,
                                               .rounds_per_parent = 3,
                                               .sample = 1,
                                               .quorum = 1,
                                               .seed = 7,
                                               .generation = record->generation};
    struct tiered_error err = {0};
    struct tiered_round *round = NULL;
    FUZZ_CHECK(tiered_round_create(&config, &round, &err) == 0, "%s", err.text);
    if (tiered_round_restore(round, record, &err) < 0) {
        fuzz_check_error(&err);
    } else {
        for (uint32_t i = 0; i < CHILDREN; i++) {
            step(round, &(struct tiered_round_event){.kind = TIERED_ON_CHILD_READY,
                                                     .child = i});
        }
        step(round, &(struct tiered_round_event){.kind = TIERED_ON_START,
                                                 .path = record->turn,
                                                 .base = record->turn_base});
    }
    tiered_round_destroy(round);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tiered_error err = {0};
    struct tiered_round_record record = {0};
    fuzz_file("commit.json", data, size);
    int result = store_load(fuzz_folder(), "run", &record, &err);
    if (result < 0) {
        fuzz_check_error(&err);
    } else if (result > 0) {
        FUZZ_CHECK(record.metrics.n <= TIERED_MAX_METRICS, "%u metrics",
                   record.metrics.n);
        FUZZ_CHECK(record.turn.depth <= TIERED_MAX_DEPTH, "depth %u",
                   record.turn.depth);
        go_on(&record);
        store_record_finish(&record);
    }
    return 0;
}
