/* SPDX-License-Identifier: Apache-2.0 */
/* Digests, checksums, seeds, bytes, files, words, units and the log. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <dirent.h>
#include <jansson.h>

#include "core/base/base.h"
#include "core/base/log.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tiered-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    if (dir) {
        struct dirent *entry;
        while ((entry = readdir(dir))) {
            char inner[512];
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
                snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
                remove_tree(inner);
            }
        }
        closedir(dir);
    }
    remove(path);
}

static int drop_folder(void **state)
{
    (void)state;
    remove_tree(folder);
    return 0;
}

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void test_sha256(void **state)
{
    (void)state;
    struct tiered_digest d, again, parsed;
    char hex[65];
    tiered_digest_of("abc", 3, &d);
    tiered_digest_hex(&d, hex);
    assert_string_equal(
        hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct tiered_hash *hash = tiered_hash_create();
    assert_non_null(hash);
    tiered_hash_update(hash, "a", 1);
    tiered_hash_update(hash, "bc", 2);
    tiered_hash_final(hash, &again);
    tiered_hash_destroy(hash);
    assert_true(tiered_digest_equal(&d, &again));
    assert_true(tiered_digest_parse(hex, &parsed));
    assert_true(tiered_digest_equal(&d, &parsed));
    assert_false(tiered_digest_is_none(&d));
    memset(&d, 0, sizeof(d));
    assert_true(tiered_digest_is_none(&d));
    tiered_digest_of(NULL, 0, &d);
    tiered_digest_hex(&d, hex);
    assert_string_equal(
        hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    hex[63] = 'g';
    assert_false(tiered_digest_parse(hex, &parsed));
    hex[63] = 0;
    assert_false(tiered_digest_parse(hex, &parsed));
    tiered_hash_destroy(NULL);
}

/* The check value of the CRC catalogue and two vectors of RFC 3720, B.4. */
static void test_crc32c(void **state)
{
    (void)state;
    uint8_t bytes[1024];
    assert_int_equal(tiered_crc32c(0, "123456789", 9), 0xE3069283u);
    assert_int_equal(tiered_crc32c_portable(0, "123456789", 9), 0xE3069283u);
    memset(bytes, 0, 32);
    assert_int_equal(tiered_crc32c(0, bytes, 32), 0x8A9136AAu);
    memset(bytes, 0xFF, 32);
    assert_int_equal(tiered_crc32c_portable(0, bytes, 32), 0x62A8AB43u);
    assert_int_equal(tiered_crc32c(0, NULL, 0), 0);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 167 + i / 7);
    }
    for (size_t start = 0; start < 9; start++) {
        for (size_t n = 0; n < 300; n++) {
            assert_int_equal(tiered_crc32c(7, bytes + start, n),
                             tiered_crc32c_portable(7, bytes + start, n));
        }
    }
    assert_int_equal(
        tiered_crc32c(tiered_crc32c(0, bytes, 13), bytes + 13, sizeof(bytes) - 13),
        tiered_crc32c(0, bytes, sizeof(bytes)));
}

/* Lengths around those at which stretches are read side by side, and a large block. */
static void test_crc32c_of_much(void **state)
{
    (void)state;
    static const size_t lengths[] = {767,   768,   775,   1536,        2303,      24575,
                                     24576, 24577, 25343, 49152 + 768, (1u << 20)};
    size_t most = (1u << 20) + 8;
    uint8_t *bytes = malloc(most);
    assert_non_null(bytes);
    uint32_t x = 1;
    for (size_t i = 0; i < most; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(x >> 24);
    }
    for (size_t i = 0; i < TIERED_COUNT(lengths); i++) {
        for (size_t start = 0; start < 8; start++) {
            uint32_t whole = tiered_crc32c(7, bytes + start, lengths[i]);
            assert_int_equal(whole,
                             tiered_crc32c_portable(7, bytes + start, lengths[i]));
            size_t first = lengths[i] / 3 + start;
            uint32_t crc = tiered_crc32c(7, bytes + start, first);
            assert_int_equal(
                tiered_crc32c(crc, bytes + start + first, lengths[i] - first), whole);
        }
    }
    free(bytes);
}

