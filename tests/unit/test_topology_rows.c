/* SPDX-License-Identifier: Apache-2.0 */
/* core/topology/rows.c: the fallbacks that editors and docs/topology.md show are what
   the loader fills in. */
#include "topology_kit.h"

#include "core/topology/inside.h"

/* Nothing that could be left out. */
static const char least[] = "tiered: 1\n"
                            "tiers:\n"
                            "  - {name: cloud, aggregate: fedavg}\n"
                            "  - {name: fog, fan_out: 2, aggregate: median}\n"
                            "  - {name: edge, fan_out: 3, trainer: {softmax: {data: "
                            "d}}}\n";

enum tier {
    CLOUD,
    FOG,
    EDGE,
    N_TIERS,
};
static const char *const tiers[N_TIERS] = {"cloud", "fog", "edge"};

static bool has_meaning(const struct key_row *row, enum tier tier)
{
    return !(row->where & KEY_BELOW && tier == CLOUD) &&
           row->where & (tier == EDGE ? KEY_LEAF : KEY_INNER);
}

/* The least topology with one key written as its fallback. */
static void load_with(struct kit_result *ret, const char *path,
                      const struct key_row *row)
{
    char set[256];
    const char *const sets[] = {set};
    snprintf(set, sizeof(set), "%s%s=%s", path, row->name, row->fallback);
    print_message("%s\n", set);
    kit_load(sets, 1, ret);
    assert_non_null(ret->topology);
}

/* A choice that is checked and not kept, since there is only one. */
static void check_only_choice(const struct key_row *row)
{
    assert_int_equal(row->type, KEY_CHOICE);
    assert_int_equal(row->n_now, 1);
    assert_string_equal(row->choices[0], row->fallback);
}

static const char *field_of(const struct kit_result *r, enum tier tier,
                            const struct key_row *row)
{
    const size_t start = offsetof(struct tier_keys, settings);
    const struct tiered_settings *settings =
        &tiered_topology_tier(r->topology, tier)->settings;
    bool inside = row->offset >= start &&
                  row->offset + row->size <= start + sizeof(struct tiered_settings);
    return inside ? (const char *)settings + (row->offset - start) : NULL;
}

static void check_same(const struct key_row *row, const void *absent,
                       const void *written)
{
    const struct tiered_plugin_list *list = absent, *other_list = written;
    const struct tiered_plugin_ref *ref = absent, *other_ref = written;
    switch (row->type) {
    case KEY_UPLINK:
    case KEY_DOWNLINK:
        assert_int_equal(list->n, 0);
        assert_int_equal(other_list->n, 0);
        break;
    case KEY_TRANSPORT:
        assert_non_null(ref->loaded);
        assert_ptr_equal(ref->loaded, other_ref->loaded);
        break;
    default:
        assert_memory_equal(absent, written, row->size);
    }
}

static void check_fallback(const struct kit_result *absent, enum tier tier,
                           const struct key_row *row, const char *section)
{
    char path[64];
    struct kit_result written;
    snprintf(path, sizeof(path), "tiers.%s.%s", tiers[tier], section);
    load_with(&written, path, row);
    assert_true(given_has(&written.topology->tiers[tier].given, row->id));
    assert_false(given_has(&absent->topology->tiers[tier].given, row->id));
    const char *field = field_of(absent, tier, row);
    if (field) {
        check_same(row, field, field_of(&written, tier, row));
    } else {
        check_only_choice(row);
    }
    kit_finish(&written);
}

static size_t check_tier_rows(const struct kit_result *absent,
                              const struct key_row *rows, size_t n_rows, enum tier tier,
                              const char *section)
{
    static const char nothing[sizeof(struct tiered_settings)];
    size_t n = 0;
    for (size_t i = 0; i < n_rows; i++) {
        const struct key_row *row = &rows[i];
        if (row->where & (KEY_NEEDED | KEY_REQUIRED) || row->type == KEY_LATER ||
            !has_meaning(row, tier)) {
            assert_true(!row->fallback || !has_meaning(row, tier));
        } else if (row->type == KEY_SECTION) {
            n += check_tier_rows(absent, row->nested, row->n_nested, tier, "rounds.");
        } else if (row->fallback) {
            check_fallback(absent, tier, row, section);
            n++;
        } else {
            print_message("%s: nothing\n", row->name);
            assert_memory_equal(field_of(absent, tier, row), nothing, row->size);
        }
    }
    return n;
}

static void test_tiers(void **state)
{
    (void)state;
    /* memory; of inner nodes sample, quorum, late, mode, on_bad_update, of the fog also
       per_parent_round; below the root uplink, downlink, transport; insecure. */
    static const size_t n_fallbacks[N_TIERS] = {7, 11, 5};
    struct kit_result absent;
    kit_write(least, strlen(least));
    kit_load(NULL, 0, &absent);
    for (enum tier tier = CLOUD; tier < N_TIERS; tier++) {
        assert_int_equal(
            check_tier_rows(&absent, tiered_tier_rows, tiered_tier_n_rows, tier, ""),
            n_fallbacks[tier]);
    }
    kit_finish(&absent);
}

static void check_same_run(const struct tiered_run_settings *absent,
                           const struct tiered_run_settings *written)
{
    assert_string_equal(absent->name, written->name);
    assert_int_equal(absent->rounds, written->rounds);
    assert_int_equal(absent->seed, written->seed);
    assert_int_equal(absent->evaluate_every, written->evaluate_every);
    assert_null(absent->model_path);
    assert_null(written->model_path);
}

static size_t check_top_rows(const struct kit_result *absent,
                             const struct key_row *rows, size_t n_rows,
                             const char *prefix)
{
    size_t n = 0;
    for (size_t i = 0; i < n_rows; i++) {
        const struct key_row *row = &rows[i];
        if (row->type == KEY_SECTION) {
            char inner[64];
            snprintf(inner, sizeof(inner), "%s%s.", prefix, row->name);
            n += check_top_rows(absent, row->nested, row->n_nested, inner);
        } else if (row->fallback) {
            struct kit_result written;
            load_with(&written, prefix, row);
            check_same_run(tiered_topology_run(absent->topology),
                           tiered_topology_run(written.topology));
            if (row->id == TOP_AT) {
                check_only_choice(row);
            }
            kit_finish(&written);
            n++;
        }
    }
    return n;
}

static void test_top(void **state)
{
    (void)state;
    struct kit_result absent;
    kit_write(least, strlen(least));
    kit_load(NULL, 0, &absent);
    /* rounds, seed, model, evaluate.every, evaluate.at */
    assert_int_equal(check_top_rows(&absent, tiered_top_rows, tiered_top_n_rows, ""),
                     5);
    const struct tiered_run_settings *run = tiered_topology_run(absent.topology);
    assert_int_equal(run->stop.sign, 0);
    assert_null(run->orchestrator_host);
    assert_null(run->orchestrator_listen);
    kit_finish(&absent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiers),
        cmocka_unit_test(test_top),
    };
    return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}
