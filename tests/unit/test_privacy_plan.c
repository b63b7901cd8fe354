/* SPDX-License-Identifier: Apache-2.0 */
/* Privacy in a plan: what filters mean together, the ledger, and a budget's rounds. */
#include "topology_kit.h"

#include <math.h>

#define HEAD "tiered: 1\nrun: {seed: 3, rounds: 20%s}\ntiers:\n"
#define LEAF "trainer: {softmax: {data: d}}"

static char *topology(const char *run, const char *aggregate, const char *rounds,
                      const char *uplink, const char *downlink)
{
    char *text = NULL;
    if (asprintf(&text,
                 HEAD "  - {name: c, aggregate: [%s], rounds: {%s}}\n"
                      "  - {name: e, fan_out: 10, " LEAF
                      ", uplink: [%s], downlink: [%s]}\n",
                 run, aggregate, rounds, uplink, downlink) < 0) {
        fail();
    }
    return text;
}

static int set_up(void **state)
{
    static const char *const more[] = {"clip", "gaussian", "delta", "zstd",
                                       "qsgd", "top-k",    "int8"};
    if (kit_setup(state) < 0) {
        return -1;
    }
    for (size_t i = 0; i < TIERED_COUNT(more); i++) {
        kit_link("TIERED_PLUGINS", more[i]);
    }
    kit_link("TIERED_TEST_PLUGINS", "test-changes");
    tiered_plugins_destroy(kit.plugins);
    kit.plugins = tiered_plugins_create(kit.folder, NULL);
    return kit.plugins ? 0 : -1;
}

static void load(const char *text, struct kit_result *r)
{
    kit_write(text, strlen(text));
    kit_load(NULL, 0, r);
    if (!r->plan) {
        TIERED_FREE char *problems = kit_problems(r);
        fail_msg("%s", problems);
    }
}

#define CLIP  "{clip: {norm: 1}}"
#define ADAPT "{clip: {adaptive: {initial: 1}}}"
#define NOISE "{gaussian: {noise_multiplier: 1.1}}"
#define MEAN  "{fedavg: {weighted_by: uniform}}"

/* One problem each, or "ok". */
static void pipes(void **state)
{
    (void)state;
    static const struct {
        const char *aggregate, *uplink, *downlink, *want;
    } rows[] = {
        {"fedavg", CLIP ", " NOISE, "", "ok"},
        {"fedavg", CLIP ", zstd", "delta, zstd", "ok"},
        {"fedavg", NOISE, "",
         "warning: tier 'e': 'gaussian' without a clip before it has no "
         "epsilon"},
        {"fedavg", NOISE ", " CLIP, "",
         "tier 'e': 'clip' behind 'gaussian' takes the noise"},
        {"fedavg", CLIP ", " NOISE ", " NOISE, "",
         "tier 'e': 'gaussian' twice in one pipe"},
        {"fedavg", ADAPT ", " NOISE, "",
         "tier 'e': 'gaussian' has no epsilon behind an adaptive 'clip'"},
        {"fedavg", ADAPT, "", "ok"},
        {"fedavg", ADAPT ", " ADAPT, "", "tier 'e': 'clip' beside another 'clip'"},
        {"fedavg", ADAPT ", " CLIP, "", "tier 'e': 'clip' beside another 'clip'"},
        {"fedavg", CLIP ", " CLIP, "", "ok"},
        {"fedavg", CLIP ", " NOISE ", zstd", "",
         "warning: tier 'e': 'zstd' finds nothing to compress in the noise of "
         "'gaussian'"},
        {"fedavg", CLIP ", {gaussian: {noise_multiplier: 1, insecure_seed: 1}}", "",
         "warning: tier 'e': noise from an insecure_seed protects nobody"},
        {"fedavg", "zstd, " CLIP, "",
         "tier 'e': 'clip' works on values, and 'zstd' before it"},
        {"fedavg", "test-lossy, " CLIP, "",
         "tier 'e': 'clip' works on values, and 'test-lossy' before it"},
        {"fedavg", "clip", "",
         "filter 'clip' of tier 'e': clip needs either norm or adaptive"},
        {"fedavg", "delta, zstd", "",
         "warning: tier 'e': 'delta' has no effect in an uplink"},
        {"fedavg", "", "delta, test-lossy",
         "warning: tier 'e': 'delta' never finds a model to refer to: behind "
         "'test-lossy'"},
        {"fedavg", "", CLIP, "tier 'e': 'clip' is for updates on their way up"},
        {"fedavg", "top-k", "int8", "ok"},
        {"fedavg", "qsgd, zstd", "", "ok"},
        {"fedavg", "", "top-k",
         "5:82: warning: tier 'e': 'top-k' is made for changes, and a downlink "
         "carries "
         "whole models: its children would start from a coarse rest of one; leave it "
         "to uplink, fp16 and int8 work here"},
        {"fedavg", "", "{qsgd: {levels: 127}}, zstd",
         "5:83: warning: tier 'e': 'qsgd' is made for changes, and a downlink"},
        {"fedavg", "", "test-changes", "'test-changes' is made for changes"},
        {"fedavg", "", "delta, test-changes", "ok"}, /* these are changes */
        {MEAN ", " NOISE, CLIP, "", "ok"},
        {MEAN ", {fedadam: {lr: 0.1}}, " NOISE, CLIP, "", "ok"},
        {MEAN ", " NOISE ", fedadam", CLIP, "",
         "plugin 'gaussian' is a filter, not an optimizer"},
        {"fedavg, " NOISE, CLIP, "",
         "tier 'c': 'gaussian' needs 'fedavg' with weighted_by"},
        {"median, " NOISE, CLIP, "",
         "tier 'c': how far one update moves what 'median' makes"},
        {MEAN ", " NOISE, "", "",
         "warning: tier 'c': 'gaussian' without a clip in the uplink of tier 'e'"},
        {MEAN ", " NOISE, ADAPT, "",
         "tier 'c': a noise_multiplier of 1.1 over the adaptive 'clip' of tier 'e' "
         "needs "
         "more than 11 children asked a round, and 'c-0' asks 10"},
        {MEAN ", {gaussian: {noise_multiplier: 0.9}}", ADAPT, "", "ok"},
        {MEAN ", " NOISE, CLIP ", test-lossy", "",
         "warning: tier 'e': 'test-lossy' may make an update larger than 'clip' let it "
         "be"},
    };
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct kit_result r;
        TIERED_FREE char *text =
            topology("", rows[i].aggregate, "", rows[i].uplink, rows[i].downlink);
        kit_write(text, strlen(text));
        kit_load(NULL, 0, &r);
        TIERED_FREE char *problems = kit_problems(&r);
        bool ok = strcmp(rows[i].want, "ok") == 0;
        if (ok ? r.diag.n != 0 : r.diag.n != 1 || !strstr(problems, rows[i].want)) {
            fail_msg("aggregate [%s], uplink [%s], downlink [%s]:\n%s\nnot %s",
                     rows[i].aggregate, rows[i].uplink, rows[i].downlink, problems,
                     rows[i].want);
        }
        kit_finish(&r);
    }
}

