/* SPDX-License-Identifier: Apache-2.0 */
/* tiered plan: draw the tree that a topology makes, and what it will cost. */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "orchestrator/cmd.h"
#include "orchestrator/load.h"
#include "orchestrator/plan_text.h"

static int show(const char *path, const char *const *sets, size_t n_sets,
                const char *folder, bool json, bool all)
{
    struct tiered_error err = {0};
    TIERED_CLEANUP(cmd_load_finish) struct loaded_plan loaded = {0};
    int result = cmd_load_plan(path, sets, n_sets, folder, &loaded, &err);
    if (!loaded.plugins) {
        return cmd_error(&err);
    }
    cmd_load_report(&loaded);
    if (result < 0) {
        return EXIT_FAILED;
    }
    struct plan_view view = {.plan = loaded.plan, .all = all};
    view.model_known = estimate_model(loaded.plan, &view.model_bytes, &err) == 0;
    if (!view.model_known) {
        fprintf(stderr, "the model's size is not known: %s\n", err.text);
    }
    return (json ? plan_print_json(&view, stdout, &err)
                 : plan_print_tree(&view, stdout, &err)) < 0
               ? cmd_error(&err)
               : EXIT_DONE;
}

static int run(const struct tiered_command *self, int argc, char **argv)
{
    static const struct option flags[] = {
        {"help", no_argument, NULL, 'h'},
        {"json", no_argument, NULL, 'j'},
        {"all", no_argument, NULL, 'a'},
        {"plugins", required_argument, NULL, 'p'},
        {"set", required_argument, NULL, 's'},
        {0},
    };
    const char *sets[LOAD_MAX_SETS];
    const char *folder = NULL;
    size_t n_sets = 0;
    bool json = false, all = false;
    int flag;
    while ((flag = getopt_long(argc, argv, ":h", flags, NULL)) != -1) {
        switch (flag) {
        case 'h':
            return cmd_help(self);
        case 'j':
            json = true;
            break;
        case 'a':
            all = true;
            break;
        case 'p':
            folder = optarg;
            break;
        case 's':
            if (n_sets == LOAD_MAX_SETS) {
                return cmd_usage(self, "more than %d times --set", LOAD_MAX_SETS);
            }
            sets[n_sets++] = optarg;
            break;
        default:
            return cmd_bad_flag(self, flag, argv);
        }
    }
    if (argc - optind != 1) {
        return cmd_usage(self, "one FILE, not %d", argc - optind);
    }
    return show(argv[optind], sets, n_sets, folder, json, all);
}

const struct tiered_command cmd_plan = {
    .name = "plan",
    .summary = "draw the tree that a topology makes, and what it will cost",
    .help =
        "usage: tiered plan [--set KEY=VALUE]... [--plugins DIR] [--all] [--json] "
        "FILE\n\n"
        "Draws the tree of FILE: each node with its plugins, its agent, the bytes "
        "that\n"
        "it moves in one round of its parent (of the run at the root), before "
        "filters,\n"
        "and the memory that an inner node takes at most. Long lists of siblings show\n"
        "the first and the last. '?' stands where the model's size is not known.\n\n"
        "  --set KEY=VALUE  as if the file said so: run.rounds=3,\n"
        "                   tiers.edge.trainer.mlp.lr=0.1\n"
        "  --plugins DIR    the folder of plugins; otherwise TIERED_PLUGINS,\n"
        "                   otherwise lib/tiered beside the program\n"
        "  --all            every node\n"
        "  --json           one JSON object with every node\n",
    .run = run,
};