/* Worked out with Python's hmac module: key 07 00 … 00, "shuffle\0edge-0\0" "3.2\0". */
static void test_seed(void **state)
{
    (void)state;
    uint8_t seed[32], other[32];
    struct tiered_digest d;
    char hex[65];
    tiered_seed(7, "shuffle", "edge-0", "3.2", seed);
    memcpy(d.bytes, seed, 32);
    tiered_digest_hex(&d, hex);
    assert_string_equal(
        hex, "b116ad1bfee917d54c006140cbb2d01035ba7d657b64300376f70729742a40e4");
    tiered_seed(7, "shuffle", "edge-0", "3.2", other);
    assert_memory_equal(seed, other, 32);
    tiered_seed(8, "shuffle", "edge-0", "3.2", other);
    assert_memory_not_equal(seed, other, 32);
    tiered_seed(7, "shuffle", "edge-03", ".2", other);
    assert_memory_not_equal(seed, other, 32);
    tiered_seed(7, "a", NULL, NULL, seed);
    tiered_seed(7, "a", "", "", other);
    assert_memory_equal(seed, other, 32);
}

static void test_secret(void **state)
{
    (void)state;
    uint8_t a[1000] = {0}, b[1000] = {0};
    assert_int_equal(tiered_secret(a, sizeof(a), NULL), 0);
    assert_int_equal(tiered_secret(b, sizeof(b), NULL), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_memory_not_equal(a + 968, b + 968, 32);
}

static void test_bytes(void **state)
{
    (void)state;
    struct tiered_bytes b = {0};
    assert_int_equal(tiered_bytes_append(&b, NULL, 0, NULL), 0);
    assert_string_equal((char *)b.data, "");
    for (int i = 0; i < 100; i++) {
        assert_int_equal(tiered_bytes_printf(&b, "%d,", i), 0);
    }
    assert_int_equal(tiered_bytes_append(&b, "end", 3, NULL), 0);
    assert_int_equal(b.size, 290 + 3);
    assert_int_equal(b.data[b.size], 0);
    assert_memory_equal(b.data, "0,1,2,3,", 8);
    assert_string_equal((char *)b.data + 287, "99,end");
    struct tiered_error err;
    assert_int_equal(tiered_bytes_append(&b, "x", SIZE_MAX, &err), -1);
    assert_int_equal(err.code, TIERED_ENOMEM);
    assert_int_equal(b.size, 293);
    tiered_bytes_finish(&b);
    assert_null(b.data);
    tiered_bytes_finish(NULL);
}

static void test_fail_at(void **state)
{
    (void)state;
    struct tiered_error err;
    char name[200];
    struct tiered_mark mark = {"city.yaml", 14, 7};
    assert_int_equal(tiered_fail_at(&err, TIERED_EINVAL, mark, "tier '%s'", "fog"), -1);
    assert_string_equal(err.file, "city.yaml");
    assert_int_equal(err.line, 14);
    assert_int_equal(err.column, 7);
    assert_string_equal(err.text, "tier 'fog'");
    memset(name, 'a', sizeof(name));
    strcpy(name + 190, "/end.yaml");
    mark.file = name;
    tiered_fail_at(&err, TIERED_EINVAL, mark, "x");
    assert_int_equal(strlen(err.file), 127);
    assert_string_equal(err.file + 118, "/end.yaml");
    assert_int_equal(tiered_fail_at(NULL, TIERED_EINVAL, mark, "x"), -1);
}

static size_t count_entries(void)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n - 2;
}

static void test_file(void **state)
{
    (void)state;
    struct tiered_bytes b = {0};
    struct tiered_error err;
    const char *path = in_folder("model");
    assert_int_equal(tiered_file_write(path, "first", 5, &err), 0);
    assert_int_equal(tiered_file_write(path, "second!", 7, &err), 0);
    assert_int_equal(count_entries(), 1); /* no temporary file stays */
    assert_int_equal(tiered_file_read(path, 7, &b, &err), 0);
    assert_int_equal(b.size, 7);
    assert_string_equal((char *)b.data, "second!");
    tiered_bytes_finish(&b);

    char text[300];
    assert_int_equal(tiered_file_read(path, 6, &b, &err), -1);
    snprintf(text, sizeof(text), "'%s' is larger than the limit of 6 bytes", path);
    assert_string_equal(err.text, text);
    assert_int_equal(err.code, TIERED_ENOMEM);
    assert_null(b.data);

    path = in_folder("absent");
    assert_int_equal(tiered_file_read(path, 6, &b, &err), -1);
    snprintf(text, sizeof(text), "cannot read '%s': No such file or directory", path);
    assert_string_equal(err.text, text);
    assert_int_equal(err.code, TIERED_ENOENT);
    assert_int_equal(tiered_file_read(folder, 6, &b, &err), -1);
    assert_int_equal(err.code, TIERED_EIO);
    assert_int_equal(tiered_file_write(in_folder("absent/x"), "", 0, &err), -1);
    assert_int_equal(err.code, TIERED_ENOENT);
    assert_int_equal(tiered_file_write(folder, "", 0, &err), -1);
    assert_int_equal(count_entries(), 1);
}

