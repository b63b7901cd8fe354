/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What every room of core uses: positions in files, clean-up attributes, checked sizes,
 * growable bytes, digests, checksums and seeds. Everything here is thread-safe in the
 * plain sense: no shared state.
 */
#ifndef TIERED_CORE_BASE_H
#define TIERED_CORE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "tiered/error.h"

/** A place in a file: 1-based line and column; `file` outlives the mark. */
struct tiered_mark {
    const char *file;
    uint32_t line, column;
};

/** tiered_fail() with a position. Always -1. */
__attribute__((format(printf, 4, 5))) int tiered_fail_at(struct tiered_error *err,
                                                         enum tiered_code code,
                                                         struct tiered_mark mark,
                                                         const char *fmt, ...);
#ifdef __clang_analyzer__ /* see tiered_failed() */
#define tiered_fail_at(...) (tiered_fail_at(__VA_ARGS__), tiered_failed())
#endif

#define TIERED_CLEANUP(fn) __attribute__((cleanup(fn)))
#define TIERED_DEFINE_FREE(type, fn)                                                   \
    static inline void fn##p(type **p)                                                 \
    {                                                                                  \
        fn(*p);                                                                        \
    }
#define TIERED_FREE TIERED_CLEANUP(tiered_freep)
static inline void tiered_freep(void *p)
{
    free(*(void **)p);
}
/** Hand a cleaned-up local over: `*ret = TIERED_STEAL(thing);` */
#define TIERED_STEAL(p)                                                                \
    ({                                                                                 \
        __typeof__(p) stolen_ = (p);                                                   \
        (p) = NULL;                                                                    \
        stolen_;                                                                       \
    })
#define TIERED_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/** a * b, a + b: false and *ret untouched on overflow. */
static inline bool tiered_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}
static inline bool tiered_add(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_add_overflow(a, b, ret);
}

/** Growable bytes; zeroed is empty; data is always followed by a NUL once not NULL. */
struct tiered_bytes {
    uint8_t *data;
    size_t size, capacity;
};
int tiered_bytes_append(struct tiered_bytes *b, const void *data, size_t n,
                        struct tiered_error *err);
__attribute__((format(printf, 2, 3))) int tiered_bytes_printf(struct tiered_bytes *b,
                                                              const char *fmt, ...);
void tiered_bytes_finish(struct tiered_bytes *b);

/** Pages for a large buffer: at least `n` bytes, page-aligned, taken up when they are
    first touched. NULL: no memory. map's are zero; map_any's may hold what another
    buffer of this process held. cut gives back what lies behind `used` bytes, after
    which the buffer has that size; unmap takes NULL, and may keep a large buffer for
   the next of its size. tidy gives back those that waited so long. Any thread. */
void *tiered_map(size_t n);
void *tiered_map_any(size_t n);
void tiered_map_cut(void *p, size_t n, size_t used);
void tiered_unmap(void *p, size_t n);
void tiered_map_tidy(uint64_t waiting_ms);

/** SHA-256. Zero bytes mean "none". */
struct tiered_digest {
    uint8_t bytes[32];
};
struct tiered_hash;                           /* a running SHA-256 */
struct tiered_hash *tiered_hash_create(void); /* NULL: out of memory */
void tiered_hash_update(struct tiered_hash *hash, const void *data, size_t n);
void tiered_hash_final(struct tiered_hash *hash, struct tiered_digest *ret);
void tiered_hash_destroy(struct tiered_hash *hash);
void tiered_digest_of(const void *data, size_t n, struct tiered_digest *ret);
bool tiered_digest_equal(const struct tiered_digest *a, const struct tiered_digest *b);
bool tiered_digest_is_none(const struct tiered_digest *d);
/** 64 hex digits and a NUL. */
void tiered_digest_hex(const struct tiered_digest *d, char out[65]);
bool tiered_digest_parse(const char *hex, struct tiered_digest *ret);

/** CRC-32C (Castagnoli), as in iSCSI; hardware where there is some. Start with 0. */
uint32_t tiered_crc32c(uint32_t crc, const void *data, size_t n);
/** Its twin by tables, for machines without the instruction (and to test against). */
uint32_t tiered_crc32c_portable(uint32_t crc, const void *data, size_t n);

/** HMAC-SHA256(run seed, purpose, node, round path): design.md section 5. */
void tiered_seed(uint64_t run_seed, const char *purpose, const char *node,
                 const char *path, uint8_t out[32]);
/** The operating system's generator. */
int tiered_secret(void *out, size_t n, struct tiered_error *err);

/** Monotonic and wall-clock milliseconds. Never called by core/round. */
uint64_t tiered_now_ms(void);
uint64_t tiered_wall_ms(void);
/** The wall clock now, "2026-01-31T12:00:00.123Z". */
void tiered_wall_text(char out[32]);

/** Whole files. read: refuses more than `limit` bytes before reading; TIERED_ENOENT
   when there is no such file. write: a temporary file beside it, fsync, rename, fsync
   of the folder: the old or the new, never a mix. A link is followed; what is no
   regular file
   (/dev/stdout) is written in place. `mode` is subject to the umask. */
int tiered_file_read(const char *path, size_t limit, struct tiered_bytes *ret,
                     struct tiered_error *err);
int tiered_file_write(const char *path, const void *data, size_t n,
                      struct tiered_error *err);
int tiered_file_write_mode(const char *path, unsigned mode, const void *data, size_t n,
                           struct tiered_error *err);
/** The folder and those above it; `mode` for each one made. */
/** The same for what does not lie in one piece: the parts one after the other. */
struct tiered_part {
    const void *data;
    size_t size;
};
int tiered_file_write_parts(const char *path, unsigned mode,
                            const struct tiered_part *parts, size_t n,
                            struct tiered_error *err);
/** Exactly n bytes at a place of an open file. A file that ends before is ECORRUPT. The
    caller puts the file's name in front of the error. */
int tiered_read_at(int fd, void *out, size_t n, uint64_t offset,
                   struct tiered_error *err);
int tiered_write_at(int fd, const void *data, size_t n, uint64_t offset,
                    struct tiered_error *err);
int tiered_mkdirs(const char *path, unsigned mode, struct tiered_error *err);
int tiered_fsync_folder(const char *path, struct tiered_error *err);

/** The candidate nearest to `word` (Damerau-Levenshtein, at most a third of its length
    away), or NULL: "did you mean 'fedavg'?". */
const char *tiered_nearest(const char *word, const char *const *candidates, size_t n);

/** "512MiB", "1GB", "64KiB", "100B"; "500ms", "30s", "10m", "2h". A unit is required.
 */
bool tiered_parse_bytes(const char *text, uint64_t *ret);
bool tiered_parse_duration(const char *text, uint64_t *ret_ms);
/** Human forms: "38.1 MiB", "2m 05s". */
void tiered_format_bytes(uint64_t n, char out[32]);
void tiered_format_duration(uint64_t ms, char out[32]);

#endif
