/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts: where each tensor lies, how the bytes are cut into blocks, and the digest
   that names the whole. */
#include "core/model/model.h"

#include <stdatomic.h>

struct owned_layout {
    struct tiered_layout pub; /* first: what callers hold */
    _Atomic uint32_t refs;
    struct tiered_tensor *tensors;
    struct tiered_block *blocks;
    char *names;
};

struct tiered_layout_builder {
    struct tiered_tensor *tensors; /* names are offsets until sealed */
    size_t n, capacity;
    struct tiered_bytes names;
    uint64_t end; /* of the last tensor, in the model's buffer */
};

struct tiered_layout_builder *tiered_layout_build(void)
{
    return calloc(1, sizeof(struct tiered_layout_builder));
}

void tiered_layout_builder_destroy(struct tiered_layout_builder *b)
{
    if (b) {
        free(b->tensors);
        tiered_bytes_finish(&b->names);
        free(b);
    }
}

/* The length of the UTF-8 character at s, or 0: overlong forms, surrogates and what is
   above U+10FFFF are not characters. */
static size_t utf8_length(const uint8_t *s)
{
    uint32_t c = s[0];
    size_t n = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
    if (n < 2) {
        return n;
    }
    c &= 0x7fu >> n;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) { /* the final NUL ends it, too */
            return 0;
        }
        c = c << 6 | (s[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

static int check_name(const char *name, size_t length, struct tiered_error *err)
{
    if (length == 0) {
        return tiered_fail(err, TIERED_EINVAL, "a tensor has an empty name");
    }
    if (length > TIERED_MAX_NAME) {
        return tiered_fail(err, TIERED_EINVAL,
                           "tensor '%.40s…': a name of %zu bytes; at most %d", name,
                           length, TIERED_MAX_NAME);
    }
    for (size_t i = 0, step; i < length; i += step) {
        step = utf8_length((const uint8_t *)name + i);
        if (step == 0) {
            return tiered_fail(err, TIERED_EINVAL,
                               "a tensor's name is not UTF-8 at its byte %zu", i);
        }
        if ((uint8_t)name[i] < 0x20 || name[i] == 0x7f) {
            return tiered_fail(err, TIERED_EINVAL,
                               "a tensor's name has a control character at its byte "
                               "%zu",
                               i);
        }
    }
    return 0;
}

static int measure(struct tiered_tensor *t, const char *name, const uint64_t *shape,
                   struct tiered_error *err)
{
    t->n_elements = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        t->shape[i] = shape[i];
        if (!tiered_mul(t->n_elements, shape[i], &t->n_elements)) {
            return tiered_fail(err, TIERED_EINVAL,
                               "tensor '%s': the shape's product overflows", name);
        }
    }
    if (!tiered_mul(t->n_elements, tiered_dtype_size(t->dtype), &t->size_bytes) ||
        t->size_bytes > TIERED_MAX_MODEL_BYTES) {
        return tiered_fail(err, TIERED_ENOMEM, "tensor '%s' is larger than 1 TiB",
                           name);
    }
    return 0;
}

static int grow(struct tiered_layout_builder *b, struct tiered_error *err)
{
    if (b->n == TIERED_MAX_TENSORS) {
        return tiered_fail(err, TIERED_ENOMEM, "more than %u tensors",
                           TIERED_MAX_TENSORS);
    }
    if (b->n < b->capacity) {
        return 0;
    }
    size_t capacity = b->capacity ? b->capacity * 2 : 16;
    struct tiered_tensor *tensors = realloc(b->tensors, capacity * sizeof(*tensors));
    if (!tensors) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    b->tensors = tensors;
    b->capacity = capacity;
    return 0;
}

int tiered_layout_add(struct tiered_layout_builder *b, const char *name,
                      enum tiered_dtype dtype, enum tiered_role role, uint32_t rank,
                      const uint64_t *shape, struct tiered_error *err)
{
    size_t length = strlen(name);
    if (check_name(name, length, err) < 0) {
        return -1;
    }
    if ((unsigned)dtype >= TIERED_N_DTYPES || (unsigned)role >= TIERED_N_ROLES) {
        return tiered_fail(err, TIERED_EINVAL, "tensor '%s': unknown dtype or role",
                           name);
    }
    if (rank > TIERED_MAX_RANK) {
        return tiered_fail(err, TIERED_EINVAL, "tensor '%s': rank %u; at most %d", name,
                           rank, TIERED_MAX_RANK);
    }
    struct tiered_tensor t = {.dtype = dtype, .role = role, .rank = rank};
    if (measure(&t, name, shape, err) < 0 || grow(b, err) < 0) {
        return -1;
    }
    t.offset_bytes = b->end;
    if (b->n && b->tensors[b->n - 1].dtype != dtype) {
        t.offset_bytes = (b->end + TIERED_ALIGN - 1) / TIERED_ALIGN * TIERED_ALIGN;
    }
    if (t.offset_bytes + t.size_bytes > TIERED_MAX_MODEL_BYTES) {
        return tiered_fail(err, TIERED_ENOMEM,
                           "tensor '%s' makes the model larger "
                           "than 1 TiB",
                           name);
    }
    size_t name_at = b->names.size;
    if (tiered_bytes_append(&b->names, name, length + 1, err) < 0) {
        return -1;
    }
    t.name = (const char *)(uintptr_t)name_at;
    b->tensors[b->n++] = t;
    b->end = t.offset_bytes + t.size_bytes;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    const struct tiered_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Sorting, unlike hashing, has no bad case for a peer to choose. */
static int refuse_duplicates(const struct tiered_tensor *tensors, size_t n,
                             struct tiered_error *err)
{
    TIERED_FREE const struct tiered_tensor **sorted = malloc(n * sizeof(*sorted) + 1);
    if (!sorted) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        sorted[i] = &tensors[i];
    }
    qsort(sorted, n, sizeof(*sorted), compare_names);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) {
            return tiered_fail(err, TIERED_EINVAL, "two tensors are named '%s'",
                               sorted[i]->name);
        }
    }
    return 0;
}

