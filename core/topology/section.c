/* SPDX-License-Identifier: Apache-2.0 */
/* The engine that reads a mapping against a table of keys. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "core/topology/inside.h"

#define QUOTE_CHARS 60 /* of the user's text in a message */

/* A key at hand: where it is, and what to call it ("tier 'fog': rounds.quorum"). */
struct place {
    struct loader *l;
    const char *what, *section;
    const struct key_row *row;
    const struct tiered_value *value;
};

static const char *colon(const char *what)
{
    return *what ? ": " : "";
}

__attribute__((format(printf, 2, 3))) static int complain(const struct place *p,
                                                          const char *fmt, ...)
{
    char text[384];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return tiered_diag_error(p->l->diag, p->value->mark, "%s%s%s%s%s %s", p->what,
                             colon(p->what), p->section, *p->section ? "." : "",
                             p->row->name, text);
}

/* "not 'x'": what stands there instead. */
static const char *found(const struct tiered_value *value, char out[128])
{
    switch (value->kind) {
    case TIERED_SCALAR:
        snprintf(out, 128, "not '%.*s'%s", QUOTE_CHARS, value->text,
                 value->quoted ? " in quotes" : "");
        return out;
    case TIERED_SEQUENCE:
        return "not a list";
    case TIERED_MAPPING:
        return "not a mapping";
    default:
        return "and nothing is written";
    }
}

static int wrong(const struct place *p, const char *want)
{
    char text[128];
    return complain(p, "must be %s, %s", want, found(p->value, text));
}

static bool is_scalar(const struct tiered_value *value)
{
    return value->kind == TIERED_SCALAR;
}

bool tiered_name_ok(const char *name)
{
    size_t n = strlen(name);
    return n >= 1 && n <= TIERED_MAX_NODE_NAME &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == n &&
           isalnum((unsigned char)name[0]);
}

static int read_text(const struct place *p, void *field)
{
    struct tiered_error err = {0};
    if (!is_scalar(p->value) || !*p->value->text) {
        return wrong(p, "text");
    }
    if (strlen(p->value->text) > TIERED_MAX_KEY_TEXT) {
        return complain(p, "is longer than %u bytes", TIERED_MAX_KEY_TEXT);
    }
    char *checked = topology_words_expand(p->value->text, NULL, &err);
    free(checked);
    if (!checked) {
        return complain(p, "has an %s", err.text);
    }
    *(const char **)field = p->value->text;
    return 0;
}

static int read_name(const struct place *p, void *field)
{
    if (!is_scalar(p->value)) {
        return wrong(p, "a name");
    }
    if (!tiered_name_ok(p->value->text)) {
        return complain(p, "'%.*s' is no name: " NAME_RULE, QUOTE_CHARS,
                        p->value->text);
    }
    *(const char **)field = p->value->text;
    return 0;
}

static bool parse_whole(const struct tiered_value *value, uint64_t *ret)
{
    if (!is_scalar(value) || value->quoted || !isdigit((unsigned char)*value->text)) {
        return false;
    }
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value->text, &end, 10);
    *ret = number;
    return !*end && !errno;
}

static int read_whole(const struct place *p, void *field)
{
    const struct key_row *row = p->row;
    uint64_t number;
    if (!parse_whole(p->value, &number) || (double)number < row->min ||
        (double)number > row->max) {
        char want[96];
        snprintf(want, sizeof(want),
                 row->min < row->max ? "a whole number from %.0f to %.0f" : "%.0f",
                 row->min, row->max);
        return wrong(p, want);
    }
    if (row->type == KEY_COUNT) {
        *(uint32_t *)field = (uint32_t)number;
    } else {
        *(uint64_t *)field = number;
    }
    return 0;
}

static bool parse_number(const char *text, const char **ret_end, double *ret)
{
    if (!isdigit((unsigned char)text[*text == '-' || *text == '+']) && *text != '.') {
        return false; /* strtod also reads "inf", "nan" and spaces */
    }
    char *end;
    *ret = strtod(text, &end);
    *ret_end = end;
    return end > text && isfinite(*ret) && !memchr(text, 'x', (size_t)(end - text));
}

static int read_number(const struct place *p, void *field)
{
    const char *end;
    double number;
    if (!is_scalar(p->value) || p->value->quoted ||
        !parse_number(p->value->text, &end, &number) || *end) {
        return wrong(p, "a number");
    }
    *(double *)field = number;
    return 0;
}

static int read_boolean(const struct place *p, void *field)
{
    const struct tiered_value *v = p->value;
    bool yes = is_scalar(v) && !v->quoted && strcmp(v->text, "true") == 0;
    if (!yes && !(is_scalar(v) && !v->quoted && strcmp(v->text, "false") == 0)) {
        return wrong(p, "true or false");
    }
    *(bool *)field = yes;
    return 0;
}

