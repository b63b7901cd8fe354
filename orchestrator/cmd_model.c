/* SPDX-License-Identifier: Apache-2.0 */
/* tiered model: a run's newest model. */
#include <stdio.h>
#include <unistd.h>

#include "core/model/safetensors.h"
#include "orchestrator/look.h"

static int get_model(const char *folder, const char *output, struct tiered_error *err)
{
    TIERED_FREE char *path = NULL;
    if (asprintf(&path, "%s/model.safetensors", folder) < 0) {
        path = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (access(path, F_OK) < 0) {
        return tiered_fail(err, TIERED_ENOENT, "run '%s' has no model yet",
                           strrchr(folder, '/') + 1);
    }
    if (!output) {
        char *real = realpath(path, NULL);
        puts(real ? real : path);
        free(real);
        return 0;
    }
    struct tiered_model *model;
    struct tiered_metadata metadata = {0};
    if (tiered_safetensors_read(path, &model, &metadata, err) < 0) {
        return -1;
    }
    int result = tiered_safetensors_write(output, model, &metadata, err);
    tiered_model_unref(model);
    tiered_metadata_finish(&metadata);
    return result;
}

static int model_run(const struct tiered_command *self, int argc, char **argv)
{
    struct look_arguments args;
    struct tiered_error err;
    TIERED_FREE char *folder = NULL;
    if (argc > 1 && strcmp(argv[1], "get") == 0) {
        argc--;
        argv++;
    } else if (argc < 2 || argv[1][0] != '-') {
        return cmd_usage(
            self, argc < 2 ? "a verb is missing (get)" : "unknown verb '%s'", argv[1]);
    }
    int code = look_parse(self, argc, argv, NULL, &args);
    if (code >= 0) {
        return code;
    }
    return look_find(&args, &folder, &err) < 0 ||
                   get_model(folder, args.output, &err) < 0
               ? cmd_error(&err)
               : EXIT_DONE;
}

const struct tiered_command cmd_model = {
    .name = "model",
    .summary = "get a run's newest model",
    .help =
        "usage: tiered model get [RUN] [--runs DIR] [-o FILE]\n"
        "\n"
        "The newest model of the run (the newest run without RUN): its path, or with\n"
        "-o a copy. It is a safetensors file, replaced whole at each round.\n"
        "\n"
        "  --runs DIR   where run folders are (./runs)\n"
        "  -o FILE      write it there\n"
        "  --help\n",
    .run = model_run,
};
