/* SPDX-License-Identifier: Apache-2.0 */
/* tiered aggregate: a strategy on safetensors files. */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <sys/resource.h>
#include <unistd.h>

#include "orchestrator/cmd.h"
#include "orchestrator/spec.h"
#include "orchestrator/updates.h"

#define MAX_PLUGINS 16

struct request {
    const char *plugins[MAX_PLUGINS];
    size_t n_plugins;
    const char *base, *state, *out, *folder;
    bool deltas, json;
    enum tiered_on_bad_update on_bad;
    const char *const *updates;
    size_t n_updates;
};

/** What a run holds, so that one function lets go of it all. */
struct session {
    struct tiered_plugins *plugins;
    struct tiered_use uses[MAX_PLUGINS];
    struct tiered_hosting hosting;
    struct tiered_pool *pool;
    struct tiered_strategy *strategy;
    struct updates updates;
    struct tiered_model *base, *model;
};

static int make_strategy(struct session *s, const struct request *r,
                         struct tiered_error *err)
{
    s->plugins = tiered_plugins_create(r->folder, err);
    if (!s->plugins) {
        return -1;
    }
    assert(r->n_plugins > 0); /* parse() asks for one */
    for (size_t i = 0; i < r->n_plugins; i++) {
        if (spec_parse(s->plugins, r->plugins[i],
                       i == 0 ? TIERED_AGGREGATOR : TIERED_OPTIMIZER, &s->uses[i],
                       err) != 0) {
            return -1;
        }
    }
    if (r->n_plugins > 1 && !r->base) {
        return tiered_fail(err, TIERED_EINVAL,
                           "optimizer '%s' steps from the model before the round: give "
                           "it with --global",
                           s->uses[1].loaded->plugin.name);
    }
    tiered_hosting_init(&s->hosting, 0, s->uses[0].loaded->plugin.name, NULL, NULL,
                        NULL);
    if (tiered_strategy_create(s->uses, r->n_plugins, &s->hosting, &s->strategy, err) !=
        0) {
        return -1;
    }
    if (r->state && tiered_strategy_is_whole(s->strategy)) {
        return tiered_fail(err, TIERED_EINVAL, "'%s' keeps no state: leave --state out",
                           s->uses[0].loaded->plugin.name);
    }
    return 0;
}

/** Each update is an open file; the soft limit is often 1024. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void warn_excluded(const struct tiered_error *why)
{
    fprintf(stderr, "warning: %s; the update is excluded\n", why->text);
}

static int read_inputs(struct session *s, const struct request *r,
                       struct tiered_error *err)
{
    raise_file_limit();
    bool allow = r->on_bad == TIERED_ALLOW_BAD;
    bool exclude = r->on_bad == TIERED_EXCLUDE_BAD;
    bool whole = tiered_strategy_is_whole(s->strategy);
    if (updates_open(r->updates, r->n_updates, r->base, whole, &s->updates, err) != 0 ||
        (r->base && updates_base(&s->updates, allow, &s->base, err) != 0)) {
        return -1;
    }
    if ((exclude || (whole && !allow)) &&
        updates_screen(&s->updates, exclude, s->pool, warn_excluded, err) != 0) {
        return -1;
    }
    if (whole && updates_check(&s->updates, s->strategy, s->base, exclude,
                               warn_excluded, err) != 0) {
        return -1;
    }
    if (r->state && access(r->state, F_OK) == 0 &&
        tiered_strategy_load(s->strategy, r->state, s->updates.layout, err) != 0) {
        return -1;
    }
    return updates_count(&s->updates, err);
}

static int write_outputs(const struct session *s, const struct request *r,
                         struct tiered_error *err)
{
    struct tiered_metadata metadata = {0};
    char count[24];
    snprintf(count, sizeof(count), "%" PRIu64, s->updates.num_examples);
    int rc = tiered_metadata_set(&metadata, "num_examples", count, err);
    double steps = tiered_strategy_local_steps(s->strategy);
    if (rc == 0 && isfinite(steps)) {
        char text[32];
        snprintf(text, sizeof(text), "%.17g", steps);
        rc = tiered_metadata_set(&metadata, "local_steps", text, err);
    }
    if (rc == 0) {
        rc = tiered_safetensors_write(r->out, s->model, &metadata, err);
    }
    tiered_metadata_finish(&metadata);
    if (rc == 0 && r->state && tiered_strategy_save(s->strategy, r->state, err) != 0) {
        return tiered_error_prefix(err,
                                   "'%.60s' is written, its state is not: ", r->out);
    }
    return rc;
}

/** Updates are screened while they are aggregated: reading them twice would take twice
    as long. When that fails, the first bad one is named, whatever was found first. */
