/* SPDX-License-Identifier: Apache-2.0 */
/* Update files as rows: matching by name, reading, metadata, screening. */
#include "orchestrator/updates.h"

#include <inttypes.h>
#include <math.h>

#define MAX_EXAMPLES (1ull << 53)
#define PATH_SHOWN   80 /* so that a message has room for what it says of the file */

struct updates_file {
    const char *path; /* its end, for messages */
    struct tiered_safetensors *file;
    const struct tiered_layout *own;  /* the file's layout */
    const struct tiered_layout *rows; /* that of the rows */
    uint32_t
        *tensors; /* row tensor to own tensor; NULL when the layouts are the same */
};

struct named {
    const char *name;
    uint32_t index;
};

static int compare_named(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

/** The layout's tensors by name; NULL: out of memory. */
static struct named *index_names(const struct tiered_layout *layout)
{
    size_t n = layout->m.n_tensors;
    struct named *index = calloc(n + 1, sizeof(*index));
    for (uint32_t i = 0; index && i < n; i++) {
        index[i] = (struct named){layout->m.tensors[i].name, i};
    }
    if (index && n) {
        qsort(index, n, sizeof(*index), compare_named);
    }
    return index;
}

static const struct tiered_tensor *find(const struct tiered_layout *layout,
                                        const struct named *index, const char *name)
{
    struct named key = {name, 0}, *hit = NULL;
    if (layout->m.n_tensors) {
        hit = bsearch(&key, index, layout->m.n_tensors, sizeof(*index), compare_named);
    }
    return hit ? &layout->m.tensors[hit->index] : NULL;
}

static void shape_text(const struct tiered_tensor *t, char out[64])
{
    size_t at = (size_t)snprintf(out, 64, "%s [", tiered_dtype_name(t->dtype));
    for (uint32_t i = 0; i < t->rank && at < 62; i++) {
        at += (size_t)snprintf(out + at, 64 - at, i ? ", %" PRIu64 : "%" PRIu64,
                               t->shape[i]);
    }
    if (at < 63) {
        memcpy(out + at, "]", 2);
    }
}

static bool same_shape(const struct tiered_tensor *a, const struct tiered_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->shape, b->shape, a->rank * sizeof(a->shape[0])) == 0;
}

static int check_tensor(const char *path, const char *leader,
                        const struct tiered_tensor *want,
                        const struct tiered_tensor *got, struct tiered_error *err)
{
    if (!got) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "'%s' has no tensor '%.60s', which '%s' has", path,
                           want->name, leader);
    }
    if (!same_shape(want, got)) {
        char a[64], b[64];
        shape_text(got, a);
        shape_text(want, b);
        return tiered_fail(err, TIERED_ESHAPE,
                           "'%s': tensor '%.60s' is %s, but %s in '%s'", path,
                           got->name, a, b, leader);
    }
    return 0;
}

/** Where each of the rows' tensors stands in the file. */
static int match(struct updates_file *f, const char *leader, struct tiered_error *err)
{
    const struct tiered_layout *rows = f->rows, *own = f->own;
    if (tiered_digest_equal(&rows->digest, &own->digest)) {
        return 0;
    }
    TIERED_FREE struct named *index = index_names(own);
    f->tensors = calloc(rows->m.n_tensors + 1u, sizeof(f->tensors[0]));
    if (!index || !f->tensors) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for the tensors of '%s'",
                           f->path);
    }
    for (uint32_t i = 0; i < rows->m.n_tensors; i++) {
        const struct tiered_tensor *want = &rows->m.tensors[i];
        const struct tiered_tensor *got = find(own, index, want->name);
        if (check_tensor(f->path, leader, want, got, err) != 0) {
            return -1;
        }
        f->tensors[i] = (uint32_t)(got - own->m.tensors);
    }
    if (own->m.n_tensors == rows->m.n_tensors) {
        return 0;
    }
    TIERED_FREE struct named *known = index_names(rows);
    for (uint32_t i = 0; known && i < own->m.n_tensors; i++) {
        if (!find(rows, known, own->m.tensors[i].name)) {
            return tiered_fail(err, TIERED_ESHAPE,
                               "'%s' has a tensor '%.60s', which '%s' has not", f->path,
                               own->m.tensors[i].name, leader);
        }
    }
    return tiered_fail(err, TIERED_ENOMEM, "no memory for the tensors of '%s'",
                       f->path);
}

/** From a file whose tensors come in another order: tensor by tensor. */
static int read_reordered(const struct updates_file *f,
                          const struct tiered_block *block, uint64_t from, uint64_t n,
                          uint8_t *out, struct tiered_error *err)
{
    size_t size = tiered_dtype_size(block->dtype);
    uint32_t tensor = block->first_tensor;
    uint64_t element = block->first_element + from;
    for (uint64_t done = 0; done < n;) {
        uint64_t length = f->rows->m.tensors[tensor].n_elements;
        if (element >= length) {
            element -= length;
            tensor++;
            continue;
        }
        uint64_t piece = length - element < n - done ? length - element : n - done;
        if (tiered_safetensors_read_tensor(f->file, f->tensors[tensor], element * size,
                                           (size_t)(piece * size), out + done * size,
                                           err) != 0) {
            return -1;
        }
        element += piece;
        done += piece;
    }
    return 0;
}

