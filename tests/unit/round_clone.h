/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of a round machine, and a hash of its state: what trying every next step needs
   of its inside. */
#ifndef TIERED_TESTS_ROUND_CLONE_H
#define TIERED_TESTS_ROUND_CLONE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/round/inside.h"

static void clone_machine(const struct tiered_round *from, struct tiered_round **ret)
{
    struct tiered_round *to = NULL;
    uint32_t n = from->config.n_children;
    assert_int_equal(tiered_round_create(&from->config, &to, NULL), 0);
    struct tiered_round fresh = *to;
    *to = *from;
    to->children = fresh.children;
    to->counted = fresh.counted;
    to->committed = fresh.committed;
    to->answered = fresh.answered;
    to->actions = NULL;
    to->n_actions = to->actions_capacity = 0;
    memcpy(to->children, from->children, n * sizeof(*to->children));
    memcpy(to->committed, from->committed, n * sizeof(*to->committed));
    to->record.contributions = to->committed;
    for (uint32_t i = 0; i < n; i++) {
        if (from->children[i].kept) {
            to->children[i].kept = malloc(sizeof(*to->children[i].kept));
            assert_non_null(to->children[i].kept);
            *to->children[i].kept = *from->children[i].kept;
        }
    }
    *ret = to;
}

static void mix(uint64_t *h, uint64_t value)
{
    *h = (*h ^ value) * 0x9e3779b97f4a7c15u;
    *h ^= *h >> 29;
}

static void mix_path(uint64_t *h, const struct tiered_path *path)
{
    mix(h, path->depth);
    for (uint32_t i = 0; i < path->depth; i++) {
        mix(h, path->n[i]);
    }
}

static void mix_child(uint64_t *h, const struct round_child *c)
{
    bool stored = c->member == MEMBER_IN || c->member == MEMBER_DROPPED;
    mix(h, (uint64_t)c->link * 64 + (uint64_t)c->member * 2 + c->answered);
    mix(h, stored ? c->update : 0);
    mix_path(h, &c->counted_path);
    if (stored) {
        mix_path(h, &c->update_path);
    }
    mix(h, c->kept != NULL);
    if (c->kept) {
        mix(h, c->kept->update);
        mix(h, c->kept->base.bytes[0]);
        mix_path(h, &c->kept->path);
    }
}

static void mix_order(uint64_t *h, const struct pending_order *order)
{
    mix(h, order->set);
    if (order->set) {
        mix_path(h, &order->path);
    }
}

/* All that decides what the machine does next. */
static void mix_machine(uint64_t *h, const struct tiered_round *r)
{
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        mix_child(h, &r->children[i]);
    }
    mix(h, (uint64_t)r->state * 128 + r->have_turn * 64u + r->announce * 32u +
               r->deadline_passed * 16u + r->no_result * 8u + r->told_ready * 4u +
               r->initial_wanted * 2u + r->evaluation.active);
    mix(h, r->step);
    mix_path(h, &r->path);
    mix_path(h, &r->last_path);
    mix_path(h, &r->record.turn);
    mix(h,
        r->record.round * 1000u + r->record.finished * 10u + r->record.evaluation_due);
    mix(h, r->record.model.bytes[0]);
    mix(h, r->record.num_examples * 1000 + r->open_examples);
    mix(h, r->record.n_contributions);
    mix(h, r->evaluation.relay * 4u + r->evaluation.deadline_passed * 2u +
               r->evaluation.have_result);
    if (r->evaluation.active) {
        mix_path(h, &r->evaluation.path);
    }
    mix_order(h, &r->pending_start);
    mix_order(h, &r->pending_evaluate);
    for (int i = 1; i <= TIERED_TIMER_PHASE; i++) {
        mix(h, r->timers[i].armed);
    }
}

#endif
