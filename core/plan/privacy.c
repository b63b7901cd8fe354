/* SPDX-License-Identifier: Apache-2.0 */
/* What filters of one pipe mean together, from what they declare: what a codec, a clip
   and noise do to each other. And the plan's ledger. */
#include <string.h>

#include "core/plan/inside.h"
#include "core/privacy/filters.h"
#include "core/round/round.h"

/* What a stage of a pipe is to the others. */
struct stage {
    const char *name;
    const struct tiered_plugin_ref *ref;
    struct tiered_mark mark;
    bool bounds, fixed, follows; /* a norm; by its options a fixed one, or one that
                                    follows the updates' */
    bool noise, insecure;
    double multiplier;
    bool privacy, lossy, refers, changes_only;
};

static bool refers(const struct tiered_plugin *plugin)
{
    const struct tiered_filter_ops *ops = plugin->ops;
    return TIERED_HAS(ops, refer) && ops->refer;
}

/* Numbers alone decide, and words like {index} are for strings: as written will do. */
static void read_options(const struct tiered_plugin_ref *ref, struct stage *stage)
{
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes json = {0};
    struct tiered_privacy says;
    if (ref->options && tiered_value_json(ref->options, &json, NULL) < 0) {
        return;
    }
    if (tiered_privacy_of(&ref->loaded->plugin, (const char *)json.data, &says, NULL) ==
        0) {
        stage->fixed = says.norm > 0;
        stage->follows = says.first_norm > 0;
        stage->insecure = says.noise.insecure;
        stage->multiplier = says.noise.noise_multiplier;
    }
}

/* The list's filters; *ret_n of them. A group is none of ours. */
static void read_stages(const struct tiered_plugin_list *list,
                        struct stage ret[TIERED_MAX_STAGES], size_t *ret_n)
{
    *ret_n = 0;
    for (size_t i = 0; i < list->n; i++) {
        const struct tiered_plugin_ref *ref = &list->items[i];
        if (!ref->loaded || ref->loaded->plugin.kind != TIERED_FILTER) {
            continue;
        }
        const struct tiered_plugin *plugin = &ref->loaded->plugin;
        struct stage *stage = &ret[(*ret_n)++];
        *stage = (struct stage){
            .name = plugin->name,
            .ref = ref,
            .mark = ref->mark,
            .bounds = tiered_privacy_bounds(plugin),
            .noise = tiered_privacy_is_noise(plugin),
            .privacy = plugin->traits & TIERED_PRIVACY,
            .lossy = plugin->traits & TIERED_LOSSY,
            .refers = refers(plugin),
            .changes_only = plugin->traits & TIERED_CHANGES_ONLY,
        };
        read_options(ref, stage);
    }
}

/* The one nearest before `i` for which `is` holds; NULL when none does. */
static const struct stage *before(const struct stage *stages, size_t i,
                                  bool (*is)(const struct stage *stage))
{
    while (i-- > 0) {
        if (is(&stages[i])) {
            return &stages[i];
        }
    }
    return NULL;
}

static bool is_bound(const struct stage *stage)
{
    return stage->bounds;
}

static bool is_following(const struct stage *stage)
{
    return stage->follows;
}

static bool is_noise(const struct stage *stage)
{
    return stage->noise;
}

/* What makes other bytes of values. One that refers to a model changes nothing on the
   way up. */
static bool is_codec(const struct stage *stage)
{
    return !stage->privacy && !stage->refers;
}

static bool is_lossy_codec(const struct stage *stage)
{
    return !stage->privacy && stage->lossy;
}

static bool is_reference(const struct stage *stage)
{
    return stage->refers;
}

