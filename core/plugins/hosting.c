/* SPDX-License-Identifier: Apache-2.0 */
/* The functions behind struct tiered_host. */
#include "core/plugins/hosting.h"

#include <stdio.h>
#include <string.h>

#include "core/base/log.h"

static struct tiered_hosting *hosting_of(const struct tiered_host *host)
{
    return host->opaque;
}

static const char *or_null(const char *text)
{
    return text[0] ? text : NULL;
}

static void host_log(const struct tiered_host *host, enum tiered_level level,
                     const char *text)
{
    const struct tiered_hosting *hosting = hosting_of(host);
    const struct tiered_log_context context = {
        or_null(hosting->tier), or_null(hosting->node), or_null(hosting->path)};
    tiered_log(level, hosting->tag, &context, "%s", text);
}

static void host_seed(const struct tiered_host *host, const char *purpose,
                      uint8_t out[32])
{
    const struct tiered_hosting *hosting = hosting_of(host);
    bool alike = strncmp(purpose, "run:", 4) == 0; /* on every node, in every round */
    tiered_seed(hosting->run_seed, purpose, alike ? "" : hosting->node,
                alike ? "" : hosting->path, out);
}

static int host_secret(const struct tiered_host *host, void *out, size_t n,
                       struct tiered_error *err)
{
    (void)host;
    return tiered_secret(out, n, err);
}

static void host_progress(const struct tiered_host *host, double fraction)
{
    double bounded = fraction > 0 ? fraction < 1 ? fraction : 1 : 0; /* NaN: 0 */
    atomic_store_explicit(&hosting_of(host)->progress_ppm, (uint32_t)(bounded * 1e6),
                          memory_order_relaxed);
}

static bool host_cancelled(const struct tiered_host *host)
{
    return atomic_load_explicit(&hosting_of(host)->cancel, memory_order_acquire);
}

static void copy_name(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s", name ? name : "");
}

void tiered_hosting_init(struct tiered_hosting *hosting, uint64_t run_seed,
                         const char *tag, const char *tier, const char *node,
                         const char *path)
{
    copy_name(hosting->node, sizeof(hosting->node), node);
    copy_name(hosting->path, sizeof(hosting->path), path);
    copy_name(hosting->tier, sizeof(hosting->tier), tier);
    copy_name(hosting->tag, sizeof(hosting->tag), tag);
    hosting->run_seed = run_seed;
    atomic_init(&hosting->cancel, false);
    atomic_init(&hosting->progress_ppm, 0);
    hosting->host = (struct tiered_host){
        .size = sizeof(hosting->host),
        .opaque = hosting,
        .node = hosting->node,
        .path = hosting->path,
        .log = host_log,
        .seed = host_seed,
        .secret = host_secret,
        .progress = host_progress,
        .cancelled = host_cancelled,
    };
}
