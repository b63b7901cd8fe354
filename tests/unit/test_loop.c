/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop and the worker pool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "core/loop/loop.h"
#include "core/loop/pool.h"

struct log {
    struct tiered_loop *loop;
    int seen[8], n;
};

struct step {
    struct log *log;
    int id;
};

static void note(void *arg)
{
    struct step *s = arg;
    s->log->seen[s->log->n++] = s->id;
}

static void note_and_stop(void *arg)
{
    note(arg);
    tiered_loop_stop(((struct step *)arg)->log->loop);
}

static void *post_from_thread(void *arg)
{
    struct step *s = arg;
    tiered_loop_post(s->log->loop, note, &s[0]);
    tiered_loop_post(s->log->loop, note_and_stop, &s[1]);
    return NULL;
}

static void posts_keep_their_order_across_threads(void **state)
{
    (void)state;
    struct log log = {0};
    assert_int_equal(tiered_loop_create(&log.loop, NULL), 0);
    struct step steps[2] = {{&log, 1}, {&log, 2}};
    pthread_t t;
    pthread_create(&t, NULL, post_from_thread, steps);
    assert_int_equal(tiered_loop_run(log.loop, NULL), 0);
    pthread_join(t, NULL);
    assert_int_equal(log.n, 2);
    assert_int_equal(log.seen[0], 1);
    assert_int_equal(log.seen[1], 2);
    tiered_loop_destroy(log.loop);
}

static void timers_fire_by_due_time_and_can_be_cancelled(void **state)
{
    (void)state;
    struct log log = {0};
    assert_int_equal(tiered_loop_create(&log.loop, NULL), 0);
    struct step steps[4] = {{&log, 1}, {&log, 2}, {&log, 3}, {&log, 4}};
    struct tiered_timer timers[4] = {0};
    tiered_loop_timer(log.loop, &timers[0], 20, note_and_stop, &steps[0]);
    tiered_loop_timer(log.loop, &timers[1], 5, note, &steps[1]);
    tiered_loop_timer(log.loop, &timers[2], 1, note, &steps[2]);
    tiered_loop_timer(log.loop, &timers[3], 10, note, &steps[3]);
    tiered_loop_cancel(log.loop, &timers[3]);
    tiered_loop_cancel(log.loop, &timers[3]);
    tiered_loop_timer(log.loop, &timers[2], 10, note, &steps[2]); /* moved */
    tiered_loop_run(log.loop, NULL);
    assert_int_equal(log.n, 3);
    assert_int_equal(log.seen[0], 2);
    assert_int_equal(log.seen[1], 3);
    assert_int_equal(log.seen[2], 1);
    tiered_loop_destroy(log.loop);
}

static void each_stop_ends_one_run(void **state)
{
    (void)state;
    struct log log = {0};
    assert_int_equal(tiered_loop_create(&log.loop, NULL), 0);
    struct step steps[3] = {{&log, 1}, {&log, 2}, {&log, 3}};
    tiered_loop_stop(log.loop); /* before the run: it ends at once */
    tiered_loop_post(log.loop, note_and_stop, &steps[0]);
    assert_int_equal(tiered_loop_run(log.loop, NULL), 0);
    assert_int_equal(log.n, 0);
    assert_int_equal(tiered_loop_run(log.loop, NULL), 0);
    assert_int_equal(log.n, 1);
    tiered_loop_post(log.loop, note, &steps[1]);
    tiered_loop_post(log.loop, note_and_stop, &steps[2]);
    assert_int_equal(tiered_loop_run(log.loop, NULL), 0);
    assert_int_equal(log.n, 3);
    assert_int_equal(log.seen[2], 3);
    tiered_loop_destroy(log.loop);
}

struct reader {
    struct tiered_loop *loop;
    int fd, other, calls;
};

static void read_once(void *arg)
{
    struct reader *r = arg;
    char c;
    assert_int_equal(read(r->fd, &c, 1), 1);
    r->calls++;
    tiered_loop_unwatch(r->loop, r->fd);
    tiered_loop_unwatch(r->loop, r->other); /* perhaps among the events at hand */
    tiered_loop_stop(r->loop);
}

