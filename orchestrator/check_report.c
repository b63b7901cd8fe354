/* SPDX-License-Identifier: Apache-2.0 */
/* What `tiered plugins check` says: a line as each check ends, and the sum of them. */
#include <stdio.h>
#include <string.h>

#include "orchestrator/check.h"
#include "orchestrator/cmd.h"

struct telling {
    json_t *list; /* NULL: lines on stdout */
};

static const char *const words[] = {
    [CHECK_OK] = "ok", [CHECK_FAILED] = "FAIL", [CHECK_SKIPPED] = "skip"};

/* A plugin's texts may be any bytes. */
static json_t *text_json(const char *text)
{
    json_t *value = json_string(text);
    return value ? value : json_string("(not UTF-8 text)");
}

static void tell(void *user, const struct check_result *result)
{
    const struct telling *telling = user;
    const char *word = words[result->verdict];
    if (telling->list) {
        json_array_append_new(
            telling->list,
            json_pack("{s:s, s:s, s:o, s:f}", "check", result->name, "result", word,
                      "reason", text_json(result->text), "seconds", result->seconds));
        return;
    }
    printf("%-4s  %s%s%s\n", word, result->name, result->text[0] ? ": " : "",
           result->text);
    fflush(stdout);
}

static void print_sum(const char *path, const struct check_summary *summary)
{
    const struct check_report *about = &summary->about;
    if (about->kind) {
        printf("\n%s '%s' %s", tiered_kind_name(about->kind), about->plugin,
               about->version);
    } else {
        printf("\n%s", path);
    }
    printf(": %zu ok, %zu failed, %zu skipped\n", summary->n_ok, summary->n_failed,
           summary->n_skipped);
}

static void print_json_sum(const char *path, const struct check_summary *summary,
                           json_t *list)
{
    const struct check_report *about = &summary->about;
    json_t *object = json_pack(
        "{s:o, s:b, s:I, s:I, s:I}", "file", text_json(path), "passed",
        summary->n_failed == 0, "ok", (json_int_t)summary->n_ok, "failed",
        (json_int_t)summary->n_failed, "skipped", (json_int_t)summary->n_skipped);
    if (about->kind) {
        char hex[65];
        tiered_digest_hex(&about->digest, hex);
        json_object_set_new(object, "name", text_json(about->plugin));
        json_object_set_new(object, "kind", json_string(tiered_kind_name(about->kind)));
        json_object_set_new(object, "version", text_json(about->version));
        json_object_set_new(object, "sha256", json_string(hex));
    }
    json_object_set(object, "checks", list);
    json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(object);
}

int check_command(const char *path, const char *options, uint64_t limit_ms, bool json)
{
    struct telling telling = {json ? json_array() : NULL};
    struct check_summary summary;
    struct tiered_error err = {0};
    const struct check_job job = {path, options, limit_ms, tell, &telling};
    int result = check_file(&job, &summary, &err);
    if (result == 0 && json) {
        print_json_sum(path, &summary, telling.list);
    } else if (result == 0) {
        print_sum(path, &summary);
    }
    json_decref(telling.list);
    return result < 0 ? cmd_error(&err) : summary.n_failed ? EXIT_FAILED : EXIT_DONE;
}
