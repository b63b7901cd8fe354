/* SPDX-License-Identifier: Apache-2.0 */
/* Bounding protobuf bytes before anything is allocated for them: a walk along the
   generated descriptors, with one table of the fields that have a limit of their own.
 */
#include "core/wire/check.h"

#define NAME_MAX_BYTES   63
#define TEXT_MAX_BYTES   1024 /* reasons, which people read */
#define LABEL_MAX_BYTES  255  /* addresses, tokens, tensor and metric names */
#define BLOB_MAX_BYTES   (64u << 10)
#define MAX_NESTING      8 /* the deepest of tiered.proto is 4 */
#define MAX_FIELDS       64
#define FRAME_DATA_FIELD 15

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_64 = 1,
    WIRE_BYTES = 2,
    WIRE_32 = 5,
};

/* What is not here: strings are names, bytes are digests, repeated scalars have none.
 */
static const struct rule {
    const ProtobufCMessageDescriptor *desc;
    const char *field;
    uint32_t max; /* bytes of a string or of bytes; values of a repeated number */
} rules[] = {
    {&tiered__v1__frame__descriptor, "run", LABEL_MAX_BYTES},
    {&tiered__v1__frame__descriptor, "path", TIERED_MAX_DEPTH},
    {&tiered__v1__hello__descriptor, "token", LABEL_MAX_BYTES},
    {&tiered__v1__refusal__descriptor, "reason", TEXT_MAX_BYTES},
    {&tiered__v1__ready__descriptor, "missing", TEXT_MAX_BYTES},
    {&tiered__v1__settled__descriptor, "reason", TEXT_MAX_BYTES},
    {&tiered__v1__failed__descriptor, "reason", TEXT_MAX_BYTES},
    {&tiered__v1__phase__descriptor, "reason", TEXT_MAX_BYTES},
    {&tiered__v1__gone__descriptor, "reason", TEXT_MAX_BYTES},
    {&tiered__v1__push_done__descriptor, "reason", TEXT_MAX_BYTES},
    {&tiered__v1__metric__descriptor, "name", LABEL_MAX_BYTES},
    {&tiered__v1__node_state__descriptor, "path", TIERED_MAX_DEPTH},
    {&tiered__v1__node_state__descriptor, "why", TEXT_MAX_BYTES},
    {&tiered__v1__tensor__descriptor, "name", TIERED_MAX_NAME},
    {&tiered__v1__tensor__descriptor, "shape", TIERED_MAX_RANK},
    {&tiered__v1__filter_head__descriptor, "header", BLOB_MAX_BYTES},
    {&tiered__v1__pull__descriptor, "token", LABEL_MAX_BYTES},
    {&tiered__v1__push_begin__descriptor, "token", LABEL_MAX_BYTES},
    {&tiered__v1__plugin_use__descriptor, "options", BLOB_MAX_BYTES},
    {&tiered__v1__round_rules__descriptor, "stop_metric", LABEL_MAX_BYTES},
    {&tiered__v1__node_assignment__descriptor, "parent_address", LABEL_MAX_BYTES},
    {&tiered__v1__node_assignment__descriptor, "listen", LABEL_MAX_BYTES},
    {&tiered__v1__assignment__descriptor, "run", LABEL_MAX_BYTES},
    {&tiered__v1__assignment__descriptor, "token", LABEL_MAX_BYTES},
    {&tiered__v1__event__descriptor, "json", BLOB_MAX_BYTES},
};

struct walk {
    const uint8_t *at, *end;
    enum tiered_code code;
    struct tiered_error *err;
};

static int check_message(struct walk *w, const ProtobufCMessageDescriptor *desc,
                         unsigned depth, struct tiered_wire_span *span);

static const struct rule *rule_of(const ProtobufCMessageDescriptor *desc,
                                  const ProtobufCFieldDescriptor *field)
{
    for (size_t i = 0; i < TIERED_COUNT(rules); i++) {
        if (rules[i].desc == desc && strcmp(rules[i].field, field->name) == 0) {
            return &rules[i];
        }
    }
    return NULL;
}

