/* SPDX-License-Identifier: Apache-2.0 */
/* core/value: values and their places, the bounds, --set, JSON and how problems print.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/value/arena.h"
#include "core/value/value.h"

/* "line:col: text" of every problem, one a line. */
static char *problems(const char *text, size_t size)
{
    struct tiered_diagnostics diag = {0};
    struct tiered_bytes out = {0};
    struct tiered_document *document = tiered_document_parse("f", text, size, &diag);
    assert_true((document != NULL) == (diag.n_errors == 0));
    for (size_t i = 0; i < diag.n; i++) {
        tiered_bytes_printf(&out, "%s%u:%u: %s", i ? "\n" : "", diag.items[i].mark.line,
                            diag.items[i].mark.column, diag.items[i].text);
    }
    if (!diag.n) {
        tiered_bytes_printf(&out, "ok");
    }
    tiered_document_destroy(document);
    tiered_diag_finish(&diag);
    return (char *)out.data;
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"a: 1\n", "ok"},
        {"\xef\xbb\xbf"
         "a: 1\n",
         "ok"},
        {"", "1:1: the file is empty"},
        {"# only a comment\n", "1:1: the file is empty"},
        {"a: 1\n---\nb: 2\n", "2:1: a second document begins here; a file holds one"},
        {"a: 1\n...\n---\nb: 2\n",
         "3:1: a second document begins here; a file holds one"},
        {"a: 1\nb: 2\na: 3\n",
         "3:1: duplicate key 'a'; the first is in line 1, column 1"},
        {"x: {a: 1, a: 2, a: 3}\n",
         "1:11: duplicate key 'a'; the first is in line 1, column 5\n"
         "1:17: duplicate key 'a'; the first is in line 1, column 5"},
        {"a: !!str 1\n",
         "1:4: the tag '!!str' is not supported; write the value without it"},
        {"a: !x {}\nb: !y []\n",
         "1:4: the tag '!x' is not supported; write the value without it\n"
         "2:4: the tag '!y' is not supported; write the value without it"},
        {"a: &x {c: 1}\nb:\n  <<: *x\n",
         "3:3: merge keys (<<) are not supported; write the keys out"},
        {"a: *x\n", "1:4: no anchor '&x' stands before this alias"},
        {"a: &x [1, *x]\n", "1:11: the value of '&x' contains itself"},
        {"? [a]\n: 1\n", "1:3: a key must be a plain word or text"},
        {"a: [1, 2\n",
         "2:1: not valid YAML: did not find expected ',' or ']' while parsing a flow "
         "sequence that begins in line 1"},
        {"a: 1\n\tb: 2\n",
         "2:1: not valid YAML: found a tab character that violates indentation while "
         "scanning a plain scalar that begins in line 1"},
        {"a: \"x\\0y\"\n", "1:4: a text may not hold a NUL"},
        {"a: \xff\n", "1:4: not UTF-8 text: byte 0xff"},
        {"\xc3\xa9: 1\nb: \xc3\xa9 \xc0\xaf\n", "2:6: not UTF-8 text: byte 0xc0"},
        {"a: \xed\xa0\x80\n", "1:4: not UTF-8 text: byte 0xed"},
        {"a\r\nb\rc\x01", "3:2: not text: a control character (0x01)"},
    };
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        TIERED_FREE char *got = problems(rows[i].text, strlen(rows[i].text));
        assert_string_equal(got, rows[i].want);
    }
    TIERED_FREE char *nul = problems("a: 1\n\0b", 7);
    assert_string_equal(nul, "2:1: not text: a control character (0x00)");
    TIERED_FREE char *elf = problems("\x7f"
                                     "ELF\x02\x01",
                                     6);
    assert_string_equal(elf, "1:1: not text: a control character (0x7f)");
}

static char *repeat(const char *text, size_t n)
{
    struct tiered_bytes b = {0};
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(tiered_bytes_append(&b, text, strlen(text), NULL), 0);
    }
    return (char *)b.data;
}