/* Those who are missing count as half: with 4 of 10 the share is 0.3 to 0.7. */
static void a_bound_must_turn(void **state)
{
    (void)state;
    static const struct {
        const char *quantile, *quorum;
        bool warned;
    } rows[] = {
        {"0.9", "40%", true},  {"0.9", "100%", false}, {"0.2", "40%", true},
        {"0.5", "40%", false}, {"0.9", "90%", false},  {"0.9", "70%", true},
    };
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct kit_result r;
        char rounds[64], clip[96];
        snprintf(rounds, sizeof(rounds), "quorum: %s, deadline: 1m", rows[i].quorum);
        snprintf(clip, sizeof(clip), "{clip: {adaptive: {quantile: %s}}}",
                 rows[i].quantile);
        TIERED_FREE char *text = topology(
            "", MEAN ", {gaussian: {noise_multiplier: 0.5}}", rounds, clip, "");
        kit_write(text, strlen(text));
        kit_load(NULL, 0, &r);
        TIERED_FREE char *problems = kit_problems(&r);
        bool warned = r.diag.n == 1 && strstr(problems, "runs away");
        if (warned != rows[i].warned || r.diag.n > 1 || !r.plan) {
            fail_msg("%s, %s: %s", rows[i].quantile, rows[i].quorum, problems);
        }
        kit_finish(&r);
    }
}

static double epsilon(double q, double z, double steps, double delta)
{
    struct tiered_accountant spent = {0};
    tiered_accountant_add(&spent, q, z, steps);
    return tiered_accountant_epsilon(&spent, delta);
}

static void one_line(const char *rounds, double q, bool unproven)
{
    struct kit_result r;
    TIERED_FREE char *text = topology("", MEAN ", " NOISE, rounds, CLIP, "");
    load(text, &r);
    const struct tiered_ledger *ledger = &r.plan->ledger;
    assert_int_equal(ledger->n, 1);
    const struct tiered_ledger_line *line = tiered_ledger_line_of(ledger, 0, true);
    assert_non_null(line);
    assert_null(tiered_ledger_line_of(ledger, 0, false));
    assert_null(tiered_ledger_line_of(ledger, 1, true));
    assert_true(line->bounded && line->central && line->tier == 0);
    assert_true(line->q == q && line->unproven == unproven && line->per_round == 1);
    assert_true(tiered_ledger_epsilon(line, 20) == epsilon(q, 1.1, 20, 1e-5));
    kit_finish(&r);
}