static int wrong_choice(const struct place *p)
{
    const char *const *choices = p->row->choices;
    char want[128] = "one of ";
    size_t n = 0;
    for (; choices[n]; n++) {
        size_t used = strlen(want);
        snprintf(want + used, sizeof(want) - used, "%s%s", n ? ", " : "", choices[n]);
    }
    const char *near =
        is_scalar(p->value) ? tiered_nearest(p->value->text, choices, n) : NULL;
    char text[128];
    return complain(p, "must be %s, %s%s%s%s", want, found(p->value, text),
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int read_choice(const struct place *p, void *field)
{
    const struct key_row *row = p->row;
    for (uint32_t i = 0; is_scalar(p->value) && row->choices[i]; i++) {
        if (strcmp(row->choices[i], p->value->text) != 0) {
            continue;
        }
        if (i >= row->n_now) {
            return complain(p, "'%s' is not in this version; '%s' is", row->choices[i],
                            row->choices[0]);
        }
        if (row->size == sizeof(bool)) {
            *(bool *)field = i != 0;
        } else {
            *(int32_t *)field = (int32_t)i;
        }
        return 0;
    }
    return wrong_choice(p);
}

static bool parse_share(const struct tiered_value *value, double *ret)
{
    const char *end;
    double percent;
    if (!is_scalar(value) || !parse_number(value->text, &end, &percent) ||
        strcmp(end, "%") != 0 || !(percent > 0 && percent <= 100)) {
        return false;
    }
    *ret = percent / 100;
    return true;
}

static int read_sample(const struct place *p, void *field)
{
    char *base = (char *)field - offsetof(struct tiered_rounds, sample);
    struct tiered_rounds *rounds = (struct tiered_rounds *)base;
    const struct tiered_value *chance = tiered_value_get(p->value, "poisson");
    bool poisson = chance && p->value->n == 1;
    if (!parse_share(poisson ? chance : p->value, &rounds->sample)) {
        return wrong(p, "a share above 0% and up to 100%, such as 50%, or such a "
                        "chance, {poisson: 50%}");
    }
    rounds->poisson = poisson;
    return 0;
}

static int read_quorum(const struct place *p, void *field)
{
    char *base = (char *)field - offsetof(struct tiered_rounds, quorum);
    struct tiered_rounds *rounds = (struct tiered_rounds *)base;
    uint64_t number;
    if (parse_whole(p->value, &number) && number >= 1 && number <= UINT32_MAX) {
        rounds->quorum = 1;
        rounds->quorum_count = (uint32_t)number;
        return 0;
    }
    if (!parse_share(p->value, &rounds->quorum)) {
        return wrong(p, "a share above 0% and up to 100%, such as 75%, or a number of "
                        "children");
    }
    rounds->quorum_count = 0;
    return 0;
}

/* A number without its unit is the usual slip. */
static bool bare_number(const struct tiered_value *value)
{
    return is_scalar(value) && *value->text &&
           !value->text[strspn(value->text, "0123456789.")];
}

static int read_duration(const struct place *p, void *field)
{
    uint64_t ms;
    if (!is_scalar(p->value) || !tiered_parse_duration(p->value->text, &ms)) {
        return bare_number(p->value)
                   ? complain(p, "needs a unit: %ss, %sm", p->value->text,
                              p->value->text)
                   : wrong(p, "a duration such as 500ms, 30s, 10m or 2h");
    }
    if (ms == 0) {
        return complain(p, "must be above zero; leave it out for none");
    }
    *(uint64_t *)field = ms;
    return 0;
}

static int read_bytes(const struct place *p, void *field)
{
    uint64_t bytes;
    if (!is_scalar(p->value) || !tiered_parse_bytes(p->value->text, &bytes)) {
        return bare_number(p->value) ? complain(p, "needs a unit: %sMiB, %sGiB",
                                                p->value->text, p->value->text)
                                     : wrong(p, "a size such as 64KiB, 512MiB or 1GiB");
    }
    *(uint64_t *)field = bytes;
    return 0;
}

static int read_model(const struct place *p, void *field)
{
    const struct tiered_value *v = p->value;
    const struct tiered_value *from = tiered_value_get(v, "from");
    if (from && v->n == 1 && is_scalar(from) && strcmp(from->text, "trainer") == 0) {
        *(const char **)field = NULL;
        return 0;
    }
    size_t n = is_scalar(v) ? strlen(v->text) : 0;
    if (n < 13 || strcmp(v->text + n - 12, ".safetensors") != 0) {
        return wrong(p, "{from: trainer} or the path of a .safetensors file");
    }
    *(const char **)field = v->text;
    return 0;
}

static int read_later(const struct place *p)
{
    if (p->value->n == 0 && !is_scalar(p->value)) {
        return 0; /* nothing, [] or {}: nothing asked for */
    }
    return complain(p, "is not in this version; leave it out");
}

static int read_plugins(const struct place *p, void *field)
{
    switch (p->row->type) {
    case KEY_STRATEGY:
        topology_strategy_read(p->l, p->what, p->value, field);
        break;
    case KEY_UPLINK:
    case KEY_DOWNLINK:
        topology_pipe_read(p->l, p->what, p->row->type == KEY_UPLINK, p->value, field);
        break;
    default:
        topology_plugin_read(p->l, p->what,
                             p->row->type == KEY_TRAINER ? TIERED_TRAINER
                                                         : TIERED_TRANSPORT,
                             p->value, field);
    }
    return 0;
}

static int read_key(const struct place *p, void *field)
{
    switch (p->row->type) {
    case KEY_TEXT:
        return read_text(p, field);
    case KEY_NAME:
        return read_name(p, field);
    case KEY_COUNT:
    case KEY_INTEGER:
        return read_whole(p, field);
    case KEY_NUMBER:
        return read_number(p, field);
    case KEY_BOOLEAN:
        return read_boolean(p, field);
    case KEY_CHOICE:
        return read_choice(p, field);
    case KEY_SAMPLE:
        return read_sample(p, field);
    case KEY_QUORUM:
        return read_quorum(p, field);
    case KEY_DURATION:
        return read_duration(p, field);
    case KEY_BYTES:
        return read_bytes(p, field);
    case KEY_MODEL:
        return read_model(p, field);
    case KEY_LATER:
        return read_later(p);
    case KEY_DEFAULTS:
    case KEY_TIERS:
    case KEY_TREE:
    case KEY_NODES:
        *(const struct tiered_value **)field = p->value;
        return 0;
    default:
        return read_plugins(p, field);
    }
}

static const struct key_row *find_row(const struct key_row *rows, size_t n_rows,
                                      unsigned refuse, const char *name)
{
    for (size_t i = 0; i < n_rows; i++) {
        if (!(rows[i].where & refuse) && strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

void topology_section_unknown(struct loader *l, const char *what, const char *section,
                              const struct tiered_value *key,
                              const struct key_row *rows, size_t n_rows,
                              unsigned refuse)
{
    const char *names[32];
    char all[256] = "";
    size_t n = 0;
    if (find_row(rows, n_rows, 0, key->text)) {
        tiered_diag_error(l->diag, key->mark,
                          "%s: '%s' says what the tree is; it stands in tiers alone",
                          what, key->text);
        return;
    }
    for (size_t i = 0; i < n_rows; i++) {
        if (!(rows[i].where & refuse)) {
            size_t used = strlen(all);
            snprintf(all + used, sizeof(all) - used, "%s%s", n ? ", " : "",
                     rows[i].name);
            names[n++] = rows[i].name;
        }
    }
    const char *near = tiered_nearest(key->text, names, n);
    char hint[300];
    snprintf(hint, sizeof(hint), near ? "did you mean '%s'?" : "known are %s",
             near ? near : all);
    tiered_diag_error(l->diag, key->mark, "%s%sunknown key '%s%s%.*s'; %s", what,
                      colon(what), section, *section ? "." : "", QUOTE_CHARS, key->text,
                      hint);
}

static void read_mapping(struct loader *l, const char *what, const char *section,
                         const struct key_row *rows, size_t n_rows, unsigned refuse,
                         const struct tiered_value *value, void *out,
                         struct given *given)
{
    for (size_t i = 0; i < value->n; i++) {
        const struct tiered_value *key = value->items[2 * i];
        const struct tiered_value *item = value->items[2 * i + 1];
        const struct key_row *row = find_row(rows, n_rows, refuse, key->text);
        if (!row) {
            topology_section_unknown(l, what, section, key, rows, n_rows, refuse);
            continue;
        }
        struct place place = {l, what, section, row, item};
        given->marks[row->id] = key->mark;
        if (row->type == KEY_SECTION && item->kind == TIERED_MAPPING) {
            char inner[64];
            snprintf(inner, sizeof(inner), "%s%s%s", section, *section ? "." : "",
                     row->name);
            read_mapping(l, what, inner, row->nested, row->n_nested, refuse, item, out,
                         given);
        } else if (row->type == KEY_SECTION) {
            if (item->kind != TIERED_NULL) {
                wrong(&place, "a mapping");
            }
            continue;
        } else if (read_key(&place, (char *)out + row->offset) < 0) {
            continue;
        }
        given->mask |= 1ull << row->id;
    }
}

void topology_section_read(struct loader *l, const char *what,
                           const struct key_row *rows, size_t n_rows, unsigned refuse,
                           const struct tiered_value *value, void *out,
                           struct given *given)
{
    if (value->kind == TIERED_MAPPING) {
        read_mapping(l, what, "", rows, n_rows, refuse, value, out, given);
    } else if (value->kind != TIERED_NULL) {
        char text[128];
        tiered_diag_error(l->diag, value->mark, "%s must be a mapping of keys, %s",
                          *what ? what : "the file", found(value, text));
    }
}
