/* SPDX-License-Identifier: Apache-2.0 */
/* Option rows: configs filled from values, every complaint, and the command line. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/options/options.h"

struct config {
    double beta;
    int64_t trim;
    bool trim_given;
    bool on;
    const char *label, *shard;
    uint64_t timeout, room;
    int32_t partition;
    double alpha;
    int64_t shards;
    bool adaptive;
    double quantile, rate;
    struct tiered_integers hidden;
    struct tiered_strings command, env;
};

static const struct tiered_option dirichlet[] = {
    TIERED_OPTION_DOUBLE(struct config, alpha, NULL, 0, INFINITY, "concentration",
                         .flags = TIERED_EXCLUSIVE_MIN | TIERED_REQUIRED),
};
static const struct tiered_option shards[] = {
    TIERED_OPTION_INTEGER(struct config, shards, "2", 1, 1000, "shards a node"),
};
static const struct tiered_option partitions[] = {
    {.name = "iid", .help = "shuffled"},
    {.name = "shards", .help = "sorted and cut", .nested = shards, .n_nested = 1},
    {.name = "dirichlet", .help = "shares", .nested = dirichlet, .n_nested = 1},
};
static const struct tiered_option adaptive[] = {
    TIERED_OPTION_DOUBLE(struct config, quantile, "0.5", 0, 1, "share not clipped"),
    TIERED_OPTION_DOUBLE(struct config, rate, NULL, 0, 0, "of learning",
                         .flags = TIERED_REQUIRED),
};

#define PLACED(type_, member)                                                          \
    .name = #member, .type = (type_), .offset = offsetof(struct config, member)

static const struct tiered_option rows[] = {
    TIERED_OPTION_DOUBLE(struct config, beta, "0.2", 0, 0.5, "share cut a side",
                         .flags = TIERED_EXCLUSIVE_MAX),
    TIERED_OPTION_INTEGER(struct config, trim, NULL, 1, 100, "count cut a side",
                          .given_offset = offsetof(struct config, trim_given)),
    TIERED_OPTION_BOOLEAN(struct config, on, "true", "whether at all"),
    TIERED_OPTION_STRING(struct config, label, NULL, "a column"),
    TIERED_OPTION_STRING(struct config, shard, "{index}/{count}", "which part"),
    {PLACED(TIERED_DURATION, timeout), .fallback = "30s", .help = "longest wait"},
    {PLACED(TIERED_BYTES, room), .fallback = "64KiB", .help = "a buffer"},
    TIERED_OPTION_CHOICE(struct config, partition, "iid", partitions, "who gets what"),
    {PLACED(TIERED_SECTION, adaptive), .help = "follow", .nested = adaptive,
     .n_nested = 2},
    {PLACED(TIERED_INTEGERS, hidden), .fallback = "[128, 64]", .min = 1, .max = 65536,
     .help = "widths"},
    {PLACED(TIERED_STRINGS, command), .help = "what to start"},
    {PLACED(TIERED_PAIRS, env), .help = "its environment"},
};

struct fixture {
    struct tiered_document *document;
    struct tiered_diagnostics diag;
    struct tiered_config config;
    const struct config *c;
    int result;
};

/* `text`: the YAML of the options. */
static void fill_with(struct fixture *f, const char *text,
                      const struct tiered_expander *expander)
{
    memset(f, 0, sizeof(*f));
    f->document = tiered_document_parse("t.yaml", text, strlen(text), &f->diag);
    assert_non_null(f->document);
    struct tiered_mark mark = {"t.yaml", 1, 1};
    f->result = tiered_config_fill(rows, TIERED_COUNT(rows), sizeof(rows[0]),
                                   sizeof(struct config), "aggregator 'good'",
                                   tiered_document_root(f->document), mark, expander,
                                   &f->config, &f->diag);
    f->c = f->config.data;
}

static void drop(struct fixture *f)
{
    tiered_config_finish(&f->config);
    tiered_diag_finish(&f->diag);
    tiered_document_destroy(f->document);
}

