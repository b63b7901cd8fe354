/* SPDX-License-Identifier: Apache-2.0 */
/* tiered runs: the runs of a folder. */
#include <stdio.h>

#include "orchestrator/look.h"
#include "orchestrator/record.h"

static json_t *row_of(const char *runs, const char *name)
{
    TIERED_FREE char *folder = NULL;
    char status[32] = "unknown";
    if (asprintf(&folder, "%s/%s", runs, name) < 0) {
        folder = NULL;
        return json_null();
    }
    struct record_summary summary = {0};
    record_summary(folder, &summary);
    record_status(folder, status, sizeof(status));
    bool live = look_is_live(folder);
    if (strcmp(status, "running") == 0 && !live) {
        snprintf(status, sizeof(status), "left"); /* its orchestrator died */
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:o}", "run", name, "status", status,
                     "started", summary.started, "rounds", (json_int_t)summary.rounds,
                     "metrics", summary.metrics ? summary.metrics : json_object());
}

static void print_row(const json_t *row)
{
    const char *name;
    json_t *value;
    printf("%-44s %-12s %-20s %6.0f ", look_text(row, "run"), look_text(row, "status"),
           look_text(row, "started"), look_number(row, "rounds"));
    json_object_foreach (json_object_get(row, "metrics"), name, value) {
        if (strncmp(name, "train_", 6) != 0) {
            printf(" %s %.4f", name, json_number_value(value));
        }
    }
    putchar('\n');
}

static int run(const struct tiered_command *self, int argc, char **argv)
{
    struct look_arguments args;
    struct tiered_error err;
    char **names;
    size_t n;
    int code = look_parse(self, argc, argv, NULL, &args);
    if (code >= 0) {
        return code;
    }
    if (look_all(args.runs, &names, &n, &err) < 0) {
        return cmd_error(&err);
    }
    if (!args.json) {
        printf("%-44s %-12s %-20s %6s  %s\n", "run", "status", "started", "rounds",
               "metrics");
    }
    for (size_t i = 0; i < n; i++) {
        json_t *row = row_of(args.runs, names[i]);
        if (args.json) {
            json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(15));
            putchar('\n');
        } else {
            print_row(row);
        }
        json_decref(row);
    }
    look_free(names, n);
    return EXIT_DONE;
}

const struct tiered_command cmd_runs = {
    .name = "runs",
    .summary = "list the runs of a folder",
    .help = "usage: tiered runs [--runs DIR] [--json]\n"
            "\n"
            "Lists the runs, oldest first: finished, running, interrupted, failed, or "
            "left\n"
            "(its 'tiered up' died: --resume goes on with it).\n"
            "\n"
            "  --runs DIR   where run folders are (./runs)\n"
            "  --json       one JSON object a line\n"
            "  --help\n",
    .run = run,
};
