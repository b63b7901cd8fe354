/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The plugin loader: finds .so files, refuses what is not a plugin with a reason that
 * names the file, and keeps the rest. Nothing of a plugin is called here.
 *
 * Folders: the one given, else $TIERED_PLUGINS, else lib/tiered beside the program's
 * bin (../lib/tiered from the running executable, and ../<libdir>/tiered).
 *
 * Threads: every call from any thread. dlopen of each file happens at
 * tiered_plugins_all or at the first tiered_plugins_get of its name; what was loaded
 * never changes, and a pointer to it is valid until tiered_plugins_destroy. Plugins are
 * never dlclosed.
 */
#ifndef TIERED_CORE_PLUGINS_H
#define TIERED_CORE_PLUGINS_H

#include "core/base/base.h"
#include "tiered/plugin.h"

struct tiered_loaded {
    /* Copied, and so is what `ops` points at: zero (NULL) where the file's structs were
       shorter than ours, and ops->size at most our own. */
    struct tiered_plugin plugin;
    char *path;
    struct tiered_digest digest; /* SHA-256 of the opened file */
    void *ops;                   /* owned: plugin.ops */
};

struct tiered_plugins;

/** An empty set over a folder (NULL: the default search). No file is opened yet.
    TIERED_ENOENT when there is no such folder. */
struct tiered_plugins *tiered_plugins_create(const char *folder,
                                             struct tiered_error *err);
void tiered_plugins_destroy(struct tiered_plugins *plugins);

/** Load NAME.so once and give it; -1 with a reason: no such plugin (with the nearest
   name, or "not in this version" for the names that design.md promises), not a plugin,
   wrong ABI, missing members, wrong kind. kind 0: any. */
int tiered_plugins_get(struct tiered_plugins *plugins, const char *name,
                       enum tiered_kind kind, const struct tiered_loaded **ret,
                       struct tiered_error *err);
/** As above, and the file's digest must be `digest` (TIERED_ECORRUPT): nothing of
    another file is run. */
int tiered_plugins_get_exact(struct tiered_plugins *plugins, const char *name,
                             enum tiered_kind kind, const struct tiered_digest *digest,
                             const struct tiered_loaded **ret,
                             struct tiered_error *err);
/** Load every .so of the folder, sorted by kind and name; what is refused is given to
    `refused` (may be NULL) and left out. The folder is read once; *ret is the set's. */
int tiered_plugins_all(struct tiered_plugins *plugins,
                       const struct tiered_loaded *const **ret, size_t *ret_n,
                       void (*refused)(void *user, const char *path,
                                       const struct tiered_error *err),
                       void *user, struct tiered_error *err);
/** Load one file by path, whatever its name (plugins check, tests). */
int tiered_plugin_open(const char *path, struct tiered_loaded *ret,
                       struct tiered_error *err);
void tiered_loaded_finish(struct tiered_loaded *loaded);

const char *tiered_kind_name(enum tiered_kind kind); /* "aggregator" */
/** Name of one trait bit: "needs_individual_updates"; NULL for none. */
const char *tiered_trait_name(uint32_t bit);

TIERED_DEFINE_FREE(struct tiered_plugins, tiered_plugins_destroy)

#endif