static void test_defaults(void **state)
{
    (void)state;
    struct fixture f;
    fill_with(&f, "{}", NULL);
    assert_int_equal(f.result, 0);
    assert_true(f.c->beta == 0.2);
    assert_int_equal(f.c->trim, 0);
    assert_false(f.c->trim_given);
    assert_true(f.c->on);
    assert_null(f.c->label);
    assert_string_equal(f.c->shard, "{index}/{count}");
    assert_int_equal(f.c->timeout, 30000);
    assert_int_equal(f.c->room, 65536);
    assert_int_equal(f.c->partition, 0);
    assert_int_equal(f.c->shards, 2);
    assert_true(f.c->quantile == 0.5);
    assert_false(f.c->adaptive);
    assert_int_equal(f.c->hidden.n, 2);
    assert_int_equal(f.c->hidden.items[1], 64);
    assert_int_equal(f.c->command.n, 0);
    drop(&f);
}

static void test_everything(void **state)
{
    (void)state;
    struct fixture f;
    fill_with(&f,
              "beta: 1e-1\n"
              "trim: 1e1\n"
              "on: false\n"
              "label: 17\n"
              "shard: 0/2\n"
              "timeout: 1.5s\n"
              "room: \"1MiB\"\n"
              "partition: {dirichlet: {alpha: 0.5}}\n"
              "adaptive: {rate: -2}\n"
              "hidden: []\n"
              "command: [python, train.py, 3]\n"
              "env: {A: 1, B: two}\n",
              NULL);
    assert_int_equal(f.result, 0);
    assert_true(f.c->beta == 0.1);
    assert_int_equal(f.c->trim, 10);
    assert_true(f.c->trim_given);
    assert_false(f.c->on);
    assert_string_equal(f.c->label, "17");
    assert_string_equal(f.c->shard, "0/2");
    assert_int_equal(f.c->timeout, 1500);
    assert_int_equal(f.c->room, 1 << 20);
    assert_int_equal(f.c->partition, 2);
    assert_true(f.c->alpha == 0.5);
    assert_true(f.c->adaptive);
    assert_true(f.c->quantile == 0.5);
    assert_true(f.c->rate == -2);
    assert_int_equal(f.c->hidden.n, 0);
    assert_int_equal(f.c->command.n, 3);
    assert_string_equal(f.c->command.items[2], "3");
    assert_int_equal(f.c->env.n, 2);
    assert_string_equal(f.c->env.items[0], "A=1");
    assert_string_equal(f.c->env.items[1], "B=two");
    drop(&f);
    fill_with(&f, "partition: shards\nbeta: ~\n", NULL);
    assert_int_equal(f.result, 0);
    assert_int_equal(f.c->partition, 1);
    assert_true(f.c->beta == 0.2); /* null: not written */
    drop(&f);
}

#define OF "aggregator 'good': option "

