/* SPDX-License-Identifier: Apache-2.0 */
/* tiered up: run a topology on this machine. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/log.h"
#include "orchestrator/cmd.h"
#include "orchestrator/load.h"
#include "orchestrator/run.h"

static const char help[] =
    "usage: tiered up FILE [--set KEY=VALUE]... [--runs DIR] [--resume]\n"
    "                 [--json]\n"
    "\n"
    "Runs the topology on this machine: plans, starts an agent process for each agent "
    "of\n"
    "the plan, trains, and leaves the model in the run's folder. Every node runs here, "
    "over\n"
    "Unix sockets, whatever the topology says of hosts and transports.\n"
    "\n"
    "  --set KEY=VALUE   change the topology first: run.rounds=3,\n"
    "                    tiers.edge.trainer.mlp.lr=0.1\n"
    "  --runs DIR        where run folders are made (./runs)\n"
    "  --resume          go on with the newest unfinished run of this topology: one "
    "that\n"
    "                    was interrupted, or whose 'tiered up' died; agents that "
    "still\n"
    "                    live are adopted\n"
    "  --network         keep the links' transports, on loopback\n"
    "  --external AGENT  do not start this agent: somebody else does, with what\n"
    "                    RUN_FOLDER/agents/AGENT.json says (a debugger, a client in "
    "another\n"
    "                    language); repeatable\n"
    "  --json            one JSON object a line on stdout: run_started, "
    "round_committed,\n"
    "                    …, run_finished\n"
    "  --http-port PORT  of the dashboard, the JSON API and /metrics on 127.0.0.1 "
    "(any)\n"
    "  --plugins DIR     where the plugins are (default: lib/tiered beside bin)\n"
    "  --log-level L     of the agents' logs: error, warn, info, debug (info)\n"
    "  --help\n"
    "\n"
    "Ctrl-C stops every process that it started. Exit codes: 0 done, 1 the topology "
    "or\n"
    "the run failed, 2 an unknown flag or a missing argument, 130 interrupted.\n";

enum {
    OPT_SET = 256,
    OPT_RUNS,
    OPT_RESUME,
    OPT_JSON,
    OPT_PLUGINS,
    OPT_LEVEL,
    OPT_NETWORK,
    OPT_HTTP,
    OPT_EXTERNAL,
    OPT_HELP
};

static const struct option flags[] = {
    {"set", required_argument, NULL, OPT_SET},
    {"runs", required_argument, NULL, OPT_RUNS},
    {"resume", no_argument, NULL, OPT_RESUME},
    {"json", no_argument, NULL, OPT_JSON},
    {"plugins", required_argument, NULL, OPT_PLUGINS},
    {"log-level", required_argument, NULL, OPT_LEVEL},
    {"http-port", required_argument, NULL, OPT_HTTP},
    {"external", required_argument, NULL, OPT_EXTERNAL},
    {"network", no_argument, NULL, OPT_NETWORK},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

#define MOST_EXTERNAL 64

struct arguments {
    const char *file, *sets[LOAD_MAX_SETS];
    size_t n_sets;
    const char *external[MOST_EXTERNAL];
    size_t n_external;
    bool json;
    struct run_options run;
};

static bool parse_port(const char *text, uint16_t *ret)
{
    char *end;
    unsigned long port = strtoul(text, &end, 10);
    *ret = (uint16_t)port;
    return *text && !*end && port <= UINT16_MAX;
}

/* -1: go on; otherwise the exit code. */
static int parse(const struct tiered_command *self, int argc, char **argv,
                 struct arguments *args)
{
    enum tiered_level level;
    int c;
    optind = 1;
    while ((c = getopt_long(argc, argv, ":", flags, NULL)) != -1) {
        switch (c) {
        case OPT_SET:
            if (args->n_sets == LOAD_MAX_SETS) {
                return cmd_usage(self, "more than %d --set", LOAD_MAX_SETS);
            }
            args->sets[args->n_sets++] = optarg;
            break;
        case OPT_RUNS:
            args->run.runs_folder = optarg;
            break;
        case OPT_JSON:
            args->json = true;
            break;
        case OPT_PLUGINS:
            args->run.plugins_folder = optarg;
            break;
        case OPT_LEVEL:
            if (!tiered_log_parse_level(optarg, &level)) {
                return cmd_usage(self, "unknown log level '%s'", optarg);
            }
            args->run.log_level = optarg;
            break;
        case OPT_RESUME:
            args->run.resume = true;
            break;
        case OPT_EXTERNAL:
            if (args->n_external == MOST_EXTERNAL) {
                return cmd_usage(self, "more than %d --external", MOST_EXTERNAL);
            }
            args->external[args->n_external++] = optarg;
            break;
        case OPT_HTTP:
            if (!parse_port(optarg, &args->run.http_port)) {
                return cmd_usage(self, "'%s' is not a port", optarg);
            }
            break;
        case OPT_NETWORK:
            args->run.network = true;
            break;
        case OPT_HELP:
            return cmd_help(self);
        default:
            return cmd_bad_flag(self, c, argv);
        }
    }
    if (optind >= argc) {
        return cmd_usage(self, "a topology file is missing");
    }
    args->file = argv[optind++];
    return optind < argc ? cmd_usage(self, "unexpected argument '%s'", argv[optind])
                         : -1;
}

