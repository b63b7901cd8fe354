/* SPDX-License-Identifier: Apache-2.0 */
/* tiered-agent: hosts one or more nodes of a tree on one host. */
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "agents/agent.h"
#include "core/base/log.h"
#include "core/base/version.h"

static const char help[] =
    "usage: tiered-agent --name NAME --state DIR --orchestrator ADDRESS [OPTION]...\n"
    "\n"
    "Hosts the nodes that the orchestrator assigns to the agent NAME. Started by\n"
    "'tiered up' on one machine, by a service manager on hosts.\n"
    "\n"
    "  --name NAME             the agent's name in the plan\n"
    "  --state DIR             where it keeps what must survive a crash; made if "
    "absent\n"
    "  --orchestrator ADDRESS  unix:PATH\n"
    "  --token TOKEN           the run's join token (default: $TIERED_TOKEN)\n"
    "  --plugins DIR           where the plugins are (default: lib/tiered beside bin)\n"
    "  --log-level LEVEL       error, warn, info or debug (info)\n"
    "  --log-json              log JSON lines\n"
    "  --version, --help\n"
    "\n"
    "Exit codes: 0 stopped, 1 it could not run, 2 an unknown flag or a missing "
    "argument.\n";

enum {
    OPT_NAME = 256,
    OPT_STATE,
    OPT_ORCHESTRATOR,
    OPT_TOKEN,
    OPT_PLUGINS,
    OPT_LEVEL,
    OPT_JSON,
    OPT_VERSION,
    OPT_HELP
};

static const struct option options[] = {
    {"name", required_argument, NULL, OPT_NAME},
    {"state", required_argument, NULL, OPT_STATE},
    {"orchestrator", required_argument, NULL, OPT_ORCHESTRATOR},
    {"token", required_argument, NULL, OPT_TOKEN},
    {"plugins", required_argument, NULL, OPT_PLUGINS},
    {"log-level", required_argument, NULL, OPT_LEVEL},
    {"log-json", no_argument, NULL, OPT_JSON},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static int usage(const char *what, const char *which)
{
    fprintf(stderr, "tiered-agent: %s '%s'\ntry 'tiered-agent --help'\n", what, which);
    return 2;
}

/* -1: go on; otherwise the exit code. */
static int parse(int argc, char **argv, struct agent_config *config)
{
    enum tiered_level level;
    int c;
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (c) {
        case OPT_NAME:
            config->name = optarg;
            break;
        case OPT_STATE:
            config->state = optarg;
            break;
        case OPT_ORCHESTRATOR:
            config->orchestrator = optarg;
            break;
        case OPT_TOKEN:
            config->token = optarg;
            break;
        case OPT_PLUGINS:
            config->plugins = optarg;
            break;
        case OPT_LEVEL:
            if (!tiered_log_parse_level(optarg, &level)) {
                return usage("unknown log level", optarg);
            }
            tiered_log_set_level(level);
            break;
        case OPT_JSON:
            tiered_log_set_json(true);
            break;
        case OPT_VERSION:
            puts("tiered-agent " TIERED_VERSION);
            return 0;
        case OPT_HELP:
            fputs(help, stdout);
            return 0;
        default:
            return usage(c == ':' ? "a value is missing after" : "unknown flag",
                         argv[optind - 1]);
        }
    }
    if (optind < argc) {
        return usage("unexpected argument", argv[optind]);
    }
    const char *missing = !config->name           ? "--name"
                          : !config->state        ? "--state"
                          : !config->orchestrator ? "--orchestrator"
                                                  : NULL;
    return missing ? usage("missing argument", missing) : -1;
}

/* Blocks of a transfer come and go by the thousand. glibc gives each back to the
   kernel, which clears its pages anew; keep as many as a few transfers have under way.
 */
static void keep_blocks(void)
{
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

int main(int argc, char **argv)
{
    keep_blocks();
    const char *token = getenv("TIERED_TOKEN");
    struct agent_config config = {.token = token ? token : ""};
    int code = parse(argc, argv, &config);
    if (code >= 0) {
        return code;
    }
    tiered_log_set_name(config.name);
    struct tiered_error err;
    if (agent_run(&config, &err) < 0) {
        tiered_log(TIERED_LOG_ERROR, "agent", NULL, "%s", err.text);
        return 1;
    }
    return 0;
}