static void check_local_noise(struct planner *p, const char *label,
                              const struct stage *stages, size_t n, size_t i)
{
    const struct stage *noise = &stages[i], *bound = before(stages, i, is_bound);
    const struct stage *after = before(stages, n, is_bound);
    if (before(stages, i, is_noise)) {
        tiered_diag_error(p->diag, noise->mark,
                          "%s: '%s' twice in one pipe; one with a larger "
                          "noise_multiplier does the same, and is counted",
                          label, noise->name);
    } else if (!bound && after) {
        tiered_diag_error(p->diag, after->mark,
                          "%s: '%s' behind '%s' takes the noise for part of the "
                          "update, and nothing bounds what it is measured by; put '%s' "
                          "first",
                          label, after->name, noise->name, after->name);
    } else if (!bound) {
        tiered_diag_warn(
            p->diag, noise->mark,
            "%s: '%s' without a clip before it has no epsilon, for nothing "
            "bounds an update; put {clip: {norm: 1.0}} before it",
            label, noise->name);
    } else if (!bound->fixed) {
        tiered_diag_error(p->diag, noise->mark,
                          "%s: '%s' has no epsilon behind an adaptive '%s': each node "
                          "tells its parent whether it was clipped, without noise; "
                          "give '%s' a norm, or put '%s' last in the parent's "
                          "aggregate",
                          label, noise->name, bound->name, bound->name, noise->name);
    }
    const struct stage *next = i + 1 < n ? &stages[i + 1] : NULL;
    if (next && is_codec(next) && !next->lossy) {
        tiered_diag_warn(p->diag, next->mark,
                         "%s: '%s' finds nothing to compress in the noise of '%s'; "
                         "leave it out, or put a lossy codec between them",
                         label, next->name, noise->name);
    }
}

static void warn_insecure(struct planner *p, const char *label,
                          const struct stage *noise)
{
    if (noise->insecure) {
        tiered_diag_warn(p->diag, noise->mark,
                         "%s: noise from an insecure_seed protects nobody, for it can "
                         "be taken off; leave insecure_seed out",
                         label);
    }
}

/* A parent moves one bound, by those who were within it. */
static void check_bounds(struct planner *p, const char *label,
                         const struct stage *stages, size_t i)
{
    const struct stage *other = before(stages, i, is_bound);
    if (stages[i].bounds && other && (stages[i].follows || other->follows)) {
        tiered_diag_error(
            p->diag, stages[i].mark,
            "%s: '%s' beside another '%s' in one pipe, and one of them is "
            "adaptive; leave one out",
            label, stages[i].name, other->name);
    }
}

static void check_uplink(struct planner *p, const struct variant *v)
{
    struct stage stages[TIERED_MAX_STAGES];
    size_t n;
    read_stages(&v->settings.uplink, stages, &n);
    for (size_t i = 0; i < n; i++) {
        if (stages[i].refers) {
            tiered_diag_warn(p->diag, stages[i].mark,
                             "%s: '%s' has no effect in an uplink, where a difference "
                             "goes up already; it belongs in downlink",
                             v->label, stages[i].name);
        }
        check_bounds(p, v->label, stages, i);
        if (stages[i].noise) {
            check_local_noise(p, v->label, stages, n, i);
            warn_insecure(p, v->label, &stages[i]);
        }
    }
}

static void check_downlink(struct planner *p, const struct variant *v)
{
    struct stage stages[TIERED_MAX_STAGES];
    size_t n;
    read_stages(&v->settings.downlink, stages, &n);
    const struct stage *lossy = before(stages, n, is_lossy_codec);
    for (size_t i = 0; i < n; i++) {
        if (stages[i].privacy) {
            tiered_diag_error(p->diag, stages[i].mark,
                              "%s: '%s' is for updates on their way up; it belongs in "
                              "uplink",
                              v->label, stages[i].name);
        } else if (stages[i].refers && lossy) {
            tiered_diag_warn(p->diag, stages[i].mark,
                             "%s: '%s' never finds a model to refer to: behind '%s' a "
                             "child's model is not its parent's; leave one of them out",
                             v->label, stages[i].name, lossy->name);
        } else if (stages[i].changes_only && !before(stages, i, is_reference)) {
            /* Behind one that refers it gets a change; where that never finds a model,
               the warning above says so. */
            tiered_diag_warn(
                p->diag, stages[i].mark,
                "%s: '%s' is made for changes, and a downlink carries whole "
                "models: its children would start from a coarse rest of "
                "one; leave it to uplink, fp16 and int8 work here",
                v->label, stages[i].name);
        }
    }
}

void planner_check_pipes(struct planner *p, struct variant *v)
{
    if (!v->checked_pipes) {
        v->checked_pipes = true;
        check_uplink(p, v);
        check_downlink(p, v);
    }
}