static void test_complaints(void **state)
{
    (void)state;
    static const struct {
        const char *yaml;
        uint32_t line, column;
        const char *text;
    } cases[] = {
        {"beta: 0.7", 1, 7, OF "'beta' must be a number in [0, 0.5), not '0.7'"},
        {"beta: 0.5", 1, 7, OF "'beta' must be a number in [0, 0.5), not '0.5'"},
        {"beta: -1e-9", 1, 7, OF "'beta' must be a number in [0, 0.5), not '-1e-9'"},
        {"beta: '0.1'", 1, 7,
         OF "'beta' must be a number in [0, 0.5), not the quoted string '0.1'"},
        {"beta: .nan", 1, 7, OF "'beta' must be a number in [0, 0.5), not '.nan'"},
        {"beta: nan", 1, 7, OF "'beta' must be a number in [0, 0.5), not 'nan'"},
        {"beta: 1e999", 1, 7, OF "'beta' must be a number in [0, 0.5), not '1e999'"},
        {"beta: 0x0", 1, 7, OF "'beta' must be a number in [0, 0.5), not '0x0'"},
        {"beta: [0.1]", 1, 7, OF "'beta' must be a number in [0, 0.5), not a list"},
        {"bta: 0.1", 1, 1,
         "unknown option 'bta' of aggregator 'good'; did you mean 'beta'?"},
        {"zzzzz: 0.1", 1, 1, "unknown option 'zzzzz' of aggregator 'good'"},
        {"trim: 1.5", 1, 7, OF "'trim' must be an integer in [1, 100], not '1.5'"},
        {"trim: 0", 1, 7, OF "'trim' must be an integer in [1, 100], not '0'"},
        {"trim: \"3\"", 1, 7,
         OF "'trim' must be an integer in [1, 100], not the quoted string '3'"},
        {"trim: 99999999999999999999", 1, 7,
         OF "'trim' must be an integer in [1, 100], not '99999999999999999999'"},
        {"trim: {a: 1}", 1, 7,
         OF "'trim' must be an integer in [1, 100], not a mapping"},
        {"on: yes", 1, 5, OF "'on' must be true or false, not 'yes'"},
        {"on: 'true'", 1, 5,
         OF "'on' must be true or false, not the quoted string 'true'"},
        {"label: [a]", 1, 8, OF "'label' must be a string, not a list"},
        {"timeout: 30", 1, 10, OF "'timeout' must be a duration such as 30s, not '30'"},
        {"room: 1Mb", 1, 7, OF "'room' must be a size such as 512MiB, not '1Mb'"},
        {"partition: irid", 1, 12,
         OF "'partition' must be one of iid, shards, dirichlet, not 'irid'; did you "
            "mean 'iid'?"},
        {"partition: random", 1, 12,
         OF "'partition' must be one of iid, shards, dirichlet, not 'random'"},
        {"partition: [iid]", 1, 12,
         OF "'partition' must be one of iid, shards, dirichlet, not a list"},
        {"partition: {iid: {}, shards: {}}", 1, 12,
         OF "'partition' must be one of iid, shards, dirichlet, not a mapping"},
        {"partition: dirichlet", 1, 12,
         "option 'partition.dirichlet.alpha' of aggregator 'good' is required"},
        {"partition: {dirichlet: {alpha: 0}}", 1, 32,
         OF "'partition.dirichlet.alpha' must be a number above 0, not '0'"},
        {"partition:\n  dirichlet:\n    alpa: 1\n    alpha: 1\n", 3, 5,
         "unknown option 'partition.dirichlet.alpa' of aggregator 'good'; did you mean "
         "'partition.dirichlet.alpha'?"},
        {"partition: {iid: {alpha: 1}}", 1, 19,
         "unknown option 'partition.iid.alpha' of aggregator 'good', which has none"},
        {"partition: {shards: 2}", 1, 21,
         "aggregator 'good': options of partition.shards must be written as a mapping, "
         "{name: value}"},
        {"adaptive: true", 1, 11,
         OF "'adaptive' must be a mapping of its own options, not 'true'"},
        {"adaptive: {}", 1, 11,
         "option 'adaptive.rate' of aggregator 'good' is required"},
        {"hidden: 128", 1, 9,
         OF "'hidden' must be a list of integers in [1, 65536], not '128'"},
        {"hidden: [128, 0]", 1, 15,
         OF "'hidden' must be a list of integers in [1, 65536], not '0'"},
        {"command: python", 1, 10,
         OF "'command' must be a list of strings, not 'python'"},
        {"command: [a, [b]]", 1, 14,
         OF "'command' must be a list of strings, not a list"},
        {"env: [A]", 1, 6, OF "'env' must be a mapping of strings, not a list"},
        {"env: {A: {}}", 1, 10, OF "'env' must be a mapping of strings, not a mapping"},
        {"[beta]", 1, 1,
         "aggregator 'good': options must be written as a mapping, {name: value}"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct fixture f;
        fill_with(&f, cases[i].yaml, NULL);
        assert_int_equal(f.result, -1);
        assert_null(f.config.data);
        assert_int_equal(f.diag.n, 1);
        assert_string_equal(f.diag.items[0].text, cases[i].text);
        assert_int_equal(f.diag.items[0].mark.line, cases[i].line);
        assert_int_equal(f.diag.items[0].mark.column, cases[i].column);
        drop(&f);
    }
}

static void test_all_complaints_at_once(void **state)
{
    (void)state;
    struct fixture f;
    fill_with(&f, "beta: 1\nbta: 2\ntrim: x\nadaptive: {rate: a, b: 1}\n", NULL);
    assert_int_equal(f.result, -1);
    assert_int_equal(f.diag.n_errors, 5);
    drop(&f);
}

static void test_long_text_is_cut(void **state)
{
    (void)state;
    char yaml[400] = "on: ";
    for (int i = 0; i < 79; i++) {
        strcat(yaml, "a");
    }
    strcat(yaml, "\xc3\xa4 and more"); /* the 80th byte begins a character of two */
    struct fixture f;
    fill_with(&f, yaml, NULL);
    char expected[200];
    snprintf(expected, sizeof(expected), OF "'on' must be true or false, not '%.79s…'",
             yaml + 4);
    assert_string_equal(f.diag.items[0].text, expected);
    drop(&f);
}

static void test_no_value(void **state)
{
    (void)state;
    static const struct tiered_option required[] = {
        TIERED_OPTION_DOUBLE(struct config, beta, NULL, 0, 0, "x",
                             .flags = TIERED_REQUIRED),
    };
    struct tiered_mark mark = {"t.yaml", 7, 3};
    struct tiered_config config;
    struct tiered_diagnostics diag = {0};
    assert_int_equal(tiered_config_fill(required, 1, sizeof(required[0]),
                                        sizeof(struct config), "aggregator 'clipping'",
                                        NULL, mark, NULL, &config, &diag),
                     -1);
    assert_string_equal(diag.items[0].text,
                        "option 'beta' of aggregator 'clipping' is required");
    assert_int_equal(diag.items[0].mark.line, 7);
    assert_int_equal(tiered_config_fill(NULL, 0, 0, 0, "aggregator 'median'", NULL,
                                        mark, NULL, &config, &diag),
                     0);
    tiered_config_finish(&config);
    tiered_config_finish(&config);
    tiered_config_finish(NULL);
    tiered_diag_finish(&diag);
}

static char *expand(void *opaque, const char *text, struct tiered_error *err)
{
    if (strstr(text, "{bad}")) {
        tiered_fail(err, TIERED_EINVAL, "unknown name '{bad}'");
        return NULL;
    }
    char *out = NULL;
    return asprintf(&out, "%s:%s", (const char *)opaque, text) < 0 ? NULL : out;
}

static void test_expander(void **state)
{
    (void)state;
    char prefix[] = "n";
    const struct tiered_expander expander = {expand, prefix};
    struct fixture f;
    fill_with(&f, "label: a\ncommand: [b]\nenv: {K: v}\n", &expander);
    assert_int_equal(f.result, 0);
    assert_string_equal(f.c->label, "n:a");
    assert_string_equal(f.c->shard, "n:{index}/{count}");
    assert_string_equal(f.c->command.items[0], "n:b");
    assert_string_equal(f.c->env.items[0], "K=n:v");
    drop(&f);
    fill_with(&f, "label: 'x{bad}'", &expander);
    assert_int_equal(f.result, -1);
    assert_string_equal(f.diag.items[0].text, OF "'label': unknown name '{bad}'");
    drop(&f);
}

static void test_integers(void **state)
{
    (void)state;
    struct whole {
        int64_t any;
    };
    static const struct tiered_option any[] = {
        TIERED_OPTION_INTEGER(struct whole, any, NULL, 0, 0, "x"),
    };
    static const struct {
        const char *text;
        bool ok;
        int64_t value;
    } cases[] = {
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"9007199254740992.0", true, 9007199254740992},
        {"9.1e15", false, 0},
        {"1e3", true, 1000},
        {"+5", true, 5},
        {"-0", true, 0},
        {"007", true, 7},
        {"1e", false, 0},
        {".", false, 0},
        {"-", false, 0},
        {"1_000", false, 0},
        {"0x10", false, 0},
        {" 1", true, 1}, /* YAML drops the space */
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct tiered_plugin plugin = {
            .kind = TIERED_TRAINER, .name = "p", TIERED_OPTIONS(any, struct whole)};
        struct tiered_config config;
        struct tiered_error err;
        char json[64], text[100];
        snprintf(json, sizeof(json), "{\"any\": %s}", cases[i].text);
        int result = tiered_config_from_json(&plugin, json, &config, &err);
        assert_int_equal(result, cases[i].ok ? 0 : -1);
        if (cases[i].ok) {
            assert_int_equal(((struct whole *)config.data)->any, cases[i].value);
        } else {
            snprintf(text, sizeof(text),
                     "trainer 'p': option 'any' must be an integer, not '%s'",
                     cases[i].text);
            assert_string_equal(err.text, text);
        }
        tiered_config_finish(&config);
    }
}

