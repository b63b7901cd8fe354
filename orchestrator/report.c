/* SPDX-License-Identifier: Apache-2.0 */
/* What `tiered up` tells its user. */
#include "orchestrator/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/base/base.h"
#include "core/model/metrics.h"

struct tier_sums {
    uint64_t rounds, contributions, num_examples, bytes_up, bytes_down;
};

struct node_state {
    char state[16];
    float progress;
};

struct report {
    enum report_form form;
    const struct tiered_plan *plan;
    struct tier_sums *tiers;
    struct node_state *nodes;
    char last_round[512]; /* the root's newest */
    uint64_t began_ms;
    unsigned drawn; /* lines of the block on the screen */
    struct tiered_metrics metrics;
    char run[128];
};

int report_create(enum report_form form, const struct tiered_plan *plan,
                  struct report **ret, struct tiered_error *err)
{
    TIERED_CLEANUP(report_destroyp) struct report *report = calloc(1, sizeof(*report));
    if (!report) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    report->form = form;
    report->plan = plan;
    report->began_ms = tiered_now_ms();
    report->tiers = calloc(plan->n_tiers, sizeof(*report->tiers));
    report->nodes = calloc(plan->n_nodes, sizeof(*report->nodes));
    if (!report->tiers || !report->nodes) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *ret = TIERED_STEAL(report);
    return 0;
}

void report_destroy(struct report *report)
{
    if (report) {
        free(report->tiers);
        free(report->nodes);
        free(report);
    }
}

static const char *tier_name(const struct report *report, uint32_t tier)
{
    return tiered_topology_tier(report->plan->topology, tier)->name;
}

/* ---- the block on a terminal ---- */

static void erase(struct report *report)
{
    if (report->drawn) {
        printf("\033[%uF\033[J", report->drawn);
        report->drawn = 0;
    }
}

/* "training 8, waiting 4": the states of a tier, most frequent first. */
struct count {
    const char *state;
    unsigned n;
};

static size_t count_states(const struct report *report, uint32_t tier,
                           struct count counts[8], double *ret_progress)
{
    size_t kinds = 0;
    unsigned working = 0;
    *ret_progress = 0;
    for (uint32_t i = 0; i < report->plan->n_nodes; i++) {
        const struct node_state *s = &report->nodes[i];
        if (report->plan->nodes[i].tier != tier) {
            continue;
        }
        const char *state = s->state[0] ? s->state : "starting";
        size_t k = 0;
        while (k < kinds && strcmp(counts[k].state, state) != 0) {
            k++;
        }
        if (k == kinds && kinds < 8) {
            counts[kinds++] = (struct count){.state = state};
        }
        if (k < kinds) {
            counts[k].n++;
        }
        if (strcmp(state, "training") == 0 || strcmp(state, "loading") == 0) {
            working++;
            *ret_progress += (double)s->progress;
        }
    }
    *ret_progress = working ? *ret_progress / working : -1;
    return kinds;
}

static void draw_bar(double fraction)
{
    char bar[21];
    int full = (int)(fraction * 20);
    for (int i = 0; i < 20; i++) {
        bar[i] = i < full ? '#' : '.';
    }
    bar[20] = '\0';
    printf("  [%s] %3.0f %%", bar, fraction * 100);
}

static void draw_tier(const struct report *report, uint32_t tier)
{
    struct count counts[8];
    double progress;
    size_t kinds = count_states(report, tier, counts, &progress);
    uint32_t n = report->plan->tier_counts[tier];
    printf("  %-10s %5u node%s  ", tier_name(report, tier), n, n == 1 ? " " : "s");
    for (size_t i = 0; i < kinds; i++) {
        if (n == 1) {
            printf("%s", counts[i].state);
        } else {
            printf("%s%s %u", i ? ", " : "", counts[i].state, counts[i].n);
        }
    }
    if (progress >= 0) {
        draw_bar(progress);
    }
    if (report->tiers[tier].rounds) {
        uint64_t rounds = report->tiers[tier].rounds;
        printf("  %llu round%s", (unsigned long long)rounds, rounds == 1 ? "" : "s");
    }
    putchar('\n');
}

void report_tick(struct report *report)
{
    if (report->form != REPORT_TERMINAL) {
        return;
    }
    char elapsed[32];
    erase(report);
    tiered_format_duration(tiered_now_ms() - report->began_ms, elapsed);
    printf("%s  %s\n", report->last_round[0] ? report->last_round : "starting",
           elapsed);
    for (uint32_t t = 0; t < report->plan->n_tiers; t++) {
        draw_tier(report, t);
    }
    report->drawn = report->plan->n_tiers + 1;
    fflush(stdout);
}

void report_states(struct report *report, const Tiered__V1__Heartbeat *heartbeat)
{
    for (size_t i = 0; report->form == REPORT_TERMINAL && i < heartbeat->n_nodes; i++) {
        const Tiered__V1__NodeState *s = heartbeat->nodes[i];
        uint32_t node = tiered_plan_find(report->plan, s->node);
        if (node != TIERED_NO_NODE) {
            snprintf(report->nodes[node].state, sizeof(report->nodes[node].state), "%s",
                     s->state);
            report->nodes[node].progress = s->progress;
        }
    }
}

/* ---- events ---- */

static uint64_t number(const json_t *event, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(event, key));
}

static const char *text(const json_t *event, const char *key)
{
    const char *value = json_string_value(json_object_get(event, key));
    return value ? value : "";
}

