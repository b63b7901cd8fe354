/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The plugin loader: finds .so files, refuses what is not a plugin with a reason that
 * names the file, and keeps the rest. Nothing of a plugin is called here.
 *
 * Folders: the one given, else $TIERED_PLUGINS, else lib/tiered beside the program's
 * bin
 * (../lib/tiered from the running executable, and ../<libdir>/tiered).
 *
 * Threads: load once, then immutable; dlopen of each happens at load (list) or at first
 * open (by name). Plugins are never dlclosed while the process lives.
 */
#ifndef TIERED_CORE_PLUGINS_H
#define TIERED_CORE_PLUGINS_H

#include "core/base/base.h"
#include "tiered/plugin.h"

struct tiered_loaded {
    struct tiered_plugin plugin; /* copied: zero where the file's struct was shorter */
    char *path;
    struct tiered_digest digest; /* SHA-256 of the opened file */
};

struct tiered_plugins;

/** An empty set over a folder (NULL: the default search). No file is opened yet. */
struct tiered_plugins *tiered_plugins_create(const char *folder,
                                             struct tiered_error *err);
void tiered_plugins_destroy(struct tiered_plugins *plugins);

/** Load NAME.so once and give it; -1 with a reason: no such plugin (with the nearest
   name, or "not in this version" for the names that design.md promises), not a plugin,
   wrong ABI, missing members, wrong kind. kind 0: any. */
int tiered_plugins_get(struct tiered_plugins *plugins, const char *name,
                       enum tiered_kind kind, const struct tiered_loaded **ret,
                       struct tiered_error *err);
/** As above, and the file's digest must be `digest`. */
int tiered_plugins_get_exact(struct tiered_plugins *plugins, const char *name,
                             enum tiered_kind kind, const struct tiered_digest *digest,
                             const struct tiered_loaded **ret,
                             struct tiered_error *err);
/** Load every .so of the folder, sorted by kind and name; what is refused is given to
    `refused` (may be NULL) and left out. */
int tiered_plugins_all(struct tiered_plugins *plugins,
                       const struct tiered_loaded *const **ret, size_t *ret_n,
                       void (*refused)(void *user, const char *path,
                                       const struct tiered_error *err),
                       void *user, struct tiered_error *err);
/** Load one file by path (plugins check, tests). */
int tiered_plugin_open(const char *path, struct tiered_loaded *ret,
                       struct tiered_error *err);
void tiered_loaded_finish(struct tiered_loaded *loaded);

const char *tiered_kind_name(enum tiered_kind kind); /* "aggregator" */
/** Name of one trait bit: "needs_individual_updates"; NULL for none. */
const char *tiered_trait_name(uint32_t bit);

TIERED_DEFINE_FREE(struct tiered_plugins, tiered_plugins_destroy)

#endif
