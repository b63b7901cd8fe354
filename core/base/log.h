/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The log: one line an event to stderr, text on a terminal and JSON lines on request.
 * Lower case, quoted values, no final full stop; never weights, tokens or keys.
 * Code in core never logs an error that it also returns.
 *
 * Threads: every call from any thread; lines never interleave.
 */
#ifndef TIERED_CORE_LOG_H
#define TIERED_CORE_LOG_H

#include "tiered/host.h"

struct tiered_log_context {
    const char *tier, *node, *path; /* each may be NULL */
};

/** `tag` is the subsystem: "round", "link", "spool". */
__attribute__((format(printf, 4, 5))) void
tiered_log(enum tiered_level level, const char *tag,
           const struct tiered_log_context *context, const char *fmt, ...);

void tiered_log_set_level(enum tiered_level most);
void tiered_log_set_json(bool json);
/** The program's name in front of each line ("tiered", "agent-1"); copied. */
void tiered_log_set_name(const char *name);
/** Write lines here instead of stderr: to keep a terminal for something else. */
void tiered_log_set_fd(int fd);
bool tiered_log_parse_level(const char *text, enum tiered_level *ret);

#endif
