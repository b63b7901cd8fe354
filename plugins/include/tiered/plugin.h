/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The plugin ABI. A plugin is one shared object that exports one const data symbol,
 * `tiered_plugin`, so that the host can list, check and describe it without calling it:
 *
 *     TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "fedavg",
 *                          .version = "1.0", .summary = "…",
 *                          TIERED_OPTIONS(options, struct config), .ops = &ops);
 *
 * The host opens it with RTLD_NOW | RTLD_LOCAL, checks abi_version, copies
 * min(struct_size, its own size) into a zeroed struct, and refuses it by file name when
 * a required member is missing. An ops table begins with its size and only grows at its
 * end; so does the descriptor.
 *
 * Order of calls: every kind has init … destroy. init() gets the filled config struct,
 * which stays valid until destroy(); a failed init() frees what it took, and destroy()
 * is then not called. One state serves one node. Calls on one state never overlap
 * unless the plugin has TIERED_CONCURRENT; updates come in canonical child order.
 *
 * A plugin never prints, never exits, never allocates or frees the host's buffers. It
 * returns 0, or -1 with *err filled, and a failed call has no effect.
 * A call has at least 256 KiB of stack.
 *
 * ABI history:
 *   0  young: any release may change it. Plugins carry struct_size all the same.
 */
#ifndef TIERED_PLUGIN_H
#define TIERED_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "host.h"
#include "model.h"
#include "option.h"

#define TIERED_ABI_VERSION 0

enum tiered_kind {
    TIERED_AGGREGATOR = 1, /* tiered/aggregator.h */
    TIERED_OPTIMIZER = 2,  /* tiered/optimizer.h */
    TIERED_FILTER = 3,     /* tiered/filter.h */
    TIERED_GROUP = 4,      /* tiered/group.h */
    TIERED_TRANSPORT = 5,  /* tiered/transport.h */
    TIERED_TRAINER = 6,    /* tiered/trainer.h */
};

/** What the validator and the host reason from. The default is the safest promise. */
enum tiered_trait {
    TIERED_NEEDS_INDIVIDUAL_UPDATES = 1u
                                      << 0, /* no group sum may hide single updates */
    TIERED_LOSSY = 1u << 1,                 /* a filter that changes values */
    TIERED_NEEDS_SCAN = 1u << 2,         /* a filter that must see the update first */
    TIERED_COMPOSES_EXACTLY = 1u << 3,   /* at an inner tier equals the flat result */
    TIERED_ACCEPTS_BLOBS = 1u << 4,      /* takes opaque u8 tensors */
    TIERED_CONCURRENT = 1u << 5,         /* calls for different blocks may overlap */
    TIERED_PRIVACY = 1u << 6,            /* a privacy filter, not a codec */
    TIERED_LOCAL_ONLY = 1u << 7,         /* a transport within one host */
    TIERED_BROKERED = 1u << 8,           /* a transport through a broker */
    TIERED_ALLOWS_BAD_UPDATES = 1u << 9, /* on_bad_update: allow makes sense */
    TIERED_SCALES = 1u << 10, /* an aggregator: twice every change, twice the result
                                 (no length stands in its options) */
    TIERED_REPLICATES =
        1u << 11, /* an aggregator: every child twice, the same result */
    TIERED_NEEDS_VALUES =
        1u << 12, /* a filter that works on values: no codec may stand before it */
    TIERED_CHANGES_ONLY =
        1u << 13, /* a filter that leaves too little of a whole model: for updates, or
                     behind one that makes changes of a model (refer) */
};

struct tiered_plugin {
    uint32_t abi_version;
    uint32_t struct_size;
    enum tiered_kind kind;
    const char *name;    /* [a-z0-9][a-z0-9-]{0,31} */
    const char *version; /* the plugin's own */
    const char *summary; /* one line; says what it means at an inner tier */
    uint32_t traits;
    uint32_t option_size; /* sizeof(struct tiered_option) as the plugin saw it */
    const struct tiered_option *options;
    size_t n_options;
    size_t config_size; /* of the struct that the options fill; at most 64 KiB */
    const void *ops;    /* struct tiered_<kind>_ops */
};

#define TIERED_OPTIONS(rows, config)                                                   \
    .option_size = sizeof(struct tiered_option), .options = (rows),                    \
    .n_options = sizeof(rows) / sizeof((rows)[0]), .config_size = sizeof(config)

#define TIERED_PLUGIN_DEFINE(...)                                                      \
    extern __attribute__((visibility("default")))                                      \
    const struct tiered_plugin tiered_plugin;                                          \
    const struct tiered_plugin tiered_plugin = {.abi_version = TIERED_ABI_VERSION,     \
                                                .struct_size =                         \
                                                    sizeof(struct tiered_plugin),      \
                                                __VA_ARGS__}

/**
 * State that outlives the process, shared by every kind that has it.
 *
 * save() writes at most `capacity` bytes and sets *ret_size to what it needs; called
 * with capacity 0 it only tells. load() gets back what save() wrote, with the version
 * that the plugin then had; it must refuse what it cannot read. Both may be NULL.
 */
struct tiered_saved_state {
    uint32_t version;
    int (*save)(void *state, void *out, size_t capacity, size_t *ret_size,
                struct tiered_error *err);
    int (*load)(void *state, uint32_t version, const void *in, size_t size,
                struct tiered_error *err);
};

#endif
