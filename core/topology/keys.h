/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The keys of the topology file as tables: the loader reads a file by them, and the
 * editors' schema and the tables of docs/topology.md are made from them. Constant.
 */
#ifndef TIERED_CORE_TOPOLOGY_KEYS_H
#define TIERED_CORE_TOPOLOGY_KEYS_H

#include <stddef.h>
#include <stdint.h>

#define TIERED_MAX_KEY_TEXT 255u /* bytes of a KEY_TEXT */
#define TIERED_MAX_STAGES   16u  /* plugins of a pipe or strategy */

enum key_type {
    KEY_TEXT,      /* const char * */
    KEY_NAME,      /* const char *: [a-z0-9][a-z0-9._-]{0,62} */
    KEY_COUNT,     /* uint32_t, min..max */
    KEY_INTEGER,   /* uint64_t, min..max */
    KEY_NUMBER,    /* double, finite */
    KEY_BOOLEAN,   /* bool */
    KEY_CHOICE,    /* int32_t, or bool for two: index of one of `choices` */
    KEY_SAMPLE,    /* sample and poisson of struct tiered_rounds */
    KEY_QUORUM,    /* quorum and quorum_count of struct tiered_rounds */
    KEY_DURATION,  /* uint64_t ms */
    KEY_BYTES,     /* uint64_t */
    KEY_STRATEGY,  /* struct tiered_plugin_list: an aggregator, then optimizers */
    KEY_UPLINK,    /* struct tiered_plugin_list: filters, a group last */
    KEY_DOWNLINK,  /* struct tiered_plugin_list: filters */
    KEY_TRANSPORT, /* struct tiered_plugin_ref */
    KEY_TRAINER,   /* struct tiered_plugin_ref */
    KEY_MODEL,     /* const char *: an absolute path, NULL for {from: trainer} */
    KEY_SECTION,   /* a mapping of `nested` keys; their offsets are the outer struct's
                    */
    KEY_DEFAULTS,  /* these four: const struct tiered_value *, read by their own code */
    KEY_TIERS,
    KEY_TREE,
    KEY_NODES,
    KEY_LATER, /* not in this version: only nothing or an empty list */
};

/* Where a tier's key has a meaning, and whether a key must be there. */
enum key_where {
    KEY_STRUCTURE = 1, /* only in tiers: */
    KEY_INNER = 2,     /* nodes with children */
    KEY_LEAF = 4,      /* nodes without */
    KEY_BELOW = 8,     /* nodes with a parent */
    KEY_REQUIRED = 16, /* must be written; the code that reads it says so */
    KEY_NEEDED = 32, /* nodes where it has a meaning must get it, be it from elsewhere:
                        from defaults:, or for fan_out from tree: */
};

struct key_row {
    const char *name;
    enum key_type type;
    uint32_t id; /* its bit in struct given: one numbering a family of tables */
    size_t offset, size;
    double min, max;
    const char *const *choices; /* NULL-terminated */
    uint32_t n_now;             /* choices from here on are for a later version */
    unsigned where;             /* bits of enum key_where */
    const struct key_row *nested;
    size_t n_nested;
    const char *fallback; /* what the loader fills in when the key is absent, as a user
                             would write it; NULL: nothing */
    const char *help;     /* what is to be typed in 'quotes' */
    const char *with;     /* a key that must stand beside it, for editors; NULL: none */
};

/** The file's own keys, and those of a tier. */
extern const struct key_row tiered_top_rows[], tiered_tier_rows[];
extern const size_t tiered_top_n_rows, tiered_tier_n_rows;

#endif
