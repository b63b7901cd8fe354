/* SPDX-License-Identifier: Apache-2.0 */
/* tiered logs: the log of the agent that hosts a node. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "orchestrator/look.h"
#include "orchestrator/record.h"

#define FOLLOW_MS 200

static void copy_out(FILE *log)
{
    char buffer[8192];
    size_t n;
    while ((n = fread(buffer, 1, sizeof(buffer), log)) > 0) {
        fwrite(buffer, 1, n, stdout);
    }
    fflush(stdout);
    clearerr(log);
}

static int print_log(const char *folder, const char *node, bool follow,
                     struct tiered_error *err)
{
    const struct timespec pause = {.tv_nsec = FOLLOW_MS * 1000000L};
    char agent[80];
    TIERED_FREE char *path = NULL;
    if (record_agent_of(folder, node, agent, sizeof(agent)) < 0) {
        return tiered_fail(err, TIERED_ENOENT, "run '%s' has no node or agent '%s'",
                           strrchr(folder, '/') + 1, node);
    }
    if (asprintf(&path, "%s/logs/%s.log", folder, agent) < 0) {
        path = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    FILE *log = fopen(path, "re");
    if (!log) {
        return tiered_fail(err, TIERED_ENOENT, "'%s': %s", path, strerror(errno));
    }
    copy_out(log);
    while (follow && look_is_live(folder)) {
        nanosleep(&pause, NULL);
        copy_out(log);
    }
    fclose(log);
    return 0;
}

static int logs_run(const struct tiered_command *self, int argc, char **argv)
{
    struct look_arguments args;
    struct tiered_error err;
    TIERED_FREE char *folder = NULL;
    int code = look_parse(self, argc, argv, "NODE", &args);
    if (code >= 0) {
        return code;
    }
    return look_find(&args, &folder, &err) < 0 ||
                   print_log(folder, args.argument, args.follow, &err) < 0
               ? cmd_error(&err)
               : EXIT_DONE;
}

const struct tiered_command cmd_logs = {
    .name = "logs",
    .summary = "print the log of a node's agent",
    .help = "usage: tiered logs NODE [--run RUN] [--runs DIR] [-f]\n"
            "\n"
            "Prints the log of the agent that hosts NODE (or of the agent NODE).\n"
            "\n"
            "  --run RUN      of this run (the newest)\n"
            "  --runs DIR     where run folders are (./runs)\n"
            "  -f, --follow   go on printing until the run ends\n"
            "  --help\n",
    .run = logs_run,
};
