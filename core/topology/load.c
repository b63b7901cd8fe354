/* SPDX-License-Identifier: Apache-2.0 */
/* Loading: from the file's bytes to a checked topology. */
#include <ctype.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>

#include "core/plan/plan.h"
#include "core/topology/inside.h"

#define DEFAULT_ROUNDS 10

static int read_file(struct loader *l, const char *path, struct tiered_bytes *source)
{
    struct tiered_error err = {0};
    if (tiered_file_read(path, TIERED_MAX_DOCUMENT_BYTES, source, &err) == 0) {
        return 0;
    }
    if (err.code == TIERED_ENOMEM) {
        return tiered_diag_error(l->diag, (struct tiered_mark){path, 1, 1},
                                 "the file has more than %u MiB, which is the most",
                                 TIERED_MAX_DOCUMENT_BYTES >> 20);
    }
    return tiered_diag_error(l->diag, (struct tiered_mark){path, 0, 0}, "%s", err.text);
}

static int find_folder(struct tiered_topology *t, const char *path)
{
    TIERED_FREE char *copy = strdup(path);
    char folder[PATH_MAX];
    if (!copy || !realpath(dirname(copy), folder)) {
        return -1;
    }
    t->folder = tiered_arena_copy(&t->arena, folder, strlen(folder));
    t->file = tiered_arena_copy(&t->arena, path, strlen(path));
    return t->folder && t->file ? 0 : -1;
}

/* plant.yaml is called "plant" unless it says otherwise. */
static const char *name_of_file(struct tiered_topology *t)
{
    const char *slash = strrchr(t->file, '/');
    const char *base = slash ? slash + 1 : t->file;
    size_t n = strcspn(base, ".");
    n = n < TIERED_MAX_NODE_NAME ? n : TIERED_MAX_NODE_NAME;
    char *name = tiered_arena_copy(&t->arena, base, n);
    for (char *p = name; p && *p; p++) {
        *p = (char)tolower((unsigned char)*p);
        *p = isalnum((unsigned char)*p) && (unsigned char)*p < 128 ? *p : '-';
    }
    return name && tiered_name_ok(name) ? name : "run";
}

static void read_top(struct loader *l, const struct tiered_value *root,
                     struct top_keys *keys)
{
    struct tiered_topology *t = l->topology;
    keys->rounds = DEFAULT_ROUNDS;
    keys->every = 1;
    topology_section_read(l, "", tiered_top_rows, tiered_top_n_rows, 0, root, keys,
                          &keys->given);
    if (root->kind != TIERED_MAPPING) {
        if (root->kind == TIERED_NULL) {
            tiered_diag_error(l->diag, root->mark, "the file is empty");
        }
        return;
    }
    if (!keys->given.marks[TOP_TIERED].file) {
        tiered_diag_error(l->diag, root->mark,
                          "the format's version is missing: write 'tiered: 1' first");
    }
    keys->name = keys->name ? keys->name : name_of_file(t);
    t->tree = keys->tree && keys->tree->kind != TIERED_NULL ? keys->tree : NULL;
    topology_tiers_read(l, keys);
    topology_exceptions_read(l, keys->nodes);
    topology_run_read(l, keys);
}

/* The tree can be grown, whatever else is wrong. */
static bool tree_is_sound(const struct tiered_topology *t)
{
    for (size_t i = 0; i < t->n_tiers; i++) {
        const struct tiered_tier *tier = &t->tiers[i].tier;
        if (!*tier->name || (!t->tree && i && !tier->fan_out)) {
            return false;
        }
    }
    return t->n_tiers > 0;
}

static void report_nodes(const struct tiered_topology *t,
                         struct tiered_diagnostics *diag)
{
    struct tiered_plan *plan = NULL;
    if (tree_is_sound(t) && tiered_plan_make(t, 1, &plan, diag) == 0) {
        tiered_plan_destroy(plan);
    }
}

static void load(struct loader *l, const char *path, const char *const *sets,
                 size_t n_sets, struct tiered_bytes *source)
{
    struct tiered_topology *t = l->topology;
    struct tiered_error err = {0};
    if (read_file(l, path, source) < 0) {
        return;
    }
    if (find_folder(t, path) < 0) {
        tiered_diag_error(l->diag, (struct tiered_mark){path, 0, 0},
                          "cannot find the file's folder");
        return;
    }
    t->document = tiered_document_parse(path, source->data, source->size, l->diag);
    if (!t->document) {
        return;
    }
    for (size_t i = 0; i < n_sets; i++) {
        if (tiered_document_set(t->document, sets[i], &err) < 0) {
            tiered_diag_error(l->diag, (struct tiered_mark){"--set", 0, 0}, "%s",
                              err.text);
        }
    }
    TIERED_FREE struct top_keys *keys = calloc(1, sizeof(*keys));
    if (!keys) {
        tiered_diag_error(l->diag, (struct tiered_mark){path, 1, 1}, "out of memory");
        return;
    }
    topology_environment_expand(l, tiered_document_root(t->document));
    read_top(l, tiered_document_root(t->document), keys);
}

struct tiered_topology *tiered_topology_load(const char *path, const char *const *sets,
                                             size_t n_sets,
                                             struct tiered_plugins *plugins,
                                             struct tiered_diagnostics *diag,
                                             struct tiered_bytes *ret_source)
{
    size_t errors = diag->n_errors;
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes source = {0};
    TIERED_CLEANUP(tiered_topology_destroyp)
    struct tiered_topology *topology = calloc(1, sizeof(*topology));
    if (!topology) {
        tiered_diag_error(diag, (struct tiered_mark){path, 0, 0}, "out of memory");
        return NULL;
    }
    struct loader l = {topology, plugins, diag};
    load(&l, path, sets, n_sets, &source);
    if (ret_source) {
        *ret_source = source;
        source = (struct tiered_bytes){0};
    }
    if (diag->n_errors > errors) {
        report_nodes(topology, diag);
        return NULL;
    }
    return TIERED_STEAL(topology);
}

void tiered_topology_destroy(struct tiered_topology *topology)
{
    if (topology) {
        tiered_document_destroy(topology->document);
        tiered_arena_finish(&topology->arena);
        free(topology);
    }
}

const struct tiered_run_settings *
tiered_topology_run(const struct tiered_topology *topology)
{
    return &topology->run;
}

size_t tiered_topology_n_tiers(const struct tiered_topology *topology)
{
    return topology->n_tiers;
}

const struct tiered_tier *tiered_topology_tier(const struct tiered_topology *topology,
                                               size_t i)
{
    return &topology->tiers[i].tier;
}

const char *tiered_topology_folder(const struct tiered_topology *topology)
{
    return topology->folder;
}
