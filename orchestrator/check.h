/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The conformance kit, `tiered plugins check`: what every plugin of a kind must do.
 * Each check runs in a child process of its own that opens the file anew, so that a
 * plugin which crashes, hangs or exits fails that check and nothing else.
 *
 *     check.c              the checks of one file, one child process each
 *     check_report.c       what the command says of them
 *     check_guard.c        buffers whose ends cannot be crossed unseen
 *     check_common.c       what every kind is checked for
 *     check_KIND.c …       what one kind is checked for
 *
 * A check returns 0, or -1 with the reason in *err, or check_skip(). All but check.c
 * and check_report.c runs in the child alone.
 */
#ifndef TIERED_ORCHESTRATOR_CHECK_H
#define TIERED_ORCHESTRATOR_CHECK_H

#include <jansson.h>

#include "core/options/options.h"
#include "core/plugins/hosting.h"
#include "core/plugins/plugins.h"

enum check_verdict {
    CHECK_OK,
    CHECK_FAILED,
    CHECK_SKIPPED, /* this plugin does not promise it; the text says why */
};

struct check_result {
    const char *name;
    enum check_verdict verdict;
    char text[512]; /* the reason; "" when ok */
    double seconds;
};

/** Memory that the child shares with its parent, so that a crash does not lose it. */
struct check_report {
    uint32_t finished; /* the verdict holds */
    enum check_verdict verdict;
    char text[512];
    char step[160]; /* what is being tried */
    enum tiered_kind kind;
    char plugin[40], version[40];
    struct tiered_digest digest;
};

struct check_kind;
struct check {
    struct check_report *report;
    const struct check_kind *kind;
    const char *path, *options; /* as the user wrote them; NULL: none */
    struct tiered_loaded loaded;
    struct tiered_config config; /* the user's options and what had to be chosen */
    struct tiered_hosting hosting;
};

struct check_case {
    const char *name;
    int (*run)(struct check *check, struct tiered_error *err);
};

/** What check_common.c and check.c need to know of a kind. */
struct check_kind {
    int (*open)(struct check *check, const void *config, void **ret_state,
                struct tiered_error *err);
    void (*close)(struct check *check, void *state);
    /** One ordinary round or pass, to find what it leaks; NULL: none. */
    int (*use)(struct check *check, void *state, struct tiered_error *err);
    const struct check_case *cases;
    size_t n_cases;
};
extern const struct check_kind check_aggregator, check_optimizer, check_filter,
    check_group, check_transport, check_trainer;

/* check.c */
struct check_job {
    const char *path, *options;
    uint64_t limit_ms; /* of one check */
    /** Called in the parent as each check ends. */
    void (*done)(void *user, const struct check_result *result);
    void *user;
};
struct check_summary {
    size_t n_ok, n_failed, n_skipped;
    struct check_report about; /* kind, plugin, version, digest; kind 0: not opened */
};
/** Runs every check of one file. -1: the kit itself cannot run. */
int check_file(const struct check_job *job, struct check_summary *ret,
               struct tiered_error *err);

/* check_report.c: the command; its exit code. */
int check_command(const char *path, const char *options, uint64_t limit_ms, bool json);

/* check_common.c */
/** Without these the rest makes no sense: the first failure among them is the last
    check. */
extern const struct check_case check_first_cases[];
extern const size_t check_n_first_cases;
extern const struct check_case check_common_cases[];
extern const size_t check_n_common_cases;
const struct check_kind *check_kind_of(enum tiered_kind kind);
/** Say what is tried next: a crash or a hang is reported with it. */
__attribute__((format(printf, 2, 3))) void check_step(struct check *check,
                                                      const char *fmt, ...);
/** The check does not apply. Always 0. */
__attribute__((format(printf, 2, 3))) int check_skip(struct check *check,
                                                     const char *fmt, ...);
/** A plugin's call failed where it must not: its reason behind `what`. Always -1. */
int check_call_failed(const char *what, const struct tiered_error *why,
                      struct tiered_error *err);
/** A plugin may refuse, but must say why: 0, or -1 when *why says nothing. */
int check_refusal(const char *what, const struct tiered_error *why,
                  struct tiered_error *err);
/** Fill ret from the user's options, what is required and missing, and `more` (a
    mapping that wins; may be NULL, consumed). */
int check_fill(const struct check *check, json_t *more, struct tiered_config *ret,
               struct tiered_error *err);
int check_open(struct check *check, void **ret_state, struct tiered_error *err);
void check_close(struct check *check, void *state);
/** The same bits, whatever they stand for. */
bool check_same_bits(const void *a, const void *b, size_t size);
/** Run `body` on n threads at once; false from any of them is false. */
bool check_threads(size_t n, bool (*body)(void *user, size_t thread), void *user);

/* check_symbols.c: exports tiered_plugin and nothing else. */
int check_symbols(struct check *check, struct tiered_error *err);

/* check_guard.c */
/** A buffer that ends where a page begins that nobody may touch. Whoever does ends the
    check with a reason that names `what`. */
struct guard {
    uint8_t *data;
    size_t size;
    const char *what;
    uint8_t *map;
    size_t room; /* of the pages in front of the forbidden one */
};
/** End the check at once: it failed because the plugin `how` `what`. */
_Noreturn void check_end(const char *how, const char *what);
/** Memory of the kit itself; none left ends the check. */
void *check_must(void *p);
/** Crashes at a guard become the report's reason from here on. */
void guard_watch(struct check_report *report);
/** Out of memory ends the check. Every byte starts as GUARD_FILL. */
struct guard guard_make(const char *what, size_t size);
/** The same pages for another size, at most the first one. */
void guard_fit(struct guard *guard, size_t size);
void guard_freeze(struct guard *guard); /* read-only from here on */
void guard_thaw(struct guard *guard);
/** Also looks at the bytes in front of the buffer. Zeroed: nothing. */
void guard_free(struct guard *guard);
#define GUARD_FILL 0xA5

#endif
