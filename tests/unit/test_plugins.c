/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin loader over tests/plugins: what is accepted, and why the rest is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/plugins/hosting.h"
#include "core/plugins/plugins.h"
#include "tiered/aggregator.h"

static const char *built; /* the folder of the test plugins */
static char folder[64];   /* of this test alone */

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tiered-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -r '%s'", folder);
    return system(command);
}

static void copy_plugin(const char *from, const char *to, size_t n_bytes)
{
    struct tiered_bytes b = {0};
    char path[512];
    snprintf(path, sizeof(path), "%s/%s.so", built, from);
    assert_int_equal(tiered_file_read(path, 1 << 26, &b, NULL), 0);
    snprintf(path, sizeof(path), "%s/%s.so", folder, to);
    assert_int_equal(
        tiered_file_write(path, b.data, n_bytes < b.size ? n_bytes : b.size, NULL), 0);
    tiered_bytes_finish(&b);
}

static void write_plugin(const char *name, const void *data, size_t n)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s.so", folder, name);
    assert_int_equal(tiered_file_write(path, data, n, NULL), 0);
}

static void assert_refused(const char *path, const char *why)
{
    struct tiered_loaded loaded = {0};
    struct tiered_error err = {0};
    char expected[400];
    snprintf(expected, sizeof(expected), "plugin file '%s': %s", path, why);
    assert_int_equal(tiered_plugin_open(path, &loaded, &err), -1);
    assert_string_equal(err.text, expected);
    assert_null(loaded.path);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *name, *why;
    } cases[] = {
        {"wrong-abi", "is built for plugin ABI 7; this program has ABI 0"},
        {"short-struct", "its descriptor of 72 bytes is too short (80 are needed)"},
        {"lying-struct",
         "its descriptor of 1048576 bytes is larger than its symbol (80 are needed)"},
        {"cut-ops", "its ops (24 bytes) end before the op 'destroy'"},
        {"no-weigh", "lacks the op 'weigh'"},
        {"no-ops", "it has no ops"},
        {"wrong-kind", "its kind 42 is unknown"},
        {"bad-name", "its name 'Bad_Name' is not of the form [a-z0-9][a-z0-9-]{0,31}"},
        {"bad-row", "option 'beta' does not lie in the config of 8 bytes"},
        {"big-config", "its config of 65537 bytes is over the limit of 65536"},
        {"no-symbol", "has no symbol 'tiered_plugin': it is no Tiered plugin"},
        {"function-symbol", "its symbol 'tiered_plugin' is not a plugin descriptor"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s.so", built, cases[i].name);
        assert_refused(path, cases[i].why);
    }
}