/* At most 5 bytes for a tag or length and 10 for a value, as in protobuf-c. */
static int read_varint(struct walk *w, unsigned max_bytes, uint64_t *ret)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < max_bytes && w->at < w->end; i++) {
        uint8_t byte = *w->at++;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *ret = value;
            return 0;
        }
    }
    return tiered_fail(w->err, w->code, "frame: it ends inside a number");
}

static int skip(struct walk *w, uint64_t n)
{
    if (n > (uint64_t)(w->end - w->at)) {
        return tiered_fail(w->err, w->code, "frame: it ends inside a field");
    }
    w->at += n;
    return 0;
}

/* Steps over one value. *ret_n: the bytes of a WIRE_BYTES value, which end at w->at. */
static int step_over(struct walk *w, unsigned type, size_t *ret_n)
{
    uint64_t n = 0;
    *ret_n = 0;
    switch (type) {
    case WIRE_VARINT:
        return read_varint(w, 10, &n);
    case WIRE_64:
        return skip(w, 8);
    case WIRE_32:
        return skip(w, 4);
    case WIRE_BYTES:
        if (read_varint(w, 5, &n) < 0 || skip(w, n) < 0) {
            return -1;
        }
        *ret_n = (size_t)n;
        return 0;
    default:
        return tiered_fail(w->err, w->code, "frame: wire type %u is not used", type);
    }
}

static enum wire_type wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    default:
        return WIRE_VARINT;
    }
}

/* Length of the UTF-8 sequence at s, 0 if there is none; NUL counts as none. */
static size_t utf8_step(const uint8_t *s, size_t n)
{
    static const uint32_t least[] = {0, 1, 0x80, 0x800, 0x10000};
    size_t len = s[0] < 0x80             ? 1
                 : (s[0] & 0xe0) == 0xc0 ? 2
                 : (s[0] & 0xf0) == 0xe0 ? 3
                 : (s[0] & 0xf8) == 0xf0 ? 4
                                         : 0;
    if (len == 0 || len > n) {
        return 0;
    }
    uint32_t c = len == 1 ? s[0] : s[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (s[i] & 0x3f);
    }
    bool good = c >= least[len] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
    return good ? len : 0;
}

static bool utf8_valid(const uint8_t *s, size_t n)
{
    while (n > 0) {
        size_t step = utf8_step(s, n);
        if (step == 0) {
            return false;
        }
        s += step;
        n -= step;
    }
    return true;
}

static int check_bytes(struct walk *w, const ProtobufCMessageDescriptor *desc,
                       const ProtobufCFieldDescriptor *field, size_t n)
{
    const struct rule *rule = rule_of(desc, field);
    bool text = field->type == PROTOBUF_C_TYPE_STRING;
    if (!rule && !text && n != 0 && n != sizeof(struct tiered_digest)) {
        return tiered_fail(w->err, w->code, "%s.%s has %zu bytes; a digest has 32",
                           desc->short_name, field->name, n);
    }
    uint32_t max = rule ? rule->max : NAME_MAX_BYTES;
    if (n > max) {
        return tiered_fail(w->err, w->code, "%s.%s has %zu bytes; at most %u are taken",
                           desc->short_name, field->name, n, max);
    }
    if (text && !utf8_valid(w->at - n, n)) {
        return tiered_fail(w->err, w->code, "%s.%s is not UTF-8 text", desc->short_name,
                           field->name);
    }
    return 0;
}

/* A packed field's numbers, which end at w->at. */
static int count_packed(struct walk *w, const ProtobufCFieldDescriptor *field, size_t n,
                        size_t *ret_count)
{
    struct walk in = {w->at - n, w->at, w->code, w->err};
    size_t count = 0, unused;
    for (; in.at < in.end; count++) {
        if (step_over(&in, wire_type_of(field->type), &unused) < 0) {
            return -1;
        }
    }
    *ret_count = count;
    return 0;
}

static int check_value(struct walk *w, const ProtobufCMessageDescriptor *desc,
                       const ProtobufCFieldDescriptor *field, unsigned type,
                       unsigned depth, size_t *ret_count)
{
    enum wire_type want = wire_type_of(field->type);
    bool packed = type == WIRE_BYTES && want != WIRE_BYTES &&
                  field->label == PROTOBUF_C_LABEL_REPEATED;
    size_t n;
    *ret_count = 1;
    if (type != want && !packed) {
        return tiered_fail(w->err, w->code, "%s.%s has wire type %u, not %u",
                           desc->short_name, field->name, type, want);
    }
    if (step_over(w, type, &n) < 0) {
        return -1;
    }
    if (packed) {
        return count_packed(w, field, n, ret_count);
    }
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        struct walk in = {w->at - n, w->at, w->code, w->err};
        return check_message(&in, field->descriptor, depth + 1, NULL);
    }
    return want == WIRE_BYTES ? check_bytes(w, desc, field, n) : 0;
}