/* Nothing but Poisson amplifies, and not where a late update joins another round. */
static void sampling(void **state)
{
    (void)state;
    one_line("", 1, false);
    one_line("sample: 50%", 1, true);
    one_line("sample: {poisson: 50%}", 0.5, false);
    one_line("sample: {poisson: 50%}, late: next", 1, true);
}

/* A leaf's contribution is a step of its own, in each round of its fog. */
static void tiers_count_their_own(void **state)
{
    (void)state;
    struct kit_result r;
    load("tiered: 1\nrun: {rounds: 5, seed: 3}\ntiers:\n"
         "  - {name: c, aggregate: [" MEAN ", {gaussian: {noise_multiplier: 2, delta: "
         "1e-3}}]}\n"
         "  - {name: f, fan_out: 2, aggregate: [" MEAN ", " NOISE "], uplink: [" CLIP
         "], rounds: {per_parent_round: 3}}\n"
         "  - {name: e, fan_out: 4, " LEAF ", uplink: [" CLIP ", " NOISE "]}\n"
         "nodes:\n  e-1-2: {agent: odd}\n",
         &r);
    const struct tiered_plan *plan = r.plan;
    const struct tiered_ledger *ledger = &plan->ledger;
    assert_int_equal(ledger->n, 3);
    const struct tiered_ledger_line *root = tiered_ledger_line_of(ledger, 0, true);
    const struct tiered_ledger_line *fog = tiered_ledger_line_of(ledger, 1, true);
    const struct tiered_ledger_line *edge = tiered_ledger_line_of(ledger, 3, false);
    assert_true(root->per_round == 1 && root->delta == 1e-3);
    assert_true(fog->per_round == 3 && edge->per_round == 3);
    assert_ptr_equal(tiered_ledger_line_of(ledger, 2, true), fog);
    assert_null(tiered_ledger_line_of(ledger, 1, false));
    for (uint32_t i = 3; i < plan->n_nodes; i++) {
        assert_ptr_equal(tiered_ledger_line_of(ledger, i, false), edge);
    }
    kit_finish(&r);
}

static void unbounded_has_no_epsilon(void **state)
{
    (void)state;
    struct kit_result r;
    TIERED_FREE char *text = topology("", MEAN ", " NOISE, "", CLIP ", test-lossy", "");
    load(text, &r);
    assert_false(r.plan->ledger.lines[0].bounded);
    assert_true(isinf(tiered_ledger_epsilon(&r.plan->ledger.lines[0], 1)));
    kit_finish(&r);
}

static void a_budget_ends_the_run(void **state)
{
    (void)state;
    static const double budgets[] = {5, 8, 12, 1000};
    for (size_t i = 0; i < 4; i++) {
        struct kit_result r;
        char run[64];
        snprintf(run, sizeof(run), ", stop_when: {epsilon: %g}", budgets[i]);
        TIERED_FREE char *text =
            topology(run, MEAN ", " NOISE, "sample: {poisson: 50%}", CLIP, "");
        load(text, &r);
        uint32_t n = r.plan->rounds;
        assert_true(n >= 1 && n <= 20);
        assert_true(epsilon(0.5, 1.1, n, 1e-5) <= budgets[i]);
        assert_true(n == 20 || epsilon(0.5, 1.1, n + 1, 1e-5) > budgets[i]);
        kit_finish(&r);
    }
    TIERED_FREE char *text =
        topology(", stop_when: {epsilon: 0.5}", MEAN ", " NOISE, "", CLIP, "");
    struct kit_result r;
    kit_write(text, strlen(text));
    kit_load(NULL, 0, &r);
    TIERED_FREE char *problems = kit_problems(&r);
    assert_null(r.plan);
    assert_non_null(strstr(problems, "is spent before the first round is over"));
    kit_finish(&r);
}

/* Who knows the seed knows who was drawn. */
static void a_seed_that_all_know_is_told(void **state)
{
    (void)state;
    struct kit_result r;
    TIERED_FREE char *text =
        topology("", MEAN ", " NOISE, "sample: {poisson: 50%}", CLIP, "");
    const char *const sets[] = {"run.seed=0"};
    kit_write(text, strlen(text));
    kit_load(sets, 1, &r);
    TIERED_FREE char *problems = kit_problems(&r);
    assert_non_null(strstr(problems, "counts on nobody knowing who was drawn"));
    kit_finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipes),
        cmocka_unit_test(a_bound_must_turn),
        cmocka_unit_test(sampling),
        cmocka_unit_test(tiers_count_their_own),
        cmocka_unit_test(unbounded_has_no_epsilon),
        cmocka_unit_test(a_budget_ends_the_run),
        cmocka_unit_test(a_seed_that_all_know_is_told),
    };
    return cmocka_run_group_tests(tests, set_up, kit_teardown);
}
