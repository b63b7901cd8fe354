/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The privacy accountant: what Gaussian noise spends, by Rényi differential privacy.
 *
 * Two sets of contributions are neighbours when one has a contribution that the other
 * has not (add or remove one). A step takes each contribution with probability q, each
 * by itself (Poisson sampling), bounds what it can change to 1, adds them, and adds
 * noise of standard deviation `noise_multiplier`. With q = 1, or a sampling that is not
 * Poisson and so counts as q = 1, it is the plain Gaussian mechanism.
 *
 *     struct tiered_accountant spent = {0};
 *     tiered_accountant_add(&spent, 0.01, 1.1, 1000);
 *     double epsilon = tiered_accountant_epsilon(&spent, 1e-5);      1.712
 *
 * Steps add up, whatever their q and noise, in any order. The figures agree with those
 * of dp-accounting's RdpAccountant, whose orders these are (tests/interop).
 *
 * Sources: Mironov 2017 (arXiv:1702.07476) for the mechanism and its composition;
 * Mironov, Talwar and Zhang 2019 (arXiv:1908.10530, section 3.3) for sampling, at
 * integer and fractional orders; Canonne, Kamath and Steinke 2020 (arXiv:2004.00010,
 * proposition 12) for epsilon.
 *
 * Threads: pure functions of their arguments.
 */
#ifndef TIERED_CORE_PRIVACY_ACCOUNTANT_H
#define TIERED_CORE_PRIVACY_ACCOUNTANT_H

#include <stddef.h>

#define TIERED_RDP_ORDERS 156u

/** The orders: 1.1, 1.2 … 10.9, 11, 12 … 63, 128, 256, 512, 1024. `i` is below
    TIERED_RDP_ORDERS. */
double tiered_rdp_order(size_t i);

/** The Rényi divergence of one step at one order > 1. q is in [0, 1], and 0 spends
    nothing; noise_multiplier > 0, and 0 or less gives INFINITY. INFINITY also where the
    series for a fractional order does not converge: the other orders then decide. */
double tiered_rdp_gaussian(double q, double noise_multiplier, double order);

/** A sum of steps; zeroed is none. A value: copy it to try what more steps would spend.
 */
struct tiered_accountant {
    double rdp[TIERED_RDP_ORDERS];
};
void tiered_accountant_add(struct tiered_accountant *accountant, double q,
                           double noise_multiplier, double steps);
/** `times` times all that is in `step`. */
void tiered_accountant_add_all(struct tiered_accountant *accountant,
                               const struct tiered_accountant *step, double times);
/** The smallest epsilon at `delta` in (0, 1) over the orders; INFINITY when there is
    none. */
double tiered_accountant_epsilon(const struct tiered_accountant *accountant,
                                 double delta);

#endif