static int run_plan(struct arguments *args, const struct loaded_plan *loaded)
{
    TIERED_CLEANUP(report_destroyp) struct report *report = NULL;
    struct tiered_error err;
    const char *term = getenv("TERM");
    bool terminal = isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
    enum report_form form = args->json ? REPORT_JSON
                            : terminal ? REPORT_TERMINAL
                                       : REPORT_LINES;
    if (report_create(form, loaded->plan, &report, &err) < 0) {
        return cmd_error(&err);
    }
    args->run.quiet = form == REPORT_TERMINAL && isatty(STDERR_FILENO);
    args->run.topology_path = args->file;
    args->run.external = args->external;
    args->run.n_external = args->n_external;
    args->run.topology = (struct resume_topology){
        .name = tiered_topology_run(loaded->topology)->name,
        .text = (const char *)loaded->source.data,
        .text_size = loaded->source.size,
        .sets = args->sets,
        .n_sets = args->n_sets,
        .network = args->run.network,
    };
    return run_up(loaded->plan, loaded->plugins, &args->run, report);
}

/* The run changes its working folder, and so do its agents: the path becomes absolute.
 *ret is malloc'd; NULL: the plugins beside the program. */
static int find_plugins(const char *given, char **ret, struct tiered_error *err)
{
    const char *folder = given ? given : getenv("TIERED_PLUGINS");
    if (!folder || !*folder) {
        return 0;
    }
    *ret = realpath(folder, NULL);
    return *ret ? 0
                : tiered_fail(err, TIERED_ENOENT, "there is no plugin folder '%s'",
                              folder);
}

static int run(const struct tiered_command *self, int argc, char **argv)
{
    struct arguments args = {.run = {.runs_folder = "runs", .log_level = "info"}};
    int code = parse(self, argc, argv, &args);
    if (code >= 0) {
        return code;
    }
    tiered_log_set_name("tiered");
    tiered_log_set_level(TIERED_LOG_WARN);
    struct tiered_error err;
    TIERED_CLEANUP(cmd_load_finish) struct loaded_plan loaded = {0};
    TIERED_FREE char *folder = NULL;
    if (find_plugins(args.run.plugins_folder, &folder, &err) < 0) {
        return cmd_error(&err);
    }
    args.run.plugins_folder = folder;
    int result =
        cmd_load_plan(args.file, args.sets, args.n_sets, folder, &loaded, &err);
    cmd_load_report(&loaded);
    if (result < 0) {
        return loaded.diag.n_errors ? EXIT_FAILED : cmd_error(&err);
    }
    return run_plan(&args, &loaded);
}

const struct tiered_command cmd_up = {
    .name = "up",
    .summary = "run a topology on this machine",
    .help = help,
    .run = run,
};
