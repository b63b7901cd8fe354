/* SPDX-License-Identifier: Apache-2.0 */
/* tiered status, why, watch: a living run, looked at from outside. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "orchestrator/look.h"
#include "orchestrator/privacy.h"
#include "orchestrator/record.h"

#define WATCH_MS 500

/* ---- what is printed ---- */

static void print_head(const json_t *run)
{
    const char *name;
    json_t *value;
    printf("%s  %s  round %.0f/%.0f", look_text(run, "run"), look_text(run, "status"),
           look_number(run, "rounds"), look_number(run, "rounds_total"));
    json_object_foreach (json_object_get(run, "metrics"), name, value) {
        if (strncmp(name, "train_", 6) != 0) {
            printf("  %s %.4f", name, json_number_value(value));
        }
    }
    putchar('\n');
    privacy_print(json_object_get(run, "privacy"), stdout);
}

/* "4.1 MiB", and what share that is of the bytes before the link's filters. */
static void format_link(const json_t *node, const char *link, const char *raw_key,
                        const char *filters_key, char out[48])
{
    double bytes = look_number(node, link), raw = look_number(node, raw_key);
    char text[32];
    tiered_format_bytes((uint64_t)bytes, text);
    if (raw > 0 && json_array_size(json_object_get(node, filters_key)) > 0) {
        snprintf(out, 48, "%s (%.0f %%)", text, 100 * bytes / raw);
    } else {
        snprintf(out, 48, "%s", text);
    }
}

static void print_node(const json_t *node, unsigned depth)
{
    char up[48], down[48], progress[16] = "", silent[16] = "never";
    format_link(node, "bytes_up", "raw_up", "filters_up", up);
    format_link(node, "bytes_down", "raw_down", "filters_down", down);
    if (look_number(node, "progress") > 0) {
        snprintf(progress, sizeof(progress), "%3.0f %%",
                 look_number(node, "progress") * 100);
    }
    if (json_is_number(json_object_get(node, "silent_seconds"))) {
        snprintf(silent, sizeof(silent), "%.1f s", look_number(node, "silent_seconds"));
    }
    bool connected = json_is_true(json_object_get(node, "connected"));
    printf("%*s%-*s %-12s %-8s %5s  up %16s  down %16s  seen %s\n", (int)(2 * depth),
           "", (int)(24 - 2 * depth), look_text(node, "node"),
           connected ? look_text(node, "state") : "away", look_text(node, "path"),
           progress, up, down, silent);
}

/* A node, then its children: the API's order is breadth first. */
static void print_tree(const json_t *nodes, const char *parent, unsigned depth)
{
    size_t i;
    json_t *node;
    json_array_foreach (nodes, i, node) {
        if (strcmp(look_text(node, "parent"), parent) == 0) {
            print_node(node, depth);
            print_tree(nodes, look_text(node, "node"), depth + 1);
        }
    }
}

static int get_both(const char *folder, json_t **run, json_t **nodes,
                    struct tiered_error *err)
{
    *nodes = NULL;
    *run = look_get(folder, "api/run", err);
    if (*run) {
        *nodes = look_get(folder, "api/nodes", err);
    }
    if (*nodes) {
        return 0;
    }
    json_decref(*run);
    return -1;
}

static void print_json(json_t *run, json_t *nodes)
{
    json_object_set(run, "nodes", nodes);
    json_dumpf(run, stdout, JSON_COMPACT | JSON_REAL_PRECISION(15));
    putchar('\n');
}

/* A run that is over has its record alone. */
static int past_status(const char *folder, bool json)
{
    char status[32] = "unknown";
    struct record_summary summary = {0};
    record_status(folder, status, sizeof(status));
    record_summary(folder, &summary);
    if (strcmp(status, "running") == 0) {
        snprintf(status, sizeof(status), "left");
    }
    const char *name = strrchr(folder, '/') + 1;
    json_t *run = json_pack("{s:s, s:s, s:I, s:I, s:o, s:o}", "run", name, "status",
                            status, "rounds", (json_int_t)summary.rounds,
                            "rounds_total", (json_int_t)summary.rounds, "metrics",
                            summary.metrics ? summary.metrics : json_object(),
                            "privacy", record_privacy_json(folder));
    if (json) {
        json_dumpf(run, stdout, JSON_COMPACT | JSON_REAL_PRECISION(15));
        putchar('\n');
    } else {
        print_head(run);
    }
    json_decref(run);
    return EXIT_DONE;
}

/* ---- status ---- */

