/* SPDX-License-Identifier: Apache-2.0 */
/* tiered plugins: what is installed, and everything that a plugin says about itself. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "core/options/options.h"
#include "core/plugins/plugins.h"
#include "orchestrator/check.h"
#include "orchestrator/cmd.h"
#include "orchestrator/table.h"
#include "tiered/aggregator.h"

struct flags {
    const char *folder, *options;
    uint64_t limit_ms; /* of one check */
    bool json;
};

static const char *const needs_names[] = {
    [TIERED_NEEDS_NOTHING] = "nothing",
    [TIERED_NEEDS_NORMS] = "norms",
    [TIERED_NEEDS_GRAM] = "gram",
    [TIERED_NEEDS_DISTANCES] = "distances",
    [TIERED_NEEDS_CENTRED] = "centred gram",
};

static const char *const role_names[TIERED_N_ROLES] = {
    [TIERED_PARAMETER] = "parameter",
    [TIERED_BUFFER] = "buffer",
    [TIERED_CONTROL] = "control",
    [TIERED_PERSONAL] = "personal",
};

static const char *type_name(enum tiered_option_type type)
{
    static const char *const names[] = {
        [TIERED_BOOLEAN] = "boolean",   [TIERED_INTEGER] = "integer",
        [TIERED_DOUBLE] = "number",     [TIERED_STRING] = "string",
        [TIERED_DURATION] = "duration", [TIERED_BYTES] = "size",
        [TIERED_CHOICE] = "choice",     [TIERED_SECTION] = "section",
        [TIERED_INTEGERS] = "integers", [TIERED_STRINGS] = "strings",
        [TIERED_PAIRS] = "pairs",
    };
    return names[type];
}

/* Calls `each` with the name of every trait; bits without a name are a later version's.
 */
static void each_trait(uint32_t traits, void (*each)(void *user, const char *name),
                       void *user)
{
    for (uint32_t bit = 1; bit; bit <<= 1) {
        const char *name = traits & bit ? tiered_trait_name(bit) : NULL;
        if (name) {
            each(user, name);
        }
    }
}

static void each_role(uint32_t roles, void (*each)(void *user, const char *name),
                      void *user)
{
    for (unsigned i = 0; i < TIERED_N_ROLES; i++) {
        if (roles & TIERED_ROLE_BIT(i)) {
            each(user, role_names[i]);
        }
    }
}

static void add_name(void *user, const char *name)
{
    json_array_append_new(user, json_string(name));
}

static void print_name(void *user, const char *name)
{
    bool *any = user;
    printf("%s%s", *any ? ", " : "", name);
    *any = true;
}

static json_t *option_json(const struct tiered_option *row, size_t row_size,
                           bool alternative);

static json_t *options_json(const struct tiered_option *rows, size_t n, size_t row_size,
                            bool alternatives)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        struct tiered_option row = tiered_option_row(rows, row_size, i);
        json_array_append_new(list, option_json(&row, row_size, alternatives));
    }
    return list;
}

static void add_range(json_t *object, const struct tiered_option *row)
{
    if (row->min == 0 && row->max == 0) {
        return;
    }
    if (isfinite(row->min)) {
        json_object_set_new(object,
                            row->flags & TIERED_EXCLUSIVE_MIN ? "above" : "at_least",
                            json_real(row->min));
    }
    if (isfinite(row->max)) {
        json_object_set_new(object,
                            row->flags & TIERED_EXCLUSIVE_MAX ? "below" : "at_most",
                            json_real(row->max));
    }
}

static json_t *option_json(const struct tiered_option *row, size_t row_size,
                           bool alternative)
{
    json_t *object = json_pack("{s:s}", "name", row->name);
    if (!alternative) {
        char values[200];
        tiered_option_type_text(row, row_size, values, sizeof(values));
        json_object_set_new(object, "type", json_string(type_name(row->type)));
        json_object_set_new(object, "values", json_string(values));
        json_object_set_new(object, "default",
                            row->fallback ? json_string(row->fallback) : json_null());
        json_object_set_new(object, "required",
                            json_boolean(row->flags & TIERED_REQUIRED));
        add_range(object, row);
    }
    if (row->unit) {
        json_object_set_new(object, "unit", json_string(row->unit));
    }
    json_object_set_new(object, "help", json_string(row->help ? row->help : ""));
    if (row->n_nested) {
        bool choice = !alternative && row->type == TIERED_CHOICE;
        json_object_set_new(object, choice ? "alternatives" : "options",
                            options_json(row->nested, row->n_nested, row_size, choice));
    }
    return object;
}

static json_t *summary_json(const struct tiered_loaded *loaded)
{
    const struct tiered_plugin *plugin = &loaded->plugin;
    char hex[65];
    json_t *traits = json_array();
    each_trait(plugin->traits, add_name, traits);
    tiered_digest_hex(&loaded->digest, hex);
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:s}", "name", plugin->name,
                     "kind", tiered_kind_name(plugin->kind), "version", plugin->version,
                     "summary", plugin->summary, "traits", traits, "file", loaded->path,
                     "sha256", hex);
}