static void test_from_json(void **state)
{
    (void)state;
    struct tiered_plugin plugin = {
        .kind = TIERED_FILTER, .name = "f", TIERED_OPTIONS(rows, struct config)};
    struct tiered_config config;
    struct tiered_error err;
    assert_int_equal(tiered_config_from_json(&plugin, NULL, &config, &err), 0);
    tiered_config_finish(&config);
    assert_int_equal(tiered_config_from_json(&plugin, "", &config, &err), 0);
    tiered_config_finish(&config);
    assert_int_equal(tiered_config_from_json(
                         &plugin, "{\"label\":\"a\\\"b\",\"trim\":3}", &config, &err),
                     0);
    assert_string_equal(((struct config *)config.data)->label, "a\"b");
    tiered_config_finish(&config);
    assert_int_equal(tiered_config_from_json(&plugin, "{\"trim\":", &config, &err), -1);
    assert_int_equal(err.code, TIERED_EINVAL);
    assert_null(config.data);
    assert_int_equal(
        tiered_config_from_json(&plugin, "{\"trim\":\"3\"}", &config, &err), -1);
    assert_string_equal(err.text, "filter 'f': option 'trim' must be an integer in [1, "
                                  "100], not the quoted string '3'");
}

static void test_command_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"", "{}"},
        {"beta=0.2", "{\"beta\":0.2}"},
        {" beta = 0.2 , on=true", "{\"beta\":0.2,\"on\":true}"},
        {"beta=0.2,partition.dirichlet.alpha=1",
         "{\"beta\":0.2,\"partition\":{\"dirichlet\":{\"alpha\":1}}}"},
        {"a.b.c=1,d=2,a.b.e=x,a.f=3",
         "{\"a\":{\"b\":{\"c\":1,\"e\":\"x\"},\"f\":3},\"d\":2}"},
        {"hidden=[128,64],on=false", "{\"hidden\":[128,64],\"on\":false}"},
        {"env={A: 1, B: two},x=1", "{\"env\":{\"A\":1,\"B\":\"two\"},\"x\":1}"},
        {"label=\"3\"", "{\"label\":\"3\"}"},
        {"label='a,b',x=1", "{\"label\":\"a,b\",\"x\":1}"},
        {"shard={index}/{count}", "{\"shard\":\"{index}/{count}\"}"},
        {"data=/a b/c=d", "{\"data\":\"/a b/c=d\"}"},
        {"timeout=30s", "{\"timeout\":\"30s\"}"},
        {"label=it's,x=1", "{\"label\":\"it's\",\"x\":1}"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct tiered_error err = {0};
        char *json = tiered_options_parse(cases[i].text, &err);
        assert_string_equal(err.text, "");
        assert_string_equal(json, cases[i].json);
        free(json);
    }
}

