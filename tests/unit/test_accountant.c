/* SPDX-License-Identifier: Apache-2.0 */
/* The accountant against values known from elsewhere, and against what must hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>

#include "core/privacy/accountant.h"

static double epsilon(double q, double z, double steps, double delta)
{
    struct tiered_accountant spent = {0};
    tiered_accountant_add(&spent, q, z, steps);
    return tiered_accountant_epsilon(&spent, delta);
}

static void near(double got, double want, double share)
{
    if (!(fabs(got - want) <= share * want)) {
        fail_msg("%.17g, not %.17g", got, want);
    }
}

/* By dp-accounting 0.6.0, to the digits given. */
static void known_rows(void **state)
{
    (void)state;
    near(epsilon(1, 1, 1, 1e-5), 4.729, 2e-4);
    near(epsilon(0.01, 1.1, 1000, 1e-5), 1.712, 1e-3);
}

/* Mironov 2017: the Gaussian mechanism's divergence is order / (2 z^2). */
static void the_plain_mechanism_is_a_line(void **state)
{
    (void)state;
    for (size_t i = 0; i < TIERED_RDP_ORDERS; i++) {
        double order = tiered_rdp_order(i);
        near(tiered_rdp_gaussian(1, 2, order), order / 8, 1e-15);
    }
}

/* Two series and one sum for one function: a fractional order next to a whole one. */
static void fractional_orders_meet_whole_ones(void **state)
{
    (void)state;
    static const double qs[] = {0.001, 0.01, 0.1, 0.5, 0.9}, zs[] = {0.7, 1, 2, 8};
    for (size_t i = 0; i < 5; i++) {
        for (size_t k = 0; k < 4; k++) {
            for (double order = 2; order < 9; order++) {
                double whole = tiered_rdp_gaussian(qs[i], zs[k], order);
                near(tiered_rdp_gaussian(qs[i], zs[k], order + 1e-6), whole, 1e-3);
            }
        }
    }
}

/* The divergence by plain integration of the densities' ratio. */
static double integrated(double q, double z, double order)
{
    double sum = 0, step = z / 2000;
    for (double x = -40 * z; x < 40 * z + order; x += step) {
        double density = exp(-x * x / (2 * z * z)) / (z * sqrt(2 * M_PI));
        double ratio = 1 - q + q * exp((2 * x - 1) / (2 * z * z));
        sum += density * pow(ratio, order) * step;
    }
    return log(sum) / (order - 1);
}

static void check_integral(double q, double z)
{
    static const double orders[] = {2, 2.7, 3, 3.7, 8, 9.3};
    for (size_t i = 0; i < 6; i++) {
        double want = integrated(q, z, orders[i]);
        double got = tiered_rdp_gaussian(q, z, orders[i]);
        bool whole = orders[i] == floor(orders[i]);
        /* terms of a fractional order are added by size: an upper bound */
        if (got < want * (1 - 1e-6) || got > want * (whole ? 1 + 1e-6 : 1.1)) {
            fail_msg("order %g: %.17g, integrated %.17g", orders[i], got, want);
        }
    }
}

static void the_series_is_the_integral(void **state)
{
    (void)state;
    check_integral(0.1, 1);
    check_integral(0.3, 2);
}

static void steps_add_up(void **state)
{
    (void)state;
    struct tiered_accountant a = {0}, b = {0}, c = {0};
    tiered_accountant_add(&a, 0.1, 1, 30);
    tiered_accountant_add(&a, 1, 4, 2);
    tiered_accountant_add(&b, 1, 4, 1);
    tiered_accountant_add(&b, 0.1, 1, 30);
    tiered_accountant_add(&c, 1, 4, 1);
    tiered_accountant_add_all(&b, &c, 1);
    near(tiered_accountant_epsilon(&a, 1e-6), tiered_accountant_epsilon(&b, 1e-6),
         1e-12);
}

static void order_of_things(void **state)
{
    (void)state;
    assert_true(epsilon(0.1, 1, 10, 1e-5) < epsilon(0.1, 1, 11, 1e-5));
    assert_true(epsilon(0.1, 1.1, 10, 1e-5) < epsilon(0.1, 1, 10, 1e-5));
    assert_true(epsilon(0.1, 1, 10, 1e-5) < epsilon(0.2, 1, 10, 1e-5));
    assert_true(epsilon(0.9, 1, 10, 1e-5) < epsilon(1, 1, 10, 1e-5));
    assert_true(epsilon(0.1, 1, 10, 1e-4) < epsilon(0.1, 1, 10, 1e-5));
}

static void ends_of_the_range(void **state)
{
    (void)state;
    assert_true(epsilon(0, 1, 1000, 1e-5) == 0);
    assert_true(epsilon(1, 1, 0, 1e-5) == 0);
    assert_true(isinf(epsilon(1, 0, 1, 1e-5)));
    assert_true(epsilon(1, 1e6, 1, 1e-5) < 1e-3);
    double much = epsilon(0.5, 0.05, 1, 1e-5);
    assert_true(much > 50 && !isnan(much));
    assert_false(isnan(epsilon(1e-9, 0.3, 1e9, 1e-12)));
    assert_false(isnan(epsilon(0.999999, 50, 1e6, 1e-12)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_rows),
        cmocka_unit_test(the_plain_mechanism_is_a_line),
        cmocka_unit_test(fractional_orders_meet_whole_ones),
        cmocka_unit_test(the_series_is_the_integral),
        cmocka_unit_test(steps_add_up),
        cmocka_unit_test(order_of_things),
        cmocka_unit_test(ends_of_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
