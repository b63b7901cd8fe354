/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of a run: counted, recorded, told. */
#include "orchestrator/privacy.h"

#include <math.h>
#include <string.h>

int privacy_create(const struct tiered_plan *plan, struct privacy *ret,
                   struct tiered_error *err)
{
    *ret = (struct privacy){.plan = plan};
    if (!plan->ledger.n) {
        return 0;
    }
    ret->local = calloc(plan->n_nodes, sizeof(*ret->local));
    ret->central = calloc(plan->n_nodes, sizeof(*ret->central));
    return ret->local && ret->central
               ? 0
               : tiered_fail(err, TIERED_ENOMEM, "out of memory");
}

void privacy_finish(struct privacy *privacy)
{
    free(privacy->local);
    free(privacy->central);
    *privacy = (struct privacy){0};
}

static const char *tier_name(const struct tiered_plan *plan, uint32_t tier)
{
    return tiered_topology_tier(plan->topology, tier)->name;
}

static uint32_t node_of(const struct privacy *privacy, const json_t *event)
{
    const char *name = json_string_value(json_object_get(event, "node"));
    return privacy->plan->ledger.n && name ? tiered_plan_find(privacy->plan, name)
                                           : TIERED_NO_NODE;
}

/* Raise a node's steps; true when they were lower. */
static bool count(struct privacy *privacy, uint32_t node, bool central, uint64_t steps)
{
    uint64_t *at = &(central ? privacy->central : privacy->local)[node];
    bool more = steps > *at;
    *at = more ? steps : *at;
    return more;
}

static json_t *epsilon_json(const struct tiered_ledger_line *line, uint64_t steps)
{
    double epsilon = tiered_ledger_epsilon(line, steps);
    return isfinite(epsilon) ? json_real(epsilon) : json_null();
}

int privacy_take(struct privacy *privacy, json_t *event, struct record *record,
                 const char *run, struct tiered_error *err)
{
    const char *name = json_string_value(json_object_get(event, "event"));
    bool central = name && strcmp(name, "round_committed") == 0;
    uint32_t node = node_of(privacy, event);
    if (node == TIERED_NO_NODE ||
        (!central && (!name || strcmp(name, "noise_released") != 0))) {
        return 0;
    }
    const struct tiered_ledger_line *line =
        tiered_ledger_line_of(&privacy->plan->ledger, node, central);
    uint64_t steps = (uint64_t)json_integer_value(
        json_object_get(event, central ? "round" : "releases"));
    if (!line || !count(privacy, node, central, steps)) {
        return 0;
    }
    if (central) {
        json_object_set_new(event, "epsilon", epsilon_json(line, steps));
        json_object_set_new(event, "delta", json_real(line->delta));
    }
    const struct record_privacy row = {
        .node = privacy->plan->nodes[node].name,
        .tier = tier_name(privacy->plan, line->tier),
        .noise = tiered_ledger_kind(line),
        .steps = (long long)steps,
        .epsilon = tiered_ledger_epsilon(line, steps),
        .delta = line->delta,
        .noise_multiplier = line->noise_multiplier,
        .q = line->q,
    };
    return record_privacy(record, run, &row, err);
}

static void take_row(void *user, const struct record_privacy *row)
{
    struct privacy *privacy = user;
    uint32_t node = tiered_plan_find(privacy->plan, row->node);
    bool central = strcmp(row->noise, "central") == 0;
    if (node != TIERED_NO_NODE &&
        tiered_ledger_line_of(&privacy->plan->ledger, node, central)) {
        count(privacy, node, central, (uint64_t)row->steps);
    }
}

int privacy_restore(struct privacy *privacy, struct record *record, const char *run,
                    struct tiered_error *err)
{
    return privacy->plan->ledger.n
               ? record_privacy_rows(record, run, take_row, privacy, err)
               : 0;
}

/* ---- telling ---- */