/** The rows' block: the file's own where the layouts are the same, or the model whole.
 */
static const struct tiered_block *block_of(const struct updates_file *f, uint32_t index)
{
    return &(f->tensors ? f->rows : f->own)->blocks[index];
}

static int read_part(void *source, uint32_t index, size_t offset, size_t bytes,
                     void *out, struct tiered_error *err)
{
    const struct updates_file *f = source;
    const struct tiered_block *block = block_of(f, index);
    size_t size = tiered_dtype_size(block->dtype);
    return f->tensors
               ? read_reordered(f, block, offset / size, bytes / size, out, err)
               : tiered_safetensors_read_tensor(f->file, block->first_tensor,
                                                block->first_element * size + offset,
                                                bytes, out, err);
}

static int read_block(void *source, uint32_t block, void *out, struct tiered_error *err)
{
    const struct updates_file *f = source;
    size_t size = (size_t)block_of(f, block)->size_bytes;
    return read_part(source, block, 0, size, out, err);
}

/** A figure of the update's trainer: NaN when absent. */
static int read_figure(const struct tiered_metadata *metadata, const char *key,
                       double *ret, struct tiered_error *err)
{
    const char *text = tiered_metadata_get(metadata, key);
    *ret = NAN;
    if (!text) {
        return 0;
    }
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0 && value <= 0x1p53)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "%s is '%.40s'; it must be a number in 0..2^53", key, text);
    }
    *ret = value;
    return 0;
}

static int read_figures(const struct updates_file *f, struct tiered_contribution *c,
                        struct tiered_error *err)
{
    const struct tiered_metadata *metadata = tiered_safetensors_get_metadata(f->file);
    c->size = sizeof(*c);
    c->node = f->path;
    if (tiered_metadata_num_examples(metadata, 1, &c->num_examples, err) != 0 ||
        read_figure(metadata, "local_steps", &c->local_steps, err) != 0 ||
        read_figure(metadata, "a_norm", &c->a_norm, err) != 0) {
        return tiered_error_prefix(err, "'%s': ", f->path);
    }
    return 0;
}

/** The leader's tensors, with the roles that the update says where the leader is
    silent. */
static struct tiered_layout *make_layout(const struct tiered_layout *leader,
                                         const struct tiered_layout *update,
                                         struct tiered_error *err)
{
    struct tiered_layout_builder *b = tiered_layout_build();
    TIERED_FREE struct named *index = index_names(update);
    if (!b || !index) {
        tiered_layout_builder_destroy(b);
        tiered_fail(err, TIERED_ENOMEM, "no memory for the tensors");
        return NULL;
    }
    for (uint32_t i = 0; i < leader->m.n_tensors; i++) {
        const struct tiered_tensor *t = &leader->m.tensors[i];
        const struct tiered_tensor *u = find(update, index, t->name);
        bool silent = t->role == tiered_role_default(t->dtype);
        enum tiered_role role = u && silent ? u->role : t->role;
        if (tiered_layout_add(b, t->name, t->dtype, role, t->rank, t->shape, err) !=
            0) {
            tiered_layout_builder_destroy(b);
            return NULL;
        }
    }
    return tiered_layout_seal(b, err);
}

static int open_file(struct updates_file *f, const char *path, struct tiered_error *err)
{
    size_t length = strlen(path);
    f->path = length > PATH_SHOWN ? path + length - PATH_SHOWN : path;
    if (tiered_safetensors_open(path, &f->file, err) != 0) {
        return -1;
    }
    f->own = tiered_safetensors_get_layout(f->file);
    return 0;
}

/** Of the rows; of the file alone for whole models. Borrowed. */
static struct tiered_layout *layout_of(const struct updates *u, size_t file)
{
    return u->layout ? u->layout : tiered_safetensors_get_layout(u->files[file].file);
}

