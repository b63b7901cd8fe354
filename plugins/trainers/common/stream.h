/* SPDX-License-Identifier: Apache-2.0 */
/* Files of bytes, plain or gzip, read once from front to back; and errors that say
   where in a file something is wrong. */
#ifndef TIERED_TRAINERS_STREAM_H
#define TIERED_TRAINERS_STREAM_H

#include <stdbool.h>
#include <zlib.h>

#include "tiered/error.h"

/** "PATH: …". Of a long path the end is shown. Always -1. */
__attribute__((format(printf, 4, 5))) int tiered_fail_in(struct tiered_error *err,
                                                         enum tiered_code code,
                                                         const char *path,
                                                         const char *fmt, ...);
/** "PATH:LINE:COLUMN: …" (1-based). Always -1. */
__attribute__((format(printf, 5, 6))) int
tiered_fail_line(struct tiered_error *err, const char *path, uint64_t line,
                 uint64_t column, const char *fmt, ...);
#ifdef __clang_analyzer__ /* see tiered_failed() */
#define tiered_fail_in(...)   (tiered_fail_in(__VA_ARGS__), tiered_failed())
#define tiered_fail_line(...) (tiered_fail_line(__VA_ARGS__), tiered_failed())
#endif

struct tiered_stream {
    gzFile file;
    const char *path; /* borrowed */
    uint64_t file_bytes;
    bool compressed;
};

/** Refuses what is not a regular file. On failure there is nothing to close. */
int tiered_stream_open(struct tiered_stream *stream, const char *path,
                       struct tiered_error *err);
/** Harmless on a zeroed stream. */
void tiered_stream_close(struct tiered_stream *stream);
/** Up to n bytes; fewer only at the end of the file. */
int tiered_stream_read(struct tiered_stream *stream, void *out, size_t n, size_t *ret_n,
                       struct tiered_error *err);
/** Could the file hold that many bytes? Deflate shrinks 1032 times at most. */
bool tiered_stream_can_hold(const struct tiered_stream *stream, uint64_t bytes);

#endif