static int status_run(const struct tiered_command *self, int argc, char **argv)
{
    struct look_arguments args;
    struct tiered_error err;
    TIERED_FREE char *folder = NULL;
    json_t *run, *nodes;
    int code = look_parse(self, argc, argv, NULL, &args);
    if (code >= 0) {
        return code;
    }
    if (look_find(&args, &folder, &err) < 0) {
        return cmd_error(&err);
    }
    if (!look_is_live(folder)) {
        return past_status(folder, args.json);
    }
    if (get_both(folder, &run, &nodes, &err) < 0) {
        return cmd_error(&err);
    }
    if (args.json) {
        print_json(run, nodes);
    } else {
        print_head(run);
        print_tree(nodes, "", 0);
    }
    json_decref(run);
    json_decref(nodes);
    return EXIT_DONE;
}

const struct tiered_command cmd_status = {
    .name = "status",
    .summary = "what a run and each of its nodes do now",
    .help = "usage: tiered status [RUN] [--runs DIR] [--json]\n"
            "\n"
            "The run (the newest without RUN), and where it lives each node: state, "
            "round,\n"
            "progress, bytes to and from its parent, when it was last heard of.\n"
            "\n"
            "  --runs DIR   where run folders are (./runs)\n"
            "  --json       one JSON object\n"
            "  --help\n",
    .run = status_run,
};

/* ---- why ---- */

static int print_why(const json_t *run, const json_t *nodes)
{
    size_t i, told = 0;
    json_t *node;
    print_head(run);
    json_array_foreach (nodes, i, node) {
        const char *why = look_text(node, "why");
        if (!json_is_true(json_object_get(node, "connected"))) {
            printf("%-20s its agent '%s' is not connected\n", look_text(node, "node"),
                   look_text(node, "agent"));
            told++;
        } else if (why[0]) {
            printf("%-20s %s\n", look_text(node, "node"), why);
            told++;
        }
    }
    if (told == 0) {
        puts("nothing waits");
    }
    return EXIT_DONE;
}

static int why_run(const struct tiered_command *self, int argc, char **argv)
{
    struct look_arguments args;
    struct tiered_error err;
    TIERED_FREE char *folder = NULL;
    json_t *run, *nodes;
    int code = look_parse(self, argc, argv, NULL, &args);
    if (code >= 0) {
        return code;
    }
    if (look_find(&args, &folder, &err) < 0) {
        return cmd_error(&err);
    }
    if (!look_is_live(folder)) {
        return past_status(folder, args.json);
    }
    if (get_both(folder, &run, &nodes, &err) < 0) {
        return cmd_error(&err);
    }
    if (args.json) {
        print_json(run, nodes);
    } else {
        print_why(run, nodes);
    }
    json_decref(run);
    json_decref(nodes);
    return EXIT_DONE;
}

const struct tiered_command cmd_why = {
    .name = "why",
    .summary = "what each open round waits for",
    .help =
        "usage: tiered why [RUN] [--runs DIR] [--json]\n"
        "\n"
        "For each node that waits: which children, and in what condition they are.\n"
        "\n"
        "  --runs DIR   where run folders are (./runs)\n"
        "  --json       one JSON object\n"
        "  --help\n",
    .run = why_run,
};

/* ---- watch ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static int watch(const char *folder)
{
    const struct timespec pause = {.tv_nsec = WATCH_MS * 1000000L};
    struct tiered_error err;
    json_t *run, *nodes;
    signal(SIGINT, on_interrupt);
    bool terminal = isatty(STDOUT_FILENO);
    while (!interrupted && look_is_live(folder)) {
        if (get_both(folder, &run, &nodes, &err) < 0) {
            break; /* it ended between the two looks */
        }
        if (terminal) {
            fputs("\033[H\033[J", stdout);
        }
        print_head(run);
        print_tree(nodes, "", 0);
        fflush(stdout);
        json_decref(run);
        json_decref(nodes);
        nanosleep(&pause, NULL);
    }
    return interrupted ? EXIT_INTERRUPTED : past_status(folder, false);
}

static int watch_run(const struct tiered_command *self, int argc, char **argv)
{
    struct look_arguments args;
    struct tiered_error err;
    TIERED_FREE char *folder = NULL;
    int code = look_parse(self, argc, argv, NULL, &args);
    if (code >= 0) {
        return code;
    }
    return look_find(&args, &folder, &err) < 0 ? cmd_error(&err) : watch(folder);
}

const struct tiered_command cmd_watch = {
    .name = "watch",
    .summary = "follow a run: the live tree",
    .help =
        "usage: tiered watch [RUN] [--runs DIR]\n"
        "\n"
        "Draws 'tiered status' again and again until the run ends. Ctrl-C leaves the\n"
        "run alone.\n"
        "\n"
        "  --runs DIR   where run folders are (./runs)\n"
        "  --help\n",
    .run = watch_run,
};