static int run_strategy(struct session *s, const struct request *r,
                        struct tiered_error *err)
{
    const struct tiered_strategy_run run = {
        .layout = s->updates.layout,
        .base = s->base,
        .rows_are_deltas = r->deltas,
        .rows = s->updates.rows,
        .n_rows = s->updates.n,
        .allow_bad = r->on_bad == TIERED_ALLOW_BAD,
        .screen_all = r->on_bad == TIERED_REJECT_BAD,
        .unsealed = true,
        .pool = s->pool,
    };
    int rc = tiered_strategy_run(s->strategy, &run, &s->model, err);
    struct tiered_error bad = {0};
    if (rc != 0 && r->on_bad == TIERED_REJECT_BAD &&
        updates_screen(&s->updates, false, s->pool, NULL, &bad) != 0) {
        *err = bad;
    }
    return rc;
}

static int aggregate(struct session *s, const struct request *r,
                     struct tiered_error *err)
{
    if (make_strategy(s, r, err) != 0 || tiered_pool_create(0, &s->pool, err) != 0 ||
        read_inputs(s, r, err) != 0) {
        return -1;
    }
    return run_strategy(s, r, err) != 0 ? -1 : write_outputs(s, r, err);
}

static void session_finish(struct session *s)
{
    tiered_model_unref(s->model);
    tiered_model_unref(s->base);
    updates_close(&s->updates);
    tiered_strategy_destroy(s->strategy);
    tiered_pool_destroy(s->pool);
    for (size_t i = 0; i < MAX_PLUGINS; i++) {
        spec_finish(&s->uses[i]);
    }
    tiered_plugins_destroy(s->plugins);
}

static void print_result(const struct session *s, const struct request *r)
{
    const struct updates *u = &s->updates;
    if (!r->json) {
        printf("%zu updates, %zu excluded, %" PRIu64 " examples: %s\n", u->n,
               u->n_excluded, u->num_examples, r->out);
        return;
    }
    json_t *out = json_string(r->out);
    json_t *summary =
        json_pack("{s:o, s:I, s:I, s:I, s:I}", "out", out ? out : json_null(),
                  "updates", (json_int_t)u->n, "excluded", (json_int_t)u->n_excluded,
                  "num_examples", (json_int_t)u->num_examples, "tensors",
                  (json_int_t)s->model->layout->m.n_tensors);
    if (summary) {
        json_dumpf(summary, stdout, JSON_COMPACT);
        putchar('\n');
    }
    json_decref(summary);
}

enum {
    FLAG_GLOBAL = 256,
    FLAG_STATE,
    FLAG_DELTA,
    FLAG_ON_BAD,
    FLAG_JSON,
    FLAG_FOLDER,
};

static int take_flag(const struct tiered_command *self, int flag, struct request *r)
{
    switch (flag) {
    case 'p':
        if (r->n_plugins == MAX_PLUGINS) {
            return cmd_usage(self, "at most %d plugins", MAX_PLUGINS);
        }
        r->plugins[r->n_plugins++] = optarg;
        return EXIT_DONE;
    case 'o':
        r->out = optarg;
        return EXIT_DONE;
    case FLAG_GLOBAL:
        r->base = optarg;
        return EXIT_DONE;
    case FLAG_STATE:
        r->state = optarg;
        return EXIT_DONE;
    case FLAG_DELTA:
        r->deltas = true;
        return EXIT_DONE;
    case FLAG_JSON:
        r->json = true;
        return EXIT_DONE;
    case FLAG_FOLDER:
        r->folder = optarg;
        return EXIT_DONE;
    default:
        return tiered_on_bad_update_parse(optarg, &r->on_bad)
                   ? EXIT_DONE
                   : cmd_bad_value(self,
                                   "--on-bad-update is reject, exclude or allow, "
                                   "not '%s'",
                                   optarg);
    }
}

