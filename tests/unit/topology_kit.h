/* SPDX-License-Identifier: Apache-2.0 */
/* Topologies from text, over the built plugins and two test plugins. */
#ifndef TIERED_TESTS_TOPOLOGY_KIT_H
#define TIERED_TESTS_TOPOLOGY_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/plan/plan.h"

struct kit {
    char folder[64], file[96];
    struct tiered_plugins *plugins;
};

static struct kit kit;

static inline void kit_link(const char *variable, const char *name)
{
    char from[512], to[160];
    snprintf(from, sizeof(from), "%s/%s.so", getenv(variable), name);
    snprintf(to, sizeof(to), "%s/%s.so", kit.folder, name);
    if (symlink(from, to) < 0) {
        abort();
    }
}

static inline int kit_setup(void **state)
{
    static const char *const built[] = {
        "fedavg",           "median",  "trimmed-mean", "krum",    "bulyan",
        "geometric-median", "fedadam", "mlp",          "softmax", "unix"};
    (void)state;
    strcpy(kit.folder, "/tmp/tiered-test-XXXXXX");
    if (!mkdtemp(kit.folder)) {
        return -1;
    }
    snprintf(kit.file, sizeof(kit.file), "%s/t.yaml", kit.folder);
    for (size_t i = 0; i < TIERED_COUNT(built); i++) {
        kit_link("TIERED_PLUGINS", built[i]);
    }
    kit_link("TIERED_TEST_PLUGINS", "test-group");
    kit_link("TIERED_TEST_PLUGINS", "test-lossy");
    kit.plugins = tiered_plugins_create(kit.folder, NULL);
    return kit.plugins ? 0 : -1;
}

static inline int kit_teardown(void **state)
{
    char command[128];
    (void)state;
    tiered_plugins_destroy(kit.plugins);
    snprintf(command, sizeof(command), "rm -r '%s'", kit.folder);
    return system(command);
}

static inline void kit_write(const void *text, size_t size)
{
    FILE *f = fopen(kit.file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    fclose(f);
}

struct kit_result {
    struct tiered_topology *topology;
    struct tiered_plan *plan;
    struct tiered_diagnostics diag;
};

static inline void kit_finish(struct kit_result *r)
{
    tiered_plan_destroy(r->plan);
    tiered_topology_destroy(r->topology);
    tiered_diag_finish(&r->diag);
}

static inline void kit_load(const char *const *sets, size_t n_sets,
                            struct kit_result *ret)
{
    *ret = (struct kit_result){0};
    ret->topology =
        tiered_topology_load(kit.file, sets, n_sets, kit.plugins, &ret->diag, NULL);
    assert_true((ret->topology != NULL) == (ret->diag.n_errors == 0));
    if (ret->topology) {
        int result = tiered_plan_make(ret->topology, 1, &ret->plan, &ret->diag);
        assert_true((result == 0) == (ret->diag.n_errors == 0));
    }
}

/* "line:col: text" of every problem in the order of places, one a line; a warning
   begins with "warning: ". "ok" when there is none. malloc'd. */
static inline char *kit_problems(const struct kit_result *r)
{
    struct tiered_bytes out = {0};
    char *printed = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&printed, &size);
    assert_non_null(f);
    tiered_diag_print(&r->diag, NULL, 0, f);
    fclose(f);
    size_t skip = strlen(kit.file) + 1;
    for (char *line = strtok(printed, "\n"); line; line = strtok(NULL, "\n")) {
        bool here = strncmp(line, kit.file, skip - 1) == 0;
        char *place = here ? line + skip : line;
        char *error = strstr(place, " error: ");
        if (error) {
            memmove(error + 1, error + 8, strlen(error + 8) + 1);
        }
        tiered_bytes_printf(&out, "%s%s", out.size ? "\n" : "", place);
    }
    free(printed);
    return out.size ? (char *)out.data : strdup("ok");
}

static inline char *kit_problems_of(const char *text, const char *const *sets,
                                    size_t n_sets)
{
    struct kit_result r;
    kit_write(text, strlen(text));
    kit_load(sets, n_sets, &r);
    char *problems = kit_problems(&r);
    kit_finish(&r);
    return problems;
}

#endif
