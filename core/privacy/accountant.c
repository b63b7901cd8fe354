/* SPDX-License-Identifier: Apache-2.0 */
/* Rényi differential privacy of the sampled Gaussian mechanism. Sums of large and small
   terms are kept as logarithms. */
#include "core/privacy/accountant.h"

#include <math.h>
#include <stdbool.h>

#define MOST_TERMS 1000
#define SMALL      30.0 /* e^-30 of the sum: below what the others round to */
#define LOG_PI     1.1447298858494002
#define LOG_2      0.6931471805599453

double tiered_rdp_order(size_t i)
{
    static const double large[] = {128, 256, 512, 1024};
    return i < 99    ? 1 + (double)(i + 1) / 10
           : i < 152 ? 11 + (double)(i - 99)
                     : large[i - 152];
}

static double log_add(double a, double b)
{
    double least = fmin(a, b), most = fmax(a, b);
    return least == -INFINITY ? most : most + log1p(exp(least - most));
}

/* erfc is 0 in a double from about 27 on; its series at infinity is not. */
static double log_erfc(double x)
{
    if (x < 20) {
        return log(erfc(x));
    }
    double y = 1 / (x * x);
    return -x * x - log(x) - LOG_PI / 2 +
           log1p(y * (-0.5 + y * (0.75 + y * (-1.875 + y * 6.5625))));
}

/* lgamma() writes a global; its twin does not. |C(n, k)| for a real n. */
static double log_binomial(double n, double k)
{
    int sign;
    return lgamma_r(n + 1, &sign) - lgamma_r(k + 1, &sign) - lgamma_r(n - k + 1, &sign);
}

/* sum over i of C(a, i) (1-q)^(a-i) q^i exp((i^2 - i) / (2 z^2)) */
static double log_moment_whole(double q, double z, unsigned order)
{
    double sum = -INFINITY;
    for (unsigned k = 0; k <= order; k++) {
        double i = k;
        sum = log_add(sum, log_binomial(order, i) + i * log(q) +
                               (order - i) * log1p(-q) + (i * i - i) / (2 * z * z));
    }
    return sum;
}

/* The same moment as two series, of the integrals below and above the point z0 where
   the densities are weighed the other way round. Past i = order the signs alternate;
   terms are added by size, which is an upper bound and cancels nothing. */
static double log_moment_real(double q, double z, double order)
{
    double z0 = z * z * log(1 / q - 1) + 0.5, below = -INFINITY, above = -INFINITY;
    double last_below = -INFINITY, last_above = -INFINITY;
    for (int k = 0; k < MOST_TERMS; k++) {
        double i = k, j = order - i, binomial = log_binomial(order, i);
        double b = binomial + i * log(q) + j * log1p(-q) + (i * i - i) / (2 * z * z) +
                   log_erfc((i - z0) / (M_SQRT2 * z)) - LOG_2;
        double a = binomial + j * log(q) + i * log1p(-q) + (j * j - j) / (2 * z * z) +
                   log_erfc((z0 - j) / (M_SQRT2 * z)) - LOG_2;
        below = log_add(below, b);
        above = log_add(above, a);
        double sum = log_add(below, above);
        if (b < last_below && a < last_above && fmax(a, b) < sum - SMALL) {
            return sum;
        }
        last_below = b;
        last_above = a;
    }
    return INFINITY;
}

double tiered_rdp_gaussian(double q, double noise_multiplier, double order)
{
    double z = noise_multiplier;
    if (q <= 0) {
        return 0;
    }
    if (!(z > 0)) {
        return INFINITY;
    }
    if (q >= 1) {
        return order / (2 * z * z);
    }
    bool whole = order == floor(order);
    double moment =
        whole ? log_moment_whole(q, z, (unsigned)order) : log_moment_real(q, z, order);
    double divergence = moment / (order - 1);
    return divergence > 0 ? divergence : isnan(divergence) ? INFINITY : 0;
}

void tiered_accountant_add(struct tiered_accountant *accountant, double q,
                           double noise_multiplier, double steps)
{
    for (size_t i = 0; i < TIERED_RDP_ORDERS && steps > 0; i++) {
        accountant->rdp[i] +=
            steps * tiered_rdp_gaussian(q, noise_multiplier, tiered_rdp_order(i));
    }
}

void tiered_accountant_add_all(struct tiered_accountant *accountant,
                               const struct tiered_accountant *step, double times)
{
    for (size_t i = 0; i < TIERED_RDP_ORDERS && times > 0; i++) {
        accountant->rdp[i] += times * step->rdp[i];
    }
}

/* Two bounds at one order: delta <= sqrt(1 - exp(-divergence)), which may do without
   any epsilon, and proposition 12, which is worthless next to order 1. */
static double epsilon_at(double order, double divergence, double delta)
{
    if (divergence == 0 || delta * delta + expm1(-divergence) > 0) {
        return 0;
    }
    return order > 1.01
               ? divergence + log1p(-1 / order) - log(delta * order) / (order - 1)
               : INFINITY;
}

double tiered_accountant_epsilon(const struct tiered_accountant *accountant,
                                 double delta)
{
    double least = INFINITY;
    for (size_t i = 0; i < TIERED_RDP_ORDERS; i++) {
        least = fmin(least, epsilon_at(tiered_rdp_order(i), accountant->rdp[i], delta));
    }
    return least > 0 ? least : 0;
}