static json_t *note_of(const struct tiered_ledger_line *line)
{
    const struct tiered_distributed *group = &line->group;
    if (line->bounded && !line->insecure && group->members) {
        return json_sprintf("of %u members at least, %g each", group->members,
                            line->share);
    }
    if (line->bounded && !line->insecure && group->why[0]) {
        return json_sprintf("as if the group hid no update: %s", group->why);
    }
    return json_string(!line->bounded   ? "no clip bounds an update"
                       : line->insecure ? "insecure_seed: it protects nobody"
                       : line->unproven
                           ? "counted with q = 1, for the sampling is not Poisson"
                           : "");
}

static json_t *line_json(const struct tiered_plan *plan,
                         const struct tiered_ledger_line *line, uint64_t steps)
{
    return json_pack("{s:s, s:s, s:I, s:o, s:f, s:f, s:f, s:o}", "tier",
                     tier_name(plan, line->tier), "noise", tiered_ledger_kind(line),
                     "steps", (json_int_t)steps, "epsilon", epsilon_json(line, steps),
                     "delta", line->delta, "noise_multiplier", line->noise_multiplier,
                     "q", line->q, "note", note_of(line));
}

/* The most steps of a line's nodes. */
static uint64_t most_steps(const struct privacy *privacy,
                           const struct tiered_ledger_line *line)
{
    const struct tiered_ledger *ledger = &privacy->plan->ledger;
    const uint64_t *steps = line->central ? privacy->central : privacy->local;
    uint64_t most = 0;
    for (uint32_t i = 0; i < privacy->plan->n_nodes; i++) {
        if (steps[i] > most &&
            tiered_ledger_line_of(ledger, i, line->central) == line) {
            most = steps[i];
        }
    }
    return most;
}

json_t *privacy_json(const struct privacy *privacy)
{
    const struct tiered_ledger *ledger = &privacy->plan->ledger;
    json_t *list = json_array();
    for (size_t i = 0; i < ledger->n; i++) {
        const struct tiered_ledger_line *line = &ledger->lines[i];
        json_array_append_new(
            list, line_json(privacy->plan, line, most_steps(privacy, line)));
    }
    return list;
}

json_t *privacy_plan_json(const struct tiered_plan *plan)
{
    json_t *list = json_array();
    for (size_t i = 0; i < plan->ledger.n; i++) {
        const struct tiered_ledger_line *line = &plan->ledger.lines[i];
        uint64_t steps;
        if (!tiered_mul(line->per_round, plan->rounds, &steps)) {
            steps = INT64_MAX;
        }
        json_array_append_new(list, line_json(plan, line, steps));
    }
    return list;
}

static const char *text(const json_t *line, const char *key)
{
    const char *value = json_string_value(json_object_get(line, key));
    return value ? value : "";
}

static double number(const json_t *line, const char *key)
{
    return json_number_value(json_object_get(line, key));
}

void privacy_print(const json_t *list, FILE *out)
{
    size_t i;
    json_t *line;
    json_array_foreach (list, i, line) {
        bool central = strcmp(text(line, "noise"), "central") == 0;
        const json_t *epsilon = json_object_get(line, "epsilon");
        double steps = number(line, "steps"), q = number(line, "q");
        const char *note = text(line, "note");
        fprintf(out, "privacy: %s, %s noise: ", text(line, "tier"),
                text(line, "noise"));
        if (json_is_number(epsilon)) {
            fprintf(out, "epsilon %.4g at delta %g", json_number_value(epsilon),
                    number(line, "delta"));
        } else {
            fputs("no epsilon", out);
        }
        fprintf(out, " after %.0f %s%s of a node; noise multiplier %g", steps,
                central ? "round" : "contribution", steps == 1 ? "" : "s",
                number(line, "noise_multiplier"));
        if (q < 1) {
            fprintf(out, ", q %g", q);
        }
        fprintf(out, "%s%s%s\n", note[0] ? " (" : "", note, note[0] ? ")" : "");
    }
}
