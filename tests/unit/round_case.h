/* SPDX-License-Identifier: Apache-2.0 */
/* A round machine under test: events by short calls, actions as one line of text.
   Models are single letters; update handles are numbers. */
#ifndef TIERED_TESTS_ROUND_CASE_H
#define TIERED_TESTS_ROUND_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/round/round.h"

static struct tiered_round *machine;
static uint64_t case_timers[TIERED_TIMER_PHASE + 1]; /* ids of those set last */
static char case_text[16384];

static struct tiered_path case_path(const char *text)
{
    struct tiered_path path;
    assert_true(tiered_path_parse(text, &path));
    return path;
}

static struct tiered_digest case_model(char letter)
{
    struct tiered_digest digest = {{0}};
    digest.bytes[0] = (uint8_t)letter;
    return digest;
}

static void case_put(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void case_put(const char *fmt, ...)
{
    size_t used = strlen(case_text);
    va_list args;
    va_start(args, fmt);
    vsnprintf(case_text + used, sizeof(case_text) - used, fmt, args);
    va_end(args);
}

static void case_put_metrics(const struct tiered_metrics *metrics)
{
    for (uint32_t i = 0; i < metrics->n; i++) {
        case_put(" %s=%g", metrics->items[i].name, metrics->items[i].value);
    }
}

static void case_put_updates(const struct tiered_counted *updates, uint32_t n)
{
    case_put(" [");
    for (uint32_t i = 0; i < n; i++) {
        case_put("%s%u:%llu", i ? " " : "", updates[i].child,
                 (unsigned long long)updates[i].update);
    }
    case_put("]");
}

static void case_put_action(const struct tiered_round_action *a)
{
    static const char *const timers[] = {"", "half", "deadline", "phase"};
    char path[192];
    char base = a->base.bytes[0] ? (char)a->base.bytes[0] : '-';
    unsigned long long n = a->num_examples;
    tiered_path_text(&a->path, path);
    switch (a->kind) {
    case TIERED_DO_ORDER:
        case_put("ORDER %u %s %c", a->child, path, base);
        break;
    case TIERED_DO_ORDER_INITIAL:
        case_put("INITIAL %u '%s'", a->child, path);
        break;
    case TIERED_DO_ORDER_EVALUATE:
        case_put("EVALUATE %u %s %c", a->child, path, base);
        break;
    case TIERED_DO_STOP:
        case_put("STOP %u", a->child);
        break;
    case TIERED_DO_RECEIVE:
        case_put("RECEIVE %u %s", a->child, path);
        break;
    case TIERED_DO_ACCEPT:
        case_put("ACCEPT %u %s", a->child, path);
        break;
    case TIERED_DO_REFUSE:
        case_put("REFUSE %u %s (%s)", a->child, path, a->reason);
        break;
    case TIERED_DO_SETTLE:
        case_put("SETTLE %u %s %s", a->child, path, a->counted ? "counted" : "not");
        if (a->reason[0]) {
            case_put(" (%s)", a->reason);
        }
        break;
    case TIERED_DO_DROP_UPDATE:
        case_put("DROP %llu (%s)", (unsigned long long)a->update, a->reason);
        break;
    case TIERED_DO_PHASE:
        case_put("PHASE %u %s %u.%u", a->child, path, a->phase, a->step);
        break;
    case TIERED_DO_PHASE_CLOSED:
        case_put("CLOSED %u.%u", a->phase, a->step);
        case_put_updates(a->updates, a->n_updates);
        break;
    case TIERED_DO_SET_TIMER:
        case_put("SET %s %llu", timers[a->timer], (unsigned long long)a->after_ms);
        case_timers[a->timer] = a->timer_id;
        break;
    case TIERED_DO_CLEAR_TIMER:
        case_put("CLEAR %s", timers[a->timer]);
        break;
    case TIERED_DO_AGGREGATE:
        case_put("AGGREGATE %s %c", path, base);
        case_put_updates(a->updates, a->n_updates);
        break;
    case TIERED_DO_COMMIT:
        case_put("COMMIT %s %c n=%llu", path, base,
                 (unsigned long long)a->record->num_examples);
        case_put_updates(a->record->contributions, a->record->n_contributions);
        break;
    case TIERED_DO_COMMITTED:
        case_put("COMMITTED %s %c n=%llu", path, base, n);
        case_put_updates(a->updates, a->n_updates);
        case_put_metrics(&a->metrics);
        break;
    case TIERED_DO_DELIVER:
        case_put("DELIVER %s %c n=%llu", path, base, n);
        if (a->local_steps > 0) {
            case_put(" steps=%g", a->local_steps);
        }
        case_put_metrics(&a->metrics);
        break;
    case TIERED_DO_DELIVER_INITIAL:
        case_put("DELIVER_INITIAL %u '%s' %llu", a->child, path,
                 (unsigned long long)a->update);
        break;
    case TIERED_DO_DELIVER_EVALUATION:
        case_put("DELIVER_EVALUATION %s %c n=%llu", path, base, n);
        case_put_metrics(&a->metrics);
        break;
    case TIERED_DO_READY:
        case_put("READY");
        break;
    case TIERED_DO_UNREADY:
        case_put("UNREADY (%s)", a->reason);
        break;
    case TIERED_DO_WARN:
        case_put("WARN (%s)", a->reason);
        break;
    case TIERED_DO_FAIL:
        case_put("FAIL '%s' (%s)", path, a->reason);
        break;
    }
}

/* Feed one event; the actions as text, "; " between them. */
static const char *case_feed(const struct tiered_round_event *event)
{
    const struct tiered_round_action *actions;
    size_t n;
    struct tiered_error err;
    case_text[0] = '\0';
    assert_int_equal(tiered_round_step(machine, event, &actions, &n, &err), 0);
    for (size_t i = 0; i < n; i++) {
        case_put("%s", i ? "; " : "");
        case_put_action(&actions[i]);
    }
    return case_text;
}

#define FEED(...) case_feed(&(struct tiered_round_event){__VA_ARGS__})
/* The event's actions are exactly these, in order. */
#define IS(event, text) assert_string_equal((event), (text))

static inline const char *start(const char *path, char base)
{
    return FEED(.kind = TIERED_ON_START, .path = case_path(path),
                .base = case_model(base));
}
static inline const char *initial(const char *path)
{
    return FEED(.kind = TIERED_ON_INITIAL, .path = case_path(path));
}
static inline const char *evaluate(const char *path, char base)
{
    return FEED(.kind = TIERED_ON_EVALUATE, .path = case_path(path),
                .base = case_model(base));
}
static inline const char *ready(uint32_t child)
{
    return FEED(.kind = TIERED_ON_CHILD_READY, .child = child);
}
static inline const char *lost(uint32_t child)
{
    return FEED(.kind = TIERED_ON_CHILD_LOST, .child = child);
}
static inline const char *gone(uint32_t child)
{
    return FEED(.kind = TIERED_ON_CHILD_GONE, .child = child);
}
static inline const char *offer(uint32_t child, const char *path, char base)
{
    return FEED(.kind = TIERED_ON_OFFER, .child = child, .path = case_path(path),
                .base = case_model(base), .generation = 1);
}
static inline const char *update(uint32_t child, const char *path, char base,
                                 uint64_t handle, uint64_t num_examples)
{
    return FEED(.kind = TIERED_ON_UPDATE, .child = child, .path = case_path(path),
                .base = case_model(base), .update = handle,
                .num_examples = num_examples,
                .metrics = {1, {{"loss", (double)handle}}});
}
static inline const char *bad(uint32_t child, const char *path)
{
    return FEED(.kind = TIERED_ON_BAD_UPDATE, .child = child, .path = case_path(path));
}
/* … found while folding it. */
static inline const char *unusable(uint32_t child, const char *path, uint64_t handle)
{
    return FEED(.kind = TIERED_ON_BAD_UPDATE, .child = child, .path = case_path(path),
                .update = handle, .reason = "a checksum is wrong");
}
static inline const char *message(uint32_t child, const char *path, uint32_t phase,
                                  uint32_t step)
{
    return FEED(.kind = TIERED_ON_PHASE, .child = child, .path = case_path(path),
                .phase = phase, .step = step);
}
static inline const char *bad_message(uint32_t child, const char *path, uint32_t phase,
                                      uint32_t step)
{
    return FEED(.kind = TIERED_ON_PHASE_BAD, .child = child, .path = case_path(path),
                .phase = phase, .step = step, .reason = "forged");
}

static inline const char *lost_keys(uint32_t child, const char *path)
{
    return FEED(.kind = TIERED_ON_PHASE_LOST, .child = child, .path = case_path(path));
}

static inline const char *phase_failed(const char *path)
{
    return FEED(.kind = TIERED_ON_PHASE_FAILED, .path = case_path(path),
                .reason = "too few");
}

static inline const char *aggregated_group(char model, uint64_t num_examples)
{
    return FEED(.kind = TIERED_ON_AGGREGATED, .base = case_model(model),
                .num_examples = num_examples);
}

static inline const char *not_aggregated_early(const char *path)
{
    return FEED(.kind = TIERED_ON_NOT_AGGREGATED, .path = case_path(path));
}

static inline const char *aggregated(char model)
{
    return FEED(.kind = TIERED_ON_AGGREGATED, .base = case_model(model));
}
static inline const char *not_aggregated(void)
{
    return FEED(.kind = TIERED_ON_NOT_AGGREGATED);
}
static inline const char *committed(void)
{
    return FEED(.kind = TIERED_ON_COMMITTED);
}
static inline const char *evaluation(uint32_t child, const char *path, char base,
                                     uint64_t num_examples, double accuracy)
{
    return FEED(.kind = TIERED_ON_EVALUATION, .child = child, .path = case_path(path),
                .base = case_model(base), .num_examples = num_examples,
                .metrics = {1, {{"accuracy", accuracy}}});
}
static inline const char *timer(enum tiered_round_timer which)
{
    return FEED(.kind = TIERED_ON_TIMER, .timer = which,
                .timer_id = case_timers[which]);
}
static inline const char *delivered(const char *path)
{
    return FEED(.kind = TIERED_ON_DELIVERED, .path = case_path(path));
}
static inline const char *stop(void)
{
    return FEED(.kind = TIERED_ON_STOP);
}
static inline const char *why(void)
{
    static char text[512];
    tiered_round_why(machine, NULL, NULL, text, sizeof(text));
    return text;
}

/* A node 'fog-0' whose children all must contribute, one round a turn. */
static struct tiered_round_config case_config(uint32_t n_children)
{
    return (struct tiered_round_config){
        .node = "fog-0",
        .n_children = n_children,
        .rounds_per_parent = 1,
        .sample = 1,
        .quorum = 1,
        .seed = 7,
        .generation = 1,
    };
}

static void begin(const struct tiered_round_config *config)
{
    struct tiered_error err;
    tiered_round_destroy(machine);
    machine = NULL;
    assert_int_equal(tiered_round_create(config, &machine, &err), 0);
}

/* … with all children ready. */
static inline void begin_ready(const struct tiered_round_config *config)
{
    begin(config);
    for (uint32_t i = 0; i < config->n_children; i++) {
        ready(i);
    }
}

/* What COMMIT said, kept as a driver would. */
static struct tiered_round_record saved;
static struct tiered_counted saved_contributions[8];

static inline void save(const char *path)
{
    const struct tiered_round_action *actions;
    size_t n;
    struct tiered_error err;
    struct tiered_round_event event = {.kind = TIERED_ON_AGGREGATED,
                                       .base = case_model(path[0])};
    assert_int_equal(tiered_round_step(machine, &event, &actions, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(actions[0].kind, TIERED_DO_COMMIT);
    saved = *actions[0].record;
    memcpy(saved_contributions, saved.contributions,
           saved.n_contributions * sizeof(*saved.contributions));
    saved.contributions = saved_contributions;
}

static inline void restart(const struct tiered_round_config *config)
{
    struct tiered_error err;
    begin(config);
    assert_int_equal(tiered_round_restore(machine, &saved, &err), 0);
}

static int case_teardown(void **state)
{
    (void)state;
    tiered_round_destroy(machine);
    machine = NULL;
    return 0;
}

#endif