/* A run is a stretch of tensors that may share blocks: one dtype, one role, no gap.
   Empty tensors belong to none. Returns the run's end, a tensor's index. */
static uint32_t run_end(const struct tiered_manifest *m, uint32_t first,
                        uint64_t *ret_bytes)
{
    const struct tiered_tensor *head = &m->tensors[first];
    uint64_t end = head->offset_bytes + head->size_bytes;
    uint32_t i = first + 1;
    for (; i < m->n_tensors; i++) {
        const struct tiered_tensor *t = &m->tensors[i];
        if (t->n_elements == 0) {
            continue;
        }
        if (t->dtype != head->dtype || t->role != head->role ||
            t->offset_bytes != end) {
            break;
        }
        end += t->size_bytes;
    }
    *ret_bytes = end - head->offset_bytes;
    return i;
}

/* Cut one run; blocks NULL only counts. An element's size divides the block's, so
   every cut is between elements. */
static uint64_t cut_run(const struct tiered_manifest *m, uint32_t first, uint64_t bytes,
                        struct tiered_block *blocks, uint64_t n)
{
    const struct tiered_tensor *head = &m->tensors[first];
    size_t width = tiered_dtype_size(head->dtype);
    uint32_t at = first;
    for (uint64_t done = 0; done < bytes; done += TIERED_BLOCK_BYTES, n++) {
        if (!blocks) {
            continue;
        }
        uint64_t offset = head->offset_bytes + done;
        while (m->tensors[at].offset_bytes + m->tensors[at].size_bytes <= offset) {
            at++;
        }
        uint64_t left = bytes - done;
        uint64_t size = left < TIERED_BLOCK_BYTES ? left : TIERED_BLOCK_BYTES;
        blocks[n] = (struct tiered_block){
            .index = (uint32_t)n,
            .dtype = head->dtype,
            .role = head->role,
            .n_elements = size / width,
            .offset_bytes = offset,
            .size_bytes = size,
            .first_tensor = at,
            .first_element = (offset - m->tensors[at].offset_bytes) / width,
        };
    }
    return n;
}