static void test_command_line_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"beta", "option 'beta' needs a value: 'beta=…'"},
        {"on,beta=1", "option 'on' needs a value: 'on=…'"},
        {"beta=", "option 'beta' has no value after '='"},
        {"=1", "'' is not the name of an option"},
        {"beta=1,", "an option is missing beside a ','"},
        {",beta=1", "an option is missing beside a ','"},
        {"beta=\xdd", "the options are not UTF-8 text: byte 0xdd"},
        {"beta=\x01", "the options are not UTF-8 text: byte 0x01"},
        {"be ta=1", "'be ta' is not the name of an option"},
        {"a..b=1", "'a..b' is not the name of an option"},
        {"beta=1,beta=2", "option 'beta' is given twice"},
        {"a=1,a.b=2", "option 'a' is given twice"},
        {"a.b.c=2,a.b=1", "option 'a.b' is given twice"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct tiered_error err = {0};
        assert_null(tiered_options_parse(cases[i].text, &err));
        assert_string_equal(err.text, cases[i].why);
    }
    struct tiered_error err = {0};
    assert_null(tiered_options_parse("a=[1,{]}", &err)); /* closed, but wrongly */
    assert_memory_equal(err.text, "option 'a': ", 12);
    TIERED_FREE char *deep = calloc(1, 4000);
    for (int i = 0; i < 1000; i++) {
        strcat(deep, "a.");
    }
    strcat(deep, "b=1");
    assert_null(tiered_options_parse(deep, &err));
}

