/* SPDX-License-Identifier: Apache-2.0 */
/* tiered validate: check topology files. */
#include <getopt.h>
#include <jansson.h>

#include "orchestrator/cmd.h"
#include "orchestrator/load.h"
#include "orchestrator/schema.h"

static json_t *problems(const struct tiered_diagnostics *diag, bool warnings)
{
    json_t *list = json_array();
    for (size_t i = 0; i < diag->n; i++) {
        const struct tiered_diagnostic *item = &diag->items[i];
        if (item->warning == warnings) {
            json_array_append_new(
                list, json_pack("{s:s, s:i, s:i, s:s}", "file", item->mark.file, "line",
                                (int)item->mark.line, "column", (int)item->mark.column,
                                "text", item->text));
        }
    }
    return list;
}

static void print_json(const char *path, const struct loaded_plan *loaded, bool ok)
{
    json_t *object = json_pack("{s:s, s:b, s:o, s:o}", "file", path, "ok", ok, "errors",
                               problems(&loaded->diag, false), "warnings",
                               problems(&loaded->diag, true));
    if (ok) {
        json_object_set_new(object, "tiers", json_integer(loaded->plan->n_tiers));
        json_object_set_new(object, "nodes", json_integer(loaded->plan->n_nodes));
    }
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

static int validate(const char *path, const char *const *sets, size_t n_sets,
                    const char *folder, bool json)
{
    struct tiered_error err = {0};
    TIERED_CLEANUP(cmd_load_finish) struct loaded_plan loaded = {0};
    bool ok = cmd_load_plan(path, sets, n_sets, folder, &loaded, &err) == 0;
    if (!loaded.plugins) {
        return cmd_error(&err);
    }
    cmd_load_report(&loaded);
    if (json) {
        print_json(path, &loaded, ok);
    } else if (ok) {
        printf("%s: ok (%u tiers, %u node%s)\n", path, loaded.plan->n_tiers,
               loaded.plan->n_nodes, loaded.plan->n_nodes == 1 ? "" : "s");
    }
    return ok ? EXIT_DONE : EXIT_FAILED;
}

static int print_schema(const char *folder)
{
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_plugins_destroyp)
    struct tiered_plugins *plugins = tiered_plugins_create(folder, &err);
    if (!plugins || schema_print(plugins, cmd_warn_refused, stdout, &err) < 0) {
        return cmd_error(&err);
    }
    return EXIT_DONE;
}

static int run(const struct tiered_command *self, int argc, char **argv)
{
    static const struct option flags[] = {
        {"help", no_argument, NULL, 'h'},
        {"json", no_argument, NULL, 'j'},
        {"plugins", required_argument, NULL, 'p'},
        {"set", required_argument, NULL, 's'},
        {"schema", no_argument, NULL, 'S'},
        {0},
    };
    const char *sets[LOAD_MAX_SETS];
    const char *folder = NULL;
    size_t n_sets = 0;
    bool json = false, schema = false;
    int flag;
    while ((flag = getopt_long(argc, argv, ":h", flags, NULL)) != -1) {
        switch (flag) {
        case 'h':
            return cmd_help(self);
        case 'j':
            json = true;
            break;
        case 'p':
            folder = optarg;
            break;
        case 'S':
            schema = true;
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
    if (schema) {
        return optind == argc && !json && !n_sets
                   ? print_schema(folder)
                   : cmd_usage(self, "--schema takes no FILE, --json or --set");
    }
    if (optind == argc) {
        return cmd_usage(self, "which FILE?");
    }
    int result = EXIT_DONE;
    for (int i = optind; i < argc; i++) {
        int one = validate(argv[i], sets, n_sets, folder, json);
        result = one ? one : result;
    }
    return result;
}

const struct tiered_command cmd_validate = {
    .name = "validate",
    .summary = "check topology files",
    .help =
        "usage: tiered validate [--set KEY=VALUE]... [--plugins DIR] [--json] "
        "FILE...\n"
        "       tiered validate --schema [--plugins DIR]\n\n"
        "Checks each topology FILE: its keys, the plugins' options, and what they\n"
        "mean together. All errors and warnings of a file are reported on stderr\n"
        "with their places, and 'FILE: ok' on stdout when there is no error.\n\n"
        "  --set KEY=VALUE  as if the file said so: run.rounds=3,\n"
        "                   tiers.edge.trainer.mlp.lr=0.1\n"
        "  --plugins DIR    the folder of plugins; otherwise TIERED_PLUGINS,\n"
        "                   otherwise lib/tiered beside the program\n"
        "  --json           one JSON object a file on stdout\n"
        "  --schema         print the JSON Schema of topology files, with all that\n"
        "                   the plugins say of their options, for editors; a file\n"
        "                   whose first line is\n"
        "                   '# yaml-language-server: $schema=topology.schema.json'\n"
        "                   is completed and checked by the one beside it\n\n"
        "Exit codes: 0 every file is fine, 1 a file has an error, 2 usage.\n",
    .run = run,
};
