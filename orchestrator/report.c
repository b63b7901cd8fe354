/* SPDX-License-Identifier: Apache-2.0 */
/* What `tiered up` tells its user. */
#include "orchestrator/report.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/base/base.h"
#include "core/model/metrics.h"
#include "orchestrator/privacy.h"

struct tier_sums {
    uint64_t rounds, contributions, num_examples, bytes_up, bytes_down, raw_up;
};

struct node_state {
    char state[16];
    float progress;
    uint32_t told; /* checksum of the trouble that was told last */
};

struct report {
    enum report_form form;
    const struct tiered_plan *plan;
    struct tier_sums *tiers;
    struct node_state *nodes;
    uint64_t rounds; /* the root's newest */
    uint64_t began_ms;
    unsigned drawn; /* lines of the block on the screen */
    int broken;     /* errno: nobody reads what we write to stdout any more */
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

static void flush(struct report *report)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && !report->broken) {
        report->broken = errno ? errno : EIO;
    }
}

const char *report_broken(const struct report *report)
{
    return report->broken ? strerror(report->broken) : NULL;
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

/* A line of the block. It must not wrap: erase() goes up by lines. */
struct block_line {
    char text[512];
    size_t n;
};

__attribute__((format(printf, 2, 3))) static void add(struct block_line *line,
                                                      const char *fmt, ...)
{
    size_t room = sizeof(line->text) - line->n;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line->text + line->n, room, fmt, args);
    va_end(args);
    line->n = n < 0 || (size_t)n >= room ? sizeof(line->text) - 1 : line->n + (size_t)n;
}

/* At most `columns` - 1 characters; the cursor of some terminals wraps at the last. */
static void draw(struct report *report, const struct block_line *line, unsigned columns)
{
    unsigned width = 0;
    for (const unsigned char *p = (const unsigned char *)line->text; *p; p++) {
        bool begins = (*p & 0xC0) != 0x80; /* not inside a UTF-8 character */
        if (begins && ++width >= columns) {
            break;
        }
        putchar(*p < 0x20 || *p == 0x7F ? '?' : *p);
    }
    putchar('\n');
    report->drawn++;
}

static void add_bar(struct block_line *line, double fraction)
{
    char bar[21];
    fraction = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
    int full = (int)(fraction * 20);
    for (int i = 0; i < 20; i++) {
        bar[i] = i < full ? '#' : '.';
    }
    bar[20] = '\0';
    add(line, "  [%s] %3.0f %%", bar, fraction * 100);
}

static void add_tier(struct block_line *line, const struct report *report,
                     uint32_t tier)
{
    struct count counts[8];
    double progress;
    size_t kinds = count_states(report, tier, counts, &progress);
    uint32_t n = report->plan->tier_counts[tier];
    add(line, "  %-10s %5u node%s  ", tier_name(report, tier), n, n == 1 ? " " : "s");
    for (size_t i = 0; i < kinds; i++) {
        if (n == 1) {
            add(line, "%s", counts[i].state);
        } else {
            add(line, "%s%s %u", i ? ", " : "", counts[i].state, counts[i].n);
        }
    }
    if (progress >= 0) {
        add_bar(line, progress);
    }
    if (report->tiers[tier].rounds) {
        uint64_t rounds = report->tiers[tier].rounds;
        add(line, "  %llu round%s", (unsigned long long)rounds, rounds == 1 ? "" : "s");
    }
}

/* The run as a whole: how many of its rounds are done, and for how long it runs. */
static void add_run(struct block_line *line, const struct report *report)
{
    char elapsed[32];
    uint32_t rounds = report->plan->rounds;
    const char *state = report->nodes[0].state;
    bool started = report->rounds || (state[0] && strcmp(state, "idle") != 0);
    tiered_format_duration(tiered_now_ms() - report->began_ms, elapsed);
    if (started && report->rounds < rounds) {
        add(line, "round %llu of %u", (unsigned long long)report->rounds + 1, rounds);
    } else {
        add(line, "%s", started ? "finishing" : "starting");
    }
    add_bar(line, rounds ? (double)report->rounds / rounds : 0);
    add(line, "  %s", elapsed);
}