static json_t *whole_json(const struct tiered_loaded *loaded)
{
    const struct tiered_plugin *plugin = &loaded->plugin;
    json_t *object = summary_json(loaded);
    if (plugin->kind == TIERED_AGGREGATOR) {
        const struct tiered_aggregator_ops *ops = plugin->ops;
        json_t *roles = json_array();
        each_role(ops->acts_on, add_name, roles);
        json_object_set_new(object, "needs", json_string(needs_names[ops->needs]));
        json_object_set_new(object, "acts_on", roles);
    }
    json_object_set_new(
        object, "options",
        options_json(plugin->options, plugin->n_options, plugin->option_size, false));
    return object;
}

/* Prints and releases. NULL: out of memory, or a plugin's text is not UTF-8. */
static int print_json(json_t *value)
{
    if (!value ||
        json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) < 0) {
        struct tiered_error err;
        json_decref(value);
        tiered_fail(&err, TIERED_EINVAL, "what the plugin says is not UTF-8 text");
        return cmd_error(&err);
    }
    putchar('\n');
    json_decref(value);
    return EXIT_DONE;
}

static int list(struct tiered_plugins *plugins, bool json)
{
    struct tiered_error err;
    const struct tiered_loaded *const *all;
    size_t n;
    if (tiered_plugins_all(plugins, &all, &n, cmd_warn_refused, NULL, &err) < 0) {
        return cmd_error(&err);
    }
    if (json) {
        json_t *array = json_array();
        for (size_t i = 0; i < n; i++) {
            json_array_append_new(array, summary_json(all[i]));
        }
        return print_json(array);
    }
    struct table table;
    table_init(&table, 4);
    table_row(&table, "NAME", "KIND", "VERSION", "SUMMARY");
    for (size_t i = 0; i < n; i++) {
        const struct tiered_plugin *plugin = &all[i]->plugin;
        table_row(&table, plugin->name, tiered_kind_name(plugin->kind), plugin->version,
                  plugin->summary);
    }
    table_print(&table, stdout);
    table_finish(&table);
    return EXIT_DONE;
}

static void add_options(struct table *table, const struct tiered_option *rows, size_t n,
                        size_t row_size, const char *prefix, bool alternatives)
{
    for (size_t i = 0; i < n; i++) {
        struct tiered_option row = tiered_option_row(rows, row_size, i);
        char name[256], inner[256], type[200] = "alternative";
        const char *fallback = row.flags & TIERED_REQUIRED ? "required" : row.fallback;
        snprintf(name, sizeof(name), "%s%s", prefix, row.name);
        snprintf(inner, sizeof(inner), "%.254s.", name);
        if (!alternatives) {
            tiered_option_type_text(&row, row_size, type, sizeof(type));
        }
        table_row(table, name, type, fallback && !alternatives ? fallback : "-",
                  row.unit ? row.unit : "-", row.help ? row.help : "");
        add_options(table, row.nested, row.n_nested, row_size, inner,
                    !alternatives && row.type == TIERED_CHOICE);
    }
}

static void print_aggregator(const struct tiered_aggregator_ops *ops)
{
    bool any = false;
    printf("needs:    %s\nacts on:  ", needs_names[ops->needs]);
    each_role(ops->acts_on, print_name, &any);
    puts(any ? "" : "nothing");
}

static void print_whole(const struct tiered_loaded *loaded)
{
    const struct tiered_plugin *plugin = &loaded->plugin;
    char hex[65];
    bool any = false;
    tiered_digest_hex(&loaded->digest, hex);
    printf("name:     %s\nkind:     %s\nversion:  %s\nsummary:  %s\ntraits:   ",
           plugin->name, tiered_kind_name(plugin->kind), plugin->version,
           plugin->summary);
    each_trait(plugin->traits, print_name, &any);
    puts(any ? "" : "none");
    if (plugin->kind == TIERED_AGGREGATOR) {
        print_aggregator(plugin->ops);
    }
    printf("file:     %s\nsha256:   %s\n", loaded->path, hex);
    if (plugin->n_options == 0) {
        puts("options:  none");
        return;
    }
    struct table table;
    putchar('\n');
    table_init(&table, 5);
    table_row(&table, "OPTION", "TYPE", "DEFAULT", "UNIT", "HELP");
    add_options(&table, plugin->options, plugin->n_options, plugin->option_size, "",
                false);
    table_print(&table, stdout);
    table_finish(&table);
}

static int show(struct tiered_plugins *plugins, const char *name, bool json)
{
    struct tiered_error err;
    const struct tiered_loaded *loaded;
    if (tiered_plugins_get(plugins, name, 0, &loaded, &err) < 0) {
        return cmd_error(&err);
    }
    if (json) {
        return print_json(whole_json(loaded));
    }
    print_whole(loaded);
    return EXIT_DONE;
}

