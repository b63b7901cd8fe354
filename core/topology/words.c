/* SPDX-License-Identifier: Apache-2.0 */
/* {node} {tier} {index} {count} {parent} in strings, and ${VAR} of the environment. */
#include <ctype.h>
#include <string.h>

#include "core/topology/inside.h"
#include "core/value/document.h"
#include "core/value/text.h"

#define MAX_WORD     32
#define MAX_EXPANDED (1u << 20) /* of one text, environment included */

static const char *const known[] = {"node", "tier", "index", "count", "parent"};

/* The length of "{word}" or, where the text itself is meant, "{{word}}" at p; 0 when it
   is neither. Other braces are text: JSON and code have them. */
static size_t word_length(const char *p, size_t *ret_braces)
{
    size_t braces = p[1] == '{' ? 2 : 1;
    size_t n = braces;
    while (islower((unsigned char)p[n]) || p[n] == '_') {
        n++;
    }
    size_t letters = n - braces;
    for (size_t i = 0; i < braces; i++, n++) {
        if (p[n] != '}') {
            return 0;
        }
    }
    *ret_braces = braces;
    return letters && letters < MAX_WORD ? n : 0;
}

static int append_word(struct tiered_bytes *out, const char *word,
                       const struct words *words, struct tiered_error *err)
{
    char number[16];
    size_t i = 0;
    while (i < TIERED_COUNT(known) && strcmp(known[i], word) != 0) {
        i++;
    }
    if (i == TIERED_COUNT(known)) {
        const char *near = tiered_nearest(word, known, TIERED_COUNT(known));
        return tiered_fail(err, TIERED_EINVAL, "unknown {%s}; %s%s%s", word,
                           near ? "did you mean {"
                                : "known are {node} {tier} {index} {count} {parent}",
                           near ? near : "", near ? "}?" : "");
    }
    if (!words) {
        return 0;
    }
    snprintf(number, sizeof(number), "%u", i == 2 ? words->index : words->count);
    const char *const values[] = {words->node, words->tier, number, number,
                                  words->parent};
    return tiered_bytes_append(out, values[i], strlen(values[i]), err);
}

char *topology_words_expand(const char *text, const struct words *words,
                            struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes out = {0};
    const char *p = text;
    while (*p) {
        size_t plain = strcspn(p, "{"), braces;
        if (tiered_bytes_append(&out, p, plain, err) < 0) {
            return NULL;
        }
        p += plain;
        size_t n = *p ? word_length(p, &braces) : 0;
        if (n && braces == 1) {
            char word[MAX_WORD];
            snprintf(word, sizeof(word), "%.*s", (int)(n - 2), p + 1);
            if (append_word(&out, word, words, err) < 0) {
                return NULL;
            }
        } else if (*p) {
            /* Escaped, one pair of braces goes; a lone brace stays. */
            size_t keep = n ? n - 2 : 1;
            if (tiered_bytes_append(&out, p + (n ? 1 : 0), keep, err) < 0) {
                return NULL;
            }
            n = n ? n : 1;
        }
        p += n;
    }
    char *result = words ? (char *)out.data : strdup(text);
    if (words && !result) {
        result = strdup(""); /* nothing was appended */
    } else if (words) {
        out.data = NULL;
    }
    if (!result) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return result;
}

static int append_variable(struct tiered_bytes *out, const char *name,
                           struct tiered_error *err)
{
    const char *text = getenv(name);
    uint32_t line, column;
    if (!text) {
        return tiered_fail(err, TIERED_EINVAL,
                           "the environment has no '%s', which ${%s} reads", name,
                           name);
    }
    size_t n = strlen(text);
    if (tiered_text_bad(text, text + n, &line, &column) ||
        out->size + n > MAX_EXPANDED) {
        return tiered_fail(err, TIERED_EINVAL,
                           "the environment's '%s' is too long or no text", name);
    }
    if (strstr(text, "${")) { /* an alias would expand the value again */
        return tiered_fail(err, TIERED_EINVAL, "the environment's '%s' holds '${'",
                           name);
    }
    return tiered_bytes_append(out, text, n, err);
}

static int expand_environment(const char *text, struct tiered_bytes *out,
                              struct tiered_error *err)
{
    for (const char *p = text; *p;) {
        const char *dollar = strstr(p, "${");
        size_t plain = dollar ? (size_t)(dollar - p) : strlen(p);
        if (tiered_bytes_append(out, p, plain, err) < 0) {
            return -1;
        }
        if (!dollar) {
            return 0;
        }
        const char *name = dollar + 2;
        size_t n = strcspn(name, "}");
        char variable[256];
        if (name[n] != '}' || n == 0 || n >= sizeof(variable)) {
            return tiered_fail(err, TIERED_EINVAL,
                               "'${' reads the environment and needs a name and '}'");
        }
        snprintf(variable, sizeof(variable), "%.*s", (int)n, name);
        if (append_variable(out, variable, err) < 0) {
            return -1;
        }
        p = name + n + 1;
    }
    return 0;
}

static void expand_scalar(struct loader *l, struct tiered_value *value)
{
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes out = {0};
    struct tiered_error err = {0};
    if (expand_environment(value->text, &out, &err) < 0) {
        tiered_diag_error(l->diag, value->mark, "%s", err.text);
        return;
    }
    char *copy = tiered_arena_copy(&l->topology->document->arena, out.data, out.size);
    if (copy) {
        value->text = copy;
    } else {
        tiered_diag_error(l->diag, value->mark, "out of memory");
    }
}

void topology_environment_expand(struct loader *l, const struct tiered_value *root)
{
    if (root->kind == TIERED_SEQUENCE || root->kind == TIERED_MAPPING) {
        bool mapping = root->kind == TIERED_MAPPING;
        for (size_t i = 0; i < root->n; i++) {
            struct tiered_value *item = root->items[mapping ? 2 * i + 1 : i];
            if (item->kind == TIERED_SCALAR && strstr(item->text, "${")) {
                expand_scalar(l, item);
            } else {
                topology_environment_expand(l, item);
            }
        }
    }
}