static uint64_t cut(const struct tiered_manifest *m, struct tiered_block *blocks)
{
    uint64_t n = 0, bytes;
    for (uint32_t i = 0; i < m->n_tensors;) {
        if (m->tensors[i].n_elements == 0) {
            i++;
            continue;
        }
        uint32_t end = run_end(m, i, &bytes);
        n = cut_run(m, i, bytes, blocks, n);
        i = end;
    }
    return n;
}

/* Numbers go in as 8 bytes, little endian; the name's length keeps names apart. */
static int hash_manifest(const struct tiered_manifest *m, struct tiered_digest *ret,
                         struct tiered_error *err)
{
    struct tiered_hash *hash = tiered_hash_create();
    if (!hash) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    uint64_t n = m->n_tensors;
    tiered_hash_update(hash, "tiered layout 1", 15);
    tiered_hash_update(hash, &n, sizeof(n));
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct tiered_tensor *t = &m->tensors[i];
        uint64_t fields[4] = {strlen(t->name), t->dtype, t->role, t->rank};
        tiered_hash_update(hash, fields, sizeof(fields));
        tiered_hash_update(hash, t->name, (size_t)fields[0]);
        tiered_hash_update(hash, t->shape, t->rank * sizeof(t->shape[0]));
    }
    tiered_hash_final(hash, ret);
    tiered_hash_destroy(hash);
    return 0;
}

static void layout_free(struct owned_layout *layout)
{
    free(layout->tensors);
    free(layout->blocks);
    free(layout->names);
    free(layout);
}

static struct owned_layout *take(struct tiered_layout_builder *b)
{
    struct owned_layout *layout = calloc(1, sizeof(*layout));
    if (layout) {
        layout->names = (char *)TIERED_STEAL(b->names.data);
        layout->tensors = TIERED_STEAL(b->tensors);
        for (size_t i = 0; i < b->n; i++) {
            layout->tensors[i].name =
                layout->names + (uintptr_t)layout->tensors[i].name;
        }
        layout->pub.m = (struct tiered_manifest){
            .size = sizeof(struct tiered_manifest),
            .n_tensors = (uint32_t)b->n,
            .tensors = layout->tensors,
            .data_bytes = b->end,
        };
        atomic_init(&layout->refs, 1);
    }
    tiered_layout_builder_destroy(b);
    return layout;
}

struct tiered_layout *tiered_layout_seal(struct tiered_layout_builder *b,
                                         struct tiered_error *err)
{
    struct owned_layout *layout = take(b);
    if (!layout) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    struct tiered_layout *pub = &layout->pub;
    uint64_t n_blocks = cut(&pub->m, NULL); /* at most 2^20 of size and 2^20 of runs */
    layout->blocks = malloc(n_blocks * sizeof(*layout->blocks) + 1);
    if (!layout->blocks) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (!layout->blocks ||
        refuse_duplicates(pub->m.tensors, pub->m.n_tensors, err) < 0 ||
        hash_manifest(&pub->m, &pub->digest, err) < 0) {
        layout_free(layout);
        return NULL;
    }
    cut(&pub->m, layout->blocks);
    pub->blocks = layout->blocks;
    pub->n_blocks = (uint32_t)n_blocks;
    return pub;
}

static int check_copy(const struct tiered_manifest *manifest,
                      const struct tiered_manifest *own, struct tiered_error *err)
{
    for (uint32_t i = 0; i < own->n_tensors; i++) {
        const struct tiered_tensor *got = &manifest->tensors[i], *t = &own->tensors[i];
        if (got->n_elements != t->n_elements || got->size_bytes != t->size_bytes ||
            got->offset_bytes != t->offset_bytes) {
            return tiered_fail(err, TIERED_ESHAPE,
                               "tensor '%s': its size or offset is not what its place "
                               "and shape give",
                               t->name);
        }
    }
    if (manifest->data_bytes != own->data_bytes) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "the manifest's data_bytes does not fit its tensors");
    }
    return 0;
}