static int format_metrics(const struct tiered_metrics *metrics, char *out, size_t size)
{
    int at = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < metrics->n && (size_t)at < size; i++) {
        at += snprintf(out + at, size - (size_t)at, "%s%s %.4f", i ? ", " : "",
                       metrics->items[i].name, metrics->items[i].value);
    }
    return at;
}

static void round_line(struct report *report, const json_t *event)
{
    char metrics[256], up[32], down[32];
    const struct tiered_run_settings *run = tiered_topology_run(report->plan->topology);
    tiered_metrics_from_json(json_object_get(event, "metrics"), &report->metrics);
    format_metrics(&report->metrics, metrics, sizeof(metrics));
    tiered_format_bytes(number(event, "bytes_up"), up);
    tiered_format_bytes(number(event, "bytes_down"), down);
    snprintf(report->last_round, sizeof(report->last_round),
             "round %llu/%u  %s  %llu contributions, %llu examples  up %s, down %s  "
             "%.1f s",
             (unsigned long long)number(event, "round"), run->rounds, metrics,
             (unsigned long long)number(event, "contributions"),
             (unsigned long long)number(event, "num_examples"), up, down,
             json_number_value(json_object_get(event, "seconds")));
    if (report->form == REPORT_LINES) {
        puts(report->last_round);
        fflush(stdout);
    }
}

static uint32_t count_round(struct report *report, const json_t *event)
{
    uint32_t node = tiered_plan_find(report->plan, text(event, "node"));
    if (node == TIERED_NO_NODE) {
        return node;
    }
    struct tier_sums *sums = &report->tiers[report->plan->nodes[node].tier];
    sums->rounds++;
    sums->contributions += number(event, "contributions");
    sums->num_examples += number(event, "num_examples");
    sums->bytes_up += number(event, "bytes_up");
    sums->bytes_down += number(event, "bytes_down");
    return node;
}

void report_past_round(struct report *report, const json_t *event)
{
    count_round(report, event);
}

static void take_round(struct report *report, const json_t *event)
{
    if (count_round(report, event) == 0) {
        round_line(report, event);
    }
}

static void take_died(struct report *report, const json_t *event)
{
    const char *last = text(event, "last_error");
    report_say(report, "warning", "agent '%s' (pid %llu) died: %s%s%s%s",
               text(event, "name"), (unsigned long long)number(event, "pid"),
               text(event, "reason"), last[0] ? "; its last error: " : "", last,
               json_is_true(json_object_get(event, "restarted"))
                   ? "; starting it again"
                   : "; it died too often and is given up");
}

void report_event(struct report *report, const json_t *event)
{
    const char *name = text(event, "event");
    if (report->form == REPORT_JSON) {
        char *line = json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(15));
        if (line) {
            puts(line);
            fflush(stdout);
        }
        free(line);
    }
    if (strcmp(name, "round_committed") == 0) {
        take_round(report, event);
    } else if (strcmp(name, "agent_died") == 0) {
        take_died(report, event);
    } else if (strcmp(name, "agent_silent") == 0) {
        report_say(report, "warning",
                   "agent '%s' has been silent for too long: killing it",
                   text(event, "name"));
    } else if (strcmp(name, "run_started") == 0) {
        snprintf(report->run, sizeof(report->run), "%s", text(event, "run"));
        if (report->form != REPORT_JSON) {
            printf("run %s%s: %u agents, %u nodes, in %s\n", report->run,
                   json_is_true(json_object_get(event, "resumed")) ? " goes on" : "",
                   report->plan->n_agents, report->plan->n_nodes, text(event, "dir"));
            printf("dashboard: %s\n", text(event, "http"));
            fflush(stdout);
        }
    }
}

void report_say(struct report *report, const char *severity, const char *fmt, ...)
{
    if (report->form == REPORT_TERMINAL) {
        erase(report);
        fflush(stdout);
    }
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s: ", severity);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ---- the end ---- */

static void end_row(const struct report *report, uint32_t tier)
{
    char up[32], down[32];
    const struct tier_sums *sums = &report->tiers[tier];
    if (tier + 1 == report->plan->n_tiers) { /* leaves run no rounds */
        printf("%-12s %6u\n", tier_name(report, tier), report->plan->tier_counts[tier]);
        return;
    }
    tiered_format_bytes(sums->bytes_up, up);
    tiered_format_bytes(sums->bytes_down, down);
    printf("%-12s %6u %7llu %14llu %13llu %12s %12s\n", tier_name(report, tier),
           report->plan->tier_counts[tier], (unsigned long long)sums->rounds,
           (unsigned long long)sums->contributions,
           (unsigned long long)sums->num_examples, up, down);
}

void report_end(struct report *report, const char *status, const char *model,
                double seconds)
{
    if (report->form == REPORT_JSON) {
        return;
    }
    char metrics[256];
    if (report->form == REPORT_TERMINAL) {
        erase(report);
    }
    format_metrics(&report->metrics, metrics, sizeof(metrics));
    printf("\nrun %s %s: %llu round%s in %.1f s%s%s\n\n", report->run, status,
           (unsigned long long)report->tiers[0].rounds,
           report->tiers[0].rounds == 1 ? "" : "s", seconds, metrics[0] ? ", " : "",
           metrics);
    printf("%-12s %6s %7s %14s %13s %12s %12s\n", "tier", "nodes", "rounds",
           "contributions", "examples", "received", "sent");
    for (uint32_t t = 0; t < report->plan->n_tiers; t++) {
        end_row(report, t);
    }
    if (model) {
        printf("\nmodel: %s\n", model);
    }
    fflush(stdout);
}
