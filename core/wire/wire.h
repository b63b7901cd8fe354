/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Frames: protobuf (tiered.proto) with the payload last and never copied.
 *
 * Packing: pack the Frame without its data, then put the data field's tag and length
 * behind it: that is the head of a message whose body is the payload itself. Unpacking
 * bounds everything before anything is allocated: the frame's size, strings (names 63
 * bytes, reasons 1 KiB), counts, digests of 0 or 32 bytes, path depth.
 *
 * Threads: pure functions.
 */
#ifndef TIERED_CORE_WIRE_H
#define TIERED_CORE_WIRE_H

#include "core/base/base.h"
#include "core/model/model.h"
#include "core/round/path.h"
#include "tiered/transport.h"
#include "wire/tiered.pb-c.h"

#define TIERED_PROTOCOL 1

/** A received frame. `body_data` points into the message it came from. */
struct tiered_frame {
    Tiered__V1__Frame *pb; /* its data field is empty */
    const uint8_t *body_data;
    size_t body_size;
};

/** Unpack and check a message; the frame borrows it. EPEER says what is wrong. */
int tiered_frame_unpack(const void *data, size_t size, struct tiered_frame *ret,
                        struct tiered_error *err);
void tiered_frame_finish(struct tiered_frame *frame);
/** Any message of tiered.proto by itself (a Head in a file), bounded the same way. Free
    with protobuf_c_message_free_unpacked(message, NULL). */
int tiered_wire_unpack(const ProtobufCMessageDescriptor *desc, const void *data,
                       size_t size, ProtobufCMessage **ret, struct tiered_error *err);

/** Pack everything but a body of `body_size` bytes that follows (0: none). malloc'd.
    What a peer would refuse is refused here: EINVAL for a field, ENOMEM for a frame
   over TIERED_MESSAGE_MAX (the table of a model of very many tensors, say). */
int tiered_frame_pack(const Tiered__V1__Frame *pb, size_t body_size, uint8_t **ret_head,
                      size_t *ret_head_size, struct tiered_error *err);

/** The frame's path, checked. */
int tiered_frame_path(const Tiered__V1__Frame *pb, struct tiered_path *ret,
                      struct tiered_error *err);

/** Between a Head's tensors and a layout. to: malloc'd array of n tensors in *ret,
   which borrow the layout's names; free with tiered_wire_free_tensors. from: everything
   checked as for a file. */
int tiered_wire_tensors(const struct tiered_layout *layout, Tiered__V1__Tensor ***ret,
                        size_t *ret_n, struct tiered_error *err);
void tiered_wire_free_tensors(Tiered__V1__Tensor **tensors, size_t n);
int tiered_wire_layout(const Tiered__V1__Head *head, struct tiered_layout **ret,
                       struct tiered_error *err);
/** A Head's metrics; at most TIERED_MAX_METRICS are kept, names cut to fit. */
void tiered_wire_metrics(Tiered__V1__Metric *const *metrics, size_t n,
                         struct tiered_metrics *ret);
/** A digest field of 0 (none) or 32 bytes. */
int tiered_wire_digest(const ProtobufCBinaryData *field, struct tiered_digest *ret,
                       struct tiered_error *err);

#endif