static void test_file_kinds(void **state)
{
    (void)state;
    struct tiered_bytes b = {0};
    struct stat info;
    char link[128], target[128];
    snprintf(link, sizeof(link), "%s/link", folder);
    snprintf(target, sizeof(target), "%s/target", folder);
    assert_int_equal(tiered_file_write_mode(target, 0600, "a", 1, NULL), 0);
    assert_int_equal(stat(target, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(symlink("target", link), 0);
    assert_int_equal(tiered_file_write(link, "through", 7, NULL), 0);
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(tiered_file_read(target, 100, &b, NULL), 0);
    assert_string_equal((char *)b.data, "through");
    tiered_bytes_finish(&b);
    assert_int_equal(tiered_file_write("/dev/null", "x", 1, NULL), 0);
    assert_int_equal(stat("/dev/null", &info), 0);
    assert_true(S_ISCHR(info.st_mode));
    struct tiered_error err;
    assert_int_equal(tiered_file_read("/dev/zero", 100000, &b, &err), -1);
    assert_int_equal(err.code, TIERED_ENOMEM);
}

/* A write that fails half way leaves the old file and nothing else. */
static void test_file_write_fails(void **state)
{
    (void)state;
    static uint8_t big[65536];
    struct rlimit before, small;
    struct tiered_error err;
    struct stat info;
    const char *path = in_folder("model");
    assert_int_equal(tiered_file_write(path, "old", 3, NULL), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1000;
    signal(SIGXFSZ, SIG_IGN); /* so that write(2) fails instead */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int result = tiered_file_write(path, big, sizeof(big), &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(result, -1);
    assert_int_equal(err.code, TIERED_EIO);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 3);
    assert_int_equal(count_entries(), 1);
}

static void test_mkdirs(void **state)
{
    (void)state;
    struct tiered_error err;
    struct stat info;
    assert_int_equal(tiered_mkdirs(in_folder("a/b//c/"), 0700, &err), 0);
    assert_int_equal(stat(in_folder("a/b/c"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_int_equal(tiered_mkdirs(in_folder("a/b/c"), 0700, &err), 0);
    assert_int_equal(tiered_file_write(in_folder("a/file"), "", 0, &err), 0);
    assert_int_equal(tiered_mkdirs(in_folder("a/file/x"), 0700, &err), -1);
    char text[300];
    snprintf(text, sizeof(text), "'%s' is not a folder", in_folder("a/file"));
    assert_string_equal(err.text, text);
    assert_int_equal(tiered_mkdirs("/", 0700, &err), 0);
    assert_int_equal(tiered_fsync_folder(in_folder("a"), &err), 0);
    assert_int_equal(tiered_fsync_folder(in_folder("zzz"), &err), -1);
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const names[] = {"fedavg", "fednova", "median", "trimmed-mean",
                                        "beta"};
    static const struct {
        const char *word, *nearest;
    } cases[] = {
        {"fedavgg", "fedavg"},
        {"fdeavg", "fedavg"}, /* a swap is one step */
        {"bta", "beta"},
        {"medain", "median"},
        {"trimmedmean", "trimmed-mean"},
        {"fednov", "fednova"},
        {"median", "median"},
        {"xyz", NULL},
        {"be", NULL}, /* a third of two letters is none */
        {"", NULL},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        const char *found = tiered_nearest(cases[i].word, names, TIERED_COUNT(names));
        if (cases[i].nearest) {
            assert_non_null(found);
            assert_string_equal(found, cases[i].nearest);
        } else {
            assert_null(found);
        }
    }
    char longest[5000];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    const char *const one[] = {longest};
    assert_null(tiered_nearest(longest, one, 1));
    assert_null(tiered_nearest("aaa", one, 1));
    assert_null(tiered_nearest("aaa", NULL, 0));
}

static void test_parse_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t value;
    } bytes[] = {{"512MiB", 536870912},  {"1GB", 1000000000}, {"64KiB", 65536},
                 {"100B", 100},          {"0B", 0},           {"1.5KiB", 1536},
                 {"2TB", 2000000000000}, {"0.001KB", 1}},
      times[] = {{"500ms", 500},  {"30s", 30000}, {"10m", 600000},
                 {"2h", 7200000}, {"1.5s", 1500}, {"0s", 0}};
    static const char *const bad_bytes[] = {
        "",     "12",         "MiB",    "-1MiB", "1 MiB", "1mib",
        "1.B",  ".5KiB",      "1.2.3B", "0.5B",  "1MiBx", "18446744073709551616B",
        "1e3B", "99999999TiB"};
    static const char *const bad_times[] = {
        "", "30", "s", "-5s", "5 s", "0.5ms", "5d", "18446744073709551615h"};
    uint64_t value;
    for (size_t i = 0; i < TIERED_COUNT(bytes); i++) {
        assert_true(tiered_parse_bytes(bytes[i].text, &value));
        assert_int_equal(value, bytes[i].value);
    }
    for (size_t i = 0; i < TIERED_COUNT(times); i++) {
        assert_true(tiered_parse_duration(times[i].text, &value));
        assert_int_equal(value, times[i].value);
    }
    value = 77;
    for (size_t i = 0; i < TIERED_COUNT(bad_bytes); i++) {
        assert_false(tiered_parse_bytes(bad_bytes[i], &value));
    }
    for (size_t i = 0; i < TIERED_COUNT(bad_times); i++) {
        assert_false(tiered_parse_duration(bad_times[i], &value));
    }
    assert_int_equal(value, 77);
}

static void test_format_units(void **state)
{
    (void)state;
    static const struct {
        uint64_t value;
        const char *text;
    } bytes[] = {{0, "0 B"},           {1023, "1023 B"},
                 {1024, "1.0 KiB"},    {39950746, "38.1 MiB"},
                 {1048575, "1.0 MiB"}, {UINT64_MAX, "16.0 EiB"}},
      times[] = {{0, "0ms"},         {999, "999ms"},      {12345, "12.3s"},
                 {125000, "2m 05s"}, {7260000, "2h 01m"}, {59999, "59.9s"}};
    char out[32];
    for (size_t i = 0; i < TIERED_COUNT(bytes); i++) {
        tiered_format_bytes(bytes[i].value, out);
        assert_string_equal(out, bytes[i].text);
    }
    for (size_t i = 0; i < TIERED_COUNT(times); i++) {
        tiered_format_duration(times[i].value, out);
        assert_string_equal(out, times[i].text);
    }
    tiered_format_duration(UINT64_MAX, out);
    assert_true(strlen(out) < 32);
}

static void test_checked(void **state)
{
    (void)state;
    uint64_t value = 5;
    assert_false(tiered_mul(UINT64_MAX, 2, &value));
    assert_false(tiered_add(UINT64_MAX, 1, &value));
    assert_true(tiered_mul(6, 7, &value));
    assert_int_equal(value, 42);
}

static int stderr_copy;

static void capture(void)
{
    int fd = open(in_folder("log"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    fflush(stderr);
    stderr_copy = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static struct tiered_bytes captured(void)
{
    struct tiered_bytes b = {0};
    dup2(stderr_copy, STDERR_FILENO);
    close(stderr_copy);
    assert_int_equal(tiered_file_read(in_folder("log"), 1 << 20, &b, NULL), 0);
    return b;
}

static void test_log_text(void **state)
{
    (void)state;
    struct tiered_log_context context = {"fog", "fog-1", "3.2"};
    tiered_log_set_name("agent-1");
    capture();
    tiered_log(TIERED_LOG_INFO, "round", &context, "closed with %d of %d", 3, 4);
    tiered_log(TIERED_LOG_DEBUG, "round", NULL, "not at this level");
    tiered_log(TIERED_LOG_WARN, "link", NULL, "line\nbreak \x1b[31m \xff");
    struct tiered_bytes b = captured();
    const char *expected =
        " agent-1 info round tier=fog node=fog-1 round=3.2: closed with 3 of 4\n";
    assert_int_equal(b.data[23], 'Z');
    assert_int_equal(b.data[10], 'T');
    assert_memory_equal(b.data + 24, expected, strlen(expected));
    const char *second = (char *)b.data + 24 + strlen(expected);
    assert_string_equal(second + 24, " agent-1 warn link: line?break ?[31m ?\n");
    tiered_bytes_finish(&b);
}

static void test_log_json(void **state)
{
    (void)state;
    struct tiered_log_context context = {"fog", "fog-1", NULL};
    char big[3000];
    memset(big, '\x01', sizeof(big) - 1); /* six bytes each once escaped */
    big[sizeof(big) - 1] = 0;
    tiered_log_set_json(true);
    capture();
    tiered_log(TIERED_LOG_ERROR, "spool", &context, "a \"quote\", \\, \xff and \n");
    tiered_log(TIERED_LOG_ERROR, "spool", NULL, "%s", big);
    tiered_log_set_json(false);
    struct tiered_bytes b = captured();
    char *end = strchr((char *)b.data, '\n');
    *end = 0;
    json_t *line = json_loads((char *)b.data, 0, NULL);
    assert_non_null(line);
    assert_string_equal(json_string_value(json_object_get(line, "level")), "error");
    assert_string_equal(json_string_value(json_object_get(line, "node")), "fog-1");
    assert_null(json_object_get(line, "round"));
    assert_string_equal(json_string_value(json_object_get(line, "text")),
                        "a \"quote\", \\, \xef\xbf\xbd and \n");
    json_decref(line);
    size_t n = strlen(end + 1);
    assert_true(n <= 4096 && n > 4000);
    assert_int_equal(end[n], '\n');
    line = json_loads(end + 1, 0, NULL);
    assert_non_null(line);
    json_decref(line);
    tiered_bytes_finish(&b);
}

static void test_log_level(void **state)
{
    (void)state;
    enum tiered_level level = TIERED_LOG_ERROR;
    assert_true(tiered_log_parse_level("debug", &level));
    assert_int_equal(level, TIERED_LOG_DEBUG);
    assert_false(tiered_log_parse_level("loud", &level));
    tiered_log_set_level(TIERED_LOG_ERROR);
    capture();
    tiered_log(TIERED_LOG_WARN, "x", NULL, "hidden");
    struct tiered_bytes b = captured();
    assert_int_equal(b.size, 0);
    tiered_bytes_finish(&b);
    tiered_log_set_level(TIERED_LOG_INFO);
}

/* A kept buffer serves the next of its size, cleared where that was asked for. */
static void test_map(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 5000, 300000, 3 << 20, 20 << 20};
    for (size_t i = 0; i < TIERED_COUNT(sizes); i++) {
        size_t n = sizes[i];
        uint8_t *one = tiered_map(n), *two = tiered_map_any(n), *again;
        assert_true(one && two && one != two && (uintptr_t)one % 4096 == 0);
        memset(one, 7, n);
        memset(two, 8, n);
        tiered_unmap(one, n);
        again = tiered_map(n);
        assert_true(again == one || n < 300000);
        assert_true(again[0] == 0 && again[n / 2] == 0 && again[n - 1] == 0);
        assert_true(two[0] == 8 && two[n - 1] == 8);
        tiered_map_cut(two, n, n / 3);
        assert_true(two[0] == 8 && two[n / 4] == 8);
        tiered_unmap(two, n / 3);
        tiered_unmap(again, n);
    }
    tiered_map_tidy(0);
    tiered_unmap(NULL, 5000);
    assert_null(tiered_map(SIZE_MAX));
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_crc32c),
        cmocka_unit_test(test_crc32c_of_much),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_secret),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_fail_at),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_parse_units),
        cmocka_unit_test(test_format_units),
        cmocka_unit_test(test_checked),
        cmocka_unit_test(test_map),
        IN_FOLDER(test_file),
        IN_FOLDER(test_file_kinds),
        IN_FOLDER(test_file_write_fails),
        IN_FOLDER(test_mkdirs),
        IN_FOLDER(test_log_text),
        IN_FOLDER(test_log_json),
        IN_FOLDER(test_log_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