static void test_bounds(void **state)
{
    (void)state;
    TIERED_FREE char *deep = repeat("[", 100000);
    TIERED_FREE char *got = problems(deep, strlen(deep));
    assert_string_equal(got, "1:65: nested more than 64 levels deep; that is the most");
    TIERED_FREE char *fits = repeat("[", 64);
    TIERED_FREE char *closed = repeat("]", 64);
    TIERED_FREE char *both = NULL;
    assert_true(asprintf(&both, "%s%s", fits, closed) > 0);
    TIERED_FREE char *ok = problems(both, strlen(both));
    assert_string_equal(ok, "ok");

    TIERED_FREE char *large = repeat("# 0123456789abcdef\n", 10u << 20 >> 4);
    TIERED_FREE char *too_large = problems(large, 10u << 20);
    assert_string_equal(too_large, "1:1: the file has 10.0 MiB; 4 MiB is the most");

    TIERED_FREE char *items = repeat("- 1\n", 1000001);
    TIERED_FREE char *too_many = problems(items, strlen(items));
    assert_string_equal(too_many, "1000000:3: more than 1000000 values, aliases "
                                  "expanded; that is the most a file may hold");
}

static void test_alias_bombs(void **state)
{
    (void)state;
    const char *wide = "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
                       "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                       "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
                       "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
                       "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
                       "f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
                       "g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    TIERED_FREE char *got = problems(wide, strlen(wide));
    assert_string_equal(got, "6:29: more than 1000000 values, aliases expanded; that "
                             "is the most a file may hold");
    struct tiered_bytes deep = {0};
    tiered_bytes_printf(&deep, "- &a0 [[[[[[[[[[1]]]]]]]]]]\n"); /* 10 levels */
    for (int i = 1; i < 10; i++) {
        tiered_bytes_printf(&deep, "- &a%d [[[[[[[[[*a%d]]]]]]]]]\n", i, i - 1);
    }
    TIERED_FREE char *text = (char *)deep.data;
    TIERED_FREE char *levels = problems(text, strlen(text));
    assert_string_equal(levels,
                        "7:16: nested more than 64 levels deep; that is the most");
}

static void test_places_and_kinds(void **state)
{
    (void)state;
    const char *text = "a: &x {k: [1, \"2\"]}\n"
                       "nothing:\n"
                       "\xc3\xa9t\xc3\xa9: {tilde: ~, word: null, text: 'null'}\n"
                       "again: *x\n";
    struct tiered_diagnostics diag = {0};
    TIERED_CLEANUP(tiered_document_destroyp)
    struct tiered_document *document =
        tiered_document_parse("f.yaml", text, strlen(text), &diag);
    assert_non_null(document);
    const struct tiered_value *root = tiered_document_root(document);
    assert_int_equal(root->kind, TIERED_MAPPING);
    assert_int_equal(root->n, 4);
    const struct tiered_value *a = tiered_value_get(root, "a");
    const struct tiered_value *k = tiered_value_get(a, "k");
    assert_int_equal(k->kind, TIERED_SEQUENCE);
    assert_int_equal(k->mark.line, 1);
    assert_int_equal(k->mark.column, 11);
    assert_string_equal(k->mark.file, "f.yaml");
    assert_false(k->items[0]->quoted);
    assert_true(k->items[1]->quoted);
    assert_ptr_equal(tiered_value_get(root, "again"), a);
    assert_int_equal(tiered_value_get(root, "nothing")->kind, TIERED_NULL);
    const struct tiered_value *summer = tiered_value_get(root, "\xc3\xa9t\xc3\xa9");
    assert_int_equal(tiered_value_get(summer, "tilde")->kind, TIERED_NULL);
    assert_int_equal(tiered_value_get(summer, "word")->kind, TIERED_NULL);
    assert_int_equal(tiered_value_get(summer, "text")->kind, TIERED_SCALAR);
    assert_int_equal(tiered_value_key(summer, "word")->mark.column, 17);
    assert_null(tiered_value_get(root, "absent"));
    assert_null(tiered_value_get(k, "a"));
    assert_null(tiered_value_get(NULL, "a"));
}

