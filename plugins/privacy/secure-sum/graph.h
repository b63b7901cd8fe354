/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Who shares masks and secrets with whom: all with all, or a random k-regular graph, a
 * Harary graph over members in random order. Source: Bell et al. 2020 (CCS), section 3.
 */
#ifndef SECURE_SUM_GRAPH_H
#define SECURE_SUM_GRAPH_H

#include "crypto.h"

/** The degree for a group of n: `wanted`, or by itself where that is 0; even below all.
 */
uint32_t ss_degree(uint32_t n, uint32_t wanted);

/** The members in the order of the circle that the attempt's name decides. `members`
    are n ascending indices; *ret is malloc'd. */
int ss_circle(const uint8_t session[SS_SESSION_BYTES], const uint32_t *members,
              uint32_t n, uint32_t **ret, struct tiered_error *err);

/** The neighbours of the member at `place` of the circle, ascending, into out, which
    has room for `degree`. Returns how many. */
uint32_t ss_neighbours(const uint32_t *circle, uint32_t n, uint32_t place,
                       uint32_t degree, uint32_t *out);

#endif