/* Every child must be able to move the mean by the same, and by no more. */
static void check_rule(struct planner *p, const struct variant *parent,
                       const struct stage *noise)
{
    const struct tiered_plugin_ref *rule = &parent->settings.aggregate.items[0];
    if (!rule->loaded) {
        return;
    }
    const char *name = rule->loaded->plugin.name;
    if (!(rule->loaded->plugin.traits & TIERED_COMPOSES_EXACTLY)) {
        tiered_diag_error(p->diag, rule->mark,
                          "%s: how far one update moves what '%s' makes is not known, "
                          "so '%s' has nothing to measure its noise by; {fedavg: "
                          "{weighted_by: uniform}} works",
                          parent->label, name, noise->name);
    } else if (!tiered_plan_counts_once(rule)) {
        tiered_diag_error(p->diag, rule->mark,
                          "%s: '%s' needs '%s' with weighted_by: uniform, for one "
                          "update must not move the mean by more than the others",
                          parent->label, noise->name, name);
    } else if (parent->settings.on_bad_update == TIERED_ALLOW_BAD) {
        tiered_diag_error(
            p->diag, parent->given.marks[TIER_ON_BAD_UPDATE],
            "%s: on_bad_update: allow lets updates through that no clip "
            "bounds, and '%s' relies on one; reject or exclude would work",
            parent->label, noise->name);
    }
}

static void check_bound(struct planner *p, const struct variant *parent,
                        const struct variant *child, const struct stage *noise)
{
    struct stage stages[TIERED_MAX_STAGES];
    size_t n;
    read_stages(&child->settings.uplink, stages, &n);
    const struct stage *bound = before(stages, n, is_bound);
    const struct stage *codec = before(stages, n, is_lossy_codec);
    if (!bound) {
        tiered_diag_warn(p->diag, noise->mark,
                         "%s: '%s' without a clip in the uplink of %s has no epsilon, "
                         "for nothing bounds an update; put {clip: {norm: 1.0}} there",
                         parent->label, noise->name, child->label);
    } else if (bound->follows && parent->settings.rounds.keep_late) {
        tiered_diag_error(
            p->diag, parent->given.marks[TIER_LATE],
            "%s: late: next keeps an update that was clipped to another "
            "round's bound, so that '%s' has no epsilon over the adaptive "
            "'%s' of %s; leave late at drop, or give '%s' a norm",
            parent->label, noise->name, bound->name, child->label, bound->name);
    } else if (codec) {
        tiered_diag_warn(p->diag, codec->mark,
                         "%s: '%s' may make an update larger than '%s' let it be, so "
                         "'%s' of %s has no epsilon; leave '%s' out, or put the noise "
                         "in this uplink",
                         child->label, codec->name, bound->name, noise->name,
                         parent->label, codec->name);
    }
}

/* Whoever knows the seed knows who was drawn. */
static void check_secrecy(struct planner *p, const struct variant *parent,
                          const struct stage *noise)
{
    if (parent->settings.rounds.poisson && p->topology->run.seed == 0) {
        tiered_diag_warn(p->diag, noise->mark,
                         "%s: the epsilon of '%s' counts on nobody knowing who was "
                         "drawn, which run.seed decides; set it to a number of your "
                         "own and keep it to yourself",
                         parent->label, noise->name);
    }
}

void planner_check_noise(struct planner *p, const struct variant *parent,
                         const struct variant *child)
{
    struct stage stages[TIERED_MAX_STAGES];
    size_t n;
    read_stages(&parent->settings.aggregate, stages, &n);
    const struct stage *noise = before(stages, n, is_noise);
    if (noise) {
        check_rule(p, parent, noise);
        check_bound(p, parent, child, noise);
        check_secrecy(p, parent, noise);
        warn_insecure(p, parent->label, noise);
    }
}

bool planner_follows(const struct variant *child)
{
    struct stage stages[TIERED_MAX_STAGES];
    size_t n;
    read_stages(&child->settings.uplink, stages, &n);
    return before(stages, n, is_following);
}

static bool is_grouped(const struct variant *child)
{
    const struct tiered_plugin_list *uplink = &child->settings.uplink;
    const struct tiered_loaded *last =
        uplink->n ? uplink->items[uplink->n - 1].loaded : NULL;
    return last && last->plugin.kind == TIERED_GROUP;
}

/* What does not come counts as half within, for its number is nobody's business: the
   bound may then be too far from there to be reached. */