static int match_all(struct updates *u, bool has_base, struct tiered_error *err)
{
    const struct updates_file *leader = &u->files[has_base ? u->n : 0];
    u->layout = make_layout(leader->own, u->files[0].own, err);
    if (!u->layout) {
        return -1;
    }
    for (size_t i = 0; i < u->n + has_base; i++) {
        u->files[i].rows = u->layout;
        if (match(&u->files[i], leader->path, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int open_all(struct updates *u, const char *const *paths, const char *base,
                    bool whole, struct tiered_error *err)
{
    size_t n_files = u->n + (base ? 1 : 0);
    for (size_t i = 0; i < n_files; i++) {
        if (open_file(&u->files[i], i < u->n ? paths[i] : base, err) != 0) {
            return -1;
        }
    }
    if (!whole && match_all(u, base != NULL, err) != 0) {
        return -1;
    }
    for (size_t i = 0; i < u->n; i++) {
        u->rows[i].read = read_block;
        u->rows[i].read_part = read_part;
        u->rows[i].source = &u->files[i];
        u->rows[i].layout = layout_of(u, i);
        if (read_figures(&u->files[i], &u->rows[i].contribution, err) != 0) {
            return -1;
        }
    }
    return 0;
}

int updates_open(const char *const *paths, size_t n, const char *base, bool whole,
                 struct updates *ret, struct tiered_error *err)
{
    struct updates u = {.n = n};
    u.files = calloc(n + 1, sizeof(u.files[0]));
    u.rows = calloc(n, sizeof(u.rows[0]));
    int rc = u.files && u.rows
                 ? open_all(&u, paths, base, whole, err)
                 : tiered_fail(err, TIERED_ENOMEM, "no memory for %zu updates", n);
    if (rc != 0) {
        updates_close(&u);
        return -1;
    }
    *ret = u;
    return 0;
}

void updates_close(struct updates *u)
{
    for (size_t i = 0; u->files && i <= u->n; i++) {
        tiered_safetensors_close(u->files[i].file);
        free(u->files[i].tensors);
    }
    free(u->files);
    free(u->rows);
    tiered_layout_unref(u->layout);
    *u = (struct updates){0};
}

int updates_base(const struct updates *u, bool allow_bad, struct tiered_model **ret,
                 struct tiered_error *err)
{
    struct updates_file *f = &u->files[u->n];
    struct tiered_layout *layout = layout_of(u, u->n);
    struct tiered_row row = {
        .contribution.node = f->path, .read = read_block, .source = f};
    if (!allow_bad && tiered_row_screen(layout, &row, err) != 0) {
        return -1;
    }
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = tiered_model_create(layout, err);
    if (!model) {
        return -1;
    }
    for (uint32_t b = 0; b < layout->n_blocks; b++) {
        if (read_block(f, b, model->data + layout->blocks[b].offset_bytes, err) != 0) {
            return -1;
        }
    }
    *ret = TIERED_STEAL(model);
    return 0;
}

struct screen {
    struct updates *updates;
    struct tiered_error *found; /* one a row; code TIERED_OK: finite */
};

static int screen_row(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    (void)worker;
    struct screen *s = user;
    struct tiered_error *found = &s->found[i];
    const struct tiered_row *row = &s->updates->rows[i];
    if (tiered_row_screen(row->layout, row, found) != 0 &&
        found->code != TIERED_ERANGE) {
        return tiered_fail(err, found->code, "%s", found->text);
    }
    return 0;
}

int updates_screen(struct updates *u, bool exclude, struct tiered_pool *pool,
                   void (*warn)(const struct tiered_error *why),
                   struct tiered_error *err)
{
    TIERED_FREE struct tiered_error *found = calloc(u->n, sizeof(found[0]));
    if (!found) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %zu updates", u->n);
    }
    struct screen screen = {u, found};
    if (tiered_pool_for(pool, u->n, screen_row, &screen, err) != 0) {
        return -1;
    }
    for (size_t i = 0; i < u->n; i++) {
        if (found[i].code == TIERED_OK) {
            continue;
        }
        if (!exclude) {
            return tiered_fail(err, found[i].code, "%s", found[i].text);
        }
        u->rows[i].contribution.excluded = 1;
        u->n_excluded++;
        warn(&found[i]);
    }
    return 0;
}

int updates_check(struct updates *u, struct tiered_strategy *strategy,
                  const struct tiered_model *base, bool exclude,
                  void (*warn)(const struct tiered_error *why),
                  struct tiered_error *err)
{
    for (size_t i = 0; i < u->n; i++) {
        struct tiered_error why = {0};
        struct tiered_contribution *c = &u->rows[i].contribution;
        if (c->excluded ||
            tiered_strategy_check(strategy, base, &u->rows[i], &why) == 0) {
            continue;
        }
        if (!exclude || why.code == TIERED_ENOMEM || why.code == TIERED_EIO) {
            return tiered_fail(err, why.code, "%s", why.text);
        }
        c->excluded = 1;
        u->n_excluded++;
        warn(&why);
    }
    return 0;
}

int updates_count(struct updates *u, struct tiered_error *err)
{
    u->num_examples = 0;
    for (size_t i = 0; i < u->n; i++) {
        const struct tiered_contribution *c = &u->rows[i].contribution;
        u->num_examples += c->excluded ? 0 : c->num_examples;
        if (u->num_examples > MAX_EXAMPLES) {
            return tiered_fail(err, TIERED_ERANGE,
                               "'%s': num_examples of the updates sum to more than "
                               "2^53",
                               c->node);
        }
    }
    return 0;
}