static void type_text(const struct tiered_option *row, const char *expected)
{
    char text[200];
    tiered_option_type_text(row, sizeof(*row), text, sizeof(text));
    assert_string_equal(text, expected);
}

static void test_type_text(void **state)
{
    (void)state;
    type_text(&rows[0], "number in [0, 0.5)");
    type_text(&rows[1], "integer in [1, 100]");
    type_text(&rows[2], "true or false");
    type_text(&rows[5], "duration");
    type_text(&rows[7], "one of iid, shards, dirichlet");
    type_text(&rows[9], "list of integers in [1, 65536]");
    type_text(&dirichlet[0], "number above 0");
    struct tiered_option row = {.type = TIERED_DOUBLE, .min = -INFINITY, .max = 0.001};
    type_text(&row, "number at most 0.001");
    row.min = row.max = 0;
    type_text(&row, "number");
    row.max = 9007199254740992.0;
    row.type = TIERED_INTEGER;
    type_text(&row, "integer in [0, 9007199254740992]");
    char tiny[4];
    tiered_option_type_text(&rows[7], sizeof(row), tiny, sizeof(tiny));
    assert_string_equal(tiny, "one");
}

/* Rows of an older, shorter kind: without given_offset. Its bytes are not read. */
static void test_short_rows(void **state)
{
    (void)state;
    enum { SHORT = offsetof(struct tiered_option, given_offset) };
    _Alignas(struct tiered_option) char table[2 * SHORT];
    memcpy(table, &rows[0], SHORT);
    memcpy(table + SHORT, &rows[1], SHORT);
    const struct tiered_option *shorter = (const struct tiered_option *)(void *)table;
    struct tiered_option row = tiered_option_row(shorter, SHORT, 1);
    assert_string_equal(row.name, "trim");
    assert_true(row.given_offset == TIERED_NO_OFFSET);
    assert_int_equal(
        tiered_option_rows_check(shorter, 2, SHORT, sizeof(struct config), NULL), 0);
}