struct tiered_layout *tiered_layout_copy(const struct tiered_manifest *manifest,
                                         struct tiered_error *err)
{
    struct tiered_layout_builder *b = tiered_layout_build();
    if (!b) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    for (uint32_t i = 0; i < manifest->n_tensors; i++) {
        const struct tiered_tensor *t = &manifest->tensors[i];
        if (!t->name) {
            tiered_fail(err, TIERED_EINVAL, "a tensor has no name");
        }
        if (!t->name || tiered_layout_add(b, t->name, t->dtype, t->role, t->rank,
                                          t->shape, err) < 0) {
            tiered_layout_builder_destroy(b);
            return NULL;
        }
    }
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = tiered_layout_seal(b, err);
    if (!layout || check_copy(manifest, &layout->m, err) < 0) {
        return NULL;
    }
    return TIERED_STEAL(layout);
}

struct tiered_layout *tiered_layout_ref(struct tiered_layout *layout)
{
    if (layout) {
        atomic_fetch_add_explicit(&((struct owned_layout *)layout)->refs, 1,
                                  memory_order_relaxed);
    }
    return layout;
}

void tiered_layout_unref(struct tiered_layout *layout)
{
    struct owned_layout *own = (struct owned_layout *)layout;
    if (own && atomic_fetch_sub_explicit(&own->refs, 1, memory_order_acq_rel) == 1) {
        layout_free(own);
    }
}

static void shape_text(const struct tiered_tensor *t, char out[192])
{
    size_t n = (size_t)snprintf(out, 192, "%s [", tiered_dtype_name(t->dtype));
    for (uint32_t i = 0; i < t->rank; i++) {
        n += (size_t)snprintf(out + n, 192 - n, "%s%llu", i ? ", " : "",
                              (unsigned long long)t->shape[i]);
    }
    snprintf(out + n, 192 - n, "]");
}

static int match_tensor(const struct tiered_tensor *want,
                        const struct tiered_tensor *got, struct tiered_error *err)
{
    if (strcmp(want->name, got->name) != 0) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "tensor '%.100s' stands where '%.100s' is "
                           "expected",
                           got->name, want->name);
    }
    if (want->dtype != got->dtype || want->rank != got->rank ||
        memcmp(want->shape, got->shape, want->rank * sizeof(want->shape[0])) != 0) {
        char a[192], b[192];
        shape_text(want, a);
        shape_text(got, b);
        return tiered_fail(err, TIERED_ESHAPE,
                           "tensor '%.100s' is %.60s, expected %.60s", want->name, b,
                           a);
    }
    if (want->role != got->role) {
        return tiered_fail(
            err, TIERED_ESHAPE, "tensor '%.100s' has the role '%s', expected '%s'",
            want->name, tiered_role_name(got->role), tiered_role_name(want->role));
    }
    return 0;
}

int tiered_layout_match(const struct tiered_layout *want,
                        const struct tiered_layout *got, struct tiered_error *err)
{
    if (tiered_digest_equal(&want->digest, &got->digest)) {
        return 0;
    }
    uint32_t n =
        want->m.n_tensors < got->m.n_tensors ? want->m.n_tensors : got->m.n_tensors;
    for (uint32_t i = 0; i < n; i++) {
        if (match_tensor(&want->m.tensors[i], &got->m.tensors[i], err) < 0) {
            return -1;
        }
    }
    if (n < want->m.n_tensors) {
        return tiered_fail(err, TIERED_ESHAPE, "tensor '%.100s' is missing",
                           want->m.tensors[n].name);
    }
    return tiered_fail(err, TIERED_ESHAPE, "tensor '%.100s' is not expected",
                       n < got->m.n_tensors ? got->m.tensors[n].name : "");
}

bool tiered_layout_is_forest(const struct tiered_layout *layout)
{
    static const struct {
        const char *name;
        enum tiered_dtype dtype;
    } arrays[] = {{"t0.left", TIERED_I32},
                  {"t0.right", TIERED_I32},
                  {"t0.feature", TIERED_I32},
                  {"t0.threshold", TIERED_F64},
                  {"t0.value", TIERED_F64}};
    size_t found = 0;
    for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &layout->m.tensors[i];
        for (size_t k = 0; k < TIERED_COUNT(arrays); k++) {
            found +=
                t->dtype == arrays[k].dtype && strcmp(t->name, arrays[k].name) == 0;
        }
    }
    return found == TIERED_COUNT(arrays);
}
