/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the plugin loader share. */
#ifndef TIERED_CORE_PLUGINS_INTERNAL_H
#define TIERED_CORE_PLUGINS_INTERNAL_H

#include "core/plugins/plugins.h"

/** Check a copied descriptor's members, ops and options; the ops are copied to
 *ret_ops (malloc). Messages do not name the file: the caller puts it in front. */
int tiered_plugin_check(struct tiered_plugin *plugin, void **ret_ops,
                        struct tiered_error *err);
/** [a-z0-9][a-z0-9-]{0,31} */
bool tiered_plugin_name_ok(const char *name);
/** tiered_plugin_open; with `expected`, a file of another digest is refused before it
    is loaded. */
int tiered_plugin_open_exact(const char *path, const struct tiered_digest *expected,
                             struct tiered_loaded *ret, struct tiered_error *err);

/** Names that Tiered knows of without having them: "not in this version". */
extern const char *const tiered_absent_plugins[];
extern const size_t tiered_n_absent_plugins;

#endif