static void check_json(const char *yaml, const char *want)
{
    struct tiered_diagnostics diag = {0};
    TIERED_CLEANUP(tiered_document_destroyp)
    struct tiered_document *document =
        tiered_document_parse("f", yaml, strlen(yaml), &diag);
    assert_non_null(document);
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes out = {0};
    assert_int_equal(tiered_value_json(tiered_document_root(document), &out, NULL), 0);
    assert_string_equal((char *)out.data, want);
}

static void test_json(void **state)
{
    (void)state;
    check_json("{a: 1, b: \"1\", c: 0.10, d: -2e-3, e: true, f: 'true', g: ~, h: }",
               "{\"a\":1,\"b\":\"1\",\"c\":0.10,\"d\":-2e-3,\"e\":true,\"f\":\"true\","
               "\"g\":null,\"h\":null}");
    check_json("[.5, +3, 5., 007, 0x10, 30s, 50%, 1.2.3, \"q\\\"\\\\\\n\", \xc3\xa9]",
               "[0.5,3,5,\"007\",\"0x10\",\"30s\",\"50%\",\"1.2.3\","
               "\"q\\u0022\\u005c\\u000a\",\"\xc3\xa9\"]");
    /* What YAML would take for a line break, or refuse, when it reads the JSON. */
    check_json("[\"a\\Nb\\Lc\\Pd\\te\\uFEFFf\\x9Fg\\x7F\\U0001F600\"]",
               "[\"a\\u0085b\\u2028c\\u2029d\\u0009e\\ufefff\\u009fg\\u007f"
               "\xf0\x9f\x98\x80\"]");
    check_json("{a: [], b: {}, c: [[1], {x: [y]}]}",
               "{\"a\":[],\"b\":{},\"c\":[[1],{\"x\":[\"y\"]}]}");
}

static const char *const topology = "run: {rounds: 20}\n"
                                    "tiers:\n"
                                    "  - name: cloud\n"
                                    "    aggregate: [fedavg, {fedadam: {lr: 0.01}}]\n"
                                    "  - name: edge\n"
                                    "    trainer: mlp\n"
                                    "    uplink: [zstd, {qsgd: {levels: 7}}]\n"
                                    "nodes: {a.b: {memory: 1GB}, a: {host: h}}\n"
                                    "shared: &s {x: {y: 1}}\n"
                                    "also: *s\n";

/* The document's JSON after the assignment, or the error's text. */
static char *after_set(const char *assignment, const char *key)
{
    struct tiered_diagnostics diag = {0};
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_document_destroyp)
    struct tiered_document *document =
        tiered_document_parse("f", topology, strlen(topology), &diag);
    assert_non_null(document);
    if (tiered_document_set(document, assignment, &err) < 0) {
        return strdup(err.text);
    }
    struct tiered_bytes out = {0};
    const struct tiered_value *value =
        tiered_value_get(tiered_document_root(document), key);
    assert_int_equal(tiered_value_json(value, &out, NULL), 0);
    return (char *)out.data;
}

