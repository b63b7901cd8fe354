/* SPDX-License-Identifier: Apache-2.0 */
/* What every kind of plugin is checked for: the descriptor, and a life that begins and
   ends cleanly. */
#include "orchestrator/check.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define SUMMARY_MAX_BYTES 200
#define LIVES_TO_WARM_UP  8
#define LIVES_A_WINDOW    8
#define N_WINDOWS         4
#define LIVES_LIMIT_MS    1500

const struct check_kind *check_kind_of(enum tiered_kind kind)
{
    static const struct check_kind *const kinds[] = {
        [TIERED_AGGREGATOR] = &check_aggregator, [TIERED_OPTIMIZER] = &check_optimizer,
        [TIERED_FILTER] = &check_filter,         [TIERED_GROUP] = &check_group,
        [TIERED_TRANSPORT] = &check_transport,   [TIERED_TRAINER] = &check_trainer,
    };
    return kinds[kind];
}

void check_step(struct check *check, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(check->report->step, sizeof(check->report->step), fmt, args);
    va_end(args);
}

int check_skip(struct check *check, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(check->report->text, sizeof(check->report->text), fmt, args);
    va_end(args);
    check->report->verdict = CHECK_SKIPPED;
    return 0;
}

int check_refusal(const char *what, const struct tiered_error *why,
                  struct tiered_error *err)
{
    if (!why->text[0] || why->code == TIERED_OK) {
        return tiered_fail(err, TIERED_EINVAL, "%s fails without saying why", what);
    }
    if (strchr(why->text, '\n')) {
        return tiered_fail(err, TIERED_EINVAL, "the reason of %s has several lines",
                           what);
    }
    return 0;
}

int check_call_failed(const char *what, const struct tiered_error *why,
                      struct tiered_error *err)
{
    return check_refusal(what, why, err) < 0
               ? -1
               : tiered_fail(err, TIERED_EINVAL, "%s fails: %.180s", what, why->text);
}

bool check_same_bits(const void *a, const void *b, size_t size)
{
    return size == 0 || memcmp(a, b, size) == 0;
}

struct thread {
    pthread_t id;
    bool (*body)(void *user, size_t thread);
    void *user;
    size_t index;
    bool good;
};

static void *thread_main(void *arg)
{
    struct thread *thread = arg;
    thread->good = thread->body(thread->user, thread->index);
    return NULL;
}

bool check_threads(size_t n, bool (*body)(void *user, size_t thread), void *user)
{
    struct thread threads[16];
    bool good = true;
    n = n < TIERED_COUNT(threads) ? n : TIERED_COUNT(threads);
    for (size_t i = 0; i < n; i++) {
        threads[i] = (struct thread){.body = body, .user = user, .index = i};
        if (pthread_create(&threads[i].id, NULL, thread_main, &threads[i]) != 0) {
            check_end("the kit cannot start ", "a thread");
        }
    }
    for (size_t i = 0; i < n; i++) {
        pthread_join(threads[i].id, NULL);
        good = good && threads[i].good;
    }
    return good;
}

/* ---- options ---- */

/* A value for what must be written: one within its range. NULL: only the user knows. */
static json_t *choose(const struct tiered_option *row)
{
    bool any = row->min == 0 && row->max == 0;
    double value = any || (row->min < 1 && row->max > 1) ? 1
                   : row->max < 1e300                    ? (row->min + row->max) / 2
                                                         : row->min + 1;
    switch (row->type) {
    case TIERED_BOOLEAN:
        return json_true();
    case TIERED_INTEGER:
        return json_integer((json_int_t)value);
    case TIERED_DOUBLE:
        return json_real(value);
    case TIERED_DURATION:
        return json_string("1s");
    case TIERED_BYTES:
        return json_string("64KiB");
    case TIERED_CHOICE:
        return row->n_nested ? json_string(row->nested[0].name) : NULL;
    default:
        return NULL;
    }
}

