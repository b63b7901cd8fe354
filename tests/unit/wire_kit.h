/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of frames share. */
#ifndef TIERED_TEST_WIRE_KIT_H
#define TIERED_TEST_WIRE_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/wire/wire.h"

struct packed {
    uint8_t *bytes;
    size_t size;
};

/* A whole message: the head that tiered_frame_pack() makes, then the body. Exactly as
   large as its bytes, so that ASan sees a read past the end. */
static inline struct packed pack(const Tiered__V1__Frame *pb, const void *body,
                                 size_t n)
{
    struct tiered_error err = {0};
    uint8_t *head;
    size_t head_size;
    if (tiered_frame_pack(pb, n, &head, &head_size, &err) < 0) {
        fail_msg("pack: %s", err.text);
    }
    struct packed p = {malloc(head_size + n), head_size + n};
    assert_non_null(p.bytes);
    memcpy(p.bytes, head, head_size);
    if (n > 0) {
        memcpy(p.bytes + head_size, body, n);
    }
    free(head);
    return p;
}

static inline void expect_refusal(const void *bytes, size_t size, enum tiered_code code,
                                  const char *text)
{
    struct tiered_error err = {0};
    struct tiered_frame frame = {0};
    uint8_t *exact = malloc(size + (size == 0));
    memcpy(exact, bytes, size);
    assert_int_equal(tiered_frame_unpack(exact, size, &frame, &err), -1);
    assert_string_equal(err.text, text);
    assert_int_equal(err.code, code);
    assert_null(frame.pb);
    free(exact);
}

#endif
