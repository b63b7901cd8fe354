/* SPDX-License-Identifier: Apache-2.0 */
/* Plugins and their options from the command line. */
#include "orchestrator/spec.h"

int spec_parse(struct tiered_plugins *plugins, const char *spec, enum tiered_kind kind,
               struct tiered_use *ret, struct tiered_error *err)
{
    size_t length = strcspn(spec, ":");
    char name[64];
    if (length == 0 || length >= sizeof(name)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "'%.60s' does not begin with a plugin's name", spec);
    }
    memcpy(name, spec, length);
    name[length] = '\0';
    struct tiered_use use = {0};
    if (tiered_plugins_get(plugins, name, kind, &use.loaded, err) < 0) {
        return -1;
    }
    if (spec[length] == ':') {
        use.options_json = tiered_options_parse(spec + length + 1, err);
        if (!use.options_json) {
            return tiered_error_prefix(err, "plugin '%s': ", name);
        }
    }
    *ret = use;
    return 0;
}

void spec_finish(struct tiered_use *use)
{
    free((char *)(uintptr_t)use->options_json);
    *use = (struct tiered_use){0};
}