static int add_required(const struct tiered_plugin *plugin, json_t *options,
                        struct tiered_error *err)
{
    for (size_t i = 0; i < plugin->n_options; i++) {
        struct tiered_option row =
            tiered_option_row(plugin->options, plugin->option_size, i);
        if (!(row.flags & TIERED_REQUIRED) || json_object_get(options, row.name)) {
            continue;
        }
        json_t *value = choose(&row);
        if (!value) {
            return tiered_fail(err, TIERED_EINVAL,
                               "option '%s' is required: say it by --options '%s=…'",
                               row.name, row.name);
        }
        json_object_set_new(options, row.name, value);
    }
    return 0;
}

int check_fill(const struct check *check, json_t *more, struct tiered_config *ret,
               struct tiered_error *err)
{
    TIERED_FREE char *written =
        tiered_options_parse(check->options ? check->options : "", err);
    json_t *options = written ? json_loads(written, 0, NULL) : NULL;
    TIERED_FREE char *text = NULL;
    int result = -1;
    if (options && add_required(&check->loaded.plugin, options, err) == 0) {
        json_object_update(options, more);
        text = json_dumps(options, 0);
        result = tiered_config_from_json(&check->loaded.plugin, text, ret, err);
    }
    json_decref(options);
    json_decref(more);
    return result;
}

int check_open(struct check *check, void **ret_state, struct tiered_error *err)
{
    struct tiered_error why = {0};
    *ret_state = NULL;
    if (check->kind->open(check, check->config.data, ret_state, &why) < 0) {
        return check_call_failed("init", &why, err);
    }
    return 0;
}

void check_close(struct check *check, void *state)
{
    check->kind->close(check, state);
}

static json_t *range_end(const struct tiered_option *row, double end)
{
    return row->type == TIERED_INTEGER ? json_integer((json_int_t)end) : json_real(end);
}

/* An init with one option changed: it works, or says why not. */
static int try_option(struct check *check, const char *name, json_t *value,
                      struct tiered_error *err)
{
    struct tiered_config config = {0};
    struct tiered_error why = {0};
    void *state = NULL;
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    check_step(check, "init with %s=%.60s", name, text);
    free(text);
    if (check_fill(check, json_pack("{s:o}", name, value), &config, err) < 0) {
        return tiered_error_prefix(err, "option '%s': ", name);
    }
    int result = check->kind->open(check, config.data, &state, &why);
    if (result == 0) {
        check->kind->close(check, state);
    }
    tiered_config_finish(&config);
    return result == 0 ? 0 : check_refusal("init", &why, err);
}

static int try_ends(struct check *check, const struct tiered_option *row,
                    struct tiered_error *err)
{
    bool bounded = row->min != 0 || row->max != 0;
    if (bounded && row->min > -1e15 && !(row->flags & TIERED_EXCLUSIVE_MIN) &&
        try_option(check, row->name, range_end(row, row->min), err) < 0) {
        return -1;
    }
    if (bounded && row->max < 1e15 && !(row->flags & TIERED_EXCLUSIVE_MAX)) {
        return try_option(check, row->name, range_end(row, row->max), err);
    }
    return 0;
}

static int try_row(struct check *check, const struct tiered_option *row,
                   struct tiered_error *err)
{
    switch (row->type) {
    case TIERED_INTEGER:
    case TIERED_DOUBLE:
        return try_ends(check, row, err);
    case TIERED_BOOLEAN:
        return try_option(check, row->name, json_true(), err) < 0
                   ? -1
                   : try_option(check, row->name, json_false(), err);
    case TIERED_CHOICE:
        for (size_t i = 0; i < row->n_nested; i++) {
            struct tiered_option one =
                tiered_option_row(row->nested, check->loaded.plugin.option_size, i);
            if (one.n_nested == 0 &&
                try_option(check, row->name, json_string(one.name), err) < 0) {
                return -1;
            }
        }
        return 0;
    default:
        return 0;
    }
}