static void a_removed_watch_is_not_called(void **state)
{
    (void)state;
    struct tiered_loop *loop;
    assert_int_equal(tiered_loop_create(&loop, NULL), 0);
    int a[2], b[2];
    assert_int_equal(pipe(a), 0);
    assert_int_equal(pipe(b), 0);
    struct reader ra = {loop, a[0], b[0], 0}, rb = {loop, b[0], a[0], 0};
    assert_int_equal(tiered_loop_watch(loop, a[0], read_once, &ra, NULL), 0);
    assert_int_equal(tiered_loop_watch(loop, b[0], read_once, &rb, NULL), 0);
    assert_int_equal(write(a[1], "x", 1), 1);
    assert_int_equal(write(b[1], "x", 1), 1);
    tiered_loop_run(loop, NULL);
    assert_int_equal(ra.calls + rb.calls, 1);
    tiered_loop_destroy(loop);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

struct sum {
    atomic_ullong total;
    atomic_uint most_worker;
    size_t fail_at;
};

static int add_index(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    struct sum *s = user;
    if (i == s->fail_at) {
        return tiered_fail(err, TIERED_ERANGE, "item %zu", i);
    }
    atomic_fetch_add(&s->total, i);
    unsigned most = atomic_load(&s->most_worker);
    while (worker > most &&
           !atomic_compare_exchange_weak(&s->most_worker, &most, worker)) {
    }
    return 0;
}

static void a_parallel_loop_runs_each_index_once(void **state)
{
    (void)state;
    struct tiered_pool *pool;
    assert_int_equal(tiered_pool_create(3, &pool, NULL), 0);
    for (size_t n = 0; n < 200; n += 37) {
        struct sum s = {.fail_at = SIZE_MAX};
        assert_int_equal(tiered_pool_for(pool, n, add_index, &s, NULL), 0);
        assert_int_equal(atomic_load(&s.total), n ? n * (n - 1) / 2 : 0);
        assert_true(atomic_load(&s.most_worker) <= tiered_pool_threads(pool));
    }
    tiered_pool_destroy(pool);
}

static void a_parallel_loop_reports_its_failure(void **state)
{
    (void)state;
    struct tiered_pool *pool;
    assert_int_equal(tiered_pool_create(2, &pool, NULL), 0);
    struct sum s = {.fail_at = 17};
    struct tiered_error err;
    assert_int_equal(tiered_pool_for(pool, 1000, add_index, &s, &err), -1);
    assert_int_equal(err.code, TIERED_ERANGE);
    assert_string_equal(err.text, "item 17");
    tiered_pool_destroy(pool);
}

struct nested {
    struct tiered_pool *pool;
    struct sum inner;
};

static int run_inner(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    (void)i;
    (void)worker;
    struct nested *n = user;
    return tiered_pool_for(n->pool, 50, add_index, &n->inner, err);
}

static void loops_nest_without_deadlock(void **state)
{
    (void)state;
    struct nested n = {.inner.fail_at = SIZE_MAX};
    assert_int_equal(tiered_pool_create(2, &n.pool, NULL), 0);
    assert_int_equal(tiered_pool_for(n.pool, 40, run_inner, &n, NULL), 0);
    assert_int_equal(atomic_load(&n.inner.total), 40 * 50 * 49 / 2);
    tiered_pool_destroy(n.pool);
}

static void count_job(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void destroy_runs_what_is_queued(void **state)
{
    (void)state;
    struct tiered_pool *pool;
    atomic_int n = 0;
    assert_int_equal(tiered_pool_create(2, &pool, NULL), 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(tiered_pool_submit(pool, count_job, &n, NULL), 0);
    }
    tiered_pool_destroy(pool);
    assert_int_equal(atomic_load(&n), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_keep_their_order_across_threads),
        cmocka_unit_test(timers_fire_by_due_time_and_can_be_cancelled),
        cmocka_unit_test(each_stop_ends_one_run),
        cmocka_unit_test(a_removed_watch_is_not_called),
        cmocka_unit_test(a_parallel_loop_runs_each_index_once),
        cmocka_unit_test(a_parallel_loop_reports_its_failure),
        cmocka_unit_test(loops_nest_without_deadlock),
        cmocka_unit_test(destroy_runs_what_is_queued),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