static void test_rows_check(void **state)
{
    (void)state;
    static const struct tiered_option nested_boolean[] = {
        {.name = "b", .help = "x"},
    };
    static const struct {
        struct tiered_option row;
        const char *why;
    } cases[] = {
        {{.name = NULL, .help = "x"}, "an option has the name ''"},
        {{.name = "a.b", .help = "x"}, "an option has the name 'a.b'"},
        {{.name = "a"}, "option 'a' has no help"},
        {{.name = "a", .help = "x", .type = (enum tiered_option_type)99},
         "option 'a' is of the unknown type 99"},
        {{.name = "a", .help = "x", .type = TIERED_DOUBLE, .offset = 3},
         "option 'a' does not lie in the config of 32 bytes"},
        {{.name = "a", .help = "x", .type = TIERED_DOUBLE, .offset = 32},
         "option 'a' does not lie in the config of 32 bytes"},
        {{.name = "a", .help = "x", .type = TIERED_DOUBLE, .offset = SIZE_MAX - 7},
         "option 'a' does not lie in the config of 32 bytes"},
        {{.name = "a", .help = "x", .given_offset = 32},
         "option 'a': its 'given' does not lie in the config"},
        {{.name = "a", .help = "x", .min = 2, .max = 1},
         "option 'a' has an empty range"},
        {{.name = "a", .help = "x", .type = TIERED_CHOICE},
         "option 'a' names no alternatives or options of its own"},
        {{.name = "a", .help = "x", .nested = nested_boolean, .n_nested = 1},
         "option 'a' is of a type that has no nested options"},
        {{.name = "a", .help = "x", .type = TIERED_SECTION, .n_nested = 1},
         "it has 1 options but no table"},
    };
    struct tiered_error err;
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        assert_int_equal(tiered_option_rows_check(
                             &cases[i].row, 1, sizeof(struct tiered_option), 32, &err),
                         -1);
        assert_string_equal(err.text, cases[i].why);
    }
    const struct tiered_option twice[] = {{.name = "a", .help = "x"},
                                          {.name = "a", .help = "y"}};
    assert_int_equal(tiered_option_rows_check(twice, 2, sizeof(twice[0]), 32, &err),
                     -1);
    assert_string_equal(err.text, "option 'a' is there twice");
    assert_int_equal(tiered_option_rows_check(twice, 1, 16, 32, &err), -1);
    assert_string_equal(err.text, "its option rows have 16 bytes (80 are needed)");
    /* A section that contains itself has no end. */
    struct tiered_option loop = {
        .name = "a", .help = "x", .type = TIERED_SECTION, .n_nested = 1};
    loop.nested = &loop;
    assert_int_equal(tiered_option_rows_check(&loop, 1, sizeof(loop), 32, &err), -1);
    assert_string_equal(err.text, "option 'a' has too many nested options");
    assert_int_equal(tiered_option_rows_check(rows, TIERED_COUNT(rows), sizeof(rows[0]),
                                              sizeof(struct config), &err),
                     0);
}

/* A plugin whose own default is wrong: told at the place of the whole. */
static void test_bad_default(void **state)
{
    (void)state;
    static const struct tiered_option bad[] = {
        {PLACED(TIERED_INTEGERS, hidden), .fallback = "[0]", .min = 1, .max = 9,
         .help = "widths"},
        {PLACED(TIERED_STRINGS, command), .fallback = "[", .help = "words"},
        TIERED_OPTION_DOUBLE(struct config, beta, "x", 0, 0, "x"),
    };
    struct tiered_mark mark = {"t.yaml", 2, 4};
    struct tiered_config config;
    struct tiered_diagnostics diag = {0};
    assert_int_equal(tiered_config_fill(bad, 3, sizeof(bad[0]), sizeof(struct config),
                                        "aggregator 'bad'", NULL, mark, NULL, &config,
                                        &diag),
                     -1);
    assert_int_equal(diag.n_errors, 3);
    assert_string_equal(diag.items[0].text, "aggregator 'bad': option 'hidden' must be "
                                            "a list of integers in [1, 9], not '0'");
    for (size_t i = 0; i < diag.n; i++) {
        assert_string_equal(diag.items[i].mark.file, "t.yaml");
        assert_int_equal(diag.items[i].mark.line, 2);
    }
    tiered_diag_finish(&diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_complaints),
        cmocka_unit_test(test_all_complaints_at_once),
        cmocka_unit_test(test_long_text_is_cut),
        cmocka_unit_test(test_no_value),
        cmocka_unit_test(test_expander),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_from_json),
        cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_command_line_errors),
        cmocka_unit_test(test_type_text),
        cmocka_unit_test(test_short_rows),
        cmocka_unit_test(test_rows_check),
        cmocka_unit_test(test_bad_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