static int check_options(struct check *check, struct tiered_error *err)
{
    const struct tiered_plugin *plugin = &check->loaded.plugin;
    struct tiered_config config = {0};
    struct tiered_error why = {0};
    for (size_t i = 0; i < plugin->n_options; i++) {
        struct tiered_option row =
            tiered_option_row(plugin->options, plugin->option_size, i);
        if (!row.help || !row.help[0]) {
            return tiered_fail(err, TIERED_EINVAL, "option '%s' has no help", row.name);
        }
        if (try_row(check, &row, err) < 0) {
            return -1;
        }
    }
    if (check_fill(check, json_pack("{s:i}", "no-such-option", 1), &config, &why) ==
        0) {
        return tiered_fail(err, TIERED_EINVAL, "an option 'no-such-option' is taken");
    }
    return 0;
}

/* ---- descriptor ---- */

static int check_file_name(const struct check *check, struct tiered_error *err)
{
    const char *name = check->loaded.plugin.name, *slash = strrchr(check->path, '/');
    const char *file = slash ? slash + 1 : check->path;
    size_t n = strlen(name);
    if (strncmp(file, name, n) != 0 || strcmp(file + n, ".so") != 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "its plugin is called '%s', so the file should be '%s.so'",
                           name, name);
    }
    return 0;
}

static bool is_one_line(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 32) {
            return false;
        }
    }
    return true;
}

/* Bits that make sense for the kind. */
static uint32_t possible_traits(enum tiered_kind kind)
{
    switch (kind) {
    case TIERED_AGGREGATOR:
        return TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_COMPOSES_EXACTLY |
               TIERED_ACCEPTS_BLOBS | TIERED_CONCURRENT | TIERED_ALLOWS_BAD_UPDATES |
               TIERED_SCALES | TIERED_REPLICATES;
    case TIERED_FILTER:
        return TIERED_LOSSY | TIERED_NEEDS_SCAN | TIERED_ACCEPTS_BLOBS |
               TIERED_CONCURRENT | TIERED_PRIVACY | TIERED_COMPOSES_EXACTLY |
               TIERED_NEEDS_VALUES | TIERED_CHANGES_ONLY;
    case TIERED_TRANSPORT:
        return TIERED_LOCAL_ONLY | TIERED_BROKERED | TIERED_CONCURRENT;
    case TIERED_OPTIMIZER:
    case TIERED_TRAINER:
        return TIERED_CONCURRENT | TIERED_ACCEPTS_BLOBS;
    default:
        return UINT32_MAX;
    }
}

static int check_traits(const struct tiered_plugin *plugin, struct tiered_error *err)
{
    uint32_t wrong = plugin->traits & ~possible_traits(plugin->kind);
    for (uint32_t bit = 1; bit; bit <<= 1) {
        const char *name = tiered_trait_name(bit);
        if ((plugin->traits & bit) && !name) {
            return tiered_fail(err, TIERED_EINVAL, "its trait 0x%x is unknown", bit);
        }
        if (wrong & bit) {
            return tiered_fail(err, TIERED_EINVAL,
                               "the trait %s means nothing for the kind %s", name,
                               tiered_kind_name(plugin->kind));
        }
    }
    return 0;
}

/* Loading has checked what the host must have; this is what users see of it. */
static int check_descriptor(struct check *check, struct tiered_error *err)
{
    const struct tiered_plugin *plugin = &check->loaded.plugin;
    if (check_file_name(check, err) < 0 || check_traits(plugin, err) < 0) {
        return -1;
    }
    if (!is_one_line(plugin->summary) || strlen(plugin->summary) > SUMMARY_MAX_BYTES) {
        return tiered_fail(err, TIERED_EINVAL,
                           "its summary is not one line of at most %u bytes",
                           SUMMARY_MAX_BYTES);
    }
    if (!is_one_line(plugin->version) || strlen(plugin->version) > 32) {
        return tiered_fail(err, TIERED_EINVAL,
                           "its version is not one line of at most 32 bytes");
    }
    return 0;
}

/* ---- lives ---- */

struct holdings {
    size_t bytes, descriptors, threads;
};

static size_t count_entries(const char *folder)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    while (dir && readdir(dir)) {
        n++;
    }
    if (dir) {
        closedir(dir);
    }
    return n;
}