enum verb {
    LIST,
    SHOW,
    CHECK,
    N_VERBS,
};
static const char *const verbs[N_VERBS] = {"list", "show", "check"};

/* N_VERBS: not one, and *ret_code is the exit code. */
static enum verb find_verb(const struct tiered_command *self, int argc, char **argv,
                           int *ret_code)
{
    static const char *const needs[N_VERBS] = {NULL, "the name of a plugin",
                                               "a plugin's file"};
    enum verb verb = LIST;
    while (argc > 0 && verb < N_VERBS && strcmp(argv[0], verbs[verb]) != 0) {
        verb++;
    }
    if (argc < 1) {
        *ret_code = cmd_usage(self, "say 'list', 'show NAME' or 'check FILE'");
    } else if (verb == N_VERBS) {
        const char *near = tiered_nearest(argv[0], verbs, N_VERBS);
        *ret_code = near ? cmd_usage(self, "unknown verb '%s'; did you mean '%s'?",
                                     argv[0], near)
                         : cmd_usage(self, "unknown verb '%s'", argv[0]);
    } else if (argc < 1 + (verb != LIST)) {
        *ret_code = cmd_usage(self, "'%s' needs %s", verbs[verb], needs[verb]);
    } else if (argc > 1 + (verb != LIST)) {
        *ret_code =
            cmd_usage(self, "unexpected argument '%s'", argv[1 + (verb != LIST)]);
    } else {
        return verb;
    }
    return N_VERBS;
}

static int run_verb(const struct tiered_command *self, const struct flags *flags,
                    int argc, char **argv)
{
    int code = EXIT_DONE;
    enum verb verb = find_verb(self, argc, argv, &code);
    if (verb == N_VERBS) {
        return code;
    }
    if (verb == CHECK) {
        return check_command(argv[1], flags->options, flags->limit_ms, flags->json);
    }
    struct tiered_error err;
    TIERED_CLEANUP(tiered_plugins_destroyp)
    struct tiered_plugins *plugins = tiered_plugins_create(flags->folder, &err);
    if (!plugins) {
        return cmd_error(&err);
    }
    return verb == LIST ? list(plugins, flags->json)
                        : show(plugins, argv[1], flags->json);
}

static int run(const struct tiered_command *self, int argc, char **argv)
{
    static const struct option long_flags[] = {
        {"plugins", required_argument, NULL, 'p'},
        {"json", no_argument, NULL, 'j'},
        {"options", required_argument, NULL, 'o'},
        {"limit", required_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct flags flags = {.limit_ms = 30000};
    int flag;
    while ((flag = getopt_long(argc, argv, ":h", long_flags, NULL)) != -1) {
        switch (flag) {
        case 'p':
            flags.folder = optarg;
            break;
        case 'j':
            flags.json = true;
            break;
        case 'o':
            flags.options = optarg;
            break;
        case 'l':
            if (!tiered_parse_duration(optarg, &flags.limit_ms)) {
                return cmd_usage(self, "'--limit %s' is not a duration such as 30s",
                                 optarg);
            }
            break;
        case 'h':
            return cmd_help(self);
        default:
            return cmd_bad_flag(self, flag, argv);
        }
    }
    return run_verb(self, &flags, argc - optind, argv + optind);
}

const struct tiered_command cmd_plugins = {
    .name = "plugins",
    .summary = "list the plugins, show what one offers, or check one",
    .help =
        "usage: tiered plugins list [--plugins DIR] [--json]\n"
        "       tiered plugins show NAME [--plugins DIR] [--json]\n"
        "       tiered plugins check FILE.so [--options 'KEY=VALUE,...'] [--limit "
        "TIME]\n"
        "                            [--json]\n"
        "\n"
        "list prints every plugin with its kind, version and meaning. Files that are\n"
        "refused are named on stderr, with the reason.\n"
        "show prints all that a plugin says of itself: traits, file, SHA-256, and its\n"
        "options with type, default, unit and help; nested ones have dotted names.\n"
        "check runs the conformance kit on one file: descriptor, options, leaks and "
        "what\n"
        "its kind promises, a line a check. Each runs in a process of its own, so that "
        "a\n"
        "crash or a hang is a failed check. Exit code 1 if any failed.\n"
        "\n"
        "  --plugins DIR  the folder of plugins; otherwise TIERED_PLUGINS, otherwise\n"
        "                 lib/tiered beside the program\n"
        "  --options O    check with these options; needed where one that is required\n"
        "                 is a text (--options 'data=train.csv'); required numbers "
        "are\n"
        "                 chosen within their range otherwise\n"
        "  --limit TIME   the longest that one check may take (30s)\n"
        "  --json         print JSON\n"
        "  -h, --help     print this text\n",
    .run = run,
};