void report_tick(struct report *report)
{
    struct winsize size = {0};
    if (report->form != REPORT_TERMINAL) {
        return;
    }
    ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    unsigned columns = size.ws_col ? size.ws_col : 80;
    unsigned rows = size.ws_row ? size.ws_row : 24;
    erase(report);
    struct block_line line = {.n = 0};
    add_run(&line, report);
    draw(report, &line, columns);
    for (uint32_t t = 0; t < report->plan->n_tiers && report->drawn + 1 < rows; t++) {
        line = (struct block_line){.n = 0};
        add_tier(&line, report, t);
        draw(report, &line, columns);
    }
    flush(report);
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
    struct tiered_metrics of_round;
    tiered_metrics_from_json(json_object_get(event, "metrics"), &of_round);
    tiered_metrics_update(&report->metrics, json_object_get(event, "metrics"));
    format_metrics(&of_round, metrics, sizeof(metrics));
    tiered_format_bytes(number(event, "bytes_up"), up);
    tiered_format_bytes(number(event, "bytes_down"), down);
    report->rounds = number(event, "round");
    if (report->form == REPORT_JSON) {
        return;
    }
    if (report->form == REPORT_TERMINAL) {
        erase(report);
    }
    printf("round %llu/%u  %s  %llu contributions, %llu examples  up %s, down %s  "
           "%.1f s\n",
           (unsigned long long)report->rounds, report->plan->rounds, metrics,
           (unsigned long long)number(event, "contributions"),
           (unsigned long long)number(event, "num_examples"), up, down,
           json_number_value(json_object_get(event, "seconds")));
    flush(report);
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
    sums->raw_up += number(event, "raw_up");
    return node;
}

void report_past_round(struct report *report, const json_t *event)
{
    if (count_round(report, event) == 0) {
        report->rounds = number(event, "round");
        tiered_metrics_update(&report->metrics, json_object_get(event, "metrics"));
    }
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

/* A leaf that fails in each round is told once, until it fails otherwise. The root's
   trouble ends the run, and is told as that. */
static void take_trouble(struct report *report, const json_t *event, const char *what)
{
    const char *reason = text(event, "reason"), *path = text(event, "path");
    uint32_t node = tiered_plan_find(report->plan, text(event, "node"));
    if (node == TIERED_NO_NODE || node == 0) {
        return;
    }
    const char *words = strncmp(reason, "round ", 6) == 0 ? "round" : reason;
    uint32_t sum = tiered_crc32c(0, words, strlen(words)) | 1;
    if (report->nodes[node].told != sum) {
        report->nodes[node].told = sum;
        report_say(report, "warning", "node '%s', %s of round %s: %s",
                   report->plan->nodes[node].name, what, path, reason);
    }
}

void report_event(struct report *report, const json_t *event)
{
    const char *name = text(event, "event");
    if (report->form == REPORT_JSON) {
        char *line = json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(15));
        if (line) {
            puts(line);
            flush(report);
        }
        free(line);
    }
    if (strcmp(name, "round_committed") == 0) {
        take_round(report, event);
    } else if (strcmp(name, "agent_died") == 0) {
        take_died(report, event);
    } else if (strcmp(name, "update_failed") == 0) {
        take_trouble(report, event, "update");
    } else if (strcmp(name, "evaluation_failed") == 0) {
        take_trouble(report, event, "evaluation");
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
            flush(report);
        }
    }
}

void report_say(struct report *report, const char *severity, const char *fmt, ...)
{
    if (report->form == REPORT_TERMINAL) {
        erase(report);
        flush(report);
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
    char up[32], down[32], raw[32];
    const struct tier_sums *sums = &report->tiers[tier];
    if (tier + 1 == report->plan->n_tiers) { /* leaves run no rounds */
        printf("%-12s %6u\n", tier_name(report, tier), report->plan->tier_counts[tier]);
        return;
    }
    tiered_format_bytes(sums->bytes_up, up);
    tiered_format_bytes(sums->bytes_down, down);
    tiered_format_bytes(sums->raw_up, raw);
    printf("%-12s %6u %7llu %14llu %13llu %12s %14s %12s\n", tier_name(report, tier),
           report->plan->tier_counts[tier], (unsigned long long)sums->rounds,
           (unsigned long long)sums->contributions,
           (unsigned long long)sums->num_examples, up, raw, down);
}

static void end_privacy(const struct report *report, const json_t *privacy)
{
    uint32_t wanted = tiered_topology_run(report->plan->topology)->rounds;
    if (json_array_size(privacy)) {
        putchar('\n');
        privacy_print(privacy, stdout);
    }
    if (report->plan->rounds < wanted && report->rounds == report->plan->rounds) {
        printf("privacy: of %u rounds one more than %u would exceed epsilon %g\n",
               wanted, report->plan->rounds,
               tiered_topology_run(report->plan->topology)->stop.epsilon);
    }
}

void report_end(struct report *report, const char *status, const char *model,
                const json_t *privacy, double seconds)
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
    printf("%-12s %6s %7s %14s %13s %12s %14s %12s\n", "tier", "nodes", "rounds",
           "contributions", "examples", "received", "before filters", "sent");
    for (uint32_t t = 0; t < report->plan->n_tiers; t++) {
        end_row(report, t);
    }
    end_privacy(report, privacy);
    if (model) {
        printf("\nmodel: %s\n", model);
    }
    flush(report);
}
