/* SPDX-License-Identifier: Apache-2.0 */
/* The loops of values.c for one vector width: included once for each, with NAME and
   TARGET defined. */

TARGET static double NAME(squares)(enum tiered_dtype dtype, const void *in, size_t n)
{
    switch (dtype) {
    case TIERED_F64:
        return squares_as(TIERED_F64, in, n);
    case TIERED_F32:
        return squares_as(TIERED_F32, in, n);
    case TIERED_F16:
        return squares_as(TIERED_F16, in, n);
    default:
        return squares_as(TIERED_BF16, in, n);
    }
}

TARGET static void NAME(scale)(enum tiered_dtype dtype, const void *in, size_t n,
                               double factor, void *out)
{
    switch (dtype) {
    case TIERED_F64:
        scale_as(TIERED_F64, in, n, factor, out);
        return;
    case TIERED_F32:
        scale_as(TIERED_F32, in, n, factor, out);
        return;
    case TIERED_F16:
        scale_as(TIERED_F16, in, n, factor, out);
        return;
    default:
        scale_as(TIERED_BF16, in, n, factor, out);
    }
}

TARGET static bool NAME(load)(enum tiered_dtype dtype, const void *in, size_t n,
                              double *out)
{
    switch (dtype) {
    case TIERED_F64:
        return load_as(TIERED_F64, in, n, out);
    case TIERED_F32:
        return load_as(TIERED_F32, in, n, out);
    case TIERED_F16:
        return load_as(TIERED_F16, in, n, out);
    default:
        return load_as(TIERED_BF16, in, n, out);
    }
}

TARGET static void NAME(store)(enum tiered_dtype dtype, const double *in, size_t n,
                               void *out)
{
    switch (dtype) {
    case TIERED_F64:
        store_as(TIERED_F64, in, n, out);
        return;
    case TIERED_F32:
        store_as(TIERED_F32, in, n, out);
        return;
    case TIERED_F16:
        store_as(TIERED_F16, in, n, out);
        return;
    default:
        store_as(TIERED_BF16, in, n, out);
    }
}

static const struct values_ops NAME(ops) = {
    .squares = NAME(squares),
    .scale = NAME(scale),
    .load = NAME(load),
    .store = NAME(store),
};