static int check_count(struct walk *w, const ProtobufCMessageDescriptor *desc,
                       const ProtobufCFieldDescriptor *field, size_t count)
{
    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        return count <= 1 ? 0
                          : tiered_fail(w->err, w->code, "%s.%s stands there twice",
                                        desc->short_name, field->name);
    }
    const struct rule *rule =
        wire_type_of(field->type) == WIRE_BYTES ? NULL : rule_of(desc, field);
    if (rule && count > rule->max) {
        return tiered_fail(w->err, w->code, "%s.%s has more than %u values",
                           desc->short_name, field->name, rule->max);
    }
    return 0;
}

/* The data field is not walked into: its bytes are the payload. */
static int take_data(struct walk *w, const uint8_t *start, const uint8_t *field_start,
                     unsigned type, struct tiered_wire_span *span)
{
    size_t n;
    if (span->n > 0) {
        return tiered_fail(w->err, w->code, "Frame.data stands there twice");
    }
    if (type != WIRE_BYTES) {
        return tiered_fail(w->err, w->code, "Frame.data has wire type %u, not 2", type);
    }
    if (step_over(w, type, &n) < 0) {
        return -1;
    }
    span->start = (size_t)(field_start - start);
    span->n = (size_t)(w->at - field_start);
    span->body = (size_t)(w->at - start) - n;
    span->body_size = n;
    return 0;
}

static int check_known(struct walk *w, const ProtobufCMessageDescriptor *desc,
                       const ProtobufCFieldDescriptor *field, unsigned type,
                       unsigned depth, size_t counts[MAX_FIELDS], unsigned *n_oneof)
{
    size_t count, *total = &counts[field - desc->fields];
    if (check_value(w, desc, field, type, depth, &count) < 0) {
        return -1;
    }
    *total += count;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && ++*n_oneof > 1) {
        return tiered_fail(w->err, w->code, "%s has more than one body",
                           desc->short_name);
    }
    return check_count(w, desc, field, *total);
}

static int check_message(struct walk *w, const ProtobufCMessageDescriptor *desc,
                         unsigned depth, struct tiered_wire_span *span)
{
    const uint8_t *start = w->at;
    size_t counts[MAX_FIELDS] = {0}, unused;
    unsigned n_oneof = 0;
    if (depth > MAX_NESTING || desc->n_fields > MAX_FIELDS) {
        return tiered_fail(w->err, w->code, "frame: nested more than %u deep",
                           MAX_NESTING);
    }
    while (w->at < w->end) {
        const uint8_t *field_start = w->at;
        uint64_t tag = 0;
        if (read_varint(w, 5, &tag) < 0) {
            return -1;
        }
        if (tag >> 3 == 0 || tag > UINT32_MAX) {
            return tiered_fail(w->err, w->code, "frame: no such field number");
        }
        unsigned type = (unsigned)(tag & 7), id = (unsigned)(tag >> 3);
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(desc, id);
        int rc = span && id == FRAME_DATA_FIELD
                     ? take_data(w, start, field_start, type, span)
                 : field ? check_known(w, desc, field, type, depth, counts, &n_oneof)
                         : step_over(w, type, &unused);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

int tiered_wire_check(const ProtobufCMessageDescriptor *desc, const uint8_t *data,
                      size_t size, struct tiered_wire_span *span, enum tiered_code code,
                      struct tiered_error *err)
{
    struct walk w = {data, data + size, code, err};
    if (size > TIERED_MESSAGE_MAX) {
        return tiered_fail(err, code, "frame of %zu bytes; at most %u are taken", size,
                           TIERED_MESSAGE_MAX);
    }
    if (span) {
        *span = (struct tiered_wire_span){0};
    }
    return size == 0 ? 0 : check_message(&w, desc, 1, span);
}
