/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics and digests of the wire as core's own types. */
#include "core/wire/wire.h"

/* Cuts between characters, so that what is left is still UTF-8. */
static void copy_name(char *out, size_t capacity, const char *name)
{
    size_t n = strlen(name);
    if (n >= capacity) {
        n = capacity - 1;
        while (n > 0 && ((uint8_t)name[n] & 0xc0) == 0x80) {
            n--;
        }
    }
    memcpy(out, name, n);
    out[n] = '\0';
}

void tiered_wire_metrics(Tiered__V1__Metric *const *metrics, size_t n,
                         struct tiered_metrics *ret)
{
    *ret = (struct tiered_metrics){.n = n < TIERED_MAX_METRICS ? (uint32_t)n
                                                               : TIERED_MAX_METRICS};
    for (uint32_t i = 0; i < ret->n; i++) {
        copy_name(ret->items[i].name, sizeof(ret->items[i].name), metrics[i]->name);
        ret->items[i].value = metrics[i]->value;
    }
}

int tiered_wire_digest(const ProtobufCBinaryData *field, struct tiered_digest *ret,
                       struct tiered_error *err)
{
    struct tiered_digest digest = {0};
    if (field->len != 0 && field->len != sizeof(digest.bytes)) {
        return tiered_fail(err, TIERED_EPEER, "a digest of %zu bytes; it has 32",
                           field->len);
    }
    if (field->len > 0) {
        memcpy(digest.bytes, field->data, sizeof(digest.bytes));
    }
    *ret = digest;
    return 0;
}
