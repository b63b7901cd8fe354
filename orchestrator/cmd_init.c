/* SPDX-License-Identifier: Apache-2.0 */
/* tiered init: write a topology to start from. */
#include <getopt.h>
#include <string.h>
#include <unistd.h>

#include "core/base/base.h"
#include "orchestrator/cmd.h"

static const char text[] =
    "# A topology: the tree of nodes, what each tier does, and the links between "
    "them.\n"
    "# 'tiered validate topology.yaml' checks it, 'tiered plan topology.yaml' draws "
    "it,\n"
    "# 'tiered up topology.yaml' runs it on this machine. Editors complete it by the "
    "schema\n"
    "# that 'tiered validate --schema' prints.\n"
    "tiered: 1                         # the format's version\n"
    "name: first\n"
    "\n"
    "run:\n"
    "  rounds: 5                       # of the root tier\n"
    "  seed: 1                         # the same seed gives the same run\n"
    "  # stop_when: {metric: accuracy, at_least: 0.97}\n"
    "\n"
    "# Keys that hold for every tier that does not say otherwise.\n"
    "defaults: {memory: 512MiB}\n"
    "\n"
    "tiers:                            # root first, from 2 up\n"
    "  - name: cloud\n"
    "    aggregate: [fedavg]           # one aggregator, then optimizers\n"
    "    rounds: {quorum: 100%}        # of the children; a deadline closes earlier\n"
    "\n"
    "  - name: fog\n"
    "    fan_out: 2                    # nodes under each parent: fog-0, fog-1\n"
    "    aggregate: [fedavg]\n"
    "    rounds: {per_parent_round: 2} # two rounds with its edges for one of the "
    "cloud\n"
    "\n"
    "  - name: edge\n"
    "    fan_out: 3                    # edge-0-0 … edge-1-2\n"
    "    trainer:                      # what the leaves do; {index} and {count} "
    "expand\n"
    "      softmax: {data: fashion-mnist, shard: \"{index}/{count}\", lr: 0.05}\n"
    "\n"
    "# Exceptions by name or glob, later ones win:\n"
    "# nodes:\n"
    "#   fog-1: {memory: 1GiB}\n"
    "#   \"edge-1-*\": {agent: gateway-1}  # three nodes in one agent\n";

static int write_new(const char *path, bool force)
{
    struct tiered_error err = {0};
    if (strcmp(path, "-") == 0) {
        fputs(text, stdout);
        return EXIT_DONE;
    }
    if (!force && access(path, F_OK) == 0) {
        tiered_fail(&err, TIERED_EINVAL, "'%s' exists already; --force replaces it",
                    path);
        return cmd_error(&err);
    }
    if (tiered_file_write(path, text, sizeof(text) - 1, &err) < 0) {
        return cmd_error(&err);
    }
    printf("%s: written; 'tiered up %s' runs it\n", path, path);
    return EXIT_DONE;
}

static int run(const struct tiered_command *self, int argc, char **argv)
{
    static const struct option flags[] = {
        {"help", no_argument, NULL, 'h'},
        {"force", no_argument, NULL, 'f'},
        {0},
    };
    bool force = false;
    int flag;
    while ((flag = getopt_long(argc, argv, ":hf", flags, NULL)) != -1) {
        switch (flag) {
        case 'h':
            return cmd_help(self);
        case 'f':
            force = true;
            break;
        default:
            return cmd_bad_flag(self, flag, argv);
        }
    }
    if (argc - optind > 1) {
        return cmd_usage(self, "one FILE, not %d", argc - optind);
    }
    return write_new(optind < argc ? argv[optind] : "topology.yaml", force);
}

const struct tiered_command cmd_init = {
    .name = "init",
    .summary = "write a topology to start from",
    .help = "usage: tiered init [--force] [FILE]\n\n"
            "Writes a small topology with comments to FILE (topology.yaml by default;\n"
            "'-' prints it). It runs as it is.\n\n"
            "  -f, --force  replace FILE if it exists\n",
    .run = run,
};