/* Sanitizers keep their own heap: the bytes are then always 0. */
static struct holdings holdings_now(void)
{
    struct mallinfo2 info = mallinfo2();
    return (struct holdings){.bytes = info.uordblks + info.hblkhd,
                             .descriptors = count_entries("/proc/self/fd"),
                             .threads = count_entries("/proc/self/task")};
}

static int live_once(struct check *check, struct tiered_error *err)
{
    void *state;
    if (check_open(check, &state, err) < 0) {
        return -1;
    }
    int result = check->kind->use ? check->kind->use(check, state, err) : 0;
    check_close(check, state);
    return result;
}

static int live_often(struct check *check, size_t most, size_t least, size_t *ret_lives,
                      struct tiered_error *err)
{
    uint64_t end = tiered_now_ms() + LIVES_LIMIT_MS;
    size_t lives = 0;
    for (; lives < most && (lives < least || tiered_now_ms() < end); lives++) {
        check_step(check, "init, use and destroy, time %zu", lives + 1);
        if (live_once(check, err) < 0) {
            return -1;
        }
    }
    *ret_lives = lives;
    return 0;
}

static size_t grown(size_t before, size_t after)
{
    return after > before ? after - before : 0;
}

/* What grows in every window: a cache or a library's threads grow in some, a leak in
   each. */
static int compare_holdings(const struct holdings at[N_WINDOWS + 1], size_t lives,
                            struct tiered_error *err)
{
    size_t descriptors = grown(at[0].descriptors, at[N_WINDOWS].descriptors);
    size_t threads = grown(at[0].threads, at[N_WINDOWS].threads);
    size_t bytes = SIZE_MAX;
    for (size_t i = 0; i < N_WINDOWS; i++) {
        size_t one = grown(at[i].bytes, at[i + 1].bytes);
        bytes = one < bytes ? one : bytes;
    }
    if (descriptors > 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "%zu file descriptors left open by %zu lives", descriptors,
                           N_WINDOWS * lives);
    }
    if (threads > 0) {
        return tiered_fail(err, TIERED_EINVAL, "%zu threads left running by %zu lives",
                           threads, N_WINDOWS * lives);
    }
    return bytes < 16 * lives
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "%zu bytes leak each time from init to destroy",
                             bytes / lives);
}

static int check_lives(struct check *check, struct tiered_error *err)
{
    struct holdings at[N_WINDOWS + 1];
    size_t lives;
    if (live_often(check, LIVES_TO_WARM_UP, 2, &lives, err) < 0) {
        return -1;
    }
    at[0] = holdings_now();
    lives = LIVES_A_WINDOW;
    for (size_t i = 0; i < N_WINDOWS; i++) {
        /* as many as there was time for in the first one */
        if (live_often(check, lives, i == 0 ? 2 : lives, &lives, err) < 0) {
            return -1;
        }
        at[i + 1] = holdings_now();
    }
    return compare_holdings(at, lives, err);
}

/* One state serves one node, and an agent hosts several. */
static int check_two_states(struct check *check, struct tiered_error *err)
{
    void *first, *second;
    if (check_open(check, &first, err) < 0) {
        return -1;
    }
    if (check_open(check, &second, err) < 0) {
        check_close(check, first);
        return tiered_error_prefix(err, "with another state alive, ");
    }
    check_close(check, first);
    int result = check->kind->use ? check->kind->use(check, second, err) : 0;
    check_close(check, second);
    return result;
}

static int check_loads(struct check *check, struct tiered_error *err)
{
    void *state;
    if (check_open(check, &state, err) < 0) {
        return -1;
    }
    check_close(check, state);
    return 0;
}

const struct check_case check_first_cases[] = {{"loads", check_loads}};
const size_t check_n_first_cases = TIERED_COUNT(check_first_cases);

const struct check_case check_common_cases[] = {
    {"descriptor", check_descriptor}, {"exported symbols", check_symbols},
    {"options", check_options},       {"init and destroy", check_lives},
    {"two states", check_two_states},
};
const size_t check_n_common_cases = TIERED_COUNT(check_common_cases);