/** EXIT_DONE and *ret filled, or -1 after --help, or EXIT_USAGE. */
static int parse(const struct tiered_command *self, int argc, char **argv,
                 struct request *ret)
{
    static const struct option flags[] = {
        {"plugin", required_argument, NULL, 'p'},
        {"output", required_argument, NULL, 'o'},
        {"global", required_argument, NULL, FLAG_GLOBAL},
        {"state", required_argument, NULL, FLAG_STATE},
        {"delta", no_argument, NULL, FLAG_DELTA},
        {"on-bad-update", required_argument, NULL, FLAG_ON_BAD},
        {"json", no_argument, NULL, FLAG_JSON},
        {"plugins", required_argument, NULL, FLAG_FOLDER},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int flag;
    while ((flag = getopt_long(argc, argv, ":o:h", flags, NULL)) != -1) {
        if (flag == 'h') {
            cmd_help(self);
            return -1;
        }
        int code = flag == '?' || flag == ':' ? cmd_bad_flag(self, flag, argv)
                                              : take_flag(self, flag, ret);
        if (code != EXIT_DONE) {
            return code;
        }
    }
    ret->updates = (const char *const *)argv + optind;
    ret->n_updates = (size_t)(argc - optind);
    if (ret->n_plugins == 0) {
        return cmd_usage(self, "--plugin is missing: which aggregator?");
    }
    if (!ret->out) {
        return cmd_usage(self, "-o is missing: where does the result go?");
    }
    if (ret->n_updates == 0) {
        return cmd_usage(self, "no UPDATE given");
    }
    return EXIT_DONE;
}

static int run(const struct tiered_command *self, int argc, char **argv)
{
    struct request request = {0};
    int code = parse(self, argc, argv, &request);
    if (code != EXIT_DONE) {
        return code < 0 ? EXIT_DONE : code;
    }
    struct session session = {0};
    struct tiered_error err = {0};
    if (aggregate(&session, &request, &err) == 0) {
        print_result(&session, &request);
    } else {
        code = cmd_error(&err);
    }
    session_finish(&session);
    return code;
}

const struct tiered_command cmd_aggregate = {
    .name = "aggregate",
    .summary = "run an aggregator and optimizers on safetensors files",
    .help =
        "usage: tiered aggregate --plugin 'NAME[:key=value,...]' [--plugin ...]\n"
        "           [--global G] [--state S] [--delta]\n"
        "           [--on-bad-update reject|exclude|allow] [--plugins DIR] [--json]\n"
        "           -o OUT UPDATE...\n"
        "\n"
        "Aggregates the UPDATE files, in the order given, into OUT: one aggregator,\n"
        "then any number of optimizers. Tensors are matched by name.\n"
        "\n"
        "  --plugin SPEC        a plugin and its options, nested ones with dotted "
        "keys;\n"
        "                       'tiered plugins show NAME' lists them\n"
        "  --global G           the model that the updates started from\n"
        "  --state S            the optimizers' state: read if it exists, then "
        "written\n"
        "  --delta              the updates are deltas, not parameters; OUT is the "
        "new\n"
        "                       model with --global, the aggregated delta without\n"
        "  --on-bad-update HOW  an update with NaN or infinite values: reject (the\n"
        "                       default) is an error, exclude leaves it out with a\n"
        "                       warning, allow lets it through (fedavg)\n"
        "  --plugins DIR        the folder of plugins; otherwise TIERED_PLUGINS, "
        "otherwise\n"
        "                       lib/tiered beside the program\n"
        "  --json               print a summary as JSON\n"
        "  -o, --output OUT     the result\n"
        "\n"
        "num_examples comes from the updates' metadata (1 if absent); OUT's is the\n"
        "sum. So do local_steps and a_norm; OUT's local_steps are what it counts by\n"
        "at the next tier. Exit: 0 done, 1 the input failed and OUT is as before, 2 a\n"
        "wrong flag.\n",
    .run = run,
};
