/* SPDX-License-Identifier: Apache-2.0 */
/* The log. A line is made on the caller's stack and written by one write(2) of at most
   LINE_MAX_BYTES, which a pipe takes whole: lines of several processes stay whole too.
   The mutex guards the name and keeps lines in order. */
#include "core/base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/base.h"

#define LINE_MAX_BYTES 4096
#define TEXT_MAX_BYTES 2048

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char program[64];
static _Atomic int most_level = TIERED_LOG_INFO;
static atomic_bool as_json;
static _Atomic int out_fd = STDERR_FILENO;

#define END_BYTES 8 /* kept for what closes a line: a quote, a brace, a newline */

struct line {
    char text[LINE_MAX_BYTES];
    size_t n;
    bool full; /* something did not fit: nothing more goes in but the end */
};

static void put(struct line *line, const char *bytes, size_t n)
{
    line->full = line->full || n > sizeof(line->text) - END_BYTES - line->n;
    if (!line->full) {
        memcpy(line->text + line->n, bytes, n);
        line->n += n;
    }
}

/* One of the at most END_BYTES that may follow even in a full line. */
static void put_end(struct line *line, char c)
{
    line->text[line->n++] = c;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* Length of the UTF-8 character at p, 0 when it is not one. */
static size_t utf8_length(const unsigned char *p)
{
    size_t n = p[0] < 0x80                   ? 1
               : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
               : p[0] >= 0xE0 && p[0] < 0xF0 ? 3
               : p[0] >= 0xF0 && p[0] < 0xF5 ? 4
                                             : 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool bad = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
               (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F);
    return bad ? 0 : n;
}

/* Control characters would break lines and terminals; a peer may have sent them. */
static void put_printable(struct line *line, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p) {
        size_t n = utf8_length(p);
        put(line, n && *p >= 0x20 && *p != 0x7F ? (const char *)p : "?", n ? n : 1);
        p += n ? n : 1;
    }
}

static void put_json(struct line *line, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    put_text(line, "\"");
    while (*p) {
        size_t n = utf8_length(p);
        char escape[8];
        if (!n) {
            put_text(line, "\\ufffd");
        } else if (*p < 0x20 || *p == 0x7F) {
            snprintf(escape, sizeof(escape), "\\u%04x", *p);
            put_text(line, escape);
        } else {
            if (*p == '"' || *p == '\\') {
                put_text(line, "\\");
            }
            put(line, (const char *)p, n);
        }
        p += n ? n : 1;
    }
    put_end(line, '"');
}

static void put_time(struct line *line, bool local)
{
    struct timespec now = {0};
    struct tm parts;
    char text[40];
    clock_gettime(CLOCK_REALTIME, &now);
    if (local) {
        localtime_r(&now.tv_sec, &parts);
        strftime(text, sizeof(text), "%H:%M:%S", &parts);
    } else {
        gmtime_r(&now.tv_sec, &parts);
        size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
        snprintf(text + n, sizeof(text) - n, ".%03uZ",
                 (unsigned)(now.tv_nsec / 1000000) % 1000);
    }
    put_text(line, text);
}

static void put_field(struct line *line, bool json, const char *key, const char *value)
{
    /* A key is short, so past this check it fits and only the value can be cut. */
    if (!value || !value[0] || line->n > sizeof(line->text) - 64) {
        return;
    }
    put_text(line, json ? ",\"" : " ");
    put_text(line, key);
    put_text(line, json ? "\":" : "=");
    if (json) {
        put_json(line, value);
    } else {
        put_printable(line, value);
    }
}

static void put_context(struct line *line, bool json,
                        const struct tiered_log_context *context)
{
    if (context) {
        put_field(line, json, "tier", context->tier);
        put_field(line, json, "node", context->node);
        put_field(line, json, "round", context->path);
    }
}

static void make_json(struct line *line, enum tiered_level level, const char *tag,
                      const struct tiered_log_context *context, const char *text)
{
    put_text(line, "{\"time\":\"");
    put_time(line, false);
    put_text(line, "\"");
    put_field(line, true, "level", level_names[level]);
    put_field(line, true, "program", program);
    put_field(line, true, "tag", tag);
    put_context(line, true, context);
    put_field(line, true, "text", text);
    put_end(line, '}');
    put_end(line, '\n');
}

/* 12:00:01 agent-1 info round tier=fog node=fog-1 round=3.2: closed with 4 of 4 */
static void make_text(struct line *line, enum tiered_level level, const char *tag,
                      const struct tiered_log_context *context, const char *text)
{
    put_time(line, isatty(out_fd));
    put_text(line, " ");
    if (program[0]) {
        put_printable(line, program);
        put_text(line, " ");
    }
    put_text(line, level_names[level]);
    put_text(line, " ");
    put_printable(line, tag);
    put_context(line, false, context);
    put_text(line, ": ");
    put_printable(line, text);
    put_end(line, '\n');
}

void tiered_log(enum tiered_level level, const char *tag,
                const struct tiered_log_context *context, const char *fmt, ...)
{
    if ((unsigned)level >= TIERED_COUNT(level_names) || (int)level > most_level) {
        return;
    }
    char text[TEXT_MAX_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    struct line line = {.n = 0};
    pthread_mutex_lock(&lock);
    if (as_json) {
        make_json(&line, level, tag, context, text);
    } else {
        make_text(&line, level, tag, context, text);
    }
    for (size_t at = 0; at < line.n;) {
        ssize_t put_n = write(out_fd, line.text + at, line.n - at);
        if (put_n <= 0) {
            break; /* nowhere to say so */
        }
        at += (size_t)put_n;
    }
    pthread_mutex_unlock(&lock);
}

void tiered_log_set_level(enum tiered_level most)
{
    most_level = (int)most;
}

void tiered_log_set_json(bool json)
{
    as_json = json;
}

void tiered_log_set_fd(int fd)
{
    out_fd = fd;
}

void tiered_log_set_name(const char *name)
{
    pthread_mutex_lock(&lock);
    snprintf(program, sizeof(program), "%s", name ? name : "");
    pthread_mutex_unlock(&lock);
}

bool tiered_log_parse_level(const char *text, enum tiered_level *ret)
{
    for (size_t i = 0; i < TIERED_COUNT(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *ret = (enum tiered_level)i;
            return true;
        }
    }
    return false;
}
