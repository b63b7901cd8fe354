/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Round paths: the numbers of the open rounds from the root down, "3.2" for the second
 * fog round within the third cloud round. (run, node, path) names a contribution.
 * Values.
 */
#ifndef TIERED_CORE_PATH_H
#define TIERED_CORE_PATH_H

#include <stdbool.h>
#include <stdint.h>

#define TIERED_MAX_DEPTH 16

struct tiered_path {
    uint32_t depth;               /* 0: no round */
    uint32_t n[TIERED_MAX_DEPTH]; /* from 1; unused entries are zero */
};

/** -1, 0, 1: older, same, newer; a prefix is older than what it begins. */
int tiered_path_compare(const struct tiered_path *a, const struct tiered_path *b);
bool tiered_path_equal(const struct tiered_path *a, const struct tiered_path *b);
/** `path` with one more number. False when too deep. */
bool tiered_path_child(const struct tiered_path *path, uint32_t n,
                       struct tiered_path *ret);
/** "3.2"; "" for no round. At most 191 characters. */
void tiered_path_text(const struct tiered_path *path, char out[192]);
bool tiered_path_parse(const char *text, struct tiered_path *ret);

#endif