static void test_not_elf(void **state)
{
    (void)state;
    char path[128], why[200];
    snprintf(path, sizeof(path), "%s/x.so", folder);
    write_plugin("x", "#!/bin/sh\necho hello\n", 21);
    assert_refused(path, "is not a shared object");
    write_plugin("x", "", 0);
    assert_refused(path, "is not a shared object");
    write_plugin("x", "\177ELF", 4);
    assert_refused(path, "is not a shared object");
    snprintf(path, sizeof(path), "%s/absent.so", folder);
    assert_refused(path, "cannot be opened: No such file or directory");
    snprintf(path, sizeof(path), "%s/folder.so", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_refused(path, "is not a shared object");
    snprintf(path, sizeof(path), "%s/pipe.so", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(path, "is not a shared object");

    struct tiered_loaded loaded;
    struct tiered_error err;
    snprintf(path, sizeof(path), "/proc/self/exe");
    if (tiered_plugin_open(path, &loaded, &err) == 0) {
        fail_msg("a program is no plugin");
    }
    snprintf(why, sizeof(why), "plugin file '%s': ", path);
    assert_memory_equal(err.text, why, strlen(why));
}

/* Cut at every size: always an error or, once all that is mapped is there, a plugin. */
static void test_truncated(void **state)
{
    (void)state;
    char path[128];
    struct stat whole;
    snprintf(path, sizeof(path), "%s/good.so", built);
    assert_int_equal(stat(path, &whole), 0);
    snprintf(path, sizeof(path), "%s/cut.so", folder);
    size_t n_refused = 0;
    for (size_t n = 0; n < (size_t)whole.st_size; n += 1 + n / 9) {
        struct tiered_loaded loaded;
        struct tiered_error err;
        copy_plugin("good", "cut", n);
        if (tiered_plugin_open(path, &loaded, &err) < 0) {
            n_refused++;
        } else {
            tiered_loaded_finish(&loaded);
        }
    }
    assert_true(n_refused > 20);
    copy_plugin("good", "cut", 100);
    assert_refused(path, "is truncated");
    copy_plugin("good", "cut", 2000);
    assert_refused(path, "is truncated");
}

static void test_shorter_and_longer(void **state)
{
    (void)state;
    static const char *const names[] = {"good", "long-struct", "long-ops", "short-ops"};
    for (size_t i = 0; i < TIERED_COUNT(names); i++) {
        char path[512];
        struct tiered_loaded loaded;
        struct tiered_error err = {0};
        snprintf(path, sizeof(path), "%s/%s.so", built, names[i]);
        assert_int_equal(tiered_plugin_open(path, &loaded, &err), 0);
        const struct tiered_aggregator_ops *ops = loaded.plugin.ops;
        assert_string_equal(loaded.plugin.name, names[i]);
        assert_string_equal(loaded.path, path);
        assert_non_null(ops->weigh);
        assert_null(ops->columns_f32); /* short-ops has one past its end */
        assert_null(ops->saved.save);
        assert_true(ops->size <= sizeof(*ops));
        assert_int_equal(TIERED_HAS(ops, saved), i != 3);
        tiered_loaded_finish(&loaded);
        assert_null(loaded.path);
    }
    tiered_loaded_finish(NULL);
}

static void test_digest(void **state)
{
    (void)state;
    struct tiered_error err;
    const struct tiered_loaded *loaded;
    struct tiered_digest digest, wrong = {{1}};
    struct tiered_bytes b = {0};
    char path[128], hex[65], expected[300];
    copy_plugin("good", "good", SIZE_MAX);
    snprintf(path, sizeof(path), "%s/good.so", folder);
    assert_int_equal(tiered_file_read(path, 1 << 26, &b, NULL), 0);
    tiered_digest_of(b.data, b.size, &digest);
    tiered_bytes_finish(&b);
    TIERED_CLEANUP(tiered_plugins_destroyp)
    struct tiered_plugins *plugins = tiered_plugins_create(folder, &err);
    assert_non_null(plugins);
    assert_int_equal(
        tiered_plugins_get_exact(plugins, "good", 0, &wrong, &loaded, &err), -1);
    assert_int_equal(err.code, TIERED_ECORRUPT);
    tiered_digest_hex(&digest, hex);
    snprintf(expected, sizeof(expected),
             "plugin file '%s': has SHA-256 %.16s…, but 0100000000000000… is expected",
             path, hex);
    assert_string_equal(err.text, expected);
    assert_int_equal(
        tiered_plugins_get_exact(plugins, "good", 0, &digest, &loaded, &err), 0);
    assert_true(tiered_digest_equal(&loaded->digest, &digest));
    assert_int_equal(
        tiered_plugins_get_exact(plugins, "good", 0, &wrong, &loaded, &err), -1);
    assert_int_equal(err.code, TIERED_ECORRUPT);
}

/* Two files one after the other under one name: each is what its bytes say, although
   the second one's descriptor may get the number of the first. */
static void test_replaced(void **state)
{
    (void)state;
    char path[128];
    struct tiered_loaded first, second, again;
    snprintf(path, sizeof(path), "%s/x.so", folder);
    copy_plugin("good", "x", SIZE_MAX);
    assert_int_equal(tiered_plugin_open(path, &first, NULL), 0);
    copy_plugin("long-ops", "x", SIZE_MAX);
    assert_int_equal(tiered_plugin_open(path, &second, NULL), 0);
    assert_int_equal(tiered_plugin_open(path, &again, NULL), 0);
    assert_string_equal(first.plugin.name, "good");
    assert_string_equal(second.plugin.name, "long-ops");
    assert_string_equal(again.plugin.name, "long-ops");
    assert_ptr_equal(second.plugin.options, again.plugin.options);
    assert_false(tiered_digest_equal(&first.digest, &second.digest));
    assert_true(tiered_digest_equal(&again.digest, &second.digest));
    tiered_loaded_finish(&first);
    tiered_loaded_finish(&second);
    tiered_loaded_finish(&again);
}

static void test_overwritten(void **state)
{
    (void)state;
    char path[128];
    struct tiered_loaded loaded;
    snprintf(path, sizeof(path), "%s/x.so", folder);
    copy_plugin("good", "x", SIZE_MAX);
    assert_int_equal(tiered_plugin_open(path, &loaded, NULL), 0);
    tiered_loaded_finish(&loaded);
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    fputs("more", file);
    assert_int_equal(fclose(file), 0);
    assert_refused(path, "was overwritten after it had been loaded; start again");
}

static void test_get(void **state)
{
    (void)state;
    struct tiered_error err;
    const struct tiered_loaded *loaded, *again;
    char text[300];
    copy_plugin("good", "good", SIZE_MAX);
    copy_plugin("other-name", "other-name", SIZE_MAX);
    TIERED_CLEANUP(tiered_plugins_destroyp)
    struct tiered_plugins *plugins = tiered_plugins_create(folder, &err);
    assert_non_null(plugins);
    assert_int_equal(
        tiered_plugins_get(plugins, "good", TIERED_AGGREGATOR, &loaded, &err), 0);
    assert_int_equal(tiered_plugins_get(plugins, "good", 0, &again, &err), 0);
    assert_ptr_equal(loaded, again);
    assert_int_equal(tiered_plugins_get(plugins, "good", TIERED_FILTER, &loaded, &err),
                     -1);
    assert_string_equal(err.text, "plugin 'good' is an aggregator, not a filter");
    assert_int_equal(err.code, TIERED_EINVAL);
    assert_int_equal(
        tiered_plugins_get(plugins, "goood", TIERED_AGGREGATOR, &loaded, &err), -1);
    assert_string_equal(err.text, "unknown aggregator 'goood'; did you mean 'good'?");
    assert_int_equal(err.code, TIERED_ENOENT);
    assert_int_equal(tiered_plugins_get(plugins, "kafkaa", 0, &loaded, &err), -1);
    assert_string_equal(err.text, "unknown plugin 'kafkaa'; did you mean 'kafka'?");
    assert_int_equal(tiered_plugins_get(plugins, "../good", 0, &loaded, &err), -1);
    assert_int_equal(err.code, TIERED_ENOENT);
    assert_int_equal(tiered_plugins_get(plugins, "wxyz", 0, &loaded, &err), -1);
    snprintf(text, sizeof(text), "unknown plugin 'wxyz'; none in '%s' is like it",
             folder);
    assert_string_equal(err.text, text);
    snprintf(text, sizeof(text), "%s/gone.so", folder);
    assert_int_equal(symlink("nowhere", text), 0);
    assert_int_equal(tiered_plugins_get(plugins, "gone", 0, &loaded, &err), -1);
    assert_non_null(
        strstr(err.text, "/gone.so' is a link to a file that is not there"));
    assert_int_equal(
        tiered_plugins_get(plugins, "mqtt", TIERED_TRANSPORT, &loaded, &err), -1);
    assert_string_equal(err.text, "plugin 'mqtt' is not in this version");
    assert_int_equal(err.code, TIERED_ENOTSUP);
    assert_int_equal(tiered_plugins_get(plugins, "other-name", 0, &loaded, &err), -1);
    snprintf(text, sizeof(text),
             "plugin file '%s/other-name.so': its plugin is called 'another', so the "
             "file should be 'another.so'",
             folder);
    assert_string_equal(err.text, text);
}

struct seen {
    size_t n;
    char names[32][64];
};

static void note(void *user, const char *path, const struct tiered_error *err)
{
    struct seen *seen = user;
    const char *slash = strrchr(path, '/');
    assert_non_null(strstr(err->text, path));
    snprintf(seen->names[seen->n++], sizeof(seen->names[0]), "%s", slash + 1);
}

static void test_all(void **state)
{
    (void)state;
    struct tiered_error err;
    struct seen seen = {0};
    const struct tiered_loaded *const *all;
    size_t n;
    copy_plugin("long-ops", "long-ops", SIZE_MAX);
    copy_plugin("good", "good", SIZE_MAX);
    copy_plugin("wrong-abi", "wrong-abi", SIZE_MAX);
    write_plugin("text", "hello", 5);
    char path[128];
    snprintf(path, sizeof(path), "%s/readme.txt", folder);
    assert_int_equal(tiered_file_write(path, "hello", 5, NULL), 0);
    TIERED_CLEANUP(tiered_plugins_destroyp)
    struct tiered_plugins *plugins = tiered_plugins_create(folder, &err);
    assert_int_equal(tiered_plugins_all(plugins, &all, &n, note, &seen, &err), 0);
    assert_int_equal(n, 2);
    assert_string_equal(all[0]->plugin.name, "good");
    assert_string_equal(all[1]->plugin.name, "long-ops");
    assert_int_equal(seen.n, 2);
    assert_string_equal(seen.names[0], "text.so");
    assert_string_equal(seen.names[1], "wrong-abi.so");
    assert_int_equal(tiered_plugins_all(plugins, &all, &n, NULL, NULL, &err), 0);
    assert_int_equal(n, 2);
    const struct tiered_loaded *loaded;
    assert_int_equal(tiered_plugins_get(plugins, "good", 0, &loaded, &err), 0);
    assert_ptr_equal(loaded, all[0]);
}

static void test_create(void **state)
{
    (void)state;
    struct tiered_error err;
    assert_null(tiered_plugins_create("/nowhere/at/all", &err));
    assert_string_equal(err.text, "there is no plugin folder '/nowhere/at/all'");
    assert_int_equal(err.code, TIERED_ENOENT);
    const char *before = getenv("TIERED_PLUGINS");
    TIERED_FREE char *kept = before ? strdup(before) : NULL;
    unsetenv(
        "TIERED_PLUGINS"); /* this program has no lib/tiered of its own beside it */
    struct tiered_plugins *plugins = tiered_plugins_create(NULL, &err);
    assert_true(plugins || err.code == TIERED_ENOENT);
    tiered_plugins_destroy(plugins);
    setenv("TIERED_PLUGINS", folder, 1);
    plugins = tiered_plugins_create(NULL, &err);
    assert_non_null(plugins);
    tiered_plugins_destroy(plugins);
    if (kept) {
        setenv("TIERED_PLUGINS", kept, 1);
    }
    tiered_plugins_destroy(NULL);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(tiered_kind_name(TIERED_AGGREGATOR), "aggregator");
    assert_string_equal(tiered_kind_name(TIERED_TRAINER), "trainer");
    assert_string_equal(tiered_trait_name(TIERED_NEEDS_SCAN), "needs_scan");
    assert_string_equal(tiered_trait_name(TIERED_ALLOWS_BAD_UPDATES),
                        "allows_bad_updates");
    assert_string_equal(tiered_trait_name(TIERED_CHANGES_ONLY), "changes_only");
    assert_null(tiered_trait_name(1u << 30));
}

static void test_hosting(void **state)
{
    (void)state;
    struct tiered_hosting hosting;
    struct tiered_error err;
    uint8_t seed[32], expected[32];
    tiered_hosting_init(&hosting, 7, "mlp", "edge", "edge-0", "3.2");
    const struct tiered_host *host = &hosting.host;
    assert_int_equal(host->size, sizeof(*host));
    assert_string_equal(host->node, "edge-0");
    assert_string_equal(host->path, "3.2");
    host->seed(host, "shuffle", seed);
    tiered_seed(7, "shuffle", "edge-0", "3.2", expected);
    assert_memory_equal(seed, expected, 32);
    host->seed(host, "run:partition", seed); /* alike on every node */
    tiered_seed(7, "run:partition", "", "", expected);
    assert_memory_equal(seed, expected, 32);
    memset(seed, 0, sizeof(seed));
    memset(expected, 0, sizeof(expected));
    assert_int_equal(host->secret(host, seed, sizeof(seed), &err), 0);
    assert_memory_not_equal(seed, expected, 32);
    host->progress(host, 0.25);
    assert_int_equal(hosting.progress_ppm, 250000);
    host->progress(host, 7);
    assert_int_equal(hosting.progress_ppm, 1000000);
    host->progress(host, 0.0 / 0.0);
    assert_int_equal(hosting.progress_ppm, 0);
    assert_false(host->cancelled(host));
    hosting.cancel = true;
    assert_true(host->cancelled(host));
    tiered_hosting_init(&hosting, 7, NULL, NULL, NULL, NULL);
    assert_string_equal(hosting.host.node, "");
    hosting.host.log(&hosting.host, TIERED_LOG_DEBUG, "not shown at this level");
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_shorter_and_longer),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_hosting),
        IN_FOLDER(test_not_elf),
        IN_FOLDER(test_truncated),
        IN_FOLDER(test_digest),
        IN_FOLDER(test_replaced),
        IN_FOLDER(test_overwritten),
        IN_FOLDER(test_get),
        IN_FOLDER(test_all),
        IN_FOLDER(test_create),
    };
    built = getenv("TIERED_TEST_PLUGINS");
    if (!built) {
        fputs("TIERED_TEST_PLUGINS must name the folder of built tests/plugins\n",
              stderr);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