static void test_set(void **state)
{
    (void)state;
    static const struct {
        const char *assignment, *key, *want;
    } rows[] = {
        {"run.rounds=3", "run", "{\"rounds\":3}"},
        {"run.seed=", "run", "{\"rounds\":20,\"seed\":null}"},
        {"new.a.b=[1, x]", "new", "{\"a\":{\"b\":[1,\"x\"]}}"},
        {"tiers.edge.trainer.mlp.lr=0.1", "tiers",
         "[{\"name\":\"cloud\",\"aggregate\":[\"fedavg\",{\"fedadam\":{\"lr\":0.01}}]},"
         "{\"name\":\"edge\",\"trainer\":{\"mlp\":{\"lr\":0.1}},"
         "\"uplink\":[\"zstd\",{\"qsgd\":{\"levels\":7}}]}]"},
        {"tiers.edge.uplink.zstd.level=9", "tiers",
         "[{\"name\":\"cloud\",\"aggregate\":[\"fedavg\",{\"fedadam\":{\"lr\":0.01}}]},"
         "{\"name\":\"edge\",\"trainer\":\"mlp\","
         "\"uplink\":[{\"zstd\":{\"level\":9}},{\"qsgd\":{\"levels\":7}}]}]"},
        {"tiers.cloud.aggregate.fedadam.lr=1", "tiers",
         "[{\"name\":\"cloud\",\"aggregate\":[\"fedavg\",{\"fedadam\":{\"lr\":1}}]},"
         "{\"name\":\"edge\",\"trainer\":\"mlp\","
         "\"uplink\":[\"zstd\",{\"qsgd\":{\"levels\":7}}]}]"},
        {"nodes.a.b.memory=2GB", "nodes",
         "{\"a.b\":{\"memory\":\"2GB\"},\"a\":{\"host\":\"h\"}}"},
        {"also.x.y=2", "shared", "{\"x\":{\"y\":1}}"},
        {"also.x.y=2", "also", "{\"x\":{\"y\":2}}"},
        {"tiers.egde.fan_out=1", "",
         "'tiers.egde.fan_out': the list has no 'egde'; did you mean 'edge'?"},
        {"run.rounds.x=1", "", "'run.rounds.x': '20' has no 'x'"},
        {"run", "", "'run' is not KEY=VALUE"},
        {"run..x=1", "", "'run..x' is not a dotted key"},
        {"=1", "", "'' is not a dotted key"},
        {"run.\x9f=1", "", "the key is not UTF-8 text: byte 0x9f"},
        {"run.rounds=[1", "",
         "'run.rounds': not valid YAML: did not find expected ',' or ']' while parsing "
         "a flow sequence"},
    };
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        TIERED_FREE char *got = after_set(rows[i].assignment, rows[i].key);
        assert_string_equal(got, rows[i].want);
    }
}

static char *printed(const struct tiered_diagnostics *diag, const char *source)
{
    char *out = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&out, &size);
    assert_non_null(file);
    tiered_diag_print(diag, source, source ? strlen(source) : 0, file);
    fclose(file);
    return out;
}

static void test_print(void **state)
{
    (void)state;
    struct tiered_diagnostics diag = {0};
    const char *source = "one: 1\n\tt\xc3\xa9l: x\x01y\n";
    tiered_diag_warn(&diag, (struct tiered_mark){"f", 2, 5}, "second %d", 2);
    assert_int_equal(tiered_diag_error(&diag, (struct tiered_mark){"f", 1, 1}, "first"),
                     -1);
    tiered_diag_error(&diag, (struct tiered_mark){"--set a", 0, 0}, "no place");
    TIERED_FREE char *got = printed(&diag, source);
    assert_string_equal(got, "--set a: error: no place\n"
                             "f:1:1: error: first\n"
                             "  one: 1\n"
                             "  ^\n"
                             "f:2:5: warning: second 2\n"
                             "  \tt\xc3\xa9l: x?y\n"
                             "  \t   ^\n");
    assert_int_equal(diag.n_errors, 2);
    assert_int_equal(diag.n_warnings, 1);
    tiered_diag_finish(&diag);
}

static void test_print_bounds(void **state)
{
    (void)state;
    struct tiered_diagnostics diag = {0};
    TIERED_FREE char *line = repeat("0123456789", 100);
    tiered_diag_error(&diag, (struct tiered_mark){"f", 1, 501}, "far right");
    TIERED_FREE char *got = printed(&diag, line);
    /* From column 381: 160 characters, and the caret after 120. */
    char want[512];
    snprintf(want, sizeof(want), "f:1:501: error: far right\n  %.160s\n  %120s^\n",
             line, "");
    assert_string_equal(got, want);
    for (int i = 0; i < 150; i++) {
        tiered_diag_error(&diag, (struct tiered_mark){"f", 9, 1}, "number %d", i);
    }
    assert_int_equal(diag.n, 100);
    assert_int_equal(diag.n_errors, 151);
    TIERED_FREE char *many = printed(&diag, NULL);
    assert_non_null(strstr(many, "… and 51 more problems\n"));
    tiered_diag_finish(&diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),    cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_alias_bombs), cmocka_unit_test(test_places_and_kinds),
        cmocka_unit_test(test_json),        cmocka_unit_test(test_set),
        cmocka_unit_test(test_print),       cmocka_unit_test(test_print_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
