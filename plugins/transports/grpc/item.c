/* SPDX-License-Identifier: Apache-2.0 */
/* Messages on their way out. A message is two slices for gRPC, the head that stands in
   the item and the borrowed body; it is finished when both are dropped. */
#include <grpc/byte_buffer.h>

#include "inside.h"

void items_init(struct items *items)
{
    items->first = NULL;
    items->last = &items->first;
}

void items_push(struct items *items, struct item *item)
{
    item->next = NULL;
    *items->last = item;
    items->last = &item->next;
}

struct item *items_pop(struct items *items)
{
    struct item *item = items->first;
    if (item) {
        items->first = item->next;
        items->last = item->next ? items->last : &items->first;
    }
    return item;
}

void items_move(struct items *to, struct items *from)
{
    if (from->first) {
        *to->last = from->first;
        to->last = from->last;
        items_init(from);
    }
}

/* Without a message: the half-close. */
struct item *item_create(struct state *st, const struct tiered_outgoing *message)
{
    size_t head = message ? message->head_size : 0;
    struct item *item = malloc(sizeof(*item) + head);
    if (!item) {
        return NULL;
    }
    *item = (struct item){.state = st, .ends = !message, .head_size = head};
    if (message) {
        item->body = message->body;
        item->body_size = message->body_size;
        item->done = message->done;
        item->opaque = message->opaque;
    }
    if (head > 0) {
        memcpy(item->head, message->head, head);
    }
    pthread_mutex_lock(&st->lock);
    st->n_items++;
    pthread_mutex_unlock(&st->lock);
    return item;
}

void item_discard(struct item *item)
{
    struct state *st = item->state;
    free(item);
    pthread_mutex_lock(&st->lock);
    st->n_items--;
    pthread_mutex_unlock(&st->lock);
}

void item_finish(struct item *item)
{
    if (item->done) {
        item->done(item->opaque);
    }
    item_discard(item);
}

/* On whatever thread gRPC drops its last reference; the host is told by ours. */
static void slice_dropped(void *user_data)
{
    struct item *item = user_data;
    struct state *st = item->state;
    if (atomic_fetch_sub(&item->refs, 1) > 1) {
        return;
    }
    pthread_mutex_lock(&st->lock);
    items_push(&st->finished, item);
    bool wake = state_wants_wake(st);
    pthread_mutex_unlock(&st->lock);
    if (wake) {
        state_wake(st);
    }
}

grpc_byte_buffer *item_buffer(struct item *item)
{
    grpc_slice slices[2];
    size_t n = 0;
    atomic_init(&item->refs, (item->head_size > 0) + (item->body_size > 0));
    if (item->head_size > 0) {
        slices[n++] = grpc_slice_new_with_user_data(item->head, item->head_size,
                                                    slice_dropped, item);
    }
    if (item->body_size > 0) {
        slices[n++] = grpc_slice_new_with_user_data(
            (void *)(uintptr_t)item->body, item->body_size, slice_dropped, item);
    }
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(slices, n);
    for (size_t i = 0; i < n; i++) {
        grpc_slice_unref(slices[i]); /* the buffer has its own reference */
    }
    return buffer;
}