static void check_participation(struct planner *p, const struct variant *v,
                                const struct variant *child, const struct stage *bound)
{
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes json = {0};
    double quorum = v->settings.rounds.quorum;
    if (v->settings.rounds.quorum_count || quorum >= 1 || is_grouped(child) ||
        (bound->ref->options &&
         tiered_value_json(bound->ref->options, &json, NULL) < 0)) {
        return;
    }
    if (!tiered_privacy_turns(&bound->ref->loaded->plugin, (const char *)json.data,
                              quorum)) {
        tiered_diag_warn(
            p->diag, v->given.marks[TIER_QUORUM],
            "%s: where rounds close at a quorum of %g%%, the bound of the adaptive "
            "'%s' "
            "of %s runs away: an update that is missing counts as half within it; a "
            "quantile nearer to 0.5 or a higher quorum works",
            v->label, 100 * quorum, bound->name, child->label);
    }
}

/* Part of the noise goes on the share of updates within an adaptive bound: the strategy
   says how much. */
void planner_check_noise_size(struct planner *p, struct variant *v,
                              const struct tiered_node *node,
                              const struct variant *child)
{
    struct stage above[TIERED_MAX_STAGES], below[TIERED_MAX_STAGES];
    const struct tiered_rounds *rounds = &v->settings.rounds;
    size_t n_above, n_below;
    read_stages(&v->settings.aggregate, above, &n_above);
    read_stages(&child->settings.uplink, below, &n_below);
    const struct stage *noise = before(above, n_above, is_noise);
    const struct stage *bound = before(below, n_below, is_following);
    double expected =
        tiered_round_expected(rounds->sample, rounds->poisson, node->n_children);
    double least =
        tiered_privacy_least_children(noise ? noise->multiplier : 0, is_grouped(child));
    if (noise && bound && expected <= least) {
        tiered_diag_error(
            p->diag, noise->mark,
            "%s: a noise_multiplier of %g over the adaptive '%s' of %s "
            "needs more than %g children asked a round, and '%s' asks %g; "
            "give '%s' a norm, or lower the noise_multiplier",
            v->label, noise->multiplier, bound->name, child->label, least, node->name,
            expected, bound->name);
        v->reported = true;
    } else if (noise && bound) {
        check_participation(p, v, child, bound);
    }
}

static const struct tiered_plugin_ref *noise_of(const struct tiered_plugin_list *list)
{
    const struct tiered_plugin_ref *found = NULL;
    for (size_t i = 0; i < list->n; i++) {
        if (tiered_privacy_is_noise(&list->items[i].loaded->plugin)) {
            found = &list->items[i];
        }
    }
    return found;
}

/* Noise in front of a group that counts as if there were none. */
static void warn_alone(struct planner *p, const struct tiered_ledger *ledger)
{
    const struct variant *last = NULL;
    for (size_t i = 0; i < ledger->n; i++) {
        const struct tiered_ledger_line *line = &ledger->lines[i];
        const struct variant *v = variant_of(&p->w->nodes[line->node]);
        const struct tiered_plugin_list *uplink = &v->settings.uplink;
        if (line->group.why[0] && v != last) {
            const struct tiered_plugin_ref *noise = noise_of(uplink);
            tiered_diag_warn(
                p->diag, noise->mark, "%s: '%s' counts as if '%s' hid no update: %s",
                v->label, noise->loaded->plugin.name,
                uplink->items[uplink->n - 1].loaded->plugin.name, line->group.why);
            last = v;
        }
    }
}

int planner_count_privacy(struct planner *p)
{
    struct tiered_plan *plan = &p->w->plan;
    const struct tiered_stop *stop = &p->topology->run.stop;
    struct tiered_error err = {0};
    bool any = false;
    if (tiered_ledger_make(plan, &p->w->arena, &plan->ledger, &err) < 0) {
        return tiered_diag_error(p->diag, p->w->tiers[0].mark, "privacy: %s", err.text);
    }
    warn_alone(p, &plan->ledger);
    for (size_t i = 0; i < plan->ledger.n; i++) {
        any = any || plan->ledger.lines[i].bounded;
    }
    if (stop->epsilon > 0 && !any) {
        return tiered_diag_error(
            p->diag, stop->mark,
            "run.stop_when.epsilon is a budget, and no tier spends "
            "any: it needs noise behind a clip, such as "
            "{gaussian: {noise_multiplier: 1.1}}");
    }
    if (stop->epsilon > 0) {
        plan->rounds = tiered_ledger_rounds(&plan->ledger, stop->epsilon, plan->rounds);
    }
    return plan->rounds > 0
               ? 0
               : tiered_diag_error(p->diag, stop->mark,
                                   "run.stop_when.epsilon of %g is spent before the "
                                   "first round is over; a larger noise_multiplier "
                                   "spends less",
                                   stop->epsilon);
}
